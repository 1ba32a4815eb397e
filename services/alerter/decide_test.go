package alerter

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"

	"spate/shared/decision"
	"spate/shared/decision/topic"
	"spate/shared/kafka"
)

// TestExpiredDecisionsEnd: a decision that has expired is ended in the topic; one that was prolonged is not.
func TestExpiredDecisionsEnd(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	now := time.Now().UTC().Truncate(time.Millisecond)
	cfg := Config{
		Kafka: kafka.Config{Brokers: c.ListenAddrs()}, Layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic)}, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
		Now: func() time.Time { return time.Now().Add(2 * time.Hour) },
	}
	d, err := openDecisions(t.Context(), cfg, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	decide := func(value string, held time.Duration) decision.Decision {
		return decision.Decision{Scope: "ip", Value: value, Level: "block", Rule: "r", Since: now, Until: now.Add(held)}
	}
	if err := d.put(t.Context(), []decision.Decision{decide("gone", time.Hour), decide("prolonged", time.Hour), decide("held", 3*time.Hour), decide("prolonged", 4*time.Hour)}); err != nil {
		t.Fatal(err)
	}
	read := func() map[string]bool {
		view, all := decision.NewView(), errors.New("all is read")
		f := &topic.Follower{Kafka: cfg.Kafka, Topic: cfg.Layout.Names.Decisions, View: view, Log: cfg.Log, Now: func() time.Time { return now }}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := f.Run(ctx, func() error { return all }); !errors.Is(err, all) {
			t.Fatal(err)
		}
		list, _ := view.All(now)
		out := map[string]bool{}
		for _, d := range list {
			out[d.Value] = true
		}
		return out
	}
	within(t, 40*time.Second, "the expired one has ended", func() bool { return !read()["gone"] })
	if got := read(); !got["prolonged"] || !got["held"] || len(got) != 2 {
		t.Errorf("%v", got)
	}
}
