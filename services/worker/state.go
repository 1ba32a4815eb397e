package worker

import (
	"encoding/json"
	"errors"
	"fmt"

	"spate/shared/aws/horizon"
	"spate/shared/aws/stream"
	"spate/shared/window"
)

// errState: the state cannot be worked with; nobody but a person can mend that.
var errState = errors.New("state")

const stateVersion = 1

// state is what outlives a worker, as JSON in the item of the lease.
type state struct {
	Version int `json:"version"`
	// Horizon is what the alerter needs to know.
	horizon.Horizon
	// Pending: all windows up to this watermark are closed by the cut. It is Closed, unless a close is under way.
	Pending int64    `json:"pending"`
	Rule    settings `json:"rule"`
	// Revision is the newest one of the rules that was known.
	Revision int64            `json:"revision,omitempty"`
	Shards   map[string]place `json:"shards"`
	Tally    tally            `json:"tally"` // of all events up to the cut
	// Alerts is how many records of alerts were written, and SavedMS when the shards and the tally were so, by the worker's clock: people are shown them.
	Alerts  int64 `json:"alerts,omitempty"`
	SavedMS int64 `json:"saved_ms,omitempty"`
}

// settings are what Pending was decided with. If rules are in force from the beginning, the window and the thresholds of the settings are not.
type settings struct {
	Origin     int64  `json:"origin,omitempty"` // the revision that the rules begin with; 0 is the rule from the settings
	WindowMS   int64  `json:"window_ms"`
	LatenessMS int64  `json:"lateness_ms"`
	MaxAheadMS int64  `json:"max_ahead_ms"`
	Threshold  int64  `json:"threshold"`
	Critical   int64  `json:"critical"`
	Fields     string `json:"fields"`
	Dedupe     string `json:"dedupe,omitempty"`
}

// place is how far a shard has come.
type place struct {
	stream.Position // resume: windows that are open at Closed have no event before it
	// MaxTS is the highest event time before resume.
	MaxTS int64 `json:"max_ts"`
	// Cut is the last record that was read; empty is none since resume.
	Cut string `json:"cut,omitempty"`
	// Waits: its parents are not read to their ends yet.
	Waits bool `json:"waits,omitempty"`
	// Ended: it is closed, read to its end, and its children have taken over; it is kept for windows that are still open.
	Ended   bool     `json:"ended,omitempty"`
	Parents []string `json:"parents,omitempty"`
	Seen    *seen    `json:"seen,omitempty"` // nil: it was not read since the worker began
}

// seen is what a shard was like at the cut, for people.
type seen struct {
	Newest      int64 `json:"newest"` // the highest event time
	BehindMS    int64 `json:"behind_ms"`
	SilentSince int64 `json:"silent_since,omitempty"` // wall clock of its last event, milliseconds, if it holds no windows open; 0: it does
}

// tally accounts for every event: In = Counted + Late + Idle + Invalid + Repeated.
type tally struct {
	In       int64 `json:"in"`
	Counted  int64 `json:"counted"`
	Late     int64 `json:"late"`     // its shard's event time had passed the window by the lateness
	Idle     int64 `json:"idle"`     // the window was closed while the shard was silent
	Invalid  int64 `json:"invalid"`  // no event
	Repeated int64 `json:"repeated"` // counted already, by its identity
	Lost     int64 `json:"lost"`     // places where records were deleted before they were read
}

func (c Config) settings(origin int64) settings {
	out := settings{
		Origin: origin, WindowMS: c.Window.Milliseconds(), LatenessMS: c.Lateness.Milliseconds(), MaxAheadMS: c.MaxAhead.Milliseconds(),
		Threshold: c.Threshold, Critical: c.Critical, Fields: fmt.Sprint(c.Events.Fields.User, c.Events.Fields.Time, c.Events.Fields.TimeFormat, c.Events.Format), Dedupe: c.Events.ID,
	}
	if origin > 0 {
		out.WindowMS, out.Threshold, out.Critical = 0, 0, 0
	}
	return out
}

// firstState is that of a stream of which nothing was read.
func (c Config) firstState(shards []stream.Shard, origin int64) state {
	st := state{Version: stateVersion, Horizon: horizon.Horizon{Closed: window.NoTime}, Pending: window.NoTime, Rule: c.settings(origin), Shards: make(map[string]place)}
	var begin stream.Position // the oldest that there is; never the latest, which would be somewhere else after a crash
	if !c.From.IsZero() {
		begin.AtMS = c.From.UnixMilli()
	}
	for _, sh := range shards {
		st.Shards[sh.ID] = place{Position: begin, MaxTS: window.NoTime, Waits: len(sh.Parents) > 0, Parents: sh.Parents}
	}
	return st
}

func (s state) encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return b, nil
}

// parseState decodes a state and holds it against the settings. Rules that are in force from the beginning replace those that it was decided with.
func (c Config) parseState(b []byte, origin int64) (state, error) {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return state{}, fmt.Errorf("decode %w: %w", errState, err)
	}
	if s.Version != stateVersion {
		return state{}, fmt.Errorf("%w: it has version %d, but this program reads version %d", errState, s.Version, stateVersion)
	}
	if now := c.settings(origin); s.Rule != now && s.Rule.Origin == origin && s.Pending > s.Closed {
		// What is written again has to be what was written before.
		return state{}, fmt.Errorf("%w: windows are still being closed with different settings: %+v, now %+v; "+
			"start one worker with the old settings, stop it gracefully (SIGTERM), and then change the settings", errState, s.Rule, now)
	}
	s.Rule = c.settings(origin)
	return s, nil
}
