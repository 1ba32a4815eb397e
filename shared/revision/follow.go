package revision

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"spate/shared/window"
)

// Follower is for whoever judges events: it reads the log, so that no event is judged without the rules that it can be about.
type Follower struct {
	*Log
	// Look reads everything that was written before it is called, and reports whether there is a new revision.
	Look func(context.Context) (changed bool, err error)
	// Own are the settings of the service that follows, Service its name for people.
	Own     Settings
	Service string
	// Adopt makes its owner judge by all rules of the log, and by the settings that were applied with them.
	Adopt func(Settings) error
	// Late is called for a revision that can be about events which were judged without it, after that is reported.
	Late func(Entry)
	// Report is where new rules are reported.
	Report *slog.Logger

	// Now is the clock that the time since the last look is measured by; time.Now if nil.
	Now func() time.Time

	looked  time.Time // zero: not yet
	covered int64     // if looked: the append time before which no event can be about rules that are not known
}

// now is the time by the follower's clock.
func (f *Follower) now() time.Time {
	if f.Now == nil {
		return time.Now()
	}
	return f.Now()
}

// Learn reads the rules before anything is judged.
func (f *Follower) Learn(ctx context.Context) error {
	if _, err := f.Look(ctx); err != nil {
		return err
	}
	return f.adopt()
}

func (f *Follower) adopt() error {
	set, err := f.Settle(f.Own, f.Service)
	if err != nil {
		return err
	}
	if err := f.Adopt(set); err != nil {
		return err
	}
	if e, ok := f.Newest(); ok {
		f.Report.Info("rules known", "revision", e.Revision, "from", e.Boundary(), "rules", f.Names())
	}
	return nil
}

// Consult makes sure, before events are judged, that all rules are known which they can be about: it looks for newer ones, unless the last look
// covers the time at which the newest of the events was appended. It also looks if the last look is half the margin old: when a broker's clock is set
// back, append times say nothing for a while. An error of type [*Unreadable] is that of a revision which cannot be evaluated and
// which the events can be about; whether another one is in its place is looked up each time.
func (f *Follower) Consult(ctx context.Context, newestMS int64) error {
	if newestMS == window.NoTime {
		return nil
	}
	blocked := func() bool { u := f.Unreadable(); return u != nil && newestMS >= u.SinceMS }
	if now := f.now(); f.looked.IsZero() || newestMS >= f.covered || now.Sub(f.looked) >= Margin/2 || blocked() {
		if err := f.refresh(ctx); err != nil {
			return err
		}
		f.looked, f.covered = now, newestMS+Margin.Milliseconds()/2
	}
	if blocked() {
		return f.Unreadable()
	}
	return nil
}

// refresh looks, and adopts what is new.
func (f *Follower) refresh(ctx context.Context) error {
	known, origin, judged := f.Revision(), f.Plan().Origin, f.covered
	if u := f.Unreadable(); u != nil {
		judged = min(judged, u.SinceMS)
	}
	changed, err := f.Look(ctx)
	if err != nil || !changed {
		return err
	}
	for _, e := range f.entries {
		if !f.looked.IsZero() && e.Revision > known && e.SinceMS() < judged {
			f.Report.Error(TooLate, "revision", e.Revision, "from", e.Boundary(), "appended", time.UnixMilli(e.AtMS).UTC())
			f.Late(e)
		}
	}
	if now := f.Plan().Origin; now != origin {
		return fmt.Errorf("revision %d of the rules is in force from the beginning; starting over with it", now)
	}
	return f.adopt()
}

// TooLate is how a revision is reported that [Follower.Late] is called for.
const TooLate = "a revision of the rules became readable too late: alerts from its rules in the windows right after its boundary may be missing or have counts that are too low"

// Settings are those of the stream that the boundary and the watermarks depend on.
type Settings struct {
	Lateness, MaxAhead time.Duration
	Time               []string // names of the field that has an event's time
}

// Settle returns the settings to judge events by: those that were applied with the rules. own are those of a service, whose name is for people.
func (l *Log) Settle(own Settings, service string) (Settings, error) {
	first, ok := l.First()
	if !ok {
		return own, nil
	}
	lateness, ahead := ms(first.LatenessMS), ms(first.MaxAheadMS)
	_, clock, err := first.Set.Stream()
	if err != nil {
		return own, err
	}
	known := clock == "" || slices.Contains(own.Time, clock)
	if !first.Beginning {
		// Events were judged with the settings of the service before the first revision.
		if lateness != own.Lateness || ahead != own.MaxAhead {
			return own, fmt.Errorf("the rules were applied with lateness %v and max-ahead %v, but this %s has %v and %v: set SPATE_LATENESS and SPATE_MAX_AHEAD to the first two values", lateness, ahead, service, own.Lateness, own.MaxAhead)
		}
		if !known {
			return own, fmt.Errorf("the rules expect the event time in %s, but this %s reads it from %s: set SPATE_TIME_FIELD to %[1]s", clock, service, strings.Join(own.Time, ","))
		}
		return own, nil
	}
	own.Lateness, own.MaxAhead = lateness, ahead
	if !known {
		own.Time = []string{clock}
	}
	return own, nil
}
