package stream

import (
	"bytes"
	"crypto/md5"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// packed is a message of the Kinesis Producer Library in the making.
type packed []byte

func (p packed) text(num protowire.Number, s string) packed {
	return protowire.AppendString(protowire.AppendTag(p, num, protowire.BytesType), s)
}

func (p packed) number(num protowire.Number, n uint64) packed {
	return protowire.AppendVarint(protowire.AppendTag(p, num, protowire.VarintType), n)
}

// record adds a record with data, of the partition key at an index, and of the hash key at the same.
func (p packed) record(data string, key uint64, more ...packed) packed {
	r := packed(nil).number(1, key).number(2, key).text(3, data)
	return p.text(3, string(r)+string(slices.Concat(more...)))
}

// seal makes a record of Kinesis out of it.
func (p packed) seal() []byte {
	sum := md5.Sum(p)
	return slices.Concat([]byte{0xf3, 0x89, 0x9a, 0xc2}, p, sum[:])
}

func TestDeaggregate(t *testing.T) {
	tag := packed(nil).text(4, string(packed(nil).text(1, "tag").text(2, "value")))
	head := packed(nil).text(1, "key one").text(1, "key two").text(2, "123").text(2, "456")
	two := head.record("one", 0).record("two", 1)
	wrong := two.seal()
	wrong[len(wrong)-1]++
	tests := []struct {
		name string
		data []byte
		want []string // nil: the record as it is
		bad  bool
	}{
		{name: "plain", data: []byte(`{"user_id":1}`)},
		{name: "nothing", data: []byte{}},
		{name: "two", data: two.seal(), want: []string{"one", "two"}},
		{name: "none", data: head.seal(), want: []string{}},
		{name: "an empty body", data: packed(nil).seal(), want: []string{}},
		{name: "empty data", data: head.record("", 0).record("x", 1).seal(), want: []string{"", "x"}},
		{name: "tags", data: head.record("one", 0, tag, tag).seal(), want: []string{"one"}},
		{name: "fields of the future", data: head.number(9, 1<<60).record("one", 0, packed(nil).number(8, 1), packed(nil).text(7, "?")).
			text(10, "?").seal(), want: []string{"one"}},
		{name: "fixed fields and a group", data: packed(slices.Concat(
			protowire.AppendFixed32(protowire.AppendTag(nil, 11, protowire.Fixed32Type), 1),
			protowire.AppendFixed64(protowire.AppendTag(nil, 12, protowire.Fixed64Type), 1),
			protowire.AppendGroup(protowire.AppendTag(nil, 13, protowire.StartGroupType), 13, packed(nil).number(1, 1)),
		)).record("one", 0).seal(), want: []string{"one"}},
		{name: "data before its keys", data: packed(nil).record("one", 0).text(1, "key").seal(), want: []string{"one"}},
		{name: "a key that is not in the table", data: packed(nil).record("one", 99).seal(), want: []string{"one"}},
		{name: "data twice, the last counts", data: packed(nil).record("one", 0, packed(nil).text(3, "two")).seal(), want: []string{"two"}},
		{name: "an aggregate in an aggregate is data", data: head.record(string(two.seal()), 0).seal(), want: []string{string(two.seal())}},
		{name: "another sum", data: wrong},
		{name: "magic alone", data: aggregateMagic},
		{name: "magic and a little", data: append(slices.Clone(aggregateMagic), "0123456789abcde"...)},
		{name: "cut off", data: two.seal()[:20]},
		{name: "a record without data", data: head.text(3, string(packed(nil).number(1, 0))).record("x", 0).seal(), bad: true},
		{name: "a record of a number, not a message", data: head.number(3, 5).record("x", 0).seal(), want: []string{"x"}},
		{name: "body cut off", data: two[:len(two)-1].seal(), bad: true},
		{name: "a length beyond the end", data: packed{3<<3 | 2, 200, 1, 'x'}.seal(), bad: true},
		{name: "a length of 2^63", data: packed{3<<3 | 2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}.seal(), bad: true},
		{name: "a number that does not end", data: packed{1 << 3, 255, 255}.seal(), bad: true},
		{name: "the end of no group", data: packed{1<<3 | 4}.seal(), bad: true},
		{name: "field 0", data: packed{2, 1, 'x'}.seal(), bad: true},
		{name: "garbage behind good ones", data: append(two, 255).seal(), bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := [][]byte{[]byte("before")}
			got, err := Deaggregate(tt.data, before)
			if errors.Is(err, ErrAggregate) != tt.bad || (err != nil) != tt.bad {
				t.Fatalf("error %v", err)
			}
			want := before
			switch {
			case tt.bad:
			case tt.want == nil:
				want = append(want, tt.data)
			}
			for _, w := range tt.want {
				want = append(want, []byte(w))
			}
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// FuzzDeaggregate takes bodies, too, for no fuzzer guesses their sum.
func FuzzDeaggregate(f *testing.F) {
	f.Add([]byte(packed(nil).text(1, "key").record("one", 0).record("two", 0)), true)
	f.Add([]byte{3<<3 | 2, 200, 1, 'x'}, true)
	f.Add(packed(nil).record("one", 0).seal(), false)
	f.Fuzz(func(t *testing.T, data []byte, body bool) {
		if body {
			data = packed(data).seal()
		}
		whole := slices.Clone(data)
		got, err := Deaggregate(data, nil)
		if !bytes.Equal(data, whole) {
			t.Error("the record was changed")
		}
		if err != nil {
			if !errors.Is(err, ErrAggregate) || len(got) != 0 {
				t.Errorf("%d records, error %v", len(got), err)
			}
			return
		}
		total := 0
		for _, g := range got {
			total += len(g)
		}
		if total > len(data) {
			t.Errorf("%d bytes out of %d", total, len(data))
		}
		if !bytes.HasPrefix(data, aggregateMagic) && (len(got) != 1 || !bytes.Equal(got[0], data)) {
			t.Errorf("a plain record became %q", got)
		}
	})
}
