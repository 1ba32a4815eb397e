package cli

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/notify"
)

func TestEndpoints(t *testing.T) {
	bare(t)
	t.Setenv("PAGER_URL", " https://pager.example/t0ken\n")
	t.Setenv("PAGER_SECRET", secretA+" "+secretB)
	path := file(t, `
# YAML with comments
endpoints:
  - name: pager
    url_env: PAGER_URL
    secret_env: PAGER_SECRET
    allow_private: false
    rules: [burst]
    min_severity: critical
    transitions: [opened, closed]
    rate: 0.5
    digest_above: 100
    link: https://grafana.example/d/x?from={since}&to={until}
  - name: second
    url_file: url
    secret_file: secret
`)
	for name, text := range map[string]string{"url": "https://second.example:8443/t0ken\n", "secret": secretB + "\n" + secretA + "\n"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := webhookFlags{WebhookURL: "https://first.example/t0ken", WebhookSecret: secretA, Endpoints: path}
	got, stop, err := f.endpoints(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var endpoints []notify.Endpoint
	var hosts, links []string
	for _, e := range got {
		endpoints, hosts, links = append(endpoints, e.Endpoint), append(hosts, e.Config().Host), append(links, e.Link)
	}
	if diff := cmp.Diff([]notify.Endpoint{
		{Name: "webhook"},
		{
			Name: "pager", Filter: notify.Filter{Rules: []string{"burst"}, MinSeverity: alert.Critical, Transitions: []alert.State{alert.Opened, alert.Closed}},
			DigestAbove: 100, Rate: 0.5,
		},
		{Name: "second"},
	}, endpoints); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"https://first.example", "https://pager.example", "https://second.example:8443"}, hosts); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"", "https://grafana.example/d/x?from={since}&to={until}", ""}, links); diff != "" {
		t.Error(diff)
	}

	// JSON is YAML, also with tabs.
	path = file(t, "{\n\t\"endpoints\": [\n\t\t{\"name\": \"pager\", \"url\": \"https://pager.example/t0ken\",\n\t\t \"secret\": \""+secretA+"\", \"rate\": 1e1, \"rules\": null}\n\t]\n}\n")
	got, stop, err = webhookFlags{Endpoints: path}.endpoints(slog.New(slog.DiscardHandler))
	if err != nil || len(got) != 1 || got[0].Rate != 10 {
		t.Errorf("%v, %v", got, err)
	}
	stop()

	if got, stop, err := (webhookFlags{}).endpoints(slog.New(slog.DiscardHandler)); err != nil || len(got) != 0 || stop == nil {
		t.Errorf("%v, %v", got, err)
	}
	// However it is printed.
	f.WebhookURL = "https://first.example"
	quiet(t, fmt.Sprintf("%v %+v %#v %s %q %x", f, f, f, f.WebhookSecret, f.WebhookSecret, f.WebhookSecret))
}

func TestEndpointsExplains(t *testing.T) {
	bare(t)
	t.Setenv("EMPTY", "")
	const good = ", url: https://h.example/t0ken, secret: " + secretA + "}"
	for _, c := range []struct {
		name, file string
		says       []string
	}{
		{"empty", "", []string{"endpoints.yaml: the file contains no endpoints"}},
		{"comment", "# nothing\n", []string{"the file contains no endpoints"}},
		{"null", "endpoints:\n", []string{"the file contains no endpoints"}},
		{"no list", "endpoints: " + secretA, []string{"line 1: endpoints: is not a list"}},
		{"no mapping", "- name: x", []string{"line 1: the file must contain endpoints:"}},
		{"an endpoint is text", "endpoints:\n- " + secretA, []string{"line 2: endpoint 1: is not a mapping"}},
		{"unknown keys", "endpoints:\n- {name: a, colour: red, min-severity: critical" + good + "\nversion: 2\n",
			[]string{`line 2: endpoint "a": unknown key colour; valid keys are name, url`, "line 2: endpoint \"a\": unknown key min-severity", "line 3: unknown key version; valid keys are endpoints"}},
		{"secret as a key", "endpoints:\n- name: a\n  url: https://h.example/t0ken\n  secret:\n    " + secretA + ": x\n", []string{`line 5: endpoint "a": secret: is not text`}},
		{"secret as a key of the endpoint", "endpoints:\n- name: a\n  " + secretA + ":\n", []string{"unknown key [not a key name]"}},
		{"twice a key", "endpoints:\n- name: a\n  url: https://h.example/t0ken\n  secret: " + secretA + "\n  rate: 1\n  rate: 2\n", []string{`line 6: endpoint "a": rate: is given twice`}},
		{"twice a name", "endpoints:\n- {name: a" + good + "\n- {name: a" + good, []string{`endpoint "a": name: already used by another endpoint`}},
		{"no name", "endpoints:\n- {rate: 1" + good, []string{"line 2: endpoint 1: name: missing"}},
		{"bad name", "endpoints:\n- {name: " + secretA + good, []string{"line 2: endpoint 1: name: must consist of lower-case letters"}},
		{"no url", "endpoints:\n- {name: a, secret: " + secretA + "}", []string{`line 2: endpoint "a": url: missing; give url (https://host/path), url_env`}},
		{"no secret", "endpoints:\n- {name: a, url: https://h.example/t0ken}", []string{`endpoint "a": secret: missing; give secret (whsec_`}},
		{"several", "endpoints:\n- {name: a, url_env: X, secret_file: x" + good, []string{"url: is given more than once, as url and url_env; use only one of them", "secret: is given more than once, as secret and secret_file"}},
		{"bad url", "endpoints:\n- {name: a, url: ftp://h.example/t0ken, secret: " + secretA + "}", []string{`endpoint "a": url: must begin with https:// or http://`}},
		{"url without host", "endpoints:\n- {name: a, url: 'https:///t0ken', secret: " + secretA + "}", []string{`url: has no host`}},
		{"bad secrets", "endpoints:\n- {name: a, url: https://h.example/t0ken, secret: QUFBQUFB whsec_QUFB}",
			[]string{"secret: secret 1: does not begin with whsec_", "secret: secret 2: is 3 bytes long; it must be 24 to 64 bytes long"}},
		{"env unset", "endpoints:\n- {name: a, url_env: NOT_SET, secret_env: EMPTY}", []string{"url_env: the environment variable NOT_SET is not set", "secret_env: the environment variable EMPTY is not set"}},
		{"the value where its place should be", "endpoints:\n- {name: a, url_env: 'https://h.example/t0ken', secret_env: " + secretA + "}\n- {name: b, url_file: https://h.example/t0ken, secret_file: " + secretA + "}\n",
			[]string{"url_env: contains the value itself; move it to url", "secret_env: contains the value itself; move it to secret", "url_file: contains the value", "secret_file: contains the value"}},
		{"no name of a variable", "endpoints:\n- {name: a, url: https://h.example/t0ken, secret_env: QUFB+QUFB=}", []string{"secret_env: is not a valid environment variable name"}},
		{"no file", "endpoints:\n- {name: a, url: https://h.example/t0ken, secret_file: none}", []string{"secret_file: ", "none: cannot be read: no such file or directory"}},
		{"a directory", "endpoints:\n- {name: a, url: https://h.example/t0ken, secret_file: /}", []string{"secret_file: /: cannot be read: is a directory"}},
		{"empty file of a secret", "endpoints:\n- {name: a, url: https://h.example/t0ken, secret_file: /dev/null}", []string{"secret_file: /dev/null: is empty"}},
		{"endless file of a secret", "endpoints:\n- {name: a, url: https://h.example/t0ken, secret_file: /dev/zero}", []string{"secret_file: /dev/zero: is larger than 65536 bytes"}},
		{"filters", "endpoints:\n- {name: a, rules: [Flood], min_severity: bad, transitions: [closing, " + secretA + "]" + good,
			[]string{`rules: "Flood" is not a valid rule name`, `min_severity: "bad"`, `transitions: "closing"`, `transitions: "whsec_…"`}},
		{"no lists", "endpoints:\n- {name: a, rules: burst, transitions: {a: b}" + good, []string{"rules: is not a list; write it as [first, second]", "transitions: is not a list"}},
		{"items", "endpoints:\n- {name: a, rules: [[burst]], transitions: [null]" + good, []string{"rules: a list item is not text", "transitions: a list item"}},
		{"numbers", "endpoints:\n- {name: a, rate: " + secretB + ", digest_above: 1.5" + good, []string{"rate: is not a number", "digest_above: is not a whole number"}},
		{"odd numbers", "endpoints:\n- {name: a, rate: .nan, digest_above: 1e30" + good + "\n- {name: b, rate: .inf, digest_above: -1" + good, []string{`"a": rate: is not a number`, `"a": digest_above: is not a whole`, `"b": rate: is not a number`, "digest_above: -1 is negative"}},
		{"too slow", "endpoints:\n- {name: a, rate: 0.001" + good, []string{"rate: 0.001 attempts per second"}},
		{"yes or no", "endpoints:\n- {name: a, allow_private: " + secretB + good, []string{"allow_private: must be true or false"}},
		{"links", "endpoints:\n- {name: a, link: 'https://h.example/t0ken?{from}'" + good + "\n- {name: b, link: 'h.example/t0ken'" + good, []string{`"a": link: contains a brace`, `"b": link: is not a URL`}},
		{"no YAML", "endpoints:\n- name: a\n  secret: '" + secretA + "\n", []string{"is not valid YAML"}},
		{"tabs", "endpoints:\n\t- name: a\n", []string{"line 2: is not valid YAML"}},
		{"anchor", "endpoints:\n- name: *" + secretA + "\n", []string{"is not valid YAML: unknown anchor"}},
		{"merge", "endpoints:\n- &a {name: a" + good + "\n- {<<: *a, name: b}", []string{"merging (<<) is not supported"}},
		{"two documents", "endpoints:\n- {name: a" + good + "\n---\nendpoints: []\n", []string{"the file contains a second YAML document"}},
		{"all at once", "endpoints:\n- {name: A, rate: -1}\n- {colour: red}\n", []string{"endpoint 1: name: must consist of lower", "endpoint 1: rate: -1", "endpoint 1: url: missing", "endpoint 1: secret: missing", "endpoint 2: unknown key", "endpoint 2: name: missing", "endpoint 2: url: missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := spate("endpoints", "test", "a", "--endpoints", file(t, c.file))
			if code != ExitUsage || out != "" {
				t.Errorf("exit code %d: %s", code, out)
			}
			says(t, errs, c.says...)
			quiet(t, errs)
			if strings.Contains(errs, "unknown.invalid") || strings.Contains(errs, "%!") {
				t.Error(errs)
			}
		})
	}
}

func TestWebhookFlagsExplain(t *testing.T) {
	bare(t)
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"no secret", []string{"--webhook-url", "https://h.example/t0ken"}, []string{"webhook-secret: missing", "SPATE_WEBHOOK_SECRET"}},
		{"no url", []string{"--webhook-secret", secretA}, []string{"webhook-url: missing", "SPATE_WEBHOOK_URL"}},
		{"both wrong", []string{"--webhook-url", "h.example/t0ken", "--webhook-secret", "QUFB"}, []string{"webhook-url: must begin with https:// or http://", "webhook-secret: secret 1: does not begin with whsec_"}},
		{"secrets without quotes", []string{"--webhook-secret", secretA, secretB}, []string{"webhook-url: missing"}},
		{"no value", []string{"--webhook-secret", "-QUFB"}, []string{"--webhook-secret: a secret is missing"}},
		{"a flag that is none", []string{"--webhook-secrets=" + secretA}, []string{"unknown flag --webhook-secrets"}},
		{"no file", []string{"--endpoints", "/none/here.yaml"}, []string{"endpoints: /none/here.yaml: cannot be read: no such file"}},
		{"the name of the flags' endpoint", []string{"--webhook-url", "https://h.example/t0ken", "--webhook-secret", secretA, "--endpoints",
			file(t, "endpoints:\n- {name: webhook, url: https://h.example/t0ken, secret: "+secretA+"}")}, []string{`endpoint "webhook": name: already used`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := spate(append([]string{"endpoints", "test", "a"}, c.args...)...)
			if code != ExitUsage {
				t.Errorf("exit code %d", code)
			}
			says(t, errs, c.says...)
			quiet(t, out+errs)
		})
	}
	t.Setenv("SPATE_WEBHOOK_SECRET", secretA)
	t.Setenv("SPATE_WEBHOOK_URL", "https://h.example/t0ken")
	for _, args := range [][]string{{"endpoints", "ls", "--help"}, {"endpoints", "test", "--help"}, {"endpoints", "test"}, {"endpoints", "test", "--nonsense", "a"}, {"endpoints", "disable", "a", "b"}} {
		_, out, errs := spate(args...)
		quiet(t, out+errs)
	}
}

func TestEndpointsFileThatOthersCanRead(t *testing.T) {
	bare(t)
	t.Setenv("PAGER_SECRET", secretA)
	t.Setenv("PAGER_URL", "https://h.example/x")
	for _, c := range []struct {
		text string
		mode os.FileMode
		warn bool
	}{
		{"endpoints: [{name: a, url: https://h.example/x, secret: " + secretA + "}]", 0o600, false},
		{"endpoints: [{name: a, url: https://h.example/x, secret: " + secretA + "}]", 0o640, true},
		{"endpoints: [{name: a, url: https://h.example/x, secret_env: PAGER_SECRET}]", 0o666, false},
		{"endpoints: [{name: a, url: 'http://127.0.0.1:18080/hook', allow_private: true, secret_env: PAGER_SECRET}]", 0o644, false},
		{"endpoints: [{name: a, url: 'http://127.0.0.1:18080/hooks/abuse-of-accounts', allow_private: true, secret_file: key}]", 0o644, false},
		{"endpoints: [{name: a, format: slack, url: https://hooks.slack.com/services/T0/B0/x}]", 0o644, true},
		{"endpoints: [{name: a, url: https://h.example/in/4f7c1be2a90d4e3388, secret_env: PAGER_SECRET}]", 0o644, true},
		{"endpoints: [{name: a, url: 'https://h.example/in?token=x', secret_env: PAGER_SECRET}]", 0o644, true},
		{"endpoints: [{name: a, format: alertmanager, url: 'https://h.example/in', username: u, password: p}]", 0o644, true},
		{"endpoints: [{name: a, format: pagerduty, routing_key: 0123456789abcdef0123456789abcdef}]", 0o644, true},
		{"endpoints: [{name: a, url_env: PAGER_URL, secret_env: PAGER_SECRET}]", 0o644, false},
	} {
		path := file(t, c.text)
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "key"), []byte(secretA), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, errs := spate("endpoints", "ls", "--endpoints", path, "--database-url", filepath.Join(t.TempDir(), "a.db"))
		warned := strings.Contains(errs, "the endpoints file "+path+" contains secrets") && strings.Contains(errs, "chmod 600") && strings.Contains(errs, fmt.Sprintf("0%o", c.mode))
		if code != ExitOK || warned != c.warn || strings.Contains(errs, "chmod") != c.warn {
			t.Errorf("%s with mode %o: exit code %d, %s", c.text, c.mode, code, errs)
		}
		quiet(t, errs)
	}
}
