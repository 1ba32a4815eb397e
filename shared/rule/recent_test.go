package rule

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRecentMembers: the member of a text is the same whether it is remembered, was pushed out, or is too long.
func TestRecentMembers(t *testing.T) {
	var r recentMembers
	for range 20_000 {
		text := []byte(strings.Repeat("x", rand.IntN(60)) + fmt.Sprint(rand.IntN(300)))
		if rand.IntN(100) == 0 {
			text = text[:0]
		}
		for range 1 + rand.IntN(2) {
			if got, want := r.of(text), textMember(text); got != want {
				t.Fatalf("%q: %x, want %x", text, got, want)
			}
		}
	}
}

// TestNumberCompares: the comparison with a constant is that of two expressions.
func TestNumberCompares(t *testing.T) {
	for _, kind := range []Kind{BigInt, Double} {
		for _, op := range []string{"<", "<=", ">", ">=", "=", "<>"} {
			for _, x := range []string{"-1", "0", "5", "6", "NaN", ""} {
				v := Value{}
				switch f, special := notFinite[x]; {
				case kind == Double && special:
					v = DoubleValue(f)
				case special || x == "":
				default:
					v, _ = Parse(Type{Kind: kind}, []byte(x))
				}
				five, _ := Parse(Type{Kind: kind}, []byte("5"))
				n := &node{op: opCompare, name: op, args: []*node{{op: opAggregate, typ: Type{Kind: kind}}, {op: opConst, typ: Type{Kind: kind}, value: five}}}
				row := []Value{{}, v}
				got := (&compiler{aggregates: 1}).compile(n)(row)
				want := comparison(op, kind, func(row []Value) Value { return row[1] }, func([]Value) Value { return five })(row)
				if got.set != want.set || got.n != want.n {
					t.Errorf("%v %q %s 5: %v, want %v", kind, x, op, got, want)
				}
			}
		}
	}
}
