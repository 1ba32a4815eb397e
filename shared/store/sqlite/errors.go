package sqlite

import (
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	schema "spate/sql"
)

// translate says what an error of the driver means for whoever runs the program. It names the file; the original is wrapped.
func (s *Store) translate(err error) error {
	var e *driver.Error
	switch {
	case errors.Is(err, schema.ErrNewer):
		return fmt.Errorf("%s: %w", s.path, err)
	case !errors.As(err, &e):
		return err
	}
	var what string
	switch primary(e) {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		what = fmt.Sprintf("has been locked by another process for more than %v", busyTimeout)
	case lib.SQLITE_FULL:
		what = "cannot be written to: the disk is full"
	case lib.SQLITE_READONLY:
		what = "is read-only: the file or its directory is not writable"
	case lib.SQLITE_CANTOPEN:
		what = "cannot be opened: its directory does not exist, or access is denied"
	case lib.SQLITE_CORRUPT:
		what = "is corrupt; restore it, or move it away and read the alerts topic again from the beginning"
	case lib.SQLITE_NOTADB:
		what = "is not a SQLite database"
	case lib.SQLITE_IOERR:
		what = "cannot be read or written: input/output error"
	case lib.SQLITE_NOLFS, lib.SQLITE_PERM, lib.SQLITE_AUTH:
		what = "is not accessible"
	default:
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return fmt.Errorf("%s %s: %w", s.path, what, err)
}

// Temporary reports whether an error of the database passes by itself, or when room is made: another process holds the lock, or the disk is full.
func Temporary(err error) bool {
	var e *driver.Error
	if !errors.As(err, &e) {
		return false
	}
	switch primary(e) {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_FULL:
		return true
	}
	return false
}

// locked reports whether another process has a lock.
func locked(err error) bool {
	var e *driver.Error
	return errors.As(err, &e) && primary(e) == lib.SQLITE_BUSY
}

// constraint reports whether the row, and not the database, is the cause.
func constraint(err error) bool {
	var e *driver.Error
	return errors.As(err, &e) && primary(e) == lib.SQLITE_CONSTRAINT
}

// primary strips what extended result codes add.
func primary(e *driver.Error) int { return e.Code() & 0xff }
