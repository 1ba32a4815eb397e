// Package revision is the log of a pipeline's rules: which rules file was applied when, and for which windows. All services read it, so they cannot
// disagree. It is pure; package topic reads and writes it in a Kafka topic, package table in a DynamoDB table.
//
// # The boundary
//
// A revision is in force for the windows that begin at its boundary or later. The boundary is a time that no event can have before every router
// knows the revision:
//
//	append time of the revision ──── Margin ────► ──── max ahead ────► boundary
//	                                            │
//	                                            events that are appended from here on are judged only by routers that know it
//
// A router looks for revisions after it has fetched events and before it judges them, at least once in every half of the margin of the events'
// append times. The other half is for the clocks of brokers that differ, and for the time that a revision takes to become readable. An event's time is
// at most max ahead of its append time, so an event at the boundary or later is appended at the end of the margin or later.
//
// A requested boundary can be later. A revision that is appended in the meantime replaces one whose boundary is later than its own.
//
// Before anything was counted, a revision can have the beginning of time as its boundary. Those before it are then never in force.
package revision

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"spate/shared/rule"
	"spate/shared/window"
)

// Margin is the time between a revision's append time and that of the first event that it can be about.
const Margin = 30 * time.Second

// version is that of the records. Those of a newer one are not ignored: their rules are in force, too.
const version = 1

// maxBytes bounds a record, well below the limit of the topic.
const maxBytes = 3 << 20

// Source is a rules file as it was applied.
type Source struct {
	Text string            `json:"text"`
	Name string            `json:"name,omitempty"` // of its rule, if it has only one that has none
	Set  map[string]string `json:"set,omitempty"`  // values of parameters, by "rule.parameter"
}

// Record is an entry of the log.
type Record struct {
	Version  int   `json:"version"`
	Revision int64 `json:"revision"`
	Source
	// Beginning: it is in force for all windows, and those before it are for none. Otherwise FromMS is the earliest boundary that was asked for, 0 for none.
	Beginning bool  `json:"beginning,omitempty"`
	FromMS    int64 `json:"from_ms,omitempty"`
	// InsteadOf: this revision is about the same events as that one, because a program could not evaluate it. That one, and those that followed it,
	// are never in force. 0: it is instead of none.
	InsteadOf int64 `json:"instead_of,omitempty"`
	// Lateness and MaxAhead are settings of the stream that the boundary and the watermarks depend on, in milliseconds. They are those of all revisions
	// from the last one on that is in force from the beginning.
	LatenessMS int64  `json:"lateness_ms"`
	MaxAheadMS int64  `json:"max_ahead_ms"`
	Author     string `json:"author,omitempty"`
	Message    string `json:"message,omitempty"`
	Program    string `json:"program,omitempty"` // the version of spate that wrote it
}

// Encode returns the record as it is written.
func (r Record) Encode() ([]byte, error) {
	r.Version = version
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxBytes {
		err = fmt.Errorf("the rules take %d bytes as JSON, but the maximum is %d", len(b), maxBytes)
	}
	return b, err
}

// Compile compiles the rules file after those of earlier revisions.
func (s Source) Compile(inputs []rule.Input) (*rule.Set, error) {
	set, errs := rule.Compile(s.Text, rule.Options{Name: s.Name, Set: s.Set, Tables: []*rule.Table{rule.Activity()}, Inputs: inputs})
	if len(errs) > 0 {
		return nil, errors.New(strings.TrimSpace(errs[0].Format("rules", s.Text)))
	}
	if _, _, err := set.Stream(); err != nil {
		return nil, err
	}
	for _, r := range set.Rules {
		if r.Mode != rule.Off && r.Window.Kind == rule.Session {
			return nil, fmt.Errorf("rule %s: SESSION windows are not evaluated yet", r.Name)
		}
	}
	return set, nil
}

// Same reports whether two sources are the same file with the same parameters.
func (s Source) Same(o Source) bool {
	a, _ := json.Marshal(s) // maps of strings always can
	b, _ := json.Marshal(o)
	return bytes.Equal(a, b)
}

// Entry is a record that is, or was, in force.
type Entry struct {
	Record
	// AtMS is when it was appended, BoundaryMS when the first windows begin that it is in force for: 0 is the beginning of time.
	AtMS, BoundaryMS int64
	Set              *rule.Set
	// ReplacedBy is the revision that followed it and is in force from the same boundary on, or an earlier one, so that this one never is; 0 if there is none.
	ReplacedBy int64
	fromMS     int64 // append time that the margin begins at
}

// SinceMS is the append time of the first event that the revision can be about; 0 if it can be about all.
func (e Entry) SinceMS() int64 {
	if e.Beginning {
		return 0
	}
	return e.fromMS + Margin.Milliseconds()
}

// Ignored is a record that has no effect, and why.
type Ignored struct {
	AtMS  int64
	After int64 // the newest revision before it
	Why   string
}

// Log is what the records come to, in their order. Its zero value has none.
type Log struct {
	initial *rule.Set
	history rule.History
	all     []appended // all revisions, those included that are never in force
	entries []Entry
	first   int // the number of the entry that the history begins with
	ignored []Ignored
	unread  *Unreadable
}

// appended is what is known of a revision also by programs that cannot evaluate its rules, so that all of them count the same revisions.
type appended struct {
	atMS, fromMS        int64 // when it was appended, and the earliest boundary that was asked for
	latenessMS, aheadMS int64
	beginning, replaced bool // replaced: another one is in its place, and it never is in force
}

func (r Record) appended(atMS int64) appended {
	return appended{atMS, r.FromMS, r.LatenessMS, r.MaxAheadMS, r.Beginning, false}
}

// Unreadable is a revision whose rules this program cannot evaluate: what it, and those after it, are about must not be judged.
type Unreadable struct {
	Revision int64
	// SinceMS is the append time of the first event that it can be about.
	SinceMS int64
	Program string // the version of spate that wrote it, if that is known
	Err     error
}

// Error implements error.
func (u *Unreadable) Error() string {
	by := ""
	if u.Program != "" {
		by = fmt.Sprintf(" (it was written by spate %s)", u.Program)
	}
	return fmt.Sprintf("revision %d of the rules cannot be evaluated by this version of spate%s; upgrade spate, or replace the revision (spate rules rollback, or spate rules apply FILE, with --replace-unreadable): %v", u.Revision, by, u.Err)
}

// Unwrap returns the cause.
func (u *Unreadable) Unwrap() error { return u.Err }

// NewLog returns a log without records. The initial rules are in force until the boundary of the first.
func NewLog(initial *rule.Set) *Log {
	l := &Log{initial: initial}
	l.history.Add(0, initial, 0)
	return l
}

// Revision is the newest one; 0 if there is none.
func (l *Log) Revision() int64 { return int64(len(l.all)) }

// Plan is that of all revisions that can be read.
func (l *Log) Plan() *rule.Plan { return l.history.Plan() }

// Inputs are those that the next revision must be compiled with.
func (l *Log) Inputs() []rule.Input { return l.history.Inputs() }

// InForce are the rules of the newest revision.
func (l *Log) InForce() []*rule.Rule { return l.history.InForce() }

// Names are those of the rules in force, for people.
func (l *Log) Names() string {
	var names []string
	for _, r := range l.InForce() {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

// Boundary is when the first windows begin that the revision is in force for, for people.
func (e Entry) Boundary() string {
	if e.BoundaryMS == 0 {
		return "the beginning"
	}
	return time.UnixMilli(e.BoundaryMS).UTC().Format("2006-01-02T15:04:05.999Z07:00")
}

// Entries are the revisions, the oldest first.
func (l *Log) Entries() []Entry { return slices.Clone(l.entries) }

// First is the first revision that is, or was, in force: its settings are those of all that follow. ok is false if there is none.
func (l *Log) First() (e Entry, ok bool) {
	if len(l.entries) == 0 {
		return Entry{}, false
	}
	return l.entries[l.first], true
}

// Newest is the newest revision; ok is false if there is none.
func (l *Log) Newest() (e Entry, ok bool) {
	if n := len(l.entries); n > 0 {
		return l.entries[n-1], true
	}
	return Entry{}, false
}

// Ignored are the records without effect.
func (l *Log) Ignored() []Ignored { return slices.Clone(l.ignored) }

// Unreadable is the revision that cannot be evaluated, nil if all can.
func (l *Log) Unreadable() *Unreadable { return l.unread }

// Take takes the next record, which was appended at a time. One that is not a revision, or not the next one because another was first,
// has no effect, and the same is so for all that read it.
func (l *Log) Take(atMS int64, value []byte) {
	ignore := func(format string, args ...any) {
		l.ignored = append(l.ignored, Ignored{atMS, l.Revision(), fmt.Sprintf(format, args...)})
	}
	var r Record
	if err := json.Unmarshal(value, &r); err != nil || r.Version < 1 {
		ignore("it is not a revision of the rules")
		return
	}
	if next := l.Revision() + 1; r.Revision != next {
		ignore("it was written as revision %d, but the next revision was %d", r.Revision, next)
		return
	}
	if r.InsteadOf < 0 || r.InsteadOf >= r.Revision {
		ignore("it replaces revision %d, which is not an earlier revision", r.InsteadOf)
		return
	}
	if n := len(l.all); n > 0 {
		atMS = max(atMS, l.all[n-1].atMS) // an append time can go back when another broker leads
	}
	if err := l.keepsSettings(r); err != nil && r.Version <= version {
		ignore("%v", err)
		return
	}
	if l.unread != nil && (r.InsteadOf == 0 || r.InsteadOf > l.unread.Revision) {
		// One before it cannot be read, so nobody knows what its windows are.
		l.all = append(l.all, r.appended(atMS))
		return
	}
	e := Entry{Record: r, AtMS: atMS, fromMS: atMS}
	base, judged := l, false
	if r.InsteadOf > 0 {
		base, e.fromMS = l.before(r.InsteadOf), l.all[r.InsteadOf-1].atMS
		judged = len(base.entries) < len(l.entries)
	}
	var err error
	if r.Version > version {
		err = fmt.Errorf("its record has version %d, but this program reads versions up to %d", r.Version, version)
	} else {
		e.Set, err = r.Compile(base.inputsFor(r))
	}
	if err == nil {
		if err := base.keepsTime(e); err != nil {
			ignore("%v", err)
			return
		}
	}
	*l = *base
	l.all = append(l.all, r.appended(atMS))
	if err != nil {
		l.unread = &Unreadable{r.Revision, e.SinceMS(), r.Program, err}
		return
	}
	if !r.Beginning {
		e.BoundaryMS = max(1, r.FromMS, e.SinceMS()+r.MaxAheadMS)
		if r.InsteadOf > 0 { // it has the boundary of the one that it is instead of
			e.BoundaryMS = max(e.BoundaryMS, min(l.all[r.InsteadOf-1].fromMS, MaxFromMS))
		}
	}
	l.follow(e)
	if judged {
		l.history.StartOver() // this program may have judged events by what is not in force any more
	}
}

// follow puts the next revision in force from its boundary on.
func (l *Log) follow(e Entry) {
	if e.Beginning {
		l.history, l.first = rule.History{}, len(l.entries)
	} else {
		for i, o := range l.entries {
			if o.BoundaryMS >= e.BoundaryMS && o.ReplacedBy == 0 {
				l.entries[i].ReplacedBy = e.Revision
			}
		}
	}
	l.history.Add(e.Revision, e.Set, e.BoundaryMS)
	l.entries = append(l.entries, e)
}

// before returns the log as it is if a revision, and those that followed it, are never in force, because the next one is instead.
func (l *Log) before(revision int64) *Log {
	out := NewLog(l.initial)
	for _, e := range l.entries {
		if e.Revision < revision {
			e.ReplacedBy = 0
			out.follow(e)
		}
	}
	out.all, out.ignored = slices.Clone(l.all), slices.Clone(l.ignored)
	for n := revision; n <= l.Revision(); n++ {
		if out.all[n-1].replaced {
			continue
		}
		out.all[n-1].replaced = true
		out.ignored = append(out.ignored, Ignored{l.all[n-1].atMS, n - 1, fmt.Sprintf("it was revision %d, which is never in force: revision %d was applied instead", n, l.Revision()+1)})
	}
	return out
}

// maxAhead bounds the setting, and with it the boundary.
const maxAhead = 366 * 24 * time.Hour

// MaxFromMS is the last boundary that can be asked for: the last instant that RFC 3339 can write.
const MaxFromMS = 253_402_300_799_999

// keepsSettings returns what is wrong with the settings of a record: what is not possible, or what it changes and cannot. It does not depend on whether
// this program can evaluate any rules.
func (l *Log) keepsSettings(e Record) error {
	if e.LatenessMS < 0 || e.LatenessMS > window.MaxLateness {
		return fmt.Errorf("its lateness of %d ms is not between 0 and %d", e.LatenessMS, window.MaxLateness)
	}
	if e.MaxAheadMS < 0 || e.MaxAheadMS > maxAhead.Milliseconds() {
		return fmt.Errorf("its max-ahead of %d ms is not between 0 (any time) and %d", e.MaxAheadMS, maxAhead.Milliseconds())
	}
	if e.FromMS > MaxFromMS {
		return fmt.Errorf("its boundary of %d ms is after the year 9999", e.FromMS)
	}
	if e.Beginning {
		return nil
	}
	before := l.all
	if e.InsteadOf > 0 {
		before = before[:e.InsteadOf-1]
	}
	var first *appended
	for i, a := range before {
		if !a.replaced && (first == nil || a.beginning) {
			first = &before[i]
		}
	}
	switch {
	case first == nil:
	case first.latenessMS != e.LatenessMS:
		return fmt.Errorf("its lateness is %v, but that of the rules in force is %v, and the lateness cannot change while the pipeline runs", ms(e.LatenessMS), ms(first.latenessMS))
	case first.aheadMS != e.MaxAheadMS:
		return fmt.Errorf("its max-ahead is %v, but that of the rules in force is %v, and max-ahead cannot change while the pipeline runs", ms(e.MaxAheadMS), ms(first.aheadMS))
	}
	return nil
}

// keepsTime returns an error if the events of a revision have their time in another column than before.
func (l *Log) keepsTime(e Entry) error {
	first, ok := l.First()
	if !ok || e.Beginning {
		return nil
	}
	builtIn := rule.Activity()
	own := builtIn.Columns[builtIn.Time].Name
	_, clock, _ := first.Set.Stream() // both were compiled
	_, now, _ := e.Set.Stream()
	switch {
	case cmp.Or(now, own) == cmp.Or(clock, own):
		return nil
	case clock == "":
		return fmt.Errorf("it expects the event time in %s, but the rules in force read the built-in table; name the time column %s, which then stands for the field from which the pipeline reads the event time", now, own)
	}
	return fmt.Errorf("it expects the event time in %s, but the rules in force expect it in %s", cmp.Or(now, own), clock)
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// Check reports why a record would have no effect as the next one, or could not be read.
func (l *Log) Check(r Record) error {
	settings := l.keepsSettings
	switch {
	case r.InsteadOf > 0 && r.InsteadOf <= l.Revision():
		l = l.before(r.InsteadOf)
	case l.unread != nil:
		return l.unread
	}
	if err := settings(r); err != nil {
		return err
	}
	set, err := r.Compile(l.inputsFor(r))
	if err == nil {
		err = l.keepsTime(Entry{Record: r, Set: set})
	}
	return err
}

// ErrOvertaken means that another revision was written at the same time, and came first.
var ErrOvertaken = errors.New("another revision was applied at the same time")

// ErrLate means that a revision was written, but too late for its boundary: those who judge events may have judged some without it.
var ErrLate = errors.New("it was written too late")

// Written returns what has become of a record that was written as the next one, once the log is read again. [ErrOvertaken]: another one was first.
func (l *Log) Written(r Record) (Entry, error) {
	for _, e := range l.entries {
		if e.Revision == r.Revision && e.Same(r.Source) && e.Author == r.Author && e.Message == r.Message {
			return e, nil
		}
	}
	if l.unread != nil {
		return Entry{}, l.unread
	}
	return Entry{}, fmt.Errorf("revision %d was not applied: %w; compare your rules with it (spate rules diff), then apply them again", r.Revision, ErrOvertaken)
}

// With returns the log as it will be once the record is appended as the next one, at a time. The log itself stays as it is.
func (l *Log) With(atMS int64, r Record) (*Log, error) {
	r.Revision = l.Revision() + 1
	if err := l.Check(r); err != nil {
		return nil, err
	}
	value, err := r.Encode()
	if err != nil {
		return nil, err
	}
	next := *l
	next.all, next.entries, next.ignored = slices.Clone(l.all), slices.Clone(l.entries), slices.Clone(l.ignored)
	next.Take(atMS, value)
	return &next, nil
}

// inputsFor are those that a record's rules are compiled with.
func (l *Log) inputsFor(r Record) []rule.Input {
	if r.Beginning {
		return nil
	}
	return l.Inputs()
}
