package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	schema "spate/sql"

	"spate/shared/store"
	"spate/shared/store/jobs"
)

// Store is a store.Store in a Postgres database.
type Store struct {
	name  string // of the database, for errors
	pool  *pgxpool.Pool
	queue *jobs.Queue[pgx.Tx]
}

var _ store.Store = (*Store)(nil)

// Open connects to the database that a URL names (see IsURL) and brings its schema up to date, under a lock: others may do the same at
// the same time. The database must exist and be encoded in UTF-8. A parameter search_path in the URL chooses the schema that the tables
// are in.
func Open(ctx context.Context, setting string) (*Store, error) {
	cfg, err := parse(setting)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{name: name(cfg)}
	if err := s.open(ctx, cfg); err != nil {
		s.close()
		return nil, fmt.Errorf("open database: %w", s.translate(ctx, err))
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, cfg *pgxpool.Config) (err error) {
	if err := withDB(ctx, cfg, schema.Postgres.Up); err != nil {
		return err
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return err
	}
	s.queue, err = jobs.New(riverpgxv5.New(s.pool), poll)
	return err
}

var errEncoding = errors.New("the encoding is not UTF-8; create the database with ENCODING 'UTF8'")

// withDB gives f connections of its own, as database/sql has them.
func withDB(ctx context.Context, cfg *pgxpool.Config, f func(context.Context, *sql.DB) error) (err error) {
	db := stdlib.OpenDB(*cfg.ConnConfig)
	defer func() { err = errors.Join(err, db.Close()) }()
	var encoding string
	if err := db.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("%w (it has %s)", errEncoding, encoding)
	}
	return f(ctx, db)
}

// Status returns the migrations of a database, those applied and those pending. It changes nothing.
func Status(ctx context.Context, setting string) (out []schema.Migration, err error) {
	cfg, err := parse(setting)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{name: name(cfg)}
	err = withDB(ctx, cfg, func(ctx context.Context, db *sql.DB) (err error) {
		out, err = schema.Postgres.Status(ctx, db)
		return err
	})
	if err != nil {
		return nil, s.translate(ctx, err)
	}
	return out, nil
}

// Close closes the connections; it waits for calls that are under way.
func (s *Store) Close() error {
	s.close()
	return nil
}

func (s *Store) close() {
	if s.pool != nil {
		s.pool.Close()
	}
}
