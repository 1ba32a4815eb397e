package detector

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/lovoo/goka"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/kafka/gokaclient"
	"spate/shared/ops"
	"spate/shared/revision/topic"
	"spate/shared/verdict"
	"spate/shared/window"
	"spate/shared/window/windowtest"
)

type message = goka.Context

// ended is goka's context of a message when the session has ended: to fail has no effect, and goka takes the message for done.
type ended struct {
	message
	ctx    context.Context
	offset int64
	failed int
}

func (e *ended) Context() context.Context { return e.ctx }
func (e *ended) Partition() int32         { return 0 }
func (e *ended) Offset() int64            { return e.offset }
func (e *ended) Timestamp() time.Time     { return time.Now() }
func (e *ended) Fail(error)               { e.failed++ }

// TestFailedBatchIsNotDone: a batch whose rules could not be read is read again by whoever comes next, and so is what follows it, although goka says
// that they are done.
func TestFailedBatchIsNotDone(t *testing.T) {
	cfg := Config{
		Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}, Layout: kafka.Layout{Names: kafka.NamesFor("activity"), Partitions: 1}, Window: 10 * time.Second, Threshold: 5, Critical: 10,
		Transitions: []alert.State{alert.Opened, alert.Closed}, Address: "127.0.0.1:1", Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Status: new(ops.Status),
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(cfg.Kafka.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	stream := windowtest.Stream(cfg.Window, 0, 5)
	known := &rules{topic: cfg.Layout.Names.Rules, reader: topic.NewReader(cfg.Kafka, kadm.NewClient(cl), cfg.Layout.Names, d.initial), known: known{stream.Plan, verdict.New(stream.Plan)}}
	d.rules.Store(known)
	here := newKeyedPartitions(cfg, known, 0, d.metrics)
	d.partitions.Store(here)
	ev := &events{topic: cfg.Layout.Names.Activity}
	ev.partitions.Store(1)
	d.events.Store(ev)
	if _, err := here.Resume(0, gokaclient.Commit{Offset: -1}, 0, 3); err != nil {
		t.Fatal(err)
	}
	if err := here.get(0).MarkRecovered(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	newer := *stream.Plan
	newer.Revision = 1
	for offset, plan := range []window.Stream{stream, {Plan: &newer}, stream} { // the second one is judged by a revision that cannot be read
		sums := window.NewCombiner(plan)
		windowtest.Add(sums, []byte("7"), 1000, 0, int64(offset))
		m := &ended{ctx: ctx, offset: int64(offset)}
		sums.Flush(1, func([]byte) int32 { return 0 }, window.Header{Sources: 1}, func(_ int32, value []byte) { d.apply(m, slices.Clone(value)) })
		if failed := m.failed > 0; failed != (offset > 0) {
			t.Errorf("batch %d: failed: %v", offset, failed)
		}
	}
	c, err := here.Position(0, 3)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := window.ParsePosition(c.Offset, c.Metadata); err != nil || p.Next != 1 {
		t.Errorf("%+v is to be committed, %v", p, err)
	}
	if w, _ := here.get(0).table.Windows("7", 1); len(w) != 1 || w[0].Pane.Count != 1 {
		t.Errorf("%+v", w)
	}
}
