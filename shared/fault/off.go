//go:build !faults

package fault

// The released program has none of them; on.go says what each would be.
const (
	CommitMax       = false
	HastyPromise    = false
	NoClamp         = false
	NoDedupe        = false
	ReadUncommitted = false
	WatermarkLost   = false
)
