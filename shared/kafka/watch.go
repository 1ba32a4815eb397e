package kafka

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Watch asks the broker every few seconds whether it is there, until ctx ends, and tells hold what is wrong, "" if nothing. Clients
// hide that a broker is away, for they go on when it comes back; readiness and the log should not. At the end it takes back what it told,
// for the next session begins with a watch of its own.
func Watch(ctx context.Context, cl *kgo.Client, log *slog.Logger, hold func(reason string)) {
	const every, patience = 2 * time.Second, 3 * time.Second
	away := false
	defer func() {
		if away {
			hold("")
		}
	}()
	for pause(ctx, every) == nil {
		pctx, cancel := context.WithTimeout(ctx, patience)
		err := cl.Ping(pctx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			away = true
			hold("broker does not answer: " + err.Error())
			log.Warn("broker does not answer, trying again", "error", err)
		case away:
			away = false
			hold("")
			log.Info("broker answers again")
		}
	}
}
