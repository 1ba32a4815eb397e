package notify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
)

func TestWait(t *testing.T) {
	const n = 200
	for try := 1; try < MaxTries; try++ {
		base := schedule[try]
		low, high := 24*time.Hour, time.Duration(0)
		distinct := map[time.Duration]bool{}
		for i := range n {
			key := fmt.Sprintf("alert%d.opened@ops", i)
			wait, ok := Wait(try, key)
			if !ok || wait < base || wait >= base+base/10 {
				t.Fatalf("after try %d, %s: %v, %v; want %v to %v", try, key, wait, ok, base, base+base/10)
			}
			if again, _ := Wait(try, key); again != wait {
				t.Fatalf("after try %d, %s: %v, then %v", try, key, wait, again)
			}
			distinct[wait] = true
			low, high = min(low, wait-base), max(high, wait-base)
		}
		// Spread over most of the tenth, and not in a few places.
		if len(distinct) < n*9/10 || low > base/10/10 || high < base/10*9/10 {
			t.Errorf("after try %d: %d different of %d, from %v to %v of %v", try, len(distinct), n, low, high, base/10)
		}
	}
	for _, try := range []int{-1, 0, MaxTries, MaxTries + 1} {
		if wait, ok := Wait(try, "key"); ok {
			t.Errorf("after try %d: %v", try, wait)
		}
	}
	if MaxTries != 10 {
		t.Errorf("%d tries", MaxTries)
	}
}

func TestStep(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	const key = "a.opened@ops"
	wait := func(n int) time.Time {
		w, ok := Wait(n, key)
		if !ok {
			t.Fatalf("no try after %d", n)
		}
		return now.Add(w)
	}
	for _, c := range []struct {
		name    string
		r       Result
		counted int
		age     time.Duration
		want    Outcome
		next    time.Time
	}{
		{"delivered", Result{Outcome: Delivered}, 0, 0, Delivered, time.Time{}},
		{"delivered at last", Result{Outcome: Delivered}, 9, 100 * time.Hour, Delivered, time.Time{}},
		{"gone", Result{Outcome: Gone}, 3, 0, Gone, time.Time{}},
		{"unsendable", Result{Outcome: Unsendable}, 0, 0, Exhausted, time.Time{}},
		{"first failure", Result{Outcome: Failed}, 0, 0, Failed, wait(1)},
		{"ninth failure", Result{Outcome: Failed}, 8, 0, Failed, wait(9)},
		{"tenth failure", Result{Outcome: Failed}, 9, 0, Exhausted, time.Time{}},
		{"one more", Result{Outcome: Failed}, 10, 0, Exhausted, time.Time{}},
		{"age does not matter", Result{Outcome: Failed}, 0, 1000 * time.Hour, Failed, wait(1)},
		{"throttled", Result{Outcome: Throttled, After: time.Minute}, 9, 0, Throttled, now.Add(time.Minute)},
		{"throttled for long", Result{Outcome: Throttled, After: 1000 * time.Hour}, 0, 0, Throttled, now.Add(maxAfter)},
		{"throttled in a short while", Result{Outcome: Throttled}, 0, 0, Throttled, now},
		{"throttled again and again", Result{Outcome: Throttled, After: time.Second}, 0, 20 * time.Hour, Throttled, now.Add(time.Hour)},
		{"throttled to the end of patience", Result{Outcome: Throttled, After: 5 * time.Hour}, 0, patience, Throttled, now.Add(5 * time.Hour)},
		{"throttled beyond", Result{Outcome: Throttled, After: time.Hour}, 0, patience + 1, Exhausted, time.Time{}},
	} {
		got, next := Step(c.r, c.counted, now.Add(-c.age), now, key)
		if got != c.want || !next.Equal(c.next) {
			t.Errorf("%s: %s, %v; want %s, %v", c.name, got, next, c.want, c.next)
		}
	}
}

func TestEndpointValidate(t *testing.T) {
	for _, name := range []string{"a", "0", "ops-2", strings.Repeat("a", maxName)} {
		e := Endpoint{Name: name, DigestAbove: 1, Rate: MinRate, Filter: Filter{Rules: []string{alert.Burst}, MinSeverity: alert.Critical, Transitions: []alert.State{alert.Opened, alert.Closed}}}
		if err := e.Validate(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "A", "a_b", "-a", "a-", "a--b", "ä", "a b", "a\n", strings.Repeat("a", maxName+1)} {
		if err := (Endpoint{Name: name}).Validate(); err == nil || !strings.Contains(err.Error(), "name:") {
			t.Errorf("%q: %v", name, err)
		}
	}
	e := Endpoint{Name: "Bad", DigestAbove: -1, Rate: MinRate / 2, Filter: Filter{Rules: []string{"No", alert.Burst, "card-testing"}, MinSeverity: "bad", Transitions: []alert.State{"half"}}}
	err := e.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, field := range []string{"name:", "rules:", "min_severity:", "transitions:", "digest_above:", "rate:"} {
		n := 0
		for _, line := range lines {
			if strings.Contains(line, field) && strings.Contains(line, `"Bad"`) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is told of %d times in\n%v", field, n, err)
		}
	}
	if len(lines) != 6 {
		t.Errorf("%d problems:\n%v", len(lines), err)
	}
	if err := (Endpoint{Name: "a", Rate: -1}).Validate(); err == nil {
		t.Error("a negative rate is valid")
	}
}

func TestFilterMatch(t *testing.T) {
	r := alert.Record{Rule: alert.Burst, Severity: alert.Warning, State: alert.Opened}
	for _, c := range []struct {
		f                         Filter
		warning, critical, closed bool
	}{
		{Alerts(), true, true, true},
		{Filter{Rules: []string{"other"}, Transitions: alert.States()}, false, false, false},
		{Filter{Rules: []string{"other", alert.Burst}, Transitions: alert.States()}, true, true, true},
		{Filter{MinSeverity: alert.Warning, Transitions: alert.States()}, true, true, true},
		{Filter{MinSeverity: alert.Critical, Transitions: alert.States()}, false, true, false},
		{Filter{Transitions: []alert.State{alert.Opened}}, true, true, false},
		{Filter{Transitions: []alert.State{alert.Closed}}, false, false, true},
		{Filter{Rules: []string{alert.Burst}, MinSeverity: alert.Critical, Transitions: []alert.State{alert.Opened}}, false, true, false},
		{Filter{}, false, false, false}, // it is told of incidents
	} {
		critical, closed := r, r
		critical.Severity, closed.State = alert.Critical, alert.Closed
		if w, cr, cl := c.f.Match(r), c.f.Match(critical), c.f.Match(closed); w != c.warning || cr != c.critical || cl != c.closed {
			t.Errorf("%+v: %v %v %v", c.f, w, cr, cl)
		}
	}
}

func TestFilterMatchEvent(t *testing.T) {
	e := incident.Event{Transition: incident.Opened, Incident: incident.Incident{Rule: alert.Burst, Severity: alert.Critical, Told: alert.Warning}}
	for _, c := range []struct {
		f                 Filter
		warning, critical bool
	}{
		{Filter{}, true, true},
		{Filter{Rules: []string{"other"}}, false, false},
		{Filter{Rules: []string{"other", alert.Burst}}, true, true},
		{Filter{MinSeverity: alert.Critical}, false, true},
		{Alerts(), false, false},
	} {
		critical, shadow := e, e
		critical.Incident.Told, shadow.Incident.Mode = alert.Critical, alert.Shadow
		if w, cr := c.f.MatchEvent(e), c.f.MatchEvent(critical); w != c.warning || cr != c.critical || c.f.MatchEvent(shadow) {
			t.Errorf("%+v: %v %v", c.f, w, cr)
		}
	}
}
