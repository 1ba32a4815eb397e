package rule

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// problems are the errors of a script, each as "line: message ^ fix".
func problems(script string) (out []string) {
	_, errs := Compile(script, Options{Tables: []*Table{Activity()}})
	for _, e := range errs {
		line := strings.Count(script[:e.Pos], "\n") + 1
		text := string(rune('0'+line)) + ": " + e.Message
		if e.Fix != "" {
			text += " ^ " + e.Fix
		}
		out = append(out, text)
	}
	return out
}

// TestFixes: what an error says to write instead works.
func TestFixes(t *testing.T) {
	const aggregates = "the aggregates are COUNT, SUM, MIN, MAX and AVG"
	for _, test := range []struct{ selected, window, having, want string }{
		{"window_start", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", "3: unknown column window_start ^ write TUMBLE_START(txn_timestamp, INTERVAL '10' SECOND) AS window_start"},
		{"TUMBLE_START(txn_timestamp, INTERVAL '10' SECOND) AS window_start", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", ""},
		{"1 AS n", "HOP(txn_timestamp, INTERVAL '1' SECOND, INTERVAL '1' MINUTE)", "window_end > TIMESTAMP '2024-01-01 00:00:00'", "5: unknown column window_end ^ write HOP_END(txn_timestamp, INTERVAL '1' SECOND, INTERVAL '1' MINUTE)"},
		{"window_time", "SESSION(txn_timestamp, INTERVAL '1' MINUTE)", "TRUE", "3: unknown column window_time ^ write SESSION_ROWTIME(txn_timestamp, INTERVAL '1' MINUTE) AS window_time"},
		{"1 AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND), window_start", "TRUE", "4: unknown column window_start ^ only FROM TABLE(TUMBLE(…)) has window_start"},
		{"user_id AS id", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id", "TRUE", "3: every alert already has a field named id ^ choose another alias"},
		{"STDDEV(price) AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", "3: the aggregate STDDEV is not supported ^ " + aggregates},
		{"STDDEV_POP(price) AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", "3: the aggregate STDDEV_POP is not supported ^ " + aggregates},
		{"MEDIAN(DISTINCT price) AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", "3: only aggregates can have *, DISTINCT or FILTER, and MEDIAN is not an aggregate ^ " + aggregates},
		{"1 AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "COUNT(DISTINCT product_id, brand, LOWER(event_type)) > 1", "5: COUNT takes one expression, but this call has 3 ^ " +
			"combine them into one: COUNT(DISTINCT CAST(product_id AS STRING) || '|' || brand || '|' || LOWER(event_type))"},
		{"1 AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "COUNT(DISTINCT CAST(product_id AS STRING) || '|' || brand || '|' || LOWER(event_type)) > 1", ""},
		{"1 AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "COUNT(user_id, brand) > 1", "5: COUNT takes one expression, but this call has 2 ^ combine them into one: COUNT(CAST(user_id AS STRING) || '|' || brand)"},
		{"COUNT(DISTICT product_id) AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", "3: expected ), found product_id ^ did you mean DISTINCT?"},
		{"MAX(prise) AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", "3: unknown column prise ^ did you mean price?"},
		{"1 AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_sesion", "TRUE", "4: unknown column user_sesion ^ did you mean user_session?"},
		{"SUM(price, price) AS n", "TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", "TRUE", "3: SUM takes one expression, but this call has 2 ^ write SUM(x)"},
	} {
		script := "-- rule: r\nINSERT INTO alerts SELECT\n" + test.selected + " FROM activity GROUP BY\n" + test.window + " HAVING\n" + test.having
		if got := strings.Join(problems(script), "\n"); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", script, got, test.want)
		}
	}
	const where = "-- rule: r\nINSERT INTO alerts SELECT 1 AS n FROM activity WHERE window_start IS NULL GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND)"
	if d := cmp.Diff([]string{"2: unknown column window_start ^ only FROM TABLE(TUMBLE(…)) has window_start"}, problems(where)); d != "" {
		t.Error(d)
	}
}

// TestTextWithoutQuotes: a word that is no column, and like none, may have been meant as text.
func TestTextWithoutQuotes(t *testing.T) {
	const script = "-- rule: r\nINSERT INTO alerts SELECT 1 AS n FROM activity WHERE event_type = view GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND)"
	got := problems(script)
	if len(got) != 1 || !strings.HasPrefix(got[0], "2: unknown column view ^ for text, write 'view' in single quotes; the columns are event_time, ") {
		t.Errorf("%q", got)
	}
	if got := problems(strings.Replace(script, "view", "'view'", 1)); got != nil {
		t.Errorf("%q", got)
	}
}

// TestFirstWindow: the first window at a time or later is the next one that begins.
func TestFirstWindow(t *testing.T) {
	for _, c := range []struct {
		w        Window
		at, want int64
		ok       bool
	}{
		{Window{Kind: Tumble, Size: 10, Step: 10}, 20, 20, true},
		{Window{Kind: Tumble, Size: 10, Step: 10}, 21, 30, true},
		{Window{Kind: Tumble, Size: 10, Step: 10, Offset: 3}, 21, 23, true},
		{Window{Kind: Tumble, Size: 10, Step: 10}, -21, -20, true},
		{Window{Kind: Hop, Size: 60, Step: 10}, 21, 30, true},
		{Window{Kind: Cumulate, Size: 60, Step: 10}, 21, 60, true},
		{Window{Kind: Session, Step: 10}, 21, 0, false},
	} {
		if got, ok := c.w.First(c.at); got != c.want || ok != c.ok {
			t.Errorf("%v at %d: %d, %v", c.w, c.at, got, ok)
		}
	}
}

// TestErrorsTogether: what is wrong in several places is reported at once, and nothing that only follows from it.
func TestErrorsTogether(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		want   []string
	}{
		"every part of a rule": {`-- rule: Burst
-- summary: {usr_id} did {n}
-- critical: COUNT(*) > cnt
INSERT INTO alerts SELECT usr_id, COUNT(*) AS n
FROM activity WHERE prce > 1
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id
HAVING SUM(brand) > 4;
-- rule: other
INSERT INTO alerts SELECT user_id, COUNT(*) FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > ;
`, []string{
			`1: "Burst" is not a rule name`, "3: unknown column cnt", "4: unknown column usr_id", "5: unknown column prce", "7: SUM needs numbers, but this is STRING", "9: expected an expression, found the end of the statement",
		}},
		"what is not in GROUP BY is not known": {`-- rule: a
INSERT INTO alerts SELECT user_id, COUNT(*) AS n
FROM activity WHERE prce > 1
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), usr_id`, []string{"3: unknown column prce", "4: unknown column usr_id"}},
		"a table with an error of syntax": {`CREATE TABLE e (ip STRING, t TIMESTAMP(3), WATERMARK t AS t);
-- rule: a
INSERT INTO alerts SELECT ip FROM e GROUP BY TUMBLE(t, INTERVAL '10' SECOND), ip;
-- rule: b
INSERT INTO alerts SELECT ip FROM f GROUP BY TUMBLE(t, INTERVAL '10' SECOND), ip;`, []string{"1: WATERMARK is a reserved word of Flink SQL", "5: unknown table f"}},
		"a table with an unknown type": {`CREATE TABLE e (ip STRIN, t TIMESTAMP(3), WATERMARK FOR t AS t);
CREATE TABLE s (a STRING, b AS a);
-- rule: a
INSERT INTO alerts SELECT ip FROM e GROUP BY TUMBLE(t, INTERVAL '10' SECOND), ip;
-- rule: b
INSERT INTO s SELECT user_id, COUNT(*) FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;`, []string{
			"1: the type STRIN is not supported", "2: computed columns are not supported"}},
		"the columns of a sink": {`CREATE TABLE s (a STRING);
-- rule: a
-- summary: {a}
INSERT INTO s SELECT usr_id, COUNT(*) FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;`, []string{"4: unknown column usr_id"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := problems(test.script)
			for i := range got {
				got[i], _, _ = strings.Cut(got[i], " ^ ")
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
