package chaos

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/store"
	"spate/tests/harness"
)

// place of an event in the log.
type place struct {
	partition, offset string
}

func placeOf(r *kgo.Record) place { return place{fmt.Sprint(r.Partition), fmt.Sprint(r.Offset)} }

// reference counts the log in the plain way. Which events were late for a promise depends on the wall clock, and only the log can tell;
// it is believed if the partition had been silent shortly before. All others that are late or invalid must be the ones that the log has.
func (w *world) reference() *verifier.Reference {
	late, idle, dead := map[place]bool{}, map[place]bool{}, map[place]bool{}
	side := func(topic string, all map[place]bool) {
		harness.ReadAll(w.t, w.proxy.Addr, topic, func(r *kgo.Record) {
			h := map[string]string{}
			for _, x := range r.Headers {
				h[x.Key] = string(x.Value)
			}
			p := place{h["spate-source-partition"], h["spate-source-offset"]}
			if all[p] {
				w.violate("%s has the event at %v twice", topic, p)
			}
			all[p] = true
			if h["spate-reason"] == "idle" {
				idle[p] = true
			}
		})
	}
	side(w.names.Late, late)
	side(w.names.DLQ, dead)

	ref := verifier.NewReference(rule)
	// A promise goes no further than the last window that has an event, so it can concern events of the next while only.
	// The load is behind by as long as it was stopped, and takes its time to come up.
	shortly := disorder + rule.Window + rule.Lateness + longestHush
	type source struct{ last, spoke time.Time } // the last record; the first after a silence, the first of all among them
	sources := map[int32]*source{}
	var unfounded, unlike int
	harness.ReadAll(w.t, w.proxy.Addr, w.names.Activity, func(r *kgo.Record) {
		s := sources[r.Partition]
		if s == nil {
			s = &source{last: r.Timestamp, spoke: r.Timestamp}
			sources[r.Partition] = s
		}
		if r.Timestamp.Sub(s.last) >= idleTimeout/2 { // half of it: the broker stamps a record before it can be read
			s.spoke = r.Timestamp
		}
		s.last = r.Timestamp
		at, invalid := placeOf(r), ref.Invalid
		var isLate bool
		if idle[at] {
			ref.AddIdleJSON(r.Partition, r.Value, r.Timestamp)
			isLate = true
			if r.Timestamp.Sub(s.spoke) > shortly {
				unfounded++
			}
		} else {
			isLate = ref.AddJSON(r.Partition, r.Value, r.Timestamp)
		}
		if isLate != late[at] || (ref.Invalid > invalid) != dead[at] {
			unlike++
		}
	})
	w.t.Logf("%d events are late for a promise", len(idle))
	if unfounded > 0 {
		w.violate("%d events are late for a promise, and their partition was not silent shortly before", unfounded)
	}
	if unlike > 0 {
		w.violate("%d events have another fate than in the reference", unlike)
	}
	return ref
}

// check holds the log and the store against the reference.
func (w *world) check(ref *verifier.Reference) {
	want := ref.Result()
	for _, v := range harness.LogViolations(w.t, w.proxy.Addr, w.names, ref) {
		w.violate("%s", v)
	}
	told, wrong := harness.AlertTopicViolations(w.t, w.proxy.Addr, w.names, len(want))
	for _, v := range wrong {
		w.violate("%s", v)
	}
	if d := verifier.Compare(want, slices.Collect(maps.Values(told))); !d.Exact() {
		w.violate("alerts topic against the reference: %+v", d)
	}

	var stored []alert.Record
	ids := map[string]bool{}
	for a, err := range w.store.Alerts(w.t.Context(), store.Filter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		stored = append(stored, a.Record)
		if ids[a.ID] {
			w.violate("two alerts have the id %s", a.ID)
		}
		ids[a.ID] = true
		if id := alert.ID(a.Rule, string(a.UserID), a.WindowStart.UnixMilli(), a.WindowEnd.Sub(a.WindowStart).Milliseconds()); a.ID != id {
			w.violate("an alert has the id %s, its content that of %s", a.ID, id)
		}
		if a.State == alert.Closed && !same(a.Record, told[a.ID]) {
			w.violate("stored, and not so in the log: %+v", a.Record)
		}
	}
	for id := range told {
		if !ids[id] {
			w.violate("alert %s is in the log and not stored", id)
		}
	}
	if d := verifier.Compare(want, stored); !d.Exact() || len(stored) != len(want) {
		w.violate("stored alerts: %d of %d, %+v", len(stored), len(want), d)
	}
	w.t.Logf("%d alerts stored, %d expected", len(stored), len(want))
}

// same tells whether two records have the same content.
func same(a, b alert.Record) bool {
	x, err := a.Encode()
	y, err2 := b.Encode()
	return err == nil && err2 == nil && bytes.Equal(x, y)
}
