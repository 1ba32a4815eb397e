// Package harness starts spate's processes and brokers for the tests that span packages, and holds what came out against the log.
package harness

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Missing skips a test for the lack of something, or fails it where everything must be there.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("REQUIRE_INTEGRATION") == "1" {
		t.Fatalf("REQUIRE_INTEGRATION=1, and "+format, args...)
	}
	t.Skipf(format, args...)
}

// SharedFile is a file of the reference data: in the folder that SPATE_TEST_SHARED names, or beside the project's.
func SharedFile(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("SPATE_TEST_SHARED")
	if dir == "" {
		dir = filepath.Join(root(t), "..", "shared")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		Missing(t, "%s is not there; set SPATE_TEST_SHARED to the folder of the reference data", path)
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
			t.Fatal("no go.mod above the test")
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
