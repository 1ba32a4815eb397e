package endpoints

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"spate/shared/notify"
	"spate/shared/notify/notifytest"
)

const docs = "../../../docs/"

// example is an endpoints file of a page.
func examples(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(docs + page)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	name := regexp.MustCompile(`(?m)^  - name: (\S+)`)
	for _, m := range regexp.MustCompile("(?s)```yaml\n(endpoints:.*?)```").FindAllStringSubmatch(string(text), -1) {
		out[name.FindStringSubmatch(m[1])[1]] = m[1]
	}
	return out
}

// TestDocumentedExamples: every endpoints file in the docs is read, and every endpoint of it takes every message.
func TestDocumentedExamples(t *testing.T) {
	for name, value := range map[string]string{
		"PAGERDUTY_KEY": pagerdutyKey, "SLACK_TOKEN": "xoxb-12345-QUFBQUFB", "SLACK_URL": "https://hooks.slack.com/t0ken", "AUDIT_TOKEN": "hunter2", "TEAMS_URL": "https://h.example/t0ken",
		"DISCORD_URL": "https://h.example/t0ken", "SPLUNK_TOKEN": "hunter2", "PAGER_URL": "https://h.example/t0ken", "PAGER_SECRET": webhookSecret, "SIEM_SECRET": webhookSecret,
	} {
		t.Setenv(name, value)
	}
	file := filepath.Join(t.TempDir(), "secret")
	formats := make(map[string]bool)
	for _, page := range []string{"destinations.md", "webhooks.md"} {
		for name, text := range examples(t, page) {
			secret := webhookSecret
			if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			text = regexp.MustCompile(`/run/secrets/\w+`).ReplaceAllString(text, file)
			specs, told := read(t, text)
			if told != "" {
				t.Errorf("%s: %s", name, told)
			}
			for _, s := range specs {
				formats[s.Format] = true
				sender, err := s.Open()
				if err != nil {
					t.Error(err)
					continue
				}
				for _, m := range slices.Concat(notifytest.Messages(), notifytest.Hostile()) {
					if err := sender.Check(m); err != nil && !strings.Contains(err.Error(), "its data does not match its type") {
						t.Errorf("%s: %s: %v", s.Name, m.Type, err)
					}
				}
				sender.Close()
			}
		}
	}
	for _, f := range Formats() {
		if !formats[f.Name] {
			t.Errorf("docs have no example of %s", f.Name)
		}
	}
}

// TestDocumentedFields: docs/destinations.md has every field of every format, in the section of the format.
func TestDocumentedFields(t *testing.T) {
	text, err := os.ReadFile(docs + "destinations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Formats()[1:] {
		_, section, ok := strings.Cut(string(text), "\n## "+f.Name+"\n")
		if !ok {
			t.Errorf("no section about %s", f.Name)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		for _, field := range f.Fields {
			row := regexp.MustCompile("(?m)^\\| [^|]*`" + field.Name + "`([^|,]*)[^|]*\\|").FindStringSubmatch(section)
			if row == nil || strings.Contains(row[1], "(secret)") != field.Secret {
				t.Errorf("%s: %s: %q", f.Name, field.Name, row)
			}
		}
	}
	for _, field := range CommonFields() {
		if !strings.Contains(string(text), "`"+field.Name+"`") {
			t.Errorf("no field %s", field.Name)
		}
	}
}

// sendAll sends every message, also hostile ones, by an endpoint of the docs to a server, and calls check with each body.
func sendAll(t *testing.T, name string, env map[string]string, check func(t *testing.T, r *http.Request, body map[string]any, m notify.Message)) {
	t.Helper()
	var request *http.Request
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		request = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	for k, v := range env {
		t.Setenv(k, strings.Replace(v, "URL", srv.URL, 1))
	}
	text := strings.Replace(examples(t, "destinations.md")[name], "https://splunk.example:8088", srv.URL, 1)
	specs, told := read(t, text+"    allow_private: true\n")
	if told != "" {
		t.Fatal(told)
	}
	sender, err := specs[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	for _, m := range slices.Concat(notifytest.Messages(), notifytest.Hostile()) {
		r := sender.Notify(t.Context(), m)
		if r.Outcome == notify.Unsendable && strings.Contains(r.Reason, "its data does not match its type") {
			continue
		}
		if r.Outcome != notify.Delivered {
			t.Errorf("%s: %+v", m.Type, r)
			continue
		}
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		var object map[string]any
		if err := dec.Decode(&object); err != nil {
			t.Fatal(err)
		}
		check(t, request, object, m)
	}
}

func length(t *testing.T, v any, limit int) {
	t.Helper()
	if s, ok := v.(string); !ok || len(utf16.Encode([]rune(s))) > limit {
		t.Errorf("more than %d characters: %.100v", limit, v)
	}
}

// TestTeams has the rules of Adaptive Cards 1.4 for what is used, and of Teams: 28 KB.
func TestTeams(t *testing.T) {
	sendAll(t, "teams", map[string]string{"TEAMS_URL": "URL/workflows?sig=t0ken"}, func(t *testing.T, r *http.Request, m map[string]any, _ notify.Message) {
		attachments, _ := m["attachments"].([]any)
		if m["type"] != "message" || len(attachments) != 1 || r.ContentLength > 28_000 {
			t.Fatalf("%d bytes: %v", r.ContentLength, m)
		}
		a := attachments[0].(map[string]any)
		card, _ := a["content"].(map[string]any)
		if a["contentType"] != "application/vnd.microsoft.card.adaptive" || card["type"] != "AdaptiveCard" || card["version"] != "1.4" {
			t.Errorf("%v", a)
		}
		body, _ := card["body"].([]any)
		if len(body) != 3 {
			t.Fatalf("%v", body)
		}
		for _, e := range body {
			e := e.(map[string]any)
			switch e["type"] {
			case "TextBlock":
				length(t, e["text"], 1000)
				if c, ok := e["color"]; ok && c != "Good" && c != "Attention" && c != "Warning" {
					t.Errorf("%v", e)
				}
			case "FactSet":
				for _, f := range e["facts"].([]any) {
					length(t, f.(map[string]any)["title"], 50)
					length(t, f.(map[string]any)["value"], 200)
				}
			default:
				t.Errorf("%v", e)
			}
		}
		if actions, ok := card["actions"].([]any); ok {
			if a := actions[0].(map[string]any); a["type"] != "Action.OpenUrl" || !strings.HasPrefix(a["url"].(string), "https://") {
				t.Errorf("%v", a)
			}
		}
	})
}

// TestDiscord has the documented limits of embeds: a title of 256 characters, a description of 4,096, 25 fields with names of 256 and values of 1,024, 6,000 in all.
func TestDiscord(t *testing.T) {
	sendAll(t, "discord", map[string]string{"DISCORD_URL": "URL/api/webhooks/1/t0ken"}, func(t *testing.T, _ *http.Request, m map[string]any, _ notify.Message) {
		embeds, _ := m["embeds"].([]any)
		mentions, _ := m["allowed_mentions"].(map[string]any)
		if len(embeds) != 1 || len(mentions["parse"].([]any)) != 0 {
			t.Fatalf("%v", m)
		}
		e := embeds[0].(map[string]any)
		length(t, e["title"], 256)
		length(t, e["description"], 4096)
		if _, err := time.Parse(time.RFC3339Nano, e["timestamp"].(string)); err != nil {
			t.Error(err)
		}
		if _, ok := e["color"].(json.Number); !ok {
			t.Errorf("%v", e["color"])
		}
		fields := e["fields"].([]any)
		if len(fields) > 25 {
			t.Errorf("%d fields", len(fields))
		}
		total := e["title"].(string) + e["description"].(string)
		for _, f := range fields {
			f := f.(map[string]any)
			length(t, f["name"], 256)
			length(t, f["value"], 1024)
			total += f["name"].(string) + f["value"].(string)
		}
		length(t, total, 6000)
	})
}

// TestSplunk has the format of events of the HTTP Event Collector: the time in seconds, the data whole.
func TestSplunk(t *testing.T) {
	sendAll(t, "splunk", map[string]string{"SPLUNK_TOKEN": "hunter2"}, func(t *testing.T, r *http.Request, m map[string]any, sent notify.Message) {
		if r.URL.Path != "/services/collector/event" || r.Header.Get("Authorization") != "Splunk hunter2" || m["time"] != json.Number("1788264183.000") || m["source"] != "spate" {
			t.Errorf("%s %v %v", r.URL, r.Header, m)
		}
		event, _ := m["event"].(map[string]any)
		if event["type"] != sent.Type || event["id"] != sent.ID || event["data"] == nil {
			t.Errorf("%v", event)
		}
		if data, ok := event["data"].(map[string]any); sent.Type == notify.TypeIncidentOpened && (!ok || data["events"] != json.Number("9007200134741019") && data["events"] != json.Number("9007200134741020")) {
			t.Errorf("%v", data["events"])
		}
	})
}
