package embedded

import (
	"context"
	"strings"

	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/store"
)

// Info tells where a running stack is to be found.
type Info struct {
	Brokers, HTTP, Database string
	// Rules are those that were applied, or were before.
	Rules *revision.Log
	// Store is the database, and Kafka how the broker is reached. They are there until what runs beside the stack has ended.
	Store store.Store
	Kafka kafka.Config
}

func (s *stack) info() Info {
	return Info{Brokers: strings.Join(s.kafka.Brokers, ","), HTTP: s.server.URL(), Database: s.db, Rules: s.rules, Store: s.store, Kafka: s.kafka}
}

// Done is what a stack did from its start to its end.
type Done struct {
	EventsIn, Counted, Late, Invalid int64
	Opened, Closed                   int64 // alerts
}

// Up runs the pipeline until ctx ends; ready is called when it takes events.
func Up(ctx context.Context, cfg Config, ready func(Info)) (Done, error) {
	s, err := start(ctx, cfg)
	if err != nil {
		return Done{}, err
	}
	ready(s.info())
	select {
	case <-ctx.Done():
	case err = <-s.failed:
	}
	s.stop()
	r := s.result()
	return Done{EventsIn: r.EventsIn, Counted: r.Counted, Late: r.Late, Invalid: r.Invalid, Opened: r.Opened, Closed: r.Closed}, err
}
