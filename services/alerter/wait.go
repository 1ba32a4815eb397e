package alerter

import (
	"context"
	"time"
)

// pause waits for d and reports whether it did; it ends early with ctx.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outlive returns a context that ends d later than ctx, so that what is under way can be finished.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if pause(out, d) {
			cancel()
		}
	})
	return out, func() { stop(); cancel() }
}
