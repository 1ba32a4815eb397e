package rule_test

import "testing"

// TestValueType: a column that can be NULL, or greater than its type in Flink, is said to be so.
func TestValueType(t *testing.T) {
	for expression, want := range map[string]string{
		"COUNT(*)": "BIGINT NOT NULL", "COUNT(*) / 0": "BIGINT", "COUNT(*) / 2": "BIGINT NOT NULL", "COUNT(*) + 1": "BIGINT NOT NULL", "COUNT(*) + 9223372036854775807": "BIGINT",
		"COUNT(*) % COUNT(price)": "BIGINT", "SUM(CASE WHEN brand = 'a' THEN 1 ELSE 0 END)": "BIGINT NOT NULL", "COALESCE(SUM(CASE WHEN brand = 'a' THEN 1 END), 0)": "BIGINT NOT NULL",
		"SUM(CASE WHEN brand = 'a' THEN 1 ELSE 0 END) + 1": "INT", "MAX(CASE WHEN brand = 'a' THEN 1 ELSE 0 END)": "INT NOT NULL", "CAST(COUNT(*) AS INT)": "INT", "CAST(COUNT(*) AS DOUBLE)": "DOUBLE NOT NULL",
		"-COUNT(*)": "BIGINT NOT NULL", "CAST('a' AS INT)": "INT", "SUM(price)": "DOUBLE", "user_id": "BIGINT NOT NULL",
	} {
		set := compile(t, "r", "INSERT INTO alerts SELECT "+expression+" AS x FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5")
		r := set.Rules[0]
		if got := r.ValueType(r.Columns[0]).String(); got != want {
			t.Errorf("%s is %s, want %s", expression, got, want)
		}
	}
}
