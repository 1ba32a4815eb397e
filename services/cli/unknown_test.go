package cli

import (
	"slices"
	"testing"

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
		{[]string{"alerts", "ls", "--since", "x", "--key", "7"}, "spate: since: \"x\" is not a time; use a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24), or an age (1h, 7d)\nspate: key: 7 is not COLUMN=VALUE, such as user_id=alice\n"},
		{[]string{"rules", "check", "no/such.sql"}, "spate: no/such.sql: no such file or directory\n"},
		{[]string{"demo", "--duration", "1s"}, "spate: duration: 1s is not between 15s (the time every kind of attacker needs) and 1h\n"},
	} {
		if code, _, errs := spate(test.args...); code != ExitUsage || errs != test.want {
			t.Errorf("%q: exit code %d: %q, want %q", test.args, code, errs, test.want)
		}
	}
}
