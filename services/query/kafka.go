package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
)

const (
	// reachTime is how long a broker may take to answer.
	reachTime = 5 * time.Second
	// askAfter is when a broker that sends nothing is asked whether it is there, and followPatience when one that does not answer is not waited for any more: a broker that
	// restarts is back by then.
	askAfter, followPatience = 2 * time.Second, 30 * time.Second
	// pollRecords are handed over at once.
	pollRecords = 10_000
	// clockStep is how far a broker's clock may be set back, or that of the leader that follows it: append times are not quite in order.
	clockStep = time.Minute
)

// Kafka is the log of a pipeline in Kafka.
type Kafka struct {
	Config kafka.Config
	Names  kafka.Names
}

// Topics implements [Log].
func (k *Kafka) Topics() []Topic { return []Topic{Activity, Late, DLQ} }

// Times implements [Log].
func (k *Kafka) Times() bool { return true }

func (k *Kafka) name(t Topic) string {
	switch t {
	case Late:
		return k.Names.Late
	case DLQ:
		return k.Names.DLQ
	}
	return k.Names.Activity
}

// bounds asks for the offsets of a topic.
func (k *Kafka) bounds(ctx context.Context, cl *kgo.Client, t Topic) (map[int32]kafka.Bounds, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*reachTime)
	defer cancel()
	bounds, err := kafka.ListBounds(ctx, kadm.NewClient(cl), k.name(t))
	return bounds, k.cannotRead(t, err)
}

// with calls f with a client.
func (k *Kafka) with(f func(cl *kgo.Client) error) error {
	cl, err := kgo.NewClient(k.Config.Options(kgo.DialTimeout(reachTime), kgo.RequestTimeoutOverhead(reachTime))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	return f(cl)
}

// Partitions implements [Log].
func (k *Kafka) Partitions(ctx context.Context, t Topic) (n int32, err error) {
	err = k.with(func(cl *kgo.Client) error {
		bounds, err := k.bounds(ctx, cl, t)
		n = int32(len(bounds))
		return err
	})
	return n, err
}

// Size implements [Log].
func (k *Kafka) Size(ctx context.Context, t Topic) (n int64, err error) {
	err = k.with(func(cl *kgo.Client) error {
		bounds, err := k.bounds(ctx, cl, t)
		for _, b := range bounds {
			n += b.Stable - b.Start
		}
		return err
	})
	return n, err
}

func (k *Kafka) cannotRead(t Topic, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("topic %s does not exist; to create it, start spate up or spate route", k.name(t))
	}
	return fmt.Errorf("read topic %s: %w", k.name(t), kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: k.name(t)}))
}

// stretch is what there is to read of a partition: at is the next offset, end the one behind the last.
type stretch struct{ at, end int64 }

// stretches finds the offsets of a range.
func (k *Kafka) stretches(ctx context.Context, cl *kgo.Client, t Topic, r Range) (map[int32]*stretch, error) {
	bounds, err := k.bounds(ctx, cl, t)
	if err != nil {
		return nil, err
	}
	out := map[int32]*stretch{}
	for p, b := range bounds {
		if p >= r.FromPartition && p <= r.ToPartition {
			out[p] = &stretch{max(b.Start, r.FromOffset), b.Stable}
			if r.ToOffset < math.MaxInt64 {
				out[p].end = min(b.Stable, r.ToOffset+1)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*reachTime)
	defer cancel()
	adm := kadm.NewClient(cl)
	if r.FromMS > 0 {
		// Every record before the first one of that time is older, whoever has set the times.
		listed, err := adm.ListOffsetsAfterMilli(ctx, r.FromMS, k.name(t))
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return nil, k.cannotRead(t, err)
		}
		listed.Each(func(o kadm.ListedOffset) {
			if s := out[o.Partition]; s != nil {
				s.at = max(s.at, o.Offset)
			}
		})
	}
	if r.ToMS < math.MaxInt64-2*clockStep.Milliseconds() && k.appended(ctx, adm, t) {
		listed, err := adm.ListOffsetsAfterMilli(ctx, max(r.ToMS+1+clockStep.Milliseconds(), 0), k.name(t))
		if err == nil && listed.Error() == nil {
			listed.Each(func(o kadm.ListedOffset) {
				if s := out[o.Partition]; s != nil && o.Offset >= 0 && o.Timestamp >= 0 { // a partition without such a record is listed without a timestamp
					s.end = min(s.end, o.Offset)
				}
			})
		}
	}
	if !r.Follow {
		for p, s := range out {
			if s.at >= s.end {
				delete(out, p)
			}
		}
	}
	return out, nil
}

// behind reports whether there is something to read of what is left.
func behind(left map[int32]*stretch, bounds map[int32]kafka.Bounds) bool {
	for p, s := range left {
		if s.at < bounds[p].Stable {
			return true
		}
	}
	return false
}

// appended reports whether the broker sets the times of a topic's records, so that they rise. If it does not say, they may be anything.
func (k *Kafka) appended(ctx context.Context, adm *kadm.Client, t Topic) bool {
	configs, err := adm.DescribeTopicConfigs(ctx, k.name(t))
	if err != nil || len(configs) != 1 || configs[0].Err != nil {
		return false
	}
	return slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool {
		return c.Key == "message.timestamp.type" && c.MaybeValue() == "LogAppendTime"
	})
}

// Read implements [Log]. It reads as the router does: what was aborted is not there, and what cannot be decoded is left out and noted.
func (k *Kafka) Read(ctx context.Context, t Topic, r Range, note func(string), take func([]Record) error) error {
	name := k.name(t)
	var left map[int32]*stretch
	position := func(p int32) int64 {
		if s := left[p]; s != nil {
			return s.at
		}
		return -1
	}
	reader, err := k.Config.NewReader(name, slog.New(slog.DiscardHandler), position, kgo.NewClient,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.WithContext(ctx), kgo.DialTimeout(reachTime), kgo.RequestTimeoutOverhead(reachTime))
	if err != nil {
		return err
	}
	cl := reader.Client() // closing it waits for what is under way, which ctx ends
	defer cl.Close()
	if left, err = k.stretches(ctx, cl, t, r); err != nil {
		return err
	}
	from := make(map[int32]kgo.Offset, len(left))
	for p, s := range left {
		from[p] = kgo.NewOffset().At(s.at)
	}
	if len(from) > 0 {
		cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{name: from})
	}
	done := func(p int32) {
		delete(left, p)
		cl.PauseFetchPartitions(map[string][]int32{name: {p}})
	}
	var records []Record
	quiet, heard, ask := time.Duration(0), time.Now(), askAfter
	if r.Silence > 0 {
		ask = min(ask, r.Silence/2)
	}
	for len(left) > 0 {
		wait := reachTime
		if r.Follow {
			wait = flushEvery
		}
		poll, cancel := context.WithTimeout(ctx, wait)
		fetches, gaps, err := reader.Poll(poll, pollRecords)
		cancel()
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if quiet += wait; fetches.NumRecords() > 0 || len(gaps) > 0 {
			quiet, heard = 0, time.Now()
		}
		if r.Follow && time.Since(heard) >= ask {
			// A broker that cannot be reached is not silence, and neither is what it has and has not sent: no window may close because of them.
			bounds, err := k.bounds(ctx, cl, t)
			switch {
			case err == nil && !behind(left, bounds):
				heard = time.Now()
			case err != nil && (ctx.Err() != nil || time.Since(heard) >= followPatience):
				return cmp.Or(ctx.Err(), err)
			default:
				continue
			}
		}
		if quiet >= reachTime && !r.Follow { // nothing but aborted transactions may follow, whose end nothing marks
			for p := range left {
				if g, ok, err := reader.Probe(ctx, p); err == nil && ok {
					gaps, quiet = append(gaps, g), 0
				}
			}
		}
		if quiet >= 2*reachTime && !r.Follow {
			return fmt.Errorf("read topic %s: no response within %v", name, quiet)
		}
		records = records[:0]
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			s := left[p.Partition]
			if s == nil {
				return
			}
			for _, rec := range p.Records {
				if !r.Follow && rec.Offset >= s.end {
					break
				}
				s.at = rec.Offset + 1
				if !rec.Attrs.IsControl() {
					records = append(records, Record{Partition: rec.Partition, Offset: rec.Offset, AppendedMS: rec.Timestamp.UnixMilli(), Claimed: rec.Attrs.TimestampType() == 0,
						Key: rec.Key, Value: rec.Value, Headers: rec.Headers})
				}
			}
			if n := len(p.Records); !r.Follow && n > 0 && p.Records[n-1].Offset >= s.end-1 {
				done(p.Partition)
			}
		})
		if len(records) > 0 || r.Follow {
			if err := take(records); err != nil {
				return err
			}
		}
		for _, g := range gaps {
			s := left[g.Partition]
			if s == nil || !g.Passed && g.To <= s.at {
				continue
			}
			if !g.Aborted {
				note(fmt.Sprintf("topic %s, partition %d: offsets %d to %d cannot be read: %v", name, g.Partition, g.From, g.To-1, g.Cause))
			}
			if !g.Passed {
				reader.Skip(g)
			}
			if s.at = max(s.at, g.To); !r.Follow && s.at >= s.end {
				done(g.Partition)
			}
		}
	}
	return nil
}
