package verifier

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
)

func closed(user string, startMS, count int64) alert.Record {
	return alert.Record{ID: "x", State: alert.Closed, UserID: json.RawMessage(user), Count: count, WindowStart: time.UnixMilli(startMS).UTC()}
}

func TestCompare(t *testing.T) {
	want := []Row{{"5", 0, 6}, {`"5"`, 0, 7}, {"5", 10_000, 8}}
	exact := []alert.Record{closed("5", 10_000, 8), closed(`"5"`, 0, 7), closed("5", 0, 6)}
	opened := closed("5", 0, 3)
	opened.State = alert.Opened
	for _, c := range []struct {
		name string
		got  []alert.Record
		want Diff
	}{
		{"exact, in any order", exact, Diff{Rows: 3}},
		{"told again", append(exact, exact...), Diff{Rows: 3}},
		{"opened ones are not a verdict", append([]alert.Record{opened}, exact...), Diff{Rows: 3}},
		{"missing", exact[:2], Diff{Rows: 3, Missing: 1, Examples: []string{"missing: user 5, window 1970-01-01T00:00:00Z: 6 events, no alert"}}},
		{"only opened", append([]alert.Record{opened}, exact[:2]...), Diff{Rows: 3, Missing: 1, Examples: []string{"missing: user 5, window 1970-01-01T00:00:00Z: 6 events, no alert"}}},
		{"wrong", []alert.Record{exact[0], exact[1], closed("5", 0, 5)}, Diff{Rows: 3, Wrong: 1, Examples: []string{"wrong: user 5, window 1970-01-01T00:00:00Z: 6 events, alert says 5"}}},
		{"contradictory, the right one among them", append([]alert.Record{closed("5", 0, 9)}, exact...), Diff{Rows: 3, Wrong: 1,
			Examples: []string{"wrong: user 5, window 1970-01-01T00:00:00Z: 6 events, alerts with counts [9 6]"}}},
		{"extra", append([]alert.Record{closed("6", 0, 9), closed("6", 0, 9)}, exact...), Diff{Rows: 3, Extra: 1, Examples: []string{"extra: user 6, window 1970-01-01T00:00:00Z: alert with count 9, none expected"}}},
		{"a string is another user", []alert.Record{exact[0], closed(`"5"`, 0, 7), closed(`"5"`, 10_000, 6), exact[2]}, Diff{Rows: 3, Extra: 1,
			Examples: []string{`extra: user "5", window 1970-01-01T00:00:10Z: alert with count 6, none expected`}}},
		{"all kinds, by window and user", []alert.Record{closed("5", 10_000, 9), closed("5", 0, 6), closed("4", 20_000, 6)}, Diff{Rows: 3, Missing: 1, Wrong: 1, Extra: 1, Examples: []string{
			`missing: user "5", window 1970-01-01T00:00:00Z: 7 events, no alert`,
			"wrong: user 5, window 1970-01-01T00:00:10Z: 8 events, alert says 9",
			"extra: user 4, window 1970-01-01T00:00:20Z: alert with count 6, none expected"}}},
	} {
		got := Compare(want, c.got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if got.Exact() != (len(c.want.Examples) == 0) {
			t.Errorf("%s: Exact %v", c.name, got.Exact())
		}
	}
	if d := Compare(nil, nil); !d.Exact() || d.Rows != 0 {
		t.Errorf("nothing against nothing: %+v", d)
	}
}

func TestCompareBoundsExamples(t *testing.T) {
	var want []Row
	for i := range 25 {
		want = append(want, Row{fmt.Sprint(i), 0, 6})
	}
	d := Compare(want, nil)
	if d.Missing != 25 || len(d.Examples) != maxExamples || !strings.HasPrefix(d.Examples[9], "missing: user 9,") {
		t.Errorf("%+v", d)
	}
	b, err := json.Marshal(Diff{Rows: 2, Wrong: 1})
	if err != nil || string(b) != `{"rows":2,"missing":0,"wrong":1,"extra":0}` {
		t.Errorf("%s, %v", b, err)
	}
}

// json.Marshal escapes within a RawMessage, so a record does not arrive as it was.
func TestCompareAfterTheWire(t *testing.T) {
	b, err := json.Marshal(closed(`"<a&b>"`, 0, 6))
	if err != nil {
		t.Fatal(err)
	}
	var back alert.Record
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := Compare([]Row{{`"<a&b>"`, 0, 6}}, []alert.Record{back}); !d.Exact() {
		t.Errorf("%+v", d)
	}
}
