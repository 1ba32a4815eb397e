package router

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/kafka"
	"spate/shared/window"
)

func TestLeaders(t *testing.T) {
	read := func(maxTS, lag int64) *source {
		return &source{now: window.Source{MaxTS: maxTS, Floor: window.NoTime}, position: 10, bounds: kafka.Bounds{Stable: 10 + lag, End: 10 + lag}}
	}
	for _, c := range []struct {
		name  string
		owned []*source
		want  []int32
	}{
		{"together", []*source{read(1000, 5), read(1050, 5), read(1100, 0)}, nil},
		{"one is ahead, with more to read or not", []*source{read(1000, 5), read(1101, 5), read(1200, 0)}, []int32{1, 2}},
		{"the slowest has nothing to read", []*source{read(1000, 0), read(5000, 5), read(5100, 5)}, nil},
		{"the slowest that has something to read counts", []*source{read(0, 0), read(1000, 1), read(1200, 5)}, []int32{2}},
		{"of one nothing is known", []*source{read(window.NoTime, 5), read(5000, 5)}, nil},
		{"of one nothing is known, and there are others", []*source{read(window.NoTime, 5), read(5000, 5), read(6000, 5)}, []int32{2}},
		{"before 1970", []*source{read(-5000, 5), read(-100, 5)}, []int32{1}},
		{"alone", []*source{read(1000, 5)}, nil},
		{"none", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			owned := make(map[int32]*source)
			for p, src := range c.owned {
				owned[int32(p)] = src
			}
			got := slices.Sorted(maps.Keys(leaders(slices.Sorted(maps.Keys(owned)), owned, 100)))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
