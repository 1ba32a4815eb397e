package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/rule"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// memory is a log of records: those of each partition are in their order.
type memory struct {
	records []Record
	timed   bool
	ranges  []Range // that were asked for
	stall   chan struct{}
	fails   error
}

func (m *memory) Topics() []Topic { return []Topic{Activity} }
func (m *memory) Times() bool     { return m.timed }

func (m *memory) Partitions(context.Context, Topic) (int32, error) {
	n := int32(0)
	for _, r := range m.records {
		n = max(n, r.Partition+1)
	}
	return n, nil
}

func (m *memory) Size(context.Context, Topic) (int64, error) { return int64(len(m.records)), nil }

func (m *memory) Read(ctx context.Context, _ Topic, r Range, _ func(string), take func([]Record) error) error {
	m.ranges = append(m.ranges, r)
	for chunk := range slices.Chunk(m.records, 100) {
		var part []Record
		for _, rec := range chunk {
			if rec.Partition >= r.FromPartition && rec.Partition <= r.ToPartition && rec.Offset >= r.FromOffset && rec.Offset <= r.ToOffset && (!m.timed || rec.AppendedMS >= r.FromMS && rec.AppendedMS <= r.ToMS) {
				part = append(part, rec)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := take(part); err != nil {
			return err
		}
	}
	if m.stall != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return m.fails
}

// add appends an event at so many seconds past noon, in a partition.
func (m *memory) add(p int32, second float64, json string) {
	offset := int64(0)
	for _, r := range m.records {
		if r.Partition == p {
			offset++
		}
	}
	at := noon.Add(time.Duration(second * float64(time.Second)))
	r := Record{Partition: p, Offset: offset, Value: []byte(json), Key: []byte("k")}
	if m.timed {
		r.AppendedMS = at.UnixMilli()
	}
	m.records = append(m.records, r)
}

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func event(second float64, user string) string {
	return fmt.Sprintf(`{"user_id":%s,"event_time":"%s","event_type":"view","product_id":9007199254740993,"price":1.5}`, user, noon.Add(time.Duration(second*float64(time.Second))).Format("2006-01-02 15:04:05.999 UTC"))
}

func config(l Log) Config {
	return Config{Log: l, Events: format.Config{Fields: activity.DefaultFields()}, MaxAhead: time.Minute, Lateness: 10 * time.Second}
}

func open(t testing.TB, cfg Config) *DB {
	t.Helper()
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// rows runs a statement, and returns its rows as text.
func rows(ctx context.Context, db *DB, statement string, b Bounds) (out []string, s Summary, err error) {
	s, err = db.Run(ctx, statement, b, Output{
		Columns: func(names []string) error { out = append(out, strings.Join(names, "|")); return nil },
		Row: func(values []any) error {
			text := make([]string, len(values))
			for i, v := range values {
				text[i] = fmt.Sprintf("%v", v)
			}
			out = append(out, strings.Join(text, "|"))
			return nil
		},
	})
	return out, s, err
}

func sample() *memory {
	m := &memory{timed: true}
	for i := range 40 {
		m.add(int32(i%4), float64(i), event(float64(i), fmt.Sprint(i%3)))
	}
	m.add(0, 41, `{"user_id":"7","event_time":"2026-11-30 12:00:41.25"}`)
	m.add(1, 42, `not JSON`)
	m.add(2, 43, event(43+120, "5")) // ahead of its append time by more than a minute
	return m
}

func TestStatements(t *testing.T) {
	db := open(t, config(sample()))
	for _, c := range []struct{ statement, want string }{
		{"SELECT COUNT(*) AS n FROM activity", "n; 41"},
		{"SELECT user_id, COUNT(*) n FROM activity WHERE event_time >= '2026-11-30 12:00:30' GROUP BY user_id ORDER BY n DESC, 1", "user_id|n; 0|4; 1|3; 2|3; 7|1"},
		{"SELECT typeof(user_id) t, COUNT(*) n FROM activity GROUP BY 1", "t|n; integer|40; text|1"},
		{"SELECT product_id, typeof(price), event_type FROM activity LIMIT 1", "product_id|typeof(price)|event_type; 9007199254740993|real|view"},
		{"SELECT TUMBLE_START(txn_timestamp, INTERVAL '10' SECOND) s, tumble_end(txn_timestamp, 10000) e, COUNT(*) n FROM activity GROUP BY 1 ORDER BY 1 DESC LIMIT 2", "s|e|n; 2026-11-30 12:00:40|2026-11-30 12:00:50|1; 2026-11-30 12:00:30|2026-11-30 12:00:40|10"},
		{"SELECT txn_timestamp, event_time, user_id FROM activity WHERE user_id = '7'", "txn_timestamp|event_time|user_id; 2026-11-30 12:00:41.250|2026-11-30 12:00:41.250|7"},
		{"SELECT MAX(event_time) - 0 FROM activity", "MAX(event_time) - 0; 2026"},
		{"SELECT MAX(event_time) - INTERVAL '1' MINUTE AS m FROM activity", "m; 2026-11-30 11:59:41.250"},
		{"SELECT COUNT(*) n FROM activity WHERE event_time > TIMESTAMP '2026-11-30 12:00:20' - INTERVAL '0.5' SECOND", "n; 21"},
		// Scans that are kept are told apart by values of any type and size.
		{"SELECT (SELECT COUNT(*) FROM activity WHERE _offset >= 2000000) a, (SELECT COUNT(*) FROM activity WHERE _offset >= -1) b, (SELECT COUNT(*) FROM activity WHERE _offset >= 55296) c", "a|b|c; 0|41|0"},
		{"SELECT _partition p, MIN(_offset) o, MAX(_offset), COUNT(*) FROM activity WHERE _partition IN (1, 3) GROUP BY p", "p|o|MAX(_offset)|COUNT(*); 1|0|9|10; 3|0|9|10"},
		{"SELECT _timestamp, _key, length(_value) > 5 AS l FROM activity WHERE _partition = 2 AND _offset = 3", "_timestamp|_key|l; 2026-11-30 12:00:14|k|1"},
		{"SELECT _reason, COUNT(*) FROM dlq GROUP BY 1", "_reason|COUNT(*); not_json|1; time_ahead|1"},
		{"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5) SELECT SUM(n) s FROM c", "s; 15"},
		{"SELECT to_epoch_ms('2026-11-30T12:00:00Z') ms, from_epoch_ms(1796040000250) t", "ms|t; 1796040000000|2026-11-30 12:00:00.250"},
		{"SELECT a.user_id, b.n FROM activity a JOIN (SELECT user_id, COUNT(*) n FROM activity GROUP BY 1) b USING (user_id) WHERE a._offset = 0 AND a._partition = 0", "user_id|n; 0|14"},
		{"VALUES (1, 'a;b'); -- the end", "column1|column2; 1|a;b"},
		{"SELECT value FROM json_each('[1,2]')", "value; 1; 2"},
		{"SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 3", "user_id|n; 0|4; 1|4; 2|4; 0|4"},
	} {
		got, s, err := rows(t.Context(), db, c.statement, Bounds{})
		if err != nil || strings.Join(got, "; ") != c.want || s.Partial || s.Rows != int64(len(got)-1) {
			t.Errorf("%s\n got %s\nwant %s\n%+v %v", c.statement, strings.Join(got, "; "), c.want, s, err)
		}
	}
}

// TestReadsOnlyThePart: what is asked of the log, by condition.
func TestReadsOnlyThePart(t *testing.T) {
	m := sample()
	cfg := config(m)
	cfg.MaxAhead = 5 * time.Second
	db := open(t, cfg)
	for _, c := range []struct {
		where      string
		read, rows int64
	}{
		{"_partition = 1", 11, 10},
		{"_partition > 2", 10, 10},
		{"_partition = 1 AND _offset BETWEEN 2 AND 4", 3, 3},
		{"_partition < 1.5 AND _offset >= 10", 2, 1},
		{"_timestamp >= '2026-11-30 12:00:38'", 5, 3},
		{"_timestamp < '2026-11-30 12:00:02'", 3, 2},
		{"event_time >= '2026-11-30 12:00:39'", 9, 2},
		{"txn_timestamp > '2026-11-30 12:00:39'", 9, 1},
		{"txn_timestamp = '2026-11-30 12:00:39'", 9, 1},
		{"event_time < '2026-11-30 12:00:01'", 43, 1},                  // events can be late
		{"event_time >= '2026-11-30 12:00:39' OR user_id = 0", 43, 15}, // nothing that holds for all rows
		{"_offset IS NULL", 43, 0},
		{"_partition = NULL", 0, 0},
		{"_partition = '1'", 11, 10},
	} {
		got, s, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity WHERE "+c.where, Bounds{})
		if err != nil || s.Read != c.read || got[1] != fmt.Sprint(c.rows) {
			t.Errorf("%s: read %d of %d, want %d; %v, want %d; %v", c.where, s.Read, s.Of, c.read, got, c.rows, err)
		}
	}
	cfg.From, cfg.To = noon.Add(10*time.Second), noon.Add(20*time.Second)
	got, s, err := rows(t.Context(), open(t, cfg), "SELECT COUNT(*) FROM activity", Bounds{})
	if err != nil || s.Read != 10 || got[1] != "10" {
		t.Errorf("%v %+v %v", got, s, err)
	}
}

// TestJoinReadsOnce: a short scan that a join repeats is read once.
func TestJoinReadsOnce(t *testing.T) {
	m := sample()
	db := open(t, config(m))
	got, s, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity a JOIN activity b ON a.user_id = b.user_id AND b._partition = 1", Bounds{})
	if err != nil || got[1] != "133" || s.Read > 2*43 || len(m.ranges) > 2 {
		t.Errorf("%v, read %d in %d scans, %v", got, s.Read, len(m.ranges), err)
	}
}

func TestErrors(t *testing.T) {
	db := open(t, config(sample()))
	for _, c := range []struct{ statement, message, at, fix string }{
		{"SELECT user FROM activity", "no such column: user", "user FROM", "did you mean user_id?"},
		{"SELECT a.user_idd FROM activity a", "no such column: a.user_idd", "a.user_idd", "did you mean user_id?"},
		{"SELECT 1 FROM activty", "no such table: activty", "activty", "did you mean activity?"},
		{"SELECT 1 FROM alerts", "table alerts is not available: no database is configured", "alerts", ""},
		{"SELECT 1 FROM late", "table late is not available: only a pipeline can decide which events are late", "late", ""},
		{"SELECT TUMBLE_STRT(event_time, 10) FROM activity", "no such function: TUMBLE_STRT", "TUMBLE_STRT", "did you mean tumble_start?"},
		{"SELECT user_id, FROM activity", `near "FROM": syntax error`, "FROM", ""},
		{"SELECT 1 FROM activity WHERE INTERVAL '10' SECOND > 1 GROUP GROUP BY 1", `near "GROUP": syntax error`, "GROUP BY", ""},
		{"SELECT event_time + INTERVAL '10' SECOND, oops FROM activity", "no such column: oops", "oops", ""},
		{"SELECT (", "incomplete input", "", ""},
		{"SELECT 'a", "the quoted text is not closed", "'a", "close it with '"},
		{"SELECT 1; SELECT 2", "a second statement begins here", "SELECT 2", "run one statement at a time"},
		{"SELECT ?", "parameters are not supported", "?", "write the value"},
		{"", "the statement is empty", "", "write SELECT … FROM activity"},
		{"SELECT 1 FROM activity WHERE event_time >= '2026-11-30T12:00:00Z'", "event_time is compared with '2026-11-30T12:00:00Z'; write the time as '2026-11-30 12:00:00' (UTC)", "", ""},
		{"SELECT 1 FROM activity WHERE event_time >= 'soon'", "event_time is compared with 'soon', which is not a time; use a time such as '2026-11-30 12:00:00' (UTC)", "", ""},
		{"SELECT tumble_start('x', 10000)", "tumble_start: \"x\" is not a time; use a time such as 2026-11-30 12:00:00", "", ""},
		{"SELECT 1 - INTERVAL '10' PARSEC", "PARSEC is not an interval unit", "PARSEC", "write SECOND, MINUTE, HOUR or DAY"},
		{"SELECT user_id, COUNT(*) n FROM activity GROUP BY TUMBLE(event_tim, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5", "", "event_tim,", ""},
		{"SELECT user_id, COUNT(*) n FROM activity GROUP BY SESSION(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5", "SESSION windows are not evaluated yet", "SELECT", ""},
	} {
		_, _, err := rows(t.Context(), db, c.statement, Bounds{})
		var e *Error
		if err == nil || c.message != "" && !errors.As(err, &e) && err.Error() != c.message {
			t.Errorf("%s: %v", c.statement, err)
			continue
		}
		if !errors.As(err, &e) {
			continue
		}
		if c.message != "" && e.Message != c.message || c.fix != "" && e.Fix != c.fix {
			t.Errorf("%s: %q, fix %q; want %q, fix %q", c.statement, e.Message, e.Fix, c.message, c.fix)
		}
		if c.at != "" && (e.Pos < 0 || e.Pos > len(c.statement) || !strings.HasPrefix(c.statement[e.Pos:], c.at)) {
			t.Errorf("%s: at %d, want at %q", c.statement, e.Pos, c.at)
		}
		if c.at != "" && !strings.Contains(e.Format(), "^") {
			t.Errorf("%s: no caret: %s", c.statement, e.Format())
		}
	}
	if _, _, err := rows(t.Context(), db, "SELECT 1 FROM activity", Bounds{Rows: -1}); err == nil {
		t.Error("negative bounds are taken")
	}
	if _, _, err := rows(t.Context(), db, "SELECT 1", Bounds{Follow: true}); err == nil {
		t.Error("what is not a rule is followed")
	}
}

// TestHostile: statements read the tables, and do nothing else.
func TestHostile(t *testing.T) {
	dir := t.TempDir()
	db := open(t, config(sample()))
	for _, statement := range []string{
		"ATTACH '" + dir + "/x.db' AS x", "DETACH main", "PRAGMA writable_schema = 1", "PRAGMA table_info(activity)", "INSERT INTO activity(user_id) VALUES (1)", "DELETE FROM activity",
		"UPDATE activity SET user_id = 1", "DROP TABLE activity", "CREATE TABLE t(a)", "CREATE TEMP TABLE t AS SELECT 1", "CREATE VIRTUAL TABLE t USING fts5(a)", "CREATE VIEW v AS SELECT 1",
		"VACUUM INTO '" + dir + "/x.db'", "BEGIN", "COMMIT", "SAVEPOINT s", "ANALYZE", "REINDEX", "ALTER TABLE activity RENAME TO x", "EXPLAIN DELETE FROM activity",
		"SELECT load_extension('x')", "SELECT * FROM pragma_table_info('activity')", "SELECT * FROM pragma_database_list", "SELECT * FROM sqlite_master", "SELECT * FROM sqlite_schema", "SELECT * FROM dbstat",
		"SELECT * FROM sqlite_dbpage", "SELECT fts3_tokenizer('simple')", "SELECT writefile('" + dir + "/x', 'y')", "SELECT readfile('/etc/passwd')", "SELECT edit('x')",
		"WITH x AS (SELECT 1) DELETE FROM activity", "WITH x AS (SELECT 1) INSERT INTO activity(user_id) SELECT 1", "/* */ ; PRAGMA query_only = 0", "SELECT 1; DROP TABLE activity",
		"SELECT zeroblob(1000000000)", "SELECT printf('%1000000000d', 1)", "SELECT * FROM spate_query", "SELECT group_concat(zeroblob(50000000)) FROM activity", "SELECT \x00", "SELECT 1 FROM " + strings.Repeat("(SELECT 1 FROM ", 500) + "activity" + strings.Repeat(")", 500),
	} {
		if got, _, err := rows(t.Context(), db, statement, Bounds{}); err == nil {
			t.Errorf("%s is run: %v", statement, got)
		}
	}
	if got, _, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity", Bounds{}); err != nil || got[1] != "41" {
		t.Errorf("the tables are not as they were: %v, %v", got, err)
	}
}

func TestBounds(t *testing.T) {
	m := sample()
	db := open(t, config(m))
	got, s, err := rows(t.Context(), db, "SELECT user_id FROM activity", Bounds{Rows: 5})
	if err != nil || len(got) != 6 || !s.Partial || s.By != ByRows {
		t.Errorf("%v %+v %v", got, s, err)
	}
	if got, s, err = rows(t.Context(), db, "SELECT user_id FROM activity LIMIT 5", Bounds{Rows: 5}); err != nil || len(got) != 6 || s.Partial {
		t.Errorf("exactly as many rows are not too many: %v %+v %v", got, s, err)
	}
	for i := range 2000 {
		m.add(3, 50+float64(i)/100, event(50+float64(i)/100, "8"))
	}
	got, s, err = rows(t.Context(), db, "SELECT COUNT(*) FROM activity", Bounds{Bytes: 20_000})
	if err != nil || !s.Partial || s.By != ByBytes || s.Bytes < 20_000 || s.Bytes > 40_000 || got[1] == "0" || got[1] == "2041" || s.Of != 2043 {
		t.Errorf("%v %+v %v", got, s, err)
	}
	// The log stalls at its end. How far it is read by the time of the bound depends on the machine; what was read is what counts.
	m.stall = make(chan struct{})
	got, s, err = rows(t.Context(), db, "SELECT COUNT(*) FROM activity", Bounds{Timeout: 50 * time.Millisecond})
	if err != nil || !s.Partial || s.By != ByTimeout || got[1] != fmt.Sprint(s.Read-s.Invalid) {
		t.Errorf("%v %+v %v", got, s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	got, s, err = rows(ctx, db, "SELECT COUNT(*) FROM activity", Bounds{})
	if err != nil || !s.Partial || s.By != ByInterrupted || got[1] != fmt.Sprint(s.Read-s.Invalid) {
		t.Errorf("%v %+v %v", got, s, err)
	}
	m.stall = nil
	// SQLite does not end by itself: neither before its first row, nor after it.
	for _, endless := range []string{"SELECT COUNT(*) FROM c", "SELECT n FROM c WHERE n = 1"} {
		_, s, err = rows(t.Context(), db, "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) "+endless, Bounds{Timeout: 10 * time.Millisecond})
		if err != nil || !s.Partial || s.By != ByTimeout {
			t.Errorf("%s: %+v %v", endless, s, err)
		}
	}
	if got, _, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity", Bounds{}); err != nil || got[1] != "2041" {
		t.Errorf("after that: %v %v", got, err)
	}
	m.fails = errors.New("the broker is away")
	if _, _, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity", Bounds{}); !errors.Is(err, m.fails) {
		t.Error(err)
	}
}

// TestColumns: values of declared columns keep all that they have.
func TestColumns(t *testing.T) {
	const script = `CREATE TABLE logons (actor ROW<id STRING, n INT>, amount DECIMAL(20, 4), big BIGINT, ok BOOLEAN, ratio DOUBLE, since_day TIMESTAMP(3), at_time TIMESTAMP(3), WATERMARK FOR at_time AS at_time);
-- rule: r
INSERT INTO a SELECT COUNT(*) AS c FROM logons GROUP BY TUMBLE(at_time, INTERVAL '10' SECOND), ok HAVING COUNT(*) > 1`
	set, errs := rule.Compile(script, rule.Options{})
	if errs != nil {
		t.Fatal(errs)
	}
	m := &memory{}
	m.add(0, 0, `{"user_id":1,"actor":{"id":"a", "n":2},"amount":1234567890123456.7000,"big":-9223372036854775808,"ok":true,"ratio":1e300,"since_day":"2026-01-01 00:00:00","at_time":"2026-11-30 12:00:00.123456"}`)
	cfg := config(m)
	cfg.Tables, cfg.Events.Fields.Time = set.Tables, []string{"at_time"}
	db := open(t, cfg)
	got, _, err := rows(t.Context(), db, "SELECT amount, big, ok, ratio, since_day, at_time, actor ->> 'id' AS id, actor FROM logons", Bounds{})
	want := `1234567890123456.7000|-9223372036854775808|1|1e+300|2026-01-01 00:00:00|2026-11-30 12:00:00.123456|a|{"id":"a", "n":2}`
	if err != nil || got[1] != want {
		t.Errorf("%v %v\nwant %s", got, err, want)
	}
	var e *Error
	if _, _, err = rows(t.Context(), db, "SELECT actor.id FROM activity", Bounds{}); !errors.As(err, &e) || e.Fix != "write actor ->> 'id'" {
		t.Errorf("%v", err)
	}
	if _, _, err := rows(t.Context(), db, "SELECT _timestamp FROM activity", Bounds{}); err != nil {
		t.Error(err)
	}
	cfg.From = noon
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no append time") {
		t.Error(err)
	}
	var names []string
	for _, table := range db.Tables() {
		names = append(names, table.Name)
	}
	if diff := cmp.Diff([]string{"activity", "logons", "dlq"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestSummaryJSON(t *testing.T) {
	b, err := json.Marshal(Summary{Rows: 1, Read: 2, Of: 3, Partial: true, By: ByBytes})
	if err != nil || string(b) != `{"rows":1,"records_read":2,"records":3,"bytes_read":0,"partial":true,"by":"max-bytes"}` {
		t.Errorf("%s %v", b, err)
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range [][2]string{
		{"SELECT a + INTERVAL '1' MINUTE", "SELECT time_add(a , 60000)"},
		{"SELECT f(a, b) - INTERVAL '2' HOURS > x", "SELECT time_add(f(a, b) , -7200000) > x"},
		{"SELECT t.a - interval '1' day, INTERVAL '1' SECOND", "SELECT time_add(t.a , -86400000), 1000"},
		{"SELECT TIMESTAMP '2026-11-30 12:00:00' + INTERVAL '1' SECOND", "SELECT time_add('2026-11-30 12:00:00' , 1000)"},
		{"SELECT 'INTERVAL ''1'' DAY' -- INTERVAL '1' DAY", "SELECT 'INTERVAL ''1'' DAY' -- INTERVAL '1' DAY"},
		{"SELECT a + INTERVAL '1' SECOND - INTERVAL '2' SECOND", "SELECT time_add(time_add(a , 1000) , -2000)"},
		{"SELECT INTERVAL '1' SECOND + INTERVAL '2' SECOND", "SELECT 1000 + 2000"},
		{"SELECT * + INTERVAL '1' SECOND", ""},
	} {
		tokens, wrong := lex(c[0])
		if wrong != nil {
			t.Fatal(wrong)
		}
		r, wrong := rewrite(c[0], tokens)
		if c[1] == "" {
			if wrong == nil {
				t.Errorf("%s: %s", c[0], r.text.String())
			}
			continue
		}
		if wrong != nil || r.text.String() != c[1] {
			t.Errorf("%s: %s, %v", c[0], r.text.String(), wrong)
		}
	}
}

// FuzzLex: no statement makes the lexer, or what rewrites, fail in another way than with an error.
func FuzzLex(f *testing.F) {
	for _, s := range []string{"SELECT 'a''b', \"c\" FROM [d] -- e\n/* f */;", "a + INTERVAL '1' DAY", ")", "$x", "1e+", "''", "((- INTERVAL '1' SECOND", "EXPLAIN", "(TABLE(TUMBLE(", "GROUP BY HOP("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tokens, wrong := lex(s)
		if wrong != nil {
			return
		}
		end := 0
		for _, k := range tokens {
			if k.from < end || k.to <= k.from || k.to > len(s) || s[k.from:k.to] != k.text {
				t.Fatalf("%q: token %+v after %d", s, k, end)
			}
			end = k.to
			_ = k.name()
		}
		isRule(tokens)
		if tokens, wrong = check(tokens); wrong != nil {
			return
		}
		if r, wrong := rewrite(s, tokens); wrong == nil {
			for i := range r.text.Len() {
				if was := r.was(i); was < 0 || was > len(s)+64 {
					t.Fatalf("%q: %d was at %d", s, i, was)
				}
			}
		}
	})
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
