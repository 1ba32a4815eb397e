// Package tests holds what spans packages: the pipeline on brokers, killed services, dead databases, the import rule.
package tests

import (
	"log/slog"
	"os"
	"testing"

	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// logger writes into the test's output.
func logger(t *testing.T) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("SPATE_TEST_LOG") != "" {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}
