package console

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	schema "spate/sql"

	"spate/shared/ops"
	"spate/shared/store"
	"spate/shared/store/postgres"
	"spate/shared/store/sqlite"
)

// databaseFlags say where alerts are kept.
type databaseFlags struct {
	DatabaseURL string `name:"database-url" env:"SPATE_DATABASE_URL" placeholder:"URL" help:"Database that keeps the alerts: postgres://user:password@host/database, or a SQLite file as a path or sqlite:///path. Default: spate.db in the state directory."`
}

// database is what keeps the alerts, not opened yet.
type database struct {
	// name is for people; it has no password.
	name string
	// server: it may be away, and come back.
	server bool
	// open opens it and brings its schema up to date.
	open func(context.Context) (store.Store, error)
	// status tells of its schema and changes nothing.
	status func(context.Context) ([]schema.Migration, error)
}

// database reads the setting; an error is the person's to mend. The default is in the state directory, which open makes.
func (f databaseFlags) database(state string) (database, error) {
	if postgres.IsURL(f.DatabaseURL) {
		name, err := postgres.Name(f.DatabaseURL)
		return database{
			name:   name,
			server: true,
			open:   func(ctx context.Context) (store.Store, error) { return opened(postgres.Open(ctx, f.DatabaseURL)) },
			status: func(ctx context.Context) ([]schema.Migration, error) { return postgres.Status(ctx, f.DatabaseURL) },
		}, err
	}
	setting, ours := f.DatabaseURL, f.DatabaseURL == ""
	if ours {
		setting = filepath.Join(state, "spate.db")
	}
	path, err := sqlite.Path(setting)
	return database{
		name: path,
		open: func(ctx context.Context) (store.Store, error) {
			if ours {
				if err := os.MkdirAll(state, 0o700); err != nil {
					return nil, err
				}
			}
			return opened(sqlite.Open(ctx, setting))
		},
		status: func(ctx context.Context) ([]schema.Migration, error) { return sqlite.Status(ctx, setting) },
	}, err
}

// openWhenReady opens it, and waits for a server that is away. Without an answer until ctx ends, the error is that of ctx.
func (d database) openWhenReady(ctx context.Context, log *slog.Logger, status *ops.Status) (st store.Store, err error) {
	status.NotReady("waiting for the database")
	err = ops.Keep(ctx, log, status, func(err error) bool { return !d.server || !postgres.Temporary(err) }, func(ctx context.Context) (err error) {
		st, err = d.open(ctx)
		return err
	})
	if err == nil && st == nil {
		err = context.Cause(ctx)
	}
	return st, err
}

// opened keeps a nil pointer from becoming a store that is not nil.
func opened[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}
