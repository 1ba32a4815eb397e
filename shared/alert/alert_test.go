package alert

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIDIsPinned(t *testing.T) {
	// The value is a contract with every store that has alerts already.
	if got := ID(Burst, "520088904", 1572566400000, 10000); got != "8930a598018d0f132ea3cb379dae4e11" {
		t.Errorf("ID changed: %s", got)
	}
	seen := map[string]string{}
	for _, c := range []struct {
		user        string
		start, size int64
	}{{`5`, 0, 10}, {`"5"`, 0, 10}, {`5`, 10, 10}, {`5`, 0, 20}, {`50`, 0, 10}, {`5`, 0, 1010}} {
		id := ID(Burst, c.user, c.start, c.size)
		if was, ok := seen[id]; ok {
			t.Errorf("%v has the id of %s", c, was)
		}
		seen[id] = c.user
	}
}

func TestRecordKeepsTheOriginalsFields(t *testing.T) {
	start := time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)
	id := ID(Burst, "520088904", start.UnixMilli(), 10_000)
	r := Record{ID: id, Rule: Burst, State: Opened, Severity: Warning, UserID: json.RawMessage(`520088904`), Count: 6, Threshold: 5,
		WindowStart: start, WindowEnd: start.Add(10 * time.Second), FirstEventAt: start.Add(time.Millisecond), LastEventAt: start.Add(time.Second),
		Evidence: Evidence{Topic: "activity", Partitions: map[string]OffsetRange{"3": {1200, 1311}}}}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"` + id + `","rule":"burst","state":"opened","severity":"warning","user_id":520088904,"num_actions_per_watermark":6,"threshold":5,` +
		`"window_start":"2019-11-01T00:00:00Z","window_end":"2019-11-01T00:00:10Z","first_event_at":"2019-11-01T00:00:00.001Z","last_event_at":"2019-11-01T00:00:01Z",` +
		`"evidence":{"topic":"activity","partitions":{"3":{"first_offset":1200,"last_offset":1311}}}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	back, err := Parse(b)
	if diff := cmp.Diff(r, back); err != nil || diff != "" {
		t.Errorf("Parse: %v, %s", err, diff)
	}
}

func TestSeverity(t *testing.T) {
	if SeverityOf(10, 10) != Warning || SeverityOf(11, 10) != Critical {
		t.Error("critical begins above the bound")
	}
	if Opened.Rank() >= Closed.Rank() || State("x").Rank() != 0 {
		t.Error("states out of order")
	}
}

func TestByNumber(t *testing.T) {
	got := []string{"10", "9", "0", "100", "2147483647"}
	slices.SortFunc(got, ByNumber)
	if diff := cmp.Diff([]string{"0", "9", "10", "100", "2147483647"}, got); diff != "" {
		t.Error(diff)
	}
}
