package rule_test

import (
	"strings"
	"testing"
)

// TestWarnings: what is allowed in a rule and probably not meant is named, and what is meant is not.
func TestWarnings(t *testing.T) {
	const never, always = "HAVING can never be TRUE", "every window with an event raises an alert"
	for having, want := range map[string]string{
		"COUNT(*) > 5": "", "COUNT(*) > 1": "", "COUNT(*) BETWEEN 3 AND 3": "", "NOT COUNT(*) <= 5": "", "MAX(price) < 0": "", "SUM(price) < 0": "",
		"COUNT(*) FILTER (WHERE price > 1) = 0": "", "CAST(COUNT(*) AS DOUBLE) / 2 < 1": "", "COUNT(*) > 5 OR COUNT(*) < 3": "",
		"CAST(MIN(price) AS INT) = 5 AND MIN(price) > 5.5": "", "COUNT(*) > 9007199254740993": "", "user_id = 1 OR user_id = 2": "",
		"MAX(brand) = 'a' AND MIN(brand) = 'b'": "", "COUNT(*) = COUNT(DISTINCT product_id)": "",

		"COUNT(*) < 0": never, "COUNT(*) < 1": never, "0 > COUNT(DISTINCT product_id)": never, "COUNT(*) = 0": never, "NOT COUNT(*) > 0": never,
		"COUNT(*) > 5 AND COUNT(*) < 6": never, "COUNT(*) > 5 AND (user_id > 1 AND COUNT(*) = 3)": never, "1 = 2": never, "COUNT(*) IS NULL": never,
		"COUNT(*) > 10 AND user_id = 1 AND user_id = 2": never, "MAX(brand) = 'a' AND MAX(brand) = 'b'": never, "SUM(ABS(price)) < 0": never,
		"COUNT(*) + 3 < 2": never, "COUNT(*) - 1 < 0": never, "-COUNT(*) > 0": never, "COUNT(*) < 0 OR COUNT(*) < 1": never, "CAST(NULL AS BOOLEAN)": never,
		"COUNT(DISTINCT brand) > 70000": never + " (COUNT(DISTINCT …) counts up to 65536)", "COUNT(DISTINCT brand) >= 65536": "",
		"COUNT(*) > 5.5 AND COUNT(*) <= 5.5": never, "COUNT(*) > 5 OR COUNT(*) < 3 AND COUNT(*) > 3": "",

		"COUNT(*) > 0": always, "COUNT(*) >= 1": always, "COUNT(*) <> 0": always, "1 = 1": always, "NOT COUNT(*) < 0": always,
	} {
		set := compile(t, "r", "INSERT INTO alerts SELECT user_id FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING "+having)
		got := strings.Join(set.Rules[0].Warnings(), "\n")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", having, got, want)
		}
	}
}

func TestWarningsOfDirectives(t *testing.T) {
	for directives, want := range map[string]string{
		"-- critical: COUNT(*) > 10":                                  "",
		"-- critical: COUNT(*) >= ${least}\n-- param: least = 9":      "",
		"-- critical: COUNT(*) > 10 AND MAX(price) > 5":               "",
		"-- critical: COUNT(*) > 5":                                   "critical is TRUE for every alert",
		"-- critical: COUNT(*) >= 6":                                  "critical is TRUE for every alert",
		"-- critical: COUNT(*) > 3":                                   "critical is TRUE for every alert",
		"-- critical: COUNT(*) <= 5":                                  "critical can never be TRUE for an alert",
		"-- critical: SUM(price) > 1000":                              "becomes critical only when its window has ended: SUM(price) > 1000 can become FALSE again",
		"-- param: most = 9":                                          "parameter most is not used",
		"-- critical: COUNT(*) > ${a}\n-- param: a = 9\n-- mode: off": "",
	} {
		set := compile(t, "r", directives+"\nINSERT INTO alerts SELECT user_id FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5")
		got := strings.Join(set.Rules[0].Warnings(), "\n")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", directives, got, want)
		}
	}
	for where, want := range map[string]string{
		"price > 10 AND price < 5": "WHERE can never be TRUE", "event_type = 'a' AND event_type = 'b'": "WHERE can never be TRUE", "FALSE": "WHERE can never be TRUE",
		"price > 5 AND price < 10": "", "event_type = 'a' OR event_type = 'b'": "",
	} {
		set := compile(t, "r", "INSERT INTO alerts SELECT user_id FROM activity WHERE "+where+" GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id")
		got := strings.Join(set.Rules[0].Warnings(), "\n")
		if !strings.Contains(got, "without HAVING") || strings.Contains(got, "WHERE can never") != (want != "") {
			t.Errorf("%s: %q, want %q", where, got, want)
		}
	}
}
