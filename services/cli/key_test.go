package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"spate/services/detector"
)

// TestKeyOfARuleThatBeginsLater: that a rule has no windows of a key is told apart from that it has not begun.
func TestKeyOfARuleThatBeginsLater(t *testing.T) {
	r := newRuled(t)
	boundary := time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second)
	r.run(ExitOK, "apply", rulesFileOf(t, "one.sql", rulesText(1)))
	r.count()
	r.run(ExitOK, "apply", rulesFileOf(t, "two.sql", rulesText(1)+strings.Replace(rulesText(1), "rule: a", "rule: b", 1)), "--from", boundary.Format(time.RFC3339))
	_, _, errs := spate("key", "user_id=1", "--brokers", r.addr) // no detector is running
	says(t, errs, "spate: rule b of revision 2 takes effect at "+boundary.Format(time.DateTime)+" UTC and has no windows before that\n")
	if strings.Contains(errs, "rule a") {
		t.Errorf("rule a has begun, but: %s", errs)
	}
	if _, _, errs = spate("key", "user_id=1", "--rule", "a", "--brokers", r.addr); strings.Contains(errs, "begins") {
		t.Error(errs)
	}
}

// TestKeyThatNobodyCanHave: nobody is asked for a key that no event can have.
func TestKeyThatNobodyCanHave(t *testing.T) {
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "r.sql", "-- rule: dear\nINSERT INTO alerts SELECT CAST(price AS DECIMAL(10, 2)) AS price, brand, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), CAST(price AS DECIMAL(10, 2)), brand;\n"))
	long := strings.Repeat("a", 100_000)
	for _, test := range []struct {
		want string
		args []string
	}{
		{"key: a key can be at most 4,095 bytes long as JSON, but this one is 100,011 bytes long; rules do not count events with longer keys", []string{"key", "price=1.50", "brand=" + long}},
		{"user: a key can be at most 4,095 bytes long as JSON, but this one is 100,002 bytes long", []string{"user", long}},
		{`column price: "1.005" is not a value of type DECIMAL(10, 2)`, []string{"key", "price=1.005", "--null", "brand"}},
		{"column brand is given twice", []string{"key", "price=1", "brand=NULL", "--null", "brand"}},
		{"no rule has the key price; the keys are: price, brand (dear)", []string{"key", "--null", "price"}},
	} {
		code, _, errs := spate(append(test.args, "--brokers", r.addr)...)
		if code != ExitUsage || !strings.Contains(errs, test.want) {
			t.Errorf("%.100q: exit code %d: %s", test.args, code, errs)
		}
	}
}

// TestPrintKey: of a key of several columns, each has its name.
func TestPrintKey(t *testing.T) {
	bare(t)
	var b strings.Builder
	k := detector.Key{Token: json.RawMessage(`[5,3]`), Windows: []detector.KeyWindow{{Rule: "pair", Key: json.RawMessage(`{"user_id":5,"product_id":3}`)}}}
	if err := printKey(&b, "key", k, true); err != nil {
		t.Fatal(err)
	}
	says(t, b.String(), "key user_id=5 product_id=3 (partition 0)\n")
}
