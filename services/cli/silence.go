package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/user"
	"slices"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/terminal"
)

type silenceCommand struct {
	Add    silenceAddCommand    `cmd:"" help:"Suppress notifications about a rule's or key's incidents for a limited time; the incidents are still stored."`
	Ls     silenceLsCommand     `cmd:"" help:"List active and future silences, and how many incidents each has suppressed."`
	Expire silenceExpireCommand `cmd:"" help:"End a silence now."`
}

// previewed is how far back a preview looks.
const previewed = 24 * time.Hour

type silenceAddCommand struct {
	incidentFlags
	Rule    string        `placeholder:"RULE" help:"Silence incidents from this rule. Without a rules file, the only rule is burst."`
	Key     []string      `name:"key" placeholder:"COLUMN=VALUE" help:"Silence incidents whose key has this value, such as user_id=42; 42 matches the number and the string. Repeatable; all must match."`
	For     time.Duration `name:"for" default:"1h" help:"Duration, at most 744h (31 days)."`
	From    string        `placeholder:"TIME" help:"Start of the silence: a timestamp (2026-11-24T09:30:00Z), or a duration from now (10m). Default: now."`
	Why     string        `placeholder:"TEXT" help:"Reason for the silence, for the people on call. Required, except with --preview."`
	By      string        `placeholder:"NAME" help:"Author of the silence. Default: the user who runs the command."`
	Preview bool          `help:"Show which incidents from the last 24 hours the silence would have suppressed, without adding it."`
	JSON    bool          `name:"json" help:"Print one JSON object: the silence (absent with --preview) and preview: incidents, messages, by_endpoint."`
}

// Help is shown below the usage.
func (silenceAddCommand) Help() string {
	return `A silence applies to messages about incidents. Endpoints configured with the field transitions are still notified of alerts. An endpoint that was notified of an incident before the
silence is also notified of the incident's end. If an incident outlasts the silence, its next alert triggers the notification. To exclude something permanently, add a condition to the rule's WHERE clause.`
}

// preview is what a silence would have suppressed.
type preview struct {
	Incidents  int            `json:"incidents"`
	Messages   int            `json:"messages"`
	ByEndpoint map[string]int `json:"by_endpoint"`

	newest []incident.Incident
}

// shownPreview is how many incidents a preview shows.
const shownPreview = 5

// previewOf returns which incidents a silence would have suppressed if it had been active since a time.
func previewOf(ctx context.Context, st incidentReader, s incident.Silence, since time.Time) (p preview, err error) {
	p.ByEndpoint = map[string]int{}
	kept := map[string]bool{}
	for i, err := range st.Incidents(ctx, store.IncidentFilter{Rule: s.Rule, OpenedSince: since, Newest: true}) {
		if err != nil {
			return p, err
		}
		if i.Mode == alert.Shadow || !s.Match(&i) {
			continue
		}
		kept[i.ID] = true
		if p.Incidents++; len(p.newest) < shownPreview {
			p.newest = append(p.newest, i)
		}
	}
	if p.Incidents == 0 {
		return p, nil
	}
	for d, err := range st.ListDeliveries(ctx, store.DeliveryFilter{Since: since}) {
		if err != nil {
			return p, err
		}
		if kept[d.Incident] {
			p.Messages++
			p.ByEndpoint[d.Endpoint]++
		}
	}
	return p, nil
}

func (p preview) write(o *out, now time.Time) {
	if p.Incidents == 0 {
		o.printf("No incidents from the last 24 hours match.\n")
		return
	}
	var by []string
	for _, name := range slices.Sorted(maps.Keys(p.ByEndpoint)) {
		by = append(by, fmt.Sprintf("%s %d", name, p.ByEndpoint[name]))
	}
	to := ""
	if len(by) > 0 {
		to = " (" + strings.Join(by, ", ") + ")"
	}
	o.printf("This silence would have suppressed %s and %s%s in the last 24 hours:\n", counted(p.Incidents, "incident", "incidents"), counted(p.Messages, "message", "messages"), to)
	t := terminal.Table{Columns: incidentColumns(o.width)}
	for _, i := range slices.Backward(p.newest) {
		t.Row(incidentCells(o, i, now)...)
	}
	o.lines(t.Lines(o.width))
	if p.Incidents > len(p.newest) {
		o.printf("(the newest %d)\n", len(p.newest))
	}
}

func (c *silenceAddCommand) silence(now time.Time) (incident.Silence, error) {
	s := incident.Silence{ID: incident.NewSilenceID(), Rule: c.Rule, From: now, Author: c.By, Reason: c.Why, CreatedAt: now}
	var errs []error
	key, err := keyValues(c.Key)
	if err != nil {
		errs = append(errs, fmt.Errorf("key: %w", err))
	}
	s.Key = key
	if c.From != "" {
		if in, derr := time.ParseDuration(strings.TrimPrefix(c.From, "+")); derr == nil && in >= 0 {
			s.From = now.Add(in)
		} else if s.From, err = moment("from", c.From, now); err != nil {
			errs = append(errs, fmt.Errorf("from: %q is not a time; use a timestamp (2026-11-24T09:30:00Z) or a duration from now (10m)", c.From))
		}
	}
	if u, err := user.Current(); err == nil && s.Author == "" {
		s.Author = u.Username
	}
	s.Until = s.From.Add(c.For)
	if c.For >= time.Second && !s.Until.After(now) {
		errs = append(errs, fmt.Errorf("from, for: the silence would have ended at %s, which is in the past", s.Until.Format(time.RFC3339)))
	}
	checked := s
	if c.Preview && checked.Reason == "" {
		checked.Reason = "preview"
	}
	return s, errors.Join(append(errs, checked.Validate())...)
}

// Run is the command.
func (c *silenceAddCommand) Run(e *env) (err error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	s, err := c.silence(now)
	if err := usage(err); err != nil {
		return err
	}
	st, err := c.incidents(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if !c.Preview {
		if err := st.AddSilence(e.ctx, s); err != nil { // first: it may be urgent
			return err
		}
	}
	p, err := previewOf(e.ctx, st, s, now.Add(-previewed))
	if err != nil {
		return err
	}
	if err := c.strangers(e, st, s); err != nil {
		return err
	}
	if c.JSON {
		result := struct {
			Silence *incident.Silence `json:"silence,omitempty"`
			Preview preview           `json:"preview"`
		}{Preview: p}
		if !c.Preview {
			result.Silence = &s
		}
		return newResult(e, result)
	}
	o := newOut(e.stdout)
	p.write(o, now)
	if !c.Preview {
		o.printf("silence %s is active %s UTC; to end it, run spate silence expire %s\n", s.ID, activeText(s, now), s.ID)
	}
	return o.end(nil)
}

// activeText says when a silence is active.
func activeText(s incident.Silence, now time.Time) string {
	until := clockText(s.Until.Truncate(time.Second), now)
	if s.From.After(now) {
		return fmt.Sprintf("from %s (in %s) to %s", clockText(s.From.Truncate(time.Second), now), short(s.From.Sub(now).Round(time.Second)), until)
	}
	return "until " + until
}

// strangers warns about a rule or a column that no alert has.
func (c *silenceAddCommand) strangers(e *env, st incidentReader, s incident.Silence) error {
	var k ruleNames
	for a, err := range st.Alerts(e.ctx, store.Filter{Newest: true, Limit: namedAlerts}) {
		if err != nil {
			return err
		}
		names, err := alert.KeyNames(incident.KeyOf(&a.Record))
		if err != nil {
			return err
		}
		k.add(a.Rule, names)
	}
	if len(k.rules) == 0 {
		return nil // there is nothing to compare with
	}
	if s.Rule != "" && !slices.Contains(k.rules, s.Rule) {
		terminal.Fprintf(e.stderr, "spate: rule: there are no alerts from a rule named %s%s\n", s.Rule, terminal.Safe(didYouMean(s.Rule, k.rules)))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Key)) {
		if !slices.Contains(k.columns, name) {
			hint := didYouMean(name, k.columns)
			if hint == "" {
				hint = "; the columns are " + terminal.Text(strings.Join(k.columns, ", "))
			}
			terminal.Fprintf(e.stderr, "spate: key: no alert has a key with the column %s%s\n", name, terminal.Safe(hint))
		}
	}
	return nil
}

type silenceLsCommand struct {
	incidentFlags
	All  bool `short:"a" help:"Also list silences that have ended."`
	JSON bool `name:"json" help:"Print one JSON line per silence, with the number of incidents that it has suppressed (incidents)."`
}

// Run is the command.
func (c *silenceLsCommand) Run(e *env) (err error) {
	st, err := c.incidents(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	now := time.Now()
	after := now
	if c.All {
		after = time.Time{}
	}
	silences, err := st.Silences(e.ctx, after)
	if err != nil {
		return err
	}
	o := newOut(e.stdout)
	t := terminal.Table{Columns: []terminal.Column{{Head: "SILENCE", Floor: shortID, Prefix: true}, {Head: "RULE", Floor: 5}, {Head: "KEY", Floor: 9}, {Head: "ACTIVE (UTC)"}, {Head: "SUPPRESSED", Right: true}, {Head: "BY", Floor: 5}, {Head: "WHY", Floor: 12}}}
	counts, err := keptBy(e.ctx, st, silences, e.mode == "aws")
	if err != nil {
		return err
	}
	for _, s := range silences {
		kept := counts[s.ID]
		if c.JSON {
			if err := o.json(struct {
				incident.Silence
				Incidents int `json:"incidents"`
			}{s, kept}); err != nil {
				return o.end(err)
			}
			continue
		}
		var key []string
		for _, name := range slices.Sorted(maps.Keys(s.Key)) {
			key = append(key, name+"="+s.Key[name])
		}
		rule := s.Rule
		if rule == "" {
			rule = "any"
		}
		t.Row(s.ID, rule, strings.Join(key, " "), activeText(s, now), kept, s.Author, s.Reason)
	}
	if !c.JSON && len(silences) == 0 {
		none := "no active silences; to list those that have ended, add --all"
		if c.All {
			none = "no silences yet"
		}
		terminal.Fprintln(e.stderr, none)
	} else if !c.JSON {
		o.lines(t.Lines(o.width))
	}
	return o.end(nil)
}

// keptBy counts the incidents that each silence has kept from being told. If a list of any of them costs what a list of all does, it asks once.
func keptBy(ctx context.Context, st incidentLister, silences []incident.Silence, once bool) (map[string]int, error) {
	filters := []store.IncidentFilter{{}}
	if !once || len(silences) == 0 {
		filters = nil
		for _, s := range silences {
			filters = append(filters, store.IncidentFilter{Silenced: s.ID})
		}
	}
	out := make(map[string]int)
	for _, f := range filters {
		for i, err := range st.Incidents(ctx, f) {
			if err != nil {
				return nil, err
			}
			out[i.Silenced]++
		}
	}
	return out, nil
}

type silenceExpireCommand struct {
	incidentFlags
	ID   string `arg:"" name:"id" help:"ID of the silence, or a unique prefix of this ID."`
	JSON bool   `name:"json" help:"Print the silence as JSON."`
}

// Run is the command.
func (c *silenceExpireCommand) Run(e *env) (err error) {
	st, err := c.incidents(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	now := time.Now().UTC().Truncate(time.Millisecond)
	list, err := st.Silences(e.ctx, now)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s incident.Silence) bool { return !strings.HasPrefix(s.ID, strings.ToLower(c.ID)) })
	switch {
	case c.ID == "" || len(list) == 0:
		return fmt.Errorf("no active silence has the ID %s; to list active silences, run spate silence ls", terminal.Text(c.ID))
	case len(list) > 1:
		return fmt.Errorf("more than one silence ID begins with %s; give more digits", terminal.Text(c.ID))
	}
	s := list[0]
	if err := st.EndSilence(e.ctx, s.ID, now); err != nil {
		return err
	}
	if c.JSON {
		s.Until = now
		return newResult(e, s)
	}
	terminal.Fprintf(e.stdout, "silence %s has ended\n", s.ID)
	return nil
}
