package storetest

// What a store gives back: the fields of an alert as they were written, and the alerts that a filter asks for.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/store"
)

func testFilter(t *testing.T, s store.Store) {
	var records []alert.Record
	for _, n := range []int{3, 1, 2, 0} {
		for _, user := range []string{"7", `"7"`, "10"} {
			state := alert.Opened
			if n%2 == 0 {
				state = alert.Closed
			}
			records = append(records, Record(user, n, state))
		}
	}
	grave := Record("9", 2, alert.Opened)
	grave.Severity, grave.Rule = alert.Critical, "other"
	apply(t, s, noon, append(records, grave)...)
	at := func(n int) time.Time { return midnight.Add(time.Duration(n) * size) }
	for _, c := range []struct {
		name string
		f    store.Filter
		want []string // window:user
	}{
		{"all, by window and user", store.Filter{}, []string{`0:"7"`, "0:10", "0:7", `1:"7"`, "1:10", "1:7", `2:"7"`, "2:10", "2:7", "2:9", `3:"7"`, "3:10", "3:7"}},
		{"user", store.Filter{User: "7"}, []string{"0:7", "1:7", "2:7", "3:7"}},
		{"user, string", store.Filter{User: `"7"`}, []string{`0:"7"`, `1:"7"`, `2:"7"`, `3:"7"`}},
		{"no such user", store.Filter{User: "8"}, nil},
		{"state", store.Filter{State: alert.Closed, User: "10"}, []string{"0:10", "2:10"}},
		{"since", store.Filter{Since: at(2), User: "7"}, []string{"2:7", "3:7"}},
		{"since, between", store.Filter{Since: at(2).Add(time.Nanosecond), User: "7"}, []string{"3:7"}},
		{"until", store.Filter{Until: at(2), User: "7"}, []string{"0:7", "1:7"}},
		{"until, between", store.Filter{Until: at(2).Add(time.Nanosecond), User: "7"}, []string{"0:7", "1:7", "2:7"}},
		{"limit", store.Filter{Limit: 2}, []string{`0:"7"`, "0:10"}},
		{"rule", store.Filter{Rule: "other"}, []string{"2:9"}},
		{"rule, the other one", store.Filter{Rule: alert.Burst, Since: at(2), Until: at(3)}, []string{`2:"7"`, "2:10", "2:7"}},
		{"no such rule", store.Filter{Rule: "none"}, nil},
		{"warning is all", store.Filter{MinSeverity: alert.Warning, Since: at(2), Until: at(3)}, []string{`2:"7"`, "2:10", "2:7", "2:9"}},
		{"critical", store.Filter{MinSeverity: alert.Critical}, []string{"2:9"}},
		{"newest", store.Filter{Newest: true, Since: at(2)}, []string{"3:7", "3:10", `3:"7"`, "2:9", "2:7", "2:10", `2:"7"`}},
		{"the two newest", store.Filter{Newest: true, Limit: 2}, []string{"3:7", "3:10"}},
		{"the newest of a user", store.Filter{Newest: true, Limit: 3, User: "7", Until: at(3)}, []string{"2:7", "1:7", "0:7"}},
		{"id", store.Filter{ID: Record("7", 1, alert.Opened).ID}, []string{"1:7"}},
		{"beginning of an id", store.Filter{ID: Record("7", 1, alert.Opened).ID[:12]}, []string{"1:7"}},
		{"an id and more", store.Filter{ID: Record("7", 1, alert.Opened).ID + "0"}, nil},
		{"beginning of an id, of another user", store.Filter{ID: Record("7", 1, alert.Opened).ID[:12], User: "10"}, nil},
		{"everything", store.Filter{User: "7", State: alert.Opened, Rule: alert.Burst, MinSeverity: alert.Warning, Since: at(1), Until: at(4), Limit: 1}, []string{"1:7"}},
	} {
		var got []string
		for _, a := range all(t, s, c.f) {
			got = append(got, fmt.Sprintf("%d:%s", a.WindowStart.Sub(midnight)/size, a.UserID))
		}
		equal(t, c.name, got, c.want)
	}
	for _, f := range []store.Filter{{State: "half"}, {Limit: -1}, {MinSeverity: "bad"}, {ID: "%"}} {
		n := 0
		for _, err := range s.Alerts(t.Context(), f) {
			if n++; err == nil || n > 1 {
				t.Errorf("%+v: %v", f, err)
			}
		}
		if n != 1 {
			t.Errorf("%+v: yields %d times", f, n)
		}
	}
}

func testUsers(t *testing.T, s store.Store) {
	tokens := []string{"5", `"5"`, "5.0", "-0", "1e3", "9007199254740993", `"a\"b"`, `"<&>"`, `"ü\u0000"`, `"O'Neill; DROP TABLE alert"`, `"\u2028"`}
	for _, token := range tokens {
		apply(t, s, noon, Record(token, 0, alert.Opened))
	}
	counts(t, s, int64(len(tokens)), 0)
	for _, token := range tokens {
		if got := get(t, s, Record(token, 0, alert.Opened).ID); string(got.UserID) != token {
			t.Errorf("user %s comes back as %s", token, got.UserID)
		}
		if got := all(t, s, store.Filter{User: token}); len(got) != 1 || string(got[0].UserID) != token {
			t.Errorf("filter by %s: %+v", token, got)
		}
	}
	// What json.Marshal makes of a token is the same user, and no conflict.
	r := Record(`"<&>"`, 0, alert.Closed)
	wire, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	r = alert.Record{}
	if err := json.Unmarshal(wire, &r); err != nil {
		t.Fatal(err)
	}
	equal(t, "Changed", apply(t, s, noon, r), []bool{true})
	if got := get(t, s, r.ID); string(got.UserID) != `"<&>"` {
		t.Errorf("user comes back as %s", got.UserID)
	}
}

func testTimes(t *testing.T, s store.Store) {
	r := Record("5", 0, alert.Opened)
	zone := time.FixedZone("", 5*3600+1800)
	r.WindowStart = time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.UTC).In(zone) // before 1970, cut downward
	r.WindowEnd = time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC)
	r.FirstEventAt = time.Date(2019, 11, 1, 0, 0, 0, 1_999_999, time.UTC).In(zone)
	apply(t, s, noon.In(zone), r)
	want := store.Alert{Record: r, OpenedAt: noon.Truncate(time.Millisecond), Delivery: untold}
	want.WindowStart = time.Date(1969, 12, 31, 23, 59, 59, 999_000_000, time.UTC)
	want.FirstEventAt = time.Date(2019, 11, 1, 0, 0, 0, 1_000_000, time.UTC)
	want.Incident = incidentOf(want.Record)
	got := get(t, s, r.ID)
	equal(t, "times", got, want)
	if got.WindowStart.Location() != time.UTC || got.OpenedAt.Location() != time.UTC {
		t.Error("times are not UTC")
	}
}

func testEvidence(t *testing.T, s store.Store) {
	r := Record("5", 0, alert.Closed)
	r.Evidence.Topic = `odd "topic" ü`
	r.Evidence.Partitions = map[string]alert.OffsetRange{}
	for p := range 10_000 {
		r.Evidence.Partitions[fmt.Sprint(p)] = alert.OffsetRange{First: int64(p), Last: 1<<62 + int64(p)}
	}
	apply(t, s, noon, r)
	equal(t, "evidence", get(t, s, r.ID).Evidence, r.Evidence)
}

func testLoop(t *testing.T, s store.Store) {
	for n := range 50 {
		apply(t, s, noon, Record("5", n, alert.Opened))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for a, err := range s.Alerts(ctx, store.Filter{State: alert.Opened}) {
		if err != nil {
			t.Fatalf("Alerts: %v", err)
		}
		n := int(a.WindowStart.Sub(midnight) / size)
		if n == 30 {
			break // leaves nothing behind that would block
		}
		if _, err := s.Apply(ctx, noon, []alert.Record{Record("5", n, alert.Closed)}); err != nil {
			t.Fatalf("Apply in a loop: %v", err)
		}
	}
	counts(t, s, 20, 30)
}

func testCanceled(t *testing.T, s store.Store) {
	for n := range 50 {
		apply(t, s, noon, Record("5", n, alert.Opened))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	n := 0
	for _, err := range s.Alerts(ctx, store.Filter{}) {
		if n++; n == 10 {
			cancel()
		}
		last = err
	}
	if n < 50 && !errors.Is(last, context.Canceled) {
		t.Errorf("ended after %d of 50 alerts with %v", n, last)
	}
}
