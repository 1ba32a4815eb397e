package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/evidence"
	"spate/shared/format"
	"spate/shared/store"
	"spate/shared/terminal"
)

type alertsShowCommand struct {
	migrateFlags
	tableFlags
	ID string `arg:"" name:"id" help:"ID of the alert, a unique prefix of this ID (at least 4 digits), or the webhook-id of a message about the alert."`
	brokerFlags
	formatFlags
	Events     *int     `name:"events" placeholder:"N" help:"Print at most the first N events. Default: 10, or 100 with --json."`
	NoEvents   bool     `name:"no-events" help:"Do not read the events from the log."`
	Wide       bool     `short:"w" help:"Do not truncate lines to fit the terminal, and print events in full."`
	UserField  []string `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Fields that may hold the user; dots access nested fields. If these fields match no event, spate infers the fields from the alert's user and window."`
	TimeFormat string   `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format; use the router's value."`
	TimeField  []string `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Fields that may hold the event time; the first one present is used."`
	JSON       bool     `name:"json" help:"Print one JSON object: the alert as in ls --json, deliveries (each with its tries), fields (values common to the events), fields_more (true: the events have more fields), events, events_more, events_note."`
}

// Help is shown below the usage.
func (alertsShowCommand) Help() string {
	return `spate reads the user's events in the window from the events topic, between the offsets in the alert's evidence. This requires a broker that
still has these events. Otherwise, spate shows everything else and explains why the events are missing.`
}

// shownEvents is how many events are printed for people, and maxEvents for programs, unless another number is asked for.
const shownEvents, maxEvents = 10, 100

// story is everything about an alert.
type story struct {
	store.Alert
	found

	told []string // fields of user and time, which need not be told again
	// before and after are the user's alerts in the windows next to this one, if there are any.
	before, after *store.Alert
}

// found is what was read about an alert besides itself.
type found struct {
	Deliveries []deliveryStory  `json:"deliveries"`
	Fields     []evidence.Field `json:"fields,omitempty"`
	FieldsMore bool             `json:"fields_more,omitempty"`     // there are others that are not in Fields
	Events     []evidence.Event `json:"events"`                    // null: not read
	More       int              `json:"events_more"`               // that are not in Events
	Note       string           `json:"events_note,omitempty"`     // why events are missing
	Found      *eventFields     `json:"events_found_by,omitempty"` // if it is not by the given fields
}

// MarshalJSON implements json.Marshaler: the members of the alert, then what was read.
func (s story) MarshalJSON() ([]byte, error) {
	a, err := s.Alert.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return alert.Join(a, s.found)
}

// eventFields are where the events have user and time.
type eventFields struct {
	User       string `json:"user_field"`
	Time       string `json:"time_field"`
	TimeFormat string `json:"time_format"`
}

// events is how many are wanted.
func (c *alertsShowCommand) events() int {
	switch {
	case c.Events != nil:
		return *c.Events
	case c.JSON:
		return maxEvents
	}
	return shownEvents
}

func (c *alertsShowCommand) Run(e *env) (err error) {
	k, kerr := c.config(e.logger(slog.LevelError))
	events := format.Config{Fields: activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}}
	rerr := c.formatFlags.events(&events, e.logger(slog.LevelError))
	if c.events() < 0 {
		rerr = errors.Join(rerr, fmt.Errorf("events: %d is below 0", c.events()))
	}
	if err := usage(errors.Join(events.Validate(), rerr, kerr, k.Validate())); err != nil {
		return err
	}
	id, _ := messageID(c.ID)
	var s story
	var read func() *evidence.Found
	if e.mode == "aws" {
		read, err = c.fromTable(e.ctx, &s, id, events, c.events())
	} else {
		err = c.fromDatabase(e.ctx, &s, id)
		read = func() *evidence.Found { return evidence.Kafka(e.ctx, s.Record, events, c.events(), k) }
	}
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("no alert has the ID %s; to list alerts, run spate alerts ls", terminal.Text(id))
	} else if err != nil {
		return err
	}
	switch {
	case c.NoEvents:
		s.Note = "skipped (--no-events)"
	case s.Key != nil:
		s.Note = "the rule determines which events count; to list those events, run spate why " + s.ID
	default:
		found := read()
		if err := e.ctx.Err(); err != nil {
			return err
		}
		s.Fields, s.FieldsMore, s.Events, s.More, s.Note = found.Fields, found.FieldsMore, found.Events, found.More, found.Note
		s.told = slices.Concat(c.UserField, c.TimeField)
		if g := found.Guessed; g != nil {
			s.told = slices.Concat(g.User, g.Time)
			s.Found = &eventFields{g.User[0], g.Time[0], string(g.TimeFormat)}
			terminal.Fprintf(e.stderr, "spate: --user-field and --time-field do not match the events, so the fields were inferred from the alert: --user-field %s --time-field %s --time-format %s\n", g.User[0], g.Time[0], string(g.TimeFormat))
		}
	}
	o := newOut(e.stdout)
	if c.JSON {
		s.Record = s.Written()
		return o.end(o.json(s))
	}
	s.write(o, c.Wide)
	return o.end(nil)
}

// fromDatabase reads what the database has of an alert.
func (c *alertsShowCommand) fromDatabase(ctx context.Context, s *story, id string) (err error) {
	st, err := c.look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := s.find(ctx, st, id); err != nil {
		return err
	}
	s.Deliveries, err = deliveryStories(ctx, st, store.DeliveryFilter{AlertID: s.ID})
	return err
}

// find reads the alert, and those of the same user in the windows next to it: a burst that straddles a border is in two.
func (s *story) find(ctx context.Context, st alertReader, text string) error {
	id, err := wholeID(ctx, st, text)
	if err == nil {
		s.Alert, err = st.Alert(ctx, id)
	}
	if errors.Is(err, store.ErrNotFound) && isIncident(ctx, st, text) {
		return fmt.Errorf("%s is the ID of an incident, not of an alert; run spate incidents show %s", terminal.Text(text), terminal.Text(text))
	}
	if err != nil {
		return err
	}
	if s.Key != nil {
		return nil // windows of a rule can overlap
	}
	size := s.WindowEnd.Sub(s.WindowStart)
	next := func(start time.Time) (*store.Alert, error) {
		a, err := st.Alert(ctx, alert.ID(s.Rule, string(s.UserID), start.UnixMilli(), size.Milliseconds()))
		if errors.Is(err, store.ErrNotFound) {
			return nil, nil
		}
		return &a, err
	}
	if s.before, err = next(s.WindowStart.Add(-size)); err != nil {
		return err
	}
	s.after, err = next(s.WindowEnd)
	return err
}

// reason says in a sentence why there is an alert, and in a line whether the burst goes on in the windows next to it.
func (s *story) reason(o *out) {
	const dayClock = "2006-01-02 15:04:05"
	critical := ""
	if s.Severity == alert.Critical {
		critical = "; this one is critical"
	}
	end := s.WindowEnd.Format(dayClock)
	if s.WindowEnd.Format(day) == s.WindowStart.Format(day) {
		end = s.WindowEnd.Format(clock)
	}
	if critical != "" && s.Key != nil {
		critical = "; the alert is critical"
	}
	events := counted(s.Count, "event", "events")
	if s.State != alert.Closed {
		events = countText(s.Record) + " events"
	}
	o.printf("%s: %s in %s (%s to %s UTC)", whose(s.Record), events, short(s.WindowEnd.Sub(s.WindowStart)), s.WindowStart.Format(dayClock), end)
	if s.Key == nil {
		o.printf(". More than %d raise an alert", s.Threshold)
	}
	o.printf("%s.\n", critical)
	var next []string
	if s.before != nil {
		next = append(next, fmt.Sprintf("%s events in the window before (%s)", countText(s.before.Record), s.before.ID))
	}
	if s.after != nil {
		next = append(next, fmt.Sprintf("%s events in the window after (%s)", countText(s.after.Record), s.after.ID))
	}
	if len(next) > 0 {
		o.printf("The burst may extend beyond this window; the user also has alerts in adjacent windows: %s.\n", strings.Join(next, ", "))
	}
	o.printf("\n")
}

func (s *story) write(o *out, wide bool) {
	const dayClock = "2006-01-02 15:04:05.999"
	size := s.WindowEnd.Sub(s.WindowStart)
	if s.Summary != "" {
		so := ""
		if s.State != alert.Closed {
			so = " (so far)"
		}
		o.printf("%s%s\n", s.Summary, so)
	}
	s.reason(o)
	o.printf("alert     %s\n", s.ID)
	if s.Incident != "" {
		o.printf("incident  %s\n", s.Incident)
	}
	if s.Key == nil {
		o.printf("rule      %s: more than %d events by one user in a window of %s\n", s.Rule, s.Threshold, short(size))
	} else {
		o.printf("rule      %s\n", s.Rule)
	}
	if s.Mode != "" {
		o.printf("mode      %s: the alert is stored, but nobody is notified\n", s.Mode)
	}
	o.printf("severity  %s\n", severityText(o, s.Severity))
	if s.Runbook != "" {
		o.printf("runbook   %s\n", s.Runbook)
	}
	if s.Key == nil {
		o.printf("user      %s\n", s.KeyText())
	} else {
		o.printf("key       %s\n", s.Key)
		o.printf("columns   %s\n", s.Columns)
		if s.AtLeast {
			o.printf("          counts of distinct values are lower bounds: there are more values than spate keeps\n")
		}
	}
	o.printf("window    %s UTC, %s\n", s.WindowStart.Format(dayClock), short(size))
	o.printf("events    %s, from %s to %s\n", countText(s.Record), s.FirstEventAt.Format("15:04:05.000"), s.LastEventAt.Format("15:04:05.000"))
	o.printf("opened    %s UTC\n", s.OpenedAt.Format(dayClock))
	if s.State == alert.Closed {
		o.printf("closed    %s UTC\n", s.ClosedAt.Format(dayClock))
	}
	for _, p := range slices.SortedFunc(maps.Keys(s.Evidence.Partitions), alert.ByNumber) {
		r := s.Evidence.Partitions[p]
		o.printf("evidence  topic %s, partition %s, offsets %d to %d\n", s.Evidence.Topic, p, r.First, r.Last)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Evidence.Shards)) {
		r := s.Evidence.Shards[id]
		o.printf("evidence  stream %s, %s,\n          sequence numbers %s\n          to %s\n", s.Evidence.Stream, id, r.First, r.Last)
	}
	switch {
	case len(s.Deliveries) > 0:
		o.printf("notified  %s, %s\n\n", s.Delivery.State, tries(s.Delivery.Attempts))
		deliveryTable(o, wide, s.Deliveries)
	case s.Delivery.State == store.None:
		o.printf("notified  nobody\n")
	default:
		o.printf("notified  %s, %s\n", s.Delivery.State, tries(s.Delivery.Attempts))
	}
	o.printf("\n")
	if s.Events == nil {
		o.printf("Events not read: %s\n", s.Note)
		return
	}
	found := int64(len(s.Events) + s.More)
	differs := ""
	if found != s.Count {
		differs = fmt.Sprintf("; the alert counted %s", terminal.Grouped(s.Count))
	}
	o.printf("%s in the log%s\n", counted(found, "event is", "events are"), differs)
	s.summarize(o)
	s.list(o, wide)
	if s.Note != "" {
		o.printf("\n%s\n", s.Note)
	}
}

// summarize prints what the events have in common.
func (s *story) summarize(o *out) {
	t := terminal.Table{Columns: []terminal.Column{{Head: "FIELD", Floor: 20}, {Head: "VALUES", Right: true}, {Head: "MOST FREQUENT", Floor: 20}}}
	for _, f := range s.Fields {
		if slices.Contains(s.told, f.Name) {
			continue
		}
		n := terminal.Grouped(f.Values)
		if f.AtLeast {
			n = "over " + n
		}
		top := make([]string, 0, len(f.Top))
		for _, v := range f.Top {
			text := valueText(v.Value)
			if f.Values > 1 {
				text += fmt.Sprintf(" (%s)", terminal.Grouped(v.Events))
			}
			top = append(top, text)
		}
		if f.Values > len(f.Top) && f.Top[0].Events == 1 {
			top = []string{"all different"}
		}
		t.Row(f.Name, n, strings.Join(top, ", "))
	}
	if len(t.Rows) > 0 {
		o.printf("\n")
		o.lines(t.Lines(o.width))
	}
	if s.FieldsMore {
		o.printf("(the events have more than %d fields; the others are not summarized: use --wide to print events in full)\n", evidence.MaxFields)
	}
}

// valueText is a JSON value as a person writes it.
func valueText(v json.RawMessage) string {
	var text string
	if len(v) > 2 && v[0] == '"' && json.Unmarshal(v, &text) == nil {
		return text
	}
	return string(v)
}

// list prints the events: what differs from one to the next, aligned, or, with wide, all of them as they are.
func (s *story) list(o *out, wide bool) {
	if len(s.Events) == 0 {
		return
	}
	o.printf("\n")
	if wide {
		for _, e := range s.Events {
			o.printf("%s  %s  %s\n", e.At.Format(instant), e.Place, compact(e.Value))
		}
	} else {
		s.table(o)
	}
	if s.More > 0 {
		o.printf("and %s more; use --events N to print more\n", terminal.Grouped(s.More))
	}
}

func (s *story) table(o *out) {
	place := "PARTITION:OFFSET"
	if s.Evidence.Stream != "" {
		place = "SHARD, SEQUENCE NUMBER"
	}
	t := terminal.Table{Columns: []terminal.Column{{Head: "TIME (UTC)"}, {Head: place, Floor: 16}}}
	var names []string
	for _, f := range s.Fields {
		if slices.Contains(s.told, f.Name) {
			continue
		}
		if f.Values > 1 || f.Events < len(s.Events)+s.More {
			names = append(names, f.Name)
			t.Columns = append(t.Columns, terminal.Column{Head: f.Name, Floor: 10})
		}
	}
	for _, e := range s.Events {
		row := []any{e.At.Format("15:04:05.000"), placeText(e.Place)}
		values := evidence.Values(e.Value)
		for _, name := range names {
			row = append(row, valueText(values[name]))
		}
		t.Row(row...)
	}
	o.events(&t, 2)
}

// placeText is a place in few cells.
func placeText(p evidence.Place) string {
	if p.Partition != nil {
		return fmt.Sprintf("%d:%d", *p.Partition, *p.Offset)
	}
	return p.String()
}

// compact is JSON on one line.
func compact(v json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return string(v)
	}
	return b.String()
}
