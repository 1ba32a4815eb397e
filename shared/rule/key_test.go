package rule

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKeyTokens: what a person writes is a key to the last digit, or no key; NULL is not the text NULL.
func TestKeyTokens(t *testing.T) {
	s, errs := Compile(`CREATE TABLE e (t TIMESTAMP(3), amount DECIMAL(10, 2), ip STRING, n INT, WATERMARK FOR t AS t);
INSERT INTO alerts SELECT amount, ip, n, COUNT(*) AS c FROM e GROUP BY TUMBLE(t, INTERVAL '10' SECOND), amount, ip, n;`, Options{Name: "r"})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, test := range []struct {
		amount, ip, n string // - is NULL
		want          string // empty: no key
	}{
		{"1.5", "a", "7", `["1.50","a",7]`}, {"1.50000", "a", "7", `["1.50","a",7]`}, {"15e-1", "a", "7", `["1.50","a",7]`}, {"-0.00", "a", "7", `["0.00","a",7]`},
		{"1500e0", "a", "7", `["1500.00","a",7]`}, {"99999999.99", "a", "7", `["99999999.99","a",7]`},
		{"1.005", "a", "7", ""}, {"15e-4", "a", "7", ""}, {"0.001", "a", "7", ""}, {"1e-400", "a", "7", ""}, {"100000000", "a", "7", ""}, {"x", "a", "7", ""}, {"", "a", "7", ""},
		{"1", "-", "7", `["1.00",null,7]`}, {"1", "NULL", "7", `["1.00","NULL",7]`}, {"-", "", "-", `[null,"",null]`}, {"1", "a", "1.5", ""}, {"1", "a", "null", ""},
	} {
		values := map[string]*string{"amount": &test.amount, "ip": &test.ip, "n": &test.n}
		for name, text := range values {
			if *text == "-" {
				values[name] = nil
			}
		}
		got, err := s.Rules[0].KeyTokens(values)
		var want []string
		if test.want != "" {
			want = []string{test.want}
		}
		if d := cmp.Diff(want, got); d != "" || (err == nil) != (want != nil) {
			t.Errorf("%v: %v: %s", test, err, d)
		}
	}
}
