package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

const (
	// lockSuffix is the suffix of the file beside the database on which a process holds a lock while it migrates the database. The file exists only meanwhile.
	lockSuffix = "-migrate"
	// lockTimeout is how long a process waits for another one that migrates the database: migrations copy tables.
	lockTimeout = 5 * time.Minute
	lockEvery   = 20 * time.Millisecond
)

// lockMigrations waits until no other process migrates the database at path. SQLite's own locks do not suffice: they last for one transaction, and each migration
// is one, so two processes could take turns, and the slower one would apply a migration a second time, after later ones. If a process dies, its lock is
// released.
func lockMigrations(ctx context.Context, path string) (unlock func(), err error) {
	name := path + lockSuffix
	for end := time.Now().Add(lockTimeout); ; {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return func() {}, nil // SQLite cannot make files there, either, and says why
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && isAt(name, f) {
			return func() {
				_ = os.Remove(name) // if it stays, the next one takes it
				_ = f.Close()       // which gives the lock back
			}, nil
		}
		_ = f.Close() // it was not used
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("another process has been migrating the database for %v; it holds a lock on %s", lockTimeout, name)
		}
		t := time.NewTimer(lockEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// isAt reports whether an open file still has its name: the previous holder of the lock may have removed it.
func isAt(name string, f *os.File) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	is, err := os.Stat(name)
	return err == nil && os.SameFile(open, is)
}
