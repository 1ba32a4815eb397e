package decision

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// View holds the decisions in force that have been read so far. It is safe for concurrent use.
type View struct {
	mu      sync.RWMutex
	byKey   map[string]*held
	byValue map[string][]*held
	round   uint64 // in which reading of the topic a decision was last seen

	// changes are the last ones, for those who follow. The first has the number first.
	changes []Change
	first   uint64
}

type held struct {
	Decision
	round uint64
}

// Change is a decision that was made or prolonged, or has ended.
type Change struct {
	Decision Decision
	Ended    bool
}

// maxChanges bounds the changes that are remembered. Who was away for longer gets everything anew.
const maxChanges = 200_000

// NewView returns an empty view.
func NewView() *View {
	return &View{byKey: make(map[string]*held), byValue: make(map[string][]*held), first: 1}
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
	for _, h := range v.byKey {
		if h.round != v.round {
			v.end(h)
		}
	}
}

// Take applies a record of the topic.
func (v *View) Take(d Decision, end bool, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if end || !d.Active(now) {
		if before := v.byKey[string(d.Key())]; before != nil {
			v.end(before)
		}
		return
	}
	if v.put(&held{d, v.round}) {
		v.changed(Change{Decision: d})
	}
}

// put holds a decision, and reports whether it is new or another one than before.
func (v *View) put(h *held) bool {
	key, at := string(h.Key()), about(h.Scope, h.Value)
	before := v.byKey[key]
	v.byKey[key] = h
	if before == nil {
		v.byValue[at] = append(slices.Clip(v.byValue[at]), h)
		return true
	}
	// The list may be in use: it is replaced, not changed.
	list := slices.Clone(v.byValue[at])
	list[slices.Index(list, before)] = h
	v.byValue[at] = list
	return before.Decision != h.Decision // otherwise it was read again
}

func (v *View) end(h *held) {
	delete(v.byKey, string(h.Key()))
	at := about(h.Scope, h.Value)
	if left := slices.DeleteFunc(slices.Clone(v.byValue[at]), func(o *held) bool { return o == h }); len(left) > 0 {
		v.byValue[at] = left
	} else {
		delete(v.byValue, at)
	}
	v.changed(Change{h.Decision, true})
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
		if v.byKey[string(d.Key())] == nil {
			v.put(&held{d, v.round})
		}
	}
}

// Sweep ends the decisions that have expired, and returns them.
func (v *View) Sweep(now time.Time) (ended []Decision) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.byKey {
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
	for _, h := range v.byKey {
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
	return len(v.byKey)
}
