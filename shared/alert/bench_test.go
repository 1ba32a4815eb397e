package alert

import (
	"encoding/json"
	"testing"
	"time"
)

func closed() Record {
	at := func(ms int64) time.Time { return time.UnixMilli(1_572_566_400_000 + ms).UTC() }
	return Record{
		ID: ID(Burst, "520088904", 1_572_566_400_000, 10_000), Rule: Burst, State: Closed, Severity: Critical, UserID: json.RawMessage("520088904"),
		Count: 23, Threshold: 5, WindowStart: at(0), WindowEnd: at(10_000), FirstEventAt: at(12), LastEventAt: at(9_871),
		Evidence: Evidence{Topic: "activity", Partitions: map[string]OffsetRange{"0": {1_234_567, 1_234_890}, "1": {998_001, 998_300}, "3": {2_345_678, 2_345_999}}},
	}
}

// The benchmarks are per alert.

func BenchmarkID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ID(Burst, "520088904", 1_572_566_400_000, 10_000)
	}
}

func BenchmarkEncode(b *testing.B) {
	r := closed()
	value, err := r.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	value, err := closed().Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(value); err != nil {
			b.Fatal(err)
		}
	}
}
