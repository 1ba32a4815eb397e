package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/kafka"
)

const (
	// newestEvents is how many of the newest records are looked at, as many of each partition.
	newestEvents = 100
	// maxReasons bounds how many reasons are reported.
	maxReasons = 5
)

// newest reads the newest records of the topic of events, and reports how many of them are events by the settings, and why the others are not.
func (e *exam) newest(ctx context.Context) {
	topic := e.names.Activity
	if e.cfg.Events == nil || !slices.Contains(e.cfg.Services, kafka.Router) {
		return
	}
	reader, err := format.New(*e.cfg.Events)
	if err != nil {
		e.tell.say(Failed, "events", "", "%v", err)
		return
	}
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	bounds, err := kafka.ListBounds(actx, e.adm, topic)
	if err != nil {
		return // topics or rights has told
	}
	records, err := e.read(actx, topic, bounds)
	if len(records) == 0 {
		if err != nil {
			e.tell.say(Unknown, "events", "", "the newest records in %s cannot be read: %v", topic, err)
		}
		return
	}
	n, skipped := 0, 0
	reasons, why := make(map[activity.Reason]int), make(map[activity.Reason]string)
	for _, r := range records {
		_, reason, err := reader.Mark(actx, r.Value, r.Headers)
		switch {
		case err != nil:
			e.tell.say(Unknown, "events", "", "the newest records in %s cannot be decoded: %v", topic, err)
			return
		case reason == activity.ReasonNone:
			n++
		case reason.Skipped():
			skipped++
		default:
			if reasons[reason]++; reasons[reason] == 1 {
				why[reason] = reader.Explain(r.Value, r.Headers, reason)
			}
		}
	}
	level, text := OK, fmt.Sprintf("%d of the newest %d records in %s are valid events under these settings", n, len(records), topic)
	switch {
	case n == 0 && len(reasons) > 0:
		level = Failed
	case n+skipped < len(records) || n == 0:
		level = Warning
	}
	if skipped > 0 {
		text += fmt.Sprintf("; %d are skipped because they are not row changes", skipped)
	}
	e.tell.say(level, "events", "", "%s", text)
	list := slices.SortedFunc(maps.Keys(reasons), func(a, b activity.Reason) int {
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), cmp.Compare(a, b))
	})
	for _, reason := range list[:min(len(list), maxReasons)] {
		e.tell.say(level, "events", "", "%d of them are invalid: %s - %s", reasons[reason], reason, why[reason])
	}
}

// read returns the newest records of a topic, in any order, and what kept it from reading them all. What was aborted is not among them.
func (e *exam) read(ctx context.Context, topic string, bounds map[int32]kafka.Bounds) (records []*kgo.Record, err error) {
	from := make(map[int32]kgo.Offset)
	each := int64(max(1, newestEvents/max(1, len(bounds))))
	for p, b := range bounds {
		if b.Start < b.Stable {
			from[p] = kgo.NewOffset().At(max(b.Start, b.Stable-each))
		}
	}
	if len(from) == 0 {
		return nil, nil
	}
	cl, err := kgo.NewClient(e.cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(e.cfg.Log)), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.WithContext(ctx))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for len(from) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return records, kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: topic})
		}
		fetches.EachRecord(func(r *kgo.Record) {
			b := bounds[r.Partition]
			if r.Offset < b.Stable && !r.Attrs.IsControl() {
				records = append(records, r)
			}
			if r.Offset >= b.Stable-1 {
				delete(from, r.Partition)
			}
		})
	}
	return records, nil
}
