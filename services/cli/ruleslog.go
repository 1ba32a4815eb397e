package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/worker"
	"spate/shared/aws/cloud"
	"spate/shared/aws/lease"
	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/revision/table"
	"spate/shared/revision/topic"
	"spate/shared/rule"
	"spate/shared/terminal"
)

// initialFlags describe the rule that applies until there is a revision.
type initialFlags struct {
	Window    time.Duration `env:"SPATE_WINDOW" default:"10s" help:"Window size of the rule that applies before the first revision; use the services' value."`
	Threshold int64         `env:"SPATE_THRESHOLD" default:"5" help:"Threshold of the rule that applies before the first revision; use the services' value."`
	Critical  int64         `env:"SPATE_CRITICAL" placeholder:"N" help:"Critical threshold of the rule that applies before the first revision; use the services' value. Default: twice the threshold."`
}

// initial is that rule.
func (f initialFlags) initial() (*rule.Set, error) {
	return rule.Burst(f.Window, f.Threshold, f.critical())
}

// source is that rule as a rules file.
func (f initialFlags) source() revision.Source {
	text, params := rule.BurstFile(f.Window, f.Threshold, f.critical())
	return revision.Source{Text: text, Set: params}
}

func (f initialFlags) critical() int64 {
	if f.Critical == 0 {
		return 2 * f.Threshold
	}
	return f.Critical
}

// rulesTableFlags say of which pipeline the rules are in mode aws.
type rulesTableFlags struct {
	Stream     string `name:"stream" env:"SPATE_STREAM" default:"e-commerce-raw-user-activity-stream-1" help:"Mode aws: Kinesis events stream to which the rules apply."`
	StateTable string `name:"state-table" env:"SPATE_STATE_TABLE" default:"spate-state" help:"Mode aws: DynamoDB table that stores the rules, along with the worker's lease and state."`
}

// rulesLogFlags say of which pipeline the rules are.
type rulesLogFlags struct {
	brokerFlags
	initialFlags
	rulesTableFlags
	Topic string `env:"SPATE_TOPIC" default:"activity" help:"Events topic; the names of the other topics are derived from it."`
}

// rulesStore keeps the log of a pipeline's rules.
type rulesStore interface {
	// Look reads what was written before it is called, and reports whether there is a new revision.
	Look(ctx context.Context) (changed bool, err error)
	// Append writes the next revision, after those that were read, and returns it as it is in force: also with revision.ErrLate.
	Append(ctx context.Context, rec revision.Record) (revision.Entry, error)
	// Begun reports whether the pipeline has counted anything, or has processes that may.
	Begun(ctx context.Context) (bool, error)
	// Close ends the connection.
	Close()
}

// rulesLog is the log of a pipeline's rules.
type rulesLog struct {
	*revision.Log
	rulesStore
	initial *rule.Set
	place   string // where the log is
	judge   string // what a process is called that judges events
}

// open connects to the log of the rules, and reads what it has.
func (f rulesLogFlags) open(e *env) (*rulesLog, error) {
	var l *rulesLog
	var err error
	if e.mode == "aws" {
		l, err = f.rulesTableFlags.connect(e, f.initialFlags)
	} else {
		cfg, cerr := f.config(e.logger(slog.LevelError))
		l, _, err = newRulesTopic(cfg, f.Topic, f.initialFlags, cerr, kafkaFlags{brokerFlags: f.brokerFlags, Topic: f.Topic}.check(e.mode))
	}
	if err != nil {
		return nil, err
	}
	if _, err := l.Look(e.ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// rulesTopic is the log in a Kafka topic.
type rulesTopic struct {
	*topic.Reader
	cfg   kafka.Config
	names kafka.Names
	cl    *kgo.Client
	adm   *kadm.Client
}

// newRulesTopic connects to the log of the rules in Kafka. errs are those that its settings have already.
func newRulesTopic(cfg kafka.Config, events string, f initialFlags, errs ...error) (*rulesLog, *rulesTopic, error) {
	initial, err := f.initial()
	if err := usage(errors.Join(append(errs, cfg.Validate(), err)...)); err != nil {
		return nil, nil, err
	}
	t := &rulesTopic{cfg: cfg, names: kafka.NamesFor(events)}
	if t.cl, err = kgo.NewClient(cfg.Options()...); err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	t.adm = kadm.NewClient(t.cl)
	t.Reader = topic.NewReader(cfg, t.adm, t.names, initial)
	return &rulesLog{Log: t.Log, rulesStore: t, initial: initial, place: "topic " + t.names.Rules, judge: "router"}, t, nil
}

// Look implements rulesStore. Without a topic, nothing was applied.
func (t *rulesTopic) Look(ctx context.Context) (bool, error) {
	changed, err := t.Reader.Look(ctx)
	if errors.Is(err, topic.ErrNoTopic) {
		return false, nil
	}
	return changed, err
}

// Close implements rulesStore.
func (t *rulesTopic) Close() { t.cl.Close() }

// rulesTable is the log in a DynamoDB table.
type rulesTable struct {
	*table.Reader
	worker lease.Lease
}

// connect connects to the log of the rules in mode aws. errs are those that its settings have already.
func (f rulesTableFlags) connect(e *env, of initialFlags, errs ...error) (*rulesLog, error) {
	initial, err := of.initial()
	cfg, lerr := cloud.Load(e.ctx)
	if err := usage(errors.Join(append(errs, err, lerr)...)); err != nil {
		return nil, err
	}
	api := dynamodb.NewFromConfig(cfg)
	t := &rulesTable{table.NewReader(api, f.StateTable, f.Stream, initial), lease.Lease{API: api, Table: f.StateTable, Key: worker.LeaseKey(f.Stream)}}
	place := fmt.Sprintf("table %s, for stream %s,", f.StateTable, f.Stream)
	return &rulesLog{Log: t.Log, rulesStore: t, initial: initial, place: place, judge: "worker"}, nil
}

// Begun implements rulesStore.
func (t *rulesTable) Begun(ctx context.Context) (bool, error) { return t.worker.Used(ctx) }

// Close implements rulesStore.
func (t *rulesTable) Close() {}

// none is what is said of a log without revisions.
func (l *rulesLog) none() string {
	return fmt.Sprintf("no rules have been applied: %s has no revision, so the rule from the settings applies (SPATE_WINDOW, SPATE_THRESHOLD, SPATE_CRITICAL)", l.place)
}

// noteIgnored says, on standard error, that the log has records without effect after the newest revision: somebody may take them for applied.
func (l *rulesLog) noteIgnored(e *env) {
	n := 0
	for _, i := range l.Ignored() {
		if i.After == l.Revision() {
			n++
		}
	}
	if n > 0 {
		terminal.Fprintf(e.stderr, "spate: %s no effect; spate rules history shows why\n", terminal.Safe(counted(n, "record in the log has", "records in the log have")))
	}
}

// entry returns a revision.
func (l *rulesLog) entry(n int64) (revision.Entry, error) {
	entries := l.Entries()
	for _, e := range entries {
		if e.Revision == n {
			return e, nil
		}
		if e.InsteadOf > 0 && e.InsteadOf <= n && n < e.Revision {
			return revision.Entry{}, fmt.Errorf("revision %d is never in force: revision %d was applied in its place", n, e.Revision)
		}
	}
	if u := l.Unreadable(); u != nil && n >= u.Revision && n <= l.Revision() {
		return revision.Entry{}, u
	}
	if len(entries) == 0 {
		return revision.Entry{}, errors.New(l.none())
	}
	return revision.Entry{}, fmt.Errorf("revision %d does not exist; the newest one is %d (to list the revisions, run spate rules history)", n, l.Revision())
}

// newest returns the newest revision. One that cannot be read is an error, because nobody knows then which rules are in force.
func (l *rulesLog) newest() (revision.Entry, error) {
	if u := l.Unreadable(); u != nil {
		return revision.Entry{}, u
	}
	entry, ok := l.Newest()
	if !ok {
		return entry, errors.New(l.none())
	}
	return entry, nil
}

// rulesBefore are the rules in the log before the revision at an index of its entries.
func (l *rulesLog) rulesBefore(i int) []*rule.Rule {
	if i == 0 {
		return l.initial.Rules
	}
	return l.Entries()[i-1].Set.Rules
}

// boundaryOf is when the windows begin that a revision is in force for; nil is the beginning of time.
func boundaryOf(e revision.Entry) *time.Time {
	if e.BoundaryMS == 0 {
		return nil
	}
	t := time.UnixMilli(e.BoundaryMS).UTC()
	return &t
}

// inForce says for which windows a revision is in force.
func inForce(e revision.Entry, now time.Time) string {
	if e.BoundaryMS == 0 {
		return "for all windows"
	}
	return "for windows that begin at " + clockText(time.UnixMilli(e.BoundaryMS), now) + " UTC or later"
}

// wasInForce says for which windows a revision is or was in force, as a sentence without its point.
func (l *rulesLog) wasInForce(e revision.Entry, now time.Time) string {
	for _, next := range l.Entries() {
		switch {
		case next.Revision <= e.Revision || next.ReplacedBy > 0 && next.Revision != e.ReplacedBy:
		case next.Revision == e.ReplacedBy || next.Beginning:
			return fmt.Sprintf("Never in force: revision %d took its place", next.Revision)
		default:
			before := "before " + clockText(time.UnixMilli(next.BoundaryMS), now) + " UTC"
			if e.BoundaryMS == 0 {
				return "In force for windows that begin " + before
			}
			return "In force " + inForce(e, now) + ", and " + before
		}
	}
	return "In force " + inForce(e, now)
}

// replacedBy names the revisions whose place the next one takes, because it is in force from the same time on, or from an earlier one.
func (l *rulesLog) replacedBy(next revision.Entry) (names []string) {
	for _, e := range l.Entries() {
		if !next.Beginning && e.ReplacedBy == 0 && e.BoundaryMS >= next.BoundaryMS {
			names = append(names, fmt.Sprintf("revision %d", e.Revision))
		}
	}
	return names
}

// params are values of parameters, for people.
func params(set map[string]string) string {
	var out []string
	for _, name := range sortedKeys(set) {
		out = append(out, name+" = "+set[name])
	}
	return strings.Join(out, ", ")
}
