package chaos

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/revision/topic"
	sqlrule "spate/shared/rule"
	"spate/shared/window"
	"spate/tests/harness"
)

// rulesText are five rules of different kinds. The first is the one that the accounts of events are about: a window of any other rule ends no earlier than
// its own for the same event, so an event is late if it is late for it. Three open early and two wait for the end.
const rulesText = `-- rule: burst
-- critical: COUNT(*) > 6
INSERT INTO alerts SELECT user_id, COUNT(*) AS num_actions_per_watermark FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '5' SECOND), user_id HAVING COUNT(*) > 3;
-- rule: products
INSERT INTO alerts SELECT user_id, COUNT(DISTINCT product_id) AS products FROM activity WHERE event_type = 'view'
GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '20' SECOND), user_id HAVING COUNT(DISTINCT product_id) > 8;
-- rule: brands
INSERT INTO alerts SELECT brand, COUNT(*) AS n, MIN(product_id) AS low FROM TABLE(CUMULATE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '5' SECOND, INTERVAL '20' SECOND))
WHERE event_type = 'cart' GROUP BY brand, window_start, window_end HAVING COUNT(*) > 12;
-- rule: browsers
INSERT INTO alerts SELECT user_session, COUNT(*) AS n, MAX(price) AS high FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_session
HAVING COUNT(*) > 5 AND COUNT(*) FILTER (WHERE event_type = 'purchase') = 0;
-- rule: total
INSERT INTO alerts SELECT COUNT(*) AS n, COUNT(DISTINCT brand) AS brands, SUM(product_id) AS total FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '15' SECOND)
HAVING MIN(product_id) > 0;
`

// apply makes the rules those of the pipeline, before anything is counted.
func (w *world) apply() {
	w.t.Helper()
	initial, err := sqlrule.Burst(rule.Window, rule.Threshold, 2*rule.Threshold)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := kafka.Config{Brokers: []string{w.proxy.Addr}}
	rec := revision.Record{Source: revision.Source{Text: rulesText}, Beginning: true, LatenessMS: rule.Lateness.Milliseconds(), MaxAheadMS: time.Minute.Milliseconds()}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if _, err := topic.NewReader(cfg, kadm.NewClient(w.client), w.names, initial).Append(ctx, rec); err != nil {
		w.t.Fatal(err)
	}
}

// floor is a watermark that a source partition had from an offset on.
type floor struct{ next, watermark int64 }

// floors are the watermarks of the source partitions as the keyed log has them. What was promised for a silent partition is nowhere else; whether it was
// rightly promised is found out by [world.reference].
func (w *world) floors() map[int32][]floor {
	out := map[int32][]floor{}
	harness.ReadAll(w.t, w.proxy.Addr, w.names.Keyed, func(r *kgo.Record) {
		var h window.Header
		if r.Partition != 0 || window.ParseHeader(r.Value, &h) != nil {
			return
		}
		for _, p := range h.Progress {
			if i := slices.IndexFunc(h.Watermarks, func(m window.Watermark) bool { return m.Partition == p.Partition }); i >= 0 {
				out[p.Partition] = append(out[p.Partition], floor{p.Next, h.Watermarks[i].WatermarkMS})
			}
		}
	})
	return out
}

// otherRules is what SQLite finds in the log by all rules but the first.
func (w *world) otherRules() verifier.RulesReport {
	w.t.Helper()
	floors := w.floors()
	dead := map[place]bool{}
	harness.ReadAll(w.t, w.proxy.Addr, w.names.DLQ, func(r *kgo.Record) {
		var at place
		for _, h := range r.Headers {
			switch h.Key {
			case "spate-source-partition":
				at.partition = string(h.Value)
			case "spate-source-offset":
				at.offset = string(h.Value)
			}
		}
		dead[at] = true
	})
	fields := verifier.Rule{User: []string{"user_id"}, Time: []string{"txn_timestamp", "event_time"}}
	passed := map[int32]int{}
	report, err := verifier.Rules(w.t.Context(), rulesText, verifier.RulesOptions{Lateness: rule.Lateness, MaxAhead: time.Minute}, func(yield func(verifier.Event, error) bool) {
		harness.ReadAll(w.t, w.proxy.Addr, w.names.Activity, func(r *kgo.Record) {
			if dead[placeOf(r)] {
				return
			}
			e := fields.Event(r.Partition, r.Value, r.Timestamp)
			list, i := floors[r.Partition], passed[r.Partition]
			for i < len(list) && list[i].next <= r.Offset {
				i++
			}
			if passed[r.Partition] = i; i > 0 {
				e.Promised = list[i-1].watermark
			}
			yield(e, nil)
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	report.Rules = slices.DeleteFunc(report.Rules, func(r verifier.RuleResult) bool { return r.Rule == alert.Burst })
	return report
}

// split separates the alerts of the first rule from those of the others.
func split(all []alert.Record) (burst, others []alert.Record) {
	for _, a := range all {
		if a.Rule == alert.Burst {
			burst = append(burst, a)
		} else {
			others = append(others, a)
		}
	}
	return burst, others
}
