package query

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/rule"
	"spate/shared/window"
)

// maxOpen bounds the open windows of a rule, as the detector does by default.
const maxOpen = 5_000_000

// insert makes a rule of a query.
const insert = "INSERT INTO alerts "

// compile makes a rule of a statement: a query, or a script with one rule.
func (db *DB) compile(statement string, tokens []token) (*rule.Set, error) {
	source, shift := statement, 0
	first := tokens[0].from
	switch {
	case tokens[0].is("EXPLAIN"):
		return nil, at(first, "remove it", "a statement that groups by a window runs in the engine, which has no plan to explain")
	case tokens[0].is("SELECT"):
		source, shift = statement[:first]+insert+statement[first:], len(insert)
	}
	set, errs := rule.Compile(source, rule.Options{Name: "query", Tables: db.cfg.Tables})
	if len(errs) > 0 {
		e := errs[0]
		pos := int(e.Pos)
		if pos >= first+shift {
			pos -= shift
		} else if pos > first {
			pos = first
		}
		return nil, &Error{Pos: pos, Message: e.Message, Fix: e.Fix}
	}
	if len(set.Rules) != 1 {
		return nil, at(0, "run one of them", "the script has %d rules", len(set.Rules))
	}
	switch r := set.Rules[0]; {
	case r.Mode == rule.Off:
		return nil, at(first, "remove the directive", "the rule's mode is off")
	case r.Window.Kind == rule.Session:
		return nil, at(first, "use TUMBLE, HOP or CUMULATE", "SESSION windows are not evaluated yet")
	}
	return set, nil
}

// evaluation is a rule that runs in the engine.
type evaluation struct {
	run      *run
	rule     *rule.Rule
	stream   window.Stream
	events   *format.Reader
	decoder  *decoder // for the append time
	sources  []window.Source
	heard    []int64 // wall clock at which each source partition last had an event
	combiner *window.Combiner
	table    *window.Table
	idle     window.Idleness
	offset   int64 // of the next batch
	verdicts []window.Verdict
	values   []any
	windows  []string // the columns before the rule's
	summary  *Summary
	out      Output
	followed bool
	flushed  time.Time
	taken    time.Time // when something was handed over, or nothing
	profiler *profiler // nil: nobody asks for a profile
}

// evaluate runs a rule over the log.
func (r *run) evaluate(statement string, tokens []token, s *Summary, out Output) error {
	set, err := r.db.compile(statement, tokens)
	if err != nil {
		return err
	}
	cfg := r.db.cfg
	lateness, clock, err := set.Stream()
	if err != nil {
		return err
	}
	if lateness < 0 {
		lateness = cfg.Lateness
	}
	result, profiler := set.Rules[0], (*profiler)(nil)
	if out.Profile != nil {
		profiler = newProfiler(result)
		if profiler.sweep != nil {
			set.Rules[0] = profiler.sweep.Rule
		}
		defer func() { *out.Profile = profiler.profile() }()
	}
	plan := set.Plan()
	stream, err := window.NewStream(plan, lateness)
	if err != nil {
		return at(0, "", "%v", err)
	}
	events := cfg.Events
	events.Columns = plan.Inputs
	if clock != "" && !slices.Contains(events.Fields.Time, clock) {
		events.Fields.Time = []string{clock}
	}
	e := &evaluation{run: r, rule: set.Rules[0], profiler: profiler, stream: stream, combiner: window.NewCombiner(stream), table: window.NewTable(stream), summary: s, out: out, followed: r.bounds.Follow,
		decoder: &decoder{now: cfg.Now}, idle: window.Idleness{Stream: stream, TimeoutMS: cfg.IdleTimeout.Milliseconds()}}
	if e.events, err = format.New(events); err != nil {
		return err
	}
	defer func() {
		if n := e.combiner.Faults() + e.table.Stats().Faults; n > 0 {
			r.note(fmt.Sprintf("faults: %d; each time, a result could not be computed and is NULL (a division by zero, an overflow, an invalid cast), or an event was left out because its key is longer than %d bytes", n, window.MaxKey))
		}
	}()
	n, err := cfg.Log.Partitions(r.ctx, Activity)
	if err != nil {
		return err
	}
	for range n {
		e.sources, e.heard = append(e.sources, window.NewSource()), append(e.heard, cfg.Now().UnixMilli())
	}
	e.values = make([]any, len(e.rule.Columns))
	names := make([]string, len(result.Columns))
	for i, c := range result.Columns {
		names[i] = c.Name
	}
	if of := []string{"window_start", "window_end"}; out.Windows && !slices.ContainsFunc(of, func(name string) bool { return slices.Contains(names, name) }) {
		e.windows = of
	}
	if err := out.Columns(slices.Concat(e.windows, names)); err != nil {
		return err
	}
	part := Everything()
	part.FromMS, part.ToMS, part.Follow, part.Silence = r.db.from, r.db.to, r.bounds.Follow, cfg.IdleTimeout
	r.uses(Activity)
	err = cfg.Log.Read(r.ctx, Activity, part, r.note, e.take)
	if errors.Is(err, errRows) {
		return nil
	}
	if err != nil && r.ctx.Err() == nil {
		return err
	}
	if r.ctx.Err() != nil {
		return nil // windows that are open are not complete
	}
	for p := range e.sources {
		e.sources[p].Floor = window.EndOfTime
	}
	if err := e.flush(); err != nil && !errors.Is(err, errRows) {
		return err
	}
	return nil
}

const (
	evaluatedPanes = 1 << 12 // that wait before they are handed to the table
	flushEvery     = 200 * time.Millisecond
	// handedOver is how often something is handed over at least, if only that there is nothing: unless the broker cannot be reached.
	handedOver = time.Second
)

// take judges records as the router does.
func (e *evaluation) take(records []Record) error {
	if len(records) > 0 {
		if err := e.run.take(records); err != nil {
			return err
		}
	}
	now := e.run.db.cfg.Now()
	if e.followed && !e.taken.IsZero() && now.Sub(e.taken) > handedOver { // the broker was away, which is not silence: it begins anew
		for p := range e.heard {
			e.heard[p] = now.UnixMilli()
		}
	}
	e.taken = now
	ahead := e.run.db.cfg.MaxAhead.Milliseconds()
	for i := range records {
		r := &records[i]
		if e.run.db.outside(r) {
			continue
		}
		if int(r.Partition) >= len(e.sources) {
			return fmt.Errorf("partitions were added to the topic; run the statement again")
		}
		mark, reason, err := e.events.Mark(e.run.ctx, r.Value, r.Headers)
		if err != nil {
			return err
		}
		if reason.Skipped() {
			continue
		}
		limit := e.decoder.limit(r)
		if reason != activity.ReasonNone || ahead > 0 && mark.TimeMS > limit+ahead {
			e.run.invalid.Add(1)
			continue
		}
		e.heard[r.Partition] = now.UnixMilli()
		event := window.Event{MS: mark.TimeMS, Partition: r.Partition, Offset: r.Offset, Identity: window.Identity(mark.ID), Values: e.events.Columns(mark, r.Headers)}
		fate, _ := e.combiner.Add(&event, e.sources[r.Partition].Judge(e.stream.LatenessMS, mark.TimeMS, limit))
		if fate.Late() {
			e.summary.Late++
		}
		if e.combiner.Panes() >= evaluatedPanes {
			if err := e.flush(); err != nil {
				return err
			}
		}
	}
	if e.followed && now.Sub(e.flushed) >= flushEvery {
		e.flushed = now
		e.silence(now.UnixMilli())
		return e.flush()
	}
	return nil
}

// silence promises a watermark for source partitions that have had no event for the idle timeout.
func (e *evaluation) silence(now int64) {
	if e.idle.TimeoutMS <= 0 {
		return
	}
	peers := make([]window.Peer, len(e.sources))
	for p := range e.sources {
		e.sources[p].Idle = now-e.heard[p] >= e.idle.TimeoutMS
		peers[p] = window.Peer{Source: e.sources[p], Known: true}
	}
	w := e.idle.Promise(now, peers)
	if w == window.NoTime {
		return
	}
	for p := range e.sources {
		if s := &e.sources[p]; s.Idle {
			s.Floor = max(s.Floor, w)
		}
	}
}

// flush hands what was added up to the table, and prints the windows that close.
func (e *evaluation) flush() (err error) {
	h := window.Header{Sources: int32(len(e.sources))}
	for p, s := range e.sources {
		if w := s.Watermark(e.stream.LatenessMS); w != window.NoTime {
			h.Watermarks = append(h.Watermarks, window.Watermark{Partition: int32(p), WatermarkMS: w})
		}
	}
	e.verdicts = e.verdicts[:0]
	e.combiner.Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, batch []byte) {
		if err == nil {
			e.verdicts, err = e.table.Apply(e.offset, batch, e.verdicts)
		}
		e.offset++
	})
	if err != nil {
		return err
	}
	e.table.Committed(e.table.Position(e.offset))
	if open := e.table.Stats().Open(); open > maxOpen {
		return fmt.Errorf("more than %d windows are open at once; read less of the log (--since, --from, --to)", maxOpen)
	}
	for _, v := range e.verdicts {
		if v.State != window.Closed {
			continue
		}
		if err := e.row(v); err != nil {
			return err
		}
	}
	return nil
}

// row prints a window.
func (e *evaluation) row(v window.Verdict) error {
	d := json.NewDecoder(bytes.NewReader(slices.Concat([]byte("{"), v.Columns, []byte("}"))))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("read the columns of the rule: %w", err)
	}
	for i, c := range e.rule.Columns {
		_, err := d.Token() // the name
		var t json.Token
		if err == nil {
			t, err = d.Token()
		}
		if err != nil {
			return fmt.Errorf("read the columns of the rule: %w", err)
		}
		e.values[i] = ofColumn(c.Type, t)
	}
	values := e.values
	if p := e.profiler; p != nil {
		if p.sweep != nil {
			n := len(values) - 2
			p.swept(v.Key, values[n])
			if values[n+1] != int64(1) {
				return nil
			}
			values = values[:n]
		}
		p.found(v.Pane.StartMS)
	}
	if len(e.windows) > 0 {
		values = slices.Concat([]any{instantText(v.Pane.StartMS), instantText(v.Pane.StartMS + v.Pane.SizeMS)}, values)
	}
	return e.run.emit(e.summary, e.out, values)
}

// instantText is a time as a rule's row has it.
func instantText(ms int64) string {
	return strings.TrimSuffix(time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05.000"), ".000")
}

// ofColumn is a value of a rule's row, as SQLite would have it.
func ofColumn(t rule.Type, v json.Token) any {
	switch v := v.(type) {
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil && t.Kind != rule.Double && t.Kind != rule.Float {
			return n
		}
		if f, err := v.Float64(); err == nil && (t.Kind == rule.Double || t.Kind == rule.Float) {
			return f
		}
		return v.String()
	case string:
		if t.Kind == rule.Timestamp {
			text := strings.Replace(v, "T", " ", 1)
			return strings.TrimSuffix(text, ".000")
		}
		return v
	}
	return nil
}

// Check reports what is wrong with a statement that is a rule, without running it; nil also for any other.
func (db *DB) Check(statement string) error {
	tokens, wrong := lex(statement)
	if wrong != nil {
		wrong.statement = statement
		return wrong
	}
	if !isRule(tokens) {
		return nil
	}
	_, err := db.compile(statement, tokens)
	if e := (*Error)(nil); errors.As(err, &e) {
		e.statement = statement
	}
	return err
}
