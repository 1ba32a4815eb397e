package ops

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sparseEvery is the least time between two lines of one cause.
const sparseEvery = time.Second

// Sparse returns a logger for faults that may come by the thousand, such as bad records: of each cause, which is the line's message, it
// tells once a second at most. A line says in suppressed how many of its cause were left out before it. Messages must be constants, for
// each is remembered; what is counted exactly is for a metric.
func Sparse(log *slog.Logger) *slog.Logger {
	return slog.New(sparse{Handler: log.Handler(), causes: &causes{by: make(map[string]*cause)}})
}

type sparse struct {
	slog.Handler
	causes *causes
}

type causes struct {
	mu sync.Mutex
	by map[string]*cause
}

type cause struct {
	told       time.Time
	suppressed int
}

// Handle implements slog.Handler.
func (h sparse) Handle(ctx context.Context, r slog.Record) error {
	n, tell := h.causes.tell(r)
	if !tell {
		return nil
	}
	if n > 0 {
		r.AddAttrs(slog.Int("suppressed", n))
	}
	return h.Handler.Handle(ctx, r)
}

func (c *causes) tell(r slog.Record) (suppressed int, tell bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.by[r.Message]
	if known == nil {
		known = &cause{}
		c.by[r.Message] = known
	} else if r.Time.Sub(known.told) < sparseEvery {
		known.suppressed++
		return 0, false
	}
	suppressed, known.suppressed, known.told = known.suppressed, 0, r.Time
	return suppressed, true
}

// WithAttrs implements slog.Handler.
func (h sparse) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sparse{Handler: h.Handler.WithAttrs(attrs), causes: h.causes}
}

// WithGroup implements slog.Handler.
func (h sparse) WithGroup(name string) slog.Handler {
	return sparse{Handler: h.Handler.WithGroup(name), causes: h.causes}
}
