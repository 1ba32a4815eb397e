package aws

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"spate/tests/harness"
)

// TestStory runs docs/aws.md from its first step to its last, as somebody would at a shell.
func TestStory(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes a minute")
	}
	t.Parallel()
	file := harness.SharedFile(t, "data/cosmetics-2019-10-head-9col.csv")
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	a := harness.OnAWS(t, 4) // for its names; the script makes everything, again
	cmd := exec.CommandContext(t.Context(), "./story.sh", file)
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(append(os.Environ(), a.Env...), "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"), "SPATE_BUCKET="+a.Table)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("story.sh: %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("alerts: 14, of which the topic was told: 14; an independent count of the file has 14")) {
		t.Errorf("story.sh found something else:\n%s", out)
	}
	t.Logf("%s", out)
}
