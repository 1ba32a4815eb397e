// Package sql holds the schema of the databases that spate keeps alerts in, as goose migrations, one folder a database. The adapters
// in shared/store apply them when they open a database.
package sql

import (
	"embed"
	"io/fs"
)

//go:embed sqlite/*.sql
var files embed.FS

// SQLite are the migrations of a SQLite database.
var SQLite = mustSub("sqlite")

func mustSub(dir string) fs.FS {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // dir is a constant and no valid path
	}
	return sub
}
