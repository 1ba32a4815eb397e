package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/simulator"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/store"
)

// ReplayConfig says what to replay.
type ReplayConfig struct {
	Rule
	// File is a CSV file as the simulator takes it.
	File string
	// Key is the field that the events are keyed by: category_id, user_id or none.
	Key        string
	Partitions int32 // 0 is the default
	// Kafka is one to replay through, with topics of its own that are deleted afterwards; without brokers it is the embedded one.
	Kafka    kafka.Config
	Progress io.Writer // may be nil
	// NullValues are words that stand for no user in a CSV file; nil is simulator.NullWords.
	NullValues []string
	// OnSent is called for every event that the broker took, in the order of its partition. It may be nil.
	OnSent func(partition int32, value []byte, at time.Time)
	Log    *slog.Logger
}

// Validate reports every problem at once; it does no I/O.
func (c ReplayConfig) Validate() error {
	return Config{Rule: c.Rule, Partitions: c.Partitions}.Validate()
}

// ReplayResult is what a replay found.
type ReplayResult struct {
	EventsIn int64 `json:"events_in"`
	Counted  int64 `json:"counted"`
	Late     int64 `json:"late"`
	Invalid  int64 `json:"invalid"`
	Repeated int64 `json:"repeated"` // among those counted: their id was counted before
	// InvalidWhy says what is wrong with the first row that is not an event.
	InvalidWhy string `json:"invalid_why,omitempty"`
	// WithoutID are those counted that have no id, if ids are looked for.
	WithoutID int64   `json:"without_id,omitempty"`
	Opened    int64   `json:"opened"`
	Closed    int64   `json:"closed"`
	ElapsedS  float64 `json:"elapsed_s"`
	// Skipped are lines of the file that are not rows, the last one if it is cut among them. They never were events.
	Skipped int64 `json:"skipped"`

	// Alerts are the closed ones, by rule, window and key.
	Alerts []alert.Record `json:"-"`
}

// Replay runs a file through the whole pipeline as fast as it can, to the end of every window. Nothing in it depends on the clock: there
// is not idleness; but events of the future are invalid, as everywhere (MaxAhead).
func Replay(ctx context.Context, cfg ReplayConfig) (ReplayResult, error) {
	if err := cfg.Validate(); err != nil {
		return ReplayResult{}, err
	}
	began := time.Now()
	dir, err := os.MkdirTemp("", "spate-replay-")
	if err != nil {
		return ReplayResult{}, fmt.Errorf("replay: %w", err)
	}
	defer os.RemoveAll(dir)
	cfg.IdleTimeout = 0
	topic := kafka.DefaultTopic
	if len(cfg.Kafka.Brokers) > 0 {
		topic = "spate-replay-" + strings.ToLower(rand.Text()[:12])
	}
	s, err := start(ctx, Config{Rule: cfg.Rule, State: dir, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", Kafka: cfg.Kafka, Partitions: cfg.Partitions, Topic: topic, Drains: true, Log: cfg.Log})
	if err != nil {
		return ReplayResult{}, fmt.Errorf("replay: %w", err)
	}
	defer s.stop()
	if len(cfg.Kafka.Brokers) > 0 {
		defer s.deleteTopics()
	}
	sim := simulator.Default()
	sim.File, sim.Key, sim.Topic, sim.Speed = cfg.File, cfg.Key, topic, 0
	sim.UserField, sim.TimeField, sim.TimeFormat = cfg.Events.Fields.User, cfg.Events.Fields.Time, string(cfg.Events.Fields.TimeFormat)
	sim.Whole, sim.Exact = cfg.Events.ID != "", cfg.Rules != nil
	if cfg.Rules != nil {
		sim.Literal = literal(cfg.Rules)
	}
	if cfg.NullValues != nil {
		sim.NullValues = cfg.NullValues
	}
	if cfg.OnSent != nil {
		sim.OnSent = func(r simulator.Row, partition int32, _ int64) { cfg.OnSent(partition, r.AppendJSON(nil), time.Now()) }
	}
	sim.Kafka, sim.Log, sim.Progress = s.kafka, cfg.Log, cfg.Progress
	sent, err := simulator.Run(ctx, sim)
	if err == nil && sent.Interrupted {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = s.drained(ctx)
	}
	if err != nil {
		return ReplayResult{}, fmt.Errorf("replay: %w", err)
	}
	if sent.Backwards {
		return s.result(), fmt.Errorf("replay %s: the file is sorted from newest to oldest, so nearly all of its events would be late; sort it by time", cfg.File)
	}
	res := s.result()
	res.Skipped, res.InvalidWhy = sent.Skipped+sent.Cut, sent.Why
	if cfg.Events.ID != "" {
		res.WithoutID = res.Counted - s.routed.Identified.Load()
	}
	if res.EventsIn != sent.Sent {
		return res, fmt.Errorf("replay: %d events were sent, but only %d are accounted for", sent.Sent, res.EventsIn)
	}
	if res.Counted+res.Late == 0 {
		return res, nothingRead(cfg, res)
	}
	if res.Alerts, err = s.closed(ctx); err != nil {
		return res, fmt.Errorf("replay: %w", err)
	}
	res.ElapsedS = math.Round(time.Since(began).Seconds()*1000) / 1000
	return res, nil
}

// ErrNothingRead means that nothing in a file could be read as an event: it is another kind of file, or its fields have other names.
var ErrNothingRead = errors.New("no line could be read as an event")

// nothingRead reads a file again and says why most of its lines are not events.
func nothingRead(cfg ReplayConfig, res ReplayResult) error {
	var wrong []string
	if res.Skipped > 0 {
		wrong = append(wrong, number(res.Skipped, "line is", "lines are")+" malformed")
	}
	if res.Invalid > 0 {
		wrong = append(wrong, number(res.Invalid, "event is", "events are")+" invalid")
	}
	err := fmt.Errorf("replay %s: %w: %s", cfg.File, ErrNothingRead, strings.Join(wrong, ", "))
	in, oerr := simulator.OpenCSV(cfg.File)
	if oerr != nil { // such as standard input, which is gone
		return err
	}
	defer in.Close()
	if res.Invalid+res.Skipped == 0 {
		return fmt.Errorf("replay %s: %w: the file has no rows", cfg.File, ErrNothingRead)
	}
	if in.Fields(cfg.Events.Fields, cfg.NullValues) != nil {
		return err
	}
	scanner, serr := activity.NewScanner(cfg.Events.Fields)
	if serr != nil {
		return err
	}
	type tally struct {
		lines, first int64
		text         string
	}
	why := make(map[string]tally)
	note := func(reason string, line int64, text func() string) {
		t, known := why[reason]
		if !known {
			t.first, t.text = line, text()
		}
		t.lines++
		why[reason] = t
	}
	in.OnBad(func(b simulator.BadLine) {
		reason, _, _ := strings.Cut(b.Reason, ";") // whether it is the last does not matter
		note("the line "+reason, b.Line, func() string { return b.Reason })
	})
	var row simulator.Row
	var value []byte
	for in.Next(&row) == nil {
		value = row.AppendJSON(value[:0])
		if _, reason := scanner.Scan(value); reason != activity.ReasonNone {
			note(string(reason), in.Line(), func() string { return scanner.Explain(value, reason) })
		}
	}
	most := ""
	for reason, t := range why {
		if most == "" || t.lines > why[most].lines || t.lines == why[most].lines && t.first < why[most].first {
			most = reason
		}
	}
	if most == "" {
		return err
	}
	t := why[most]
	text := ": " + t.text
	if strings.HasSuffix(most, t.text) {
		text = "" // it is the reason
	}
	return fmt.Errorf("%w; the most frequent reason is %q (%s, first on line %d)%s", err, most, number(t.lines, "time", "times"), t.first, text)
}

func number(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (s *stack) result() ReplayResult {
	return ReplayResult{
		EventsIn: s.routed.In.Load(), Counted: s.routed.Counted.Load(), Late: s.routed.Late.Load(), Invalid: s.routed.Invalid.Load(),
		Repeated: s.detected.Repeated.Load(), Opened: s.detected.Opened.Load(), Closed: s.detected.Closed.Load(),
	}
}

// closed returns the closed alerts of the database by rule, window and key.
func (s *stack) closed(ctx context.Context) ([]alert.Record, error) {
	var out []alert.Record
	for a, err := range s.store.Alerts(ctx, store.Filter{State: alert.Closed}) {
		if err != nil {
			return nil, err
		}
		out = append(out, a.Record)
	}
	slices.SortFunc(out, func(a, b alert.Record) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), a.WindowStart.Compare(b.WindowStart), a.WindowEnd.Compare(b.WindowEnd), compareUsers(a.UserID, b.UserID))
	})
	return out, nil
}

// compareUsers orders numbers by value, before strings, which go by text.
func compareUsers(a, b []byte) int {
	an, bn := a[0] != '"', b[0] != '"'
	switch {
	case an != bn:
		if an {
			return -1
		}
		return 1
	case an:
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(string(a), string(b)))
	}
	return cmp.Compare(activity.UserText(a), activity.UserText(b))
}

// deleteTopics removes what a replay made on somebody's Kafka.
func (s *stack) deleteTopics() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(s.kafka.Options()...)
	if err != nil {
		s.cfg.Log.Warn("cannot delete the replay's topics", "error", err)
		return
	}
	defer cl.Close()
	s.cancel()
	n := s.layout.Names
	adm := kadm.NewClient(cl)
	if _, err := adm.DeleteTopics(ctx, n.Activity, n.Keyed, n.Late, n.DLQ, n.Alerts, n.Rules, n.Table()); err != nil {
		s.cfg.Log.Warn("cannot delete the replay's topics", "error", err)
	}
	if _, err := adm.DeleteGroups(ctx, n.RouterGroup, n.DetectorGroup, n.AlerterGroup); err != nil {
		s.cfg.Log.Warn("cannot delete the replay's groups", "error", err)
	}
}

// literal are the names of columns that rules read as they are, though they have dots.
func literal(s *revision.Source) (names []string) {
	set, err := s.Compile(nil)
	if err != nil {
		return nil // whoever runs them says so
	}
	for _, in := range set.Inputs {
		if len(in.Path) == 1 && strings.Contains(in.Path[0], ".") {
			names = append(names, in.Path[0])
		}
	}
	return names
}
