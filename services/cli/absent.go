package cli

import (
	"slices"
	"strings"
	"sync"
	"time"

	"spate/shared/activity"
	"spate/shared/revision"
	"spate/shared/rule"
	"spate/shared/terminal"
)

// absent watches the events of a file for the columns that its rules read: a name that is written wrongly is NULL in every event, and the rule silent.
type absent struct {
	mu     sync.Mutex
	paths  [][]string // of the columns that no event has had
	finder *activity.Finder
	events int64
	first  []byte
}

// columnsOf returns a watch for the columns that rules read, except the user and the time: an event without them is invalid.
func columnsOf(s *revision.Source) *absent {
	if s == nil {
		return &absent{}
	}
	set, err := s.Compile(nil)
	if err != nil {
		return &absent{} // whoever runs them says so
	}
	a := &absent{}
	for _, in := range set.Inputs {
		if !in.Time && in.Type.Kind != rule.Token {
			a.paths = append(a.paths, in.Path)
		}
	}
	a.finder = activity.NewFinder(a.paths)
	return a
}

// sent sees an event.
func (a *absent) sent(_ int32, value []byte, _ time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.paths) == 0 {
		return
	}
	found := make([]activity.Place, len(a.paths))
	if a.finder.Find(value, found) != activity.ReasonNone {
		return
	}
	if a.events++; a.first == nil {
		a.first = slices.Clone(value)
	}
	var left [][]string
	for i, p := range found {
		if p == (activity.Place{}) {
			left = append(left, a.paths[i])
		}
	}
	if len(left) < len(a.paths) {
		a.paths, a.finder = left, activity.NewFinder(left)
	}
}

// remark says which columns no event had.
func (a *absent) remark(e *env) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.paths) == 0 || a.events == 0 {
		return
	}
	names := make([]string, 0, len(a.paths))
	for _, p := range a.paths {
		names = append(names, strings.Join(p, "."))
	}
	slices.Sort(names)
	terminal.Fprintf(e.stderr, "spate: the rules read fields that no event has, so their values were always NULL: %s; the first event has %s\n", strings.Join(slices.Compact(names), ", "), activity.Members(a.first))
}
