// Package sql contains the schemas of the databases that store alerts, as goose migrations, in one folder per database. The adapters in
// shared/store apply them when they open a database.
package sql

import (
	"embed"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

var (
	// SQLite is the schema of a SQLite database. It takes no lock: whoever brings one up to date sees to it that nobody else does at the same time.
	SQLite = Schema{dialect: goose.DialectSQLite3, files: mustSub("sqlite"), code: riverSQLite,
		hasVersions: `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'goose_db_version'`,
		versions:    `SELECT version_id, tstamp FROM goose_db_version WHERE is_applied AND version_id > 0 ORDER BY id`}

	// Postgres is the schema of a Postgres database. Those who migrate at the same time wait for each other.
	Postgres = Schema{dialect: goose.DialectPostgres, files: mustSub("postgres"), code: riverPostgres, locker: advisoryLock(0x7370617465), // "spate"
		hasVersions: `SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'goose_db_version'`,
		versions:    `SELECT version_id, tstamp::timestamptz FROM goose_db_version WHERE is_applied AND version_id > 0 ORDER BY id`}
)

func mustSub(dir string) fs.FS {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // dir is a constant and no valid path
	}
	return sub
}
