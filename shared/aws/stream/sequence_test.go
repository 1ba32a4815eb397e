package stream

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// digits is a sequence number of so many digits.
func digits(rng *rand.Rand, n int) string {
	var b strings.Builder
	b.WriteByte('1' + byte(rng.IntN(9)))
	for range n - 1 {
		b.WriteByte('0' + byte(rng.IntN(10)))
	}
	return b.String()
}

// TestSequences holds Sequences against a slice.
func TestSequences(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 3))
	for round := range 60 {
		var s Sequences
		var model []string // of all that were ever added
		forgotten := int64(0)
		longest := 1 + rng.IntN(129)
		for step := range 400 {
			switch n := rng.IntN(40); {
			case n == 0: // numbers grow, as they did when Amazon's went from 49 digits to 56
				longest = min(longest+1+rng.IntN(20), 129)
			case n < 4:
				to := forgotten - 2 + rng.Int64N(int64(len(model))-forgotten+5)
				s.Forget(to)
				forgotten = max(forgotten, min(to, int64(len(model))))
			default:
				seq := digits(rng, 1+rng.IntN(longest))
				if got := s.Add(seq); got != int64(len(model)) {
					t.Fatalf("seed %d, round %d, step %d: number %d, want %d", seed, round, step, got, len(model))
				}
				model = append(model, seq)
			}
			if got := s.Next(); got != int64(len(model)) {
				t.Fatalf("seed %d, round %d, step %d: next is %d, want %d", seed, round, step, got, len(model))
			}
			for _, i := range []int64{-1, 0, forgotten - 1, forgotten, int64(len(model)) - 1, int64(len(model)), rng.Int64N(int64(len(model)) + 1)} {
				want := ""
				if i >= forgotten && i < int64(len(model)) {
					want = model[i]
				}
				if got := s.At(i); got != want {
					t.Fatalf("seed %d, round %d, step %d: number %d is %q, want %q", seed, round, step, i, got, want)
				}
			}
		}
	}
}

// TestSequencesAfterAFlood: what many records took is given back.
func TestSequencesAfterAFlood(t *testing.T) {
	var s Sequences
	const n = 100_000
	for range n {
		s.Add(strings.Repeat("9", 56))
	}
	s.Forget(n - 10)
	if s.At(n-11) != "" || s.At(n-10) == "" || s.Next() != n {
		t.Errorf("%q, %q, next %d", s.At(n-11), s.At(n-10), s.Next())
	}
	if cap(s.b) > 1<<16 {
		t.Errorf("%d bytes are held for 10 records", cap(s.b))
	}
}

func TestBefore(t *testing.T) {
	ordered := []string{"", "1", "2", "10", "19", "20", "100", "49680566708944993063069207345131060378633077633396506642", strings.Repeat("9", 129)}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := Before(a, b); got != (i < j) {
				t.Errorf("Before(%q, %q) is %t", a, b, got)
			}
		}
	}
}
