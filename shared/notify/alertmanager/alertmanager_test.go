package alertmanager

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/notify/notifytest"
	"spate/shared/notify/post"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "p4ssw0rd-0f-th3-pr0xy"

func sender(t *testing.T, o notifytest.Options, change ...func(*Config)) *Sender {
	t.Helper()
	c := Config{
		Target:   post.Target{URL: o.URL, AllowPrivate: o.AllowPrivate, Timeout: o.Timeout, Now: notifytest.Now},
		Username: "spate", Password: post.NewSecret(password), Link: "https://grafana.example/d/x?from={since}",
	}
	for _, f := range change {
		f(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

var suite = notifytest.Suite{
	Open:    func(t *testing.T, o notifytest.Options) notify.Notifier { return sender(t, o) },
	Secrets: []string{password, "c3BhdGU6cDRzc3"}, Accept: notifytest.Answer(200, ""), Check: check,
}

func TestSuite(t *testing.T) {
	suite.Run(t)
}

// check has the rules of Alertmanager's OpenAPI specification (api/v2/openapi.yaml: postableAlerts), and what it checks beyond: label names and
// values, and that an alert ends after it starts.
func check(t *testing.T, c notifytest.Call, m notify.Message) {
	t.Helper()
	r := &http.Request{Header: c.Header}
	if user, pass, ok := r.BasicAuth(); c.Method != http.MethodPost || c.URI != "/api/v2/alerts" || c.Header.Get("Content-Type") != "application/json" || !ok || user != "spate" || pass != password {
		t.Errorf("%s %s %v", c.Method, c.URI, c.Header)
	}
	var alerts []struct {
		Labels, Annotations    map[string]string
		StartsAt, EndsAt       time.Time
		GeneratorURL           *string
		Status, Receivers, Any any
	}
	dec := json.NewDecoder(strings.NewReader(string(c.Body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&alerts); err != nil {
		t.Fatal(err)
	}
	if len(alerts) != 1 {
		t.Fatalf("%d alerts", len(alerts))
	}
	a := alerts[0]
	if len(a.Labels) < 2 || len(a.Labels) > 3 || a.Labels["alertname"] == "" {
		t.Errorf("labels: %v", a.Labels)
	}
	for name, value := range a.Labels {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" || value == "" || !utf8.ValidString(value) {
			t.Errorf("label %q: %q", name, value)
		}
	}
	if a.Labels["severity"] != "" {
		t.Error("severity is part of the identity")
	}
	for name := range a.Annotations {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("annotation %q", name)
		}
	}
	now := notifytest.Now()
	ended := m.Type == notify.TypeIncidentResolved || m.Type == notify.TypeClosed
	if a.StartsAt.After(now) || !a.EndsAt.After(a.StartsAt) || a.EndsAt.After(now) == ended {
		t.Errorf("%s: from %v to %v", m.Type, a.StartsAt, a.EndsAt)
	}
	if a.GeneratorURL != nil {
		if u, err := url.ParseRequestURI(*a.GeneratorURL); err != nil || u.Scheme != "https" {
			t.Errorf("generatorURL: %s", *a.GeneratorURL)
		}
	}
}

// TestLifeOfAnIncident: the identity stays, the severity changes, and the end is the incident's.
func TestLifeOfAnIncident(t *testing.T) {
	addr, calls := notifytest.Serve(t, notifytest.Answer(200, ""))
	s := sender(t, notifytest.Options{URL: addr, AllowPrivate: true})
	var got []postable
	for _, messageType := range []string{notify.TypeIncidentOpened, notify.TypeIncidentEscalated, notify.TypeIncidentResolved} {
		if r := s.Notify(t.Context(), notifytest.Incident(messageType)); r != (notify.Result{Outcome: notify.Delivered, Status: 200}) {
			t.Errorf("%+v", r)
		}
		var alerts []postable
		if err := json.Unmarshal(calls()[0].Body, &alerts); err != nil {
			t.Fatal(err)
		}
		got = append(got, alerts...)
	}
	labels := map[string]string{"alertname": "card-testing", "incident": notifytest.IncidentID, "key": "ip=10.0.0.1 product_id=5"}
	for i, a := range got {
		if diff := cmp.Diff(labels, a.Labels); diff != "" {
			t.Error(diff)
		}
		if want := []string{"warning", "critical", "critical"}[i]; a.Annotations["severity"] != want {
			t.Errorf("%v", a.Annotations)
		}
		// A minute after the last message, and five more.
		if want := []string{"2026-09-01T12:09:03.000Z", "2026-09-01T12:09:03.000Z", "2026-09-01T12:03:03.000Z"}[i]; a.StartsAt != "2026-09-01T12:02:03.000Z" || a.EndsAt != want {
			t.Errorf("from %s to %s, want to %s", a.StartsAt, a.EndsAt, want)
		}
	}
	want := map[string]string{
		"title": "card-testing: ip=10.0.0.1 product_id=5", "status": "opened: warning", "summary": "10.0.0.1 tried 31 cards", "runbook_url": "https://runbooks.example/cards", "severity": "warning",
		"description": "rule: card-testing\nkey: ip=10.0.0.1 product_id=5\nseverity: warning\nevents: 9007200134741019\nwindows: 2\nmost in a window: 31\n" +
			"event time: 2026-09-01 12:00:00 to 12:02:00 UTC\nopened: 2026-09-01 12:02:03 UTC\nincident: " + notifytest.IncidentID,
	}
	if diff := cmp.Diff(want, got[0].Annotations); diff != "" || got[0].GeneratorURL != "https://grafana.example/d/x?from=2026-09-01T12:00:00Z" {
		t.Errorf("%s %s", diff, got[0].GeneratorURL)
	}
}

func TestTimes(t *testing.T) {
	now := notifytest.Now()
	for _, c := range []struct {
		name         string
		b            brief.Brief
		starts, ends time.Duration // from now
	}{
		{"open", brief.Brief{Phase: brief.Begins, Begin: now.Add(-time.Minute)}, -time.Minute, lease},
		{"open, and ahead", brief.Brief{Phase: brief.Begins, Begin: now.Add(time.Minute)}, 0, lease},
		{"an open alert", brief.Brief{Kind: brief.Alert, Phase: brief.Begins, Begin: now.Add(-time.Minute)}, -time.Minute, alertLease},
		{"over", brief.Brief{Phase: brief.Ends, Begin: now.Add(-time.Minute), End: now.Add(-time.Second)}, -time.Minute, -time.Second},
		{"over, and ahead", brief.Brief{Phase: brief.Ends, Begin: now.Add(-time.Minute), End: now.Add(time.Second)}, -time.Minute, 0},
		{"all ahead", brief.Brief{Phase: brief.Ends, Begin: now.Add(time.Minute), End: now.Add(time.Hour)}, -time.Millisecond, 0},
		{"of no length", brief.Brief{Phase: brief.Ends, Begin: now.Add(-time.Minute), End: now.Add(-time.Minute)}, -time.Minute - time.Millisecond, -time.Minute},
		{"no state", brief.Brief{Begin: now.Add(-time.Hour), End: now.Add(-time.Minute)}, 0, moment},
	} {
		if starts, ends := times(c.b, now); starts.Sub(now) != c.starts || ends.Sub(now) != c.ends {
			t.Errorf("%s: %v to %v", c.name, starts.Sub(now), ends.Sub(now))
		}
	}
}

func TestAuthentication(t *testing.T) {
	addr, calls := notifytest.Serve(t, notifytest.Answer(200, ""))
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Username, c.Password = "", post.Secret{} }, ""},
		{func(c *Config) { c.Username, c.Password, c.Token = "", post.Secret{}, post.NewSecret(password) }, "Bearer " + password},
	} {
		sender(t, notifytest.Options{URL: addr + "/am/", AllowPrivate: true}, c.change).Notify(t.Context(), notifytest.Test())
		if got := calls()[0]; got.Header.Get("Authorization") != c.want || got.URI != "/am/api/v2/alerts" {
			t.Errorf("%s %v", got.URI, got.Header)
		}
	}
	sender(t, notifytest.Options{URL: addr + "/am/api/v2/alerts", AllowPrivate: true}).Notify(t.Context(), notifytest.Test())
	if got := calls()[0]; got.URI != "/am/api/v2/alerts" {
		t.Error(got.URI)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		answer http.HandlerFunc
		want   notify.Result
	}{
		{notifytest.Answer(202, ""), notify.Result{Outcome: notify.Failed, Status: 202, Reason: "status 202, but Alertmanager responds with 200 when it accepts alerts: the URL may belong to another service"}},
		{notifytest.Answer(400, `"start time must be before end time"`), notify.Result{Outcome: notify.Failed, Status: 400, Reason: `status 400: "start time must be before end time"`}},
	} {
		addr, _ := notifytest.Serve(t, c.answer)
		if diff := cmp.Diff(c.want, sender(t, notifytest.Options{URL: addr, AllowPrivate: true}).Notify(t.Context(), notifytest.Incident(notify.TypeIncidentOpened))); diff != "" {
			t.Error(diff)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		c    Config
		says string
	}{
		{Config{}, ""},
		{Config{Username: "a"}, "username: basic authentication requires both"},
		{Config{Password: post.NewSecret(password)}, "username: basic authentication requires both"},
		{Config{Username: "a", Password: post.NewSecret(password), Token: post.NewSecret("x")}, "token: cannot be used with username"},
		{Config{Username: "a:b", Password: post.NewSecret(password)}, "username: contains a colon"},
		{Config{Token: post.NewSecret("s3cr3t\nx")}, "token: contains a line break"},
	} {
		c.c.Target = post.Target{URL: "http://alertmanager:9093"}
		suite.Printed(t, c.c)
		err := c.c.Validate()
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), password)) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
}
