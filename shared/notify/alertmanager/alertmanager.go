// Package alertmanager delivers messages to an Alertmanager by its API v2 (https://prometheus.io/docs/alerting/latest/alerts_api/).
//
// An incident, or an alert, is one alert there. Labels identify an alert, so there are few, and none of them changes: alertname is the rule, key the
// key, and incident (or alert) the id. The severity is an annotation: as a label, it would turn an escalating alert into a second alert, while the
// first one stays open.
//
// To Alertmanager, endsAt is a lease: an alert whose endsAt has passed is resolved. So the lease of an open incident is a few minutes, and it is renewed every
// minute ([notify.Renewer]), as Alertmanager expects of its clients. Alertmanager does not store alerts, so after a restart it gets the open incidents
// within a minute. An incident ends there if spate is gone for longer than the lease. The message about the end sets endsAt to the end: in Alertmanager, the newest
// resolved message replaces what it had. An alert is not renewed; its lease is longer than any window.
//
// The Alertmanagers of a cluster share silences and notification logs, but not alerts, so each is a separate endpoint.
package alertmanager

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/notify/post"
)

const (
	// lease is how long an incident lasts there without a renewal: a few of these may fail.
	lease = 5 * notify.RenewEvery
	// alertLease is how long an alert lasts whose end is not known: longer than windows do.
	alertLease = 24 * time.Hour
	// moment is how long the alert for a digest or a test lasts. By default, Alertmanager waits for less before it sends a notification.
	moment = 5 * time.Minute

	maxLabel = 1000 // characters; Alertmanager documents no bound
)

// Config configures a Sender. In any format, it prints only the host.
type Config struct {
	// Target is Alertmanager's URL, with its prefix (--web.route-prefix) if it has one. /api/v2/alerts is added unless the path ends with it.
	post.Target
	// Username and Password, or Token, are for a proxy in front of it that requires basic or bearer authentication. Both may be empty.
	Username string
	Password post.Secret
	Token    post.Secret
	// Link becomes generatorURL, with {since} and {until}; empty: there is none.
	Link string
}

// Validate reports every problem at once, each beginning with the name of its field. No error contains a secret.
func (c Config) Validate() error {
	errs := []error{c.Target.Validate()}
	if !c.Token.IsZero() && (c.Username != "" || !c.Password.IsZero()) {
		errs = append(errs, errors.New("token: cannot be used with username and password; use one or the other"))
	}
	if (c.Username == "") != c.Password.IsZero() {
		errs = append(errs, errors.New("username: basic authentication requires both username and password; add the missing one"))
	}
	if strings.ContainsFunc(c.Username, func(r rune) bool { return r < ' ' || r == ':' || r == 0x7f }) {
		errs = append(errs, errors.New("username: contains a colon or a control character, which basic authentication does not allow"))
	}
	for _, s := range []struct {
		field string
		post.Secret
	}{{"password", c.Password}, {"token", c.Token}} {
		if strings.ContainsFunc(s.Reveal(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			errs = append(errs, errors.New(s.field+": contains a line break or another control character"))
		}
	}
	return errors.Join(errs...)
}

// Sender is the notify.Notifier. It is safe for concurrent use.
type Sender struct {
	client *post.Client
	auth   post.Secret // the header
	link   string
	path   []string
}

var (
	_ notify.Notifier = (*Sender)(nil)
	_ notify.Renewer  = (*Sender)(nil)
)

// New returns a Sender. The caller closes it.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("alertmanager: %w", err)
	}
	s := &Sender{link: c.Link}
	basic := base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password.Reveal()))
	switch {
	case !c.Token.IsZero():
		s.auth = post.NewSecret("Bearer " + c.Token.Reveal())
	case c.Username != "":
		s.auth = post.NewSecret("Basic " + basic)
	}
	secrets := []string{c.Token.Reveal(), c.Password.Reveal()}
	if c.Username != "" {
		secrets = append(secrets, basic)
	}
	var err error
	if s.client, err = post.New(c.Target, "alertmanager", secrets...); err != nil {
		return nil, fmt.Errorf("alertmanager: %w", err)
	}
	if u, err := c.Parse(); err == nil && !strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/api/v2/alerts") {
		s.path = []string{"api", "v2", "alerts"}
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

// Check implements notify.Notifier.
func (s *Sender) Check(m notify.Message) error {
	_, err := s.body(m)
	return err
}

type postable struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     string            `json:"startsAt"`
	EndsAt       string            `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func (s *Sender) body(ms ...notify.Message) ([]byte, error) {
	alerts := make([]postable, len(ms))
	for i, m := range ms {
		var err error
		if alerts[i], err = s.alert(m); err != nil {
			return nil, err
		}
	}
	return post.Encode(alerts)
}

func (s *Sender) alert(m notify.Message) (postable, error) {
	b, err := brief.Of(m, s.link)
	if err != nil {
		return postable{}, err
	}
	starts, ends := times(b, s.client.Now())
	p := postable{
		Labels:       map[string]string{"alertname": name(b), string(b.Kind): b.ID},
		Annotations:  map[string]string{"title": b.Title, "status": b.Status},
		StartsAt:     stamp(starts),
		EndsAt:       stamp(ends),
		GeneratorURL: b.Link,
	}
	if b.Key != "" {
		p.Labels["key"] = brief.Cut(b.Key, maxLabel)
	}
	for name, text := range map[string]string{"summary": b.Summary, "runbook_url": b.Runbook, "severity": string(b.Severity)} {
		if text != "" {
			p.Annotations[name] = text
		}
	}
	if b.Summary == "" {
		p.Annotations["summary"] = b.Headline()
	}
	var description []string
	for _, f := range b.Facts {
		description = append(description, f.Name+": "+f.Text)
	}
	p.Annotations["description"] = strings.Join(append(description, b.Lines...), "\n")
	return p, nil
}

// name is what is looked for in routes and silences: the rule, and of what has none, the kind.
func name(b brief.Brief) string {
	if b.Rule != "" {
		return brief.Cut(b.Rule, maxLabel)
	}
	return "spate-" + string(b.Kind)
}

// times are when an alert starts and ends. The end is after the start, as Alertmanager demands.
func times(b brief.Brief, now time.Time) (starts, ends time.Time) {
	starts = b.Begin
	if starts.After(now) { // event time can be ahead
		starts = now
	}
	switch b.Phase {
	case brief.Begins, brief.Grows:
		ends = now.Add(lease)
		if b.Kind == brief.Alert {
			ends = now.Add(alertLease)
		}
	case brief.Ends:
		if ends = b.End; ends.After(now) {
			ends = now
		}
	default:
		starts, ends = now, now.Add(moment)
	}
	if !ends.After(starts) {
		starts = ends.Add(-time.Millisecond)
	}
	return starts, ends
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// Notify implements notify.Notifier. A 400 is Failed, too: alerts conform to the documented schema, so the URL is most likely
// that of another service, which an operator can fix.
func (s *Sender) Notify(ctx context.Context, m notify.Message) notify.Result { return s.post(ctx, m) }

// Renew implements notify.Renewer.
func (s *Sender) Renew(ctx context.Context, ms []notify.Message) notify.Result {
	return s.post(ctx, ms...)
}

func (s *Sender) post(ctx context.Context, ms ...notify.Message) notify.Result {
	body, err := s.body(ms...)
	if err != nil {
		return post.Unsendable(err)
	}
	call := post.Call{Path: s.path, Body: body}
	if !s.auth.IsZero() {
		call.Header = http.Header{"Authorization": {s.auth.Reveal()}}
	}
	a := s.client.Do(ctx, call)
	r := s.client.Judge(a)
	if r.Outcome == notify.Delivered && a.Status != http.StatusOK {
		return post.Failed(a.Status, fmt.Sprintf("status %d, but Alertmanager responds with 200 when it accepts alerts: the URL may belong to another service", a.Status))
	}
	return r
}
