package pagerduty

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"spate/shared/notify"
	"spate/shared/notify/notifytest"
	"spate/shared/notify/post"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "R0123456789ABCDEFGHIJKLMNOPQRSTU"

func sender(t *testing.T, o notifytest.Options) *Sender {
	t.Helper()
	s, err := New(Config{
		Target:     post.Target{URL: o.URL, AllowPrivate: o.AllowPrivate, Timeout: o.Timeout, Now: notifytest.Now},
		RoutingKey: post.NewSecret(key), Link: "https://grafana.example/d/x?from={since}",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

var accept = notifytest.Answer(http.StatusAccepted, `{"status":"success","message":"Event processed","dedup_key":"x"}`)

func TestSuite(t *testing.T) {
	suite.Run(t)
}

var suite = notifytest.Suite{
	Open:    func(t *testing.T, o notifytest.Options) notify.Notifier { return sender(t, o) },
	Secrets: []string{key},
	Accept:  accept,
	Check:   check,
}

// check has the rules of https://developer.pagerduty.com/docs/events-api-v2/trigger-events/.
func check(t *testing.T, c notifytest.Call, m notify.Message) {
	t.Helper()
	if c.Method != http.MethodPost || c.URI != "/v2/enqueue" || c.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s %v", c.Method, c.URI, c.Header)
	}
	if len(c.Body) > 512_000 {
		t.Errorf("%d bytes", len(c.Body))
	}
	var e map[string]any
	if err := json.Unmarshal(c.Body, &e); err != nil {
		t.Fatal(err)
	}
	for name := range e {
		if !slices.Contains([]string{"routing_key", "event_action", "dedup_key", "payload", "links", "images", "client", "client_url"}, name) {
			t.Errorf("unknown member %q", name)
		}
	}
	dedup, _ := e["dedup_key"].(string)
	if e["routing_key"] != key || dedup == "" || len(dedup) > 255 {
		t.Errorf("%v", e)
	}
	action := "trigger"
	if m.Type == notify.TypeIncidentResolved || m.Type == notify.TypeClosed || m.Type == notify.TypeTest && e["payload"] == nil {
		action = "resolve"
	}
	if e["event_action"] != action {
		t.Errorf("%s is a %v", m.Type, e["event_action"])
	}
	if action == "resolve" {
		return
	}
	p, ok := e["payload"].(map[string]any)
	if !ok {
		t.Fatalf("no payload: %s", c.Body)
	}
	for name, v := range p {
		text, isText := v.(string)
		switch name {
		case "summary":
			if !isText || text == "" || len(utf16.Encode([]rune(text))) > 1024 {
				t.Errorf("summary: %v", v)
			}
		case "source":
			if text == "" {
				t.Errorf("source: %v", v)
			}
		case "severity":
			if !slices.Contains([]string{"critical", "error", "warning", "info"}, text) {
				t.Errorf("severity: %v", v)
			}
		case "timestamp":
			if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
				t.Error(err)
			}
		case "component", "group", "class":
			if !isText {
				t.Errorf("%s: %v", name, v)
			}
		case "custom_details":
			if _, ok := v.(map[string]any); !ok {
				t.Errorf("custom_details: %v", v)
			}
		default:
			t.Errorf("unknown member payload.%q", name)
		}
	}
	for _, name := range []string{"summary", "source", "severity"} {
		if p[name] == nil {
			t.Errorf("payload.%s is missing", name)
		}
	}
	links, _ := e["links"].([]any)
	for _, l := range links {
		l := l.(map[string]any)
		if href, _ := l["href"].(string); !strings.HasPrefix(href, "https://") || slices.Sorted(maps.Keys(l))[0] != "href" {
			t.Errorf("link: %v", l)
		}
	}
}

func TestLifeOfAnIncident(t *testing.T) {
	url, calls := notifytest.Serve(t, accept)
	s := sender(t, notifytest.Options{URL: url, AllowPrivate: true})
	var got []map[string]any
	for _, messageType := range []string{notify.TypeIncidentOpened, notify.TypeIncidentEscalated, notify.TypeIncidentResolved} {
		if r := s.Notify(t.Context(), notifytest.Incident(messageType)); r != (notify.Result{Outcome: notify.Delivered, Status: 202}) {
			t.Errorf("%+v", r)
		}
		for _, c := range calls() {
			var e map[string]any
			if err := json.Unmarshal(c.Body, &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
	}
	want := map[string]any{
		"routing_key": key, "event_action": "trigger", "dedup_key": notifytest.IncidentID, "client": "spate", "client_url": "https://grafana.example/d/x?from=2026-09-01T12:00:00Z",
		"links": []any{
			map[string]any{"href": "https://runbooks.example/cards", "text": "Runbook"},
			map[string]any{"href": "https://grafana.example/d/x?from=2026-09-01T12:00:00Z", "text": "Dashboard"},
		},
		"payload": map[string]any{
			"summary": "card-testing: ip=10.0.0.1 product_id=5 - 10.0.0.1 tried 31 cards", "source": "ip=10.0.0.1 product_id=5", "severity": "warning", "timestamp": "2026-09-01T12:03:03.000Z",
			"group": "card-testing", "class": "incident",
			"custom_details": map[string]any{
				"rule": "card-testing", "key": "ip=10.0.0.1 product_id=5", "severity": "warning", "events": "9007200134741019", "windows": "2", "most in a window": "31",
				"event time": "2026-09-01 12:00:00 to 12:02:00 UTC", "opened": "2026-09-01 12:02:03 UTC", "incident": notifytest.IncidentID,
			},
		},
	}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
	if got[1]["dedup_key"] != notifytest.IncidentID || got[1]["payload"].(map[string]any)["severity"] != "critical" {
		t.Errorf("%v", got[1])
	}
	if diff := cmp.Diff(map[string]any{"routing_key": key, "event_action": "resolve", "dedup_key": notifytest.IncidentID}, got[2]); diff != "" {
		t.Error(diff)
	}
}

// TestTest: a test leaves nothing open, and pages as quietly as PagerDuty can.
func TestTest(t *testing.T) {
	url, calls := notifytest.Serve(t, accept)
	s := sender(t, notifytest.Options{URL: url, AllowPrivate: true})
	if r := s.Notify(t.Context(), notifytest.Test()); r.Outcome != notify.Delivered {
		t.Errorf("%+v", r)
	}
	came := calls()
	if len(came) != 2 || !strings.Contains(string(came[0].Body), `"severity":"info"`) || !strings.Contains(string(came[1].Body), `"event_action":"resolve"`) {
		t.Errorf("%s", came)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		answer http.HandlerFunc
		want   notify.Result
	}{
		{notifytest.Answer(200, "hello"), notify.Result{Outcome: notify.Failed, Status: 200, Reason: "status 200, but PagerDuty responds with 202 when it accepts events: the URL may belong to another service"}},
		{notifytest.Answer(400, `{"status":"invalid event","message":"Event object is invalid","errors":["Length of 'dedup_key' is incorrect"]}`),
			notify.Result{Outcome: notify.Failed, Status: 400, Reason: `status 400: {"status":"invalid event","message":"Event object is invalid","errors":["Length of 'dedup_key' is incorrect"]}`}},
		{notifytest.Answer(410, ""), notify.Result{Outcome: notify.Failed, Status: 410, Reason: "status 410"}},
		{notifytest.Answer(429, ""), notify.Result{Outcome: notify.Throttled, Status: 429, After: usually, Reason: "status 429"}},
	} {
		url, _ := notifytest.Serve(t, c.answer)
		if diff := cmp.Diff(c.want, sender(t, notifytest.Options{URL: url, AllowPrivate: true}).Notify(t.Context(), notifytest.Incident(notify.TypeIncidentOpened))); diff != "" {
			t.Error(diff)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		url, key string
		says     []string
	}{
		{DefaultURL, key, nil},
		{"", "", []string{"url: missing", "routing_key: missing"}},
		{DefaultURL, key[1:], []string{"routing_key: is not 32 letters and digits"}},
		{DefaultURL, "whsec_6789ABCDEFGHIJKLMNOPQRSTUVW", []string{"routing_key: is not 32"}},
	} {
		config := Config{Target: post.Target{URL: c.url}, RoutingKey: post.NewSecret(c.key)}
		suite.Printed(t, config)
		err := config.Validate()
		if (err == nil) != (c.says == nil) {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "6789") {
				t.Errorf("%v, want %q", err, part)
			}
		}
	}
	// A whole URL stays as it is.
	url, calls := notifytest.Serve(t, accept)
	sender(t, notifytest.Options{URL: url + "/proxy/v2/enqueue", AllowPrivate: true}).Notify(t.Context(), notifytest.Incident(notify.TypeIncidentOpened))
	if c := calls(); len(c) != 1 || c[0].URI != "/proxy/v2/enqueue" {
		t.Errorf("%v", c)
	}
}
