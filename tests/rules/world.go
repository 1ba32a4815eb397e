// Package rules tests rules on pipelines of several processes: the rules of the golden files against Flink's rows, and rules that change under load
// against what SQLite finds in the log.
package rules

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/revision/topic"
	"spate/shared/rule"
	"spate/shared/rule/ruletest"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/tests/harness"
)

const maxAhead = 2 * time.Second

// world is a pipeline of several processes.
type world struct {
	t        *testing.T
	brokers  string
	names    kafka.Names
	lateness time.Duration
	db       string
	env      []string
	rules    *topic.Reader
}

func newWorld(t *testing.T, brokers string, partitions int32, lateness time.Duration) *world {
	t.Helper()
	w := &world{t: t, brokers: brokers, names: kafka.NamesFor(harness.UniqueTopic(t)), lateness: lateness, db: filepath.Join(t.TempDir(), "alerts.db")}
	w.env = []string{
		"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + w.names.Activity, "SPATE_PARTITIONS=" + strconv.Itoa(int(partitions)), "SPATE_DATABASE_URL=" + w.db,
		"SPATE_LATENESS=" + lateness.String(), "SPATE_MAX_AHEAD=" + maxAhead.String(), "SPATE_IDLE_TIMEOUT=3s",
	}
	cl := harness.Connect(t, brokers)
	harness.MakeTopics(t, cl, kafka.Layout{Names: w.names, Partitions: partitions})
	initial, err := rule.Burst(10*time.Second, 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	w.rules = topic.NewReader(kafka.Config{Brokers: kafka.ParseBrokers(brokers)}, kadm.NewClient(cl), w.names, initial)
	return w
}

// apply makes a rules file the next revision.
func (w *world) apply(text string) revision.Entry {
	w.t.Helper()
	if _, err := w.rules.Look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	e, err := w.rules.Append(w.t.Context(), revision.Record{Source: revision.Source{Text: text}, Beginning: w.rules.Revision() == 0, LatenessMS: w.lateness.Milliseconds(), MaxAheadMS: maxAhead.Milliseconds()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("%s revision %d is in force from %s on", time.Now().UTC().Format("15:04:05.000"), e.Revision, e.Boundary())
	return e
}

// expected is what a revision must find in the windows that begin while it is in force.
type expected struct {
	from, until int64
	report      verifier.RulesReport
}

// reference evaluates each revision over the whole log, and leaves the windows of the others out.
func (w *world) reference() (out []expected, rows int64) {
	w.t.Helper()
	var events []event
	harness.ReadAll(w.t, w.brokers, w.names.Activity, func(r *kgo.Record) {
		events = append(events, event{r.Partition, slices.Clone(r.Value), r.Timestamp})
	})
	entries := w.rules.Entries()
	for i, e := range entries {
		x := expected{from: e.BoundaryMS, until: 1 << 62}
		for _, later := range entries[i+1:] {
			x.until = min(x.until, later.BoundaryMS)
		}
		if len(events) < many {
			x.report = w.bySQLite(e.Text, events)
		} else {
			x.report = w.naively(e.Text, events, x.from, x.until)
		}
		for k := range x.report.Rules {
			r := &x.report.Rules[k]
			r.Rows = slices.DeleteFunc(r.Rows, func(row verifier.RuleRow) bool { return row.Start < x.from || row.Start >= x.until })
			rows += int64(len(r.Rows))
			w.t.Logf("revision %d: rule %s has %d alerts", e.Revision, r.Rule, len(r.Rows))
		}
		out = append(out, x)
	}
	w.t.Logf("%d events", len(events))
	return out, rows
}

// many is from how many events on SQLite would take minutes. That it agrees with what evaluates them naively is tested elsewhere.
const many = 500_000

// event is a record of the log.
type event struct {
	partition int32
	value     []byte
	at        time.Time
}

func (w *world) bySQLite(text string, events []event) verifier.RulesReport {
	fields := verifier.Rule{User: []string{"user_id"}, Time: []string{"txn_timestamp", "event_time"}}
	report, err := verifier.Rules(w.t.Context(), text, verifier.RulesOptions{Lateness: w.lateness, MaxAhead: maxAhead}, func(yield func(verifier.Event, error) bool) {
		for _, e := range events {
			if !yield(fields.Event(e.partition, e.value, e.at), nil) {
				return
			}
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// naively evaluates a revision without the engine, in windows that begin within bounds.
func (w *world) naively(text string, events []event, from, until int64) (report verifier.RulesReport) {
	set, errs := rule.Compile(text, rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		w.t.Fatal(errs)
	}
	var read []ruletest.Event
	ahead := 0
	for _, e := range events {
		if row, ok := w.values(set.Inputs, e.value); ok {
			row.Partition, row.AppendedMS = e.partition, e.at.UnixMilli()
			if row.MS > row.AppendedMS {
				ahead++
			}
			if row.MS <= row.AppendedMS+maxAhead.Milliseconds() { // others are invalid
				read = append(read, row)
			}
		}
	}
	w.t.Logf("%d events are ahead of the time at which the log took them", ahead)
	plan := set.Plan()
	for i, r := range plan.Rules {
		r.Window.From, r.Window.Until = from, until
		result := verifier.RuleResult{Rule: r.Name}
		for _, c := range r.Columns {
			result.Columns = append(result.Columns, c.Name)
		}
		for _, l := range ruletest.Naive(w.t, plan, i, w.lateness.Milliseconds(), read) {
			row := verifier.RuleRow{Start: l.Start, End: l.End, Critical: l.Critical}
			var values map[string]json.RawMessage
			if err := json.Unmarshal([]byte(l.Line), &values); err != nil {
				w.t.Fatal(err)
			}
			for _, name := range result.Columns {
				row.Values = append(row.Values, values[name])
			}
			result.Rows = append(result.Rows, row)
		}
		report.Rules = append(report.Rules, result)
	}
	return report
}

// values are what rules read of an event of the simulator; ok is false if it is none.
func (w *world) values(inputs []rule.Input, event []byte) (row ruletest.Event, ok bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(event, &fields) != nil {
		return row, false
	}
	ms, ok := rule.ParseTime(fields["txn_timestamp"])
	if row.MS = ms.Int(); !ok {
		return row, false
	}
	row.Values = make([]rule.Value, len(inputs))
	for i, in := range inputs {
		token := fields[in.Name()]
		switch {
		case in.Time:
			row.Values[i] = ms
		case len(token) == 0 || string(token) == "null":
		case in.Type.Kind == rule.Token:
			row.Values[i] = rule.TokenValue(token)
		default:
			row.Values[i], _ = rule.FromJSON(in.Type, token, nil)
		}
	}
	return row, true
}

// stored waits for so many alerts whose windows begin before a time to be closed and stored, and for none of them to be open.
func (w *world) stored(want int64, before time.Time) {
	w.t.Helper()
	st, err := sqlite.Open(w.t.Context(), w.db)
	if err != nil {
		w.t.Fatal(err)
	}
	defer st.Close()
	var open, closed int64
	if !harness.Within(2*time.Minute, func() bool {
		open, closed = 0, 0
		for a, err := range st.Alerts(w.t.Context(), store.Filter{Until: before}) {
			switch {
			case err != nil:
				return false
			case a.State == alert.Closed:
				closed++
			default:
				open++
			}
		}
		return open == 0 && closed >= want
	}) {
		w.t.Errorf("%d alerts are closed and stored, and %d are open; want %d", closed, open, want)
	}
}

// compare waits for all alerts to be closed and stored, and compares them with the reference.
func (w *world) compare() {
	w.t.Helper()
	want, rows := w.reference()
	w.stored(rows, time.Now().Add(time.Hour))
	told, wrong := harness.AlertsOf(w.t, w.brokers, w.names)
	for _, text := range wrong {
		w.t.Error(text)
	}
	if int64(len(told)) != rows {
		w.t.Errorf("%d alerts, want %d", len(told), rows)
	}
	for i, x := range want {
		var got []alert.Record
		for _, a := range told {
			if start := a.WindowStart.UnixMilli(); start >= x.from && start < x.until {
				got = append(got, a)
			}
		}
		for _, d := range verifier.CompareRules(x.report, got) {
			if !d.Exact() {
				w.t.Errorf("revision %d: %+v", i+1, d)
			}
		}
	}
}

// number returns the number that a setting of the test has.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}
