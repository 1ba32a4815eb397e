// Package containers tests what runs in containers: the whole of docker-compose.yml, and a broker and a Postgres that the tests start.
package containers

import (
	"testing"

	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
