package web

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"spate/shared/store/sqlite"
)

// TestHealthOfTheDatabase: a database that goes away after the console has opened it is reported.
func TestHealthOfTheDatabase(t *testing.T) {
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Store: func(context.Context) (Store, error) { return st, nil }, Log: slog.New(slog.DiscardHandler)})
	const says = "The database cannot be reached"
	if h := s.health(t.Context(), true); strings.Contains(strings.Join(h.Troubles, " "), says) {
		t.Errorf("while it is there: %+v", h)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if h := s.health(t.Context(), true); h.OK || !strings.Contains(strings.Join(h.Troubles, " "), says) {
		t.Errorf("when it is away: %+v", h)
	}
}
