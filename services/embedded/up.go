package embedded

import (
	"context"
	"strings"
)

// Info tells where a running stack is to be found.
type Info struct {
	Brokers, HTTP, Database string
}

// Up runs the pipeline until ctx ends; ready is called when it takes events.
func Up(ctx context.Context, cfg Config, ready func(Info)) error {
	s, err := start(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.stop()
	ready(Info{Brokers: strings.Join(s.kafka.Brokers, ","), HTTP: s.server.URL(), Database: s.db})
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}
