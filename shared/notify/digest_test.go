package notify

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"spate/shared/alert"
)

// naive is what a Digester comes to, made of all records at once.
func naive(since, until time.Time, records []alert.Record) Digest {
	d := Digest{Since: since, Until: until, Messages: len(records), BySeverity: map[alert.Severity]int{}, ByRule: map[string]int{}}
	users, newest, counts := map[string]bool{}, map[string]alert.Record{}, map[string]int64{}
	for _, r := range records {
		if r.State == alert.Opened {
			d.Opened++
		} else {
			d.Closed++
		}
		d.BySeverity[r.Severity]++
		d.ByRule[r.Rule]++
		users[string(r.UserID)] = true
		if known, ok := newest[r.ID]; !ok || r.State.Rank() > known.State.Rank() {
			newest[r.ID] = r
		}
		counts[r.ID] = max(counts[r.ID], r.Count)
	}
	d.Users = len(users)
	for _, n := range counts {
		d.Events += n
	}
	for _, r := range newest {
		d.Top = append(d.Top, r)
	}
	slices.SortFunc(d.Top, func(a, b alert.Record) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID)) })
	d.Top = d.Top[:min(10, len(d.Top))]
	return d
}

func TestDigester(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	since := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	until := since.Add(time.Minute)
	for round := range 500 {
		// Some alerts, many with the same count, each with one or both of its messages; the final count is no lower than the first.
		var records []alert.Record
		for i := range rng.IntN(40) {
			r := alert.Record{
				ID: fmt.Sprintf("%08x-%d", rng.Uint32(), i), Rule: []string{alert.Burst, "other"}[rng.IntN(2)], State: alert.Opened,
				Severity: []alert.Severity{alert.Warning, alert.Critical}[rng.IntN(2)], UserID: json.RawMessage(fmt.Sprint(rng.IntN(20))),
				Count: 1 + rng.Int64N(12), WindowStart: since, WindowEnd: until, FirstEventAt: since, LastEventAt: since,
			}
			closed := r
			closed.State = alert.Closed
			closed.Count += rng.Int64N(3)
			if n := rng.IntN(3); n == 0 {
				records = append(records, r)
			} else if n == 1 {
				records = append(records, closed)
			} else {
				records = append(records, r, closed)
			}
		}
		rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		b := NewDigester(since, until)
		for _, r := range records {
			b.Add(Held{Type: TypeOf(r), Alert: &r})
		}
		data, err := b.Data(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got Digest
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		want := naive(since, until, records)
		for i, r := range want.Top {
			want.Top[i] = r.Written()
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d (-want +got):\n%s", round, diff)
		}
	}
}

func TestDigestData(t *testing.T) {
	since := time.Date(2026, 9, 1, 14, 0, 0, 0, time.FixedZone("", 7200))
	b := NewDigester(since, since.Add(time.Minute))
	b.Add(Held{Type: TypeOpened, Alert: &alert.Record{ID: "1", UserID: json.RawMessage(`"<a&b>"`), State: alert.Opened, Count: 6}})
	data, err := b.Data(func(d Digest) string { return fmt.Sprintf("https://x/?n=%d&users=%d", d.Messages, d.Users) })
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"since":"2026-09-01T12:00:00Z"`, `"until":"2026-09-01T12:01:00Z"`, `"<a&b>"`, `"link":"https://x/?n=1&users=1"`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is not in %s", part, data)
		}
	}
	if data[len(data)-1] != '}' {
		t.Errorf("ends with %q", data[len(data)-1])
	}
	empty, err := NewDigester(since, since).Data(nil)
	if err != nil || strings.Contains(string(empty), "top") || strings.Contains(string(empty), "link") {
		t.Errorf("of nothing: %s, %v", empty, err)
	}
}
