package rules

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/embedded"
	"spate/services/simulator"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/rule"
	"spate/shared/rule/ruletest"
	"spate/tests/harness"
)

// TestGoldenRulesReplayed: the rules of the golden files, all that read an input at once, give Flink's rows through router, detector and
// alerter in one process.
func TestGoldenRulesReplayed(t *testing.T) {
	if testing.Short() {
		t.Skip("the engine alone is held against the same rows in shared/window")
	}
	harness.OnGolden(t, func(t *testing.T, g harness.Golden, partitions int32) {
		res, err := embedded.Replay(t.Context(), embedded.ReplayConfig{
			Rule: embedded.Rule{
				Events: format.Config{Fields: activity.DefaultFields()}, Rules: &revision.Source{Text: g.Script}, Lateness: ruletest.LatenessMS * time.Millisecond, Window: 10 * time.Second,
				Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Closed},
			},
			File: g.File, Key: "none", Partitions: partitions, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		g.Compare(t, res.Alerts)
	})
}

// TestGoldenRulesOnBrokers: the same, with a process for each service, which have the rules from the log, on an in-process broker and on a real Kafka.
func TestGoldenRulesOnBrokers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts brokers and services; -short is set")
	}
	harness.OnGolden(t, func(t *testing.T, g harness.Golden, partitions int32) {
		harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
			w := newWorld(t, brokers, partitions, ruletest.LatenessMS*time.Millisecond)
			sim := simulator.Default()
			sim.Kafka = kafka.Config{Brokers: kafka.ParseBrokers(brokers)}
			sim.File, sim.Key, sim.Topic, sim.Speed, sim.Exact, sim.Log = g.File, "none", w.names.Activity, 0, true, slog.New(slog.DiscardHandler)
			// The log is written before anyone reads it: a producer that pauses would have silent partitions, which Flink knows nothing of.
			if _, err := simulator.Run(t.Context(), sim); err != nil {
				t.Fatal(err)
			}
			// Windows close when event time passes their ends: that of silent partitions goes no faster than the clock.
			end := g.Last.Add(2 * rule.MaxWindowMS * time.Millisecond)
			cl := harness.Connect(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
			for p := range partitions {
				value := fmt.Appendf(nil, `{"user_id":0,"txn_timestamp":%q,"event_time":%[1]q}`, end.UTC().Format(time.RFC3339Nano))
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: w.names.Activity, Partition: p, Value: value}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			w.apply(g.Script)
			for _, service := range []string{"route", "detect", "alert"} {
				harness.Spate(t, service, w.env, service).Start()
			}
			before := g.Last.Add(rule.MaxWindowMS * time.Millisecond)
			w.stored(g.Rows, before)
			told, wrong := harness.AlertsOf(t, brokers, w.names)
			for _, text := range wrong {
				t.Error(text)
			}
			var alerts []alert.Record
			for _, a := range told {
				if a.WindowStart.Before(before) {
					alerts = append(alerts, a)
				}
			}
			g.Compare(t, alerts)
		})
	})
}
