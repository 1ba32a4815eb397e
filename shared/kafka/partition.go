package kafka

import (
	"encoding/binary"
	"hash"
)

// PartitionFor returns the partition of key among n, as the Java client's default partitioner chooses it: murmur2, sign bit
// cleared, modulo n. The router, the simulator and goka (through [NewHasher]) must agree on it; a test pins that they do.
func PartitionFor(key []byte, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

// NewHasher returns the hash that makes goka choose the partition that [PartitionFor] chooses. goka takes the sum as an int32,
// negates it if negative and reduces it modulo the partitions, so the sign bit is cleared here already.
func NewHasher() hash.Hash32 { return &hasher{} }

type hasher struct{ buf []byte }

func (h *hasher) Write(p []byte) (int, error) { h.buf = append(h.buf, p...); return len(p), nil }
func (h *hasher) Sum(b []byte) []byte         { return binary.BigEndian.AppendUint32(b, h.Sum32()) }
func (h *hasher) Reset()                      { h.buf = h.buf[:0] }
func (h *hasher) Size() int                   { return 4 }
func (h *hasher) BlockSize() int              { return 4 }
func (h *hasher) Sum32() uint32               { return murmur2(h.buf) & 0x7fffffff }

// murmur2 is the 32-bit MurmurHash2 with the seed of Apache Kafka's Utils.murmur2.
func murmur2(b []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
	)
	h := seed ^ uint32(len(b))
	for len(b) >= 4 {
		k := binary.LittleEndian.Uint32(b)
		b = b[4:]
		k *= m
		k ^= k >> 24
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
