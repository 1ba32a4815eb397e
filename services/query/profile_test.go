package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestProfile: a profile says what the rule finds if it is run with each limit, and the rows are those of the rule.
func TestProfile(t *testing.T) {
	m := &memory{timed: true}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 4000 {
		at := float64(i) / 10
		m.add(int32(i%3), at, strings.Replace(event(at, fmt.Sprint(int(random.ExpFloat64()*6))), "1.5", fmt.Sprintf("%.2f", random.Float64()*4), 1))
	}
	db := open(t, config(m))
	for _, c := range []struct {
		statement string // with %s for the limit
		limit     string
		what      string
	}{
		{"SELECT user_id, window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, user_id HAVING COUNT(*) > %s", "8", "COUNT(*) > 8"},
		{"SELECT user_id, window_start, COUNT(*) AS n FROM TABLE(HOP(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '5' SECOND, INTERVAL '20' SECOND)) GROUP BY window_start, window_end, user_id HAVING MAX(price) < 3.9 AND COUNT(*) >= %s", "11", "COUNT(*) >= 11"},
		{"SELECT user_id, window_start, SUM(price) AS n FROM TABLE(CUMULATE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND, INTERVAL '30' SECOND)) GROUP BY window_start, window_end, user_id HAVING SUM(price) > %s", "17.5", "SUM(price) > 17.5"},
		{"SELECT user_id, window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, user_id HAVING COUNT(*) * 0.1 > %s", "0.7", "COUNT(*) * 0.1 > 0.7"},
		{"SELECT user_id, window_start, SUM(price) AS n FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, user_id HAVING SUM(price) >= %s", "10.31", "SUM(price) >= 10.31"},
		{"SELECT user_id, window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, user_id HAVING %s < COUNT(*) AND MAX(price) < 3.95", "8", "COUNT(*) > 8"},
	} {
		run := func(limit string, p *Profile) (found []string, keys map[string]bool, starts map[string]int64) {
			t.Helper()
			keys, starts = map[string]bool{}, map[string]int64{}
			_, err := db.Run(t.Context(), fmt.Sprintf(c.statement, limit), Bounds{}, Output{Columns: func(names []string) error { found = append(found, strings.Join(names, "|")); return nil }, Profile: p, Row: func(v []any) error {
				found = append(found, fmt.Sprint(v...))
				keys[fmt.Sprint(v[0])] = true
				starts[v[1].(string)]++
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			return found, keys, starts
		}
		var p Profile
		with, _, starts := run(c.limit, &p)
		without, _, _ := run(c.limit, nil)
		if !slices.Equal(with, without) {
			t.Errorf("%s: %d rows with a profile, %d without", c.what, len(with), len(without))
		}
		if p.Sweep == nil || fmt.Sprintf("%s %s %v", p.Sweep.What, p.Sweep.Op, p.Sweep.Limit) != c.what || len(p.Sweep.Limits) < 4 {
			t.Fatalf("%s: %+v", c.what, p.Sweep)
		}
		own := false
		for _, l := range p.Sweep.Limits {
			rows, keys, _ := run(fmt.Sprint(l.Value), nil)
			if int64(len(rows)-1) != l.Windows || int64(len(keys)) != l.Keys {
				t.Errorf("%s: %+v, but the rule finds %d windows of %d keys", c.what, l, len(rows)-1, len(keys))
			}
			own = own || l.Value == p.Sweep.Limit
		}
		if last := p.Sweep.Limits[len(p.Sweep.Limits)-1]; !own || last.Windows != 0 || p.Sweep.Limits[0].Windows <= int64(len(with)-1) {
			t.Errorf("%s: %+v", c.what, p.Sweep.Limits)
		}
		sum := int64(0)
		step := p.Slots[1].Start.Sub(p.Slots[0].Start)
		for i, s := range p.Slots {
			sum += s.Windows
			n := int64(0)
			for text, count := range starts {
				at, err := time.Parse("2006-01-02 15:04:05", text)
				if err != nil {
					t.Fatal(err)
				}
				if !at.Before(s.Start) && at.Before(s.Start.Add(step)) {
					n += count
				}
			}
			if n != s.Windows || i > 0 && s.Start.Sub(p.Slots[i-1].Start) != step {
				t.Errorf("%s: %+v, but %d rows begin then", c.what, s, n)
			}
		}
		if sum != int64(len(with)-1) || len(p.Slots) > maxSlots {
			t.Errorf("%s: %d windows in %d slots, %d rows", c.what, sum, len(p.Slots), len(with)-1)
		}
	}

	// Without a limit there is no sweep, and a query has no profile.
	var p Profile
	none := Output{Columns: func([]string) error { return nil }, Row: func([]any) error { return nil }, Profile: &p}
	if _, err := db.Run(t.Context(), "SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id", Bounds{}, none); err != nil || p.Sweep != nil || len(p.Slots) == 0 {
		t.Errorf("%v, %+v", err, p)
	}
	p = Profile{}
	if _, err := db.Run(t.Context(), "SELECT COUNT(*) AS n FROM activity", Bounds{}, none); err != nil || p.Sweep != nil || p.Slots != nil {
		t.Errorf("%v, %+v", err, p)
	}
}

// TestWindows: the windows before the columns of a rule are those that it would select itself.
func TestWindows(t *testing.T) {
	m := &memory{timed: true}
	for i := range 400 {
		m.add(0, float64(i)/4, event(float64(i)/4, fmt.Sprint(i%3)))
	}
	db := open(t, config(m))
	rows := func(columns string, out Output) (list []string) {
		t.Helper()
		out.Columns = func(names []string) error { list = append(list, strings.Join(names, "|")); return nil }
		out.Row = func(v []any) error { list = append(list, fmt.Sprint(v...)); return nil }
		if _, err := db.Run(t.Context(), "SELECT "+columns+" FROM TABLE(HOP(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '2.5' SECOND, INTERVAL '7.5' SECOND)) GROUP BY window_start, window_end, user_id HAVING COUNT(*) > 9", Bounds{}, out); err != nil {
			t.Fatal(err)
		}
		slices.Sort(list[1:])
		return list
	}
	want := rows("window_start, window_end, user_id, COUNT(*) AS n", Output{})
	if len(want) < 50 || want[0] != "window_start|window_end|user_id|n" {
		t.Fatalf("%q", want)
	}
	for _, c := range []struct {
		columns string
		out     Output
	}{
		{"user_id, COUNT(*) AS n", Output{Windows: true}},
		{"user_id, COUNT(*) AS n", Output{Windows: true, Profile: &Profile{}}},
		{"window_start, window_end, user_id, COUNT(*) AS n", Output{Windows: true}},
	} {
		if got := rows(c.columns, c.out); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.columns, got, want)
		}
	}
}

// TestFaults: what a rule cannot compute or count is in the notes.
func TestFaults(t *testing.T) {
	m := &memory{timed: true}
	m.add(0, 1, event(1, "1"))
	m.add(0, 1, strings.Replace(event(1, "1"), `"view"`, `"`+strings.Repeat("x", 5000)+`"`, 1))
	db := open(t, config(m))
	rows, s, err := rows(t.Context(), db, "SELECT event_type, 1 / (COUNT(*) - COUNT(*)) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), event_type", Bounds{})
	if err != nil || len(rows) != 2 || len(s.Notes) != 1 || !strings.HasPrefix(s.Notes[0], "faults: 2; each time, a result could not be computed") {
		t.Errorf("%q, %+v, %v", rows, s, err)
	}
}
