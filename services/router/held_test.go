package router

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
	"spate/shared/window/windowtest"
)

// TestTroubleIsTold: while transactions are aborted, such as without a schema registry, every partition stands still; what is told is why they are
// aborted, however long that takes.
func TestTroubleIsTold(t *testing.T) {
	status := &ops.Status{}
	s := &session{
		cfg:     Config{Layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic)}, Status: status, Log: slog.New(slog.DiscardHandler)},
		stream:  windowtest.Stream(10*time.Second, 0, 5),
		metrics: newMetrics(prometheus.NewRegistry()), sources: newSources(1),
	}
	src := &source{now: window.NewSource(), bounds: kafka.Bounds{Stable: 2, End: 2}, stands: kafka.StalledAfter}
	s.sources.own(map[int32]*source{0: src})
	told := func() string {
		s.gauges()
		_, why := status.Get()
		return why
	}
	if why := told(); !strings.Contains(why, "has stalled at offset 0 of 2") {
		t.Errorf("without a reason: %q", why)
	}
	s.trouble = errors.New("schema 1: cannot connect to the schema registry")
	if why := told(); !strings.Contains(why, "cannot connect to the schema registry") || strings.Contains(why, "stalled") {
		t.Errorf("with a reason: %q", why)
	}
	s.trouble = nil
	if why := told(); !strings.Contains(why, "has stalled") {
		t.Errorf("the reason is gone: %q", why)
	}
}
