package rule_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule/ruletest"
)

// What is impossible is NULL although its type is NOT NULL, and COUNT skips it.
func TestCountSkipsFaults(t *testing.T) {
	set := compile(t, "faults", `INSERT INTO alerts
SELECT window_start, window_end, COUNT(user_id) AS users, COUNT(10 / user_id) AS quotients, COUNT(CAST('x' AS INT)) AS numbers, COUNT(1) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND))
GROUP BY window_start, window_end`)
	log := ruletest.ParseLog(t, []byte("user_id,txn_timestamp\n0,2024-01-01 00:00:01\n5,2024-01-01 00:00:02\n"))
	got := ruletest.Sort(ruletest.Naive(t, set.Plan(), 0, ruletest.LatenessMS, log.Events(t, set.Inputs)))
	want := []string{`{"window_start":"2024-01-01T00:00:00.000","window_end":"2024-01-01T00:00:10.000","users":2,"quotients":1,"numbers":0,"n":2}`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// SUM of an INT has 64 bits, also beside a DECIMAL.
func TestLongSumBesideDecimal(t *testing.T) {
	set := compile(t, "sums", `INSERT INTO alerts
SELECT window_start, window_end, SUM(CASE WHEN user_id > 0 THEN 2000000000 ELSE 0 END) AS s, SUM(CASE WHEN user_id > 0 THEN 2000000000 ELSE 0 END) * 1.0 AS d
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND))
GROUP BY window_start, window_end
HAVING SUM(CASE WHEN user_id > 0 THEN 2000000000 ELSE 0 END) > 1.5`)
	log := ruletest.ParseLog(t, []byte("user_id,txn_timestamp\n"+strings.Repeat("5,2024-01-01 00:00:01\n", 100)))
	got := ruletest.Sort(ruletest.Naive(t, set.Plan(), 0, ruletest.LatenessMS, log.Events(t, set.Inputs)))
	want := []string{`{"window_start":"2024-01-01T00:00:00.000","window_end":"2024-01-01T00:00:10.000","s":200000000000,"d":"200000000000.0"}`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
