package embedded

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spate/services/embedded/broker"
	"spate/shared/store/sqlite"
)

// used makes a state directory as spate up leaves it, with a file of the user's own.
func used(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	b, err := broker.Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	st, err := sqlite.Open(t.Context(), filepath.Join(dir, "spate.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.Close(), os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func agree([]string) error { return nil }

func TestReset(t *testing.T) {
	dir := used(t)
	no := errors.New("no")
	if err := Reset(t.Context(), dir, func([]string) error { return no }); !errors.Is(err, no) || names(t, dir) != "broker lock notes.txt spate.db" {
		t.Errorf("after a no: %v, %s", err, names(t, dir))
	}
	var asked []string
	err := Reset(t.Context(), dir, func(paths []string) error { asked = paths; return nil })
	if want := []string{filepath.Join(dir, "broker"), filepath.Join(dir, "spate.db")}; err != nil || !slices.Equal(asked, want) || names(t, dir) != "lock notes.txt" {
		t.Errorf("%v, asked about %s, left %s", err, asked, names(t, dir))
	}
	b, err := broker.Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("a broker on what is left: %v", err)
	}
	b.Close()
}

func TestResetOfWhatIsNotToBeDeleted(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		says    string
	}{
		"a running broker": {func(t *testing.T, dir string) {
			b, err := broker.Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Close)
		}, "in use by process"},
		"an open database": {func(t *testing.T, dir string) {
			st, err := sqlite.Open(t.Context(), filepath.Join(dir, "spate.db"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { st.Close() })
		}, "spate.db is open in another process"},
		"no lock file":         {func(t *testing.T, dir string) { remove(t, dir, "lock") }, "not a spate up state directory"},
		"no broker's topics":   {func(t *testing.T, dir string) { remove(t, dir, "broker/meta.json") }, "not a spate up state directory"},
		"another program's":    {func(t *testing.T, dir string) { write(t, dir, "lock", "apt\n") }, "belongs to another program"},
		"topics by a symlink":  {func(t *testing.T, dir string) { move(t, dir, "broker") }, "is a symbolic link"},
		"interrupted, so kept": {func(t *testing.T, dir string) {}, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := used(t)
			c.prepare(t, dir)
			before := names(t, dir)
			ctx, cancel := context.WithCancel(t.Context())
			if c.says == "canceled" {
				cancel()
			}
			defer cancel()
			if err := Reset(ctx, dir, agree); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v", err)
			}
			if after := names(t, dir); after != before {
				t.Errorf("left %s of %s", after, before)
			}
		})
	}
	// Where nothing ever was, nothing is asked or made.
	dir := filepath.Join(t.TempDir(), "missing")
	if err := Reset(t.Context(), dir, func([]string) error { return errors.New("asked") }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("the directory was made")
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// move puts a link in the place of a directory.
func move(t *testing.T, dir, name string) {
	t.Helper()
	to := filepath.Join(t.TempDir(), name)
	if err := errors.Join(os.Rename(filepath.Join(dir, name), to), os.Symlink(to, filepath.Join(dir, name))); err != nil {
		t.Fatal(err)
	}
}
