package sql

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

// The queue of deliveries has tables of its own, which River brings along. A newer River with newer tables is a migration more here.
const (
	riverMigration = 2
	riverName      = "00002_river.go"
	riverVersion   = 8
)

// riverPostgres makes the queue's tables. River commits each step of its own, for a value of an enum can only be used in a later
// transaction, and keeps count of them, so a start that was cut off goes on where it was.
func riverPostgres() *goose.Migration {
	return goose.NewGoMigration(riverMigration, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
		m, opts, err := river(riverdatabasesql.New(db))
		if err != nil {
			return err
		}
		_, err = m.Migrate(ctx, rivermigrate.DirectionUp, opts)
		return err
	}}, nil)
}

// riverSQLite makes the queue's tables in goose's transaction, which has the only connection.
func riverSQLite() *goose.Migration {
	return goose.NewGoMigration(riverMigration, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		m, opts, err := river(riversqlite.New(nil))
		if err != nil {
			return err
		}
		_, err = m.MigrateTx(ctx, tx, rivermigrate.DirectionUp, opts) //nolint:staticcheck // what cannot share a transaction is Postgres' enums
		return err
	}}, nil)
}

func river(driver riverdriver.Driver[*sql.Tx]) (*rivermigrate.Migrator[*sql.Tx], *rivermigrate.MigrateOpts, error) {
	m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, fmt.Errorf("read the queue's migrations: %w", err)
	}
	return m, &rivermigrate.MigrateOpts{TargetVersion: riverVersion}, nil
}
