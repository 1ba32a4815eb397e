package harness

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
)

// AttackWindow is the size of the windows in which an [Attack] is counted.
const AttackWindow = 10 * time.Second

// attackWindows is how many windows of an attack have events.
const attackWindows = 360

// Attack is an hour of user 7: 360 windows with enough events for an alert, with two pauses that are shorter than an incident may be quiet and one that is longer. So
// it is two incidents, each of which becomes critical.
type Attack struct {
	began   time.Time
	counts  map[int]int // events by window
	windows int         // the pauses among them
}

// NewAttack returns an attack that begins at a time.
func NewAttack(rng *rand.Rand, began time.Time) *Attack {
	a := &Attack{began: began.UTC().Truncate(AttackWindow), counts: map[int]int{}}
	for n := range attackWindows {
		switch n {
		case attackWindows / 4, attackWindows * 3 / 4:
			a.windows += 5 // 50 s of nothing
		case attackWindows / 2:
			a.windows += 7 // 70 s
		}
		a.counts[a.windows] = 6 + rng.IntN(4)
		if n%(attackWindows/2) == 60 {
			a.counts[a.windows] = 15
		}
		a.windows++
	}
	return a
}

// Step returns the events of some windows, from one on, in the order of time, and the next window; false is the end. others is how many other users each window ends
// with an event of, so that event time goes on in as many partitions.
func (a *Attack) Step(from, windows, others int) (attacker, rest []string, next int, more bool) {
	for next = from; next < min(from+windows, a.windows); next++ {
		start := a.began.Add(time.Duration(next) * AttackWindow)
		for i := range a.counts[next] {
			attacker = append(attacker, attackEvent(7, start.Add(time.Duration(i)*AttackWindow/20)))
		}
		for i := range others {
			rest = append(rest, attackEvent(1000+next*others+i, start.Add(AttackWindow-time.Millisecond)))
		}
	}
	return attacker, rest, next, next < a.windows
}

// After returns an event of somebody else when the attack is long over.
func (a *Attack) After() string {
	return attackEvent(999, a.began.Add(time.Duration(a.windows)*AttackWindow+5*time.Minute))
}

func attackEvent(user int, at time.Time) string {
	return fmt.Sprintf(`{"user_id":%d,"event_time":%d}`, user, at.UnixMilli())
}

// Counted is how many windows with events there are before one.
func (a *Attack) Counted(before int) (n int64) {
	for at := range before {
		if a.counts[at] > 0 {
			n++
		}
	}
	return n
}

// incidents counts them in the plain way.
func (a *Attack) incidents() (out []incident.Incident) {
	var last time.Time
	for at := range a.windows {
		n := int64(a.counts[at])
		if n == 0 {
			continue
		}
		start := a.began.Add(time.Duration(at) * AttackWindow)
		if len(out) == 0 || start.Sub(last) > incident.DefaultQuiet {
			out = append(out, incident.Incident{
				ID: incident.ID(alert.Burst, json.RawMessage(`{"user_id":7}`), start, start.Add(AttackWindow)), Severity: alert.Critical, FirstWindowStart: start, State: incident.StateResolved,
			})
		}
		last = start.Add(AttackWindow)
		i := &out[len(out)-1]
		i.Windows, i.Events, i.Peak, i.LastWindowEnd = i.Windows+1, i.Events+n, max(i.Peak, n), last
	}
	return out
}

// Stored returns the incidents of the attacker, and how many windows they have, as spate incidents ls lists them in an environment.
func (a *Attack) Stored(t *testing.T, env []string) (list []incident.Incident, windows int64) {
	t.Helper()
	ls := Spate(t, "incidents ls", env, "incidents", "ls", "--user", "7", "--json").Start()
	if err := ls.Wait(time.Minute); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(ls.Output())) {
		var i incident.Incident
		if json.Unmarshal([]byte(line), &i) == nil && i.ID != "" { // the output may also be a sentence that there are none
			list, windows = append(list, i), windows+i.Windows
		}
	}
	return list, windows
}

// Check waits until the incidents are over and holds them against the plain count. It returns the ids of the messages about them.
func (a *Attack) Check(t *testing.T, env []string) (messages map[string]bool) {
	t.Helper()
	want := a.incidents()
	if len(want) != 2 || want[0].Windows+want[1].Windows != attackWindows {
		t.Fatalf("the attack is %+v", want)
	}
	Eventually(t, 2*time.Minute, "both incidents are over", func() bool {
		list, _ := a.Stored(t, env)
		return len(list) >= len(want) && list[len(list)-1].State == incident.StateResolved
	})
	list, _ := a.Stored(t, env)
	if len(list) != len(want) {
		t.Fatalf("%d incidents, want %d: %+v", len(list), len(want), list)
	}
	messages = map[string]bool{}
	for n, i := range list {
		w := want[n]
		if i.ID != w.ID || i.State != w.State || i.Severity != w.Severity || i.Windows != w.Windows || i.Events != w.Events || i.Peak != w.Peak ||
			!i.FirstWindowStart.Equal(w.FirstWindowStart) || !i.LastWindowEnd.Equal(w.LastWindowEnd) {
			t.Errorf("incident %d is\n%+v, want\n%+v", n+1, i, w)
		}
		for _, what := range []string{"_opened", "_escalated_1", "_resolved"} {
			messages[i.ID+what] = true
		}
	}
	return messages
}
