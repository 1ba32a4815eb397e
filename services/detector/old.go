package detector

import (
	"log/slog"
	"sync"
)

// oldBatches are batches of the keyed log that an older version of spate wrote and this one cannot read. There may be many: they are reported together.
type oldBatches struct {
	mu        sync.Mutex
	n         int64
	partition int32 // where the first of them is
	offset    int64
}

func (o *oldBatches) add(partition int32, offset int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n++; o.n == 1 {
		o.partition, o.offset = partition, offset
	}
}

// report logs those that were found since the last report.
func (o *oldBatches) report(log *slog.Logger) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == 0 {
		return
	}
	log.Error("skipping batches in the keyed log that an older version of spate wrote and this one cannot read: alerts for their windows may be missing or have counts that are too low; "+
		"to count these events, drain the log with the version that wrote the batches, or delete the log together with both consumer groups, so that events are counted again",
		"batches", o.n, "partition", o.partition, "offset", o.offset)
	o.n = 0
}
