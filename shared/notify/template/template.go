// Package template delivers messages as calls whose body and headers are Go templates (text/template): for receivers with an HTTP interface but no
// format of their own.
//
// A template sees the message as in Standard Webhooks (type, timestamp and data, with the id) and its texts for people (package brief). Numbers keep all
// their digits. A template cannot run programs, read files or make network calls, and its work is bounded: 10,000 iterations of loops and templates,
// 16 MiB of text, 1 MiB of output (run.go). Errors are found when the template is loaded, as far as examples of all messages show them; an error that is
// found later makes a message unsendable.
package template

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"

	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/notify/post"
)

const (
	// DefaultContentType is that of a body unless another one is given.
	DefaultContentType = "application/json"

	maxTemplate = 64 << 10 // bytes
	maxOutput   = 1 << 20
	maxHeaders  = 32
	maxHeader   = 8 << 10 // bytes of a value
)

// Config configures a Sender. In any format, it prints only the host.
type Config struct {
	post.Target
	// Body and Headers, by name, are templates.
	Body    string
	Headers map[string]string
	// Method is POST (also if empty) or PUT.
	Method string
	// ContentType is the media type of the body; empty means DefaultContentType. A body that should be JSON but is not is never sent.
	ContentType string
	// Secret is the result of the function secret.
	Secret post.Secret
	// Link is the URL for details, with {since} and {until}; empty: there is none.
	Link string
	// Alerts: the endpoint is notified of alerts, not of incidents, so its templates need not handle incidents.
	Alerts bool
}

// ours are the headers that templates cannot make, in canonical form.
var ours = map[string]string{
	"Content-Type": "use content_type", "Content-Length": "", "Host": "", "Connection": "", "Transfer-Encoding": "", "Upgrade": "", "Te": "", "Trailer": "", "Expect": "", "Accept-Encoding": "",
}

// headerForm is a token of RFC 9110.
var headerForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")

// action is what is not plain text in a template.
var action = regexp.MustCompile(`(?s)\{\{.*?\}\}`)

// Validate reports every problem at once, each beginning with the name of its field. No error contains a secret.
func (c Config) Validate() error {
	_, err := c.compile()
	return errors.Join(c.Target.Validate(), err)
}

// compiled are the templates of a Config.
type compiled struct {
	body    *program
	headers map[string]*program // by canonical name
	json    bool
}

func (c Config) compile() (compiled, error) {
	out := compiled{headers: make(map[string]*program)}
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Method != "" && c.Method != http.MethodPost && c.Method != http.MethodPut {
		problem("method: must be POST or PUT")
	}
	kind, _, err := mime.ParseMediaType(c.contentType())
	if err != nil || strings.ContainsFunc(c.contentType(), func(r rune) bool { return r < ' ' || r > '~' }) {
		problem("content_type: is not a media type; use a form such as application/json")
	}
	out.json = kind == "application/json" || strings.HasSuffix(kind, "+json")
	if strings.TrimSpace(c.Body) == "" {
		problem("body: missing; give a template, as in body: '{\"text\": {{json .title}}}'")
	} else if out.body, err = compileText("body", c.Body); err != nil {
		problem("body: %w", err)
	}
	if len(c.Headers) > maxHeaders {
		problem("headers: there are more than %d", maxHeaders)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		fix, reserved := ours[canonical]
		switch {
		case !headerForm.MatchString(name):
			problem("headers: a name is not a valid header name; use letters, digits and dashes")
		case reserved:
			problem("headers: %s: cannot be set; %s", name, strings.TrimSpace("remove it "+fix))
		default:
			p, err := compileText(name, c.Headers[name])
			if err != nil {
				problem("headers: %s: %w", name, err)
			}
			out.headers[canonical] = p
		}
	}
	if err := errors.Join(errs...); err != nil {
		return compiled{}, err
	}
	return out, c.try(out)
}

func (c Config) contentType() string {
	if c.ContentType == "" {
		return DefaultContentType
	}
	return c.ContentType
}

// try runs the templates for examples of all messages that there can be.
func (c Config) try(t compiled) error {
	for _, m := range examples(c.Alerts) {
		b, err := brief.Of(m, c.Link)
		if err != nil {
			return err
		}
		if _, err := t.request(m, b, c.Secret); err != nil {
			field, rest, _ := strings.Cut(err.Error(), ": ")
			return fmt.Errorf("%s: tried with a message of type %s: %s", field, m.Type, rest)
		}
	}
	return nil
}

// Sender is the notify.Notifier. It is safe for concurrent use.
type Sender struct {
	client      *post.Client
	templates   compiled
	method      string
	contentType string
	secret      post.Secret
	link        string
}

var _ notify.Notifier = (*Sender)(nil)

// New returns a Sender. The caller closes it.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	templates, err := c.compile()
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	secrets := []string{c.Secret.Reveal()}
	for _, h := range c.Headers { // who is careless writes a token there, which has no words
		for _, part := range strings.Fields(action.ReplaceAllString(h, " ")) {
			if len(part) >= 8 && strings.ContainsAny(part, "0123456789") {
				secrets = append(secrets, part)
			}
		}
	}
	client, err := post.New(c.Target, "template", secrets...)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	return &Sender{client: client, templates: templates, method: c.Method, contentType: c.contentType(), secret: c.Secret, link: c.Link}, nil
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
	_, err := s.call(m)
	return err
}

// Notify implements notify.Notifier.
func (s *Sender) Notify(ctx context.Context, m notify.Message) notify.Result {
	call, err := s.call(m)
	if err != nil {
		return post.Unsendable(err)
	}
	return s.client.Judge(s.client.Do(ctx, call))
}

// call makes the call. An error wraps notify.ErrUnsendable.
func (s *Sender) call(m notify.Message) (post.Call, error) {
	b, err := brief.Of(m, s.link)
	if err != nil {
		return post.Call{}, err
	}
	call, err := s.templates.request(m, b, s.secret)
	if err != nil {
		return post.Call{}, fmt.Errorf("%w: %s", notify.ErrUnsendable, s.client.Said([]byte(err.Error())))
	}
	call.Method = s.method
	call.Header.Set("Content-Type", s.contentType)
	return call, nil
}

// request runs the templates. The error names the field.
func (t compiled) request(m notify.Message, b brief.Brief, secret post.Secret) (post.Call, error) {
	view, err := viewOf(m, b)
	if err != nil {
		return post.Call{}, fmt.Errorf("body: %w", err)
	}
	r := newRun(secret)
	call := post.Call{Header: make(http.Header)}
	if call.Body, err = r.execute(t.body, view, maxOutput); err != nil {
		return post.Call{}, fmt.Errorf("body: %w", err)
	}
	if t.json && !json.Valid(call.Body) {
		return post.Call{}, errors.New(`body: the result is not JSON; write {{json .title}} in place of "{{.title}}", so that text from events is quoted`)
	}
	for _, name := range slices.Sorted(maps.Keys(t.headers)) {
		value, err := r.execute(t.headers[name], view, maxHeader)
		if err != nil {
			return post.Call{}, fmt.Errorf("headers: %s: %w", name, err)
		}
		call.Header[name] = []string{oneLine(string(value))}
	}
	return call, nil
}

// oneLine makes a value of a header of a text: one that ends the header, or hides something in it, is none.
func oneLine(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text))
}

// viewOf is what a template sees.
func viewOf(m notify.Message, b brief.Brief) (map[string]any, error) {
	var data any
	dec := json.NewDecoder(bytes.NewReader(m.Data))
	dec.UseNumber() // 9007200134741019 stays what it is
	if err := dec.Decode(&data); err != nil {
		return nil, errors.New("the data is not JSON")
	}
	facts := make([]any, len(b.Facts))
	for i, f := range b.Facts {
		facts[i] = map[string]any{"name": f.Name, "text": f.Text}
	}
	lines := make([]any, len(b.Lines))
	for i, l := range b.Lines {
		lines[i] = l
	}
	return map[string]any{
		"type": m.Type, "id": m.ID, "timestamp": m.At.UTC().Format("2006-01-02T15:04:05.000Z07:00"), "data": data,
		"kind": string(b.Kind), "subject": b.ID, "title": b.Title, "status": b.Status, "severity": string(b.Severity), "rule": b.Rule, "key": b.Key,
		"summary": b.Summary, "runbook": b.Runbook, "link": b.Link, "facts": facts, "lines": lines, "ends": b.Phase == brief.Ends,
	}, nil
}

// examples are messages of all types that an endpoint can get. Their texts have quotes, so that a template which does not write them as JSON is found
// out, and lack what is optional.
func examples(alerts bool) []notify.Message {
	const (
		key      = `{"user_id":"\"O'Neill\" <a&b>\\"}`
		incident = `{"id":"0123456789abcdef0123456789abcdef","rule":"burst","state":"open","severity":"warning","key":` + key +
			`,"opened_at":"2026-09-01T12:00:08.123Z","first_window_start":"2026-09-01T12:00:00Z","last_window_end":"2026-09-01T12:00:10Z","windows":1,"events":6,"peak":6,"alert_id":"fedcba9876543210fedcba9876543210"}`
		record = `{"id":"fedcba9876543210fedcba9876543210","rule":"burst","state":"opened","severity":"warning","user_id":"\"O'Neill\" <a&b>\\","user":"\"O'Neill\" <a&b>\\",` +
			`"num_actions_per_watermark":6,"threshold":5,"window_start":"2026-09-01T12:00:00Z","window_end":"2026-09-01T12:00:10Z","first_event_at":"2026-09-01T12:00:00Z","last_event_at":"2026-09-01T12:00:08Z","evidence":{}}`
		row = `{"id":"fedcba9876543210fedcba9876543210","rule":"card-testing","state":"opened","severity":"critical","summary":"\"quoted\"","key":{"ip":"10.0.0.1","product_id":5},"ip":"10.0.0.1",` +
			`"event_count":6,"window_start":"2026-09-01T12:00:00Z","window_end":"2026-09-01T12:00:10Z","first_event_at":"2026-09-01T12:00:00Z","last_event_at":"2026-09-01T12:00:08Z","evidence":{}}`
		digest = `{"since":"2026-09-01T12:00:00Z","until":"2026-09-01T12:01:00Z","messages":1,"opened":1,"users":1,"events":6,"by_severity":{"warning":1},"by_rule":{"burst":1},`
	)
	var out []notify.Message
	add := func(messageType, data string) {
		out = append(out, notify.Message{ID: "example_1", Type: messageType, At: time.Date(2026, 9, 1, 12, 0, 8, 123_000_000, time.UTC), Data: json.RawMessage(data)})
	}
	if alerts {
		for _, t := range []string{notify.TypeOpened, notify.TypeRaised, notify.TypeClosed} {
			add(t, record)
			add(t, row)
		}
		add(notify.TypeDigest, digest+`"top":[`+record+`]}`)
	} else {
		for _, t := range []string{notify.TypeIncidentOpened, notify.TypeIncidentEscalated, notify.TypeIncidentResolved} {
			add(t, incident)
		}
		add(notify.TypeIncidentDigest, digest+`"incidents":[`+incident+`]}`)
	}
	add(notify.TypeTest, `{"endpoint":"name","text":"\"test\""}`)
	return out
}
