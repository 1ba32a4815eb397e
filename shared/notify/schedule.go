package notify

import (
	"hash/fnv"
	"time"
)

// schedule is how long to wait before each try, as Standard Webhooks 1.0 recommends: ten tries in some 76 hours.
var schedule = [...]time.Duration{
	0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	// MaxTries is the maximum number of tries of a message, without throttled tries.
	MaxTries = len(schedule)

	// patience is how long an endpoint may put a message off: as long as the whole schedule takes.
	patience = 76 * time.Hour
	// maxAfter bounds what an endpoint may ask for at once.
	maxAfter = 24 * time.Hour
)

// Wait returns how long after its n-th try, counted from 1, a message is tried again: the schedule's time plus up to a tenth, so that
// messages that failed together are not retried together. key spreads them; the same key always gives the same time. Wait returns
// false if the message is not tried again.
func Wait(n int, key string) (time.Duration, bool) {
	if n < 1 || n >= MaxTries {
		return 0, false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(n)}) // never fails
	_, _ = h.Write([]byte(key))
	base := schedule[n]
	return base + time.Duration(h.Sum64()%uint64(base/10)), true
}
