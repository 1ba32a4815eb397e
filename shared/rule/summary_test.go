package rule

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestSummary: columns are put in as people read them, whatever an event has in them.
func TestSummary(t *testing.T) {
	const file = `-- rule: r
-- summary: {who} paid {total} {{not a column}} at {window_start}: {who} ({flag})
INSERT INTO alerts SELECT who, SUM(d) AS total, flag, TUMBLE_START(ts, INTERVAL '10' SECOND) AS window_start FROM t
GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), who, flag`
	table := `CREATE TABLE t (who STRING, flag BOOLEAN, d DECIMAL(10, 2), ts TIMESTAMP(3), WATERMARK FOR ts AS ts);
`
	set, errs := Compile(strings.Replace(table+file, "{{not a column}}", "in", 1), Options{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	p := set.Plan().Program(0)
	summary := func(key string) string {
		t.Helper()
		cells := NewCells(1)
		cells.List[0] = Cell{n: 1, sum: wide{lo: 1250}}
		if !p.Row([]byte(key), 1, cells, 10_000, 20_000) {
			t.Fatalf("%s is no key", key)
		}
		return string(p.AppendSummary(nil))
	}
	for key, want := range map[string]string{
		`["Zoë \"x\"",true]`:               `Zoë "x" paid 12.50 in at 1970-01-01T00:00:10.000: Zoë "x" (true)`,
		`[null,null]`:                      `NULL paid 12.50 in at 1970-01-01T00:00:10.000: NULL (NULL)`,
		"[\"\\u001b[2J\\u202e\\n\",false]": "\ufffd[2J\ufffd\ufffd paid 12.50 in at 1970-01-01T00:00:10.000: \ufffd[2J\ufffd\ufffd (false)",
	} {
		if got := summary(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	for n := range 4 {
		got := summary(`["` + strings.Repeat("x", n) + strings.Repeat("ä", 2000) + `",true]`)
		if len(got) > MaxSummary || len(got) < MaxSummary-3 || !utf8.ValidString(got) || !strings.HasSuffix(got, "ä…") {
			t.Errorf("it has %d bytes and ends with %q", len(got), got[len(got)-10:])
		}
	}
}
