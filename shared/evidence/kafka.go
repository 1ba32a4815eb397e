package evidence

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/kafka"
)

// Kafka returns the events of an alert, the first most of them, from the topic that it names.
func Kafka(ctx context.Context, a alert.Record, events format.Config, most int, cfg kafka.Config) *Found {
	t := topic{cfg: cfg, evidence: a.Evidence}
	return search(ctx, a, events, most, t.read)
}

// A client waits for the broker each time it has handed over what it has, so several are faster if there is enough to read for each.
const maxReaders, recordsPerReader = 4, 25_000

// Scan hands over every record between the places of a topic that ev names, one at a time. The note says what of it cannot be read; the error is the one that take or ctx ended
// the reading with.
func Scan(ctx context.Context, ev alert.Evidence, cfg kafka.Config, take Take) (note string, err error) {
	records := int64(0)
	for _, r := range ev.Partitions {
		records += r.Last - r.First + 1
	}
	parts := make([]topic, max(1, min(maxReaders, len(ev.Partitions), int(records/recordsPerReader))))
	for i := range parts {
		parts[i] = topic{cfg: cfg, evidence: alert.Evidence{Topic: ev.Topic, Partitions: map[string]alert.OffsetRange{}}}
	}
	for i, p := range slices.SortedFunc(maps.Keys(ev.Partitions), alert.ByNumber) {
		parts[i%len(parts)].evidence.Partitions[p] = ev.Partitions[p]
	}
	var mu sync.Mutex
	var failed error // of take
	var notes []string
	rctx, stop := context.WithCancel(ctx)
	defer stop()
	var readers errgroup.Group // if one does not get on, the others still read what they can
	for _, t := range parts {
		readers.Go(func() error {
			f := &Found{}
			err := t.read(rctx, f, func(ctx context.Context, at Place, value []byte, headers []kgo.RecordHeader) error {
				mu.Lock()
				defer mu.Unlock()
				if failed == nil {
					if failed = take(ctx, at, value, headers); failed != nil {
						stop()
					}
				}
				return failed
			})
			mu.Lock()
			defer mu.Unlock()
			if f.Note != "" && !slices.Contains(notes, f.Note) {
				notes = append(notes, f.Note)
			}
			return err
		})
	}
	err = readers.Wait()
	slices.Sort(notes)
	return strings.Join(notes, "; "), cmp.Or(failed, err) // the others end with the one that take ended
}

type topic struct {
	cfg      kafka.Config
	evidence alert.Evidence
}

// read is a source. It reads as the router does: what was aborted is not an event. What keeps it from beginning is in the note, and Events are nil then.
func (t topic) read(ctx context.Context, f *Found, take Take) error {
	name := t.evidence.Topic
	at := make(map[int32]int64) // where each partition is read next
	position := func(p int32) int64 {
		if o, ok := at[p]; ok {
			return o
		}
		return -1
	}
	// Closing the client waits for what is under way, which ctx and the timeouts end.
	reader, err := t.cfg.NewReader(name, slog.New(slog.DiscardHandler), position, kgo.NewClient,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.WithContext(ctx), kgo.DialTimeout(reachTime), kgo.RequestTimeoutOverhead(reachTime))
	if err != nil {
		f.note("%v", err)
		return nil
	}
	cl := reader.Client()
	defer cl.Close()
	reach, cancelReach := context.WithTimeout(ctx, reachTime)
	defer cancelReach()
	brokers := strings.Join(t.cfg.Brokers, ",")
	if err := cl.Ping(reach); err != nil {
		f.note("cannot connect to broker %s (SPATE_BROKERS, --brokers): %v", brokers, brief(kafka.Explain(err, kafka.Right{})))
		return nil
	}
	ranges, err := t.ranges(reach, kadm.NewClient(cl), f)
	if err != nil {
		f.note("topic %s at %s: %v", name, brokers, brief(kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: name})))
		return nil
	}
	f.Events = []Event{}
	from := make(map[int32]kgo.Offset, len(ranges))
	for p, r := range ranges {
		from[p], at[p] = kgo.NewOffset().At(r.First), r.First
	}
	if len(from) > 0 {
		cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{name: from})
	}
	for len(ranges) > 0 {
		poll, cancelPoll := context.WithTimeoutCause(ctx, reachTime, errReach)
		fetches, gaps, err := reader.Poll(poll, 10_000)
		if err == nil && fetches.NumRecords() == 0 && len(gaps) == 0 {
			err = context.Cause(poll)
		}
		cancelPoll()
		if err != nil {
			return err
		}
		done := func(p int32) {
			delete(ranges, p)
			cl.PauseFetchPartitions(map[string][]int32{name: {p}})
		}
		var failed error
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			r, wanted := ranges[p.Partition]
			if !wanted || failed != nil {
				return
			}
			for _, record := range p.Records {
				if record.Offset <= r.Last && !record.Attrs.IsControl() {
					if failed = take(ctx, Place{Partition: &record.Partition, Offset: &record.Offset}, record.Value, record.Headers); failed != nil {
						return
					}
				}
				at[p.Partition] = record.Offset + 1
				if record.Offset >= r.Last {
					done(p.Partition)
					return
				}
			}
		})
		if failed != nil {
			return failed
		}
		for _, g := range gaps {
			r, wanted := ranges[g.Partition]
			if !wanted || !g.Passed && g.To <= at[g.Partition] {
				continue
			}
			if !g.Aborted {
				f.note("partition %d: offsets %d to %d cannot be read: %v", g.Partition, g.From, g.To-1, g.Cause)
			}
			if !g.Passed {
				reader.Skip(g)
			}
			if at[g.Partition] = max(at[g.Partition], g.To); at[g.Partition] > r.Last {
				done(g.Partition)
			}
		}
	}
	return nil
}

// ranges returns what there is to read of each partition, and notes what the log has no more.
func (t topic) ranges(ctx context.Context, adm *kadm.Client, f *Found) (map[int32]alert.OffsetRange, error) {
	name := t.evidence.Topic
	starts, err := perPartition(adm.ListStartOffsets(ctx, name))
	if err != nil {
		return nil, err
	}
	ends, err := perPartition(adm.ListEndOffsets(ctx, name))
	if err != nil {
		return nil, err
	}
	if err := starts.Error(); errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, errors.New("does not exist")
	}
	out := make(map[int32]alert.OffsetRange)
	for _, text := range slices.SortedFunc(maps.Keys(t.evidence.Partitions), alert.ByNumber) {
		r := t.evidence.Partitions[text]
		p, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			f.note("%q is not a partition number", text)
			continue
		}
		start, ok := starts.Lookup(name, int32(p))
		end, ok2 := ends.Lookup(name, int32(p))
		switch {
		case !ok || !ok2:
			f.note("partition %d does not exist", p)
			continue
		case start.Err != nil || end.Err != nil: // it has no leader, for example
			f.note("partition %d cannot be read: %v", p, cmp.Or(start.Err, end.Err))
			continue
		case r.Last >= end.Offset:
			f.note("partition %d ends at offset %d, before the end of the evidence: the alert is not from this log", p, end.Offset)
		case r.First < start.Offset:
			f.note("partition %d now begins at offset %d: older events have been deleted", p, start.Offset)
		}
		r.First, r.Last = max(r.First, start.Offset), min(r.Last, end.Offset-1)
		if r.First <= r.Last {
			out[int32(p)] = r
		}
	}
	return out, nil
}

// perPartition is for what lists offsets: an error of some partitions becomes theirs, and does not keep the others from being read.
func perPartition(listed kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	failed, ok := errors.AsType[*kadm.ShardErrors](err)
	if !ok || failed.AllFailed {
		return listed, err
	}
	for _, e := range failed.Errs {
		for _, t := range e.Req.(*kmsg.ListOffsetsRequest).Topics {
			for _, p := range t.Partitions {
				listed[t.Topic][p.Partition] = kadm.ListedOffset{Topic: t.Topic, Partition: p.Partition, Err: e.Err}
			}
		}
	}
	return listed, nil
}
