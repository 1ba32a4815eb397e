package kafka

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Holders tells for partitions in which a transaction is open whose it is. It needs the right to read the topic; the transactional id, the one to
// describe it.
func Holders(ctx context.Context, adm *kadm.Client, topic string, parts []int32) (map[int32]string, error) {
	set := kadm.TopicsSet{}
	set.Add(topic, parts...)
	described, err := adm.DescribeProducers(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("describe the producers of %s: %w", topic, err)
	}
	first := make(map[int32]kadm.DescribedProducer)
	var ids []int64
	described.EachProducer(func(p kadm.DescribedProducer) {
		if old, ok := first[p.Partition]; p.CurrentTxnStartOffset >= 0 && (!ok || p.CurrentTxnStartOffset < old.CurrentTxnStartOffset) {
			first[p.Partition] = p
			ids = append(ids, p.ProducerID)
		}
	})
	names := make(map[int64]string)
	if len(ids) > 0 {
		if listed, err := adm.ListTransactions(ctx, slices.Compact(slices.Sorted(slices.Values(ids))), nil); err == nil {
			for name, t := range listed {
				names[t.ProducerID] = name
			}
		}
	}
	out := make(map[int32]string)
	for p, d := range first {
		who := fmt.Sprintf("producer %d", d.ProducerID)
		if name := names[d.ProducerID]; name != "" {
			who += fmt.Sprintf(" (transactional id %q)", name)
		}
		out[p] = fmt.Sprintf("%s (last write at %s)", who, time.UnixMilli(d.LastTimestamp).UTC().Format(time.RFC3339))
	}
	return out, nil
}
