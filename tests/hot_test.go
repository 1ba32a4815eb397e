package tests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/tests/harness"
)

// TestHotAccount: an account that sends half of all events must not cost more than as many events of many accounts. What is compared
// is processor time per event of router and detector, the smaller of two runs each, on a backlog of a million events.
func TestHotAccount(t *testing.T) {
	if testing.Short() {
		t.Skip("sends four million events")
	}
	harness.OnBrokers(t, func(t *testing.T, brokers string) {
		best := map[float64]float64{}
		for range 2 {
			for _, share := range []float64{0, 0.5} {
				cpu := backlogCost(t, brokers, 1_000_000, share)
				t.Logf("hot account %2.0f %%: %.2f µs of processor time per event", share*100, cpu)
				if was, ok := best[share]; !ok || cpu < was {
					best[share] = cpu
				}
			}
		}
		t.Logf("ratio %.2f", best[0.5]/best[0])
		if best[0.5] > 1.10*best[0] {
			t.Errorf("%.2f µs with a hot account, %.2f without", best[0.5], best[0])
		}
	})
}

// backlogCost returns the microseconds of processor time per event that router and detector need for a backlog.
func backlogCost(t *testing.T, brokers string, n int, share float64) float64 {
	t.Helper()
	names := kafka.NamesFor(harness.UniqueTopic(t))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cl := harness.Connect(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(50_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	adm := kadm.NewClient(cl)
	if _, err := (kafka.Layout{Names: names, Partitions: 4}).Ensure(ctx, adm); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := adm.DeleteTopics(context.Background(), names.Activity, names.Keyed, names.Late, names.DLQ, names.Alerts, names.Table()); err != nil {
			t.Logf("delete topics: %v", err)
		}
	}()
	rng := rand.New(rand.NewPCG(1, 2))
	base := time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		user := 520_000_000 + rng.IntN(100_000)
		if rng.Float64() < share {
			user = 999_999_999
		}
		ts := base.Add(time.Duration(i) * 50 * time.Microsecond).Format("2006-01-02T15:04:05.000Z")
		v := fmt.Appendf(nil, `{"event_time":"2019-11-01 00:00:00 UTC","event_type":"view","product_id":1003461,"category_id":2053013555631882655,"category_code":"electronics.smartphone","brand":"xiaomi","price":489.07,"user_id":%d,"user_session":"4d3b30da-a5e4-49df-b1a8-ba5943f1dd33","txn_timestamp":"%s"}`, user, ts)
		cl.Produce(ctx, &kgo.Record{Topic: names.Activity, Partition: int32(i % 4), Value: v}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_IDLE_TIMEOUT=0"}
	route := harness.Spate(t, "router", env, "route").Start()
	detect := harness.Spate(t, "detector", env, "detect").Start()
	// The detector has read everything when it has committed a position at the end of the keyed log that stays.
	harness.Eventually(t, 100*time.Second, "the backlog is done", func() bool {
		routed, err := adm.FetchOffsets(ctx, names.RouterGroup)
		if err != nil {
			return false
		}
		var done int64
		routed.Each(func(o kadm.OffsetResponse) { done += o.At })
		if done < int64(n) {
			return false
		}
		var behind int64
		ends, err := adm.ListCommittedOffsets(ctx, names.Keyed)
		if err != nil {
			return false
		}
		told, err := adm.FetchOffsets(ctx, names.DetectorGroup)
		if err != nil {
			return false
		}
		ends.Each(func(e kadm.ListedOffset) {
			o, ok := told.Lookup(names.Keyed, e.Partition)
			pos, perr := harness.ParsePosition(o)
			if !ok || perr != nil {
				behind++
				return
			}
			behind += max(0, e.Offset-1-pos) // the last offset is the transaction's marker
		})
		return behind == 0
	})
	cpu := route.ProcessorTime() + detect.ProcessorTime()
	for _, p := range []*harness.Process{route, detect} {
		if err := p.Stop(10 * time.Second); err != nil {
			t.Error(err)
		}
	}
	return float64(cpu.Microseconds()) / float64(n)
}
