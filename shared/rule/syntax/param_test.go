package syntax

import "testing"

// TestNegativeParam: the text of a statement has the sign of a parameter's value.
func TestNegativeParam(t *testing.T) {
	script, errs := Parse("-- rule: r\n-- param: n = -3.5\nINSERT INTO a SELECT x -${n} FROM t WHERE y > ${n};", map[string]string{})
	if len(errs) > 0 || len(script.Inserts) != 1 {
		t.Fatal(errs)
	}
	if want := "INSERT INTO a SELECT x - -3.5 FROM t WHERE y > -3.5"; script.Inserts[0].Text != want {
		t.Errorf("%s", script.Inserts[0].Text)
	}
}
