package rule_test

import (
	"strings"
	"testing"
)

// TestEarly: a rule opens early only if its condition stays TRUE whatever follows, and the reason names what may not.
func TestEarly(t *testing.T) {
	for having, want := range map[string]string{
		"COUNT(*) > 5": "",
		"COUNT(DISTINCT product_id) >= 9 OR MAX(price) > 100":                "",
		"5 < COUNT(*) AND MIN(price) <= 1":                                   "",
		"NOT COUNT(*) <= 5":                                                  "",
		"COUNT(*) * 2 - 10 > 5":                                              "",
		"COUNT(*) - MIN(product_id) > 5":                                     "",
		"SUM(CASE WHEN event_type = 'cart' THEN 1 ELSE 0 END) > 3":           "",
		"SUM(ABS(price)) > 3":                                                "",
		"SUM(price) FILTER (WHERE price > 0) > 3":                            "",
		"CAST(COUNT(*) AS DOUBLE) / 2 > 4":                                   "",
		"COUNT(*) > 5 AND user_id <> 7":                                      "",
		"SUM(price) IS NOT NULL":                                             "",
		"(COUNT(*) > 5) IS TRUE":                                             "",
		"COUNT(*) = 6":                                                       "COUNT(*) = 6",
		"COUNT(*) > 5 AND COUNT(*) FILTER (WHERE price IS NULL) = 0":         "COUNT(*) FILTER (WHERE price IS NULL) = 0",
		"COUNT(*) BETWEEN 2 AND 5":                                           "COUNT(*) <= 5",
		"SUM(price) > 3":                                                     "SUM(price) > 3",
		"AVG(price) > 3":                                                     "AVG(price) > 3",
		"COUNT(*) > COUNT(DISTINCT product_id)":                              "COUNT(*) > COUNT(DISTINCT product_id)",
		"COUNT(*) / -2 < -3 AND COUNT(*) / -2 > -9":                          "COUNT(*) / -2 > -9",
		"SUM(price) IS NULL":                                                 "SUM(price) IS NULL",
		"MAX(brand) LIKE 'x%'":                                               "MAX(brand) LIKE 'x%'",
		"CAST(COUNT(*) FILTER (WHERE price > 1) AS DOUBLE) / COUNT(*) > 0.5": "/ COUNT(*) > 0.5",
	} {
		set := compile(t, "r", "INSERT INTO alerts SELECT user_id FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING "+having)
		ok, reason := set.Rules[0].Early()
		if ok != (want == "") || !ok && !strings.Contains(reason, want) {
			t.Errorf("%s: %v, %s", having, ok, reason)
		}
	}
}

// TestLeastEvents: below it, HAVING cannot be TRUE.
func TestLeastEvents(t *testing.T) {
	for having, want := range map[string]int64{
		"COUNT(*) > 5": 6, "COUNT(*) >= 5.5": 6, "COUNT(DISTINCT brand) > 8 AND COUNT(*) > 2": 9, "COUNT(*) > 5 OR MAX(price) > 1": 1, "3 < COUNT(brand)": 4,
		"COUNT(*) = 4 OR COUNT(*) > 9": 4, "COUNT(*) < 5": 1, "COUNT(*) > -1": 1,
	} {
		set := compile(t, "r", "INSERT INTO alerts SELECT user_id FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING "+having)
		if got := set.Rules[0].LeastEvents(); got != want {
			t.Errorf("%s: %d, want %d", having, got, want)
		}
	}
}
