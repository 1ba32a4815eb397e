package router

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/ops"
	"spate/shared/window"
)

// Whoever looks is told within seconds which share of the input is not counted, why, and what to change; and when it is well again.
func TestInputIsTold(t *testing.T) {
	events, err := format.New(format.Config{Fields: activity.Fields{User: []string{"user.id"}, Time: []string{"at"}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{events: events}
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	status := &ops.Status{}
	status.Ready()
	n := newInput()
	secret := `{"user_id":7,"at":1572566400123,"card":"4111"}`
	for range 300 {
		n.in++
		n.add(string(activity.ReasonNoUser), func() (why, example string) {
			return s.describe(&kgo.Record{Value: []byte(secret)}, activity.ReasonNoUser)
		})
	}
	n.in += 100
	for range 50 {
		n.add(window.LateWatermark.String(), func() (why, example string) { return s.describe(&kgo.Record{Value: []byte("late one")}, "") })
	}
	n.add(string(activity.ReasonBadUser), func() (why, example string) { return "", "" }) // one of 400: it is counted, and not worth a line
	tell := func(after time.Duration) string {
		text.Reset()
		n.tell(n.began.Add(after), "", "activity", status, log)
		return text.String()
	}
	if got := tell(tellInputEvery - time.Millisecond); got != "" {
		t.Errorf("too early: %s", got)
	}
	got := tell(tellInputEvery)
	for _, want := range []string{`300 of 400 events are invalid: no_user - the event has no field \"user.id\"`, "it has at, card, user_id", "SPATE_USER_FIELD", "For example: {", "50 of 400 events are late", "SPATE_LATENESS"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q: %s", want, got)
		}
	}
	if strings.Contains(got, "bad_user") {
		t.Errorf("it tells of one in 400: %s", got)
	}
	if ready, note := status.Get(); !ready || !strings.Contains(note, "300 of 400") || strings.Contains(note, "4111") {
		t.Errorf("%v, %s", ready, note)
	}
	n.in = 10
	if got := tell(tellInputEvery); got != "" {
		t.Errorf("all is well, and it says %s", got)
	}
	if _, note := status.Get(); note != "" {
		t.Errorf("the note stays: %s", note)
	}
	n.in, n.far, n.farAt = 10, 10, 1572566400000
	if got := tell(tellInputEvery); !strings.Contains(got, "10 of 10 events have times more than a year") || !strings.Contains(got, "2019-11-01T00:00:00Z") {
		t.Errorf("%s", got)
	}
	n.in = 1
	n.add(string(activity.ReasonNotJSON), func() (why, example string) {
		return s.describe(&kgo.Record{Value: make([]byte, maxKept+1)}, activity.ReasonNotJSON)
	})
	n.skip(activity.ReasonSnapshot)
	if got := tell(tellInputEvery); !strings.Contains(got, "not_json") || !strings.Contains(got, "1 snapshot rows were skipped") || len(got) > 800 {
		t.Errorf("%d bytes: %s", len(got), got[:min(len(got), 200)])
	}
}

// Who reads a topic that has no change of a row at all is told so.
func TestNoChangeAtAllIsTold(t *testing.T) {
	n := newInput()
	n.skip(activity.ReasonTombstone)
	if text, _ := n.describe(""); len(text) != 0 {
		t.Errorf("tombstones: %q", text)
	}
	n.skip(activity.ReasonNoChange)
	if text, _ := n.describe(""); len(text) != 1 || !strings.Contains(text[0], "SPATE_FORMAT=debezium") {
		t.Errorf("%q", text)
	}
	n.in = 1
	if text, _ := n.describe(""); len(text) != 0 {
		t.Errorf("heartbeats among events: %q", text)
	}
	if text, _ := n.describe("event_id"); len(text) != 1 || !strings.Contains(text[0], `none of 1 events has "event_id"`) {
		t.Errorf("%q", text)
	}
	n.ids = 1
	if text, _ := n.describe("event_id"); len(text) != 0 {
		t.Errorf("%q", text)
	}
}

// What an event's producer has given it stays on it, but for what looks like ours.
func TestOwnHeaders(t *testing.T) {
	headers := own(headersOf("trace", "1", "spate-reason", "lie", "", "empty"))
	if len(headers) != 2 || headers[0].Key != "trace" || headers[1].Key != "" {
		t.Errorf("%v", headers)
	}
	if n := len(own(headersOf("a", strings.Repeat("x", maxHeaderBytes-1), "b", "1"))); n != 1 {
		t.Errorf("%d headers", n)
	}
}

func headersOf(pairs ...string) (out []kgo.RecordHeader) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return out
}
