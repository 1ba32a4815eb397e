package tests

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"spate/shared/testskip"
	"spate/tests/harness"
)

// TestCompletion has bash read the script, and calls what it registers, as bash does at a Tab.
func TestCompletion(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		testskip.Missing(t, "bash is not installed")
	}
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"spate de":               {"decide", "decisions", "deliveries", "demo", "detect"},
		"spate deliveries re":    {"recover", "resend"},
		"spate up --rese":        {"--reset"},
		"spate route --format d": {"debezium"},
		"spate replay a":         nil, // bash goes on with file names
	} {
		// complete -p prints: complete -o default -C COMMAND spate.
		const script = `source <("$0" completion bash) && export COMP_LINE="$1" && eval "set -- $(complete -p spate)" && test "$2 $3 $4" = "-o default -C" && eval "$5 spate"`
		out, err := exec.Command(bash, "--norc", "-c", script, binary, line).CombinedOutput()
		got := strings.Fields(string(out))
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", line, got, err, want)
		}
	}
	for _, shell := range []string{"zsh", "fish"} {
		if out := run(t, 0, "completion", shell); !strings.Contains(string(out), binary) {
			t.Errorf("%s: %s", shell, out)
		}
	}
	run(t, 2, "completion", "tcsh")
}
