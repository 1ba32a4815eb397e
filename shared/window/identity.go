package window

import (
	"encoding/binary"
	"hash/fnv"
)

// Identity returns a hash of an event's ID token, or 0 if the event has none. The hash is written to the keyed log, so it is the same in every
// process and version. For two events of one user in one window, the chance of a collision is about 1 in 10^19; whoever provokes one achieves no more
// than by sending one ID twice.
func Identity(token []byte) uint64 {
	if token == nil {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(token) // it never fails
	return max(h.Sum64(), 1)
}

const identityBytes = 8

// identities are those of the events of a transaction that have one, by pane.
type identities struct {
	heads []uint32 // by pane: 1 + the number of its last link; 0 is none
	links []identityLink
}

type identityLink struct {
	identity uint64
	next     uint32 // as heads
}

func (s *identities) add(pane int, identity uint64) {
	for len(s.heads) <= pane {
		s.heads = append(s.heads, 0)
	}
	s.links = append(s.links, identityLink{identity, s.heads[pane]})
	s.heads[pane] = uint32(len(s.links))
}

// append writes those of a pane: how many there are, and each in 8 bytes.
func (s *identities) append(b []byte, pane int) []byte {
	if pane >= len(s.heads) {
		return binary.AppendUvarint(b, 0)
	}
	n := 0
	for i := s.heads[pane]; i != 0; i = s.links[i-1].next {
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	for i := s.heads[pane]; i != 0; i = s.links[i-1].next {
		b = binary.LittleEndian.AppendUint64(b, s.links[i-1].identity)
	}
	return b
}

// known are the identities of a window that were counted, with the number of their pane: some 16 to 32 bytes each, without pointers.
type known struct {
	identities []uint64
	panes      []uint32 // 1 + the number; 0 is free
	n          int
}

// add reports whether an identity is new for a pane.
func (k *known) add(pane int, identity uint64) bool {
	if (k.n+1)*4 > len(k.panes)*3 {
		old := *k
		size := max(2*len(old.panes), 8)
		k.identities, k.panes = make([]uint64, size), make([]uint32, size)
		for i, p := range old.panes {
			if p != 0 {
				at, _ := k.find(p, old.identities[i])
				k.identities[at], k.panes[at] = old.identities[i], p
			}
		}
	}
	at, there := k.find(uint32(pane)+1, identity)
	if there {
		return false
	}
	k.identities[at], k.panes[at] = identity, uint32(pane)+1
	k.n++
	return true
}

// has reports whether an identity of a pane was counted.
func (k *known) has(pane int, identity uint64) bool {
	if k.n == 0 {
		return false
	}
	_, there := k.find(uint32(pane)+1, identity)
	return there
}

// find returns where an identity of a pane is, or else where it belongs.
func (k *known) find(pane uint32, identity uint64) (at int, there bool) {
	mask := len(k.panes) - 1
	h := (identity ^ uint64(pane)*0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd // whoever sends events must not choose the place alone
	for at = int(h>>33) & mask; k.panes[at] != 0; at = (at + 1) & mask {
		if k.panes[at] == pane && k.identities[at] == identity {
			return at, true
		}
	}
	return at, false
}
