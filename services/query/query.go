package query

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite/vtab"

	"spate/shared/format"
	"spate/shared/rule"
)

// Config says what statements read.
type Config struct {
	// Log has the events.
	Log Log
	// Store has alerts and incidents; nil: there are no such tables, and NoStore says why.
	Store   Store
	NoStore string
	// Tables declare the columns of events; none are those of rule.Activity. A table's own name is a name of activity.
	Tables []*rule.Table
	// Events say how events are written.
	Events format.Config
	// MaxAhead is how far an event's time may lie past its append time; 0 is any. Lateness is how far the watermark stays behind, for rules.
	MaxAhead, Lateness time.Duration
	// IdleTimeout is after which a silent partition no longer holds windows open, for rules that are followed; 0 waits forever.
	IdleTimeout time.Duration
	// From and To bound the append time of records, to the millisecond: from is included, to is not. Zero means no bound.
	From, To time.Time
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	var errs []error
	if c.Log == nil {
		errs = append(errs, errors.New("log: missing"))
	} else if !c.Log.Times() && (!c.From.IsZero() || !c.To.IsZero()) {
		errs = append(errs, errors.New("from, to, since: the records in a file have no append time; use a condition on the event time in WHERE"))
	}
	if !c.From.IsZero() && !c.To.IsZero() && !c.From.Before(c.To) {
		errs = append(errs, fmt.Errorf("from, to: %s is not before %s", c.From.Format(time.RFC3339), c.To.Format(time.RFC3339)))
	}
	return errors.Join(append(errs, c.Events.Validate())...)
}

// Bounds bound a statement; 0 means no bound.
type Bounds struct {
	Rows    int64         // of the result
	Bytes   int64         // keys and values of the records that are read
	Timeout time.Duration // of reading
	// Follow, for rules: goes on with what comes, until the context ends.
	Follow bool
}

// Validate reports every problem at once.
func (b Bounds) Validate() error {
	var errs []error
	if b.Rows < 0 {
		errs = append(errs, fmt.Errorf("max-rows: %d is negative; use 0 for no limit", b.Rows))
	}
	if b.Bytes < 0 {
		errs = append(errs, fmt.Errorf("max-bytes: %d is negative; use 0 for no limit", b.Bytes))
	}
	if b.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout: %v is negative; use 0 for no limit", b.Timeout))
	}
	return errors.Join(errs...)
}

// Output takes a result. Neither function keeps its argument; an error of either ends the statement and is returned.
type Output struct {
	// Columns is called once, before the first row.
	Columns func(names []string) error
	// Row has a value for each column: nil, int64, float64, string or []byte.
	Row func(values []any) error
	// Windows adds two columns before those of a rule, window_start and window_end, unless it has them.
	Windows bool
	// Profile, if not nil, is set for a rule.
	Profile *Profile
}

// Reasons why a result is not complete.
const (
	ByRows        = "max-rows"
	ByBytes       = "max-bytes"
	ByTimeout     = "timeout"
	ByInterrupted = "interrupted"
)

// Summary is how a statement went.
type Summary struct {
	Rows int64 `json:"rows"`
	// Read counts the records that were read, of those that the topics of the statement have; 0 if that is not known. Bytes are those of their keys and values.
	Read  int64 `json:"records_read"`
	Of    int64 `json:"records,omitempty"`
	Bytes int64 `json:"bytes_read"`
	// Invalid are records among them that are not events.
	Invalid int64 `json:"invalid,omitempty"`
	// Late are events that were too late for the rule.
	Late int64 `json:"late,omitempty"`
	// Rule: the engine has evaluated the statement.
	Rule bool `json:"rule,omitempty"`
	// Partial: the result is of a part of what was asked for, because of By. ByRows alone cuts only the end of it off.
	Partial bool          `json:"partial"`
	By      string        `json:"by,omitempty"`
	Notes   []string      `json:"notes,omitempty"`
	Elapsed time.Duration `json:"-"`
}

// DB answers statements about a log. It runs one at a time.
type DB struct {
	cfg     Config
	tables  []*source
	missing map[string]string // why a table is not there
	from    int64
	to      int64 // included

	number int64
	sql    *sql.DB
	conn   *sql.Conn
	handle uintptr
	mu     sync.Mutex
	run    *run
}

// Open returns a database for a log. It reads nothing. ctx is that of opening alone.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Tables) == 0 {
		cfg.Tables = []*rule.Table{rule.Activity()}
	}
	db := &DB{cfg: cfg, from: math.MinInt64, to: math.MaxInt64, missing: map[string]string{}}
	if !cfg.From.IsZero() {
		db.from = cfg.From.UnixMilli()
	}
	if !cfg.To.IsZero() {
		db.to = cfg.To.UnixMilli() - 1
	}
	db.declare()
	return db, db.connect(ctx)
}

// declare lists the tables.
func (db *DB) declare() {
	times := db.cfg.Log.Times()
	add := func(name string, topic Topic, invalid bool) {
		kind := topic
		if invalid {
			kind = DLQ
		}
		prunes := topic == Activity && !invalid && times && db.cfg.MaxAhead > 0
		t := &source{db: db, topic: topic, invalid: invalid, fields: append(eventFields(db.cfg.Tables, db.cfg.Events.Fields.Time, prunes), recordFields(kind, times)...), rows: 10_000_000}
		t.Name = name
		for _, f := range t.fields {
			t.Columns = append(t.Columns, f.Column)
		}
		db.tables = append(db.tables, t)
	}
	topics := db.cfg.Log.Topics()
	add("activity", Activity, false)
	for _, t := range db.cfg.Tables {
		if !slices.ContainsFunc(db.tables, func(s *source) bool { return strings.EqualFold(s.Name, t.Name) }) && !strings.HasPrefix(strings.ToLower(t.Name), "sqlite_") {
			add(t.Name, Activity, false)
		}
	}
	for _, topic := range []Topic{Late, DLQ} {
		switch {
		case slices.Contains(topics, topic):
			add(string(topic), topic, false)
		case topic == DLQ:
			add(string(DLQ), Activity, true)
		default:
			db.missing[string(topic)] = "only a pipeline can decide which events are late"
		}
	}
	if db.cfg.Store == nil {
		why := cmp.Or(db.cfg.NoStore, "no database is configured")
		db.missing["alerts"], db.missing["incidents"] = why, why
		return
	}
	db.tables = append(db.tables, db.alerts(), db.incidents())
}

// Tables are what statements can read.
func (db *DB) Tables() (out []Table) {
	for _, t := range db.tables {
		out = append(out, t.Table)
	}
	return out
}

func (db *DB) tableNames() (out []string) {
	for _, t := range db.tables {
		out = append(out, t.Name)
	}
	return out
}

// Close ends the connection. No statement may be running.
func (db *DB) Close() error {
	sessions.Delete(db.number)
	var err error
	if db.conn != nil {
		err = db.conn.Close()
	}
	return errors.Join(err, db.sql.Close())
}

// run is a statement that is running.
type run struct {
	db     *DB
	bounds Bounds
	// ctx is that of reading: when it ends, scans end, and SQLite finishes over what they have read.
	ctx     context.Context
	stop    context.CancelCauseFunc
	read    atomic.Int64
	bytes   atomic.Int64
	invalid atomic.Int64
	// scans are those that were short enough to be kept, by table and conditions. Only SQLite's goroutine uses them.
	scans map[string][]batch
	kept  int // bytes

	mu     sync.Mutex
	err    error
	topics []Topic
	notes  []string
}

// reached is the cause for which reading ended: a bound.
type reached string

func (r reached) Error() string { return string(r) }

// fail keeps the first error of a scan.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

func (r *run) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// maxNotes bounds what is told of what cannot be read.
const maxNotes = 20

func (r *run) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.notes) < maxNotes && !slices.Contains(r.notes, text) {
		r.notes = append(r.notes, text)
	}
}

// uses notes that a topic is read.
func (r *run) uses(t Topic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.topics, t) {
		r.topics = append(r.topics, t)
	}
}

// take counts records, and ends the reading at its bound.
func (r *run) take(records []Record) error {
	n := int64(0)
	for i := range records {
		n += int64(len(records[i].Key) + len(records[i].Value))
	}
	r.read.Add(int64(len(records)))
	if all := r.bytes.Add(n); r.bounds.Bytes > 0 && all >= r.bounds.Bytes {
		r.stop(reached(ByBytes))
		return context.Canceled
	}
	return r.ctx.Err()
}

// by is the bound at which reading ended; empty if there was none.
func (r *run) by() string {
	if r.ctx.Err() == nil {
		return ""
	}
	var bound reached
	switch cause := context.Cause(r.ctx); {
	case errors.As(cause, &bound):
		return string(bound)
	default:
		return ByInterrupted
	}
}

// grace is how long SQLite may take to finish over what was read once reading has ended at a bound.
const grace = 2 * time.Second

// Run runs a statement. If it is wrong, the error is an [*Error]. A partial result is not an error: the summary says so. The end of ctx ends the reading, and
// shortly after that the statement.
func (db *DB) Run(ctx context.Context, statement string, b Bounds, out Output) (Summary, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	began := db.cfg.Now()
	s := Summary{}
	if err := b.Validate(); err != nil {
		return s, err
	}
	tokens, wrong := lex(statement)
	r := &run{db: db, bounds: b, scans: map[string][]batch{}}
	reading, cancel := context.WithCancelCause(ctx)
	r.ctx, r.stop = reading, cancel
	defer cancel(nil)
	if b.Timeout > 0 {
		var end context.CancelFunc
		r.ctx, end = context.WithTimeoutCause(reading, b.Timeout, reached(ByTimeout))
		defer end()
	}
	db.run = r
	defer func() { db.run = nil }()
	var err error
	switch {
	case wrong != nil:
		err = wrong
	case isRule(tokens):
		s.Rule = true
		err = r.evaluate(statement, tokens, &s, out)
	case b.Follow:
		err = at(0, "group by a window, as in GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id", "a statement without a window cannot run live")
	default:
		err = r.query(ctx, statement, tokens, &s, out)
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		e.statement = statement
	}
	s.Read, s.Bytes, s.Invalid, s.Notes = r.read.Load(), r.bytes.Load(), r.invalid.Load(), r.notes
	if by := r.by(); by != "" && err == nil {
		s.Partial, s.By = true, by
	}
	if err == nil {
		s.Of = r.size(ctx)
	}
	s.Elapsed = db.cfg.Now().Sub(began)
	return s, err
}

// size is how many records the topics that were read have; 0 if that is not known.
func (r *run) size(ctx context.Context) (n int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for _, t := range r.topics {
		size, err := r.db.cfg.Log.Size(ctx, t)
		if err != nil {
			return 0
		}
		n += size
	}
	return n
}

// errRows ends a result at its bound.
var errRows = errors.New("the result has reached its limit")

// emit hands over a row.
func (r *run) emit(s *Summary, out Output, values []any) error {
	if r.bounds.Rows > 0 && s.Rows >= r.bounds.Rows {
		s.Partial, s.By = true, ByRows
		return errRows
	}
	if err := out.Row(values); err != nil {
		return err
	}
	s.Rows++
	return nil
}

// query runs a statement in SQLite.
func (r *run) query(ctx context.Context, statement string, tokens []token, s *Summary, out Output) error {
	tokens, wrong := check(tokens)
	if wrong != nil {
		return wrong
	}
	text, wrong := rewrite(statement[:tokens[len(tokens)-1].to], tokens)
	if wrong != nil {
		return wrong
	}
	// SQLite itself is interrupted a little later than the scans, which end by themselves.
	executing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	done, interrupted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(interrupted)
		select {
		case <-done:
			return
		case <-r.ctx.Done():
		}
		late := time.NewTimer(grace)
		defer late.Stop()
		for {
			select {
			case <-done:
				return
			case <-late.C:
				cancel()
				r.db.interrupt()
				late.Reset(100 * time.Millisecond) // it may have been between two statements
			}
		}
	}()
	err := r.rows(executing, text.text.String(), s, out)
	close(done)
	<-interrupted
	switch {
	case errors.Is(err, errRows):
		return nil
	case r.failed() != nil:
		return r.failed()
	case err != nil && r.ctx.Err() != nil && (executing.Err() != nil || strings.Contains(err.Error(), "interrupted")):
		return nil // by() says why
	case err != nil:
		offset := r.db.errorOffset()
		if near, ok := strings.CutPrefix(message(err), "near "); ok && offset < 0 {
			offset = r.db.syntaxAt(ctx, near, text.text.String())
		}
		return r.db.explain(err, statement, text, tokens, offset)
	}
	return nil
}

func (r *run) rows(ctx context.Context, text string, s *Summary, out Output) (err error) {
	rows, err := r.db.conn.QueryContext(ctx, text)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	if err := out.Columns(names); err != nil {
		return err
	}
	values, places := make([]any, len(names)), make([]any, len(names))
	for i := range values {
		places[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(places...); err != nil {
			return err
		}
		if err := r.emit(s, out, values); err != nil {
			return err
		}
	}
	return rows.Err()
}

// syntaxAt finds the token that SQLite does not expect: the first one like it with which the text ends in an error, and not too early.
func (db *DB) syntaxAt(ctx context.Context, near, text string) int {
	wanted, ok := strings.CutSuffix(near, ": syntax error")
	if !ok {
		return -1
	}
	tokens, wrong := lex(text)
	if wrong != nil {
		return -1
	}
	for _, t := range tokens {
		if `"`+t.text+`"` != wanted {
			continue
		}
		if err := db.prepare(ctx, text[:t.to]); err != nil && strings.HasPrefix(message(err), "near "+wanted) {
			return t.from
		}
	}
	return -1
}

// prepare returns what SQLite does not understand of a statement.
func (db *DB) prepare(ctx context.Context, text string) error {
	rows, err := db.conn.QueryContext(ctx, "EXPLAIN "+text)
	if err != nil {
		return err
	}
	defer rows.Close()
	return rows.Err()
}

// scan reads a part of a topic, and sends the rows of it.
func (r *run) scan(ctx context.Context, t *source, part Range, fields []field, send func(batch) bool) error {
	d, err := newDecoder(r.db.cfg.Events, fields, r.db.cfg.Now)
	if err != nil {
		return err
	}
	if t.topic == Activity {
		d.valid, d.invalid, d.aheadMS = !t.invalid, t.invalid, r.db.cfg.MaxAhead.Milliseconds()
	}
	r.uses(t.topic)
	b, size := batch{}, 0
	err = r.db.cfg.Log.Read(ctx, t.topic, part, r.note, func(records []Record) error {
		if err := r.take(records); err != nil {
			return err
		}
		for i := range records {
			rec := &records[i]
			if r.db.outside(rec) {
				continue
			}
			var ok bool
			if b.values, ok, err = d.row(ctx, rec, b.values); err != nil {
				return err
			}
			if !ok {
				continue
			}
			b.rows++
			size += len(rec.Value)
			if b.rows >= batchRows || size >= batchBytes {
				if !send(b) {
					return context.Canceled
				}
				b, size = batch{values: make([]vtab.Value, 0, len(b.values))}, 0
			}
		}
		return nil
	})
	r.invalid.Add(d.invalids)
	if err == nil || r.ctx.Err() != nil {
		if b.rows > 0 {
			send(b)
		}
		return nil
	}
	return err
}

// outside reports whether a record is not of the time that is asked about: a log may hand over more.
func (db *DB) outside(r *Record) bool {
	return r.AppendedMS != 0 && (r.AppendedMS < db.from || r.AppendedMS > db.to)
}
