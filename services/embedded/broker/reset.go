package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Reset deletes what a broker left in a state directory, and the database beside it. It holds the directory's lock meanwhile. remove is called with what
// there is, before anything is gone: it deletes the database, or returns why nothing may be deleted. What else is in the directory stays. An empty
// or missing directory is nothing to do: remove is not called.
func Reset(dir string, remove func(paths []string) error) error {
	var found []string
	for _, name := range []string{"broker", "spate.db"} {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			found = append(found, path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state directory (SPATE_STATE, --state): %w", err)
		}
	}
	if len(found) == 0 {
		return nil
	}
	// Whoever has no lock never was a state directory: what is in it may be anybody's.
	if _, err := os.Lstat(filepath.Join(dir, "lock")); err != nil {
		return fmt.Errorf("state directory %s (SPATE_STATE, --state): %w", dir, errNotOurs)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlockDir(lock)
	topics := filepath.Join(dir, "broker")
	if left, err := os.ReadDir(topics); err == nil && len(left) > 0 {
		if _, err := os.Lstat(filepath.Join(topics, "meta.json")); err != nil {
			return fmt.Errorf("state directory %s (SPATE_STATE, --state): %w", dir, errNotOurs)
		}
	}
	if err := remove(found); err != nil {
		return err
	}
	if err := os.RemoveAll(topics); err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	return nil
}

var errNotOurs = errors.New("it is not a spate up state directory, so nothing was deleted")
