package window

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

// uvarints is a record of numbers.
func uvarints(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// tens are windows of 10 s, with alerts above 5.
var tens = burst(10_000, 0, 5)

// oneKey is the beginning of a batch with one key, u.
func oneKey(sources uint64) []byte {
	b := binary.BigEndian.AppendUint64(uvarints(batchVersion, sources, 0, 0, 0, 0, isFeed), tens.Plan.Feeds[0].ID)
	return append(append(b, uvarints(10_000, 0, isSlice, 0, 0, isKey)...), 'u')
}

// TestBatchThatClaimsSourcesWithoutEnd: nine bytes in the keyed log made a detector ask for 16 GiB, and die of it again at every start.
func TestBatchThatClaimsSourcesWithoutEnd(t *testing.T) {
	for _, sources := range []uint64{maxSources + 1, 1 << 20} {
		b := seal(uvarints(batchVersion, sources, 0, 0, 0, 0, isEnd))
		table := NewTable(tens)
		if _, err := table.Apply(0, b, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d source partitions: %v", sources, err)
		}
		if n := table.Stats().Sources; n > 0 {
			t.Errorf("room for %d source partitions out of %d bytes", n, len(b))
		}
	}
	// As many as can be committed are as many as are accepted.
	if _, err := NewTable(tens).Apply(0, seal(uvarints(batchVersion, maxSources, 0, 0, 0, 0, isEnd)), nil); err != nil {
		t.Error(err)
	}
	if md, err := (Position{Watermarks: make([]int64, maxSources+1)}).Metadata(); err == nil {
		t.Errorf("%d source partitions could be committed in %d bytes, but are refused", maxSources+1, len(md))
	}
}

// TestBatchOfAbsurdNumbers: sums and offsets that leave 64 bits would turn negative, and the user's state could not be read again.
func TestBatchOfAbsurdNumbers(t *testing.T) {
	batch := func(count, offset, span uint64) []byte {
		b := oneKey(1)
		return seal(append(b, uvarints(count, 0, 0, 1, 0, offset, span, isEnd)...))
	}
	for name, bs := range map[string][][]byte{
		"count":          {batch(1<<62, 0, 0), batch(1<<62, 0, 0)},
		"span of ranges": {batch(1, 0, 0), batch(1, 1<<62, 1<<62-1)},
	} {
		t.Run(name, func(t *testing.T) {
			table := NewTable(tens)
			for i, b := range append([][]byte{batch(3, 7, 2)}, bs...) {
				if _, err := table.Apply(int64(i), b, nil); err != nil && !errors.Is(err, ErrCorrupt) {
					t.Fatal(err)
				}
			}
			for _, p := range table.Lookup("u") {
				if p.Count < 3 || p.Evidence()[0].Last < p.Evidence()[0].First {
					t.Errorf("%+v", p)
				}
			}
			again, err := ParseKey(table.appendKey(nil, []byte("u")))
			if d := cmp.Diff(table.Lookup("u"), again, cmp.AllowUnexported(Pane{})); d != "" || err != nil {
				t.Errorf("what was saved: %v %s", err, d)
			}
		})
	}
}

// TestCorruptBatchCountsForNothing: a batch that breaks off, or goes on, changes nothing, and the next ones count.
func TestCorruptBatchCountsForNothing(t *testing.T) {
	c := NewCombiner(tens)
	var whole []byte
	for i := range int64(7) {
		c.Add(&Event{MS: i, Offset: i, Values: userValues("u")}, onTime)
	}
	c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, -3}}}, func(_ int32, b []byte) { whole = append(whole, b...) })
	body := whole[:len(whole)-4]
	damaged := [][]byte{append(whole[:len(whole):len(whole)], 0), seal(append(body[:len(body):len(body)], 0)), seal(append(body[:len(body)-1:len(body)-1], isSlice, 2, 0, isEnd))}
	for n := range whole {
		flipped := bytes.Clone(whole)
		flipped[n] ^= 4
		damaged = append(damaged, whole[:n], flipped)
	}
	for n := range body {
		damaged = append(damaged, seal(bytes.Clone(body[:n]))) // by somebody who knows how
	}
	for _, b := range damaged {
		table := NewTable(tens)
		if _, err := table.Apply(0, b, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%x of %x is taken for a batch: %v", b, whole, err)
		}
		if d := cmp.Diff(NewTable(tens).Stats(), table.Stats()); d != "" {
			t.Errorf("%x has changed something: %s", b, d)
		}
		vs, err := table.Apply(1, whole, nil)
		if err != nil || len(vs) != 1 || vs[0].Pane.Count != 7 {
			t.Errorf("after %x: %+v %v", b, vs, err)
		}
	}
}

// TestBatchOfEvidenceWithoutEnd: one user with evidence in 300,000 source partitions kept a table busy for minutes.
func TestBatchOfEvidenceWithoutEnd(t *testing.T) {
	for name, c := range map[string]struct {
		sources, of, ranges uint64
		ok                  bool
	}{
		"each source partition once":           {4, 4, 4, true},
		"more than there are":                  {4, 4, 5, false},
		"of a partition that there is not":     {4, 5, 2, false},
		"of the last of them, again and again": {4, 1, 300_000, false},
	} {
		b := oneKey(c.sources)
		b = append(b, uvarints(7, 0, 0, c.ranges)...)
		for i := range c.ranges {
			b = append(b, uvarints((c.of-1)-i%c.of, 0, 0)...)
		}
		_, err := NewTable(tens).Apply(0, seal(append(b, isEnd)), nil)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBatchesWithoutRevision: what routers wrote when rules had no revisions still counts.
func TestBatchesWithoutRevision(t *testing.T) {
	c := NewCombiner(tens)
	c.Add(&Event{MS: 9, Offset: 20, Values: userValues("u")}, onTime)
	c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1}, func(_ int32, b []byte) {
		old := slices.Clone(b[:len(b)-crc32.Size])
		old[0] = unrevisedVersion
		old = seal(slices.Delete(old, 3, 4)) // version, sources, topic, revision
		table := NewTable(tens)
		if _, err := table.Apply(0, old, nil); err != nil || table.Stats().Panes != 1 {
			t.Errorf("%v, %+v", err, table.Stats())
		}
	})
}

// TestBatchesOfOneRule: what routers wrote when there was one rule still counts, with identities and without, and beside what they write now.
func TestBatchesOfOneRule(t *testing.T) {
	old := func(version, size uint64, ids ...uint64) []byte {
		b := append(uvarints(version, size, 1, 0, 0, 0, 1, 0, 2), 'u') // a window that starts at 0, and a user of one byte
		b = append(b, uvarints(4, 3, 2, 1, 0, 9, 5)...)                // four events from 3 to 5 ms, in source partition 0 from 9 to 14
		if version == oneRuleOnceVersion {
			b = binary.AppendUvarint(b, uint64(len(ids)))
			for _, id := range ids {
				b = binary.LittleEndian.AppendUint64(b, id)
			}
		}
		return seal(append(b, isEnd))
	}
	table := NewTable(tens)
	var out []Verdict
	for i, b := range [][]byte{old(oneRuleVersion, 10_000), old(oneRuleOnceVersion, 10_000, 7, 8), old(oneRuleOnceVersion, 10_000, 7)} {
		var err error
		if out, err = table.Apply(int64(i), b, out); err != nil {
			t.Fatal(err)
		}
	}
	c := NewCombiner(tens)
	c.Add(&Event{MS: 9, Offset: 20, Values: userValues("u")}, onTime)
	c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, 9_999}}}, func(_ int32, b []byte) {
		var err error
		if out, err = table.Apply(3, b, out); err != nil {
			t.Fatal(err)
		}
	})
	// Opened at 8, raised at 11 above 10, closed with 4 + 4 + 3 + 1: one identity came twice.
	var states []State
	for _, v := range out {
		states = append(states, v.State)
	}
	if d := cmp.Diff([]State{Opened, Raised, Closed}, states); d != "" {
		t.Fatal(d)
	}
	if p := out[2].Pane; p.Count != 12 || p.FirstMS != 3 || p.LastMS != 9 || p.Evidence()[0] != (Range{0, 9, 20}) {
		t.Errorf("%+v", p)
	}
	// Windows of another size are those of a rule that was changed.
	table = NewTable(tens)
	if vs, err := table.Apply(0, old(oneRuleVersion, 5_000), nil); err != nil || len(vs) > 0 || table.Stats().Foreign != 4 || table.Stats().Panes != 0 {
		t.Errorf("windows of another size: %v, %v, %+v", vs, err, table.Stats())
	}
}

// TestSliceThatNobodyHas: a slice that does not begin where the slices of its feed do would be in windows that its events are not in, and one that is
// late for all windows would be kept for nothing.
func TestSliceThatNobodyHas(t *testing.T) {
	for _, c := range []struct {
		start int64
		late  uint64
		ok    bool
	}{{0, 0, true}, {-10_000, 0, true}, {1 << 50 / 10_000 * 10_000, 0, true}, {5, 0, false}, {1 << 59, 0, false}, {0, 1, false}, {0, 3_600_000, false}} {
		b := binary.BigEndian.AppendUint64(uvarints(batchVersion, 1, 0, 0, 0, 0, isFeed), tens.Plan.Feeds[0].ID)
		b = binary.AppendVarint(append(b, uvarints(10_000, 0, isSlice)...), c.start)
		b = append(append(b, uvarints(c.late, isKey)...), 'u')
		table := NewTable(tens)
		if _, err := table.Apply(0, seal(append(b, uvarints(7, 0, 0, 0, isEnd)...)), nil); (err == nil) != c.ok || !c.ok && table.Stats().Panes > 0 {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestEventsFarApart: an event takes room for itself, however many windows it is in. Clocks that were wrong, each by another hour, made a table keep 3,600
// windows for each event.
func TestEventsFarApart(t *testing.T) {
	set, errs := rule.Compile(`INSERT INTO alerts SELECT user_id, COUNT(*) AS n
		FROM TABLE(CUMULATE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '1' SECOND, INTERVAL '1' HOUR))
		GROUP BY window_start, window_end, user_id HAVING SUM(user_id) > 5`, rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	const events = 500
	s := Stream{Plan: set.Plan()}
	c, table := NewCombiner(s), NewTable(s)
	for i := range int64(events) {
		c.Add(&Event{MS: i * 3_600_000, Offset: i, Values: userValues("1")}, onTime)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, 0}}}, func(_ int32, b []byte) {
		if _, err := table.Apply(0, b, nil); err != nil {
			t.Fatal(err)
		}
	})
	runtime.ReadMemStats(&after)
	defer func() {
		var end runtime.MemStats
		c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, EndOfTime}}}, func(_ int32, b []byte) {
			if _, err := table.Apply(1, b, nil); err != nil {
				t.Fatal(err)
			}
		})
		runtime.ReadMemStats(&end)
		if grown := int64(end.HeapSys) - int64(after.HeapSys); grown > 64<<20 { // less, if the heap gave memory to stacks
			t.Errorf("their close took %d MiB", grown>>20)
		}
	}()
	if each := (after.TotalAlloc - before.TotalAlloc) / events; each > 5_000 || table.Stats().Panes != events {
		t.Errorf("%d bytes for each event, %+v", each, table.Stats())
	}
}
