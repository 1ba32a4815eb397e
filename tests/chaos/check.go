package chaos

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

// reference counts the log in the plain way. Which events were late for a promise depends on the wall clock, and only the log can tell; what
// it tells is held against the silence of their partition (promises). All others that are late or invalid must be those that the log has.
func (w *world) reference() *verifier.Reference {
	type lateness struct {
		idle           bool
		windowMS, byMS int64
	}
	late, dead := map[place]lateness{}, map[place]bool{}
	side := func(topic string, found func(place, map[string]string) (again bool)) {
		harness.ReadAll(w.t, w.proxy.Addr, topic, func(r *kgo.Record) {
			h := map[string]string{}
			for _, x := range r.Headers {
				h[x.Key] = string(x.Value)
			}
			p := place{h["spate-source-partition"], h["spate-source-offset"]}
			if found(p, h) {
				w.violate("%s has the event at %v twice", topic, p)
			}
		})
	}
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			w.t.Fatalf("a header of the late topic: %v", err)
		}
		return n
	}
	side(w.names.Late, func(p place, h map[string]string) bool {
		_, again := late[p]
		late[p] = lateness{h["spate-reason"] == "idle", number(h["spate-window-start"]), number(h["spate-late-by-ms"])}
		return again
	})
	side(w.names.DLQ, func(p place, _ map[string]string) bool {
		again := dead[p]
		dead[p] = true
		return again
	})

	ref := verifier.NewReference(rule)
	sources := map[int32]*promises{}
	var idle, unfounded, broken, unlike int
	harness.ReadAll(w.t, w.proxy.Addr, w.names.Activity, func(r *kgo.Record) {
		source := sources[r.Partition]
		if source == nil {
			source = newPromises(rule.Window, idleTimeout-w.setup.appending())
			sources[r.Partition] = source
		}
		at, invalid := placeOf(r), ref.Invalid
		l, isLate := late[at]
		var want bool
		if l.idle {
			ref.AddIdleJSON(r.Partition, r.Value, r.Timestamp)
			want = true
		} else {
			want = ref.AddJSON(r.Partition, r.Value, r.Timestamp)
		}
		isDead := ref.Invalid > invalid
		if isLate != want || isDead != dead[at] {
			unlike++
		}
		if isDead {
			return
		}
		source.next(r.Timestamp)
		switch {
		case l.idle:
			idle++
			if !source.late(l.windowMS, l.byMS) {
				unfounded++
			}
		case !want:
			if _, window := ref.Last(); !source.count(window) {
				broken++
			}
		}
	})
	w.t.Logf("%d events are late for a promise", idle)
	if unfounded > 0 {
		w.violate("%d events are late for a promise, and their partition was not silent when it was made", unfounded)
	}
	if broken > 0 {
		w.violate("%d events are counted, and an earlier one of their partition was late for a promise that reaches their window", broken)
	}
	if unlike > 0 {
		w.violate("%d events have another fate than in the reference", unlike)
	}
	return ref
}

// appending is by how much a silence may look shorter in the log than it was. kfake does one thing at a time; Kafka stamps a record before
// it can be read, and a busy machine may stop it in between.
func (s setup) appending() time.Duration {
	if s.Broker == "kfake" {
		return 0
	}
	return time.Second
}

// check holds the log and the store against the references: that of the first rule, and that of the others.
func (w *world) check(ref *verifier.Reference, others verifier.RulesReport) {
	want := ref.Result()
	for _, v := range harness.LogViolations(w.t, w.proxy.Addr, w.names, ref) {
		w.violate("%s", v)
	}
	told, wrong := harness.AlertsOf(w.t, w.proxy.Addr, w.names)
	for _, v := range wrong {
		w.violate("%s", v)
	}
	compare := func(what string, all []alert.Record) {
		burst, rest := split(all)
		if d := verifier.Compare(want, burst); !d.Exact() || len(burst) != len(want) {
			w.violate("%s against the reference: %d of %d, %+v", what, len(burst), len(want), d)
		}
		for _, d := range verifier.CompareRules(others, rest) {
			if !d.Exact() {
				w.violate("%s against SQLite: %+v", what, d)
			}
		}
	}
	compare("alerts topic", slices.Collect(maps.Values(told)))

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
	compare("stored alerts", stored)
	for _, r := range others.Rules {
		w.t.Logf("rule %s has %d alerts", r.Rule, len(r.Rows))
	}
	w.t.Logf("%d alerts stored; %d of the first rule are expected", len(stored), len(want))
}

// same reports whether two records have the same content.
func same(a, b alert.Record) bool {
	x, err := a.Encode()
	y, err2 := b.Encode()
	return err == nil && err2 == nil && bytes.Equal(x, y)
}
