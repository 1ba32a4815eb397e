package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

// Golden are all rules of the golden files that read an input, in one script.
type Golden struct {
	File   string // the input
	Script string
	Rows   int64     // of all rules
	Last   time.Time // the highest event time

	set  *rule.Set
	want map[string]ruletest.Case
}

// OnGolden runs a test for each input: with one partition, and with four where no row is late.
func OnGolden(t *testing.T, test func(t *testing.T, g Golden, partitions int32)) {
	t.Helper()
	byInput := map[string][]ruletest.Case{}
	for _, c := range ruletest.Cases(t) {
		byInput[c.Input] = append(byInput[c.Input], c)
	}
	for input, cases := range byInput {
		g := newGolden(t, input, cases)
		for _, partitions := range []int32{1, 4} {
			if partitions > 1 && cases[0].Late {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", input, partitions), func(t *testing.T) { test(t, g, partitions) })
		}
	}
}

func newGolden(t *testing.T, input string, cases []ruletest.Case) Golden {
	t.Helper()
	g := Golden{File: filepath.Join(t.TempDir(), input+".csv"), want: map[string]ruletest.Case{}}
	var script bytes.Buffer
	script.WriteString(ruletest.Tables(t))
	for _, c := range cases {
		if strings.HasPrefix(c.Rule, "session") {
			continue // sessions are not evaluated yet
		}
		fmt.Fprintf(&script, ";\n-- rule: %s\n%s", c.Rule, strings.TrimSuffix(strings.TrimSpace(c.Statement), ";"))
		g.want[c.Rule] = c
		for _, row := range c.Want {
			if row != "" {
				g.Rows++
			}
		}
	}
	g.Script = script.String()
	set, found := rule.Compile(g.Script, rule.Options{})
	for _, e := range found {
		t.Error(e.Format("golden.sql", g.Script))
	}
	if len(found) > 0 {
		t.FailNow()
	}
	g.set = set
	for _, e := range ruletest.ReadLog(t, input).Events(t, nil) {
		if at := time.UnixMilli(e.MS); at.After(g.Last) {
			g.Last = at
		}
	}
	if err := os.WriteFile(g.File, ruletest.Text(t, input), 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

// Compare holds the closed alerts against Flink's rows.
func (g Golden) Compare(t *testing.T, alerts []alert.Record) {
	t.Helper()
	rules := map[string]*rule.Rule{}
	for _, r := range g.set.Rules {
		rules[r.Name] = r
	}
	lines := map[string][]ruletest.Timed{}
	for _, a := range alerts {
		lines[a.Rule] = append(lines[a.Rule], ruletest.Timed{Start: a.WindowStart.UnixMilli(), End: a.WindowEnd.UnixMilli(), Line: columnsOf(t, rules[a.Rule], a)})
	}
	for _, r := range g.set.Rules {
		t.Run(r.Name, func(t *testing.T) { ruletest.Diff(t, r, ruletest.Sort(lines[r.Name]), g.want[r.Name].Want) })
	}
}

// columnsOf are the columns of the rule's SELECT list, as the golden files have them. The bounds of the window are the record's own.
func columnsOf(t *testing.T, r *rule.Rule, a alert.Record) string {
	t.Helper()
	encoded, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(encoded, &members); err != nil {
		t.Fatal(err)
	}
	var line []string
	for _, c := range r.Columns {
		value := string(members[c.Name])
		switch c.Name {
		case "window_start":
			value = a.WindowStart.Format(`"2006-01-02T15:04:05.000"`)
		case "window_end":
			value = a.WindowEnd.Format(`"2006-01-02T15:04:05.000"`)
		}
		line = append(line, fmt.Sprintf("%q:%s", c.Name, value))
	}
	return "{" + strings.Join(line, ",") + "}"
}
