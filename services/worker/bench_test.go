package worker

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/activity"
	"spate/shared/aws/horizon"
	"spate/shared/format"
	"spate/shared/window"
)

// BenchmarkRecord is what an event costs the worker, without the network: from its record to the count, and the close of its window.
func BenchmarkRecord(b *testing.B) {
	for _, dedupe := range []bool{false, true} {
		b.Run(fmt.Sprintf("dedupe=%t", dedupe), func(b *testing.B) {
			cfg := Config{Events: format.Config{Fields: activity.DefaultFields()}, Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5, Critical: 10, Log: slog.New(slog.DiscardHandler), Now: time.Now}
			if dedupe {
				cfg.Events.ID = "event_id"
			}
			s := &session{cfg: cfg, metrics: newMetrics(prometheus.NewRegistry()), progress: progress{st: state{Horizon: horizon.Horizon{Closed: window.NoTime}}}}
			s.shards, s.output = newShards(&s.cfg), newOutput(&s.cfg, nil)
			initial, err := cfg.initial()
			if err != nil {
				b.Fatal(err)
			}
			s.follow(initial)
			if err := s.adopt(s.rules.Own); err != nil {
				b.Fatal(err)
			}
			sh := s.add("shardId-000000000000", place{MaxTS: window.NoTime}, window.NoTime)
			s.snap()
			// 20,000 events a second of event time, 100,000 users; as the data set has them.
			rng := rand.New(rand.NewPCG(1, 1))
			const perSecond, batch = 20_000, 1000
			event := activity.Event{EventType: "view", ProductID: "5848908", CategoryID: "1487580007675986944", Brand: "bpw.style", Price: "1.9",
				UserSession: "49e8d843-adf3-428b-a2c3-fe8bc6a307c9", EventTime: "2019-10-01 00:01:02 UTC"}
			records := make([][]byte, 100_000)
			begin := int64(1_700_000_000_000)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i % len(records)
				if at == 0 {
					b.StopTimer()
					for j := range records {
						event.UserID = strconv.Itoa(500_000_000 + rng.IntN(100_000))
						event.EventID = strconv.Itoa(i + j)
						event.TxnTimestamp = string(activity.AppendTime(nil, begin+int64(i+j)*1000/perSecond))
						records[j] = event.AppendJSON(nil)
					}
					b.StartTimer()
				}
				if err := s.record(b.Context(), sh, fmt.Sprintf("4968056638819337487260325470052437423%019d", i), records[at], time.UnixMilli(begin)); err != nil {
					b.Fatal(err)
				}
				if i%batch == batch-1 {
					if _, err := s.apply(nil); err != nil {
						b.Fatal(err)
					}
					if to := s.watermark(&s.engine); s.stream.Crosses(s.st.Closed, to) {
						if _, err := s.apply([]window.Watermark{{WatermarkMS: to}}); err != nil {
							b.Fatal(err)
						}
						s.st.Closed = to
						s.forget()
					}
				}
			}
		})
	}
}
