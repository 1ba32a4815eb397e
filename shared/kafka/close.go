package kafka

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// leaveWithin is how long a broker that is away may hold up the end of a member.
const leaveWithin = 2 * time.Second

// Close leaves the client's group, so that others take its partitions over at once, and closes it. If the broker does not answer, its
// partitions wait until the session times out.
func Close(cl *kgo.Client, log *slog.Logger) {
	cl.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	if err := cl.LeaveGroupContext(ctx); err != nil {
		log.Warn("could not leave the consumer group; the partitions of this process are reassigned when its session times out", "error", err)
	}
	cl.CloseAllowingRebalance()
}
