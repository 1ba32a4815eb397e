package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Bounds are those of a partition's log, as its leader has them.
type Bounds struct {
	Start  int64 // the first offset that is kept
	Stable int64 // the last stable offset: a reader that reads what is committed comes no further while a transaction is open there
	End    int64 // the high watermark
}

// ListBounds returns the bounds of all partitions of a topic.
func ListBounds(ctx context.Context, adm *kadm.Client, topic string) (map[int32]Bounds, error) {
	out := make(map[int32]Bounds)
	for what, list := range map[string]func(context.Context, ...string) (kadm.ListedOffsets, error){
		"start": adm.ListStartOffsets, "stable": adm.ListCommittedOffsets, "end": adm.ListEndOffsets,
	} {
		offsets, err := list(ctx, topic)
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list %s offsets: %w", what, err)
		}
		offsets.Each(func(o kadm.ListedOffset) {
			b := out[o.Partition]
			switch what {
			case "start":
				b.Start = o.Offset
			case "stable":
				b.Stable = o.Offset
			default:
				b.End = o.Offset
			}
			out[o.Partition] = b
		})
	}
	return out, nil
}

const (
	// ProbeAfter is how long a partition may stand still, with something to read, before its next batch is looked at.
	ProbeAfter = 3 * time.Second
	// StalledAfter is how long it may before its service is not ready.
	StalledAfter = 8 * time.Second
)

// Progress knows since when partitions stand still. It is not safe for concurrent use.
type Progress struct {
	at map[int32]standing
}

type standing struct {
	position int64
	since    time.Time
}

// Stands returns how long each partition has not moved although there is something to read. position is where each is, bounds what the broker
// has; a partition that is left out of position begins anew when it comes back.
func (p *Progress) Stands(now time.Time, position map[int32]int64, bounds map[int32]Bounds) map[int32]time.Duration {
	was := p.at
	p.at = make(map[int32]standing, len(position))
	out := make(map[int32]time.Duration)
	for n, at := range position {
		s, known := was[n]
		if !known || s.position != at || bounds[n].Stable <= at {
			s = standing{at, now}
		}
		p.at[n] = s
		if d := now.Sub(s.since); d > 0 {
			out[n] = d
		}
	}
	return out
}

// Stalled says what an operator has to know of a partition that stands still. why is what came of a look at its next batch; nil is that the
// batch is sound.
func Stalled(topic string, partition int32, position int64, b Bounds, since time.Duration, why error) string {
	reason := "its next batch is readable, but this process has not reached it"
	if why != nil {
		reason = why.Error()
	}
	return fmt.Sprintf("partition %d of %s has stalled at offset %d of %d for %v: %s", partition, topic, position, b.Stable, since.Round(time.Second), reason)
}
