// Package tests holds what spans packages: the pipeline on brokers, killed services, dead databases, the import rule.
package tests

import (
	"testing"

	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
