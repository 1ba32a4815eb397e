package dynamodb

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTimeOfAKey: a sort key tells its time to the millisecond, whatever digits are behind it.
func TestTimeOfAKey(t *testing.T) {
	for _, ms := range []int64{0, 1, 999, 1000, 1700000000075, 253402300799999, -1, -999, -1000, -1001, -62135596800000} {
		check(t, time.UnixMilli(ms).UTC())
	}
	for range 1000 {
		check(t, time.UnixMilli(rand.Int64N(253402300799999*2)-253402300799999).UTC())
	}
}

func check(t *testing.T, at time.Time) {
	t.Helper()
	for _, more := range []string{"", idDigits(at.String())} {
		if got := (Key{Sort: seconds(at, more)}).time(); !got.Equal(at) {
			t.Errorf("%v is %v, by %s", at, got, seconds(at, more))
		}
	}
}
