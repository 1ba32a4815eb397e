package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"

	schema "spate/sql"

	"spate/shared/ops"
	"spate/shared/store"
	"spate/shared/store/postgres"
	"spate/shared/store/sqlite"
)

// databaseFlags say where alerts are kept.
type databaseFlags struct {
	DatabaseURL databaseURL `name:"database-url" env:"SPATE_DATABASE_URL" placeholder:"URL" help:"Database that stores the alerts: postgres://user:password@host/database, the same as host=... user=... password=... dbname=..., or a SQLite file, given as a path or sqlite:///path. Default: spate.db in the state directory."`
}

// databaseURL is a flag that may hold a password. It takes what follows it of host=... password=... without quotes, so that no part of it
// ends up in a complaint about an argument that nobody expects; printed, it is hidden.
type databaseURL string

var keywordForm = regexp.MustCompile(`^\w+=`)

// Decode implements kong.MapperValue.
func (d *databaseURL) Decode(ctx *kong.DecodeContext) error {
	text, err := popText(ctx, "a database", keywordForm.MatchString)
	*d = databaseURL(strings.TrimSpace(text))
	return err
}

// Format keeps every verb of package fmt from showing it.
func (d databaseURL) Format(f fmt.State, verb rune) { secretText(d).Format(f, verb) }

// database is what keeps the alerts, not opened yet.
type database struct {
	// name is for people; it has no password.
	name string
	// server: it may be away, and come back.
	server bool
	// open opens it and brings its schema up to date.
	open func(context.Context) (store.Store, error)
	// status returns the state of its schema and changes nothing.
	status func(context.Context) ([]schema.Migration, error)
}

// database decides what the setting names; an error is the person's to mend, and has nothing of the setting, which may have a password
// where nobody expects it. The default is in the state directory, which open makes.
func (f databaseFlags) database(state string) (database, error) {
	setting := string(f.DatabaseURL)
	if postgres.Is(setting) {
		name, err := postgres.Name(setting)
		return database{
			name:   name,
			server: true,
			open:   func(ctx context.Context) (store.Store, error) { return opened(postgres.Open(ctx, setting)) },
			status: func(ctx context.Context) ([]schema.Migration, error) { return postgres.Status(ctx, setting) },
		}, named(err)
	}
	ours := setting == ""
	if ours {
		// The directory is a path, whatever is in it.
		abs, err := filepath.Abs(filepath.Join(state, "spate.db"))
		if err != nil {
			return database{}, fmt.Errorf("state directory (SPATE_STATE, --state): %w", err)
		}
		setting = abs
	}
	path, err := sqlite.Path(setting)
	if errors.Is(err, sqlite.ErrNotAPath) {
		err = errors.New("not a database: expected " + postgres.Forms + "; or a SQLite file: " + sqlite.Forms)
	}
	return database{
		name: path,
		open: func(ctx context.Context) (store.Store, error) {
			if ours {
				if err := os.MkdirAll(state, 0o700); err != nil {
					return nil, err
				}
				for _, suffix := range []string{"", "-wal", "-shm"} { // earlier versions left them to the umask
					if err := os.Chmod(path+suffix, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
						return nil, err
					}
				}
			}
			return opened(sqlite.Open(ctx, path))
		},
		status: func(ctx context.Context) ([]schema.Migration, error) { return sqlite.Status(ctx, path) },
	}, named(err)
}

// named says of an error which setting it is about.
func named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("database-url (SPATE_DATABASE_URL, --database-url): %w", err)
}

// openWhenReady opens it, and waits for a server that is away, and for a file that another process has locked. Without an answer until ctx ends,
// the error is that of ctx.
func (d database) openWhenReady(ctx context.Context, log *slog.Logger, status *ops.Status) (st store.Store, err error) {
	status.NotReady("waiting for the database")
	temporary := sqlite.Temporary
	if d.server {
		temporary = postgres.Temporary
	}
	err = ops.Keep(ctx, log, status, func(err error) bool { return !temporary(err) }, func(ctx context.Context) (err error) {
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
