package ops_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"spate/shared/ops"
)

// TestCalm: a fault in a loop wrote 27,000 lines a second.
func TestCalm(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(1000, 0)
	log := slog.New(ops.Calm(slog.NewTextHandler(&b, nil), func() time.Time { return now })).With("service", "router")
	lines := func() []string {
		defer b.Reset()
		return strings.Split(strings.TrimSpace(b.String()), "\n")
	}
	for i := range 1000 {
		log.Warn("fetch", "topic", "activity", "partition", i%2, "offset", i, "error", errors.New(strings.Repeat("x", i)))
		log.Warn("fetch", "topic", "alerts", "partition", 0, "id", strconv.Itoa(i))
	}
	if got := lines(); len(got) != 3 {
		t.Errorf("%d lines of three causes", len(got))
	}
	now = now.Add(time.Second)
	log.Warn("fetch", "topic", "activity", "partition", 1, "offset", 7)
	log.Info("something else")
	log.With("endpoint", "a").Info("something else")
	log.With("endpoint", "b").Info("something else")
	if got := lines(); len(got) != 4 || !strings.Contains(got[0], "repeated=499") || strings.Contains(got[1], "repeated") {
		t.Errorf("%q", got)
	}
	for i := range 10_000 { // more causes than are remembered: they are written, and the memory is bounded
		log.Info("cause", "topic", strings.Repeat("y", i%100)+time.Duration(i).String())
	}
	if got := lines(); len(got) != 10_000 {
		t.Errorf("%d of 10000 causes", len(got))
	}
}
