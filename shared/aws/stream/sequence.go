package stream

import "strings"

// Before reports whether sequence number a comes before b in their shard. The empty one, of no record, comes before all.
func Before(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

// Sequences remembers the sequence numbers of consecutive records of a shard, two digits a byte, and forgets the oldest. The records are
// numbered from 0 on, in the order in which they were added.
type Sequences struct {
	width int // bytes of each
	first int64
	b     []byte
}

// usualWidth has room for Amazon's 56 digits.
const usualWidth = 28

// Add appends the next record's sequence number and returns the record's number.
func (s *Sequences) Add(seq string) int64 {
	need := max(usualWidth, (len(seq)+1)/2)
	if need > s.width {
		s.widen(need)
	}
	at := len(s.b)
	for range s.width {
		s.b = append(s.b, 0)
	}
	put(s.b[at:], seq)
	return s.first + int64(len(s.b)/s.width) - 1
}

// put writes digits right-aligned: 0 is none, 1 to 10 are the digits.
func put(b []byte, seq string) {
	for i := range len(seq) {
		from := len(seq) - 1 - i
		digit := seq[from] - '0' + 1
		if i%2 == 1 {
			digit <<= 4
		}
		b[len(b)-1-i/2] |= digit
	}
}

func (s *Sequences) widen(width int) {
	old := *s
	s.width, s.b = width, nil
	if old.width == 0 {
		return
	}
	for i := 0; i < len(old.b); i += old.width {
		s.b = append(s.b, make([]byte, width-old.width)...)
		s.b = append(s.b, old.b[i:i+old.width]...)
	}
}

// At returns the sequence number of a record, or none if it is forgotten or was never added.
func (s *Sequences) At(n int64) string {
	i := int(n - s.first)
	if n < s.first || s.width == 0 || (i+1)*s.width > len(s.b) {
		return ""
	}
	var out strings.Builder
	for _, b := range s.b[i*s.width : (i+1)*s.width] {
		for _, digit := range [...]byte{b >> 4, b & 15} {
			if digit > 0 {
				out.WriteByte('0' + digit - 1)
			}
		}
	}
	return out.String()
}

// Next is the number of the next record.
func (s *Sequences) Next() int64 {
	if s.width == 0 {
		return s.first
	}
	return s.first + int64(len(s.b)/s.width)
}

// Forget drops the records below n.
func (s *Sequences) Forget(n int64) {
	drop := min(n, s.Next()) - s.first
	if drop <= 0 {
		return
	}
	s.first += drop
	rest := s.b[int(drop)*s.width:]
	if cap(s.b) > 4*len(rest)+1<<16 { // after a flood
		rest = append([]byte(nil), rest...)
		s.b = rest
		return
	}
	s.b = s.b[:copy(s.b, rest)]
}
