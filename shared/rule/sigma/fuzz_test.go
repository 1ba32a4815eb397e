package sigma

import (
	"testing"

	"spate/shared/rule/syntax"
)

// FuzzConvert: a file is refused at places inside of it, or becomes a script that can be read.
func FuzzConvert(f *testing.F) {
	f.Add(file("s: {brand|contains|all: [a, 'b*'], price|gt: 2}\nt: ['${x', y]\ncondition: s and not 1 of t*", counts))
	f.Add(file("s: {a.b|re|i: '^x', a.c|cidr: 10.0.0.0/9}\ncondition: s", "type: value_count\nrules: base\ngroup-by: [a.b, rule]\ntimespan: 7s\ncondition: {field: z, lt: -1.5}"))
	f.Fuzz(func(t *testing.T, source string) {
		rules, errs := Convert(source, Options{Name: "r", TimeColumn: "at"})
		for _, e := range errs {
			if e.Pos < 0 || int(e.Pos) > len(source) {
				t.Errorf("an error is at %d of %d", e.Pos, len(source))
			}
		}
		if len(errs) > 0 {
			return
		}
		if _, errs := syntax.Parse(rules, nil); len(errs) > 0 {
			t.Errorf("%s", errs[0].Format("rules.sql", rules))
		}
	})
}
