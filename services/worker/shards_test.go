package worker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// TestMergeOfShardsUnseen: while no worker runs, a shard is split and one of its halves merged with another shard. The child of both begins
// when both are read to their ends, also the one that no worker has heard of; so it is judged by the one that is furthest behind.
func TestMergeOfShardsUnseen(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	r.put(burst(1, 1, 1000, 0)...)
	r.put(burst(1, 1, 1000, 0.9)...)
	r.drain(cfg)
	r.split(0.75)
	r.put(burst(3, 2, 30_000, 0)...)   // the shard that was there
	r.put(burst(3, 3, 9000, 0.6)...)   // the half that will be merged with it
	r.put(burst(3, 4, 10_000, 0.9)...) // the other half
	first, second := *r.open()[0].ShardId, "shardId-000000000001"
	r.merge(0)
	r.put(burst(3, 5, 12_000, 0.1)...) // their child
	r.put(burst(3, 6, 12_000, 0.6)...)

	ended := newGate() // of the first
	f := r.faults(&cfg)
	f.afterRead = func(shard string, out *kinesis.GetRecordsOutput) {
		if shard == first && out.NextShardIterator == nil {
			ended.open()
		}
	}
	f.beforeRead = func(ctx context.Context, shard string) error {
		if shard == second { // the one that was split is read last
			return ended.wait(ctx)
		}
		return nil
	}
	r.drain(cfg)
	r.check(cfg)
}

// TestEndedShardIsDoneWith: a shard that was split is read again up to its cut, and all its windows close before it is found to be closed.
func TestEndedShardIsDoneWith(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.config()
	r.put(burst(3, 1, 1000, 0)...)
	r.split(0.5)
	r.put(row{at: 2000, user: 2, hash: 0}, row{at: 2000, user: 2, hash: 0.9})
	stop := r.start(cfg)
	parent := "shardId-000000000000"
	r.in(5)
	stop()
	if st, _ := r.state(); !st.Shards[parent].Ended || st.Shards[parent].Cut == "" {
		t.Fatalf("the parent is %+v, the test needs it ended, with a cut", st.Shards[parent])
	}

	again, goOn := newGate(), newGate()
	reads := 0
	f := r.faults(&cfg)
	f.beforeRead = func(ctx context.Context, shard string) error {
		if shard != parent {
			return nil
		}
		if reads++; reads > 1 {
			again.open()
			return goOn.wait(ctx)
		}
		return nil
	}
	stop = r.start(cfg)
	if err := again.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.put(burst(3, 2, 20_000, 0)...)
	r.put(burst(3, 2, 20_000, 0.9)...)
	r.eventually("its windows are closed", func() bool { return r.closed()["1@0"] > 0 })
	goOn.open()
	r.put(burst(3, 3, 40_000, 0)...)
	r.put(burst(3, 3, 40_000, 0.9)...)
	r.eventually("the worker goes on", func() bool { return r.closed()["2@20000"] > 0 })
	stop()
	if st, _ := r.state(); st.Shards[parent].Ended {
		t.Errorf("the parent is kept: %+v", st.Shards[parent])
	}
	r.drain(cfg)
	r.check(cfg)
}

// TestFromATime: what arrived before is left out, now and by those who go on.
func TestFromATime(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	r.put(burst(5, 1, 1000, 0)...)
	r.put(burst(5, 2, 1000, 0.9)...)
	var last time.Time
	r.eventually("the clock goes on after the last record", func() bool { // records carry milliseconds
		last = time.Now()
		return time.Since(last.Truncate(time.Second)) > 0 && r.arrivedBefore(last)
	})
	cfg.From = last
	r.put(burst(3, 1, 1500, 0)...)
	r.put(burst(4, 2, 1500, 0.9)...)
	r.crashed(cfg, 3, true) // begun, and gone
	r.expire()
	cfg.From = time.Time{} // of the first worker only
	r.drain(cfg)
	compare(t, r.closed(), counted{"1@0": 3, "2@0": 4})
	if st, _ := r.state(); st.Tally.In != 7 {
		t.Errorf("accounted %+v, want 7", st.Tally)
	}
}

// TestDeletedBeforeRead: the place where a worker goes on is not there any more. It says so, counts it once, and goes on.
func TestDeletedBeforeRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	r.put(burst(2, 1, 1000, 0)...)
	r.put(burst(2, 2, 1000, 0.9)...)
	r.drain(cfg)
	// One shard is asked for its record and says that there is none; of the other, it is found missing.
	f := r.faults(&cfg)
	ids := [2]string{*r.open()[0].ShardId, *r.open()[1].ShardId}
	f.beforeOpen = func(in *kinesis.GetShardIteratorInput) error {
		if *in.ShardId == ids[0] && in.StartingSequenceNumber != nil {
			return failure("InvalidArgumentException")
		}
		return nil
	}
	var first bool
	f.afterRead = func(shard string, out *kinesis.GetRecordsOutput) {
		if shard == ids[1] && !first && len(out.Records) > 0 {
			first, out.Records = true, out.Records[1:]
		}
	}
	r.put(burst(3, 3, 6000, 0)...)
	r.put(burst(3, 4, 6000, 0.9)...)
	r.drain(cfg)
	if got := r.closed(); got["3@4000"] != 3 || got["4@4000"] != 3 {
		t.Errorf("alerts %v: those after the loss are not there", got)
	}
	if st, _ := r.state(); st.Tally.Lost != 2 {
		t.Errorf("accounted %+v, want 2 losses", st.Tally)
	}
	if !r.log.has("level=ERROR msg=\"records were deleted before they were read") {
		t.Error("the log has no error")
	}
}

// TestDeletedBeforeReplay: the same, for a shard that has nothing to read again while another one has; it is counted once all the same.
func TestDeletedBeforeReplay(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	r.put(row{at: 1000, hash: 0}, row{at: 1000, hash: 0.9})
	r.drain(cfg)
	r.put(burst(3, 1, 5000, 0)...)
	stop := r.start(cfg)
	r.in(5)
	stop()
	id := *r.open()[1].ShardId
	f := r.faults(&cfg)
	f.beforeOpen = func(in *kinesis.GetShardIteratorInput) error {
		if *in.ShardId == id && in.StartingSequenceNumber != nil {
			return failure("InvalidArgumentException")
		}
		return nil
	}
	if st, _ := r.state(); st.Shards[id].Cut != "" || st.Shards[id].After == "" {
		t.Fatalf("the shard is at %+v, the test needs it behind a record, without a cut", st.Shards[id])
	}
	stop = r.start(cfg)
	r.eventually("it is told", func() bool { return r.log.has("deleted before they were read") })
	r.put(row{at: 5000, user: 1, hash: 0})
	r.eventually("the worker goes on", func() bool { st, _ := r.state(); return st.Tally.Lost > 0 })
	stop()
	if st, _ := r.state(); st.Tally.Lost != 1 {
		t.Errorf("accounted %+v, want one loss", st.Tally)
	}
}

// arrivedBefore reports whether all records are older than a time.
func (r *rig) arrivedBefore(at time.Time) bool {
	for _, s := range r.open() {
		it, err := r.kinesis.GetShardIterator(r.t.Context(), &kinesis.GetShardIteratorInput{StreamName: aws.String(r.events), ShardId: s.ShardId, ShardIteratorType: "TRIM_HORIZON"})
		if err != nil {
			r.t.Fatal(err)
		}
		out, err := r.kinesis.GetRecords(r.t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, rec := range out.Records {
			if !rec.ApproximateArrivalTimestamp.Before(at.Add(-2 * time.Millisecond)) {
				return false
			}
		}
	}
	return true
}

// TestTooManyOpenWindows: with too many open windows only the slowest shard is read. The worker says so, and is exact in the end.
func TestTooManyOpenWindows(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	cfg.MaxOpenWindows = 8
	for i := range 60 {
		at := int64(i) * 1000
		for user := range 3 {
			r.put(row{at: at, user: user, hash: 0}, row{at: at, user: user, hash: 0.9})
		}
	}
	slow := *r.open()[0].ShardId
	full := newGate()
	reads := 0
	f := r.faults(&cfg)
	f.limit = 3
	f.beforeRead = func(ctx context.Context, shard string) error {
		if shard == slow { // it is read once, and then not before the other one has opened too many
			if reads++; reads > 1 {
				return full.wait(ctx)
			}
		}
		return nil
	}
	stop := r.start(cfg)
	r.eventually("the worker says that too many windows are open", func() bool {
		ready, why := cfg.Status.Get()
		return !ready && strings.Contains(why, "windows are open")
	})
	full.open()
	r.eventually("all is read", func() bool { st, _ := r.state(); return st.Tally.In == 360 })
	stop()
	r.drain(cfg)
	r.check(cfg)
}
