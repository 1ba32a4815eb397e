package brief

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"spate/shared/notify"
	"spate/shared/notify/notifytest"
)

func TestOf(t *testing.T) {
	at := notifytest.At
	for _, c := range []struct {
		m    notify.Message
		want Brief
	}{
		{notifytest.Incident(notify.TypeIncidentEscalated), Brief{
			Kind: Incident, Phase: Grows, ID: notifytest.IncidentID, Severity: "critical", Rule: "card-testing", Key: "ip=10.0.0.1 product_id=5",
			Title: "card-testing: ip=10.0.0.1 product_id=5", Status: "escalated: critical", Summary: "10.0.0.1 tried 31 cards", Runbook: "https://runbooks.example/cards",
			Link: "https://grafana.example/d/x?from=2026-09-01T12:00:00Z&to=2026-09-01T12:02:00Z", At: at, Begin: at.Add(-time.Minute),
			Facts: []Fact{
				{"rule", "card-testing"}, {"key", "ip=10.0.0.1 product_id=5"}, {"severity", "critical"}, {"events", "9007200134741019"}, {"windows", "2"},
				{"most in a window", "31"}, {"event time", "2026-09-01 12:00:00 to 12:02:00 UTC"}, {"opened", "2026-09-01 12:02:03 UTC"},
				{"escalated", "2026-09-01 12:03:03 UTC"}, {"incident", notifytest.IncidentID},
			},
		}},
		{notifytest.Alert(notify.TypeClosed), Brief{
			Kind: Alert, Phase: Ends, ID: notifytest.AlertID, Severity: "warning", Rule: "burst", Key: "user 9007200134741019", Title: "burst: user 9007200134741019", Status: "closed: warning",
			Link: "https://grafana.example/d/x?from=2026-09-01T12:00:00Z&to=2026-09-01T12:00:10Z", At: at, Begin: time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC), End: time.Date(2026, 9, 1, 12, 0, 10, 0, time.UTC),
			Facts: []Fact{
				{"rule", "burst"}, {"key", "user 9007200134741019"}, {"severity", "warning"}, {"events", "7"}, {"more than", "5"},
				{"window", "2026-09-01 12:00:00 to 12:00:10 UTC"}, {"alert", notifytest.AlertID},
			},
		}},
	} {
		got, err := Of(c.m, "https://grafana.example/d/x?from={since}&to={until}")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
	}
	for _, m := range notifytest.Messages() {
		b, err := Of(m, "")
		if err != nil {
			t.Errorf("%s: %v", m.Type, err)
		} else if b.Title == "" || b.Status == "" || len(b.Facts) == 0 || b.Begin.IsZero() || b.Link != "" && b.Kind != Digest {
			t.Errorf("%s: %+v", m.Type, b)
		}
	}
}

// TestHostile: whatever the data is, a brief is in lines that show as they are, of a bounded length, or the message is unsendable.
func TestHostile(t *testing.T) {
	for _, m := range notifytest.Hostile() {
		b, err := Of(m, "https://h.example/{since}")
		if err != nil {
			if !errors.Is(err, notify.ErrUnsendable) {
				t.Errorf("%s: %v", m.Type, err)
			}
			continue
		}
		for _, f := range b.Facts {
			check(t, f.Name, f.Text)
		}
		check(t, b.Title, b.Status, b.Summary, b.Runbook, b.Link, b.Rule, b.Key)
		check(t, b.Lines...)
	}
	for _, m := range []notify.Message{
		{}, {ID: "a"}, {ID: "a", Type: "x", Data: json.RawMessage(`{}`)}, {ID: "a", Type: notify.TypeOpened, Data: json.RawMessage(`{`)},
		{ID: "a", Type: notify.TypeOpened, Data: json.RawMessage(`[]`)}, {ID: "a", Type: notify.TypeIncidentOpened, Data: json.RawMessage(`{"id":"a b","rule":"r"}`)},
		{ID: "a", Type: notify.TypeDigest, Data: json.RawMessage(`{}`)}, {ID: "a\n", Type: notify.TypeTest, Data: json.RawMessage(`{}`)},
		{ID: "a", Type: notify.TypeTest, Data: json.RawMessage("\"\xff\"")},
	} {
		if _, err := Of(m, ""); !errors.Is(err, notify.ErrUnsendable) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

func check(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.ContainsAny(text, "\r\n\x00\x1b\u202e\u2028\u200b") || len(text) > 4*2*maxText {
			t.Errorf("%.300q", text)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 5, ""}, {"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"äöü", 3, "äöü"}, {"äöüß", 3, "äö…"}, {"a😀b", 4, "a😀b"}, {"a😀bc", 4, "a😀…"}, {"a😀bc", 3, "a…"}, {"😀😀", 2, "…"}, {"ab", 1, "…"}, {"ab", 0, "…"},
	} {
		if got := Cut(c.text, c.limit); got != c.want {
			t.Errorf("%q to %d: %q, want %q", c.text, c.limit, got, c.want)
		}
	}
	for limit := 1; limit < 40; limit++ {
		if got := Cut(strings.Repeat("aä😀", 20), limit); len(utf16.Encode([]rune(got))) > limit {
			t.Errorf("%d: %q", limit, got)
		}
	}
}

func ExampleBrief_Headline() {
	b, _ := Of(notifytest.Incident(notify.TypeIncidentResolved), "")
	fmt.Println(b.Headline())
	// Output: resolved, card-testing: ip=10.0.0.1 product_id=5
}

// FuzzOf: whatever the data is, a brief is in lines that show as they are, of a bounded length, or the message is unsendable.
func FuzzOf(f *testing.F) {
	for _, m := range notifytest.Messages() {
		f.Add(m.ID, m.Type, []byte(m.Data), "https://h.example/?from={since}")
	}
	for _, m := range notifytest.Hostile() {
		f.Add(m.ID, m.Type, []byte(m.Data), "")
	}
	f.Fuzz(func(t *testing.T, id, messageType string, data []byte, link string) {
		b, err := Of(notify.Message{ID: id, Type: messageType, At: notifytest.At, Data: data}, link)
		if err != nil {
			if !errors.Is(err, notify.ErrUnsendable) {
				t.Error(err)
			}
			return
		}
		for _, fact := range b.Facts {
			check(t, fact.Name, fact.Text)
		}
		check(t, b.ID, b.Title, b.Status, b.Summary, b.Runbook, b.Link, b.Rule, b.Key)
		check(t, b.Lines...)
		if b.ID == "" || b.Title == "" || b.Status == "" {
			t.Errorf("%+v", b)
		}
	})
}
