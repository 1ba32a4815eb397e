package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
)

var start = time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)

// alerted is an alert of user 7 with so many events in the first 10 s, the first and the last at these milliseconds.
func alerted(count, first, last int64) alert.Record {
	at := func(ms int64) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	return alert.Record{UserID: json.RawMessage(`7`), State: alert.Closed, Count: count, WindowStart: start, WindowEnd: at(10_000), FirstEventAt: at(first), LastEventAt: at(last)}
}

// log is a source of one partition.
func log(values ...string) source {
	return func(ctx context.Context, f *Found, take Take) error {
		f.Events = []Event{}
		partition := int32(0)
		for i, v := range values {
			offset := int64(i)
			if err := take(ctx, Place{Partition: &partition, Offset: &offset}, []byte(v), []kgo.RecordHeader(nil)); err != nil {
				return err
			}
		}
		return nil
	}
}

func config(user, at string) format.Config {
	return format.Config{Fields: activity.Fields{User: []string{user}, Time: []string{at}}}
}

func TestSearch(t *testing.T) {
	at := func(s string) string { return `"2019-11-01T00:00:` + s + `Z"` }
	found := search(t.Context(), alerted(3, 1000, 3000), config("u", "t"), 2, log(
		`{"u":7,"t":`+at("03")+`,"kind":"view","deep":{"a.b":1}}`,
		`{"u":8,"t":`+at("01")+`}`,
		`not an event`,
		`{"u":7,"t":`+at("01")+`,"kind":"view","deep":{"a.b":2},"list":[1]}`,
		`{"u":7,"t":`+at("02")+`,"kind":"cart"}`,
		`{"u":7,"t":`+at("10")+`,"kind":"the next window"}`,
	))
	var places []string
	for _, e := range found.Events {
		places = append(places, e.Place.String())
	}
	if diff := cmp.Diff([]string{"partition 0 offset 3", "partition 0 offset 4"}, places); diff != "" || found.More != 1 || found.Count() != 3 || found.Note != "" || found.Guessed != nil {
		t.Errorf("%+v %s", found, diff)
	}
	var fields []string
	for _, f := range found.Fields {
		fields = append(fields, fmt.Sprintf("%s: %d of %d, most often %s %d times", f.Name, f.Values, f.Events, f.Top[0].Value, f.Top[0].Events))
	}
	if diff := cmp.Diff([]string{
		"u: 1 of 3, most often 7 3 times", "t: 3 of 3, most often " + at("01") + " 1 times", `kind: 2 of 3, most often "view" 2 times`, `deep.a\.b: 2 of 2, most often 1 1 times`,
	}, fields); diff != "" {
		t.Error(diff)
	}
}

// TestOrder: by time, then place; what has both in common, as events in one record of Kinesis, stays as it was.
func TestOrder(t *testing.T) {
	from := func(ctx context.Context, f *Found, take Take) error {
		f.Events = []Event{}
		for i, place := range []Place{{Shard: "b", Sequence: "9"}, {Shard: "a", Sequence: "10"}, {Shard: "a", Sequence: "9"}, {Shard: "a", Sequence: "9"}, {Shard: "a", Sequence: "9"}} {
			if err := take(ctx, place, fmt.Appendf(nil, `{"u":7,"t":"2019-11-01T00:00:01Z","i":%d}`, i), nil); err != nil {
				return err
			}
		}
		return nil
	}
	found := search(t.Context(), alerted(5, 1000, 1000), config("u", "t"), 4, from)
	var got []string
	for _, e := range found.Events {
		got = append(got, fmt.Sprintf("%s i=%s", e.Place, Values(e.Value)["i"]))
	}
	if diff := cmp.Diff([]string{"a 9 i=2", "a 9 i=3", "a 9 i=4", "a 10 i=1"}, got); diff != "" || found.More != 1 {
		t.Errorf("%d more, %s", found.More, diff)
	}
}

// TestEventsAreJSON: whatever an event consists of, it can be written as JSON.
func TestEventsAreJSON(t *testing.T) {
	cfg := config("u", "t")
	cfg.Format = format.JSON
	event := `{"u":7,"t":"2019-11-01T00:00:01Z","bad":"` + "\xff" + `"}`
	found := search(t.Context(), alerted(2, 1000, 1000), cfg, 10, log(event, "\x00\x00\x00\x00\x01"+event))
	text, err := json.Marshal(found.Events)
	want := strings.ReplaceAll(event, "\xff", "\ufffd")
	if err != nil || len(found.Events) != 2 || strings.Count(string(text), want) != 2 {
		t.Errorf("%s, %v", text, err)
	}
	for text, want := range map[string]string{"\x00<\xff": `"\u0000<\ufffd"`, "": `""`, `{"a":1}`: `{"a":1}`} {
		if got := valid([]byte(text)); string(got) != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestFieldsAreFound: the alert says which user, which window and how many events, and that is enough to find where the events have them.
func TestFieldsAreFound(t *testing.T) {
	seconds := start.Unix()
	event := func(user, other, s int64) string {
		return fmt.Sprintf(`{"referrer":%d,"customer":{"id":%d},"created":%d,"day":"2019-11-01 00:00:00","loaded":"2019-11-02 00:00:00"}`, other, user, seconds+s)
	}
	for _, c := range []struct {
		name   string
		events []string
		want   *activity.Fields
		found  int
	}{
		{"nested, in seconds", []string{event(7, 9, 1), event(7, 8, 2), event(9, 7, 2), event(7, 9, 3)},
			&activity.Fields{User: []string{"customer.id"}, Time: []string{"created"}, TimeFormat: activity.TimeS}, 3},
		{"others have the user, too", []string{event(7, 7, 1), event(7, 7, 2), event(9, 7, 2), event(8, 7, 2), event(7, 7, 3)},
			&activity.Fields{User: []string{"customer.id"}, Time: []string{"created"}, TimeFormat: activity.TimeS}, 3},
		{"others mention it", []string{event(9, 7, 1), event(9, 7, 2)}, nil, 0},
		{"others mention it as often, at other times", []string{event(9, 7, 1), event(8, 7, 2), event(9, 7, 4)}, nil, 0},
		{"nobody has it", []string{event(8, 9, 1), event(9, 8, 2)}, nil, 0},
		{"nothing is JSON", []string{"a", "", "{"}, nil, 0},
	} {
		found := search(t.Context(), alerted(3, 1000, 3000), config("user_id", "event_time"), 10, log(c.events...))
		if diff := cmp.Diff(c.want, found.Guessed); diff != "" || found.Count() != c.found || (c.found == 0) != strings.Contains(found.Note, "SPATE_USER_FIELD") {
			t.Errorf("%s: %d found, %q, %s", c.name, found.Count(), found.Note, diff)
		}
	}
}

// TestGuessIsTheSame: of fields that fit as well, the same ones are taken every time, and none that a setting cannot name.
func TestGuessIsTheSame(t *testing.T) {
	a := alerted(1, 1000, 1000)
	a.State = alert.Opened
	want := &activity.Fields{User: []string{"user"}, Time: []string{"at"}, TimeFormat: activity.TimeAuto}
	for range 20 {
		found := search(t.Context(), a, config("u", "t"), 10, log(`{"":7,"user":7,"at":"2019-11-01T00:00:01Z"}`, fmt.Sprintf(`{"":7,"user":7,"at":%d}`, start.Unix()+1)))
		if diff := cmp.Diff(want, found.Guessed); diff != "" {
			t.Fatal(diff)
		}
	}
}

// TestGivenFieldsCount: as long as the given fields find events, no others are looked for, even if some would find more.
func TestGivenFieldsCount(t *testing.T) {
	event := func(user, other int) string {
		return fmt.Sprintf(`{"u":%d,"other":%d,"t":"2019-11-01T00:00:01Z"}`, user, other)
	}
	found := search(t.Context(), alerted(3, 1000, 1000), config("u", "t"), 10, log(event(7, 7), event(7, 7), event(9, 7)))
	if found.Guessed != nil || found.Count() != 2 {
		t.Errorf("%d found, by %+v", found.Count(), found.Guessed)
	}
}

// TestLogsThatCannotBeRead: what is there is returned, and why not the rest.
func TestLogsThatCannotBeRead(t *testing.T) {
	broken := func(ctx context.Context, f *Found, take Take) error {
		if err := log(`{"u":7,"t":"2019-11-01T00:00:01Z"}`)(ctx, f, take); err != nil {
			return err
		}
		return errors.New("disk failed")
	}
	found := search(t.Context(), alerted(3, 1000, 3000), config("u", "t"), 10, broken)
	if found.Count() != 1 || found.Note != "some events were not read: disk failed" {
		t.Errorf("%+v", found)
	}
	away := func(_ context.Context, f *Found, _ Take) error { f.note("no broker"); return nil }
	if found := search(t.Context(), alerted(3, 1000, 3000), config("u", "t"), 10, away); found.Events != nil || found.Note != "no broker" {
		t.Errorf("%+v", found)
	}
}

// TestReadingEnds: what ended it is reported, and not what a client made of that.
func TestReadingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context, f *Found, _ Take) error {
			f.Events = []Event{}
			<-ctx.Done()
			return fmt.Errorf("client is closed: %w", ctx.Err())
		}
		ends := func(context.Context, *Found, Take) error {
			return fmt.Errorf("ask the schema registry: %w", context.DeadlineExceeded)
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		for _, c := range []struct {
			ctx  context.Context
			from source
			want string
		}{
			{t.Context(), hangs, "some events were not read: reading took longer than 30s"},
			{canceled, hangs, "some events were not read: context canceled"},
			{t.Context(), ends, "some events were not read: ask the schema registry: context deadline exceeded"},
		} {
			if found := search(c.ctx, alerted(1, 1, 1), config("u", "t"), 10, c.from); found.Note != c.want {
				t.Errorf("%q, want %q", found.Note, c.want)
			}
		}
	})
}

// TestSummaryIsBounded: an attacker who sends a new member in every event, or a new value, fills no memory.
func TestSummaryIsBounded(t *testing.T) {
	var s summary
	for i := range 3 * maxValues {
		s.add(fmt.Appendf(nil, `{"same":%d,"other%d":1,"a":{"b":{"c":{"d":{"e":1}}}}}`, i, i))
	}
	s.add([]byte(`{"same":"` + strings.Repeat("x", 1<<20) + `"}`))
	fields := s.fields()
	fields[0].Events--
	if len(fields) != MaxFields || !s.more || fields[0].Values != maxValues || !fields[0].AtLeast || fields[0].Events != 3*maxValues {
		t.Errorf("%d fields, the first %+v", len(fields), fields[0])
	}
}
