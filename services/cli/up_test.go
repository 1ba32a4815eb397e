package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/shared/store/sqlite"
)

func TestUpReset(t *testing.T) {
	bare(t)
	dir := t.TempDir()
	db := filepath.Join(dir, "spate.db")
	st, err := sqlite.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.Close(), os.WriteFile(filepath.Join(dir, "lock"), []byte("123\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0") // so that it ends once it has deleted
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	up := func(want int, args ...string) string {
		t.Helper()
		code, _, errs := spate(append([]string{"up", "--state", dir, "--listen", taken.Addr().String()}, args...)...)
		if code != want {
			t.Errorf("%v: exit code %d\n%s", args, code, errs)
		}
		return errs
	}
	says(t, up(ExitUsage, "--reset"), "reset: deletes all topics, alerts and deliveries", "add --yes")
	says(t, up(ExitUsage, "--yes"), "yes: applies only to --reset")
	says(t, up(ExitUsage, "--reset", "--yes", "--brokers", "127.0.0.1:1"), "reset: deletes only the topics of the embedded broker")
	if _, err := os.Stat(db); err != nil {
		t.Errorf("before it is confirmed: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other.db")
	says(t, up(ExitFailed, "--reset", "--yes", "--database-url", other), "deleted "+db+"\n", "kept the alerts in "+other+"\n", "in use")
	if _, err := os.Stat(db); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("afterwards: %v", err)
	}
	// The broker has left its lock and nothing else, as it could not listen.
	if err := os.RemoveAll(filepath.Join(dir, "broker")); err != nil {
		t.Fatal(err)
	}
	says(t, up(ExitFailed, "--reset", "--yes"), "nothing to delete in "+dir+"\n", "in use")
}

func TestAgreed(t *testing.T) {
	for text, want := range map[string]bool{"y\n": true, " YES\r\n": true, "y": true, "n\n": false, "\n": false, "": false, "yesterday\n": false} {
		if yes, err := agreed(t.Context(), strings.NewReader(text)); yes != want || err != nil {
			t.Errorf("%q: %v, %v", text, yes, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, w := io.Pipe()
	defer w.Close()
	if _, err := agreed(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestUpForOthers: a shell that gets the line of the banner has the settings as they are, and nothing secret is in it.
func TestUpForOthers(t *testing.T) {
	bare(t)
	state, err := stateDir()
	if err != nil {
		t.Fatal(err)
	}
	c := upCommand{State: state}
	c.Topic, c.UserField, c.TimeField, c.TimeFormat, c.MaxAhead, c.Format = "activity", []string{"user_id"}, []string{"txn_timestamp", "event_time"}, "auto", time.Minute, "auto"
	if got := c.forOthers(localBroker); got != "" {
		t.Errorf("with the defaults: %q", got)
	}
	c.State, c.Topic, c.UserField, c.TimeField, c.TimeFormat, c.DedupeField, c.MaxAhead = filepath.Join(state, "a b"), "web.orders", []string{`shop\.user`, "user id", "a,b"}, []string{"it's", "$HOME"}, "02.01.2006 15:04:05", "id", time.Hour
	c.DatabaseURL = "postgres://me:secret@host/spate"
	line := string(c.forOthers("127.0.0.1:9"))
	says(t, line, "other commands need the same SPATE_DATABASE_URL as this one\n")
	if strings.Contains(line, "secret") {
		t.Errorf("the password is shown: %s", line)
	}
	_, line, _ = strings.Cut(line, "for other commands: ")
	line, _, _ = strings.Cut(line, "\n")
	out, err := exec.CommandContext(t.Context(), "sh", "-c", line+`; printf '%s|' "$SPATE_BROKERS" "$SPATE_STATE" "$SPATE_TOPIC" "$SPATE_USER_FIELD" "$SPATE_TIME_FIELD" "$SPATE_TIME_FORMAT" "$SPATE_DEDUPE_FIELD" "$SPATE_MAX_AHEAD"`).Output()
	if want := "127.0.0.1:9|" + c.State + `|web.orders|shop\.user,user id,a\,b|it's,$HOME|02.01.2006 15:04:05|id|1h0m0s|`; err != nil || string(out) != want {
		t.Errorf("%s: %s, not %s; %v", line, out, want, err)
	}
}
