package cases

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const rules = `-- rule: many
-- param: n = 2
-- critical: COUNT(*) > 4
INSERT INTO alerts SELECT user_id, COUNT(*) AS n, SUM(price) AS total, MAX(brand) AS brand FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > ${n};

-- rule: cheap
INSERT INTO alerts SELECT brand, AVG(price) AS price FROM activity WHERE brand IS NOT NULL
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), brand HAVING AVG(price) < 1;
`

// load writes files, and reads the cases of rules.sql.
func load(t *testing.T, text string, more ...string) (*File, []Source) {
	t.Helper()
	dir := t.TempDir()
	for i, files := 0, append([]string{"rules_test.yaml", text, "rules.sql", rules}, more...); i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name, ok := Beside(filepath.Join(dir, "rules.sql"))
	if !ok {
		t.Fatal("no cases beside the rules")
	}
	f, broken, err := Load(name, func(string) string { return "rule" })
	if err != nil {
		t.Fatal(err)
	}
	return f, broken
}

// failures runs the only case of a file.
func failures(t *testing.T, text string, more ...string) (out []string) {
	t.Helper()
	f, broken := load(t, "cases:\n  - name: it\n"+text, more...)
	for _, s := range broken {
		for _, e := range s.Errors {
			t.Error(e.Format(s.Name, s.Text))
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	r, err := f.Cases[0].Run()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		var members []string
		for _, d := range f.Differs {
			if d.Member == windowsMember {
				d.Member += "=" + string(d.Got)
			}
			members = append(members, d.Member)
		}
		out = append(out, strings.TrimSuffix(fmt.Sprintf("%d %s %s %s", f.Line, f.Rule, f.Kind, strings.Join(members, " ")), " "))
	}
	if r.Late > 0 {
		out = append(out, fmt.Sprint(r.Late, " late"))
	}
	return out
}

// three are the events of a user that the rule many finds.
const three = `    events:
      - {repeat: 3, every: 1s, user_id: 7, price: 0.1, txn_timestamp: "2024-01-01 00:00:00"}
`

// TestRun: rows are compared by what they name, and everything that is not as expected is told.
func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"as expected":    {three + "    expect: {many: [{user_id: 7, n: 3, total: 0.3, brand: null, window_start: 2024-01-01T00:00:00Z, window_end: \"2024-01-01 00:00:10\", opened: true, critical: false}]}", nil},
		"nothing named":  {three + "    expect: {many: [{}]}", nil},
		"none expected":  {three + "    expect:\n      many: []", []string{"6 many unexpected"}},
		"rule not named": {three + "    expect: {}", []string{"2 many unexpected"}},
		"others ignored": {three + "    expect: {}\n    others: ignore", nil},
		"missing":        {three + "    expect:\n      many:\n        - {n: 3}\n        - {n: 3}", []string{"8 many missing"}},
		"different":      {three + "    expect:\n      many:\n        - {user_id: 7, n: 4, total: 0.4}", []string{"7 many different n total"}},
		"nothing alike":  {three + "    expect:\n      many:\n        - {n: 4}", []string{"7 many missing", "7 many unexpected"}},
		"user is a text": {three + "    expect: {many: [{user_id: \"7\", n: 3}]}", []string{"5 many different user_id"}},
		"parameter":      {"    set: {many.n: 3}\n" + three + "    expect: {}", nil},
		"number and time": {`    events:
      - {repeat: 2, every: 1s, user_id: "u#", brand: "#", price: 1, txn_timestamp: "2024-01-01 00:00:00"}
      - {repeat: 3, every: 4s, user_id: "u#", brand: "x-#", price: 0.5}
    expect: {cheap: [{brand: x-1, price: 0.5}, {brand: x-2, window_start: "2024-01-01 00:00:00"}, {brand: x-3, window_start: "2024-01-01 00:00:10"}]}`, nil},
		"without repeat # is itself": {`    events: [{user_id: "#", brand: "#", price: 0, txn_timestamp: 1704067200000}]
    expect: {cheap: [{brand: "#", price: 0}]}`, nil},
		"a general row leaves the particular ones to others": {`    events:
      - {repeat: 3, user_id: 7, txn_timestamp: "2024-01-01 00:00:00"}
      - {repeat: 3, user_id: 8}
    expect: {many: [{n: 3}, {user_id: 7}]}`, nil},
		"late": {`    events:
      - {user_id: 7, txn_timestamp: "2024-01-01 00:00:00"}
      - {user_id: 7, txn_timestamp: "2024-01-01 00:00:20"}
      - {repeat: 5, user_id: 7, txn_timestamp: "2024-01-01 00:00:01"}
    expect: {}`, []string{"5 late"}},
		"in time on a partition of its own": {`    partitions: 2
    events:
      - {user_id: 7, txn_timestamp: "2024-01-01 00:00:00"}
      - {user_id: 7, txn_timestamp: "2024-01-01 00:00:20", partition: 1}
      - {repeat: 5, user_id: 7, txn_timestamp: "2024-01-01 00:00:01"}
    expect: {many: [{n: 6, critical: true}]}`, nil},
		"csv": {`    csv: |
      user_id,brand,price,event_time
      7,,0.5,2024-01-01 00:00:00 UTC
      7,"a, b",0.5,2024-01-01 00:00:01 UTC
      7,"a, b",0.25,2024-01-01 00:00:02 UTC
    expect: {many: [{user_id: 7, total: 1.25}], cheap: [{brand: "a, b", price: 0.375}]}`, nil},
		"file": {"    file: e.csv\n    expect: {many: [{user_id: x, n: 3}]}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			csv := "\ufeffuser_id,txn_timestamp,unknown\n" + strings.Repeat("x,2024-01-01 00:00:00,1\n", 3)
			if got := failures(t, test.text, "e.csv", csv); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestWindows: one row can stand for the alerts of several windows, some of them or all.
func TestWindows(t *testing.T) {
	const hopping = `-- rule: hop
INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity
GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '30' SECOND), user_id HAVING COUNT(*) > 2;
`
	// User 7 has windows with 3, 4 and 4 events, user 8 has three with 3.
	const events = `    events:
      - {repeat: 3, user_id: 7, txn_timestamp: "2024-01-01 00:00:00"}
      - {repeat: 3, user_id: 8}
      - {user_id: 7, txn_timestamp: "2024-01-01 00:00:15"}
    expect:
      hop:
`
	for name, test := range map[string]struct {
		rows string
		want []string
	}{
		"a number":            {"{user_id: 7, windows: 3} {user_id: 8, n: 3, windows: 3}", nil},
		"of some":             {"{user_id: 7, n: 4, windows: 2} {user_id: 7, n: 3} {user_id: 8, windows: 3}", nil},
		"of all":              {"{windows: 6}", nil},
		"any":                 {"{user_id: 7, windows: any} {user_id: 8, windows: any}", nil},
		"any of all":          {"{windows: any}", nil},
		"any beside a number": {"{n: 3, windows: any} {user_id: 7, windows: 3}", nil},
		"any leaves others":   {"{user_id: 7, windows: any} {n: 3, windows: 3} {n: 4}", nil},
		"too few":             {"{user_id: 7, windows: 3} {user_id: 8, windows: 5}", []string{"10 hop missing windows=3"}},
		"too many":            {"{user_id: 7, windows: 3} {user_id: 8, windows: 2}", []string{"9 hop unexpected"}},
		"none":                {"{user_id: 9, windows: any} {user_id: 7, windows: 3} {user_id: 8, windows: 3}", []string{"9 hop missing"}},
		"none but another":    {"{user_id: 7, n: 5, windows: 3} {n: 4, windows: 2} {n: 3, windows: 4}", []string{"9 hop missing"}},
		"not even one":        {"{user_id: 7, windows: 3} {user_id: 7, windows: any} {user_id: 8, windows: any}", []string{"10 hop missing"}},
		"any is too few":      {"{user_id: 8, windows: any}", []string{"9 hop unexpected", "9 hop unexpected", "9 hop unexpected"}},
	} {
		t.Run(name, func(t *testing.T) {
			rows := "        - " + strings.ReplaceAll(test.rows, "} {", "}\n        - {")
			if got := failures(t, events+rows, "rules.sql", hopping); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	// A column of the rule has precedence.
	column := strings.Replace(hopping, "AS n", "AS windows", 1)
	if got := failures(t, events+"        - {windows: 4}\n        - {windows: 4}\n"+strings.Repeat("        - {windows: 3}\n", 4), "rules.sql", column); len(got) > 0 {
		t.Error(got)
	}
}

// TestErrors: every error has its place, in the file in which it is.
func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "rules_test.yaml:1:1: a case file must be a mapping",
		"a: [":                 "rules_test.yaml:1:1: this is not valid YAML: did not find expected node content",
		"\x1b":                 "rules_test.yaml:1:1: this is not valid YAML: control characters are not allowed",
		"cases: []\n---\na: b": "rules_test.yaml:2:1: the file has more than one document",
		"cases: []":            "rules_test.yaml:1:1: the file has no cases",
		"cases: 1":             "rules_test.yaml:1:8: cases must be a list",
		"rules: no.sql":        "rules_test.yaml:1:8: read no.sql: no such file or directory",
		"cases: [{name: a}]":   "rules_test.yaml:1:9: a case needs exactly one of events, file and csv",
		"cases: [{csv: 'x', expect: {}}]\n": "rules_test.yaml:1:9: a case needs a one-line name|" +
			"rules_test.yaml:1:15: the CSV has no column with the event time (txn_timestamp or event_time)",
		"cases: [{name: a, name: b, csv: 'user_id,txn_timestamp', expect: {}}]": "rules_test.yaml:1:19: name appears twice",
		"cases:\n- {name: é, others: x, events: [], expect: {}}":                `rules_test.yaml:2:21: the value of others cannot be "x"`,
		"cases: [{name: a, events: [{user_id: 7}], expect: {}}]":                "rules_test.yaml:1:28: the first event needs a time: txn_timestamp",
		"cases: [{name: a, events: [{event_time: 1704067200000}], expect: {}}]": "rules_test.yaml:1:28: the event has no valid user_id, so it would not be counted: no_user",
		"cases: [{name: a, events: [{usr: 7}], expect: {}}]":                    "rules_test.yaml:1:28: the first event needs a time: txn_timestamp|rules_test.yaml:1:28: the event has no valid user_id, so it would not be counted: no_user|rules_test.yaml:1:29: an event has no member usr",
		"cases: [{name: a, events: [], expect: {many: [{x: 1}]}}]":              "rules_test.yaml:1:48: an alert from rule many has no member x",
		"cases: [{name: a, events: [], expect: {many: [{n: 1.5}]}}]":            `rules_test.yaml:1:51: n: "1.5" is not of type BIGINT`,
		"cases: [{name: a, events: [], expect: {many: [{windows: 0}, {windows: some}, {windows: [1]}]}}]": "rules_test.yaml:1:57: a windows value other than any must be a whole number between 1 and 3600|rules_test.yaml:1:71: a windows value other than any must be a whole number between 1 and 3600|" +
			"rules_test.yaml:1:88: this must be text or a number|rules_test.yaml:1:88: a windows value other than any must be a whole number between 1 and 3600",
		"cases: [{name: a, events: [], expect: {most: []}}]":                          "rules_test.yaml:1:40: expect has no member most",
		"cases: [{name: a, events: []}]":                                              "rules_test.yaml:1:9: expect is missing from the case",
		"cases: [{name: a, events: [], set: {many.m: 1}, expect: {}}]":                "rules_test.yaml:1:45: rules.sql has no parameter many.m",
		"cases: [{name: a, events: [], set: {many.n: x}, expect: {}}]":                "rules.sql:5:79: BIGINT cannot be compared with CHAR(1)",
		"cases: [{name: a, file: e.csv, expect: {}}]":                                 `e.csv:3:1: "x" is not a time`,
		"cases:\n- name: a\n  expect: {}\n  csv: |\n    user_id,txn_timestamp\n    7": "rules_test.yaml:6:1: wrong number of fields",
		"cases: [{name: a, events: [], expect: {}}, {name: a, csv: '', events: 1}]":   "rules_test.yaml:1:44: a case needs exactly one of events, file and csv|rules_test.yaml:1:44: the case on line 1 has the same name",
		"cases: [{name: a, partitions: 2, events: [{partition: 2, repeat: 0, every: x, user_id: 1, txn_timestamp: 1704067200000}], expect: {}}]": "rules_test.yaml:1:55: partition must be a whole number between 0 and 1|" +
			"rules_test.yaml:1:66: repeat must be a whole number between 1 and 10000000|rules_test.yaml:1:76: the value of every must be a duration in whole milliseconds, at most 24h",
	} {
		_, broken := load(t, text, "e.csv", "user_id,txn_timestamp\n7,2024-01-01 00:00:00\n7,x\n")
		var got []string
		for _, s := range broken {
			for _, e := range s.Errors {
				line, _, _ := strings.Cut(e.Format(filepath.Base(s.Name), s.Text), "\n")
				got = append(got, strings.ReplaceAll(line, filepath.Dir(s.Name)+string(filepath.Separator), ""))
			}
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q:\n got %s\nwant %s", text, strings.Join(got, "|"), want)
		}
	}
}

// FuzzLoad: whatever a file of cases says, reading it ends, and errors have a place in it.
func FuzzLoad(f *testing.F) {
	f.Add("cases:\n  - name: it\n" + three + "    expect: {many: [{n: 3}]}")
	f.Add("cases: &a [*a]")
	f.Add("cases: [{name: é, csv: \"user_id,txn_timestamp\\n7,2024-01-01\", expect: {many: [{n: 1e9}]}}]")
	f.Fuzz(func(t *testing.T, text string) {
		_, broken := load(t, text)
		for _, s := range broken {
			for _, e := range s.Errors {
				if int(e.Pos) > len(s.Text) {
					t.Errorf("%q: %s at %d", text, e.Message, e.Pos)
				}
				_ = e.Format(s.Name, s.Text)
			}
		}
	})
}
