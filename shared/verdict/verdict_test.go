package verdict

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/rule"
	"spate/shared/window"
)

const second = 1_572_566_400_000

func verdict(n int, key, columns string, size int64, state window.State) window.Verdict {
	return window.Verdict{Rule: n, Key: key, State: state, Columns: []byte(columns),
		Pane: window.Pane{StartMS: second, SizeMS: size, Count: 12, FirstMS: second + 5, LastMS: second + 9_000}}
}

// TestBurst: an alert of the rule without a rules file is what it was when there was no other.
func TestBurst(t *testing.T) {
	set, err := rule.Burst(10*time.Second, 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	v := verdict(0, `520088904`, `"user_id":520088904,"num_actions_per_watermark":12`, 10_000, window.Closed)
	v.Critical = true
	want := alert.Record{
		ID: alert.ID("burst", "520088904", second, 10_000), Rule: "burst", State: alert.Closed, Severity: alert.Critical, UserID: json.RawMessage(`520088904`),
		Count: 12, Threshold: 5, WindowStart: at(second), WindowEnd: at(second + 10_000), FirstEventAt: at(second + 5), LastEventAt: at(second + 9_000),
	}
	if diff := cmp.Diff(want, New(set.Plan()).Record(v)); diff != "" {
		t.Error(diff)
	}
}

func TestAnyRule(t *testing.T) {
	const file = `-- rule: unused
-- mode: off
INSERT INTO alerts SELECT COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND);
-- rule: brands
-- mode: shadow
INSERT INTO alerts
SELECT user_id, brand AS b, TUMBLE_START(txn_timestamp, INTERVAL '10' SECOND) AS window_start, COUNT(DISTINCT product_id) AS products
FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id, brand HAVING COUNT(*) > 3;
-- rule: burst
INSERT INTO alerts SELECT user_id, SUM(price) AS total
FROM activity GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '15' SECOND), user_id HAVING COUNT(*) > 3;
-- rule: all
INSERT INTO alerts SELECT COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND);`
	set, errs := rule.Compile(file, rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs[0])
	}
	tell := New(set.Plan())
	brands := verdict(0, `["<7>",null]`, `"user_id":"<7>","b":null,"window_start":"2019-11-01T00:00:00.000","products":4`, 10_000, window.Raised)
	brands.AtLeast, brands.Critical = true, true
	for _, c := range []struct {
		v    window.Verdict
		want string
	}{
		{brands, `"rule":"brands","state":"raised","severity":"critical","mode":"shadow","key":{"user_id":"<7>","b":null},"user_id":"<7>","b":null,"products":4,"at_least":true,"event_count":12,`},
		{verdict(1, `7`, `"user_id":7,"total":1.5`, 15_000, window.Opened), `"rule":"burst","state":"opened","severity":"warning","key":{"user_id":7},"user_id":7,"user":"7","total":1.5,"event_count":12,`},
		{verdict(2, `[]`, `"n":12`, 10_000, window.Closed), `"rule":"all","state":"closed","severity":"warning","key":{},"n":12,"event_count":12,`},
	} {
		r := tell.Record(c.v)
		r.Evidence = alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1, Last: 2}}}
		b, err := r.Encode()
		if err != nil || !strings.Contains(string(b), c.want) {
			t.Errorf("%v, %s\nlacks %s", err, b, c.want)
		}
		if back, err := alert.Parse(b); err != nil || cmp.Diff(r, back) != "" {
			t.Errorf("%v, %s", err, cmp.Diff(r, back))
		}
	}
}

// TestSummary: every alert of a rule has what the rule says for people, also one in the form that alerts had before there were rules files.
func TestSummary(t *testing.T) {
	const file = `-- rule: burst
-- summary: {user_id} did {num_actions_per_watermark} things
-- runbook: https://runbooks.example/burst
INSERT INTO alerts SELECT user_id, COUNT(*) AS num_actions_per_watermark FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;
-- rule: brands
-- summary: {n} of {brand}
INSERT INTO alerts SELECT brand, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), brand HAVING COUNT(*) > 5;`
	set, errs := rule.Compile(file, rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs[0])
	}
	tell := New(set.Plan())
	burst, brands := verdict(0, `7`, `"user_id":7,"num_actions_per_watermark":12`, 10_000, window.Closed), verdict(1, `"x"`, `"brand":"x","n":12`, 10_000, window.Closed)
	burst.Summary, brands.Summary = "7 did 12 things", "12 of x"
	for _, c := range []struct {
		v    window.Verdict
		want string
	}{{burst, `"summary":"7 did 12 things","runbook":"https://runbooks.example/burst","user_id":7`}, {brands, `"summary":"12 of x","key":{"brand":"x"}`}} {
		r := tell.Record(c.v)
		r.Evidence = alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1, Last: 2}}}
		text, err := r.Encode()
		if err != nil || !strings.Contains(string(text), c.want) {
			t.Errorf("%v: %s lacks %s", err, text, c.want)
		}
		if back, err := alert.Parse(text); err != nil || !cmp.Equal(back.Summary, c.v.Summary) || r.Check() != nil {
			t.Errorf("%v: it is read back as %+v", err, back)
		}
	}
	bad := tell.Record(burst)
	bad.Summary = "a\x00b"
	if err := bad.Check(); err == nil || !strings.Contains(err.Error(), "summary") {
		t.Errorf("a control character: %v", err)
	}
}
