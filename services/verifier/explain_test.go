package verifier

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const scraper = `-- rule: scraper
-- critical: COUNT(*) > 3
INSERT INTO alerts
SELECT user_id, COUNT(DISTINCT product_id) AS products
FROM activity
WHERE event_type = 'view' AND (price BETWEEN 1 AND 10 OR brand IS NULL) AND user_session NOT IN ('x', 'y')
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id
HAVING COUNT(DISTINCT product_id) > 2 AND (COUNT(*) FILTER (WHERE brand = 'a') >= 1 OR MAX(price) < 5) AND COUNT(*) BETWEEN 1 AND 9;`

// raw are JSON values.
func raw(list ...string) (out []json.RawMessage) {
	for _, v := range list {
		out = append(out, json.RawMessage(v))
	}
	return out
}

func explained(t *testing.T, script, rule string, events ...Event) []Group {
	t.Helper()
	for i := range events {
		events[i].Partition = int32(i) // none is late
	}
	list, err := Explain(context.Background(), script, rule, RulesOptions{}, sequence(events...))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestExplain(t *testing.T) {
	event := func(ms int64, user, product int, more string) Event {
		return jsonEvent(0, ms, fmt.Sprintf(`{"user_id": %d, "product_id": %d%s}`, user, product, more))
	}
	const seen = `, "event_type": "view", "price": 2, "user_session": "s"`
	list := explained(t, scraper, "scraper",
		event(1, 7, 1, seen), event(2, 7, 2, seen+`, "brand": "a"`), event(3, 7, 2, seen),
		event(4, 7, 3, `, "event_type": "cart", "price": 2, "user_session": "s"`), event(5, 7, 4, `, "event_type": "view", "price": 20, "brand": "b", "user_session": "x"`),
		event(11_000, 7, 9, `, "event_type": "cart"`), event(6, 8, 1, seen))
	if len(list) != 3 {
		t.Fatalf("%d groups: %+v", len(list), list)
	}
	want := Group{
		Start: 0, End: 10_000, Keys: raw("7"),
		Where: []Part{
			{"event_type = 'view'", []string{"event_type"}, 1}, {"(price BETWEEN 1 AND 10 OR brand IS NULL)", []string{"price", "brand"}, 1},
			{"user_session NOT IN ('x', 'y')", []string{"user_session"}, 1},
		},
		Unfiltered: true, Counted: []int64{1, 2, 3}, Filtered: []int64{4, 5},
		Having: []Comparison{
			{"COUNT(DISTINCT product_id) > 2", raw("2")[0], ">", raw("2")[0], false},
			{"COUNT(*) FILTER (WHERE brand = 'a') >= 1", raw("1")[0], ">=", raw("1")[0], true},
			{"MAX(price) < 5", raw("2.0")[0], "<", raw("5")[0], true},
			{"COUNT(*) BETWEEN 1 AND 9", nil, "", nil, true},
		},
		Columns: []Column{{"user_id", raw("7")[0]}, {"products", raw("2")[0]}},
	}
	if d := cmp.Diff(want, list[0]); d != "" {
		t.Error(d)
	}
	if g := list[2]; g.Start != 10_000 || len(g.Filtered) != 1 || g.Counted != nil || g.Having != nil {
		t.Errorf("a window without an event that WHERE lets pass: %+v", g)
	}
	list = explained(t, scraper, "scraper", event(1, 7, 1, seen), event(2, 7, 2, seen), event(3, 7, 3, seen), event(4, 7, 3, seen))
	if len(list) != 1 || !list[0].Holds || !list[0].Critical {
		t.Errorf("a group that breaks the rule: %+v", list)
	}
}

// The groups for which HAVING holds are the rows of the rule, for every rule of the library.
func TestExplainAgreesWithRules(t *testing.T) {
	files, err := filepath.Glob("../../rules/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var events []Event
	for range 5000 {
		ms := r.Int64N(120_000)
		events = append(events, jsonEvent(r.Int32N(4), ms, fmt.Sprintf(`{"user_id": %d, "event_type": %q, "product_id": %d, "price": %d.5, "user_session": "s%d", "ip": "10.0.0.%d", "txn_timestamp": %d, "login": %q, "coupon": "c%d"}`,
			r.IntN(20), pick("view", "view", "cart", "purchase", "remove_from_cart", "payment_failed", "login_failed", "coupon"), r.IntN(50), r.IntN(20), r.IntN(30), r.IntN(9), ms, pick("a", "b", "c"), r.IntN(40))))
	}
	options := RulesOptions{Lateness: 20 * time.Second}
	found := 0
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		report, err := Rules(t.Context(), string(script), options, sequence(events...))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Rules {
			if r.Refused != nil {
				t.Fatalf("%s: %v", r.Rule, r.Refused)
			}
			groups, err := Explain(t.Context(), string(script), r.Rule, options, sequence(events...))
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, g := range groups {
				if g.Holds {
					got = append(got, fmt.Sprint(g.Start, g.End, g.Critical, g.Columns))
				}
			}
			for _, row := range r.Rows {
				var columns []Column
				for i, v := range row.Values {
					columns = append(columns, Column{r.Columns[i], v})
				}
				want = append(want, fmt.Sprint(row.Start, row.End, row.Critical, columns))
			}
			slices.Sort(got)
			slices.Sort(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", r.Rule, d)
			}
			t.Logf("%s: %d of %d groups", r.Rule, len(got), len(groups))
			if found += len(got); len(got) == len(groups) {
				t.Errorf("%s: every group is a row", r.Rule)
			}
		}
	}
	if found == 0 {
		t.Error("no rule finds anything")
	}
}

// What binds less than a comparison is not a side of it.
func TestExplainParts(t *testing.T) {
	for _, c := range []struct {
		where, having string
		parts         []string
		comparisons   []Comparison
	}{
		{"event_type = 'view' OR event_type = 'cart'", "COUNT(*) > 1", []string{"event_type = 'view' OR event_type = 'cart'"}, []Comparison{{"COUNT(*) > 1", raw("2")[0], ">", raw("1")[0], true}}},
		{"product_id > 0 AND event_type = 'view' OR event_type = 'cart'", "COUNT(*) > 1 IS TRUE", []string{"product_id > 0 AND event_type = 'view' OR event_type = 'cart'"},
			[]Comparison{{"COUNT(*) > 1 IS TRUE", nil, "", nil, true}}},
		{"NOT event_type = 'cart' AND product_id + 1 BETWEEN 1 AND 3", "(COUNT(*) > 5) IS NOT TRUE", []string{"NOT event_type = 'cart'", "product_id + 1 BETWEEN 1 AND 3"},
			[]Comparison{{"(COUNT(*) > 5) IS NOT TRUE", nil, "", nil, true}}},
	} {
		list := explained(t, "-- rule: r\nINSERT INTO a SELECT user_id FROM activity WHERE "+c.where+" GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING "+c.having+";", "r",
			jsonEvent(0, 1, `{"user_id": 7, "product_id": 1, "event_type": "view"}`), jsonEvent(0, 2, `{"user_id": 7, "product_id": 2, "event_type": "view"}`))
		var parts []string
		for _, p := range list[0].Where {
			parts = append(parts, p.Text)
		}
		if d := cmp.Diff(c.parts, parts) + cmp.Diff(c.comparisons, list[0].Having); d != "" {
			t.Errorf("%s: %s", c.where, d)
		}
	}
}

func TestExplainRefuses(t *testing.T) {
	for _, c := range [][3]string{
		{counts, "other", "the file has no such rule"},
		{"-- rule: s\nINSERT INTO a SELECT user_id FROM activity GROUP BY SESSION(txn_timestamp, INTERVAL '1' MINUTE), user_id;", "s", "only windows of a fixed size"},
		{"-- rule: s\nINSERT INTO a SELECT user_id FROM other GROUP BY TUMBLE(txn_timestamp, INTERVAL '1' MINUTE), user_id;", "s", "table other is not known"},
	} {
		if _, err := Explain(t.Context(), c[0], c[1], RulesOptions{}, sequence()); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v, want %q", c[0], err, c[2])
		}
	}
}
