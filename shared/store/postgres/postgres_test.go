package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	schema "spate/sql"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/postgres/postgrestest"
	"spate/shared/store/storetest"
	"spate/shared/testport"
)

func TestMain(m *testing.M) {
	code := postgrestest.Main(m)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var now = time.UnixMilli(1_600_000_000_000)

func open(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) func() store.Store {
		database := postgrestest.URL(t)
		return func() store.Store { return open(t, database) }
	})
}

func TestOpenAtOnce(t *testing.T) {
	database := postgrestest.URL(t)
	pending, err := Status(t.Context(), database)
	if err != nil || len(pending) == 0 || !pending[0].AppliedAt.IsZero() {
		t.Errorf("Status of an empty database: %+v, %v", pending, err)
	}
	var wg sync.WaitGroup
	for i := range 6 { // as processes that start together
		wg.Go(func() {
			s, err := Open(t.Context(), database)
			if err != nil {
				t.Errorf("opener %d: %v", i, err)
				return
			}
			defer s.Close()
			if _, err := s.Apply(t.Context(), now, []alert.Record{storetest.Record("5", i, alert.Opened)}); err != nil {
				t.Errorf("opener %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	s := open(t, database)
	defer s.Close()
	if c, err := s.Count(t.Context()); err != nil || c.Opened != 6 {
		t.Errorf("Count: %+v, %v", c, err)
	}
	applied, err := Status(t.Context(), database)
	if err != nil || len(applied) != len(pending) || time.Since(applied[0].AppliedAt).Abs() > time.Hour {
		t.Errorf("Status: %+v, %v", applied, err)
	}
	postgrestest.Exec(t, database, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	if _, err := Open(t.Context(), database); !errors.Is(err, schema.ErrNewer) {
		t.Errorf("Open of a newer schema: %v", err)
	}
}

// The schema itself refuses what the statements never do.
func TestSchemaRefuses(t *testing.T) {
	s := open(t, postgrestest.URL(t))
	defer s.Close()
	if _, err := s.Apply(t.Context(), now, []alert.Record{storetest.Record("5", 0, alert.Closed), storetest.Record("6", 0, alert.Opened)}); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"UPDATE alert SET state = 'opened', closed_at = NULL WHERE user_id = '5'",
		"UPDATE alert SET count = 10 WHERE user_id = '5'",
		"UPDATE alert SET id = 'x' WHERE user_id = '6'",
		"UPDATE alert SET user_id = '7' WHERE user_id = '6'",
		"UPDATE alert SET state = 'closed' WHERE user_id = '6'",
		"UPDATE alert SET closed_at = now() WHERE user_id = '6'",
		"UPDATE alert SET state = 'half' WHERE user_id = '6'",
		"UPDATE alert SET severity = '' WHERE user_id = '6'",
		"UPDATE alert SET count = 0 WHERE user_id = '6'",
		"UPDATE alert SET evidence = '{' WHERE user_id = '6'",
	} {
		if _, err := s.pool.Exec(t.Context(), q); !refused(err) {
			t.Errorf("%s: %v", q, err)
		}
	}
}

// What one slice has more than once comes out as if each record had come in its turn.
func TestSliceInOrder(t *testing.T) {
	s := open(t, postgrestest.URL(t))
	defer s.Close()
	opened, closed := storetest.Record("5", 0, alert.Opened), storetest.Record("5", 0, alert.Closed)
	stranger := storetest.Record("6", 1, alert.Closed) // about another, under the same id
	stranger.ID = opened.ID
	other := closed
	other.Count = 99
	long := storetest.Record(`"`+strings.Repeat("user", 5000)+`"`, 0, alert.Opened)
	huge := storetest.Record("7", 0, alert.Opened)
	huge.WindowEnd = time.Date(294300, 1, 1, 0, 0, 0, 0, time.UTC) // no time of the database is so late
	got, err := s.Apply(t.Context(), now, []alert.Record{opened, opened, stranger, huge, closed, opened, long, other, stranger, closed})
	if err != nil {
		t.Fatal(err)
	}
	want := []bool{true, false, false, false, true, false, true, false, false, false}
	if fmt.Sprint(got.Changed) != fmt.Sprint(want) {
		t.Errorf("Changed: %v, want %v", got.Changed, want)
	}
	var rejected []string
	for _, r := range got.Rejected {
		kind := "conflict"
		if errors.Is(r.Err, store.ErrInvalid) {
			kind = "invalid"
		}
		rejected = append(rejected, fmt.Sprint(r.Index, " ", kind))
	}
	if fmt.Sprint(rejected) != "[2 conflict 3 invalid 7 conflict 8 conflict]" {
		t.Errorf("Rejected: %v", rejected)
	}
	a, err := s.Alert(t.Context(), opened.ID)
	if err != nil || a.State != alert.Closed || a.Count != closed.Count {
		t.Errorf("Alert: %+v, %v", a, err)
	}
	for a, err := range s.Alerts(t.Context(), store.Filter{User: string(long.UserID)}) {
		if err != nil || a.ID != long.ID {
			t.Errorf("Alerts of a long user: %v, %v", a.ID, err)
		}
	}
}

// More alerts than a page has, many with the same window.
func TestPages(t *testing.T) {
	s := open(t, postgrestest.URL(t))
	defer s.Close()
	const n = 2*page + 7
	var records []alert.Record
	for i := range n {
		records = append(records, storetest.Record(fmt.Sprintf(`"%s%d"`, strings.Repeat("x", i%2*150), i), i%3, alert.Opened))
	}
	if _, err := s.Apply(t.Context(), now, records); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int]int{0: n, page: page, page + 1: page + 1, n + 5: n} {
		var last store.Alert
		got := 0
		for a, err := range s.Alerts(t.Context(), store.Filter{Limit: limit}) {
			if err != nil {
				t.Fatal(err)
			}
			if got++; got > 1 && (a.WindowStart.Before(last.WindowStart) || a.WindowStart.Equal(last.WindowStart) && string(a.UserID) <= string(last.UserID)) {
				t.Fatalf("%s comes after %s", a.UserID, last.UserID)
			}
			last = a
		}
		if got != want {
			t.Errorf("limit %d: %d alerts, want %d", limit, got, want)
		}
	}
}

// An Apply that its context ends does not happen later.
func TestCanceledApplyIsOver(t *testing.T) {
	database := postgrestest.URL(t)
	s := open(t, database)
	defer s.Close()
	block, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = block.Rollback(context.Background()) }() // the test has ended, however it went
	if _, err := block.Exec(t.Context(), "LOCK TABLE alert IN EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Apply(ctx, now, []alert.Record{storetest.Record("5", 0, alert.Opened)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Apply: %v", err)
	}
	if err := block.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Count(t.Context()); err != nil || c.Total() != 0 {
		t.Errorf("Count: %+v, %v", c, err)
	}
}

// flood applies distinct alerts from several goroutines, each slice until it is acknowledged, while disturb is at work, which hears when slices were
// acknowledged, until all are. It returns how many tries failed.
func flood(t *testing.T, s *Store, workers, slices int, disturb func(acknowledged <-chan struct{})) (failed int) {
	t.Helper()
	const size = 50
	var mu sync.Mutex
	var wg, disturbing sync.WaitGroup
	acknowledged := make(chan struct{}, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	disturbing.Go(func() { disturb(acknowledged) })
	for w := range workers {
		wg.Go(func() {
			for n := range slices {
				var records []alert.Record
				for i := range size {
					records = append(records, storetest.Record(fmt.Sprint(w), n*size+i, alert.Opened), storetest.Record(fmt.Sprint(w), n*size+i, alert.Closed))
				}
				for {
					got, err := s.Apply(ctx, now, records)
					if err == nil {
						if len(got.Rejected) > 0 {
							t.Errorf("rejected: %v", got.Rejected)
						}
						select {
						case acknowledged <- struct{}{}:
						default:
						}
						break
					}
					mu.Lock()
					failed++
					mu.Unlock()
					if strings.Contains(err.Error(), postgrestest.Password) {
						t.Errorf("the password is in %v", err)
					}
					select {
					case <-ctx.Done():
						t.Errorf("worker %d: %v", w, err)
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
			}
		})
	}
	wg.Wait()
	close(acknowledged)
	disturbing.Wait()
	c, err := s.Count(ctx)
	for err != nil && ctx.Err() == nil { // on a connection that was cut last of all
		c, err = s.Count(ctx)
	}
	if want := (store.Counts{Closed: int64(workers * slices * size)}); err != nil || c != want {
		t.Errorf("Count: %+v, %v; want %+v", c, err, want)
	}
	return failed
}

func TestConnectionsCut(t *testing.T) {
	database := postgrestest.URL(t)
	s := open(t, database)
	defer s.Close()
	// Each time that something got through, so that a slow server gets somewhere, too.
	failed := flood(t, s, 4, 100, func(acknowledged <-chan struct{}) {
		for range acknowledged {
			postgrestest.Exec(t, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		}
	})
	t.Logf("%d tries failed", failed)
	if failed == 0 {
		t.Error("no connection was cut in the midst of anything")
	}
}

func TestServerRestarts(t *testing.T) {
	server := postgrestest.Start(t)
	s := open(t, server.Database(t))
	defer s.Close()
	failed := flood(t, s, 4, 100, func(<-chan struct{}) {
		for _, crash := range []bool{false, true} {
			server.Stop(t, crash)
			_, err := s.Count(t.Context())
			if err == nil || !strings.Contains(err.Error(), "connection refused") && !strings.Contains(err.Error(), "closed the connection") {
				t.Errorf("Count without a server: %v", err)
			}
			server.Start(t)
		}
	})
	t.Logf("%d tries failed", failed)
	if failed == 0 {
		t.Error("the server was never missed")
	}
}

func TestErrors(t *testing.T) {
	database := postgrestest.URL(t)
	open(t, database).Close() // makes the tables
	with := func(change func(u *url.URL)) string {
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		return u.String()
	}
	const secret = "s3cr3t-Xy"
	dead := testport.Reserve(t) // nobody listens there
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	for _, c := range []struct{ name, url, want string }{
		{"refused", "postgres://u:" + secret + "@" + dead + "/db", "connection refused"},
		{"login", with(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), secret) }), "refuses the login"},
		{"no such database", with(func(u *url.URL) { u.Path = "/none" }), "does not exist"},
		{"host", "postgres://u:" + secret + "@no-such-host.invalid/db", "cannot be found"},
		{"parameter", "postgres://u:" + secret + "@h/db?sslmode=perhaps", "sslmode is invalid"},
		{"password as a parameter", "postgres://u@h/db?sslmode=perhaps&password=" + secret, "sslmode is invalid"},
		{"# in the password", "postgres://u:" + secret + "#x@h/db", "percent-encoded"},
		{"/ in the password", "postgres://u:12/" + secret + "@h/db", "percent-encoded"},
		{"? in the password", "postgres://u:12?" + secret + "@h/db", "percent-encoded"},
		{"% in the password", "postgres://u:" + secret + "%zz@h/db", "percent-encoded"},
		{"port", "postgres://u:" + secret + "@h:99999/db", "not usable"},
		{"scheme", "mysql://u:" + secret + "@h/db", "not a Postgres database"},
	} {
		_, err := Open(t.Context(), c.url)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
			continue
		}
		for ; err != nil; err = errors.Unwrap(err) {
			logger.Error("open", "error", err)
		}
	}

	s := open(t, with(func(u *url.URL) {
		q := u.Query()
		q.Set("default_transaction_read_only", "on")
		u.RawQuery = q.Encode()
	}))
	defer s.Close()
	_, err := s.Apply(t.Context(), now, []alert.Record{storetest.Record("5", 0, alert.Opened)})
	if err == nil || !strings.Contains(err.Error(), "is read-only") {
		t.Errorf("read-only: %v", err)
	}
	logger.Error("apply", "error", err)
	for code, want := range map[string]string{"53100": "disk is full", "53300": "too many connections", "57P01": "closed the connection"} {
		if err := s.translate(t.Context(), &pgconn.PgError{Code: code}); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", code, err)
		}
	}
	for _, password := range []string{secret, postgrestest.Password, url.QueryEscape(postgrestest.Password)} {
		if strings.Contains(log.String(), password) {
			t.Errorf("the password %s is in\n%s", password, log.String())
		}
	}
}

// BenchmarkApplyDeliver is BenchmarkApply/opened with one endpoint that is told of each alert.
func BenchmarkApplyDeliver(b *testing.B) {
	s := open(b, postgrestest.URL(b))
	defer s.Close()
	to := notify.Endpoint{Name: "ops", Filter: notify.Alerts()}
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
		{"closed later", func(n int) []alert.Record { // a slice of closings after each slice of openings
			slice, i := n/1000, n%1000
			return []alert.Record{storetest.Record(fmt.Sprint(520000000+i), slice/2, []alert.State{alert.Opened, alert.Closed}[slice%2])}
		}},
		{"repeated", func(n int) []alert.Record {
			return []alert.Record{storetest.Record(fmt.Sprint(n%1000), 0, alert.Opened)}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := open(b, postgrestest.URL(b))
			defer s.Close()
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
