package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	run := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := Main(append([]string{"migrate"}, append(args, "--database-url", path)...), &out, &errs); code != ExitOK {
			t.Fatalf("%v: exit code %d: %s", args, code, &errs)
		}
		return out.String()
	}
	if got := run("status", "--json"); !strings.Contains(got, `"state":"pending"`) {
		t.Errorf("status before: %s", got)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("status made the file: %v", err)
	}
	if got := run("up"); !strings.Contains(got, path+" is up to date (8 of 8 migrations were pending)") {
		t.Errorf("up: %s", got)
	}
	if got := run("status", "--json"); !strings.Contains(got, `"state":"applied"`) || strings.Contains(got, "pending") {
		t.Errorf("status after: %s", got)
	}
	if got := run("up"); !strings.Contains(got, "(0 of 8 ") {
		t.Errorf("up again: %s", got)
	}
}

func TestMigrateHidesThePassword(t *testing.T) {
	for _, database := range []string{"postgres://u:s3cr3t@127.0.0.1:1/db", "postgres://u:s3cr3t#@h/db", "postgres://u:s3cr3t@h/db?sslmode=perhaps"} {
		var out, errs bytes.Buffer
		if code := Main([]string{"migrate", "up", "--database-url", database}, &out, &errs); code == ExitOK || strings.Contains(out.String()+errs.String(), "s3cr3t") {
			t.Errorf("exit code %d: %s%s", code, &out, &errs)
		}
	}
}
