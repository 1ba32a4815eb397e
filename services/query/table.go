package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	"modernc.org/sqlite/vtab"

	"github.com/twmb/franz-go/pkg/kgo"
)

type header = kgo.RecordHeader

// source is a table, and where its rows come from: a topic, or the store.
type source struct {
	Table
	db     *DB
	topic  Topic
	fields []field
	// invalid: the rows are the records of the topic that are not events.
	invalid bool
	stored  func(ctx context.Context, w wanted, row func([]vtab.Value) bool) error
	rows    int64 // about how many there are
}

// wanted is what a condition says of a column.
type wanted []condition

// condition compares a column with a value.
type condition struct {
	column int
	op     vtab.ConstraintOp
	value  vtab.Value
}

// operators are those that can narrow a scan.
var operators = map[vtab.ConstraintOp]string{vtab.OpEQ: "=", vtab.OpIS: "=", vtab.OpGT: ">", vtab.OpGE: ">=", vtab.OpLT: "<", vtab.OpLE: "<="}

// BestIndex implements vtab.Table: it asks for the values that columns which prune are compared with. SQLite evaluates the conditions all the same.
func (t *source) BestIndex(info *vtab.IndexInfo) error {
	var plan strings.Builder
	cost, n := float64(t.rows), 0
	for i := range info.Constraints {
		c := &info.Constraints[i]
		op := operators[c.Op]
		if !c.Usable || op == "" || c.Column < 0 || !t.Columns[c.Column].Prunes {
			continue
		}
		c.ArgIndex = n
		fmt.Fprintf(&plan, "%d %d;", c.Column, c.Op)
		n++
		if cost /= 4; op == "=" {
			cost /= 16
		}
	}
	fmt.Fprintf(&plan, "%x", info.ColUsed)
	info.IdxStr, info.EstimatedCost, info.EstimatedRows = plan.String(), max(cost, 1), int64(max(cost, 1))
	return nil
}

// Open implements vtab.Table.
func (t *source) Open() (vtab.Cursor, error) { return &cursor{t: t}, nil }

// Disconnect implements vtab.Table.
func (t *source) Disconnect() error { return nil }

// Destroy implements vtab.Table.
func (t *source) Destroy() error { return nil }

// batch is some rows, one behind the other, with the columns that are used. Its error is why there are no more.
type batch struct {
	values []vtab.Value
	rows   int
	err    error
}

const (
	batchRows  = 1024
	batchBytes = 1 << 20
	batches    = 2 // that wait
)

// cursor reads the rows of a scan, which runs beside SQLite.
type cursor struct {
	t      *source
	at     []int // where a column is in a row; -1 if it is not used
	width  int
	rows   chan batch
	batch  batch
	row    int
	number int64
	kept   *kept   // what was fetched so far; nil if it is not kept
	again  []batch // of a scan that was kept
	end    context.CancelFunc
	closed chan struct{} // nobody takes rows any more
	scan   sync.WaitGroup
}

// Filter implements vtab.Cursor.
func (c *cursor) Filter(_ int, plan string, values []vtab.Value) error {
	c.stop()
	parts := strings.Split(plan, ";")
	used, err := strconv.ParseUint(parts[len(parts)-1], 16, 64)
	if err != nil || len(parts)-1 != len(values) {
		return fmt.Errorf("plan %q is unknown", plan)
	}
	var w wanted
	for i, p := range parts[:len(parts)-1] {
		var column, op int
		if _, err := fmt.Sscanf(p, "%d %d", &column, &op); err != nil {
			return fmt.Errorf("plan %q is unknown", plan)
		}
		w = append(w, condition{column, vtab.ConstraintOp(op), values[i]})
	}
	c.at, c.width = make([]int, len(c.t.Columns)), 0
	var fields []field
	for i := range c.at {
		c.at[i] = -1
		if used&(1<<min(i, 63)) != 0 { // the last bit stands for all columns from there on
			c.at[i] = c.width
			c.width++
			if c.t.stored == nil {
				fields = append(fields, c.t.fields[i])
			}
		}
	}
	run := c.t.db.run
	if run == nil {
		return errors.New("no statement is running")
	}
	// The inner side of a join is scanned for every row of the outer one.
	name := fmt.Sprintf("%s %s", c.t.Name, plan)
	for _, v := range values {
		text := fmt.Sprint(v)
		name += fmt.Sprintf(" %T %d %s", v, len(text), text)
	}
	if again, ok := run.scans[name]; ok {
		c.again = again
		return c.fetch()
	}
	c.kept = &kept{name: name}
	var read func(ctx context.Context, send func(batch) bool) error
	if c.t.stored != nil {
		read = func(ctx context.Context, send func(batch) bool) error { return c.store(ctx, w, send) }
	} else {
		r, err := c.t.db.narrow(c.t, w)
		if err != nil {
			run.fail(err)
			return err
		}
		if r.empty() {
			c.batch, c.row = batch{}, 0
			return nil
		}
		read = func(ctx context.Context, send func(batch) bool) error { return run.scan(ctx, c.t, r, fields, send) }
	}
	ctx, end := context.WithCancel(run.ctx)
	rows, closed := make(chan batch, batches), make(chan struct{})
	c.rows, c.end, c.closed = rows, end, closed
	c.scan.Go(func() {
		defer close(rows)
		send := func(b batch) bool {
			select {
			case rows <- b:
				return true
			case <-closed:
				return false
			}
		}
		if err := read(ctx, send); err != nil && ctx.Err() == nil {
			send(batch{err: err})
		}
	})
	return c.fetch()
}

// store reads rows that the store has.
func (c *cursor) store(ctx context.Context, w wanted, send func(batch) bool) error {
	var b batch
	err := c.t.stored(ctx, w, func(row []vtab.Value) bool {
		for i, at := range c.at {
			if at >= 0 {
				b.values = append(b.values, row[i])
			}
		}
		if b.rows++; b.rows < batchRows {
			return true
		}
		ok := send(b)
		b = batch{}
		return ok
	})
	if b.rows > 0 {
		send(b)
	}
	return err
}

// fetch waits for the next batch.
func (c *cursor) fetch() error {
	c.batch, c.row = batch{}, 0
	if len(c.again) > 0 {
		c.batch, c.again = c.again[0], c.again[1:]
		return nil
	}
	if c.rows == nil {
		return nil
	}
	b, more := <-c.rows
	c.batch = b
	c.keep(more)
	if err := c.batch.err; err != nil {
		c.t.db.run.fail(err) // the driver does not pass it on
		return err
	}
	return nil
}

// keptBytes is about how much of scans is kept for when they are repeated.
const keptBytes = 32 << 20

// kept are the batches of a scan.
type kept struct {
	name    string
	batches []batch
	bytes   int
}

// keep keeps a batch that was fetched; without more, it was the last.
func (c *cursor) keep(more bool) {
	run := c.t.db.run
	switch {
	case c.kept == nil:
	case c.batch.err != nil || run.ctx.Err() != nil:
		c.kept = nil
	case !more:
		run.scans[c.kept.name] = c.kept.batches
		run.kept += c.kept.bytes
		c.kept = nil
	default:
		c.kept.bytes += 16 * len(c.batch.values)
		for _, v := range c.batch.values {
			if s, ok := v.(string); ok {
				c.kept.bytes += len(s)
			}
		}
		if c.kept.batches = append(c.kept.batches, c.batch); run.kept+c.kept.bytes > keptBytes {
			c.kept = nil
		}
	}
}

// Next implements vtab.Cursor.
func (c *cursor) Next() error {
	c.number++
	if c.row++; c.row < c.batch.rows {
		return nil
	}
	return c.fetch()
}

// Eof implements vtab.Cursor.
func (c *cursor) Eof() bool { return c.row >= c.batch.rows }

// Column implements vtab.Cursor.
func (c *cursor) Column(i int) (vtab.Value, error) {
	if i < 0 || i >= len(c.at) || c.at[i] < 0 {
		return nil, nil
	}
	return c.batch.values[c.row*c.width+c.at[i]], nil
}

// Rowid implements vtab.Cursor.
func (c *cursor) Rowid() (int64, error) { return c.number, nil }

// stop ends the scan.
func (c *cursor) stop() {
	if c.end != nil {
		c.end()
		close(c.closed)
		c.scan.Wait()
	}
	c.end, c.rows, c.again, c.kept = nil, nil, nil, nil
}

// Close implements vtab.Cursor.
func (c *cursor) Close() error {
	c.stop()
	return nil
}

// narrow makes a range of conditions. It takes only what cannot be wrong: what a condition does not rule out stays in.
func (db *DB) narrow(t *source, w wanted) (Range, error) {
	r := Everything()
	r.FromMS, r.ToMS = db.from, db.to
	for _, c := range w {
		f := t.fields[c.column]
		if c.value == nil { // compared with NULL, nothing is true
			return Range{FromMS: 1}, nil
		}
		if f.Type == "TIME" {
			ms, err := timeOf(f.Name, c.value)
			if err != nil {
				return r, err
			}
			if lower(c.op) {
				from := ms
				if f.time {
					from = ms - db.cfg.MaxAhead.Milliseconds() // no event is further ahead of its append time
				}
				r.FromMS = max(r.FromMS, from)
			}
			if upper(c.op) && !f.time { // an event can be late by any time
				r.ToMS = min(r.ToMS, ms+1)
			}
			continue
		}
		from, to, ok := whole(c.op, c.value)
		switch {
		case !ok:
		case f.meta == partition:
			r.FromPartition, r.ToPartition = int32(max(int64(r.FromPartition), min(from, math.MaxInt32))), int32(min(int64(r.ToPartition), max(to, -1)))
		case f.meta == offset:
			r.FromOffset, r.ToOffset = max(r.FromOffset, from), min(r.ToOffset, to)
		}
	}
	return r, nil
}

func lower(op vtab.ConstraintOp) bool {
	return op == vtab.OpEQ || op == vtab.OpIS || op == vtab.OpGT || op == vtab.OpGE
}

func upper(op vtab.ConstraintOp) bool {
	return op == vtab.OpEQ || op == vtab.OpIS || op == vtab.OpLT || op == vtab.OpLE
}

// timeOf reads a time that a column is compared with. SQLite compares texts: what is written in another way would be found wrong, without a word.
func timeOf(column string, v vtab.Value) (int64, error) {
	s, ok := v.(string)
	if !ok {
		return 0, fmt.Errorf("%s is compared with %v, but times are text such as '2026-11-30 12:00:00' (UTC); for milliseconds since 1970, use from_epoch_ms", column, v)
	}
	if ms, ok := plainTime(s); ok {
		return ms, nil
	}
	if ms, ok := anyTime(s); ok {
		return 0, fmt.Errorf("%s is compared with '%s'; write the time as '%s' (UTC)", column, s, timeText(ms))
	}
	return 0, fmt.Errorf("%s is compared with '%.60s', which is not a time; use a time such as '2026-11-30 12:00:00' (UTC)", column, s)
}

// whole returns the lowest and the highest whole number that fulfill a comparison. ok is false if the value is not a number.
func whole(op vtab.ConstraintOp, v vtab.Value) (from, to int64, ok bool) {
	var low, high int64 // the whole numbers around the value
	switch v := v.(type) {
	case int64:
		low, high = v, v
	case float64:
		if math.IsNaN(v) || math.Abs(v) > 1<<53 {
			return 0, 0, false
		}
		low, high = int64(math.Floor(v)), int64(math.Ceil(v))
	case string: // the column's affinity makes a number of it
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, 0, false
		}
		low, high = n, n
	default:
		return 0, 0, false
	}
	from, to = math.MinInt64, math.MaxInt64
	if lower(op) {
		from = high
	}
	if upper(op) {
		to = low
	}
	if op == vtab.OpGT && low == high && from < math.MaxInt64 {
		from++
	}
	if op == vtab.OpLT && low == high && to > math.MinInt64 {
		to--
	}
	return from, to, true
}
