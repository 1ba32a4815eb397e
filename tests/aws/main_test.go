// Package aws compares mode aws as a whole with the reference and with mode kafka, on kinesalite, dynalite and moto.
package aws

import (
	"testing"

	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
