package cli

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestDecisions(t *testing.T) {
	bare(t)
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := []string{"--brokers", c.ListenAddrs()[0]}
	run := func(code int, args ...string) (string, string) {
		t.Helper()
		args = append(append([]string{"decisions"}, args...), at...)
		got, out, errs := spate(args...)
		if got != code {
			t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, code, out, errs)
		}
		return out, errs
	}
	_, errs := run(ExitOK, "ls")
	says(t, errs, "no decisions are in force")
	_, errs = run(ExitFailed, "rm", "--scope", "ip", "--value", "10.0.0.1")
	says(t, errs, "no decision about ip 10.0.0.1 is in force")

	out, _ := run(ExitOK, "add", "--scope", "username", "--value", "42", "--level", "block", "--for", "2h", "--why", "fraud \x1b[31m", "--by", "ana")
	says(t, out, "username 42: block until ")
	out, _ = run(ExitOK, "add", "--scope", "ip", "--value", "10.0.0.1", "--level", "ban", "--json")
	if d := objects(t, out)[0]; d["scope"] != "ip" || d["level"] != "ban" || d["until"] == nil {
		t.Errorf("%s", out)
	}
	_, errs = run(ExitOK, "add", "--scope", "sesion", "--value", "a", "--level", "block", "--for", "1d12h")
	says(t, errs, "spate: warning: scope: no rule in force has the key sesion; the scopes of the rules in force are username\n")
	run(ExitOK, "rm", "--scope", "sesion", "--value", "a")
	for _, scope := range []string{"username", "user_id", "ip", "Ip"} {
		if _, errs := run(ExitOK, "add", "--scope", scope, "--value", "a", "--level", "block"); errs != "" {
			t.Errorf("%s: %s", scope, errs)
		}
		run(ExitOK, "rm", "--scope", scope, "--value", "a")
	}
	out, _ = run(ExitOK, "ls")
	says(t, out, "SCOPE", "username", "42", "block", "by ana", `fraud \x1b[31m`, "10.0.0.1")
	out, _ = run(ExitOK, "ls", "--json", "--scope", "ip")
	if list := objects(t, out); len(list) != 1 || list[0]["value"] != "10.0.0.1" {
		t.Errorf("%s", out)
	}
	out, _ = run(ExitOK, "rm", "--scope", "user_id", "--value", "42")
	says(t, out, "1 decision ended")
	out, _ = run(ExitOK, "ls", "--json")
	if len(objects(t, out)) != 1 {
		t.Errorf("%s", out)
	}
	for args, why := range map[string]string{
		"add --scope ip --value x --level No":           `level: "No" is not a valid level`,
		"add --scope ip --value x --level a --for 0s":   "for: 0s is not between 1s and 744h0m0s",
		"add --scope ip --value x --level a --for 800h": "is not between",
		"add --scope ip --level a":                      "--value",
	} {
		_, errs := run(ExitUsage, strings.Fields(args)...)
		says(t, errs, why)
	}
	_, out, _ = spate("decide", "--help")
	says(t, strings.Join(strings.Fields(out), " "), "Address to serve /v1/decisions, /v1/check, /metrics, /healthz and /readyz on;")
	_, out, _ = spate("route", "--help")
	says(t, strings.Join(strings.Fields(out), " "), "Address to serve /metrics, /healthz and /readyz on;")
	code, _, errs := spate("decide", "--max-age", "1s", "--brokers", at[1])
	if code != ExitUsage {
		t.Errorf("decide: exit code %d", code)
	}
	says(t, errs, "max-age: 1s is neither 0 (any age) nor at least 2s")
}
