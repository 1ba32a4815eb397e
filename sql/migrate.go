package sql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// ErrNewer: the database has been migrated further than this program knows.
var ErrNewer = errors.New("was created by a newer version of spate")

// Schema is what a kind of database is brought to.
type Schema struct {
	dialect     goose.Dialect
	files       fs.FS
	code        func() *goose.Migration // the one that is not a file
	locker      lock.SessionLocker      // nil if the database has none
	hasVersions string                  // query: 1 if it was ever migrated
	versions    string                  // query: what was applied, and when
}

// Migration is a step of a schema.
type Migration struct {
	Version   int64     `json:"version"`
	Name      string    `json:"name,omitempty"`      // empty if this program does not know it
	AppliedAt time.Time `json:"applied_at,omitzero"` // zero: not yet
}

func (s Schema) provider(db *sql.DB) (*goose.Provider, error) {
	opts := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithGoMigrations(s.code())}
	if s.locker != nil {
		opts = append(opts, goose.WithSessionLocker(s.locker))
	}
	p, err := goose.NewProvider(s.dialect, db, s.files, opts...)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return p, nil
}

// Up applies what is missing, each migration in a transaction.
func (s Schema) Up(ctx context.Context, db *sql.DB) error {
	p, err := s.provider(db)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	current, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > known {
		return fmt.Errorf("database %w: its schema has version %d, but this version of spate supports only version %d", ErrNewer, current, known)
	}
	return nil
}

// Pending returns all migrations as those of a database that does not exist yet.
func (s Schema) Pending() ([]Migration, error) {
	names, err := fs.Glob(s.files, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	out := []Migration{{Version: riverMigration, Name: riverName}}
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("read migrations: %w", err)
		}
		out = append(out, Migration{Version: version, Name: path.Base(name)})
	}
	slices.SortFunc(out, byVersion)
	return out, nil
}

// Status tells what was applied and what was not, by version. It changes nothing.
func (s Schema) Status(ctx context.Context, db *sql.DB) ([]Migration, error) {
	out, err := s.Pending()
	if err != nil {
		return nil, err
	}
	fail := func(err error) ([]Migration, error) { return nil, fmt.Errorf("read schema version: %w", err) }
	var migrated int
	if err := db.QueryRowContext(ctx, s.hasVersions).Scan(&migrated); err != nil || migrated == 0 {
		if err != nil {
			return fail(err)
		}
		return out, nil
	}
	rows, err := db.QueryContext(ctx, s.versions)
	if err != nil {
		return fail(err)
	}
	defer rows.Close()
	for rows.Next() {
		var m Migration
		if err := rows.Scan(&m.Version, &m.AppliedAt); err != nil {
			return fail(err)
		}
		m.AppliedAt = m.AppliedAt.UTC()
		if at := slices.IndexFunc(out, func(known Migration) bool { return known.Version == m.Version }); at >= 0 {
			out[at].AppliedAt = m.AppliedAt
		} else {
			out = append(out, m)
		}
	}
	if err := rows.Err(); err != nil {
		return fail(err)
	}
	slices.SortStableFunc(out, byVersion)
	return out, nil
}

func byVersion(a, b Migration) int { return cmp.Compare(a.Version, b.Version) }

// advisoryLock is a lock.SessionLocker that waits in the server; goose's own asks once a second. The lock goes with its connection, so
// that of a process that died is free. A migration that makes an index concurrently would wait for those who wait here.
type advisoryLock int64

func (l advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(l)); err != nil {
		return fmt.Errorf("wait for the migration lock: %w", err)
	}
	return nil
}

func (l advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", int64(l)); err != nil {
		return fmt.Errorf("release the migration lock: %w", err)
	}
	return nil
}
