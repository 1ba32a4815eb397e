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
		"COUNT(*) - MIN(product_id) > 5":                                     "write CAST(COUNT(*) AS DECIMAL(19, 0)) - MIN(product_id)",
		"COUNT(*) * 1000000 + 7 > 5":                                         "",
		"MAX(price) > 100 AND MIN(price) < 1":                                "",
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

// TestEarlyIsForGood: what can become NULL by an overflow, or NaN, does not open early, and the reason names the cause, and a form that does, which is one.
func TestEarlyIsForGood(t *testing.T) {
	const table = `CREATE TABLE t (a TINYINT, s SMALLINT, i INT, b BIGINT, d DECIMAL(10, 2), m DECIMAL(28, 2), w DECIMAL(38, 0), f FLOAT, x DOUBLE, y DOUBLE, k STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND);
-- rule: r
INSERT INTO alerts SELECT COUNT(*) AS n FROM t GROUP BY TUMBLE(ts, INTERVAL '1' SECOND) HAVING `
	early := func(having string) (bool, string) {
		t.Helper()
		return compile(t, "r", table+having).Rules[0].Early()
	}
	for _, having := range []string{
		"SUM(ABS(a)) > 5", "SUM(ABS(s) + 1) > 5", "SUM(i) FILTER (WHERE i > 0) > 5", "SUM(ABS(d)) > 5", "SUM(ABS(m)) > 5", "SUM(ABS(x)) > 5", "SUM(ABS(x + y)) > 5", "SUM(x * x) > 5 OR MAX(ABS(f)) > 2",
		"MAX(x) > 5", "MAX(f) > 5", "MAX(x - y) > 5", "MIN(x / y) < 5", "MAX(b) > 5", "MAX(w) > 5", "MAX(k) > 'a'", "MAX(ts) IS NOT NULL", "MAX(CHAR_LENGTH(k)) > 5",
		"SUM(CAST(ABS(a) AS BIGINT)) * 100000 > 7", "COUNT(DISTINCT b) > 7", "SUM(DISTINCT ABS(a)) > 7", "SUM(d) IS NOT NULL", "AVG(d) IS NOT NULL", "SUM(CASE WHEN k = 'a' THEN 1 ELSE 0 END) * 0.5 > 7",
		"SUM(-ABS(i)) < -7", "CAST(MAX(a) AS INT) + 1 > 7", "MAX(x / y) FILTER (WHERE x / y > 0) > 7", "MAX(SQRT(x)) FILTER (WHERE x >= 0) > 7", "COUNT(*) * 2.5 > 7",
		"GREATEST(MAX(a), COUNT(*)) > 7", "MAX(x) - MIN(x) > 5", "SUM(CHAR_LENGTH(k)) > 7", "NOT MAX(x) <= 5",
	} {
		if ok, reason := early(having); !ok {
			t.Errorf("%s does not open early: %s", having, reason)
		}
	}
	for having, want := range map[string]struct{ cause, instead string }{
		"SUM(b) FILTER (WHERE b > 0) > 5":                  {"becomes NULL if it exceeds BIGINT; declare b as INT or write ", "SUM(CAST(b AS DECIMAL(19, 0))) FILTER (WHERE b > 0)"},
		"SUM(ABS(b)) > 5":                                  {"SUM(ABS(b)) becomes NULL if it exceeds BIGINT; write ", "SUM(CAST(ABS(b) AS DECIMAL(19, 0)))"},
		"SUM(ABS(w)) > 5":                                  {"SUM(ABS(w)) becomes NULL if it exceeds DECIMAL(38, 0); write ", "SUM(CAST(ABS(w) AS DECIMAL(28, 0)))"},
		"COUNT(*) + 9223372036854775806 > 5":               {"becomes NULL if it exceeds BIGINT; write ", "CAST(COUNT(*) AS DECIMAL(19, 0)) + 9223372036854775806"},
		"COUNT(d) * 9223372036854775807 > 5":               {"becomes NULL if it exceeds BIGINT; write ", "CAST(COUNT(d) AS DECIMAL(19, 0)) * 9223372036854775807"},
		"MAX(i) + 1 > 5":                                   {"MAX(i) + 1 becomes NULL if it exceeds INT; write ", "CAST(MAX(i) AS BIGINT) + 1"},
		"MAX(x / y) > 5":                                   {"MAX(x / y) becomes NaN if x / y is; if it is meant to be positive, write ", "MAX(x / y) FILTER (WHERE x / y > 0)"},
		"MAX(LN(x)) FILTER (WHERE k = 'a' OR a = 1) > 5":   {"becomes NaN if LN(x) is; if it is meant to be positive, write ", "MAX(LN(x)) FILTER (WHERE (k = 'a' OR a = 1) AND LN(x) > 0)"},
		"CAST(COUNT(*) AS INT) > 5":                        {"CAST(COUNT(*) AS INT) becomes NULL if it exceeds INT; leave the CAST out", "COUNT(*)"},
		"SUM(DISTINCT ABS(i)) > 5":                         {"becomes NULL if it has more than 65536 distinct values", ""},
		"SUM(b) IS NOT NULL":                               {"SUM(b) becomes NULL if it exceeds BIGINT; declare b as INT or write ", "SUM(CAST(b AS DECIMAL(19, 0)))"},
		"CAST(MAX(x) AS DECIMAL(10, 2)) > 5":               {"becomes NULL if it exceeds DECIMAL(10, 2); leave the CAST out", "MAX(x)"},
		"MAX(w) > 0.5":                                     {"becomes NULL if it exceeds DECIMAL(38, 1); write ", "CAST(MAX(w) AS DOUBLE)"},
		"NOT MIN(x / y) >= 5":                              {"can first be NaN", ""},
		"MAX(x * 1e300) - MIN(x * 1e300) > 5":              {"becomes NaN", ""},
		"CAST(SUM(ABS(i)) AS INT) > 5":                     {"becomes NULL if it exceeds INT; leave the CAST out", "SUM(ABS(i))"},
		"SUM(CASE WHEN k = 'a' THEN 1 ELSE 0 END) + 1 > 5": {"becomes NULL if it exceeds INT; write ", "CAST(SUM(CASE WHEN k = 'a' THEN 1 ELSE 0 END) AS BIGINT) + 1"},
	} {
		ok, reason := early(having)
		if ok || !strings.Contains(reason, want.cause+want.instead) && want.cause[len(want.cause)-1] == ' ' || !strings.Contains(reason, want.cause) {
			t.Errorf("%s opens early: %v, %s", having, ok, reason)
		}
		if want.instead == "" {
			continue
		}
		if ok, reason := early(want.instead + " > 5"); !ok && !strings.HasSuffix(having, "NULL") {
			t.Errorf("%s, instead of %s, does not open early: %s", want.instead, having, reason)
		} else if strings.HasSuffix(having, "NULL") {
			if ok, reason = early(want.instead + " IS NOT NULL"); !ok {
				t.Errorf("%s, instead of %s, does not open early: %s", want.instead, having, reason)
			}
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
