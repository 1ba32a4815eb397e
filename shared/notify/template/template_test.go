package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"spate/shared/notify"
	"spate/shared/notify/notifytest"
	"spate/shared/notify/post"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret = "s3cr3t-0f-th3-r3c31v3r"
	path   = "/hooks/xSecretTokenOfTheHook1"
)

func config(url, body string) Config {
	return Config{Target: post.Target{URL: url, AllowPrivate: true, Now: notifytest.Now}, Body: body, Secret: post.NewSecret(secret)}
}

func sender(t *testing.T, c Config) *Sender {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

const body = `{"id": {{json .id}}, "type": {{json .type}}, "title": {{json .title}}, "data": {{json .data}},
"facts": {{"{"}}{{range $i, $f := .facts}}{{if $i}},{{end}}{{json $f.name}}: {{json $f.text}}{{end}}}}`

func TestSuite(t *testing.T) {
	suite.Run(t)
}

var suite = notifytest.Suite{
	Open: func(t *testing.T, o notifytest.Options) notify.Notifier {
		c := config(o.URL, body)
		c.AllowPrivate, c.Timeout = o.AllowPrivate, o.Timeout
		c.Headers = map[string]string{"authorization": "Bearer {{secret}}", "X-Subject": "{{.title}} {{.data.summary}}", "X-Key": "t0k3n0fth3h3ad3r"}
		return sender(t, c)
	},
	Path: path, Secrets: []string{secret, "t0k3n0fth3h3ad3r"}, Accept: notifytest.Answer(http.StatusCreated, ""),
	Check: func(t *testing.T, c notifytest.Call, m notify.Message) {
		t.Helper()
		if c.Method != http.MethodPost || c.URI != path || c.Header.Get("Authorization") != "Bearer "+secret || c.Header.Get("Content-Type") != "application/json" || c.Header.Get("Bcc") != "" {
			t.Errorf("%s %s %v", c.Method, c.URI, c.Header)
		}
		for name, values := range c.Header {
			if len(values) != 1 || strings.ContainsAny(values[0], "\r\n\x00") {
				t.Errorf("%s: %q", name, values)
			}
		}
		var got struct {
			ID, Type, Title string
			Data            json.RawMessage
		}
		if err := json.Unmarshal(c.Body, &got); err != nil || got.ID != m.ID || got.Type != m.Type || got.Title == "" {
			t.Errorf("%s: %v", c.Body, err)
		}
		var want, is any
		if json.Unmarshal(m.Data, &want) != nil || json.Unmarshal(got.Data, &is) != nil || !cmp.Equal(want, is) {
			t.Errorf("the data has changed: %s", got.Data)
		}
	},
}

// TestTemplates runs templates on a message.
func TestTemplates(t *testing.T) {
	m := notifytest.Incident(notify.TypeIncidentEscalated)
	for _, c := range []struct{ body, want string }{
		{`{{.type}} {{.id}} {{.timestamp}}`, "incident.escalated " + notifytest.IncidentID + "_escalated_1 2026-09-01T12:03:03.000Z"},
		{`{{.data.events}} {{json .data.events}} {{.data.key.product_id}}`, "9007200134741019 9007200134741019 5"},
		{`{{.data.key}}`, `{"ip":"10.0.0.1","product_id":5}`},
		{`{{.title}}|{{.status}}|{{.severity}}|{{.rule}}|{{.key}}|{{.summary}}|{{.kind}}|{{.subject}}|{{.ends}}`,
			"card-testing: ip=10.0.0.1 product_id=5|escalated: critical|critical|card-testing|ip=10.0.0.1 product_id=5|10.0.0.1 tried 31 cards|incident|" + notifytest.IncidentID + "|false"},
		{`[{{.data.nothing}}] {{default "none" .data.nothing}} {{default "none" .severity}} {{json .data.nothing}}`, "[] none critical null"},
		{`{{upper .severity}} {{.rule | upper | lower}} {{cut 5 .summary}}`, "CRITICAL card-testing 10.0…"},
		{`{{date "02 Jan 15:04" .data.opened_at}} {{unix .timestamp}} {{with .data.resolved_at}}{{date "15:04" .}}{{end}}`, "01 Sep 12:02 1788264183.000 "},
		{`{{if gt (number .data.events) 10}}many{{end}} {{printf "%05d %s" (number .data.peak) .data.events}}`, "many 00031 9007200134741019"},
		{`{{range .facts}}{{.name}}; {{end}}`, "rule; key; severity; events; windows; most in a window; event time; opened; escalated; incident; "},
		{`{{$x := .rule}}{{define "t"}}<{{.}}>{{end}}{{template "t" $x}}{{block "b" .severity}}({{.}}){{end}}`, "<card-testing>(critical)"},
		{`{{html "<a>"}} {{urlquery "a b"}} {{print .data.events .data.key}} {{len .facts}} {{index .data "rule"}}`, `&lt;a&gt; a+b 9007200134741019{"ip":"10.0.0.1","product_id":5} 10 card-testing`},
		{`{{if and .data.events (not .data.nothing)}}a{{else}}b{{end}}{{/* comment */}}{{range .lines}}x{{else}}none{{end}}`, "anone"},
		{`{{secret}}`, secret},
	} {
		cfg := config("https://h.example", c.body)
		cfg.ContentType = "text/plain"
		call, err := sender(t, cfg).call(m)
		if err != nil || string(call.Body) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.body, call.Body, err, c.want)
		}
	}
}

// TestMistakes: what is wrong is found at load, and said with the field and the line.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"no body", func(c *Config) { c.Body = " \n" }, "body: missing"},
		{"syntax", func(c *Config) { c.Body = "{\n{{if}}\n}" }, "body: line 2: missing value for if"},
		{"not closed", func(c *Config) { c.Body = "{\n\n{{if .x}}" }, "body: line 3: unexpected EOF"},
		{"no function", func(c *Config) { c.Body = `{{env "HOME"}}` }, `body: line 1: function "env" not defined`},
		{"no file", func(c *Config) { c.Body = `{{template "/etc/passwd"}}` }, `body: tried with a message of type incident.opened: line 1: at <{{template "/etc/passwd"}}>: template "/etc/passwd" not defined`},
		{"too long", func(c *Config) { c.Body = strings.Repeat("x", maxTemplate+1) }, "body: is 65537 bytes long"},
		{"a field of nothing", func(c *Config) { c.Body = "{}\n{{.data.id.x}}" }, "body: tried with a message of type incident.opened: line 2: at <.data.id.x>: can't evaluate field x"},
		{"not JSON", func(c *Config) { c.Body = `{"text": "{{.title}}"}` }, `body: tried with a message of type incident.opened: the result is not JSON; write {{json .title}}`},
		{"not JSON of some", func(c *Config) { c.Body = `{"n": {{.data.events}}}` }, `body: tried with a message of type endpoint.test: the result is not JSON`},
		{"no time", func(c *Config) { c.Body = `{{json (date "15:04" .title)}}` }, "is not a time; use a form such as 2026-09-01T12:00:00Z"},
		{"no number", func(c *Config) { c.Body = `{{number .title}}` }, "error calling number: is not a number"},
		{"header", func(c *Config) { c.Headers = map[string]string{"X-A": "\n{{"} }, "headers: X-A: line 2: unclosed action"},
		{"header that fails", func(c *Config) { c.Headers = map[string]string{"X-A": "{{.id.b}}"} }, "headers: tried with a message of type incident.opened: X-A: line 1: at <.id.b>"},
		{"header's name", func(c *Config) { c.Headers = map[string]string{"X A\r\nB": "x"} }, "headers: a name is not a valid header name"},
		{"our header", func(c *Config) { c.Headers = map[string]string{"content-type": "x"} }, "headers: content-type: cannot be set; remove it use content_type"},
		{"long header", func(c *Config) { c.Headers = map[string]string{"X-A": strings.Repeat("x", maxHeader+1)} }, "headers: tried with a message of type incident.opened: X-A: the result is longer than 8192 bytes"},
		{"method", func(c *Config) { c.Method = "GET" }, "method: must be POST or PUT"},
		{"content type", func(c *Config) { c.ContentType = "json\r\nX: y" }, "content_type: is not a media type"},
		{"url", func(c *Config) { c.URL = "h.example" }, "url: must begin with"},

		// What is too much.
		{"endless loop", func(c *Config) { c.Body = `{{range 1000000000}}{{end}}{}` }, "body: tried with a message of type incident.opened: line 1: it executes more than 10000 loop iterations"},
		{"loops in loops", func(c *Config) { c.Body = `{{range 200}}{{range 200}}{{end}}{{end}}{}` }, "more than 10000 loop iterations"},
		{"recursion", func(c *Config) { c.Body = `{{define "x"}}{{template "x"}}{{end}}{{template "x"}}` }, "more than 10000 loop iterations"},
		{"doubling recursion", func(c *Config) { c.Body = `{{define "x"}}{{template "x"}}{{template "x"}}{{end}}{{template "x"}}` }, "more than 10000 loop iterations"},
		{"doubling text", func(c *Config) { c.Body = `{{$x := "abcdefgh"}}{{range 60}}{{$x = print $x $x}}{{end}}{}` }, "it produces more than 16777216 bytes of text"},
		{"doubling text by printf", func(c *Config) { c.Body = `{{$x := "abcdefgh"}}{{range 60}}{{$x = printf "%s%s" $x $x}}{{end}}{}` }, "it produces more than 16777216 bytes of text"},
		{"one argument, many times", func(c *Config) {
			c.Body = `{{$x := "abcdefgh"}}{{range 16}}{{$x = print $x $x}}{{end}}{{printf "` + strings.Repeat("%[1]s", 5000) + `" $x}}`
		}, "it produces more than 16777216 bytes of text"},
		{"wide", func(c *Config) { c.Body = `{{printf "%1000000d" 1}}` }, "printf: a width or precision is above 999"},
		{"wide by argument", func(c *Config) { c.Body = `{{printf "%*d" 1000000 1}}` }, "printf: a width or precision is above 999 or is taken from an argument"},
		{"long output", func(c *Config) { c.Body = `{{range 9000}}` + strings.Repeat("x", 200) + `{{end}}` }, "the result is longer than 1048576 bytes"},
	} {
		cfg := config("https://h.example"+path, "{}")
		c.change(&cfg)
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "__") {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
		if _, again := New(cfg); fmt.Sprint(again) != "template: "+fmt.Sprint(err) {
			t.Errorf("New: %v", again)
		}
		suite.Printed(t, cfg)
	}
}

// TestAtRunTime: what the examples do not show makes a message unsendable, and tells no secret.
func TestAtRunTime(t *testing.T) {
	url, calls := notifytest.Serve(t, notifytest.Answer(200, ""))
	m := notifytest.Incident(notify.TypeIncidentOpened)
	for body, says := range map[string]string{
		`{{if .runbook}}{{.data.id.note}}{{end}}{}`:                                             "body: line 1: at <.data.id.note>",
		`{{if .runbook}}"{{end}}{}`:                                                             "the result is not JSON",
		`{{if .runbook}}{{range 100000}}{{end}}{{end}}{}`:                                       "more than 10000 loop iterations",
		`{{if .runbook}}{{index .data secret}}{{index .facts 99}}{{end}}{}`:                     "body: line 1:",
		`{{if .runbook}}{{template "` + secret + `"}}{{end}}{}`:                                 "(the response quotes the URL or a secret, so it is not kept)",
		`{{if .runbook}}{{range 6000}}` + strings.Repeat("xxxxxxxxxx", 20) + `{{end}}{{end}}{}`: "the result is longer than",
	} {
		s := sender(t, config(url, body))
		err := s.Check(m)
		if !errors.Is(err, notify.ErrUnsendable) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want %q", body, err, says)
		}
		if r := s.Notify(t.Context(), m); r != (notify.Result{Outcome: notify.Unsendable, Reason: err.Error()}) {
			t.Errorf("%+v", r)
		}
	}
	if n := len(calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestAlerts(t *testing.T) {
	c := config("https://h.example", `{"n": {{default 0 .data.num_actions_per_watermark}}, "w": {{json (date "15:04:05" .data.window_end)}}}`)
	c.Alerts = true
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Body = `{"n": {{if eq .kind "alert"}}{{.data.num_actions_per_watermark}}{{else}}0{{end}}}`
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "alert.opened") { // those of rules with a key have no such member
		t.Error(err)
	}
	c.Body = `{"n": {{default 0 .data.num_actions_per_watermark}}, "w": {{json (date "15:04:05" .data.window_end)}}}`
	call, err := sender(t, c).call(notifytest.Alert(notify.TypeClosed))
	if err != nil || string(call.Body) != `{"n": 7, "w": "12:00:10"}` {
		t.Errorf("%s, %v", call.Body, err)
	}
}

func TestPut(t *testing.T) {
	url, calls := notifytest.Serve(t, notifytest.Answer(204, ""))
	c := config(url, "{{.title}}")
	c.Method, c.ContentType = "PUT", "text/plain; charset=utf-8"
	if r := sender(t, c).Notify(t.Context(), notifytest.Test()); r != (notify.Result{Outcome: notify.Delivered, Status: 204}) {
		t.Errorf("%+v", r)
	}
	if got := calls(); len(got) != 1 || got[0].Method != http.MethodPut || got[0].Header.Get("Content-Type") != "text/plain; charset=utf-8" || string(got[0].Body) != "test message" {
		t.Errorf("%+v", got)
	}
}
