// Package testskip decides what happens to a test that the machine cannot run: it is skipped, or fails if REQUIRE_INTEGRATION=1.
package testskip

import (
	"os"
	"testing"
)

// Missing skips a test for the lack of something, or fails it where everything must be there.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("REQUIRE_INTEGRATION") == "1" {
		t.Fatalf("REQUIRE_INTEGRATION=1, and "+format, args...)
	}
	t.Skipf(format, args...)
}
