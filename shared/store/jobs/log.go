package jobs

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// faults logs deliveries that failed to run. River itself logs them at too low a level.
type faults struct{ log *slog.Logger }

// HandleError implements river.ErrorHandler.
func (f faults) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	f.log.WarnContext(ctx, "delivery could not be processed, retrying soon", "endpoint", job.Queue, "job", job.ID, "error", err)
	return nil
}

// HandlePanic implements river.ErrorHandler.
func (f faults) HandlePanic(ctx context.Context, job *rivertype.JobRow, value any, trace string) *river.ErrorHandlerResult {
	f.log.ErrorContext(ctx, "delivery panicked, retrying soon", "endpoint", job.Queue, "job", job.ID, "panic", value, "trace", trace)
	return nil
}

// repeat is how long the same line is not logged again. Without a database, each queue logs an error at each poll.
const repeat = 10 * time.Second

// quiet drops the queue's routine lines and recent repetitions.
type quiet struct {
	slog.Handler
	told *told
}

type told struct {
	mu sync.Mutex
	at map[string]time.Time // by message; there are as many as lines of code that tell something
}

func newQuiet(h slog.Handler) slog.Handler {
	return quiet{Handler: h, told: &told{at: make(map[string]time.Time)}}
}

// Enabled implements slog.Handler.
func (h quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h quiet) Handle(ctx context.Context, r slog.Record) error {
	h.told.mu.Lock()
	last, again := h.told.at[r.Message]
	again = again && r.Time.Sub(last) < repeat
	if !again {
		h.told.at[r.Message] = r.Time
	}
	h.told.mu.Unlock()
	if again {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quiet{Handler: h.Handler.WithAttrs(attrs), told: h.told}
}

// WithGroup implements slog.Handler.
func (h quiet) WithGroup(name string) slog.Handler {
	return quiet{Handler: h.Handler.WithGroup(name), told: h.told}
}
