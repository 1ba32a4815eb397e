package rule_test

import (
	"testing"

	"spate/shared/rule"
)

// TestNoNumberIsNull: what is no finite number is NULL in a DOUBLE or FLOAT, so a single event cannot be the maximum or the sum of all.
func TestNoNumberIsNull(t *testing.T) {
	for _, kind := range []rule.Kind{rule.Double, rule.Float} {
		for _, token := range []string{`"NaN"`, `"nan"`, `"Infinity"`, `"-Infinity"`, `"+Infinity"`, `"inf"`, `1e400`, `-1e400`, `"1e400"`, `" NaN "`} {
			if v, _ := rule.FromJSON(rule.Type{Kind: kind}, []byte(token), nil); !v.IsNull() {
				t.Errorf("%v: %s is %v", kind, token, v.Double())
			}
		}
		for _, token := range []string{`1e38`, `"-1.5"`, `1e-400`, `"0"`} {
			if v, _ := rule.FromJSON(rule.Type{Kind: kind}, []byte(token), nil); v.IsNull() {
				t.Errorf("%v: %s is NULL", kind, token)
			}
		}
	}
	if v, _ := rule.FromJSON(rule.Type{Kind: rule.Float}, []byte("1e39"), nil); !v.IsNull() {
		t.Error("1e39 is a FLOAT")
	}
}
