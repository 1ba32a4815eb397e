package ops

import (
	"context"
	"log/slog"
	"time"
)

const (
	waitMin = 250 * time.Millisecond
	waitMax = 10 * time.Second
	// healthy is how long a life must last to count as a success: the next wait is the shortest again.
	healthy = time.Minute
)

// Keep runs the sessions of a service, one after another, until ctx ends, run returns nil, or run returns an error that fatal says no
// further try can mend. Between tries it waits, from a quarter of a second up to ten seconds.
func Keep(ctx context.Context, log *slog.Logger, status *Status, fatal func(error) bool, run func(context.Context) error) error {
	wait := waitMin
	for {
		began := time.Now()
		err := run(ctx)
		if ctx.Err() != nil || err == nil {
			return nil
		}
		if fatal(err) {
			return err
		}
		status.NotReady(err.Error())
		if time.Since(began) > healthy {
			wait = waitMin
		}
		log.Warn("session ended, restarting", "error", err, "wait", wait.String())
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		wait = min(2*wait, waitMax)
	}
}
