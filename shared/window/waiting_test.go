package window

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"spate/shared/rule"
)

// TestWaiting: whether events wait for their panes makes no difference to the batches, whatever the keys and slices.
func TestWaiting(t *testing.T) {
	const from = " FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), "
	set, errs := rule.Compile("-- rule: a\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n"+from+"user_id;\n"+
		"-- rule: b\nINSERT INTO alerts SELECT brand, COUNT(*) AS n, SUM(product_id) AS s, COUNT(DISTINCT event_type) AS d, MIN(category_code) AS m, SUM(price) AS p"+from+"brand;\n",
		rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, identities := range []bool{false, true} {
		rnd := rand.New(rand.NewPCG(seed, 0))
		s := Stream{Plan: set.Plan()}
		atOnce, wait := NewCombiner(s), NewCombiner(s)
		atOnce.few, wait.few = math.MaxInt, 0
		for range 20 {
			for i := range rnd.Int64N(1000) {
				e := Event{MS: rnd.Int64N(40_000), Partition: rnd.Int32N(3), Offset: i, Values: make([]rule.Value, len(set.Inputs))}
				if identities {
					e.Identity = rnd.Uint64() | 1
				}
				for k, in := range set.Inputs {
					text := fmt.Appendf(nil, "%d", rnd.IntN(200))
					switch in.Name() {
					case "user_id":
						e.Values[k] = rule.TokenValue(text)
					case "product_id":
						e.Values[k] = rule.IntValue(rnd.Int64N(1000))
					case "price":
						e.Values[k] = rule.DoubleValue(float64(rnd.IntN(1000)) / 8)
					default:
						e.Values[k] = rule.StringValue(text)
					}
				}
				j := Judgement{rnd.Int64N(20_000), NoTime}
				wantFate, wantMissed := atOnce.Add(&e, j)
				gotFate, gotMissed := wait.Add(&e, j)
				if gotFate != wantFate || gotMissed != wantMissed {
					t.Fatalf("event %d: %v %v, want %v %v", i, gotFate, gotMissed, wantFate, wantMissed)
				}
				for _, v := range e.Values { // they are another event's soon
					clear(v.Bytes())
				}
				if rnd.IntN(100) == 0 && wait.Panes() != atOnce.Panes() {
					t.Fatalf("%d panes, want %d", wait.Panes(), atOnce.Panes())
				}
			}
			if rnd.IntN(5) == 0 {
				atOnce.Reset()
				wait.Reset()
			}
			if got, want := flushed(wait), flushed(atOnce); !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("identities %v: batches %x, want %x", identities, got, want)
			}
		}
	}
}

func flushed(c *Combiner) (out [][]byte) {
	c.Flush(2, func(key []byte) int32 { return int32(key[len(key)-1]) % 2 }, Header{Sources: 3}, func(_ int32, b []byte) { out = append(out, slices.Clone(b)) })
	return out
}
