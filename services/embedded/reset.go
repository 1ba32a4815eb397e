package embedded

import (
	"context"
	"path/filepath"
	"slices"

	"spate/services/embedded/broker"
	"spate/shared/store/sqlite"
)

// Reset deletes the topics and the database in a state directory that no process uses. agree is called with their paths first; if it returns an error,
// or there is nothing, nothing is deleted.
func Reset(ctx context.Context, dir string, agree func(paths []string) error) error {
	return broker.Reset(dir, func(paths []string) error {
		if err := agree(paths); err != nil {
			return err
		}
		if db := filepath.Join(dir, "spate.db"); slices.Contains(paths, db) {
			return sqlite.Remove(ctx, db)
		}
		return nil
	})
}
