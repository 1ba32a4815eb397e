package rule

import (
	"strings"
	"testing"
	"time"
)

func TestThreshold(t *testing.T) {
	set, err := Burst(10*time.Second, 7, 20)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := set.Rules[0].Threshold(); n != 7 || !ok {
		t.Errorf("burst: %d, %v", n, ok)
	}
	const same = `-- rule: burst
INSERT INTO alerts SELECT user_id, COUNT(*) AS num_actions_per_watermark FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5`
	for _, c := range []struct {
		from, to string
		want     int64
	}{
		{"", "", 5},
		{"burst", "other", 0},
		{"> 5", "> 0", 0},
		{"> 5", ">= 5", 0},
		{"> 5", "> 5 AND COUNT(*) < 9", 0},
		{"HAVING COUNT(*) > 5", "", 0},
		{"FROM activity", "FROM activity WHERE price > 1", 0},
		{"COUNT(*) AS", "COUNT(price) AS", 0},
		{"SELECT user_id,", "SELECT brand AS user_id, ", 0},
		{"TUMBLE(txn_timestamp,", "HOP(txn_timestamp, INTERVAL '5' SECOND,", 0},
	} {
		text := strings.Replace(same, c.from, c.to, 1)
		if c.to == "SELECT brand AS user_id, " {
			text = strings.Replace(text, "SECOND), user_id", "SECOND), brand", 1)
		}
		set, errs := Compile(text, Options{Tables: []*Table{Activity()}})
		if len(errs) > 0 {
			t.Fatalf("%s: %v", text, errs[0])
		}
		if n, ok := set.Rules[0].Threshold(); n != c.want && ok || ok != (c.want > 0) {
			t.Errorf("%s: %d, %v", text, n, ok)
		}
	}
}
