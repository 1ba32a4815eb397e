package evidence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/alert"
	"spate/shared/kafka"
)

// newTopic starts a broker whose topic "activity" has three records in each of two partitions, and returns what reads all of them.
func newTopic(t *testing.T) (topic, *kfake.Cluster) {
	t.Helper()
	return newTopicOn(t, 1, 3)
}

// newTopicOn is newTopic with more brokers, which lead one partition each if there are two, and more records.
func newTopicOn(t *testing.T, brokers, each int) (topic, *kfake.Cluster) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(brokers), kfake.SeedTopics(2, "activity"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for p := range int32(2) {
		if err := cluster.MoveTopicPartition("activity", p, p%int32(brokers)); err != nil {
			t.Fatal(err)
		}
		for range each {
			cl.Produce(t.Context(), &kgo.Record{Topic: "activity", Partition: p, Value: []byte("x")}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := alert.OffsetRange{First: 0, Last: int64(each) - 1}
	return topic{kafka.Config{Brokers: cluster.ListenAddrs()}, alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": all, "1": all}}}, cluster
}

// TestTakeEndsReading: after an error no record is handed over, of no partition.
func TestTakeEndsReading(t *testing.T) {
	from, _ := newTopic(t)
	failed, taken := errors.New("registry away"), 0
	err := from.read(t.Context(), &Found{}, func(context.Context, Place, []byte, []kgo.RecordHeader) error {
		taken++
		return failed
	})
	if !errors.Is(err, failed) || taken != 1 {
		t.Errorf("%v after %d records", err, taken)
	}
}

// TestPartitionsWithoutEvents: the note says why, and the others are read.
func TestPartitionsWithoutEvents(t *testing.T) {
	from, cluster := newTopic(t)
	from.evidence.Partitions["7"] = alert.OffsetRange{}
	leaderless(t, cluster, 1)
	found, taken := &Found{}, 0
	if err := from.read(t.Context(), found, func(context.Context, Place, []byte, []kgo.RecordHeader) error {
		taken++
		return nil
	}); err != nil || taken != 3 || !strings.HasPrefix(found.Note, "partition 1 cannot be read: LEADER_NOT_AVAILABLE") || !strings.HasSuffix(found.Note, "; partition 7 does not exist") {
		t.Errorf("%v, %d records, %q", err, taken, found.Note)
	}
}

func TestTopicIsGone(t *testing.T) {
	from, _ := newTopic(t)
	from.evidence.Topic = "elsewhere"
	found := &Found{}
	if err := from.read(t.Context(), found, nil); err != nil || found.Events != nil || !strings.HasSuffix(found.Note, ": does not exist") {
		t.Errorf("%v, %q", err, found.Note)
	}
}

// leaderless takes the leader of a partition away.
func leaderless(t *testing.T, cluster *kfake.Cluster, partition int32) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	all := kmsg.NewPtrMetadataRequest()
	all.Topics = nil
	was, err := all.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range was.Topics[0].Partitions {
		if p.Partition == partition {
			was.Topics[0].Partitions[i].Leader, was.Topics[0].Partitions[i].ErrorCode = -1, kerr.LeaderNotAvailable.Code
		}
	}
	cluster.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := r.ResponseKind().(*kmsg.MetadataResponse)
		resp.Brokers, resp.Topics = was.Brokers, was.Topics
		return resp, nil, true
	})
}

// TestScan: several readers hand over each record once, those of a partition in their order, and none after an error.
func TestScan(t *testing.T) {
	const partitions, each = 3, 30_000
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "activity"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ev := alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"9": {Last: each}}}
	for p := range int32(partitions) {
		ev.Partitions[fmt.Sprint(p)] = alert.OffsetRange{First: 10, Last: each - 10}
		for range each {
			cl.Produce(t.Context(), &kgo.Record{Topic: "activity", Partition: p, Value: []byte("x")}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := map[int32]int64{0: 10, 1: 10, 2: 10}
	cfg := kafka.Config{Brokers: cluster.ListenAddrs()}
	note, err := Scan(t.Context(), ev, cfg, func(_ context.Context, at Place, _ []byte, _ []kgo.RecordHeader) error {
		if next[*at.Partition] != *at.Offset {
			t.Errorf("%v, want offset %d", at, next[*at.Partition])
		}
		next[*at.Partition]++
		return nil
	})
	if err != nil || note != "partition 9 does not exist" || next[0] != each-9 || next[1] != each-9 || next[2] != each-9 {
		t.Errorf("%v, %q, %v", next, note, err)
	}
	failed, taken := errors.New("enough"), 0
	if _, err := Scan(t.Context(), ev, cfg, func(context.Context, Place, []byte, []kgo.RecordHeader) error { taken++; return failed }); !errors.Is(err, failed) || taken != 1 {
		t.Errorf("%v after %d records", err, taken)
	}
}

// TestScanOneHangs: a broker that does not answer keeps nothing from being read of the others.
func TestScanOneHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds; -short is set")
	}
	const each = 30_000
	from, cluster := newTopicOn(t, 2, each)
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if cluster.CurrentNode() == 1 {
			cluster.SleepControl(func() { <-t.Context().Done() })
		}
		return nil, nil, false
	})
	taken := map[int32]int{}
	_, err := Scan(t.Context(), from.evidence, from.cfg, func(_ context.Context, at Place, _ []byte, _ []kgo.RecordHeader) error {
		if taken[*at.Partition]++; taken[*at.Partition]%1000 == 0 {
			time.Sleep(reachTime / 10)
		}
		return nil
	})
	if err == nil || taken[0] != each || taken[1] != 0 {
		t.Errorf("%v, %v", taken, err)
	}
}
