package rule

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestQuietAndDecision(t *testing.T) {
	const table = "CREATE TABLE t (who STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts);\n"
	const body = "INSERT INTO alerts SELECT who, COUNT(*) AS n FROM t GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), who HAVING COUNT(*) > 5"
	set, errs := Compile(table+"-- rule: r\n-- quiet: 5m\n-- decision: challenge 10m\n"+body, Options{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	r := set.Rules[0]
	if r.Quiet != 5*time.Minute || r.Decision != (Decision{"challenge", 10 * time.Minute}) {
		t.Errorf("%v, %v", r.Quiet, r.Decision)
	}
	// What is printed compiles to the same; what the rule means for incidents and keys is part of it.
	again, errs := Compile(table+r.Statement(""), Options{})
	if len(errs) > 0 || again.Rules[0].identity() != r.identity() {
		t.Errorf("%v: %s", errs, r.Statement(""))
	}
	for _, without := range []string{"-- quiet: 5m\n", "-- decision: challenge 10m\n"} {
		other, errs := Compile(table+strings.Replace("-- rule: r\n-- quiet: 5m\n-- decision: challenge 10m\n", without, "", 1)+body, Options{})
		if len(errs) > 0 || other.Rules[0].identity() == r.identity() {
			t.Errorf("without %s it is the same rule: %v", without, errs)
		}
	}
	for directive, why := range map[string]string{
		"-- quiet: soon":                `quiet: "soon"`,
		"-- quiet: 500ms":               `quiet: "500ms"`,
		"-- quiet: 25h":                 `quiet: "25h"`,
		"-- decision: challenge":        `decision: "challenge" is not a level and a duration`,
		"-- decision: Challenge 10m":    "is not a level",
		"-- decision: challenge 0s":     "is not a level",
		"-- decision: challenge 1000h":  "from 1s to 744h",
		"-- decision: challenge 10m 1m": "is not a level",
	} {
		_, errs := Compile(table+"-- rule: r\n"+directive+"\n"+body, Options{})
		if len(errs) != 1 || !strings.Contains(fmt.Sprint(errs), why) {
			t.Errorf("%s: %v", directive, errs)
		}
	}
	_, errs = Compile(table+"-- rule: r\n-- decision: block 1h\nINSERT INTO alerts SELECT COUNT(*) AS n FROM t GROUP BY TUMBLE(ts, INTERVAL '10' SECOND) HAVING COUNT(*) > 5", Options{})
	if len(errs) != 1 || !strings.Contains(fmt.Sprint(errs), "the rule has no key that a decision could apply to") {
		t.Errorf("no key: %v", errs)
	}
}

// TestSetWithoutName: a rule that has the name of its file has its parameters under that name, too.
func TestSetWithoutName(t *testing.T) {
	const text = "-- param: most = 5\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY user_id, TUMBLE(txn_timestamp, INTERVAL '10' SECOND) HAVING COUNT(*) > ${most};"
	given := map[string]string{"busy.most": "40", "other.most": "50"}
	set, errs := Compile(text, Options{Name: "busy", Set: given, Tables: []*Table{Activity()}})
	if len(errs) > 0 || set.Rules[0].Params[0].Value != "40" || len(given) != 2 {
		t.Errorf("%v, %+v, %v", errs, set.Rules[0].Params, given)
	}
}
