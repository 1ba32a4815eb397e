// Package browser looks at the console as a person does: in Chromium, on a pipeline that runs.
//
//	drive.js       a browser that does what a line of JSON says
//	browser_test.go its tabs, each of which fails its test for an error in the page, a request to elsewhere or a breach of the policy
//	world_test.go  a spate up with a webhook endpoint, and its events
//	*_test.go      what must hold
package browser

import (
	"testing"

	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
