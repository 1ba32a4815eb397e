package slack

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
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

const (
	token = "xoxb-123456789012-ABCDEFabcdef"
	path  = "/services/T0AAAAAAA/B0BBBBBBB/xSecretTokenOfTheHook"
)

func sender(t *testing.T, o notifytest.Options, token string) *Sender {
	t.Helper()
	c := Config{Target: post.Target{URL: o.URL, AllowPrivate: o.AllowPrivate, Timeout: o.Timeout, Now: notifytest.Now}, Token: post.NewSecret(token), Link: "https://grafana.example/d/x?a=b&from={since}"}
	if token != "" {
		c.Channel = "C0123456789"
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

const posted = `{"ok":true,"channel":"C0123456789","ts":"1503435956.000247","message":{"text":"x"}}`

func TestWebhook(t *testing.T) {
	notifytest.Suite{
		Open: func(t *testing.T, o notifytest.Options) notify.Notifier { return sender(t, o, "") },
		Path: path, Accept: notifytest.Answer(200, "ok"),
		Check: func(t *testing.T, c notifytest.Call, _ notify.Message) {
			if c.URI != path || c.Header.Get("Authorization") != "" {
				t.Errorf("%s %v", c.URI, c.Header)
			}
			check(t, c, false)
		},
	}.Run(t)
}

func TestToken(t *testing.T) {
	notifytest.Suite{
		Open:    func(t *testing.T, o notifytest.Options) notify.Notifier { return sender(t, o, token) },
		Secrets: []string{token}, Accept: notifytest.Answer(200, posted),
		Check: func(t *testing.T, c notifytest.Call, _ notify.Message) {
			if c.URI != "/chat.postMessage" || c.Header.Get("Authorization") != "Bearer "+token || strings.Contains(string(c.Body), token) {
				t.Errorf("%s %v", c.URI, c.Header)
			}
			check(t, c, true)
		},
	}.Run(t)
}

// control is what has a meaning in mrkdwn: a link, a mention or a command. Only links of our own are there.
var control = regexp.MustCompile(`<[^>]*>`)

// check has the rules of https://docs.slack.dev/reference/block-kit/blocks/ and /reference/methods/chat.postMessage/.
func check(t *testing.T, c notifytest.Call, withChannel bool) {
	t.Helper()
	if c.Method != http.MethodPost || !strings.HasPrefix(c.Header.Get("Content-Type"), "application/json") {
		t.Errorf("%s %v", c.Method, c.Header)
	}
	var m map[string]any
	if err := json.Unmarshal(c.Body, &m); err != nil {
		t.Fatal(err)
	}
	for name := range m {
		if !slices.Contains([]string{"channel", "ts", "text", "blocks", "unfurl_links", "unfurl_media", "parse", "link_names"}, name) {
			t.Errorf("unknown member %q", name)
		}
	}
	if (m["channel"] != nil) != withChannel {
		t.Errorf("channel: %v", m["channel"])
	}
	total := 0
	within := func(v any, limit int) {
		t.Helper()
		s, ok := v.(string)
		n := len(utf16.Encode([]rune(s)))
		if !ok || n < 1 || n > limit {
			t.Errorf("%d characters, not 1 to %d: %.100v", n, limit, v)
		}
		total += n
		for _, found := range control.FindAllString(s, -1) {
			if !strings.HasPrefix(found, "<https://") || !strings.HasSuffix(found, "|Runbook>") && !strings.HasSuffix(found, "|Dashboard>") {
				t.Errorf("not escaped: %.100q", found)
			}
		}
		if rest := control.ReplaceAllString(s, ""); strings.ContainsAny(rest, "<>") || regexp.MustCompile(`&($|[^agl]|a($|[^m])|[gl]($|[^t]))`).MatchString(rest) {
			t.Errorf("not escaped: %.200q", s)
		}
	}
	object := func(v any, limit int) {
		t.Helper()
		o, _ := v.(map[string]any)
		if o["type"] != "mrkdwn" || o["verbatim"] != true {
			t.Errorf("text object: %v", v)
		}
		within(o["text"], limit)
	}
	within(m["text"], 40000)
	blocks, _ := m["blocks"].([]any)
	if len(blocks) < 1 || len(blocks) > 50 {
		t.Errorf("%d blocks", len(blocks))
	}
	total = 0
	for _, b := range blocks {
		b := b.(map[string]any)
		fields, _ := b["fields"].([]any)
		elements, _ := b["elements"].([]any)
		switch b["type"] {
		case "section":
			if b["text"] == nil && len(fields) == 0 || len(fields) > 10 {
				t.Errorf("section: %v", b)
			}
			if b["text"] != nil {
				object(b["text"], 3000)
			}
			for _, f := range fields {
				object(f, 2000)
			}
		case "context":
			if len(elements) < 1 || len(elements) > 10 {
				t.Errorf("context: %v", b)
			}
			for _, e := range elements {
				object(e, 3000)
			}
		default:
			t.Errorf("block: %v", b)
		}
	}
	if total > 12000 {
		t.Errorf("%d characters in all blocks", total)
	}
}

// TestOneMessagePerIncident: an incident is posted, then changed where it is, as long as that is possible.
func TestOneMessagePerIncident(t *testing.T) {
	var answers []string
	url, calls := notifytest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		answer := answers[0]
		answers = answers[1:]
		notifytest.Answer(200, answer)(w, nil)
	})
	s := sender(t, notifytest.Options{URL: url + "/api", AllowPrivate: true}, token)
	const ref = "C0123456789:1503435956.000247"
	for _, c := range []struct {
		name, messageType, ref string
		answers                []string
		want                   notify.Result
		calls                  []string
	}{
		{"posted", notify.TypeIncidentOpened, "", []string{posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref}, []string{"/api/chat.postMessage C0123456789 "}},
		{"changed", notify.TypeIncidentEscalated, ref, []string{posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref}, []string{"/api/chat.update C0123456789 1503435956.000247"}},
		{"resolved", notify.TypeIncidentResolved, ref, []string{posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref}, []string{"/api/chat.update C0123456789 1503435956.000247"}},
		{"without a ref", notify.TypeIncidentResolved, "", []string{posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref}, []string{"/api/chat.postMessage C0123456789 "}},
		{"a ref that is none", notify.TypeIncidentResolved, "C1:x", []string{posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref}, []string{"/api/chat.postMessage C0123456789 "}},
		{"resent", notify.TypeIncidentOpened, ref, []string{posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref}, []string{"/api/chat.postMessage C0123456789 "}},
		{"deleted", notify.TypeIncidentResolved, "C9:1.2", []string{`{"ok":false,"error":"message_not_found"}`, posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref},
			[]string{"/api/chat.update C9 1.2", "/api/chat.postMessage C0123456789 "}},
		{"of another bot", notify.TypeIncidentResolved, "C9:1.2", []string{`{"ok":false,"error":"cant_update_message"}`, posted}, notify.Result{Outcome: notify.Delivered, Status: 200, Ref: ref},
			[]string{"/api/chat.update C9 1.2", "/api/chat.postMessage C0123456789 "}},
		{"refused", notify.TypeIncidentResolved, ref, []string{`{"ok":false,"error":"invalid_auth"}`}, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "chat.update: invalid_auth: check the token"},
			[]string{"/api/chat.update C0123456789 1503435956.000247"}},
		{"no ref in the answer", notify.TypeIncidentOpened, "", []string{`{"ok":true,"channel":"C\n1","ts":"x"}`}, notify.Result{Outcome: notify.Delivered, Status: 200}, []string{"/api/chat.postMessage C0123456789 "}},
	} {
		answers = c.answers
		m := notifytest.Incident(c.messageType)
		m.Ref = c.ref
		if diff := cmp.Diff(c.want, s.Notify(t.Context(), m)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		var came []string
		for _, call := range calls() {
			check(t, call, true)
			var p struct{ Channel, TS string }
			if err := json.Unmarshal(call.Body, &p); err != nil {
				t.Error(err)
			}
			came = append(came, call.URI+" "+p.Channel+" "+p.TS)
		}
		if diff := cmp.Diff(c.calls, came); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		token  string
		want   notify.Result
	}{
		{"rate limit", notifytest.Answer(429, `{"ok":false,"error":"ratelimited"}`, "Retry-After", "30"), token, notify.Result{Outcome: notify.Throttled, Status: 429, After: 30 * time.Second, Reason: `status 429: {"ok":false,"error":"ratelimited"}`}},
		{"rate limit with status 200", notifytest.Answer(200, `{"ok":false,"error":"ratelimited"}`, "Retry-After", "30"), token, notify.Result{Outcome: notify.Throttled, Status: 200, After: 30 * time.Second, Reason: "chat.postMessage: ratelimited"}},
		{"rate limit without a time", notifytest.Answer(200, `{"ok":false,"error":"ratelimited"}`), token, notify.Result{Outcome: notify.Throttled, Status: 200, After: usually, Reason: "chat.postMessage: ratelimited"}},
		{"429 without a time", notifytest.Answer(429, ""), "", notify.Result{Outcome: notify.Throttled, Status: 429, After: usually, Reason: "status 429"}},
		{"channel", notifytest.Answer(200, `{"ok":false,"error":"channel_not_found"}`), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "chat.postMessage: channel_not_found: " + fixChannel}},
		{"not in channel", notifytest.Answer(200, `{"ok":false,"error":"not_in_channel"}`), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "chat.postMessage: not_in_channel: invite the bot to the channel"}},
		{"message not found, of a post", notifytest.Answer(200, `{"ok":false,"error":"message_not_found"}`), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "chat.postMessage: message_not_found"}},
		{"no code", notifytest.Answer(200, `{"ok":false}`), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "chat.postMessage: Slack refused the call and gave no reason"}},
		{"the token as code", notifytest.Answer(200, `{"ok":false,"error":"abcdef_123456789012"}`), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "chat.postMessage: Slack refused the call and gave no reason"}},
		{"no JSON", notifytest.Answer(200, "ok"), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "status 200, but the response is not JSON, so it is not from Slack"}},
		{"endless", notifytest.Answer(200, strings.Repeat(" ", 2<<20)), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "status 200: response is larger than 1048576 bytes"}},
		{"broken off", notifytest.Answer(200, `{"ok":`, "Content-Length", "100"), token, notify.Result{Outcome: notify.Failed, Status: 200, Reason: "status 200: connection closed without a response"}},
		{"ok, but not 200", notifytest.Answer(202, posted), token, notify.Result{Outcome: notify.Failed, Status: 202, Reason: "chat.postMessage: Slack refused the call and gave no reason"}},
		{"hook: not ok", notifytest.Answer(200, "hello"), "", notify.Result{Outcome: notify.Failed, Status: 200, Reason: "status 200, but the response is not \"ok\": hello"}},
		{"hook: deleted", notifytest.Answer(404, "no_service"), "", notify.Result{Outcome: notify.Failed, Status: 404, Reason: "status 404: no_service"}},
		{"hook: archived", notifytest.Answer(410, "channel_is_archived"), "", notify.Result{Outcome: notify.Failed, Status: 410, Reason: "status 410: channel_is_archived"}},
	} {
		url, _ := notifytest.Serve(t, c.answer)
		if diff := cmp.Diff(c.want, sender(t, notifytest.Options{URL: url, AllowPrivate: true}, c.token).Notify(t.Context(), notifytest.Incident(notify.TypeIncidentOpened))); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestPage(t *testing.T) {
	url, calls := notifytest.Serve(t, notifytest.Answer(200, "ok"))
	sender(t, notifytest.Options{URL: url, AllowPrivate: true}, "").Notify(t.Context(), notifytest.Incident(notify.TypeIncidentEscalated))
	var m struct {
		Text   string
		Blocks []struct {
			Text             struct{ Text string }
			Fields, Elements []struct{ Text string }
		}
	}
	if err := json.Unmarshal(calls()[0].Body, &m); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range m.Blocks {
		for _, f := range append(b.Fields, b.Elements...) {
			got = append(got, f.Text)
		}
		if b.Text.Text != "" {
			got = append(got, b.Text.Text)
		}
	}
	want := []string{
		":red_circle: *escalated: critical*  card-testing: ip=10.0.0.1 product_id=5\n10.0.0.1 tried 31 cards",
		"*rule*\ncard-testing", "*key*\nip=10.0.0.1 product_id=5", "*severity*\ncritical", "*events*\n9007200134741019", "*windows*\n2", "*most in a window*\n31",
		"*event time*\n2026-09-01 12:00:00 to 12:02:00 UTC", "*opened*\n2026-09-01 12:02:03 UTC", "*escalated*\n2026-09-01 12:03:03 UTC", "*incident*\n" + notifytest.IncidentID,
		"<https://runbooks.example/cards|Runbook>  <https://grafana.example/d/x?a=b&amp;from=2026-09-01T12:00:00Z|Dashboard>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if m.Text != "escalated: critical, card-testing: ip=10.0.0.1 product_id=5\n10.0.0.1 tried 31 cards" {
		t.Error(m.Text)
	}
}

func TestEscape(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"a<b", 6, "a&lt;b"}, {"a<b", 5, "a…"}, {"<<<<", 9, "&lt;&lt;…"}, {"&", 5, "&amp;"}, {"&", 4, "…"}, {"😀😀", 3, "😀…"}, {"<!channel>", 99, "&lt;!channel&gt;"},
	} {
		if got := escape(c.text, c.limit); got != c.want {
			t.Errorf("%q to %d: %q, want %q", c.text, c.limit, got, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		url, token, channel string
		says                []string
	}{
		{"https://hooks.slack.com" + path, "", "", nil},
		{DefaultAPI, token, "C0123456789", nil},
		{DefaultAPI, token, "#alerts", nil},
		{"", "", "", []string{"url: missing"}},
		{"https://hooks.slack.com" + path, "", "C1", []string{"channel: requires a bot's token"}},
		{"ftp://slack.com", "s3cret", "", []string{"api_url: must begin with", "token: is not a Slack token", "channel: missing"}},
		{DefaultAPI, token, "a b\n", []string{"channel: is not the ID"}},
	} {
		config := Config{Target: post.Target{URL: c.url}, Token: post.NewSecret(c.token), Channel: c.channel}
		notifytest.Suite{Path: path, Secrets: []string{token, "s3cret"}}.Printed(t, config)
		err := config.Validate()
		if (err == nil) != (c.says == nil) {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(fmt.Sprint(err), part) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want %q", err, part)
			}
		}
	}
}
