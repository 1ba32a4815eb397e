package endpoints

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"spate/shared/notify"
	"spate/shared/notify/notifytest"
)

const (
	webhookSecret = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"
	pagerdutyKey  = "0123456789abcdef0123456789abcdef"
)

// secrets are never in an error.
var secrets = []string{"QUFBQUFB", pagerdutyKey, "t0ken", "hunter2", "12345-QUFB"}

// read reads a file of endpoints, and returns what is wrong with it, one problem a line.
func read(t *testing.T, text string) ([]Spec, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	specs, err := Read(path, false, slog.New(slog.DiscardHandler))
	if err == nil {
		return specs, ""
	}
	told := err.Error()
	for _, s := range secrets {
		if strings.Contains(told, s) {
			t.Errorf("it tells %q: %s", s, told)
		}
	}
	if strings.Contains(told, "%!") {
		t.Error(told)
	}
	return specs, told
}

// TestExamples: the example of every format is read, and makes a sender that takes a message of every type.
func TestExamples(t *testing.T) {
	variable := regexp.MustCompile(`(\w+)_env: (\w+)`)
	for _, f := range Formats() {
		for _, m := range variable.FindAllStringSubmatch(f.Example, -1) {
			value, ok := map[string]string{
				"secret": webhookSecret, "routing_key": pagerdutyKey, "url": "https://h.example/t0ken", "token": "xoxb-12345-QUFBQUFB", "password": "hunter2",
			}[m[1]]
			if !ok {
				t.Errorf("%s: no value for %s", f.Name, m[1])
			}
			t.Setenv(m[2], value)
		}
		specs, told := read(t, "endpoints:\n"+indent(f.Example))
		if told != "" || len(specs) == 0 {
			t.Errorf("%s: %s", f.Name, told)
			continue
		}
		for _, s := range specs {
			if s.Format != f.Name {
				t.Errorf("%s has format %s", s.Name, s.Format)
			}
			if err := s.Refused(); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
			sender, err := s.Open()
			if err != nil {
				t.Errorf("%s: %v", s.Name, err)
				continue
			}
			for _, m := range notifytest.Messages() {
				if err := sender.Check(m); err != nil {
					t.Errorf("%s: %s: %v", s.Name, m.Type, err)
				}
			}
			printed := fmt.Sprintf("%v %+v %#v %s %s %+v", sender, sender, sender, sender.Host(), s.Name, s)
			for _, secret := range secrets {
				if strings.Contains(printed, secret) {
					t.Errorf("%s tells %s: %s", f.Name, secret, printed)
				}
			}
			if !strings.Contains(sender.Host(), "://") {
				t.Errorf("%s: host %q", s.Name, sender.Host())
			}
			sender.Close()
		}
	}
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// TestRequiredFields: what is missing is named, with the ways to give it.
func TestRequiredFields(t *testing.T) {
	for _, f := range Formats() {
		_, told := read(t, "endpoints:\n- {name: a, format: "+f.Name+"}\n")
		for _, field := range f.Fields {
			if want := fmt.Sprintf("line 2: endpoint \"a\": %s: missing", field.Name); field.Required && !strings.Contains(told, want) {
				t.Errorf("%s: %q is not in\n%s", f.Name, want, told)
			}
			if field.Required && field.Secret && !strings.Contains(told, field.Name+"_env (the name of an environment variable)") {
				t.Errorf("%s: %s", field.Name, told)
			}
		}
	}
}

// TestFieldsOfOthers: a field of another format is refused, and the formats that have it are named.
func TestFieldsOfOthers(t *testing.T) {
	for _, f := range Formats() {
		for _, other := range Formats() {
			for _, key := range other.own() {
				with := having(key)
				if strings.Contains(strings.Join(f.own(), " ")+" ", key+" ") {
					continue
				}
				_, told := read(t, fmt.Sprintf("endpoints:\n- name: a\n  format: %s\n  %s: x\n", f.Name, key))
				want := fmt.Sprintf("line 4: endpoint \"a\": %s: is not a field of format %s; remove it, or set format: to one that has it: %s", key, f.Name, strings.Join(with, ", "))
				if !strings.Contains(told, want) {
					t.Errorf("%q is not in\n%s", want, told)
				}
			}
		}
	}
}

func TestExplains(t *testing.T) {
	t.Setenv("EMPTY", "")
	for _, c := range []struct {
		name, file string
		says       []string
	}{
		{"unknown format", "endpoints:\n- name: a\n  format: pigeon\n  routing_key: x\n", []string{`line 3: endpoint "a": format: "pigeon" is not one of standard-webhooks, pagerduty`}},
		{"a secret as format", "endpoints:\n- name: a\n  format: " + webhookSecret + "\n", []string{`format: "whsec_…" is not one of`}},
		{"format is a list", "endpoints:\n- name: a\n  format: [slack]\n", []string{`line 3: endpoint "a": format: is not text`}},
		{"unknown key", "endpoints:\n- {name: a, format: pagerduty, routing-key: x}", []string{`unknown key routing-key; valid keys are name, routing_key, routing_key_env, routing_key_file, url, format`}},
		{"key where its variable should be", "endpoints:\n- {name: a, format: pagerduty, routing_key_env: " + pagerdutyKey + "}", []string{"routing_key_env: contains the value itself; move it to routing_key"}},
		{"key where its file should be", "endpoints:\n- {name: a, format: pagerduty, routing_key_file: " + pagerdutyKey + "}", []string{"routing_key_file: contains the value itself"}},
		{"key that is none", "endpoints:\n- {name: a, format: pagerduty, routing_key: hunter2}", []string{`endpoint "a": routing_key: is not 32 letters and digits`}},
		{"password where its variable should be", "endpoints:\n- {name: a, format: pagerduty, routing_key_env: hunter2}", []string{"routing_key_env: the environment variable named here is not set"}},
		{"variable that is not set", "endpoints:\n- {name: a, format: pagerduty, routing_key_env: EMPTY}", []string{"routing_key_env: the environment variable EMPTY is not set"}},
		{"bad url", "endpoints:\n- {name: a, format: pagerduty, routing_key: " + pagerdutyKey + ", url: 'ftp://h.example/t0ken'}", []string{`endpoint "a": url: must begin with https://`}},
		{"slack, nothing", "endpoints:\n- {name: a, format: slack}", []string{`endpoint "a": url: missing; give url (an incoming webhook`}},
		{"slack, both", "endpoints:\n- {name: a, format: slack, url: https://h.example/t0ken, token: xoxb-12345-QUFBQUFB, channel: C1}", []string{"url: cannot be used with token"}},
		{"slack, no channel", "endpoints:\n- {name: a, format: slack, token: xoxb-12345-QUFBQUFB}", []string{"channel: missing; give the ID"}},
		{"slack, no token", "endpoints:\n- {name: a, format: slack, url: https://h.example/t0ken, channel: C1, api_url: https://h.example}", []string{"channel: requires a bot's token", "api_url: is used only with token"}},
		{"slack, bad token", "endpoints:\n- {name: a, format: slack, token: hunter2, channel: C1}", []string{"token: is not a Slack token"}},
		{"slack, token in the wrong place", "endpoints:\n- {name: a, format: slack, token_env: xoxb-12345-QUFBQUFB, channel: xoxb-12345-QUFBQUFB}", []string{"token_env: contains the value itself; move it to token"}},
		{"slack, token not set", "endpoints:\n- {name: a, format: slack, token_env: EMPTY, channel: C1, api_url: 'http://'}", []string{"token_env: the environment variable EMPTY is not set", "api_url: has no host"}},
		{"template, mistake", "endpoints:\n- name: a\n  format: template\n  url: https://h.example/t0ken\n  body: |\n    {\n    {{if}}\n  headers: {X-A: '{{hunter}}'}\n", []string{
			`line 7: endpoint "a": body: line 2: missing value for if`, `line 8: endpoint "a": headers: X-A: line 1: function "hunter" not defined`,
		}},
		{"template, not JSON", "endpoints:\n- name: a\n  format: template\n  url: https://h.example/t0ken\n  transitions: [opened]\n  body: '\"{{.title}}\"'\n", []string{
			`line 6: endpoint "a": body: tried with a message of type alert.opened: the result is not JSON`,
		}},
		{"template, headers", "endpoints:\n- {name: a, format: template, url: https://h.example/t0ken, body: '{}', headers: hunter2, method: GET}", []string{"headers: is not a mapping", "method: must be POST or PUT"}},
		{"template, odd headers", "endpoints:\n- {name: a, format: template, url: https://h.example/t0ken, body: '{}', headers: {a: [hunter2]}}", []string{"headers: contains a name or value that is not text"}},
		{"alertmanager", "endpoints:\n- {name: a, format: alertmanager, url: 'http://h.example', username: a, password_env: EMPTY}", []string{"password_env: the environment variable EMPTY is not set"}},
		{"alertmanager, half", "endpoints:\n- {name: a, format: alertmanager, url: 'http://h.example', password: hunter2}", []string{"username: basic authentication requires both"}},
		{"email", "endpoints:\n- {name: a, format: email, smtp: h.example, from: hunter2, to: a@example.com, tls: none, username: a, password_file: /dev/null}", []string{
			"smtp: is not host:port", "from: is not an e-mail address", "to: is not a list", "tls: none is allowed only for servers on this machine", "password_file: /dev/null: is empty",
		}},
		{"fields that are read twice", "endpoints:\n- {name: a, format: template, url: https://h.example/t0ken, body: '{}', transitions: hunter2, link: [hunter2], allow_private: hunter2}\n- {name: b, format: slack, token: xoxb-12345-QUFBQUFB, channel: C1, link: [x], allow_private: x}\n",
			[]string{`"a": transitions: is not a list`, `"a": link: is not text`, `"a": allow_private: must be true or false`, `"b": allow_private: must be`}},
		{"digests", "endpoints:\n- {name: a, format: pagerduty, routing_key: " + pagerdutyKey + ", digest_above: 5}", []string{"digest_above: cannot be used with format pagerduty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, told := read(t, c.file)
			for line := range strings.Lines(told) {
				if strings.Count(told, strings.TrimSpace(line)) > 1 {
					t.Errorf("twice: %s", line)
				}
			}
			for _, part := range c.says {
				if !strings.Contains(told, part) {
					t.Errorf("%q is not in\n%s", part, told)
				}
			}
		})
	}
}

// TestOldFiles: what was an endpoint before there were formats still is the same one.
func TestOldFiles(t *testing.T) {
	for _, format := range []string{"", ", format: standard-webhooks", ", format: null"} {
		specs, told := read(t, "endpoints:\n- {name: a, url: https://h.example/t0ken, secret: "+webhookSecret+", digest_above: 5"+format+"}\n")
		if told != "" || len(specs) != 1 || specs[0].Format != DefaultFormat || specs[0].DigestAbove != 5 {
			t.Errorf("%+v, %s", specs, told)
		}
	}
	specs, err := Flags{URL: "https://h.example/t0ken", Secret: webhookSecret}.Spec()
	if err != nil || len(specs) != 1 || specs[0].Format != DefaultFormat || specs[0].Name != FlagName {
		t.Errorf("%+v, %v", specs, err)
	}
	if _, err := specs[0].Open(); err != nil {
		t.Error(err)
	}
	var _ notify.Notifier = Sender(nil)
}

func TestRedacted(t *testing.T) {
	for text, want := range map[string]string{
		"a " + webhookSecret + " b":                "a whsec_… b",
		"xoxb-12345-QUFBQUFB":                      "…",
		"key " + pagerdutyKey:                      "key …",
		"R0123456789ABCDEFGHIJKLMNOPQRSTU":         "…",
		"https://h.example/t0ken?x":                "https://h.example/…",
		"/etc/spate/endpoints.yaml":                "/etc/spate/endpoints.yaml",
		"a\x1b[31m":                                `a\x1b[31m`,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 abc": "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 abc",
	} {
		if got := Redacted(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
