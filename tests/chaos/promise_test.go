package chaos

import (
	"testing"
	"time"
)

func TestPromises(t *testing.T) {
	t.Parallel()
	type event struct {
		at     int64 // append time
		window int64
		by     int64 // late for a promise by so much; -1: it is counted
		wrong  bool
	}
	for name, log := range map[string][]event{
		"founded: the partition was silent":                  {{0, 0, -1, false}, {30, 0, 5, false}},
		"founded: nothing had come yet":                      {{0, 0, 5, false}},
		"founded: a window beyond the promise is counted":    {{0, 0, -1, false}, {30, 10, -1, false}, {31, 0, 5, false}},
		"founded: the promise was made in silence, met late": {{0, 0, -1, false}, {30, 10, -1, false}, {300, 10, -1, false}, {301, 0, 9, false}},
		"unfounded: the silence was too short":               {{0, 0, -1, false}, {29, 0, 5, true}},
		"unfounded: it was not made in that silence":         {{0, 0, -1, false}, {30, 0, -1, false}, {31, 0, 5, true}},
		"unfounded: the later promise reaches further":       {{0, 0, -1, false}, {30, 10, -1, false}, {31, 0, 5, false}, {32, 0, 10, true}},
		"not kept":                           {{0, 0, -1, false}, {30, 0, 5, false}, {31, 0, -1, true}},
		"kept: it does not reach so far":     {{0, 0, -1, false}, {30, 0, 9, false}, {31, 10, -1, false}},
		"not kept: it reaches exactly there": {{0, 0, -1, false}, {30, 0, 10, false}, {31, 10, -1, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPromises(10*time.Millisecond, 30*time.Millisecond)
			for i, e := range log {
				p.next(time.UnixMilli(e.at))
				var ok bool
				if e.by < 0 {
					ok = p.count(e.window)
				} else {
					ok = p.late(e.window, e.by)
				}
				if ok == e.wrong {
					t.Errorf("event %d is as it must be: %v", i, ok)
				}
			}
		})
	}
}
