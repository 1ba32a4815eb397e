// Package sqlite stores alerts in a SQLite file, for a single machine, without a server. It adapts modernc.org/sqlite, which is SQLite
// translated to Go, so the program remains a single static binary.
//
// The file is in WAL mode, so readers and the writer do not wait for each other. Commits are synced to the disk (synchronous=FULL):
// the alerter commits its offset after Apply, and if the offset outlived its rows, as it could in a power failure with
// synchronous=NORMAL, alerts would be lost for good. One sync per batch costs little.
//
// SQLite has one writer at a time. Within the process, that is the only connection of the writing pool; because of other
// processes, transactions begin as IMMEDIATE and wait for the lock, so none fails halfway because it cannot get the lock.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/riverqueue/river/riverdriver/riversqlite"
	_ "modernc.org/sqlite" // the driver "sqlite"

	schema "spate/sql"

	"spate/shared/store"
	"spate/shared/store/jobs"
)

const (
	busyTimeout = 5 * time.Second // for another process to finish its transaction
	readers     = 4
	// poll is how often the queue looks for due deliveries: nobody tells it of new ones.
	poll = 200 * time.Millisecond
)

// Store is a store.Store in a SQLite file.
type Store struct {
	path        string
	write, read *sql.DB
	upsert, get *sql.Stmt // of write
	deliver     *sql.Stmt // likewise
	incident    *sql.Stmt
	member      *sql.Stmt
	queue       *jobs.Queue[*sql.Tx]
	files       map[string]os.FileInfo // those that are open, by path
}

var _ store.Store = (*Store)(nil)

// Open opens the database at path, which may be anything that [Path] takes, makes it if it does not exist, and brings its schema up to
// date. Its directory must exist. A file that it makes is its user's alone, as are the -wal and -shm beside it, which SQLite makes like it.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := Path(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := create(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{path: path}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", s.translate(err)), s.Close())
	}
	return s, nil
}

// create makes an empty file, which is an empty database, that nobody else can read, if there is none. It comes into being under another
// name: closing a descriptor of the database itself would drop the locks that SQLite has on it in this process.
func create(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil // if it is not usable, SQLite says so
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".spate-*") // mode 0600
	if err != nil {
		return nil // the same
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if s.write, err = sql.Open("sqlite", dsn(s.path, url.Values{"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_foreign_keys": {"1"}})); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if s.upsert, err = s.write.PrepareContext(ctx, upsert); err != nil {
		return err
	}
	if s.get, err = s.write.PrepareContext(ctx, selectIdentity); err != nil {
		return err
	}
	if s.deliver, err = s.write.PrepareContext(ctx, insertDelivery); err != nil {
		return err
	}
	if s.incident, err = s.write.PrepareContext(ctx, putIncident); err != nil {
		return err
	}
	if s.member, err = s.write.PrepareContext(ctx, putMember); err != nil {
		return err
	}
	if s.files, err = stat(s.path, s.path+"-wal"); err != nil {
		return err
	}
	if s.queue, err = jobs.New(riversqlite.New(s.write), poll); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn(s.path, url.Values{"_query_only": {"1"}})); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return nil
}

// stat returns what the files are that exist.
func stat(paths ...string) (map[string]os.FileInfo, error) {
	out := make(map[string]os.FileInfo, len(paths))
	for _, path := range paths {
		info, err := os.Stat(path)
		if err == nil {
			out[path] = info
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return out, nil
}

// inPlace returns an error if an open file has been removed from its path or replaced. What is written to it then is gone when it is closed; SQLite
// itself does not look in WAL mode.
func (s *Store) inPlace() error {
	for path, was := range s.files {
		is, err := os.Stat(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err != nil || !os.SameFile(was, is) {
			return fmt.Errorf("%s was removed or replaced while it was open: put it back, or restart to use the current file", path)
		}
	}
	return nil
}

// dsn is a file URL, which SQLite reads: a path may have any character.
func dsn(path string, q url.Values) string {
	q.Set("_busy_timeout", fmt.Sprint(busyTimeout.Milliseconds()))
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return u.String()
}

// migrate brings the schema up to date, while no other process does.
func (s *Store) migrate(ctx context.Context) error {
	unlock, err := lockMigrations(ctx, s.path)
	if err != nil {
		return err
	}
	defer unlock()
	return schema.SQLite.Up(ctx, s.write)
}

// Status returns the migrations of the database at path, as Open takes it. It changes nothing: a file that does not exist is not
// created, and all of its migrations are pending.
func Status(ctx context.Context, path string) ([]schema.Migration, error) {
	path, err := Path(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return schema.SQLite.Pending()
	}
	s := &Store{path: path}
	if s.read, err = sql.Open("sqlite", dsn(path, url.Values{"_query_only": {"1"}})); err != nil {
		return nil, fmt.Errorf("open database: %w", s.translate(err))
	}
	defer s.read.Close() // it was only read
	out, err := schema.SQLite.Status(ctx, s.read)
	if err != nil {
		return nil, s.translate(err)
	}
	return out, nil
}

// Close closes the database.
func (s *Store) Close() error {
	var errs []error
	for _, st := range []*sql.Stmt{s.upsert, s.get, s.deliver, s.incident, s.member} {
		if st != nil {
			errs = append(errs, st.Close())
		}
	}
	// The writer last: the last connection to go folds the log into the file, and readers may not write.
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close database: %w", s.translate(err))
	}
	return nil
}

// Remove deletes the database at path, unless another process has it open. A file that is damaged is deleted, too.
func Remove(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("delete database: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, url.Values{"_pragma": {"locking_mode(exclusive)"}}))
	if err != nil {
		return fmt.Errorf("delete database: %w", err)
	}
	defer db.Close() // it is gone by then
	// In this mode, the first access takes a lock that is only to be had alone: in WAL mode, every open connection has a part of it.
	if _, err := db.ExecContext(ctx, "BEGIN IMMEDIATE; ROLLBACK"); locked(err) {
		return fmt.Errorf("delete database: %s is open in another process; stop spate up and spate alert first", path)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("delete database: %w", err)
		}
	}
	return nil
}
