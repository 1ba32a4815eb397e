package verifier

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sequence yields JSON events, whose time is the member t in milliseconds.
func sequence(list ...Event) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func jsonEvent(partition int32, ms int64, value string) Event {
	return Event{Partition: partition, MS: ms, Appended: Unbounded, User: Rule{}.userIn([]byte(value)), Column: JSONColumn([]byte(value))}
}

// lines are the rows of a report, with their rule and window.
func lines(report RulesReport) (out []string) {
	for _, r := range report.Rules {
		if r.Refused != nil {
			out = append(out, r.Rule+": "+r.Refused.Error())
		}
		for i, row := range r.Rows {
			out = append(out, fmt.Sprintf("%s %d-%d %v %s", r.Rule, row.Start, row.End, row.Critical, r.JSON(i)))
		}
	}
	return out
}

const counts = `INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;`

func TestRulesLate(t *testing.T) {
	user := `{"user_id": 7}`
	for name, c := range map[string]struct {
		events []Event
		want   []string
	}{
		"one millisecond before the end": {[]Event{jsonEvent(0, 19_998, user), jsonEvent(0, 0, user)}, []string{"0-10000 1", "10000-20000 1"}},
		"at the end":                     {[]Event{jsonEvent(0, 19_999, user), jsonEvent(0, 0, user)}, []string{"10000-20000 1"}},
		"each partition has its own":     {[]Event{jsonEvent(0, 100_000, user), jsonEvent(1, 0, user)}, []string{"0-10000 1", "100000-110000 1"}},
		"no time counts for more than that of its append": {
			[]Event{{MS: 100_000, Appended: 5000, User: "1", Column: JSONColumn([]byte(user))}, jsonEvent(0, 0, user)}, []string{"0-10000 1", "100000-110000 1"},
		},
		"what is no event moves nothing": {[]Event{jsonEvent(0, 100_000, `{"user_id": null}`), {MS: 100_000, Appended: Unbounded}, jsonEvent(0, 0, user)}, []string{"0-10000 1"}},
	} {
		report, err := Rules(context.Background(), counts, RulesOptions{Name: "counts", Lateness: 10 * time.Second}, sequence(c.events...))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, row := range report.Rules[0].Rows {
			got = append(got, fmt.Sprintf("%d-%d %s", row.Start, row.End, row.Values[1]))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// What Flink refuses, and the translator does not look for, ends the rule and nothing else.
func TestRulesOfOtherTypes(t *testing.T) {
	var script strings.Builder
	calls := []string{"UPPER(price)", "SUBSTRING(brand, 1.5)", "REGEXP(brand, brand)", "brand LIKE price", "CAST(brand AS INT) + 1"}
	for i, call := range calls {
		fmt.Fprintf(&script, "-- rule: r%d\nINSERT INTO a SELECT %s AS a FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;\n", i, call)
	}
	report, err := Rules(context.Background(), script.String(), RulesOptions{}, sequence(jsonEvent(0, 0, `{"user_id": 1, "brand": "(", "price": 1}`)))
	if err != nil {
		t.Fatal(err)
	}
	for i, call := range calls {
		if r := report.Rules[i]; (r.Refused == nil) != (i == len(calls)-1) {
			t.Errorf("%s: refused: %v, rows %v", call, r.Refused, r.Rows)
		}
	}
}

// A user is what the settings say, a number or a text. In an expression it is a BIGINT.
func TestRulesUser(t *testing.T) {
	var events []Event
	for _, user := range []string{`"ann"`, `7`, `"ann"`, `"8"`, `7`} {
		events = append(events, Rule{User: []string{"customer.id"}, Time: []string{"at"}}.Event(0, []byte(`{"user_id": 1, "customer": {"id": `+user+`}, "at": 1704067202000}`), time.UnixMilli(1_704_067_300_000)))
	}
	script := `INSERT INTO a SELECT user_id AS who, COUNT(*) AS n, COUNT(DISTINCT user_id) AS one, MAX(user_id + 1) AS next FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id`
	report, err := Rules(context.Background(), script, RulesOptions{Name: "r"}, sequence(events...))
	if err != nil {
		t.Fatal(err)
	}
	const window = "r 1704067200000-1704067210000 false "
	want := []string{window + `{"who":"8","n":1,"one":1,"next":9}`, window + `{"who":"ann","n":2,"one":1,"next":null}`, window + `{"who":7,"n":2,"one":1,"next":8}`}
	if d := cmp.Diff(want, lines(report)); d != "" || report.Invalid > 0 {
		t.Error(report.Invalid, d)
	}
}

// Events are JSON, too: a time in another zone, or in milliseconds, is the same time for a rule.
func TestRulesJSON(t *testing.T) {
	var events []Event
	for _, value := range []string{
		`{"user_id": 7, "txn_timestamp": "2024-01-01T02:00:01+02:00", "brand": "a"}`, `{"user_id": "7", "event_time": 1704067202000, "brand": 12.50}`,
		`{"user_id": 7, "txn_timestamp": "2024-01-01 00:00:03.5 UTC", "brand": {"x": [1]}}`, `{"user_id": 7, "txn_timestamp": "noon"}`, `{}`, `[`,
	} {
		events = append(events, Rule{}.Event(0, []byte(value), time.UnixMilli(1_704_067_300_000)))
	}
	script := `INSERT INTO a SELECT user_id, MIN(txn_timestamp) AS t0, MAX(txn_timestamp) AS t1, MIN(brand) AS b0, MAX(brand) AS b1 FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id`
	report, err := Rules(context.Background(), script, RulesOptions{Name: "json"}, sequence(events...))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`json 1704067200000-1704067210000 false {"user_id":"7","t0":"2024-01-01T00:00:02.000","t1":"2024-01-01T00:00:02.000","b0":"12.50","b1":"12.50"}`, // another user than 7
		`json 1704067200000-1704067210000 false {"user_id":7,"t0":"2024-01-01T00:00:01.000","t1":"2024-01-01T00:00:03.500","b0":"a","b1":"{\"x\": [1]}"}`,
	}
	if d := cmp.Diff(want, lines(report)); d != "" {
		t.Error(d)
	}
	if report.In != 6 || report.Invalid != 3 {
		t.Errorf("%d events, %d invalid", report.In, report.Invalid)
	}
}

// A row of a HOP that is late for its first windows counts in the others.
func TestRulesLateByWindow(t *testing.T) {
	script := `INSERT INTO a SELECT COUNT(*) AS n FROM TABLE(HOP(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND, INTERVAL '30' SECOND)) GROUP BY window_start, window_end`
	report, err := Rules(context.Background(), script, RulesOptions{Name: "hop", Lateness: 10 * time.Second}, sequence(
		jsonEvent(0, 49_999, `{"user_id": 1}`), jsonEvent(0, 25_000, `{"user_id": 1}`), jsonEvent(0, 5_000, `{"user_id": 1}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"hop 20000-50000 false {\"n\":2}", "hop 30000-60000 false {\"n\":1}", "hop 40000-70000 false {\"n\":1}"}
	if i := slices.Index(lines(report), `hop 10000-40000 false {"n":1}`); i >= 0 {
		t.Error("a window is closed by a watermark at its last millisecond")
	}
	if d := cmp.Diff(want, lines(report)); d != "" {
		t.Error(d)
	}
}

func TestRulesScript(t *testing.T) {
	script := `
CREATE TABLE shop (who ROW<id BIGINT, name STRING>, price DECIMAL(6, 2) NOT NULL, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1' SECOND)
WITH ('connector' = 'kafka', 'topic' = 'x;y');
CREATE TABLE alerts (a TIMESTAMP(3), name STRING, total DECIMAL(38, 2), b BOOLEAN) WITH ('connector' = 'print');
SET 'table.local-time-zone' = 'UTC';

-- A comment.

-- rule: spent
-- critical: SUM(price) >= ${much}
-- param: least = 2.5
-- param: much = 10
INSERT INTO alerts
SELECT SESSION_START(at, INTERVAL '5' SECOND), s.who.name, SUM(price), MAX(price) > 5 FROM shop AS s
GROUP BY SESSION(at, INTERVAL '5' SECOND), s.who.name HAVING SUM(price) > ${least};

-- rule: off
-- mode: off
INSERT INTO alerts SELECT 1;

-- rule: refused
INSERT INTO other SELECT STDDEV_POP(price) FROM shop GROUP BY TUMBLE(at, INTERVAL '1' SECOND);

-- rule: strange
INSERT INTO other SELECT COUNT(*) AS "n" FROM shop GROUP BY TUMBLE(at, INTERVAL '1' SECOND);
`
	_, err := Rules(context.Background(), script, RulesOptions{}, sequence())
	if err == nil || !strings.Contains(err.Error(), "line 25: cannot read \"\\\"\"") {
		t.Errorf("got error %v", err)
	}
	script, _, _ = strings.Cut(script, "-- rule: strange")
	shop := func(ms int64, name, price string) Event {
		return jsonEvent(0, ms, fmt.Sprintf(`{"who": {"id": 1, "name": %s}, "price": %s}`, name, price))
	}
	report, err := Rules(context.Background(), script, RulesOptions{Set: map[string]string{"spent.much": "9"}}, sequence(
		shop(0, `"é"`, "2.50"), shop(5000, `"é"`, `"7.005"`), shop(1000, `"é"`, "null"), shop(11_000, "null", "3"), shop(20_000, `"é"`, "2.5")))
	if err != nil {
		t.Fatal(err)
	}
	if report.In != 5 || report.Invalid != 1 {
		t.Errorf("%d events, %d invalid", report.In, report.Invalid)
	}
	want := []string{
		`spent 0-10000 true {"a":"1970-01-01T00:00:00.000","name":"é","total":"9.51","b":true}`,
		`spent 11000-16000 false {"a":"1970-01-01T00:00:11.000","name":null,"total":"3.00","b":false}`,
		`refused: the reference does not support the function STDDEV_POP`,
	}
	if d := cmp.Diff(want, lines(report)); d != "" {
		t.Error(d)
	}
}

func TestRulesErrors(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(context.Background())
	o := RulesOptions{Name: "counts"}
	for name, c := range map[string]struct {
		script string
		events iter.Seq2[Event, error]
		want   error
	}{
		"no rule":    {"SET 'a' = 'b';", sequence(), nil},
		"a comment":  {"/* " + counts, sequence(), nil},
		"the events": {counts, func(yield func(Event, error) bool) { yield(Event{}, broken) }, broken},
		"cancelled": {counts, func(yield func(Event, error) bool) {
			for i := range int64(1000) {
				if i == 500 {
					cancel()
				}
				if !yield(jsonEvent(0, i, `{"user_id": 1}`), nil) {
					return
				}
			}
		}, context.Canceled},
	} {
		if _, err := Rules(ctx, c.script, o, c.events); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got error %v, want %v", name, err, c.want)
		}
		if name == "cancelled" {
			ctx, cancel = context.WithCancel(context.Background())
		}
	}
	cancel()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What the translator does not know it refuses, whatever it is.
func FuzzRules(f *testing.F) {
	f.Add(counts)
	f.Add("-- param: a = -1\n" + strings.ReplaceAll(counts, "COUNT(*)", "CASE WHEN brand LIKE 'a_' ESCAPE '!' THEN ${a} END"))
	f.Add("CREATE TABLE t (a ROW<b INT>, t TIMESTAMP(3), WATERMARK FOR t AS t - INTERVAL '1:3' MINUTE TO SECOND) WITH ();" + counts)
	f.Add(strings.ReplaceAll(counts, "SECOND", "SECOND("))
	f.Add(strings.ReplaceAll(counts, "COUNT(*)", strings.Repeat("ABS(", 60)+"price"+strings.Repeat(")", 60)))
	f.Add(strings.ReplaceAll(counts, "COUNT(*)", strings.Repeat("(", 5000)))
	f.Fuzz(func(t *testing.T, script string) {
		file, err := parseRules(script, RulesOptions{Name: "fuzz"})
		if err != nil {
			return
		}
		for _, q := range file.queries {
			if q.refused == nil {
				_ = q.statement("s")
			}
		}
	})
}
