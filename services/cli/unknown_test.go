package cli

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

func TestUnknownVariables(t *testing.T) {
	var p program
	parser, err := kong.New(&p, kong.Vars{"services": ""})
	if err != nil {
		t.Fatal(err)
	}
	got := unknownVariables(parser.Model.Node, []string{
		"PATH=/bin", "SPATE_TRESHOLD=7", "SPATE_THRESHOLD=7", "SPATE_SASL_PASSWORD=geheim", "SPATE_SASL_PASWORD=geheim", "SPATE_HTTP_TOKEN=x", "SPATE_TEST_SHARED=x", "SPATE_KAFKA_PORT=1", "SPATE_GRAFANA_PASSWORD=x",
		"SPATE_WHAT_IS_THIS=geheim", "SPATEX=1",
	})
	want := []string{
		"SPATE_SASL_PASWORD is not a setting of spate; did you mean SPATE_SASL_PASSWORD?",
		"SPATE_TRESHOLD is not a setting of spate; did you mean SPATE_THRESHOLD?",
		"SPATE_WHAT_IS_THIS is not a setting of spate",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestUsageErrors: what is wrong with the command line, a file or the settings is said, line by line, and nothing else.
func TestUsageErrors(t *testing.T) {
	bare(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"alerts", "ls", "--since", "x", "--key", "7"}, "spate: since: \"x\" is not a time; use a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24), or an age (1h, 7d)\nspate: key: 7 is not COLUMN=VALUE; use, for example, user_id=alice\n"},
		{[]string{"incidents", "ls", "--only", "opn"}, "spate: only: \"opn\" is neither open nor resolved\n"},
		{[]string{"alerts", "ls", "--only", "open"}, "spate: only: \"open\" is not one of opened, raised, closed\n"},
		{[]string{"deliveries", "ls", "--only", "failed"}, "spate: only: \"failed\" is not one of pending, held, delivered, exhausted, disabled\n"},
		{[]string{"decisions", "add", "--scope", "ip", "--value", "x", "--level", "block", "--for", "60d"}, "spate: for: 1440h0m0s is not between 1s and 744h0m0s\n"},
		{[]string{"decisions", "add", "--scope", "ip", "--value", "x", "--level", "block", "--why", strings.Repeat("x", 2001)}, "spate: why: \"" + strings.Repeat("x", 40) + "\" is longer than 2000 bytes or is not UTF-8\n"},
		{[]string{"replay", "no/such.csv"}, "spate: no/such.csv: no such file or directory\n"},
		{[]string{"verify", "no/such.csv"}, "spate: no/such.csv: no such file or directory\n"},
		{[]string{"verify", "no/such.csv", "--rules", "../../rules/card-testing.sql"}, "spate: no/such.csv: no such file or directory\n"},
		{[]string{"replay", "."}, "spate: .: is a directory\n"},
		{[]string{"simulate", "no/such.csv", "--out", "-"}, "spate: no/such.csv: no such file or directory\n"},
		{[]string{"rules", "check", "no/such.sql"}, "spate: no/such.sql: no such file or directory\n"},
		{[]string{"demo", "--duration", "1s"}, "spate: duration: 1s is not between 15s (the time that every kind of attacker needs) and 1h\n"},
	} {
		if code, _, errs := spate(test.args...); code != ExitUsage || errs != test.want {
			t.Errorf("%q: exit code %d: %q, want %q", test.args, code, errs, test.want)
		}
	}
}

// TestDurations: days count in every flag that is a length of time, and nobody is told to try what cannot be.
func TestDurations(t *testing.T) {
	bare(t)
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0} {
		if d, err := duration(text); err != nil || d != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"d", "-1d", "1.5d", "1d-2h", "2w", "99999d"} {
		if d, err := duration(text); err == nil {
			t.Errorf("%s: %v", text, d)
		}
	}
	for _, test := range []struct{ args, want string }{
		{"silence add --rule burst --why x --for 90d", "spate: for: 2160h0m0s is longer than 744h0m0s;"},
		{"silence add --rule burst --why x --for 2w", "spate: --for: \"2w\" is not a duration; use a number and a unit, such as 90m, 12h or 7d\n"},
		{"silence add --rule burst --why x --for -1h", "spate: --for: \"-1h\" is not a duration; use"},
		{"silence add --rule burst --why x --for", "spate: --for: requires a duration, such as 90m, 12h or 7d\n"},
		{"silence add --rule burst --why x --for --json", "spate: --for: requires a duration"},
	} {
		code, _, errs := spate(strings.Fields(test.args)...)
		if code != ExitUsage || !strings.Contains(errs, test.want) || strings.Contains(errs, "perhaps") {
			t.Errorf("%s: exit code %d: %s", test.args, code, errs)
		}
	}
}

// TestBusyPorts: who cannot listen hears on which port, and with which flag to choose another one.
func TestBusyPorts(t *testing.T) {
	bare(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	for _, args := range [][]string{{"route"}, {"detect"}, {"alert", "--state", t.TempDir()}, {"decide"}, {"up", "--listen", "127.0.0.1:0", "--state", t.TempDir()}} {
		_, _, errs := spate(append(args, "--http", addr)...)
		if want := "spate: http: another program is using " + addr + "; stop it, or choose another address with --http (SPATE_HTTP)\n"; !strings.HasSuffix(errs, want) {
			t.Errorf("%q: %s", args, errs)
		}
	}
	_, _, errs := spate("receive", "--listen", addr, "--secret", secretA)
	if want := "spate: listen: another program is using " + addr + "; stop it, or choose another address with --listen (SPATE_RECEIVE_LISTEN)\n"; errs != want {
		t.Error(errs)
	}
}

// TestDatabaseIsDown: one line says what does not run, and where that is set.
func TestDatabaseIsDown(t *testing.T) {
	bare(t)
	code, _, errs := spate("alerts", "ls", "--database-url", "postgres://u:geheim@127.0.0.1:1/x")
	if want := "spate: postgres://u@127.0.0.1:1/x is not running: connection refused; check that the server is running and that SPATE_DATABASE_URL (--database-url) is correct\n"; code != ExitFailed || errs != want {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// TestCommandLineErrors: the last line says what is wrong, and what to give; what is above it is short.
func TestCommandLineErrors(t *testing.T) {
	bare(t)
	for _, test := range []struct {
		args  string
		want  string
		lines int
	}{
		{"rule check x", `spate: unexpected argument rule, did you mean one of "route", "rules"?`, 2},
		{"--nonsense", "spate: unknown flag --nonsense", 2},
		{"replay", "spate: file: missing. Event file: CSV with a header (columns separated by comma, semicolon, tab or |) or JSON lines; plain, .gz, .bz2, .zst, .xz or .zip; - reads standard input", 12},
		{"incidents mark abc", "spate: mark: missing. ", 12},
		{"endpoints test", "spate: name: missing. Name of the endpoint; the endpoint from --webhook-url is named webhook", 12},
	} {
		code, out, errs := spate(strings.Fields(test.args)...)
		lines := strings.Split(strings.TrimSuffix(out+errs, "\n"), "\n")
		if code != ExitUsage || !strings.HasPrefix(lines[len(lines)-1], test.want) || len(lines) > test.lines {
			t.Errorf("%s: exit code %d: %s%s", test.args, code, out, errs)
		}
	}
}
