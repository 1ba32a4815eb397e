package explainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/evidence"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/window"
)

// reachTime is how long a broker may take to answer.
const reachTime = 5 * time.Second

// Kafka reads the topics of a pipeline.
type Kafka struct {
	Config kafka.Config
	Names  kafka.Names
	Events format.Config
}

// Of returns the events of a window that an alert names as its evidence.
func (k *Kafka) Of(ctx context.Context, ev alert.Evidence, from, until time.Time, a about) (*Facts, error) {
	k2 := *k
	if ev.Topic != "" {
		k2.Names = kafka.NamesFor(ev.Topic)
	}
	f := &Facts{}
	if err := k2.read(ctx, f, ev, from, until, a); err != nil {
		return nil, err
	}
	// Between the first and the last event that counted, none is late: once a window is closed for a partition, it stays closed.
	return f, k2.decided(ctx, f, nil, from, until, a, k2.Names.DLQ)
}

// Between returns the events of a time.
func (k *Kafka) Between(ctx context.Context, from, until time.Time, a about) (*Facts, error) {
	f := &Facts{}
	cl, err := k.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	reach, cancel := context.WithTimeout(ctx, 2*reachTime)
	defer cancel()
	adm := kadm.NewClient(cl)
	bounds, err := kafka.ListBounds(reach, adm, k.Names.Activity)
	if err != nil {
		return nil, k.cannotRead(k.Names.Activity, err)
	}
	ev := alert.Evidence{Topic: k.Names.Activity, Partitions: map[string]alert.OffsetRange{}}
	s, err := k.find(ctx, cl, adm, from, until, f)
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Sorted(maps.Keys(bounds)) {
		b := bounds[p]
		r := alert.OffsetRange{First: b.Start, Last: b.Stable - 1}
		at, ok := s.from[p]
		if r.First > at {
			f.Notes = append(f.Notes, fmt.Sprintf("partition %d now begins at offset %d: older events, possibly including some for this period and key, have been deleted", p, r.First))
		}
		if ok {
			r.First = max(r.First, at)
		}
		if at, ok := s.until[p]; ok {
			r.Last = min(r.Last, at-1)
		}
		if r.First <= r.Last {
			ev.Partitions[strconv.Itoa(int(p))] = r
		}
	}
	if err := k.read(ctx, f, ev, from, until, a); err != nil {
		return nil, err
	}
	asked, cancelAsked := context.WithTimeout(ctx, reachTime) // reading may have taken long
	defer cancelAsked()
	return f, k.decided(ctx, f, k.routed(asked, adm, f), from, until, a, k.Names.Late, k.Names.DLQ)
}

// routed returns the offsets up to which the router has committed; nil if that cannot be known.
func (k *Kafka) routed(ctx context.Context, adm *kadm.Client, f *Facts) map[int32]int64 {
	out := map[int32]int64{}
	offsets, err := adm.FetchOffsets(ctx, k.Names.RouterGroup)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
	case err != nil:
		f.Notes = append(f.Notes, fmt.Sprintf("events that are not counted yet are treated as counted: %v", kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "group", Name: k.Names.RouterGroup})))
		return nil
	}
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic == k.Names.Activity && o.Err == nil {
			out[o.Partition] = o.At
		}
	})
	return out
}

// Now returns how far event time is: the highest watermark. It is zero if nothing is routed.
func (k *Kafka) Now(ctx context.Context) (time.Time, error) {
	cl, err := k.client()
	if err != nil {
		return time.Time{}, err
	}
	defer cl.Close()
	reach, cancel := context.WithTimeout(ctx, 2*reachTime)
	defer cancel()
	bounds, err := kafka.ListBounds(reach, kadm.NewClient(cl), k.Names.Keyed)
	if err != nil {
		return time.Time{}, k.cannotRead(k.Names.Keyed, err)
	}
	l := &keyedLog{cl: cl, topic: k.Names.Keyed, start: bounds[0].Start, end: bounds[0].Stable}
	if l.start >= l.end {
		return time.Time{}, nil
	}
	c, err := l.last(ctx)
	if w := c.newest(); err == nil && w > window.NoTime && w < window.EndOfTime {
		return time.UnixMilli(w).UTC(), nil
	}
	return time.Time{}, err
}

// client returns one that looks batches of the keyed log up: it fetches few at a time, and none ahead, which the next look would not want and, with bad luck, wait for.
func (k *Kafka) client() (*kgo.Client, error) {
	cl, err := kgo.NewClient(k.Config.Options(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.MaxConcurrentFetches(0), kgo.FetchMaxPartitionBytes(64<<10), kgo.DialTimeout(reachTime), kgo.RequestTimeoutOverhead(reachTime))...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return cl, nil
}

func (k *Kafka) cannotRead(topic string, err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("topic %s does not exist; to create it, start spate up or spate route", topic)
	}
	return fmt.Errorf("read topic %s: %w", topic, kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: topic}))
}

// read reads ranges of the topic of events.
func (k *Kafka) read(ctx context.Context, f *Facts, ev alert.Evidence, from, until time.Time, a about) error {
	events, err := format.New(k.Events)
	if err != nil {
		return err
	}
	p := &picker{events: events, about: a, from: from.UnixMilli(), until: until.UnixMilli(), facts: f}
	note, err := evidence.Scan(ctx, ev, k.Config, p.take)
	if note != "" {
		f.Notes, f.Missing = append(f.Notes, note), true
	}
	if err != nil {
		f.Missing = true
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.Notes = append(f.Notes, fmt.Sprintf("some events were not read: %v", err))
	}
	f.sort()
	return nil
}

// maxSide is how many records of a side topic are read: its newest ones.
const maxSide = 1_000_000

// decided finds out what became of the events: those in the side topics, of late events and of dead letters, were not counted, and those behind what is routed wait. If routed is
// nil, none waits. A late event can be far behind the others of its time, where the log is not read: it is taken from its side topic.
func (k *Kafka) decided(ctx context.Context, f *Facts, routed map[int32]int64, from, until time.Time, a about, sides ...string) error {
	events, err := format.New(k.Events)
	if err != nil {
		return err
	}
	behind := &Facts{}
	p := &picker{events: events, about: a, from: from.UnixMilli(), until: until.UnixMilli(), facts: behind}
	type place struct {
		partition int32
		offset    int64
	}
	at := make(map[place]*Event, len(f.Events))
	for i := range f.Events {
		e := &f.Events[i]
		at[place{*e.Partition, *e.Offset}] = e
		if routed != nil && *e.Offset >= routed[*e.Partition] && e.Fate != Invalid {
			e.Fate = Waiting
		}
	}
	take := func(ctx context.Context, _ evidence.Place, value []byte, headers []kgo.RecordHeader) error {
		var from place
		var reason, by string
		var missed int64
		for _, h := range headers {
			switch h.Key {
			case "spate-source-partition":
				n, _ := strconv.ParseInt(string(h.Value), 10, 32)
				from.partition = int32(n)
			case "spate-source-offset":
				from.offset, _ = strconv.ParseInt(string(h.Value), 10, 64)
			case "spate-window-start":
				missed, _ = strconv.ParseInt(string(h.Value), 10, 64)
			case "spate-reason":
				reason = string(h.Value)
			case "spate-late-by-ms":
				by = string(h.Value)
			}
		}
		headers = slices.DeleteFunc(headers, func(h kgo.RecordHeader) bool { return strings.HasPrefix(h.Key, "spate-") }) // the others are the event's own
		e := at[from]
		ahead := slices.Contains(sides, k.Names.Late) && by == "" && reason == string(activity.ReasonTimeAhead) // of a time that was not asked about, but it may have been meant
		if n := len(behind.Events); e == nil && (by != "" || ahead) {
			if p.until = until.UnixMilli(); ahead {
				p.until = window.EndOfTime
			}
			if err := p.take(ctx, evidence.Place{Partition: &from.partition, Offset: &from.offset}, value, headers); err != nil {
				return err
			}
			switch {
			case len(behind.Events) == n:
			case behind.Events[n].Fate != Counted:
				behind.Events = behind.Events[:n]
			default:
				e = &behind.Events[n]
			}
		}
		switch {
		case e == nil:
		case by != "" && reason == window.LateIdle.String():
			e.Fate = Idle
		case by != "":
			e.Fate = Late
		default:
			e.Fate, e.Reason = Invalid, reason
		}
		if e != nil && by != "" {
			e.missed = missed
			e.LateByMS, _ = strconv.ParseInt(by, 10, 64)
		}
		return nil
	}
	cl, err := kgo.NewClient(k.Config.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for _, topic := range sides {
		reach, cancel := context.WithTimeout(ctx, reachTime)
		bounds, err := kafka.ListBounds(reach, adm, topic)
		cancel()
		if err != nil {
			f.Notes = append(f.Notes, fmt.Sprintf("events that were late or invalid are treated as counted: %v", k.cannotRead(topic, err)))
			continue
		}
		ev := alert.Evidence{Topic: topic, Partitions: map[string]alert.OffsetRange{}}
		for p, b := range bounds {
			r := alert.OffsetRange{First: b.Start, Last: b.Stable - 1}
			if share := int64(maxSide / len(bounds)); r.Last-r.First > share {
				r.First = r.Last - share
				f.Notes = append(f.Notes, fmt.Sprintf("in topic %s, partition %d, only the newest %d records were read", topic, p, share))
			}
			if r.First <= r.Last {
				ev.Partitions[strconv.Itoa(int(p))] = r
			}
		}
		if len(ev.Partitions) == 0 {
			continue
		}
		note, err := evidence.Scan(ctx, ev, k.Config, take)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := cmp.Or(err, textError(note)); err != nil {
			f.Notes = append(f.Notes, fmt.Sprintf("topic %s: %v", topic, err))
		}
	}
	f.Events, f.Read, f.Cut = append(f.Events, behind.Events...), f.Read+behind.Read, f.Cut || behind.Cut
	f.sort()
	return nil
}

func textError(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

// span is where the events of a time can be: no partition has one before from or at until or later. A partition that is not in the maps is read from its start, or to its end.
type span struct {
	from, until map[int32]int64
}

// find looks the span of a time up in the keyed log.
func (k *Kafka) find(ctx context.Context, cl *kgo.Client, adm *kadm.Client, from, until time.Time, f *Facts) (span, error) {
	var s span
	reach, cancel := context.WithTimeout(ctx, 2*reachTime)
	defer cancel()
	bounds, err := kafka.ListBounds(reach, adm, k.Names.Keyed)
	if err != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("all events in the topic are read, and the time up to which windows are closed is unknown: %v", k.cannotRead(k.Names.Keyed, err)))
		return s, nil
	}
	l := &keyedLog{cl: cl, topic: k.Names.Keyed, start: bounds[0].Start, end: bounds[0].Stable}
	if l.start >= l.end {
		return s, nil
	}
	before, over := from.UnixMilli(), until.UnixMilli()-1
	lo, hi, err := l.search(ctx, func(c chunk) bool { return c.highest() >= before })
	if err != nil {
		return s, err
	}
	if s.from, err = l.older(ctx, lo, hi, before); err != nil {
		return s, err
	}
	last, err := l.last(ctx)
	if err != nil {
		return s, err
	}
	if w := last.closed(); w > window.NoTime && w < window.EndOfTime {
		f.Watermark = time.UnixMilli(w).UTC()
	}
	if last.closed() < over {
		return s, nil
	}
	if lo, _, err = l.search(ctx, func(c chunk) bool { return c.closed() >= over }); err != nil {
		return s, err
	}
	s.until, err = l.over(ctx, lo, over)
	return s, err
}

// chunkBatches is how many batches a look at the keyed log reads at most, and lastOffsets how many offsets at its end hold a batch of every router.
const chunkBatches, lastOffsets = 200, 400

// keyedLog is the first partition of the keyed log.
type keyedLog struct {
	cl         *kgo.Client
	topic      string
	start, end int64
	added      bool // the client consumes it
}

// chunk is what some batches that follow each other say of each source partition: the watermark, and the highest event time.
type chunk struct {
	sources            int32
	watermark, reached map[int32]int64
}

func newChunk() chunk { return chunk{watermark: map[int32]int64{}, reached: map[int32]int64{}} }

// highest is the highest event time.
func (c chunk) highest() int64 {
	highest := int64(window.NoTime)
	for _, at := range c.reached {
		highest = max(highest, at)
	}
	return highest
}

// newest is the highest watermark.
func (c chunk) newest() int64 {
	newest := int64(window.NoTime)
	for _, w := range c.watermark {
		newest = max(newest, w)
	}
	return newest
}

// closed is the lowest watermark of all source partitions; NoTime if one of them is not known.
func (c chunk) closed() int64 {
	if c.sources == 0 || len(c.watermark) < int(c.sources) {
		return window.NoTime
	}
	low := int64(window.EndOfTime)
	for _, w := range c.watermark {
		low = min(low, w)
	}
	return low
}

// search returns an offset from which on reading finds what is not past yet, and one near it from which on it is. past is monotone: once true, it stays true.
func (l *keyedLog) search(ctx context.Context, past func(chunk) bool) (lo, hi int64, err error) {
	lo, hi = l.start, l.end
	for hi-lo > chunkBatches/4 {
		mid := lo + (hi-lo)/2
		c, err := l.look(ctx, mid)
		if err != nil {
			return 0, 0, err
		}
		if c.sources > 0 && past(c) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return lo, hi, nil
}

// older returns up to where all events of each source partition are before a time, as the batches before hi say.
func (l *keyedLog) older(ctx context.Context, lo, hi, before int64) (map[int32]int64, error) {
	out := make(map[int32]int64)
	for back := int64(0); ; back = max(4*back, chunkBatches) {
		from := max(l.start, lo-back)
		sources := 0
		if err := l.each(ctx, from, func(at int64, h *window.Header) bool {
			if at >= hi {
				return true
			}
			sources = int(h.Sources)
			for _, p := range h.Progress {
				if p.NewestMS < before {
					out[p.Partition] = p.Next
				}
			}
			return false
		}); err != nil {
			return nil, err
		}
		// A partition that had no event for long is read from its start.
		if sources > 0 && len(out) >= sources || from == l.start || back > 16*chunkBatches {
			return out, nil
		}
	}
}

// over returns from where on a window that ends at a time is closed in each source partition, as the first batches say in which it is.
func (l *keyedLog) over(ctx context.Context, lo, end int64) (map[int32]int64, error) {
	closed, out := make(map[int32]bool), make(map[int32]int64)
	n := 0
	err := l.each(ctx, lo, func(_ int64, h *window.Header) bool {
		for _, w := range h.Watermarks {
			closed[w.Partition] = w.WatermarkMS >= end
		}
		for _, p := range h.Progress {
			if _, known := out[p.Partition]; closed[p.Partition] && !known {
				out[p.Partition] = p.Next
			}
		}
		n++
		return len(out) >= int(h.Sources) || n == 2*chunkBatches
	})
	return out, err
}

// last is what the end of the log says: as many batches as tell of all source partitions.
func (l *keyedLog) last(ctx context.Context) (chunk, error) {
	for back := int64(4); ; back *= 10 {
		c := newChunk()
		err := l.each(ctx, max(l.start, l.end-back), func(_ int64, h *window.Header) bool {
			c.sources = max(c.sources, h.Sources)
			for _, w := range h.Watermarks {
				c.watermark[w.Partition] = w.WatermarkMS
			}
			return false
		})
		if err != nil || c.closed() > window.NoTime || back >= min(lastOffsets, l.end-l.start) {
			return c, err
		}
	}
}

// look returns what the first batches from an offset on say, as many as tell of all source partitions.
func (l *keyedLog) look(ctx context.Context, from int64) (chunk, error) {
	c := newChunk()
	n := 0
	err := l.each(ctx, from, func(_ int64, h *window.Header) bool {
		c.sources = max(c.sources, h.Sources)
		for _, w := range h.Watermarks {
			if _, known := c.watermark[w.Partition]; !known {
				c.watermark[w.Partition] = w.WatermarkMS
			}
		}
		for _, p := range h.Progress {
			if _, known := c.reached[p.Partition]; !known {
				c.reached[p.Partition] = p.NewestMS
			}
		}
		n++
		return len(c.watermark) >= int(c.sources) && len(c.reached) >= int(c.sources) || n == chunkBatches
	})
	return c, err
}

// each hands over the batches from an offset on, until one is enough or the log ends.
func (l *keyedLog) each(ctx context.Context, from int64, take func(at int64, h *window.Header) (enough bool)) error {
	if l.added {
		l.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{l.topic: {0: {Epoch: -1, Offset: from}}})
	} else {
		l.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: {0: kgo.NewOffset().At(from)}})
		l.added = true
	}
	var h window.Header
	for enough := false; from < l.end && !enough; {
		poll, cancel := context.WithTimeout(ctx, reachTime)
		fetches := l.cl.PollRecords(poll, chunkBatches)
		err := cmp.Or(ctx.Err(), fetches.Err0())
		cancel()
		if err == nil && fetches.NumRecords() == 0 {
			for _, e := range fetches.Errors() {
				err = e.Err
			}
			if err == nil {
				err = fmt.Errorf("no response within %v", reachTime)
			}
		}
		if err != nil {
			return fmt.Errorf("read topic %s: %w", l.topic, kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: l.topic}))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			from = r.Offset + 1
			if enough || r.Offset >= l.end || r.Attrs.IsControl() || window.ParseHeader(r.Value, &h) != nil {
				return
			}
			enough = take(r.Offset, &h)
		})
	}
	return nil
}
