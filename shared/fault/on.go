//go:build faults

package fault

import (
	"fmt"
	"os"
)

var name = mustName(os.Getenv("SPATE_FAULT"))

// The bugs, at most one of which is on.
var (
	// CommitMax: the detector takes the highest message that is done for the end of all that are done, as goka's own transport does.
	CommitMax = name == "commit-max"
	// HastyPromise: the router takes source partitions for silent that have events all the time.
	HastyPromise = name == "hasty-promise"
	// NoClamp: the detector commits what it has processed, not the first batch of the windows that are open.
	NoClamp = name == "no-clamp"
	// NoDedupe: the detector adds up what it reads again although the checkpoint has it.
	NoDedupe = name == "no-dedupe"
	// ReadUncommitted: the detector reads what routers wrote in transactions that were aborted.
	ReadUncommitted = name == "read-uncommitted"
	// WatermarkLost: the router takes a source partition over without the state that judged its events.
	WatermarkLost = name == "watermark-lost"
)

func mustName(name string) string {
	switch name {
	case "", "commit-max", "hasty-promise", "no-clamp", "no-dedupe", "read-uncommitted", "watermark-lost":
		return name
	}
	panic(fmt.Sprintf("SPATE_FAULT: unknown fault %q", name))
}
