package tests

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"spate/shared/testport"
	"spate/tests/harness"
)

// TestWhyAgrees: for alerts of a log with late events, the events that spate why lists, counted by the reference, give the alerts' numbers: for built-in rules and those of a file.
func TestWhyAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	for name, args := range map[string][]string{
		"the rule without a file": nil,
		"rules":                   {"--rules", "../rules/burst.sql"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			addr := testport.Reserve(t)
			env := []string{"SPATE_STATE=" + dir, "SPATE_BROKERS=" + addr}
			harness.Spate(t, "up", []string{"SPATE_STATE=" + dir}, append([]string{"up", "--listen", addr, "--partitions", "3", "--idle-timeout", "1s"}, args...)...).Start()
			cl := harness.Connect(t, addr)
			harness.Eventually(t, 30*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, "alerts") })
			spate(t, env, "simulate", "../testdata/golden/late.csv.gz", "--speed", "0", "--quiet")
			var ids []string
			harness.Eventually(t, time.Minute, "alerts are closed", func() bool {
				ids = nil
				for line := range strings.Lines(spate(t, env, "alerts", "ls", "--json", "--limit", "60", "--only", "closed")) {
					var a struct{ ID string }
					if json.Unmarshal([]byte(line), &a) == nil && a.ID != "" {
						ids = append(ids, a.ID)
					}
				}
				return len(ids) == 60
			})
			list := askWhy(t, env, append(ids, "--events", "100000")...)
			if len(list) != len(ids) {
				t.Fatalf("%d answers about %d alerts", len(list), len(ids))
			}
			for i, w := range list {
				n := 0
				for _, e := range w.Answer.Events {
					if e.Fate == "counted" {
						n++
					}
				}
				if w.Alert != ids[i] || w.Numbers.Recount == nil || !*w.Numbers.Recount || n != w.Numbers.Counted || w.Notes != nil {
					t.Errorf("alert %s: %d events listed, %+v", ids[i], n, w)
				}
			}
		})
	}
}
