package decision

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// View holds the decisions in force that have been read so far. It is safe for concurrent use.
type View struct {
	mu      sync.RWMutex
	byValue map[string][]*held // by [about]
	n       int
	round   uint64 // in which reading of the topic a decision was last seen

	// changes are the last ones, for those who follow. The first has the number first.
	changes []Change
	first   uint64
}

// held is never changed: others read it without the lock.
type held struct {
	Decision
	round uint64
}

// Change is a decision that was made or prolonged, or has ended.
type Change struct {
	Decision *Decision
	Ended    bool
}

// maxChanges bounds the changes that are remembered. Who was away for longer gets everything anew.
const maxChanges = 200_000

// NewView returns an empty view.
func NewView() *View {
	return &View{byValue: make(map[string][]*held), first: 1}
}

// about is where decisions about a value are. Scopes are the same whatever their case, and that of user_id is username.
func about(scope, value string) string {
	if scope = strings.ToLower(scope); scope == "user_id" {
		scope = ScopeUser
	}
	return scope + "\x00" + value
}

// Begin starts a new reading of the topic: decisions that are not seen again by [View.Complete] are no longer in the topic.
func (v *View) Begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.round++
}

// Complete ends the decisions that were not seen since Begin.
func (v *View) Complete() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for h := range v.all() {
		if h.round != v.round {
			v.end(h)
		}
	}
}

// all returns what is held.
func (v *View) all() iter.Seq[*held] {
	return func(yield func(*held) bool) {
		for _, list := range v.byValue {
			for _, h := range list {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// of returns what is held about the value of a decision, and the index in it of what the same rule has decided: -1 if there is none.
func (v *View) of(d Decision) (list []*held, i int) {
	list = v.byValue[about(d.Scope, d.Value)]
	return list, slices.IndexFunc(list, func(h *held) bool { return h.Rule == d.Rule && h.Scope == d.Scope })
}

// Take applies a record of the topic.
func (v *View) Take(d Decision, end bool, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if end || !d.Active(now) {
		if list, i := v.of(d); i >= 0 {
			v.end(list[i])
		}
		return
	}
	if h := (&held{d, v.round}); v.put(h) {
		v.changed(Change{&h.Decision, false})
	}
}

// put holds a decision, and reports whether it is new or another one than before.
func (v *View) put(h *held) bool {
	list, i := v.of(h.Decision)
	if i < 0 {
		v.n++
		v.byValue[about(h.Scope, h.Value)] = append(slices.Clip(list), h)
		return true
	}
	before := list[i]
	list = slices.Clone(list) // the old one may be in use
	list[i] = h
	v.byValue[about(h.Scope, h.Value)] = list
	return before.Decision != h.Decision // otherwise it was read again
}

func (v *View) end(h *held) {
	v.n--
	at := about(h.Scope, h.Value)
	if left := slices.DeleteFunc(slices.Clone(v.byValue[at]), func(o *held) bool { return o == h }); len(left) > 0 {
		v.byValue[at] = left
	} else {
		delete(v.byValue, at)
	}
	v.changed(Change{&h.Decision, true})
}

func (v *View) changed(c Change) {
	if len(v.changes) == maxChanges {
		half := maxChanges / 2
		v.changes = append(v.changes[:0], v.changes[half:]...)
		v.first += uint64(half)
	}
	v.changes = append(v.changes, c)
}

// Restore puts back the decisions that Sweep has ended, unless there are newer ones.
func (v *View) Restore(ds []Decision) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, d := range ds {
		if _, i := v.of(d); i < 0 {
			v.put(&held{d, v.round})
		}
	}
}

// Sweep ends the decisions that have expired, and returns them.
func (v *View) Sweep(now time.Time) (ended []Decision) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for h := range v.all() {
		if !h.Active(now) {
			ended = append(ended, h.Decision)
			v.end(h)
		}
	}
	return ended
}

// Lookup returns the decisions in force about a value, longest-lasting first.
func (v *View) Lookup(scope, value string, now time.Time) (out []Decision) {
	v.mu.RLock()
	list := v.byValue[about(scope, value)]
	v.mu.RUnlock()
	for _, h := range list {
		if h.Active(now) {
			out = append(out, h.Decision)
		}
	}
	slices.SortFunc(out, func(a, b Decision) int { return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Rule, b.Rule)) })
	return out
}

// All returns the decisions in force, ordered by scope, value and rule, and the number of the last change.
func (v *View) All(now time.Time) (out []Decision, last uint64) {
	v.mu.RLock()
	for h := range v.all() {
		if h.Active(now) {
			out = append(out, h.Decision)
		}
	}
	last = v.first + uint64(len(v.changes)) - 1
	v.mu.RUnlock()
	slices.SortFunc(out, func(a, b Decision) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Rule, b.Rule))
	})
	return out, last
}

// Since returns the changes after the change with a number, and the number of the last change; ok is false if some of them have been forgotten.
func (v *View) Since(number uint64) (out []Change, last uint64, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	last = v.first + uint64(len(v.changes)) - 1
	if number+1 < v.first || number > last {
		return nil, last, false
	}
	return slices.Clone(v.changes[number+1-v.first:]), last, true
}

// Len returns the number of decisions in the view.
func (v *View) Len() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.n
}
