package decision

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func TestOf(t *testing.T) {
	user := alert.Record{ID: "a", Rule: "burst", UserID: json.RawMessage(`"ann"`), Summary: "too much", Decision: &alert.Decision{Level: "challenge", ForMS: 600_000}}
	want := Decision{Scope: "username", Value: "ann", Level: "challenge", Rule: "burst", Since: noon, Until: noon.Add(10 * time.Minute), Incident: "i", Alert: "a", Reason: "too much"}
	got, ok := Of(&user, noon.Add(3*time.Microsecond), "i")
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Error(diff)
	}
	for key, of := range map[string][2]string{
		`{"user_id":7}`:            {"username", "7"},
		`{"ip":"10.0.0.1"}`:        {"ip", "10.0.0.1"},
		`{"ip":"::1","user_id":7}`: {"ip,user_id", `["::1",7]`},
		`{"ip":null}`:              {"ip", "null"},
	} {
		r := user
		r.Key = json.RawMessage(key)
		r.UserID, _ = alert.Token(r.Key)
		if got, ok := Of(&r, noon, ""); !ok || got.Scope != of[0] || got.Value != of[1] {
			t.Errorf("%s: %+v", key, got)
		}
	}
	shadow, none, keyless := user, user, user
	shadow.Mode, none.Decision = alert.Shadow, nil
	keyless.Key, keyless.UserID = json.RawMessage(`{}`), json.RawMessage(`[]`)
	for _, r := range []alert.Record{shadow, none, keyless} {
		if got, ok := Of(&r, noon, ""); ok {
			t.Errorf("%+v", got)
		}
	}
}

func TestParse(t *testing.T) {
	d := Decision{Scope: "ip", Value: "<&>\"\x00", Level: "block", Until: noon.Add(time.Hour), Since: noon, Author: "ana", Reason: "why"}
	value, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, end, err := Parse(d.Key(), value)
	if diff := cmp.Diff(d, got); diff != "" || end || err != nil {
		t.Error(end, err, diff)
	}
	if got, end, err := Parse(d.Key(), nil); err != nil || !end || got.Value != d.Value || string(got.Key()) != string(d.Key()) {
		t.Error(got, end, err)
	}
	other := d
	other.Value = "other"
	for name, c := range map[string][2]string{
		"key":           {"x", string(value)},
		"short key":     {`["ip","x"]`, string(value)},
		"another key":   {string(other.Key()), string(value)},
		"no JSON":       {string(d.Key()), "{"},
		"level":         {string(d.Key()), strings.Replace(string(value), "block", "Block!", 1)},
		"for ever":      {string(d.Key()), strings.Replace(string(value), "2026-11-30T13", "2027-11-30T13", 1)},
		"scope missing": {`["","v",""]`, `{"value":"v","level":"block","until":"2026-11-30T13:00:00Z","since":"2026-11-30T12:00:00Z"}`},
	} {
		if got, _, err := Parse([]byte(c[0]), []byte(c[1])); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestID(t *testing.T) {
	seen := map[int64]Decision{}
	for _, d := range []Decision{{Scope: "ip", Value: "1", Rule: "a"}, {Scope: "ip", Value: "1"}, {Scope: "ip", Value: "1a"}, {Scope: "ip1", Value: "", Rule: "a"}, {Scope: "i", Value: "p1", Rule: "a"}} {
		id := d.ID()
		if id < 0 || seen[id] != (Decision{}) || d.ID() != id {
			t.Errorf("%d: %+v and %+v", id, d, seen[id])
		}
		seen[id] = d
	}
}

// TestView: after any records, at any time, the view answers what a plain list of the newest records does; and whoever follows its changes knows the same.
func TestView(t *testing.T) {
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 1))
		v := NewView()
		newest := map[string]Decision{}
		followed := map[string]Decision{}
		var last uint64
		now := noon
		for range 300 {
			now = now.Add(time.Duration(r.IntN(3)) * time.Second)
			d := Decision{Scope: []string{"ip", "username"}[r.IntN(2)], Value: fmt.Sprint(r.IntN(4)), Rule: []string{"a", "b", ""}[r.IntN(3)], Level: "block", Since: now, Until: now.Add(time.Duration(1+r.IntN(60)) * time.Second)}
			switch r.IntN(10) {
			case 0:
				v.Take(Decision{Scope: d.Scope, Value: d.Value, Rule: d.Rule}, true, now)
				delete(newest, string(d.Key()))
			case 1:
				v.Sweep(now)
			case 2: // the topic is read anew, compacted
				v.Begin()
				for _, d := range newest {
					v.Take(d, false, now)
				}
				v.Complete()
			default:
				v.Take(d, false, now)
				newest[string(d.Key())] = d
			}
			list, l, ok := v.Since(last)
			if !ok {
				t.Fatal("changes are lost")
			}
			last = l
			for _, c := range list {
				if c.Ended {
					delete(followed, string(c.Decision.Key()))
				} else {
					followed[string(c.Decision.Key())] = *c.Decision
				}
			}
			at := now.Add(time.Duration(r.IntN(10)) * time.Second)
			var want []Decision
			for _, d := range newest {
				if d.Active(at) {
					want = append(want, d)
				}
			}
			sort := func(list []Decision) []Decision {
				slices.SortFunc(list, func(a, b Decision) int { return strings.Compare(string(a.Key()), string(b.Key())) })
				return list
			}
			all, _ := v.All(at)
			if diff := cmp.Diff(sort(want), sort(all)); diff != "" {
				t.Fatalf("seed %d: %s", seed, diff)
			}
			var known []Decision
			for _, d := range followed {
				if d.Active(at) {
					known = append(known, d)
				}
			}
			if diff := cmp.Diff(sort(want), sort(known)); diff != "" {
				t.Fatalf("seed %d: who follows: %s", seed, diff)
			}
			found := v.Lookup(strings.ToUpper(d.Scope), d.Value, at)
			want = slices.DeleteFunc(want, func(w Decision) bool { return w.Scope != d.Scope || w.Value != d.Value })
			if len(want) == 0 {
				want = nil
			}
			if !slices.IsSortedFunc(found, func(a, b Decision) int { return b.Until.Compare(a.Until) }) {
				t.Fatalf("seed %d: not the longest first: %v", seed, found)
			}
			if diff := cmp.Diff(sort(want), sort(found)); diff != "" {
				t.Fatalf("seed %d: lookup: %s", seed, diff)
			}
		}
	}
}

func TestChangesAreBounded(t *testing.T) {
	v := NewView()
	d := Decision{Scope: "ip", Value: "x", Level: "block", Since: noon}
	for i := range maxChanges + 10 {
		d.Until = noon.Add(time.Duration(i+1) * time.Millisecond)
		v.Take(d, false, noon)
	}
	if _, last, ok := v.Since(0); ok || last != maxChanges+10 {
		t.Errorf("%d, %v", last, ok)
	}
	if list, _, ok := v.Since(maxChanges + 5); !ok || len(list) != 5 || !list[4].Decision.Until.Equal(d.Until) {
		t.Errorf("%d changes, %v", len(list), ok)
	}
	if _, _, ok := v.Since(maxChanges + 11); ok {
		t.Error("what has not happened yet is known")
	}
}

func BenchmarkLookup(b *testing.B) {
	v := NewView()
	for i := range 100_000 {
		v.Take(Decision{Scope: ScopeUser, Value: fmt.Sprint(i), Level: "block", Since: noon, Until: noon.Add(time.Hour)}, false, noon)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		v.Lookup(ScopeUser, fmt.Sprint(i%200_000), noon)
	}
}
