package secured

import (
	"testing"

	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
