package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"

	"spate/services/explainer"
	"spate/shared/activity"
	"spate/shared/aws/cloud"
	"spate/shared/aws/stream"
	"spate/shared/format"
	"spate/shared/incident"
	"spate/shared/kafka"
	"spate/shared/store"
	"spate/shared/terminal"
)

type whyCommand struct {
	incidentFlags
	ID    []string      `arg:"" optional:"" name:"id" help:"IDs of alerts or incidents, or unique prefixes of such IDs (at least 4 digits)."`
	Key   []string      `placeholder:"COLUMN=VALUE" help:"Instead of an ID: the key, such as user_id=42. Repeat it for each key column."`
	Null  []string      `placeholder:"COLUMN" help:"Key column that is NULL; use instead of --key COLUMN=VALUE. Repeatable."`
	Rule  string        `placeholder:"NAME" help:"With --key: explain only this rule. Default: all rules with this key."`
	At    string        `placeholder:"TIME" help:"With --key: explain the windows that contain this event time, such as 2026-11-24T09:30:05Z."`
	Since time.Duration `default:"1h" help:"With --key and without --at: how far back from now to look, in event time."`

	Events int  `default:"20" placeholder:"N" help:"List at most N events."`
	Wide   bool `short:"w" help:"Do not truncate lines to fit the terminal."`
	JSON   bool `name:"json" help:"Print one JSON object per rule: verdict (flagged or not_flagged), reason, text, rule, key, window_start, window_end, alert, incident, numbers, events, transitions, deliveries, notes."`

	rulesLogFlags
	formatFlags
	UserField   []string      `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Fields that may hold the user; use the router's value."`
	TimeField   []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Fields that may hold the event time; use the router's value."`
	TimeFormat  string        `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format; use the router's value."`
	DedupeField string        `name:"dedupe-field" env:"SPATE_DEDUPE_FIELD" placeholder:"FIELD" help:"Event field that holds a unique event ID; use the router's value."`
	MaxAhead    time.Duration `name:"max-ahead" env:"SPATE_MAX_AHEAD" default:"1m" help:"How far in the future an event's time may be; use the router's value."`
}

// Help is shown below the usage.
func (whyCommand) Help() string {
	return `Shows the rule with its numbers, the events and what became of each, and who was notified. The events are read back from the log and
counted again by a reference (SQLite) that shares no code with the engine, so the explanation does not rely on the code that raised the alert.

  spate why 2d5065dc                                      an alert or an incident
  spate why --key user_id=42                              in the last hour, under every rule with this key
  spate why --key user_id=42 --at 2026-11-24T09:30:05Z    in the windows that contain this time
  spate why --key user_id=7 --key ip=10.0.0.1 --rule guessing

Reasons for a verdict of flagged: condition_holds, silenced, shadow.
Reasons for a verdict of not_flagged:
  below_condition     the condition (HAVING) does not hold; the numbers show how far it is from holding
  filtered            without the rule's WHERE, the condition would hold
  exempt              a WHERE condition on the key itself excludes all of its events
  split               the condition would hold in a window that began at another time
  late                the condition would hold with events that arrived after their window had closed
  closed_as_idle      the same, but the window had closed because a partition was silent
  still_open          the window is still open, and the condition does not hold yet, or it holds but can still become false
  not_routed          the condition holds with events that are not counted yet
  invalid             the log has only invalid records that mention the key
  never_seen          the log has no event for the key in this period
  rule_not_in_force   the rule was not in force for the window
  rule_off            the rule's mode is off
  not_stored          the condition holds, but the database has no alert`
}

func (c *whyCommand) Run(e *env) error {
	debug.SetGCPercent(300) // the process ends with the answer, and reads a million records for it: a tenth faster, with 130 MB
	values, err := columnValues(c.Key, c.Null)
	if len(c.ID) == 0 && len(values) == 0 {
		err = errors.Join(err, errors.New("give the ID of an alert or incident, or a key: --key COLUMN=VALUE"))
	}
	if len(c.ID) > 0 && len(values) > 0 {
		err = errors.Join(err, errors.New("key: give either an ID or a key, not both"))
	}
	if c.Events < 0 {
		err = errors.Join(err, fmt.Errorf("events: %d is below 0", c.Events))
	}
	if c.Since <= 0 {
		err = errors.Join(err, fmt.Errorf("since: %v is not above 0", c.Since))
	}
	at, terr := moment("at", c.At, time.Now())
	events := format.Config{Fields: activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}, ID: c.DedupeField}
	err = errors.Join(err, terr, c.formatFlags.events(&events, e.logger(slog.LevelError)), events.Validate())
	var k kafka.Config
	if e.mode != "aws" {
		var kerr error
		k, kerr = c.config(e.logger(slog.LevelError))
		err = errors.Join(err, kerr, k.Validate())
	}
	if err := usage(err); err != nil {
		return err
	}
	l, err := c.rulesLogFlags.open(e)
	if err != nil {
		return err
	}
	defer l.Close()
	w := &asker{rulesLog: l, initial: c.initialFlags, since: c.Since, maxAhead: c.MaxAhead}
	w.explainer = explainer.Explainer{Log: &explainer.Kafka{Config: k, Names: kafka.NamesFor(c.Topic), Events: events}, Reference: reference, Most: c.Events}
	if e.mode == "aws" {
		cfg, err := cloud.Load(e.ctx)
		if err != nil {
			return usage(err)
		}
		w.explainer.Log = &explainer.Kinesis{Reader: &stream.Reader{API: kinesissdk.NewFromConfig(cfg), Log: slog.New(slog.DiscardHandler)}, Events: events}
	}
	o := newOut(e.stdout)
	if c.Wide {
		o.width = 0
	}
	st, err := c.incidents(e)
	switch {
	case err == nil:
		defer func() { _ = st.Close() }()
		w.store = st
	case len(c.ID) > 0:
		return err
	default:
		terminal.Fprintf(e.stderr, "spate: the answer uses only the log, without alerts, silences and deliveries: %s\n", err)
	}
	if len(values) > 0 {
		list, err := w.ofKey(e.ctx, values, c.Rule, at)
		return o.end(errors.Join(err, c.print(o, list...)))
	}
	for i, id := range c.ID {
		a, err := w.ofID(e.ctx, id)
		if err != nil {
			return o.end(err)
		}
		if i > 0 && !c.JSON {
			o.printf("\n")
		}
		if err := c.print(o, a); err != nil {
			return o.end(err)
		}
	}
	return o.end(nil)
}

// print prints answers.
func (c *whyCommand) print(o *out, list ...*answered) error {
	for i, a := range list {
		if c.JSON {
			if err := o.json(a); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			o.printf("\n")
		}
		a.told = slices.Concat(c.UserField, c.TimeField)
		a.write(o, c.Wide)
	}
	return nil
}

// asker asks why. Those who share one take turns.
type asker struct {
	*rulesLog
	initial         initialFlags
	store           incidentReader // nil without a database
	explainer       explainer.Explainer
	since, maxAhead time.Duration
}

// ofID explains an alert, or the alert with most events of an incident.
func (w *asker) ofID(ctx context.Context, text string) (*answered, error) {
	id, err := wholeID(ctx, w.store, text)
	var a store.Alert
	if err == nil {
		a, err = w.store.Alert(ctx, id)
	}
	var in *incident.Incident
	if errors.Is(err, store.ErrNotFound) {
		i, ierr := wholeIncident(ctx, w.store, text)
		if ierr != nil {
			if errors.Is(ierr, store.ErrNoIncident) {
				return nil, unknownID{fmt.Errorf("no alert or incident has the ID %s; to list incidents and alerts, run spate incidents ls and spate alerts ls; to ask about a user, run spate why --key user_id=%s", terminal.Text(text), terminal.Text(text))}
			}
			return nil, ierr
		}
		in = &i
		if a, err = w.worst(ctx, i.ID); err == nil && a.ID == "" {
			return nil, fmt.Errorf("the alerts in incident %s are no longer stored", terminal.Text(i.ID))
		}
	}
	if err != nil {
		return nil, err
	}
	r, err := w.ruleOf(a.Record)
	if err != nil {
		return nil, err
	}
	s, err := w.full(ctx, a)
	if err != nil {
		return nil, err
	}
	ans, err := w.explainer.OfAlert(ctx, *s, r)
	if err != nil {
		return nil, err
	}
	return w.complete(ctx, ans, in)
}

// unknownID is an id that is neither an alert's nor an incident's.
type unknownID struct{ error }

// Is implements the interface of errors.Is.
func (unknownID) Is(target error) bool { return target == store.ErrNotFound }

// worst returns the alert of an incident with most events.
func (w *asker) worst(ctx context.Context, id string) (worst store.Alert, err error) {
	for a, err := range w.store.Alerts(ctx, store.Filter{Incident: id}) {
		if err != nil {
			return worst, err
		}
		if worst.ID == "" || a.Count > worst.Count {
			worst = a
		}
	}
	return worst, nil
}

// stored implements explainer.Explainer.Alerts.
func (w *asker) stored(ctx context.Context, rule string, key json.RawMessage, from, until time.Time) (list []explainer.Stored, err error) {
	incidents, err := store.Collect(w.store.Incidents(ctx, store.IncidentFilter{Rule: rule, Key: string(key), Since: from, Until: until}))
	if err != nil {
		return nil, err
	}
	for _, i := range incidents {
		for a, err := range w.store.Alerts(ctx, store.Filter{Incident: i.ID}) {
			if err != nil {
				return nil, err
			}
			s, err := w.full(ctx, a)
			if err != nil {
				return nil, err
			}
			list = append(list, *s)
		}
	}
	return list, nil
}

// full adds the silence of the alert's incident.
func (w *asker) full(ctx context.Context, a store.Alert) (*explainer.Stored, error) {
	s := &explainer.Stored{Record: a.Record, Incident: a.Incident, OpenedAt: a.OpenedAt, ClosedAt: a.ClosedAt}
	if a.Incident == "" {
		return s, nil
	}
	i, err := wholeIncident(ctx, w.store, a.Incident)
	if errors.Is(err, store.ErrNoIncident) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.Silenced, err = silencedBy(ctx, w.store, i)
	return s, err
}

// question is about an event time, or about the recent past.
func (w *asker) question(ctx context.Context, at time.Time) (explainer.Question, error) {
	if !at.IsZero() {
		return explainer.Question{From: at, Until: at.Add(time.Millisecond)}, nil
	}
	now := time.Now()
	var newest time.Time
	if source, ok := w.explainer.Log.(*explainer.Kafka); ok {
		var err error
		if newest, err = source.Now(ctx); err != nil {
			return explainer.Question{}, err
		}
	}
	if !newest.IsZero() && now.Sub(newest) > w.since { // a replay of the past
		now = newest
	}
	return explainer.Question{From: now.Add(-w.since).UTC(), Until: now.Add(w.maxAhead).UTC()}, nil
}

// ofKey explains what each rule with a key made of its values: one rule, or all of them if rule is empty.
func (w *asker) ofKey(ctx context.Context, values map[string]*string, rule string, at time.Time) ([]*answered, error) {
	q, err := w.question(ctx, at)
	if err != nil {
		return nil, err
	}
	rules, err := w.rules(values, rule, q)
	if err != nil {
		return nil, err
	}
	x := w.explainer
	if w.store != nil {
		x.Alerts = w.stored
	}
	list, err := x.OfKey(ctx, q, rules...)
	if err != nil {
		return nil, err
	}
	// 42 can be a number and a text; the one that was never seen is not meant.
	found := make(map[string]bool)
	for _, a := range list {
		found[a.Rule.Name] = found[a.Rule.Name] || seen(a)
	}
	told := make(map[string]bool)
	var out []*answered
	for _, a := range list {
		drop := !seen(a) && (found[a.Rule.Name] || told[a.Rule.Name])
		told[a.Rule.Name] = true
		if drop {
			continue
		}
		full, err := w.complete(ctx, a, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, full)
	}
	return out, nil
}

// seen reports whether the log has an event of the answer's key that its rule is about.
func seen(a *explainer.Answer) bool {
	return a.Reason != explainer.NeverSeen && a.Reason != explainer.IsInvalid && a.Reason != explainer.Off && a.Reason != explainer.NotInForce
}
