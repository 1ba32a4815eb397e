package gokaclient

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
)

// TestAbortWithoutAnAnswer: once it is time to give up, what is not acknowledged fails, also if the broker may have it, and what is emitted then.
func TestAbortWithoutAnAnswer(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "alerts"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	asked := make(chan struct{}, 1)
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil, errors.New("the connection is cut before it answers"), true
	})
	p, err := NewProducer(kafka.Config{Brokers: c.ListenAddrs()}, 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 2)
	emit := func() {
		p.Emit("alerts", "key", []byte("value")).Then(func(err error) { failed <- err })
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	emit()
	<-asked
	go p.AbortAfter(ended)
	for i := range 2 {
		select {
		case err := <-failed:
			if !errors.Is(err, kgo.ErrAborting) {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("record %d is still waited for", i)
		}
		if i == 0 {
			emit()
		}
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
