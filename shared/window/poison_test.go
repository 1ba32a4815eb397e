package window

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// uvarints is a record of numbers.
func uvarints(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// TestBatchThatClaimsSourcesWithoutEnd: nine bytes in the keyed log made a detector ask for 16 GiB, and die of it again at every start.
func TestBatchThatClaimsSourcesWithoutEnd(t *testing.T) {
	for _, sources := range []uint64{maxSources + 1, 1 << 20} {
		b := seal(uvarints(batchVersion, 10_000, sources, 0, 0, 0, isEnd))
		table := NewTable(1)
		if _, err := table.Apply(0, b, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d source partitions: %v", sources, err)
		}
		if n := table.Stats().Sources; n > 0 {
			t.Errorf("room for %d source partitions out of %d bytes", n, len(b))
		}
	}
	// As many as can be committed are as many as are accepted.
	if _, err := NewTable(1).Apply(0, seal(uvarints(batchVersion, 10_000, maxSources, 0, 0, 0, isEnd)), nil); err != nil {
		t.Error(err)
	}
	if md, err := (Position{Watermarks: make([]int64, maxSources+1)}).Metadata(); err == nil {
		t.Errorf("%d source partitions could be committed in %d bytes, but are refused", maxSources+1, len(md))
	}
}

// TestBatchOfAbsurdNumbers: sums and offsets that leave 64 bits would turn negative, and the user's state could not be read again.
func TestBatchOfAbsurdNumbers(t *testing.T) {
	batch := func(count, offset, span uint64) []byte {
		b := append(uvarints(batchVersion, 10_000, 1, 0, 0, 0, isWindow, 0, isUser), 'u')
		return seal(append(b, uvarints(count, 0, 0, 1, 0, offset, span, isEnd)...))
	}
	for name, bs := range map[string][][]byte{
		"count":          {batch(1<<62, 0, 0), batch(1<<62, 0, 0)},
		"span of ranges": {batch(1, 0, 0), batch(1, 1<<62, 1<<62-1)},
	} {
		t.Run(name, func(t *testing.T) {
			table := NewTable(5)
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
			again, err := ParseUser(table.appendUser(nil, []byte("u")))
			if d := cmp.Diff(table.Lookup("u"), again, cmp.AllowUnexported(Pane{})); d != "" || err != nil {
				t.Errorf("what was saved: %v %s", err, d)
			}
		})
	}
}

// TestCorruptBatchCountsForNothing: a batch that breaks off, or goes on, changes nothing, and the next ones count.
func TestCorruptBatchCountsForNothing(t *testing.T) {
	c := NewCombiner(10_000)
	var whole []byte
	for i := range int64(7) {
		c.Add([]byte("u"), 0, i, 0, i)
	}
	c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Marks: []Mark{{0, -3}}}, func(_ int32, b []byte) { whole = append(whole, b...) })
	body := whole[:len(whole)-4]
	damaged := [][]byte{append(whole[:len(whole):len(whole)], 0), seal(append(body[:len(body):len(body)], 0)), seal(append(body[:len(body)-1:len(body)-1], isWindow, 3, isEnd))}
	for n := range whole {
		flipped := bytes.Clone(whole)
		flipped[n] ^= 4
		damaged = append(damaged, whole[:n], flipped)
	}
	for n := range body {
		damaged = append(damaged, seal(bytes.Clone(body[:n]))) // by somebody who knows how
	}
	for _, b := range damaged {
		table := NewTable(5)
		if _, err := table.Apply(0, b, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%x of %x is taken for a batch: %v", b, whole, err)
		}
		if d := cmp.Diff(NewTable(5).Stats(), table.Stats()); d != "" {
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
		b := append(uvarints(batchVersion, 10_000, c.sources, 0, 0, 0, isWindow, 0, isUser), 'u')
		b = append(b, uvarints(7, 0, 0, c.ranges)...)
		for i := range c.ranges {
			b = append(b, uvarints((c.of-1)-i%c.of, 0, 0)...)
		}
		_, err := NewTable(5).Apply(0, seal(append(b, isEnd)), nil)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
