// Package pagerduty delivers messages to PagerDuty by its Events API v2 (https://developer.pagerduty.com/docs/events-api-v2/overview/).
//
// An incident, or an alert, is one alert in PagerDuty: its id is the dedup_key, a message that it opened or became more severe is a trigger, and a
// message about its end is a resolve. A digest is a trigger of its own that is never resolved; a test is a trigger of severity info, resolved at once.
//
// PagerDuty drops a resolve whose dedup_key has no open alert, so a message that arrives after the one about the end opens an alert that stays
// open. Package notify promises no order; the alerter keeps messages in order as far as possible.
package pagerduty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/notify/post"
)

const (
	// DefaultURL is the URL of the US service region; https://events.eu.pagerduty.com is the URL of the EU service region.
	DefaultURL = "https://events.pagerduty.com"

	// The documented limits, in characters. Those of the other texts are not documented.
	maxSummary = 1024
	maxSource  = 255

	// usually is how long 429 is heeded that does not say for how long: "a few minutes", as documented.
	usually = 2 * time.Minute
)

// Config configures a Sender. In any format, it prints only the host.
type Config struct {
	// Target is PagerDuty. Without a path, calls go to /v2/enqueue.
	post.Target
	// RoutingKey is the integration key of a service or a ruleset, 32 letters and digits.
	RoutingKey post.Secret
	// Link is the URL for details, with {since} and {until}; empty: there is none.
	Link string
}

var keyForm = regexp.MustCompile(`^[A-Za-z0-9]{32}$`)

// Validate reports every problem at once, each beginning with the name of its field. No error contains a secret.
func (c Config) Validate() error {
	err := c.Target.Validate()
	switch {
	case c.RoutingKey.IsZero():
		err = errors.Join(err, errors.New("routing_key: missing; it is the integration key of an Events API v2 integration"))
	case !keyForm.MatchString(c.RoutingKey.Reveal()):
		err = errors.Join(err, errors.New("routing_key: is not 32 letters and digits; copy the integration key of an Events API v2 integration"))
	}
	return err
}

// Sender is the notify.Notifier. It is safe for concurrent use.
type Sender struct {
	client *post.Client
	key    post.Secret
	link   string
	path   []string
}

var _ notify.Notifier = (*Sender)(nil)

// New returns a Sender. The caller closes it.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("pagerduty: %w", err)
	}
	client, err := post.New(c.Target, "pagerduty", c.RoutingKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("pagerduty: %w", err)
	}
	s := &Sender{client: client, key: c.RoutingKey, link: c.Link}
	if u, err := c.Parse(); err == nil && (u.Path == "" || u.Path == "/") {
		s.path = []string{"v2", "enqueue"}
	}
	return s, nil
}

// Host returns the part of the URL that may be shown.
func (s *Sender) Host() string { return s.client.Host() }

// String is Host.
func (s *Sender) String() string { return s.Host() }

// Format keeps every verb of package fmt from showing more than Host.
func (s *Sender) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Host()) }

// LogValue is Host.
func (s *Sender) LogValue() slog.Value { return slog.StringValue(s.Host()) }

// Close closes idle connections.
func (s *Sender) Close() { s.client.Close() }

type (
	event struct {
		RoutingKey  string   `json:"routing_key"`
		EventAction string   `json:"event_action"`
		DedupKey    string   `json:"dedup_key"`
		Payload     *payload `json:"payload,omitempty"` // of triggers
		Links       []link   `json:"links,omitempty"`
		Client      string   `json:"client,omitempty"`
		ClientURL   string   `json:"client_url,omitempty"`
	}
	payload struct {
		Summary       string            `json:"summary"`
		Source        string            `json:"source"`
		Severity      string            `json:"severity"`
		Timestamp     string            `json:"timestamp"`
		Group         string            `json:"group,omitempty"`
		Class         string            `json:"class"`
		CustomDetails map[string]string `json:"custom_details"`
	}
	link struct {
		Href string `json:"href"`
		Text string `json:"text"`
	}
)

// Check implements notify.Notifier.
func (s *Sender) Check(m notify.Message) error {
	_, err := s.events(m)
	return err
}

// events returns the bodies of the calls that a message takes: one, or, of a test, two.
func (s *Sender) events(m notify.Message) ([][]byte, error) {
	b, err := brief.Of(m, s.link)
	if err != nil {
		return nil, err
	}
	events := []event{{RoutingKey: s.key.Reveal(), EventAction: "resolve", DedupKey: b.ID}}
	if b.Phase != brief.Ends {
		events[0] = s.trigger(b)
	}
	if b.Kind == brief.Test {
		events = append(events, event{RoutingKey: s.key.Reveal(), EventAction: "resolve", DedupKey: b.ID})
	}
	var out [][]byte
	for _, e := range events {
		body, err := post.Encode(e)
		if err != nil {
			return nil, err
		}
		out = append(out, body)
	}
	return out, nil
}

func (s *Sender) trigger(b brief.Brief) event {
	p := payload{
		Summary: b.Title, Source: "spate", Severity: string(b.Severity), Timestamp: b.At.Format("2006-01-02T15:04:05.000Z07:00"),
		Group: b.Rule, Class: string(b.Kind), CustomDetails: make(map[string]string),
	}
	if b.Summary != "" {
		p.Summary += " - " + b.Summary
	}
	if b.Key != "" {
		p.Source = b.Key // the affected system: whose events they are
	}
	if b.Kind == brief.Test {
		p.Severity = "info"
	}
	p.Summary, p.Source = brief.Cut(p.Summary, maxSummary), brief.Cut(p.Source, maxSource)
	p.Group = brief.Cut(p.Group, maxSource)
	for _, f := range b.Facts {
		p.CustomDetails[f.Name] = f.Text
	}
	for i, line := range b.Lines {
		p.CustomDetails[fmt.Sprintf("top %d", i+1)] = line
	}
	e := event{RoutingKey: s.key.Reveal(), EventAction: "trigger", DedupKey: b.ID, Payload: &p, Client: "spate", ClientURL: b.Link}
	if b.Runbook != "" {
		e.Links = append(e.Links, link{b.Runbook, "Runbook"})
	}
	if b.Link != "" {
		e.Links = append(e.Links, link{b.Link, "Dashboard"})
	}
	return e
}

// Notify implements notify.Notifier.
func (s *Sender) Notify(ctx context.Context, m notify.Message) notify.Result {
	bodies, err := s.events(m)
	if err != nil {
		return post.Unsendable(err)
	}
	var r notify.Result
	for _, body := range bodies {
		a := s.client.Do(ctx, post.Call{Path: s.path, Body: body})
		if r = s.judge(a); r.Outcome != notify.Delivered {
			return r
		}
	}
	return r
}

// judge maps an answer as documented: 202 is accepted; 429, 5xx and no answer are to be tried again.
//
// 400 is documented as not to be tried again, for the event is at fault. Here it is Failed all the same, and not Unsendable: events keep to the
// documented schema, so what PagerDuty refuses is almost always the routing key, of an integration that was deleted or a service region that is not the
// URL's. An operator can fix that while the message is retried; a page that is given up after the first try would be lost unnoticed.
func (s *Sender) judge(a post.Answer) notify.Result {
	r := s.client.Judge(a)
	if r.Outcome == notify.Delivered && a.Status != http.StatusAccepted {
		return post.Failed(a.Status, fmt.Sprintf("status %d, but PagerDuty responds with 202 when it accepts events: the URL may belong to another service", a.Status))
	}
	return post.Throttle(r, usually)
}
