package sql

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"spate/shared/store/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// TestRulesKeepOldRows: the migration that lets alerts be of any rule keeps what is there, and undoing it does, too.
func TestRulesKeepOldRows(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "a.db")+"?_pragma=foreign_keys(1)")
		if err != nil {
			t.Fatal(err)
		}
		keepsOldRows(t, db, SQLite, "0", "window_start_ms, window_end_ms, first_event_ms, last_event_ms")
	})
	t.Run("Postgres", func(t *testing.T) {
		db, err := sql.Open("pgx", postgrestest.URL(t))
		if err != nil {
			t.Fatal(err)
		}
		keepsOldRows(t, db, Postgres, "now()", "window_start, window_end, first_event_at, last_event_at")
	})
}

func keepsOldRows(t *testing.T, db *sql.DB, schema Schema, now, times string) {
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := schema.provider(db)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	// rows are those of the three tables that are made anew, with the columns that they always had.
	rows := func() (out []string) {
		t.Helper()
		r, err := db.QueryContext(t.Context(), `SELECT alert.id || rule || user_id || alert.state || severity || count || threshold || d.webhook_id || d.type || d.state || t.n || t.outcome
FROM alert JOIN delivery d ON alert_id = alert.id JOIN delivery_try t ON t.webhook_id = d.webhook_id AND t.endpoint = d.endpoint ORDER BY alert.id`)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for r.Next() {
			var s string
			if err := r.Scan(&s); err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, err := p.UpTo(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	end := map[string]string{"0": "1", "now()": "now() + interval '10 s'"}[now]
	for i, state := range []string{"opened", "closed"} {
		closed := map[string]string{"opened": "NULL", "closed": now}[state]
		exec(fmt.Sprintf(`INSERT INTO alert (id, rule, user_id, state, severity, count, threshold, %s, evidence, opened_at, closed_at)
VALUES ('a%d', 'burst', '"7"', '%s', 'critical', 12, 5, %s, %s, %s, %[4]s, '{}', %[4]s, %[7]s)`, times, i, state, now, end, now, closed))
		exec(fmt.Sprintf(`INSERT INTO delivery (webhook_id, endpoint, alert_id, type, state, tries, created_at, begun_at) VALUES ('a%d_x', 'e', 'a%[1]d', 'alert.%s', 'delivered', 1, %s, %[3]s)`, i, state, now))
		exec(fmt.Sprintf(`INSERT INTO delivery_try (webhook_id, endpoint, n, at, status, outcome, reason, took_ms) VALUES ('a%d_x', 'e', 1, %s, 200, 'delivered', '', 3)`, i, now))
	}
	before := rows()
	if len(before) != 2 {
		t.Fatalf("%q", before)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, rows()); diff != "" {
		t.Error(diff)
	}
	exec(`UPDATE alert SET state = 'raised' WHERE id = 'a0'`)
	if _, err := db.ExecContext(t.Context(), `UPDATE alert SET state = 'opened' WHERE id = 'a0'`); err == nil || !strings.Contains(err.Error(), "moves back") {
		t.Errorf("an alert moved back: %v", err)
	}
	exec(fmt.Sprintf(`INSERT INTO delivery (webhook_id, endpoint, type, state, created_at, begun_at) VALUES ('test_1', 'e', 'endpoint.test', 'delivered', %s, %[1]s)`, now))
	exec(fmt.Sprintf(`INSERT INTO delivery_try (webhook_id, endpoint, n, at, status, outcome, reason, took_ms) VALUES ('test_1', 'e', 1, %s, 200, 'delivered', '', 3)`, now))
	if _, err := p.DownTo(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, rows()); diff != "" {
		t.Error(diff)
	}
	// What belongs together still does.
	exec(`DELETE FROM alert`)
	var left int
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM delivery) + (SELECT count(*) FROM delivery_try)`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows are left: %v", left, err)
	}
}
