// Package aws holds mode aws as a whole against the reference and against mode kafka, on kinesalite, dynalite and moto.
package aws

import (
	"testing"

	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
