package web

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"spate/services/explainer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// TestPaged: the pages of a list have every row once, in order, also if many rows have the same time.
func TestPaged(t *testing.T) {
	type row struct {
		at time.Time
		n  int
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		var all []row // the newest first
		at := noon
		for n := range rnd.IntN(60) {
			if rnd.IntN(3) == 0 {
				at = at.Add(-time.Duration(rnd.IntN(3)) * time.Millisecond)
			}
			all = append(all, row{at, n})
		}
		list := func(until time.Time, limit int) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				for _, r := range all {
					if !until.IsZero() && !r.at.Before(until) {
						continue
					}
					if limit--; limit < 0 || !yield(r, nil) {
						return
					}
				}
			}
		}
		var got []row
		var c cursor
		size := 1 + rnd.IntN(9)
		for page := 0; ; page++ {
			rows, next, err := paged(c, size, list, func(r row) time.Time { return r.at })
			if err != nil || page > len(all) {
				t.Fatalf("round %d: page %d: %v", round, page, err)
			}
			got = append(got, rows...)
			if next == (cursor{}) {
				break
			}
			if c, err = parseCursor(next.String()); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, all) {
			t.Fatalf("round %d, pages of %d:\n%v\n%v", round, size, got, all)
		}
	}
	for _, wrong := range []string{"1", "1-", "-1", "x-1", "1--1", "1-1000001", "253402300800000-0", "99999999999999999999-1"} {
		if _, err := parseCursor(wrong); err == nil {
			t.Errorf("cursor %q is taken", wrong)
		}
	}
}

// TestHub: every page hears of a change, no page keeps others waiting, and their number has a bound.
func TestHub(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := newHub()
	done := make(chan struct{})
	go func() { defer close(done); h.run(ctx) }()
	var pages []chan struct{}
	for range maxPages {
		c, ok := h.join()
		if !ok {
			t.Fatalf("page %d is refused", len(pages))
		}
		pages = append(pages, c)
	}
	if _, ok := h.join(); ok {
		t.Error("one page more than the bound is taken")
	}
	h.leave(pages[0])
	if _, ok := h.join(); !ok {
		t.Error("a page that has left keeps its place")
	}
	for range 100 { // nobody listens yet
		h.Changed()
	}
	for _, c := range pages[1:] {
		<-c
	}
	if h.now() == 0 {
		t.Error("the version is still 0")
	}
	cancel()
	<-done
}

// TestFragments: for one version of the data, a page is rendered once, however many ask.
func TestFragments(t *testing.T) {
	var f fragments
	var rendered atomic.Int64
	ask := func(version uint64, url string) string {
		body, code := f.of(version, url, func() ([]byte, int) { return fmt.Appendf(nil, "%s %d", url, rendered.Add(1)), 200 })
		if code != 200 {
			t.Errorf("code %d", code)
		}
		return string(body)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { ask(1, "/") })
	}
	wg.Wait()
	if n := rendered.Load(); n != 1 {
		t.Errorf("rendered %d times", n)
	}
	if ask(1, "/rules") != "/rules 2" || ask(1, "/") != "/ 1" || ask(2, "/") != "/ 3" {
		t.Error("another page or version has the same fragment")
	}
	for i := range 3 * maxFragments {
		ask(2, fmt.Sprint("/keys?", i))
	}
	if n := len(f.pages); n > maxFragments {
		t.Errorf("%d fragments are kept", n)
	}
}

// fakeSource answers readings one after the other.
type fakeSource struct{ readings []Reading }

func (s *fakeSource) Read(context.Context) (Reading, error) {
	if len(s.readings) == 0 {
		return Reading{}, errors.New("away")
	}
	r := s.readings[0]
	s.readings = s.readings[1:]
	return r, nil
}

func (*fakeSource) Close() {}

func reading(seconds int, events, alerts int64, parts ...Partition) Reading {
	at := noon.Add(time.Duration(seconds) * time.Second)
	return Reading{At: at, Of: at, Events: events, Alerts: alerts, Begun: true, Counter: "spate route", Part: "partition", Partitions: parts}
}

// TestMeter: rates come from two readings, and none from a topic that was made anew.
func TestMeter(t *testing.T) {
	m := Meter{Source: &fakeSource{[]Reading{reading(0, 1000, 10), reading(2, 3000, 16), reading(32, 3000, 20), reading(92, 3060, 20), reading(94, 5, 0)}}}
	var rates, alerts []float64
	for range 5 {
		s, err := m.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rates, alerts = append(rates, s.Rate), append(alerts, s.AlertRate)
	}
	nan := math.NaN()
	same := func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
	// After a pause of more than half a minute, nothing is known of the time between.
	if want := []float64{nan, 1000, nan, nan, nan}; !slices.EqualFunc(rates, want, same) {
		t.Errorf("rates %v, not %v", rates, want)
	}
	if want := []float64{nan, 6, nan, nan, nan}; !slices.EqualFunc(alerts, want, same) {
		t.Errorf("alerts %v, not %v", alerts, want)
	}
	if _, err := m.Read(t.Context()); err == nil {
		t.Error("a source that is away is a sample")
	}
}

// TestMeterOfSaves: in mode aws, a rate is that between two saves of the worker, however often they are read, and is not known any more when it saves no longer.
func TestMeterOfSaves(t *testing.T) {
	saved := func(at, of int, events int64) Reading {
		r := reading(at, events, 0, Partition{Name: "shardId-1", Silent: events > 100})
		r.Of = noon.Add(time.Duration(of) * time.Second)
		return r
	}
	never := reading(0, 0, 0)
	never.Of = time.Time{}
	m := Meter{Source: &fakeSource{[]Reading{never, saved(1, 0, 100), saved(3, 0, 100), saved(5, 4, 500), saved(7, 4, 500), saved(40, 4, 500), saved(42, 41, 900), saved(44, 43, 902)}}}
	var rates []float64
	var last Sample
	for range 8 {
		s, err := m.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rates, last = append(rates, s.Rate), s
	}
	nan := math.NaN()
	if want := []float64{nan, nan, nan, 100, 100, nan, nan, 1}; !slices.EqualFunc(rates, want, func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }) {
		t.Errorf("rates %v, not %v", rates, want)
	}
	if since := last.Partitions[0].Since; !since.Equal(noon.Add(5 * time.Second)) {
		t.Errorf("silent since %v", since)
	}
}

// TestTroubles: what is wrong is said in words, and nothing else is.
func TestTroubles(t *testing.T) {
	part := func(name string, end, lag int64) Partition {
		return Partition{Name: name, Records: &end, Lag: &lag, Next: fmt.Sprint(end - lag), Newest: noon}
	}
	idle := func(p Partition, since time.Duration) Partition {
		p.Silent, p.Since = true, noon.Add(-since)
		return p
	}
	busy, behind, silent := part("0", 100, 0), part("1", 100, 60), idle(part("2", 5, 0), 40*time.Second)
	late := 40.0
	shard := Partition{Name: "shardId-1", Behind: &late, Next: "49", Newest: noon}
	samples := func(r ...Reading) (out []Sample) {
		for _, x := range r {
			out = append(out, Sample{Reading: x, Rate: 1, Delay: 10})
		}
		return out
	}
	onAWS := func(seconds int, h Holder, parts ...Partition) Reading {
		r := reading(seconds, 100, 0, parts...)
		r.Part, r.Counter, r.Holder = "shard", "spate work", &h
		return r
	}
	var still, moving, unstored, stillShard, gone, slow, stuck []Reading
	for i := range 6 {
		beats := Holder{Name: "w1", Beat: fmt.Sprint(i), Lease: 9 * time.Second}
		stillShard = append(stillShard, onAWS(2*i, beats, shard))
		gone = append(gone, onAWS(2*i, Holder{Name: "w1", Beat: "7", Lease: 9 * time.Second}, shard, idle(shard, time.Minute)))
		r := onAWS(8*i, beats)
		r.Of = noon
		stuck = append(stuck, r)
		slow = append(slow, onAWS(2*i, Holder{Name: "w1", Beat: "7", Lease: time.Minute}))
		still = append(still, reading(2*i, 100, 0, busy, behind))
		moved := behind
		moved.Next = fmt.Sprint(40 + i)
		moving = append(moving, reading(2*i, 100, 0, busy, moved))
		r = reading(2*i, 100, 10, busy)
		r.Unstored, r.Stored = "4 alert records", "6"
		unstored = append(unstored, r)
	}
	none := reading(0, 100, 0, part("0", 100, 100))
	none.Begun = false
	for name, c := range map[string]struct {
		samples []Sample
		want    string
	}{
		"nothing is read":   {nil, ""},
		"all is well":       {samples(reading(0, 100, 0, busy)), ""},
		"no router":         {samples(none), "Nothing has been counted yet: is spate route running?"},
		"a router stands":   {samples(still...), "Partition 1 has not advanced for 10 s, and 60 events are waiting in it: is spate route running?"},
		"a router is slow":  {samples(moving...), ""},
		"no alerter":        {samples(unstored...), "No alert was stored in the last 10 s, with 4 alert records waiting: is spate alert running?"},
		"one is silent":     {samples(reading(0, 100, 0, busy, silent)), "Partition 2 has been silent for at least 40 s; it does not hold windows open."},
		"all are silent":    {samples(reading(0, 100, 0, silent)), "No events have arrived for at least 40 s. Because every partition is silent, windows now close by the wall clock."},
		"silent for a bit":  {samples(reading(0, 100, 0, busy, idle(part("2", 5, 0), time.Second))), ""},
		"never had a thing": {samples(reading(0, 100, 0, busy, Partition{Name: "2", Silent: true, Since: noon.Add(-time.Hour)})), ""},
		"a shard stands":    {samples(stillShard...), "Shard shardId-1 has not advanced for 10 s, and it is 40 s behind: is spate work running?"},
		"no worker":         {samples(gone...), "The worker w1 has not renewed its lease for 10 s, and no other has taken over: is spate work running?"},
		"a long lease":      {samples(slow...), ""},
		"a worker hangs":    {samples(stuck...), "The worker w1 has saved nothing for 40 s: its log shows what it is waiting for."},
		"a worker has left": {samples(onAWS(0, Holder{Name: "w1", Released: true}, shard)), "The worker w1 has stopped, and no other has taken over: is spate work running?"},
	} {
		if got := strings.Join(Troubles(c.samples), "; "); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}

// TestHere: a login leads to pages of the console only.
func TestHere(t *testing.T) {
	for next, want := range map[string]string{
		"": "/", "/rules": "/rules", "/keys?key=a%3D1": "/keys?key=a%3D1", "//evil.example": "/", "/\\evil.example": "/", "/\t/evil.example": "/", "https://evil.example/": "/", "javascript:alert(1)": "/",
		"/ /evil.example": "/", "rules": "/", "/%09/evil.example": "/%09/evil.example", "/a#b": "/a", "\n/rules": "/",
	} {
		if got := here(next); got != want {
			t.Errorf("%q leads to %q, not %q", next, got, want)
		}
	}
}

// TestTexts: numbers and durations as people read them.
func TestTexts(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7: "7", 0.254: "0.25", 12034: "12,034", 1234.5: "1,235", 99.5: "99.5"} {
		if got := figure(v); got != want {
			t.Errorf("%v is %q, not %q", v, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 40 * time.Second: "40 s", 12 * time.Minute: "12 min", 200 * time.Minute: "3 h 20 min", 52 * time.Hour: "2 d 4 h", 2 * time.Hour: "2 h", 48 * time.Hour: "2 d"} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, not %q", d, got, want)
		}
	}
	for _, v := range []float64{1, 1.2, 7, 99, 100, 101, 12_345, 9e9} {
		if n := nice(v); n < v || n > 2*v {
			t.Errorf("an axis of %v for %v", n, v)
		}
	}
}

// TestCharts: text from rules is text, and no value draws what is not there.
func TestCharts(t *testing.T) {
	w := explainer.Windows{What: `<script>alert(1)</script>"`, Limit: 5, From: noon, Until: noon.Add(time.Minute)}
	for i := range 3 {
		w.Windows = append(w.Windows, explainer.Window{Start: noon.Add(time.Duration(i) * 10 * time.Second), End: noon.Add(time.Duration(i+1) * 10 * time.Second), Events: i, Value: float64(4 * i), Holds: i == 2})
	}
	html := string(bars(noon, noon.Add(10*time.Second), &w))
	if strings.Contains(html, "<script") || strings.Contains(html, "NaN") || strings.Count(html, "<rect") != 4 || !strings.Contains(html, "the limit, 5") {
		t.Error(html)
	}
	// A rule that was changed meanwhile has another limit since.
	later := explainer.Windows{What: "COUNT(*) > 40", Revision: 2, Limit: 40, From: noon, Until: noon.Add(2 * time.Minute), Windows: []explainer.Window{{Start: noon.Add(time.Minute), End: noon.Add(70 * time.Second), Value: 60}}}
	html = string(bars(noon, noon.Add(10*time.Second), &w, &later))
	if strings.Count(html, "<rect") != 5 || !strings.Contains(html, "the limit, 5, 40 (revision 2)") || !strings.Contains(html, `x1="0.00" x2="160.00"`) || !strings.Contains(html, `x1="320.00" x2="373.33"`) {
		t.Error(html)
	}
	if bars(noon, noon, &explainer.Windows{From: noon, Until: noon.Add(time.Minute)}) != "" {
		t.Error("no windows have a chart")
	}
	var samples []Sample
	for i := range 5 {
		samples = append(samples, Sample{Reading: reading(2*i, 0, 0), Rate: []float64{math.NaN(), 5, math.NaN(), 7, 9}[i]})
	}
	html = string(line("Events", "a second", samples, func(s Sample) float64 { return s.Rate }))
	if strings.Contains(html, "NaN") || strings.Count(html, "Z ") != 2 || !strings.Contains(html, "now 9 a second") {
		t.Error(html)
	}
}
