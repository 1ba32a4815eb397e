package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	schema "spate/sql"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() store.Store {
		path := filepath.Join(t.TempDir(), "a.db")
		return func() store.Store { return open(t, path) }
	})
}

func TestOpenAgainKeepsAlerts(t *testing.T) {
	// Characters that mean something in a URL are part of the name.
	path := filepath.Join(t.TempDir(), "odd name %41?mode=ro#x.db")
	now := time.UnixMilli(1_000)
	for life := range 3 {
		s := open(t, path)
		got, err := s.Apply(t.Context(), now, []alert.Record{storetest.Record("5", 0, alert.Closed)})
		if err != nil || got.Changed[0] != (life == 0) {
			t.Errorf("life %d: %+v, %v", life, got, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 || files[0].Name() != filepath.Base(path) {
		t.Errorf("files: %v, %v", files, err)
	}
}

// Alerts are nobody else's to read, wherever the file is.
func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(dir, "a.db"))
	defer s.Close()
	if _, err := s.Apply(t.Context(), time.UnixMilli(1), []alert.Record{storetest.Record("5", 0, alert.Opened)}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Errorf("%v, %v; want the database, -wal and -shm", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

// TestOpenAtOnce: processes that start together bring a new database up to date once. A migration that is applied a second time, after later ones, would undo them.
func TestOpenAtOnce(t *testing.T) {
	const openers = 16
	for round := range 15 {
		path := filepath.Join(t.TempDir(), "a.db")
		var wg sync.WaitGroup
		for i := range openers {
			wg.Go(func() {
				s, err := Open(t.Context(), path)
				if err != nil {
					t.Errorf("round %d, opener %d: %v", round, i, err)
					return
				}
				if _, err := s.Apply(t.Context(), time.UnixMilli(0), []alert.Record{storetest.Record("5", i, alert.Opened)}, notify.Endpoint{Name: "people"}); err != nil {
					t.Errorf("round %d, opener %d: %v", round, i, err)
				}
				if err := s.Close(); err != nil {
					t.Errorf("round %d, opener %d: %v", round, i, err)
				}
			})
		}
		wg.Wait()
		s := open(t, path)
		if c, err := s.Count(t.Context()); err != nil || c.Opened != openers {
			t.Errorf("round %d: Count: %+v, %v", round, c, err)
		}
		status, err := Status(t.Context(), path)
		if versions, perr := schema.SQLite.Pending(); err != nil || perr != nil || len(status) != len(versions) {
			t.Errorf("round %d: %d migrations were applied, %v; there are %d, %v", round, len(status), err, len(versions), perr)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(path + "?*"); err != nil || len(left) > 0 {
			t.Errorf("round %d: %v is left behind, %v", round, left, err)
		}
		if t.Failed() {
			return
		}
	}
}

func TestDurability(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	defer s.Close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2"} {
		var got string
		if err := s.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", pragma, got, err, want)
		}
	}
	if _, err := s.read.Exec("DELETE FROM alert"); err == nil {
		t.Error("the reading side can write")
	}
}

// The schema itself refuses what the statements never do.
func TestSchemaRefuses(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	defer s.Close()
	if _, err := s.Apply(t.Context(), time.UnixMilli(1), []alert.Record{storetest.Record("5", 0, alert.Closed), storetest.Record("6", 0, alert.Opened)}); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"UPDATE alert SET state = 'opened', closed_at = NULL WHERE user_id = '5'",
		"UPDATE alert SET count = 10 WHERE user_id = '5'",
		"UPDATE alert SET id = 'x' WHERE user_id = '6'",
		"UPDATE alert SET state = 'closed' WHERE user_id = '6'",
		"UPDATE alert SET closed_at = 1 WHERE user_id = '6'",
		"UPDATE alert SET state = 'half' WHERE user_id = '6'",
		"UPDATE alert SET severity = '' WHERE user_id = '6'",
		"UPDATE alert SET count = 'many' WHERE user_id = '6'",
		"UPDATE alert SET evidence = '{' WHERE user_id = '6'",
	} {
		if _, err := s.write.Exec(q); !constraint(err) {
			t.Errorf("%s: %v", q, err)
		}
	}
}

func TestPath(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"sqlite:///var/lib/a.db": "/var/lib/a.db", "sqlite://./rel/a.db": wd + "/rel/a.db", "sqlite://../a.db": filepath.Dir(wd) + "/a.db",
		"/a.db": "/a.db", "a.db": wd + "/a.db", "./x/../a.db": wd + "/a.db", "a%20b.db": wd + "/a%20b.db", "sqlite:///a%20%3Fb.db": "/a ?b.db",
	} {
		if got, err := Path(in); err != nil || got != want {
			t.Errorf("Path(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "sqlite://", "sqlite://host/a.db", "sqlite://a.db", "postgres://x/y", "sqlite:///a.db?mode=ro", "sqlite:///a%zz", ":memory:", "sqlite:///dir/", "a\x00b"} {
		if got, err := Path(in); err == nil {
			t.Errorf("Path(%q) = %q, want an error", in, got)
		}
	}
}

func TestErrorsNameTheFileAndTheCause(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is not a database\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	s := open(t, newer)
	if _, err := s.write.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none", "a.db"): "its directory does not exist",
		dir:                                "cannot be opened",
		text:                               "is not a SQLite database",
		newer:                              "newer version of spate",
	} {
		_, err := Open(t.Context(), path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s): %v; want %q", path, err, want)
		}
	}
}

func TestErrorsWhileRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	defer s.Close()
	records := []alert.Record{storetest.Record("5", 0, alert.Opened)}
	check := func(want string) {
		t.Helper()
		if _, err := s.Apply(t.Context(), time.UnixMilli(1), records); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Apply: %v; want %q", err, want)
		}
	}

	// Full: the file may not have more pages than it has.
	var pages int
	if err := s.write.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
		t.Fatal(err)
	}
	large := storetest.Record("6", 0, alert.Opened)
	large.Evidence.Topic = strings.Repeat("x", 1<<20)
	records = append(records, large)
	check("disk is full")
	if c, err := s.Count(t.Context()); err != nil || c.Total() != 0 {
		t.Errorf("a part of the batch is there: %+v, %v", c, err)
	}
	records = records[:1]

	// Locked by another process, which is another connection with its own lock.
	other, err := sql.Open("sqlite", dsn(path, url.Values{}))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := s.write.Exec("PRAGMA busy_timeout = 10"); err != nil {
		t.Fatal(err)
	}
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	check("locked by another process")
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Apply(t.Context(), time.UnixMilli(1), records); err != nil || !got.Changed[0] {
		t.Errorf("Apply after the lock is gone: %+v, %v", got, err)
	}

	// Read-only, as a file system that went bad.
	if _, err := s.write.Exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	records[0].State = alert.Closed
	check("is read-only")
}

// TestFilesAreTakenAway: nothing is acknowledged that is written to a file without a name.
func TestFilesAreTakenAway(t *testing.T) {
	for _, suffix := range []string{"", "-wal"} {
		path := filepath.Join(t.TempDir(), "a.db")
		s := open(t, path)
		defer s.Close()
		n := 0
		apply := func() error {
			n++
			_, err := s.Apply(t.Context(), time.UnixMilli(1), []alert.Record{storetest.Record("5", n, alert.Opened)})
			return err
		}
		check := func(what string) {
			t.Helper()
			if err := apply(); err == nil || !strings.Contains(err.Error(), path+suffix+" was removed or replaced") {
				t.Errorf("%s%s: %v", what, suffix, err)
			}
		}
		if err := apply(); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+suffix, path+".aside"); err != nil {
			t.Fatal(err)
		}
		check("moved away")
		if err := os.WriteFile(path+suffix, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		check("replaced")
		if err := os.Rename(path+".aside", path+suffix); err != nil {
			t.Fatal(err)
		}
		if err := apply(); err != nil {
			t.Errorf("put back: %v", err)
		}
		if c, err := s.Count(t.Context()); err != nil || c.Opened != 2 {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

// BenchmarkApplyDeliver is BenchmarkApply/opened with one endpoint that is told of each alert.
// Work ends although another process holds the database, and what was under way is not lost.
func TestWorkEndsWhileLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	defer s.Close()
	if _, err := s.Apply(t.Context(), time.Now(), []alert.Record{storetest.Record("5", 0, alert.Opened)}, notify.Endpoint{Name: "ops", Filter: notify.Alerts()}); err != nil {
		t.Fatal(err)
	}
	began, done := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		done <- s.Work(ctx, []store.Queue{{Endpoint: "ops", Workers: 1}}, slog.New(slog.DiscardHandler), func(ctx context.Context, _, _ string) (time.Time, error) {
			close(began)
			<-ctx.Done()
			return time.Time{}, ctx.Err()
		})
	}()
	<-began
	other, err := sql.Open("sqlite", dsn(path, url.Values{}))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Work: %v", err)
	}
	if took := time.Since(at); took > 7*time.Second {
		t.Errorf("Work took %v to end", took)
	}
}

func BenchmarkApplyDeliver(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "a.db"))
	defer s.Close()
	now, to := time.UnixMilli(1_600_000_000_000), notify.Endpoint{Name: "ops", Filter: notify.Alerts()}
	next := 0
	for b.Loop() {
		b.StopTimer()
		batch := make([]alert.Record, 1000)
		for i := range batch {
			batch[i] = storetest.Record(fmt.Sprint(520000000+next%5000), next/5000, alert.Opened)
			next++
		}
		b.StartTimer()
		if _, err := s.Apply(b.Context(), now, batch, to); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(next)/b.Elapsed().Seconds(), "alerts/s")
}

func BenchmarkApply(b *testing.B) {
	for _, c := range []struct {
		name    string
		records func(n int) []alert.Record
	}{
		{"opened", func(n int) []alert.Record {
			return []alert.Record{storetest.Record(fmt.Sprint(520000000+n%5000), n/5000, alert.Opened)}
		}},
		{"opened+closed", func(n int) []alert.Record {
			user := fmt.Sprint(520000000 + n%5000)
			return []alert.Record{storetest.Record(user, n/5000, alert.Opened), storetest.Record(user, n/5000, alert.Closed)}
		}},
		{"repeated", func(n int) []alert.Record {
			return []alert.Record{storetest.Record(fmt.Sprint(n%1000), 0, alert.Opened)}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "a.db"))
			defer s.Close()
			now := time.UnixMilli(1_600_000_000_000)
			next, total := 0, 0
			for b.Loop() {
				b.StopTimer()
				var batch []alert.Record
				for ; len(batch) < 1000; next++ {
					batch = append(batch, c.records(next)...)
				}
				b.StartTimer()
				if _, err := s.Apply(b.Context(), now, batch); err != nil {
					b.Fatal(err)
				}
				total += len(batch)
			}
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "alerts/s")
		})
	}
}
