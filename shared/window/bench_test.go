package window

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"spate/shared/rule"
)

// onTime is what an event is judged by that is not late for anything.
var onTime = Judgement{NoTime, NoTime}

func BenchmarkJudge(b *testing.B) {
	s := NewSource()
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		s.Judge(10_000, i, Unbounded)
	}
}

func users(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, "%d", 520_000_000+i)
	}
	return out
}

// BenchmarkCombine is per event: 100,000 events, then a flush to four partitions. Of 1,000,000 users nobody comes twice before it.
func BenchmarkCombine(b *testing.B) {
	for _, n := range []int{1, 1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("users=%d", n), func(b *testing.B) {
			c, us, e, values := NewCombiner(burst(10_000, 0, 5)), users(n), Event{}, make([]rule.Value, 1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				values[0] = rule.TokenValue(us[i%n])
				e = Event{MS: int64(i % 10_000), Partition: int32(i % 4), Offset: int64(i), Values: values}
				c.Add(&e, onTime)
				if i%100_000 == 99_999 {
					c.Flush(4, func(u []byte) int32 { return int32(u[len(u)-1]) % 4 }, Header{Sources: 4}, func(int32, []byte) {})
				}
			}
		})
	}
}

// BenchmarkFlush is per batch of 1,000 users, without the adding up.
func BenchmarkFlush(b *testing.B) {
	const n = 1_000
	c, us := NewCombiner(burst(10_000, 0, 5)), users(n)
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i, u := range us {
			c.Add(&Event{MS: int64(i), Partition: int32(i % 4), Offset: int64(i), Values: userValues(string(u))}, onTime)
		}
		b.StartTimer()
		c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 4, Watermarks: []Watermark{{0, 1}, {1, 2}, {2, 3}, {3, 4}}}, func(_ int32, v []byte) { size = len(v) })
	}
	b.SetBytes(int64(size))
	b.ReportMetric(float64(size)/n, "B/delta")
}

// BenchmarkApply is per delta: batches of 1,000 users, who come again and again in a window and then in the next; the old ones are closed
// and forgotten. 1,000 users come 100 times in a window, as the hottest do; 1,000,000 twice, so that half of the deltas are of new ones.
func BenchmarkApply(b *testing.B) {
	for _, bench := range []struct{ users, times int }{{1_000, 100}, {1_000_000, 2}} {
		b.Run(fmt.Sprintf("users=%d", bench.users), func(b *testing.B) { benchmarkApply(b, bench.users, bench.times) })
	}
}

func benchmarkApply(b *testing.B, n, times int) {
	const size = 1_000 // users of a batch
	us, c := users(n), NewCombiner(burst(10_000, 0, 5))
	batches := func(window int64) (out [][]byte) {
		for from := 0; from < n; from += size {
			for i, u := range us[from : from+size] {
				c.Add(&Event{MS: window*10_000 + int64(i), Offset: int64(i), Values: userValues(string(u))}, onTime)
			}
			c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, window*10_000 - 10_001}}}, func(_ int32, v []byte) { out = append(out, slices.Clone(v)) })
		}
		return out
	}
	table, perWindow := NewTable(burst(10_000, 0, 1<<40)), int64(n/size*times)
	var out []Verdict
	var cur [][]byte
	b.ReportAllocs()
	b.ResetTimer()
	for i := range int64(b.N/size + 1) {
		if i%perWindow == 0 {
			b.StopTimer()
			cur = batches(i / perWindow)
			b.StartTimer()
		}
		var err error
		if out, err = table.Apply(i, cur[i%int64(len(cur))], out[:0]); err != nil {
			b.Fatal(err)
		}
		if i%20 == 19 {
			table.Committed(table.Position(i + 1))
		}
	}
}

func position(sources int) Position {
	p := Position{Replay: 1_000_000, Next: 1_000_120}
	for i := range int64(sources) {
		p.Watermarks = append(p.Watermarks, 1_572_566_400_000+i*37)
	}
	return p
}

// BenchmarkPositionEncode and BenchmarkPositionDecode are per position, of which there is one for each partition and commit.
func BenchmarkPositionEncode(b *testing.B) {
	for _, n := range []int{4, 900} {
		b.Run(fmt.Sprintf("sources=%d", n), func(b *testing.B) {
			p := position(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Metadata(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPositionDecode(b *testing.B) {
	for _, n := range []int{4, 900} {
		b.Run(fmt.Sprintf("sources=%d", n), func(b *testing.B) {
			p := position(n)
			m, err := p.Metadata()
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParsePosition(p.Replay, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSource is per source partition of a transaction: its state to the offset's metadata and back.
func BenchmarkSource(b *testing.B) {
	s := Routed{Source: Source{MaxTS: 1_572_566_400_000, Floor: 1_572_566_390_000}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRouted(s.Metadata()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAlerts is per delta of users who are all far above the threshold: 1,000 users come 100 times in a window.
func BenchmarkAlerts(b *testing.B) {
	const size, times = 1_000, 100
	us, c := users(size), NewCombiner(burst(10_000, 0, 5))
	table, out := NewTable(burst(10_000, 0, 5)), []Verdict(nil)
	var batch []byte
	b.ReportAllocs()
	for i := range int64(b.N/size + 1) {
		b.StopTimer()
		at := i / times * 10_000
		for k, u := range us {
			c.Add(&Event{MS: at + int64(k), Offset: i, Values: userValues(string(u))}, onTime)
		}
		c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, at - 10_001}}}, func(_ int32, v []byte) { batch = append(batch[:0], v...) })
		b.StartTimer()
		var err error
		if out, err = table.Apply(i, batch, out[:0]); err != nil {
			b.Fatal(err)
		}
		if i%20 == 19 {
			table.Committed(table.Position(i + 1))
		}
	}
}

// BenchmarkSteps is per batch of a second: 100 of 10,000 keys have an event each, in windows of an hour that begin or grow every second. The memory is
// that of the table in the end.
func BenchmarkSteps(b *testing.B) {
	for _, window := range []string{"HOP", "CUMULATE"} {
		for _, having := range []string{"COUNT(*) > 100", "SUM(product_id) > 1000"} { // known early, and at the end only
			b.Run(window+"/"+having, func(b *testing.B) { benchmarkSteps(b, window, having) })
		}
	}
}

func benchmarkSteps(b *testing.B, window, having string) {
	set, errs := rule.Compile(`INSERT INTO alerts SELECT user_id, COUNT(*) AS n
		FROM TABLE(`+window+`(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '1' SECOND, INTERVAL '1' HOUR))
		GROUP BY window_start, window_end, user_id HAVING `+having, rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	s := Stream{Plan: set.Plan()}
	c, table, us := NewCombiner(s), NewTable(s), users(10_000)
	var out []Verdict
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		for k := range int64(100) {
			e := Event{MS: i * 1000, Offset: i, Values: make([]rule.Value, len(set.Inputs))}
			for n, in := range set.Inputs {
				if e.Values[n] = rule.IntValue(1); in.Name() == "user_id" {
					e.Values[n] = rule.TokenValue(us[(i*100+k)%int64(len(us))])
				}
			}
			c.Add(&e, onTime)
		}
		c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, i*1000 - 1}}}, func(_ int32, v []byte) {
			var err error
			if out, err = table.Apply(i, v, out[:0]); err != nil {
				b.Fatal(err)
			}
		})
		table.Committed(table.Position(i + 1))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
	runtime.KeepAlive(table)
}

// BenchmarkCombineRules is per event of 1,000 users, as BenchmarkCombine, for a rule with aggregates.
func BenchmarkCombineRules(b *testing.B) {
	set, errs := rule.Compile(`INSERT INTO alerts SELECT user_id, COUNT(DISTINCT product_id) AS products, SUM(price) AS spent
		FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id`, rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	c, us := NewCombiner(Stream{Plan: set.Plan()}), users(1_000)
	e := Event{Values: make([]rule.Value, len(set.Inputs))}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for n, in := range set.Inputs {
			switch in.Name() {
			case "user_id":
				e.Values[n] = rule.TokenValue(us[i%len(us)])
			case "price":
				e.Values[n] = rule.DoubleValue(float64(i%1000) / 8)
			default:
				e.Values[n] = rule.IntValue(int64(i % 50))
			}
		}
		e.MS, e.Offset = int64(i%10_000), int64(i)
		c.Add(&e, onTime)
		if i%100_000 == 99_999 {
			c.Flush(4, func(u []byte) int32 { return int32(u[len(u)-1]) % 4 }, Header{Sources: 4}, func(int32, []byte) {})
		}
	}
}

// BenchmarkCombineScattered is per event: 20,000 of them before a flush, each in a window of its own.
func BenchmarkCombineScattered(b *testing.B) {
	c, values := NewCombiner(burst(10_000, 0, 5)), userValues("1")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Add(&Event{MS: int64(i%20_000) * 10_000, Offset: int64(i), Values: values}, onTime)
		if i%20_000 == 19_999 {
			c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1}, func(int32, []byte) {})
		}
	}
}

// BenchmarkRules is per event of 1,000,000 users, of whom nearly all come once in a window: through both halves, and closed. A commit has 20,000 events.
func BenchmarkRules(b *testing.B) {
	many := []string{"COUNT(*) > 5", "COUNT(*) > 300 AND COUNT(*) FILTER (WHERE event_type = 'purchase') = 0", "COUNT(*) FILTER (WHERE event_type = 'view') > 200",
		"COUNT(*) FILTER (WHERE event_type = 'cart') > 200", "SUM(price) > 1000000", "MAX(price) > 100000", "COUNT(DISTINCT product_id) > 200", "COUNT(DISTINCT brand) > 200",
		"AVG(price) > 100000", "COUNT(*) > 200"}
	for _, n := range []int{1, len(many)} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) { benchmarkRules(b, many[:n]) })
	}
}

func benchmarkRules(b *testing.B, having []string) {
	var text strings.Builder
	for i, h := range having {
		fmt.Fprintf(&text, "-- rule: r%d\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING %s;\n", i, h)
	}
	set, errs := rule.Compile(text.String(), rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	s := Stream{Plan: set.Plan()}
	c, table, us := NewCombiner(s), NewTable(s), users(1_000_000)
	types, brands := [][]byte{[]byte("view"), []byte("cart"), []byte("purchase")}, users(1_000)
	e := Event{Values: make([]rule.Value, len(set.Inputs))}
	var out []Verdict
	offset := int64(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for n, in := range set.Inputs {
			switch in.Name() {
			case "user_id":
				e.Values[n] = rule.TokenValue(us[i*7919%len(us)])
			case "event_type":
				e.Values[n] = rule.StringValue(types[i%3])
			case "brand":
				e.Values[n] = rule.StringValue(brands[i%1000])
			case "price":
				e.Values[n] = rule.DoubleValue(float64(i%100_000) / 100)
			default:
				e.Values[n] = rule.IntValue(int64(i % 50_000))
			}
		}
		e.MS, e.Offset = int64(i/20), int64(i)
		c.Add(&e, onTime)
		if i%20_000 == 19_999 {
			c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, e.MS - 10_000}}}, func(_ int32, v []byte) {
				var err error
				if out, err = table.Apply(offset, v, out[:0]); err != nil {
					b.Fatal(err)
				}
				offset++
			})
			table.Committed(table.Position(offset))
		}
	}
}
