package verifier

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RulesOptions are what a rules file does not say.
type RulesOptions struct {
	// Name is that of a rule without the directive.
	Name string
	// Set has values of parameters, by "rule.parameter".
	Set map[string]string
	// Lateness is that of tables without WATERMARK, in whole milliseconds.
	Lateness time.Duration
	// MaxAhead is how far an event's time may lie past the time at which the log took it; 0 is any.
	MaxAhead time.Duration
}

// Event is an event of a log.
type Event struct {
	Partition int32 // where it came from
	MS        int64 // event time, epoch milliseconds
	// Appended is when the log took it, epoch milliseconds; [Unbounded] if its clock is trusted, whatever it says.
	Appended int64
	// Promised is the watermark that was promised for the partition before the event, while it was silent; 0 if none was.
	Promised int64
	// User is the user as a canonical JSON token, which the built-in table has under the name user_id; empty if the event has none.
	User string
	// Column returns the text at the end of a path of names, and false if there is none, or NULL. It is nil for what is not an event.
	Column func(path ...string) (string, bool)
}

// RuleResult is what a rule must find in a log.
type RuleResult struct {
	Rule    string
	Columns []string // of the SELECT list
	// Rows are in the order of their windows, then of their text.
	Rows []RuleRow
	// Refused is why the rule cannot be verified; nil if it is.
	Refused error
}

// RuleRow is a window and key for which HAVING is TRUE.
type RuleRow struct {
	Start, End int64 // of the window, epoch milliseconds
	Critical   bool
	// AtLeast reports whether an aggregate has more distinct values than spate counts. A column that counts them has the number up to which it does, a sum of them is NULL.
	// A condition that does not hold for a greater number is not known then, so spate may have no alert.
	AtLeast bool
	// Values are those of the columns, as JSON: a DECIMAL is a string with all its digits, a TIMESTAMP has no zone.
	Values []json.RawMessage
}

// JSON is the row as an object with the columns in their order.
func (r RuleResult) JSON(row int) string {
	b := []byte{'{'}
	for i, v := range r.Rows[row].Values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(append(b, '"'), r.Columns[i]...), `":`...), v...)
	}
	return string(append(b, '}'))
}

// RulesReport is what Rules finds.
type RulesReport struct {
	Rules       []RuleResult // in the order of the file, without those of mode off
	In, Invalid int64        // events; Invalid are without a column that must not be NULL, or too far ahead
}

// Rules computes what the rules of a file must find in a log. The rules are evaluated by SQLite: each is translated into a statement of its
// own, over a table of the events and, for each, the highest time that its partition had before it. Whether an event still counts in a window is
// a condition of that statement. The table is in a temporary file; the sessions of a rule, and the results, are in memory.
//
// Where Flink's words mean something else than SQLite's, the translation says what they mean: types, LIKE, DECIMAL, division and sums are as
// testdata/golden/rules has them. What it cannot say is refused, by rule, and not answered wrongly: 0 / 0 of DOUBLE, for one, is NaN, which
// SQLite does not have. (The difference of two infinities is NULL.)
//
// The error is about the file as a whole, or the events, or the context.
func Rules(ctx context.Context, script string, o RulesOptions, events iter.Seq2[Event, error]) (report RulesReport, err error) {
	f, err := parseRules(script, o)
	if err != nil {
		return report, fmt.Errorf("verify rules: %w", err)
	}
	dir, err := os.MkdirTemp("", "spate-verify-")
	if err != nil {
		return report, fmt.Errorf("verify rules: %w", err)
	}
	defer os.RemoveAll(dir)
	db := sql.OpenDB(connector{filepath.Join(dir, "events.db")})
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	l := loader{rulesFile: f, db: db, options: o}
	if err := l.load(ctx, events); err != nil {
		return report, fmt.Errorf("verify rules: %w", err)
	}
	report.In, report.Invalid = l.in, l.invalid
	for i, q := range f.queries {
		result := RuleResult{Rule: q.rule, Columns: q.names, Refused: q.refused}
		if q.refused == nil {
			result.Rows, err = q.run(ctx, db, i)
			if ctx.Err() != nil {
				return report, fmt.Errorf("verify rule %s: %w", q.rule, ctx.Err())
			}
			result.Refused = err
			slices.SortFunc(result.Rows, compareRuleRows)
		}
		report.Rules = append(report.Rules, result)
	}
	return report, nil
}

func compareRuleRows(a, b RuleRow) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End), slices.CompareFunc(a.Values, b.Values, func(a, b json.RawMessage) int { return bytes.Compare(a, b) }))
}

// RulesFile is [Rules] for a CSV file that the simulator sends in its original order and times to a topic of so many partitions, as for [File].
// The columns are those that the header names, and those of the data set if it has none; an empty field is NULL.
func RulesFile(ctx context.Context, script string, o RulesOptions, path, key string, partitions int32) (RulesReport, error) {
	f, err := parseRules(script, o)
	if err != nil {
		return RulesReport{}, fmt.Errorf("verify rules: %w", err)
	}
	if partitions < 1 {
		return RulesReport{}, fmt.Errorf("verify %s: %d partitions; at least 1 is required", path, partitions)
	}
	r, err := os.Open(path)
	if err != nil {
		return RulesReport{}, fmt.Errorf("verify: %w", err)
	}
	defer r.Close()
	return Rules(ctx, script, o, f.events(r, key, partitions))
}

// events reads a file.
func (f *rulesFile) events(r *os.File, key string, partitions int32) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		in := newFile(key, partitions)
		in.verbatim = true
		if f.clock != "txn_timestamp" {
			in.times = []string{strings.ToLower(f.clock)}
		}
		if !slices.ContainsFunc(f.notNull, func(c column) bool { return c.name == "user_id" || c.name == userPath }) {
			in.users = nil
		}
		appended := time.Now().UnixMilli()
		in.row = func(partition int32, column func(string) string) bool {
			e := Event{Partition: partition, Appended: appended}
			for _, t := range in.times {
				if text := strings.TrimSpace(column(t)); text != "" {
					ms, ok := parseTime(text)
					if !ok {
						ms, ok = parseMillis(text)
					}
					if ok {
						e.MS = ms
						if user, ok := userOfText(column("user_id")); ok {
							e.User = user
						}
						e.Column = func(path ...string) (string, bool) {
							text := column(strings.Join(path, "."))
							return text, text != ""
						}
					}
					break
				}
			}
			return yield(e, nil)
		}
		if err := in.open(r); err != nil && !errors.Is(err, errStop) {
			yield(Event{}, err)
		}
	}
}

// Event is an event of a source partition as its record's value has it: an object with a time and maybe a user, which are found and read as
// [Reference.AddJSON] does. appended is the time of its record.
func (r Rule) Event(partition int32, value []byte, appended time.Time) Event {
	e := Event{Partition: partition, Appended: appended.UnixMilli()}
	if ms, ok := r.timeIn(value); ok {
		e.MS, e.User, e.Column = ms, r.userIn(value), JSONColumn(value)
	}
	return e
}

// userIn returns an event's user, empty if it has none.
func (r Rule) userIn(value []byte) string {
	users := r.User
	if len(users) == 0 {
		users = []string{"user_id"}
	}
	for _, path := range users {
		if token := find(value, path); len(token) > 0 && string(token) != "null" && string(token) != `""` {
			if user, ok := userOfJSON(token); ok {
				return user
			}
			return ""
		}
	}
	return ""
}

// JSONColumn returns the columns of an event that is a JSON object. A string is its text, everything else is as it is written.
func JSONColumn(value []byte) func(path ...string) (string, bool) {
	return func(path ...string) (string, bool) {
		token := json.RawMessage(value)
		for _, name := range path {
			var members map[string]json.RawMessage
			if json.Unmarshal(token, &members) != nil {
				return "", false
			}
			token = members[name]
		}
		var text string
		switch {
		case len(token) == 0 || string(token) == "null":
			return "", false
		case token[0] == '"' && json.Unmarshal(token, &text) == nil:
			return text, true
		}
		return string(token), true
	}
}

// loader fills the table of events.
type loader struct {
	*rulesFile
	db          *sql.DB
	options     RulesOptions
	in, invalid int64
}

// never is a time before all others, of a partition that had no event.
const never = math.MinInt64 / 4

func (l *loader) load(ctx context.Context, events iter.Seq2[Event, error]) error {
	columns := []string{"id INTEGER PRIMARY KEY", "ms INTEGER", "newest INTEGER"}
	for i := range l.inputs.list {
		columns = append(columns, fmt.Sprintf("c%d", i)) // without a type SQLite converts nothing
	}
	for _, s := range []string{
		"PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA temp_store = FILE", "PRAGMA cache_size = -65536",
		"CREATE TABLE events (" + strings.Join(columns, ", ") + ")",
		"CREATE TABLE steps (n INTEGER PRIMARY KEY)",
		fmt.Sprintf("INSERT INTO steps WITH s(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM s WHERE n < %d) SELECT n FROM s", l.steps),
	} {
		if _, err := l.db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("prepare SQLite: %w", err)
		}
	}
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("prepare SQLite: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	insert, err := tx.PrepareContext(ctx, "INSERT INTO events VALUES (?"+strings.Repeat(", ?", len(columns)-1)+")")
	if err != nil {
		return fmt.Errorf("prepare SQLite: %w", err)
	}
	defer insert.Close()
	newest := map[int32]int64{}
	ahead := l.options.MaxAhead.Milliseconds()
	for e, err := range events {
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		l.in++
		row, ok := l.values(e)
		if !ok || ahead > 0 && e.MS > e.Appended+ahead && e.Appended != Unbounded {
			l.invalid++
			continue
		}
		before, known := newest[e.Partition]
		if !known {
			before = never
		}
		newest[e.Partition] = max(before, min(e.MS, e.Appended))
		if e.Promised != 0 && len(l.queries) > 0 {
			before = max(before, e.Promised+l.queries[0].lateness) // a stream has one watermark
		}
		row[0], row[1], row[2] = l.in, e.MS, before
		if _, err := insert.ExecContext(ctx, row...); err != nil {
			return fmt.Errorf("store event: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("store events: %w", err)
	}
	return nil
}

// values converts the columns of an event. It reports whether it has all that must not be NULL.
func (l *loader) values(e Event) (row []any, ok bool) {
	if e.Column == nil {
		return nil, false
	}
	at := func(path []string, t typ) any {
		var text string
		var found bool
		switch {
		case path[0] != userPath:
			text, found = e.Column(path...)
		case e.User == "":
			return nil
		case t.kind == kUser:
			return e.User
		default:
			if text, found = e.User, true; text[0] == '"' {
				found = json.Unmarshal([]byte(text), &text) == nil
			}
		}
		var v driver.Value
		if found {
			v = parseField(t, text)
		}
		if len(path) == 1 && path[0] == l.clock {
			// Of the time itself only the digits below the millisecond can be added to.
			own := timeText(time.UnixMilli(e.MS))
			if s, ok := v.(string); !ok || s[:23] != own[:23] {
				return own
			}
		}
		return v
	}
	for _, n := range l.notNull {
		if at([]string{n.name}, n.typ) == nil {
			return nil, false
		}
	}
	row = make([]any, 3, 3+len(l.inputs.list))
	for _, in := range l.inputs.list {
		row = append(row, at(in.path, in.typ))
	}
	return row, true
}

// run evaluates a rule.
func (q *query) run(ctx context.Context, db *sql.DB, n int) (list []RuleRow, err error) {
	if q.window.kind == "SESSION" {
		if err := q.sessions(ctx, db, fmt.Sprintf("sessions%d", n)); err != nil {
			return nil, err
		}
	}
	rows, err := db.QueryContext(ctx, q.statement(fmt.Sprintf("sessions%d", n)))
	if err != nil {
		return nil, fmt.Errorf("%w, in: %s", err, q.statement(""))
	}
	defer rows.Close()
	for rows.Next() {
		row := RuleRow{}
		var critical, beyond any
		values := make([]any, len(q.columns))
		to := []any{&row.Start, &row.End, &critical, &beyond}
		for i := range values {
			to = append(to, &values[i])
		}
		if err := rows.Scan(to...); err != nil {
			return nil, err
		}
		row.Critical, row.AtLeast = critical == int64(1), beyond == int64(1)
		for i, v := range values {
			row.Values = append(row.Values, toJSON(q.columns[i].typ, v))
		}
		list = append(list, row)
	}
	return list, rows.Err()
}

// toJSON writes a value of SQLite.
func toJSON(t typ, v any) json.RawMessage {
	switch v := v.(type) {
	case nil:
		return json.RawMessage("null")
	case int64:
		if t.kind == kBool {
			return strconv.AppendBool(nil, v != 0)
		}
		return strconv.AppendInt(nil, v, 10)
	case float64:
		switch {
		case math.IsInf(v, 0):
			return json.RawMessage(`"` + javaText(v) + `"`)
		case v == 0 || math.Abs(v) >= 1e-6 && math.Abs(v) < 1e21:
			s := strconv.FormatFloat(v, 'f', -1, 64)
			if !strings.Contains(s, ".") {
				s += ".0"
			}
			return json.RawMessage(s)
		}
		return strconv.AppendFloat(nil, v, 'e', -1, 64)
	case string:
		if t.kind == kUser {
			return json.RawMessage(v)
		}
		if t.kind == kTime {
			v = strings.Replace(v, " ", "T", 1)
			for range 2 { // three, six or nine digits
				v = strings.TrimSuffix(v, "000")
			}
			if strings.HasSuffix(v, ".") {
				v += "000"
			}
		}
		return json.RawMessage(quote(v))
	}
	return json.RawMessage(fmt.Sprintf("%q", fmt.Sprint(v)))
}
