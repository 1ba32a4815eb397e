package rule_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

// TestFeed: rules share a feed if, and only if, the same events are counted for them by the same key in the same slices.
func TestFeed(t *testing.T) {
	feed := func(where, group string) string {
		t.Helper()
		if where != "" {
			where = " WHERE " + where
		}
		return compile(t, "r", "INSERT INTO alerts SELECT COUNT(*) AS n, MAX(brand) AS b FROM activity"+where+" GROUP BY "+group).Rules[0].Feed()
	}
	const ten = "TUMBLE(txn_timestamp, INTERVAL '10' SECOND), "
	base := feed("brand = 'a' AND price > 1", ten+"user_id")
	for name, test := range map[string]struct {
		where, group string
		same         bool
	}{
		"order of AND":    {"price > 1 AND brand = 'a'", ten + "user_id", true},
		"repeated":        {"price > 1 AND brand = 'a' AND price > 1", ten + "user_id", true},
		"hop":             {"brand = 'a' AND price > 1", "HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_id", true},
		"hop, 4 and 6 s":  {"brand = 'a' AND price > 1", "HOP(txn_timestamp, INTERVAL '4' SECOND, INTERVAL '6' SECOND), user_id", false},
		"another slice":   {"brand = 'a' AND price > 1", "TUMBLE(txn_timestamp, INTERVAL '20' SECOND), user_id", false},
		"session":         {"brand = 'a' AND price > 1", "SESSION(txn_timestamp, INTERVAL '10' SECOND), user_id", false},
		"another value":   {"brand = 'b' AND price > 1", ten + "user_id", false},
		"less":            {"brand = 'a'", ten + "user_id", false},
		"another key":     {"brand = 'a' AND price > 1", ten + "user_session", false},
		"two keys":        {"brand = 'a' AND price > 1", ten + "user_id, brand", false},
		"a key's letters": {"brand = 'a' AND price > 1", ten + "LOWER(brand)", false},
	} {
		if got := feed(test.where, test.group); (got == base) != test.same {
			t.Errorf("%s: %s and %s", name, got, base)
		}
	}
}

func TestCost(t *testing.T) {
	set := compile(t, "r", `INSERT INTO alerts SELECT brand, COUNT(*) AS n, COUNT(DISTINCT product_id) AS products, SUM(price) AS total, MAX(category_code) AS c
FROM activity WHERE event_type = 'view' GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), brand HAVING MIN(user_session) > 'a'`)
	pane := int64(80 + 32 + 4*40 + 2*(112+32))
	want := rule.Cost{
		Fields: []string{"brand", "category_code", "event_type", "price", "product_id", "txn_timestamp", "user_session"},
		Panes:  6, BytesPerKey: 6 * pane, BytesPerDistinct: 16, MaxBytesPerKey: 6 * (pane + 16*rule.MaxDistinct),
	}
	if diff := cmp.Diff(want, set.Cost(set.Rules[0])); diff != "" {
		t.Error(diff)
	}
}
