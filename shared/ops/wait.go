package ops

import (
	"context"
	"time"
)

// Pause waits for d and reports whether it did; it ends early with ctx.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Outlive returns a context that ends d later than ctx, so that what is under way can be finished.
func Outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if Pause(out, d) {
			cancel()
		}
	})
	return out, func() { stop(); cancel() }
}
