package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os/user"
	"slices"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/terminal"
)

type incidentsCommand struct {
	Ls   incidentsLsCommand   `cmd:"" help:"List incidents, newest last."`
	Show incidentsShowCommand `cmd:"" help:"Show one incident in detail: its windows and its notifications."`
	Mark incidentsMarkCommand `cmd:"" help:"Record what an incident turned out to be: attack, benign or unsure."`

	Stats incidentsStatsCommand `cmd:"" help:"Show how many incidents each rule opened, and how many of them were attacks."`
}

// incidentFlags say where incidents are kept.
type incidentFlags struct {
	migrateFlags
	tableFlags
}

// incidentLister lists incidents.
type incidentLister interface {
	Incidents(context.Context, store.IncidentFilter) iter.Seq2[incident.Incident, error]
}

// incidentReader reads incidents, silences, alerts and deliveries from where they are kept.
type incidentReader interface {
	incidentLister
	alertReader
	deliveryReader
	store.Silences
	Mark(ctx context.Context, id string, m incident.Marked) error
	Close() error
}

// incidents opens the database or the table.
func (f incidentFlags) incidents(e *env) (incidentReader, error) {
	if e.mode != "aws" {
		return f.look(e.ctx)
	}
	table, _, err := f.table(e.ctx)
	if err != nil {
		return nil, usage(err)
	}
	return awsIncidents{table}, nil
}

type incidentsLsCommand struct {
	incidentFlags
	User     *string  `placeholder:"USER" help:"List only incidents about this user. 7 is the number, '\"7\"' is the string, and any other text is a string."`
	Key      []string `name:"key" placeholder:"COLUMN=VALUE" help:"List only incidents whose key has this value, such as product_id=7; 7 matches the number and the string. Repeatable; all must match."`
	Rule     string   `placeholder:"RULE" help:"List only incidents from this rule. Without a rules file, the only rule is burst."`
	Only     string   `name:"only" placeholder:"STATE" help:"List only incidents in this state: open or resolved."`
	Severity string   `placeholder:"SEVERITY" help:"List only incidents with this severity or a higher one: warning or critical."`
	Mark     string   `placeholder:"MARK" help:"List only incidents with this mark: attack, benign or unsure."`
	Since    string   `placeholder:"TIME" help:"List only incidents whose last window ends after this time: a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24, from midnight UTC), or an age (1h, 7d)."`
	Until    string   `placeholder:"TIME" help:"List only incidents whose first window starts before this time, in the same form as --since."`
	listFlags
	alertsRulesFlags
	JSON bool `name:"json" help:"Print one JSON line per incident."`
}

// Help is shown below the usage.
func (incidentsLsCommand) Help() string {
	return `An incident is a series of alerts for one rule and one key whose windows are at most one minute apart, unless the rule's quiet directive sets another interval. EVENTS is
the sum of its windows' counts, and PEAK is the highest of these counts.`
}

func (c *incidentsLsCommand) filter(now time.Time) (store.IncidentFilter, error) {
	f := store.IncidentFilter{State: incident.State(c.Only), Rule: c.Rule, MinSeverity: alert.Severity(c.Severity), Mark: incident.Mark(c.Mark)}
	errs := []error{c.directoryNotState("open", "resolved")}
	var err error
	if c.User != nil {
		var token string
		token, err = userToken(*c.User)
		f.Key = store.UserKey(token)
		errs = append(errs, err)
	}
	f.Since, f.Until, err = between(c.Since, c.Until, now)
	errs = append(errs, err)
	if _, err := keyValues(c.Key); err != nil {
		errs = append(errs, fmt.Errorf("key: %w", err))
	}
	errs = append(errs, flagged(f.Validate(), "state", "only"))
	return f, errors.Join(errs...)
}

// Run is the command.
func (c *incidentsLsCommand) Run(e *env) (err error) {
	now := time.Now()
	f, err := c.filter(now)
	if err != nil {
		return usage(err)
	}
	st, err := c.incidents(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	none := "no incidents yet"
	if f != (store.IncidentFilter{}) || len(c.Key) > 0 {
		none = "no incidents match; to list all incidents, run spate incidents ls without flags"
	}
	values, _ := keyValues(c.Key) // they were checked
	return list(e, c.listFlags, listing[incident.Incident]{
		json: c.JSON, object: func(i incident.Incident) any { return i }, none: none, columns: incidentColumns(c.width(e)),
		unknown: func() (bool, error) { return c.unknown(e, st, "incident", c.Rule, c.Key) },
		row:     func(o *out, i incident.Incident) []any { return incidentCells(o, i, now) },
	}, func(limit int) iter.Seq2[incident.Incident, error] {
		f.Newest, f.Limit = limit > 0, limit
		if len(values) == 0 {
			return st.Incidents(e.ctx, f)
		}
		f.Limit = 0 // of those that have the key
		return keep(st.Incidents(e.ctx, f), limit, func(i incident.Incident) bool { return keyHas(i.Key, values) })
	})
}

// width is how many cells a line of the list has; 0 is any number.
func (f listFlags) width(e *env) int {
	if f.Wide {
		return 0
	}
	return terminal.Width(e.stdout)
}

// keep returns the wanted items of a list, at most limit of them; 0 is all.
func keep[T any](list iter.Seq2[T, error], limit int, wanted func(T) bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		n := 0
		for x, err := range list {
			if err == nil && !wanted(x) {
				continue
			}
			if n++; !yield(x, err) || n == limit {
				return
			}
		}
	}
}

// keyHas reports whether the columns of a key have values, as a person writes them.
func keyHas(key json.RawMessage, values map[string]string) bool {
	var columns map[string]json.RawMessage
	if json.Unmarshal(key, &columns) != nil {
		return false
	}
	for name, value := range values {
		if token, ok := columns[name]; !ok || activity.UserText(token) != value {
			return false
		}
	}
	return true
}

// incidentColumns are those of incidents, with the cells of incidentCells. Where there is little room, some are left out.
func incidentColumns(width int) []terminal.Column {
	all := []terminal.Column{
		{Head: "SEVERITY"}, {Head: "USER", Floor: 9}, {Head: "FROM (UTC)"}, {Head: "FOR", Right: true}, {Head: "WINDOWS", Right: true}, {Head: "EVENTS", Right: true}, {Head: "PEAK", Right: true},
		{Head: "STATE"}, {Head: "MARK"}, {Head: "INCIDENT", Floor: shortID, Prefix: true},
	}
	return roomFor(width, all)
}

// roomFor leaves out the columns FOR, PEAK and MARK where there is little room.
func roomFor[T any](width int, cells []T) []T {
	if width == 0 || width >= 100 {
		return cells
	}
	return slices.Concat(cells[:3], cells[4:6], cells[7:8], cells[9:])
}

func incidentCells(o *out, i incident.Incident, now time.Time) []any {
	mark := ""
	if i.Marked != nil {
		mark = string(i.Mark)
	}
	soFar := ""
	if i.State == incident.StateOpen {
		soFar = "+"
	}
	state := string(i.State)
	if i.Mode == alert.Shadow {
		state += ", shadow"
	}
	return roomFor(o.width, []any{
		severityText(o, i.Severity), subject(i), clockText(i.FirstWindowStart, now), short(i.LastWindowEnd.Sub(i.FirstWindowStart)), i.Windows, terminal.Grouped(i.Events) + soFar, terminal.Grouped(i.Peak) + soFar,
		state, mark, o.paint(i.ID, terminal.Dim),
	})
}

// subject names what an incident is about: the user, or the rule and the key.
func subject(i incident.Incident) string {
	if token := i.User(); token != "" && i.Rule == alert.Burst {
		return activity.UserText(json.RawMessage(token))
	}
	token, err := alert.Token(i.Key)
	if err != nil {
		return i.Rule
	}
	return i.Rule + " " + keyText(i.Key, token)
}

// wholeIncident returns the one incident whose id begins like this.
func wholeIncident(ctx context.Context, st incidentLister, text string) (incident.Incident, error) {
	id, _ := messageID(strings.ToLower(text))
	if !isID(id) {
		return incident.Incident{}, fmt.Errorf("%w: %s", store.ErrNoIncident, terminal.Text(id))
	}
	if len(id) < minID {
		return incident.Incident{}, usage(fmt.Errorf("ID %s is too short: give at least its first %d digits", terminal.Text(id), minID))
	}
	const shown = 4
	found, err := store.Collect(st.Incidents(ctx, store.IncidentFilter{ID: id, Limit: shown + 1}))
	switch {
	case err != nil:
		return incident.Incident{}, err
	case len(found) == 0:
		return incident.Incident{}, fmt.Errorf("%w: %s", store.ErrNoIncident, terminal.Text(id))
	case len(found) == 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for n, i := range found {
		ids[n] = i.ID
	}
	return incident.Incident{}, ambiguous("incident", id, ids, shown)
}

// noIncident says how to find the ids of incidents or, if the id is an alert's, which command shows the alert.
func noIncident(ctx context.Context, st alertReader, err error, text string) error {
	if errors.Is(err, store.ErrNoIncident) {
		id, _ := messageID(text)
		if isAlert(ctx, st, id) {
			return fmt.Errorf("%s is the ID of an alert, not of an incident; to find its incident, run spate alerts show %s", terminal.Text(id), terminal.Text(id))
		}
		return fmt.Errorf("no incident has the ID %s; to list incidents, run spate incidents ls", terminal.Text(text))
	}
	return err
}

type incidentsShowCommand struct {
	incidentFlags
	ID   string `arg:"" name:"id" help:"ID of the incident, a unique prefix of this ID (at least 4 digits), or the webhook-id of a message about the incident."`
	Wide bool   `short:"w" help:"Do not truncate lines to fit the terminal."`
	JSON bool   `name:"json" help:"Print one JSON object: the incident as in ls --json, alerts (its windows, as in alerts ls --json) and deliveries (each with its tries)."`
}

// Run is the command.
func (c *incidentsShowCommand) Run(e *env) (err error) {
	st, err := c.incidents(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	i, err := wholeIncident(e.ctx, st, c.ID)
	if err != nil {
		return noIncident(e.ctx, st, err, c.ID)
	}
	alerts, err := store.Collect(st.Alerts(e.ctx, store.Filter{Incident: i.ID}))
	if err != nil {
		return err
	}
	deliveries, err := deliveryStories(e.ctx, st, store.DeliveryFilter{Incident: i.ID})
	if err != nil {
		return err
	}
	if c.JSON {
		for n := range alerts {
			alerts[n].Record = alerts[n].Written()
		}
		return newResult(e, struct {
			incident.Incident
			Alerts     []store.Alert   `json:"alerts"`
			Deliveries []deliveryStory `json:"deliveries"`
		}{i, alerts, deliveries})
	}
	o := newOut(e.stdout)
	if c.Wide {
		o.width = 0
	}
	by, err := silencedBy(e.ctx, st, i)
	if err != nil {
		return err
	}
	writeIncident(o, i, by, alerts, deliveries, c.Wide)
	return o.end(nil)
}

func writeIncident(o *out, i incident.Incident, silencedBy string, alerts []store.Alert, deliveries []deliveryStory, wide bool) {
	now := time.Now()
	o.printf("incident  %s\n", i.ID)
	o.printf("rule      %s\n", i.Rule)
	o.printf("about     %s\n", subject(i))
	if i.Summary != "" {
		o.printf("summary   %s\n", i.Summary)
	}
	if i.Runbook != "" {
		o.printf("runbook   %s\n", i.Runbook)
	}
	severity := string(i.Severity)
	if i.Mode == alert.Shadow {
		severity += "; its rule is in shadow mode, so no notifications are sent"
	}
	o.printf("severity  %s\n", severity)
	if i.Silenced != "" {
		o.printf("silenced  by %s\n", silencedBy)
	}
	o.printf("from      %s to %s UTC\n", clockText(i.FirstWindowStart, now), clockText(i.LastWindowEnd, now))
	o.printf("state     %s\n", stateText(i, now))
	soFar := ""
	if i.State == incident.StateOpen {
		soFar = "so far, "
	}
	o.printf("counted   %s%s in %s, %s in the busiest\n", soFar, counted(i.Events, "event", "events"), counted(i.Windows, "window", "windows"), terminal.Grouped(i.Peak))
	if i.Marked != nil {
		o.printf("marked    %s by %s at %s UTC", string(i.Mark), cmp.Or(i.By, "an unknown user"), clockText(i.At.Truncate(time.Second), now))
		if i.Note != "" {
			o.printf(": %s", i.Note)
		}
		o.printf("\n")
	}
	o.printf("\n")
	t := terminal.Table{Columns: slices.Clone(append(slices.Clone(alertColumns), terminal.Column{Head: "STATE"}, idColumn))}
	for _, a := range alerts {
		t.Row(append(alertCells(o, a.Record, now), string(a.State), o.paint(a.ID, terminal.Dim))...)
	}
	o.lines(t.Lines(o.width))
	if len(deliveries) == 0 {
		o.printf("\nno notifications\n")
		return
	}
	o.printf("\nnotified:\n")
	deliveryTable(o, wide, deliveries)
}

// silencedBy says who has silenced an incident, and why.
func silencedBy(ctx context.Context, st store.Silences, i incident.Incident) (string, error) {
	if i.Silenced == "" {
		return "", nil
	}
	list, err := st.Silences(ctx, time.Time{})
	if err != nil {
		return "", err
	}
	for _, s := range list {
		if s.ID == i.Silenced {
			return fmt.Sprintf("%s, silence %s: %s", s.Author, s.ID, s.Reason), nil
		}
	}
	return "silence " + i.Silenced, nil
}

// stateText says which state an incident is in, and since when.
func stateText(i incident.Incident, now time.Time) string {
	at := func(t time.Time) string { return clockText(t.Truncate(time.Second), now) }
	text := "open since " + at(i.OpenedAt)
	if i.State == incident.StateResolved {
		text = "opened at " + at(i.OpenedAt)
	}
	if !i.EscalatedAt.IsZero() {
		text += ", critical since " + at(i.EscalatedAt)
	}
	if i.State == incident.StateResolved {
		return text + ", resolved at " + at(i.ResolvedAt)
	}
	return text + fmt.Sprintf("; the incident ends if no further window follows within %s of the last one", short(i.Quiet))
}

type incidentsMarkCommand struct {
	incidentFlags
	ID   string `arg:"" name:"id" help:"ID of the incident, a unique prefix of this ID (at least 4 digits), or the webhook-id of a message about the incident."`
	Mark string `arg:"" name:"mark" help:"What the incident turned out to be: attack, benign or unsure; none removes the mark."`
	Note string `placeholder:"TEXT" help:"Reason for the mark; at most 1,000 characters."`
	By   string `placeholder:"NAME" help:"Person who sets the mark. Default: the user who runs the command."`
	JSON bool   `name:"json" help:"Print the incident as JSON."`
}

// maxNote bounds a note and a name, in characters.
const maxNote = 1000

// Run is the command.
func (c *incidentsMarkCommand) Run(e *env) (err error) {
	m := incident.Marked{Note: c.Note, By: c.By, At: time.Now().UTC().Truncate(time.Millisecond)}
	var errs []error
	if c.Mark != "none" {
		if m.Mark, err = incident.ParseMark(c.Mark); err != nil {
			errs = append(errs, fmt.Errorf("mark: %q is not one of attack, benign, unsure, none", c.Mark))
		}
	}
	if len([]rune(c.Note)) > maxNote || len([]rune(c.By)) > maxNote {
		errs = append(errs, fmt.Errorf("note, by: must be at most %d characters long", maxNote))
	}
	if err := usage(errors.Join(errs...)); err != nil {
		return err
	}
	if u, err := user.Current(); err == nil && m.By == "" {
		m.By = u.Username
	}
	st, err := c.incidents(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	i, err := wholeIncident(e.ctx, st, c.ID)
	if err == nil {
		err = st.Mark(e.ctx, i.ID, m)
	}
	if err != nil {
		return noIncident(e.ctx, st, err, c.ID)
	}
	if c.JSON {
		i.Marked = &m
		if m.Mark == "" {
			i.Marked = nil
		}
		return newResult(e, i)
	}
	if m.Mark == "" {
		terminal.Fprintf(e.stdout, "removed the mark from incident %s\n", i.ID)
	} else {
		terminal.Fprintf(e.stdout, "%s is marked %s\n", i.ID, string(m.Mark))
	}
	return nil
}
