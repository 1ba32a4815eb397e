// Package harness starts spate's processes and brokers for tests that span packages, and compares their results with the log.
package harness

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"spate/shared/testskip"
)

// SharedFile is a file of the reference data: in the folder that SPATE_TEST_SHARED names, or beside the project's.
func SharedFile(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("SPATE_TEST_SHARED")
	if dir == "" {
		dir = filepath.Join(root(t), "..", "shared")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		testskip.Missing(t, "%s is not there; set SPATE_TEST_SHARED to the folder of the reference data", path)
	}
	return path
}

// root is the project's folder: the one with go.mod above the test.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod in the test's directory or above it")
		}
		dir = filepath.Dir(dir)
	}
}

// Eventually polls until ok, or fails the test.
func Eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	if !Within(within, ok) {
		t.Fatalf("not within %v: %s", within, what)
	}
}

// Within polls until ok, and reports whether it was in time.
func Within(within time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}
