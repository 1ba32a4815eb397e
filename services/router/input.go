package router

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/ops"
	"spate/shared/window"
)

const (
	// tellInputEvery is how often the log says what is wrong with the input.
	tellInputEvery = 5 * time.Second
	// toldShare is the share of events, one in so many, from which on they are reported.
	toldShare = 100
	// maxKept bounds a value that is explained.
	maxKept = 64 << 10
	// implausible is how far an event's time may be from when the log took it before it is reported.
	implausible = 365 * 24 * time.Hour
)

// input is what has become of events since the log was told last: which share of them was not counted, and why. A producer that sends something else
// than is expected shows here within seconds, not when somebody looks for an alert.
type input struct {
	began   time.Time
	in      int64
	ids     int64                 // that have an id
	fates   map[string]*uncounted // by reason
	skipped map[activity.Reason]int64
	far     int64 // counted, and implausible
	farAt   int64 // the time of one of them
}

// uncounted are events that are not counted for the same reason.
type uncounted struct {
	events       int64
	why, example string // of the first of them
}

func newInput() input {
	return input{began: time.Now(), fates: make(map[string]*uncounted), skipped: make(map[activity.Reason]int64)}
}

// add takes an event that is not counted; describe says why, and what it looks like.
func (n *input) add(reason string, describe func() (why, example string)) {
	u := n.fates[reason]
	if u == nil {
		u = &uncounted{}
		u.why, u.example = describe()
		n.fates[reason] = u
	}
	u.events++
}

// skip takes a record that is not meant as an event.
func (n *input) skip(reason activity.Reason) { n.skipped[reason]++ }

// describe says why a record is not an event, if it is not, and what it looks like.
func (s *session) describe(r *kgo.Record, reason activity.Reason) (why, example string) {
	if len(r.Value) > maxKept {
		return "", ""
	}
	if reason != activity.ReasonNone {
		why = " - " + s.events.Explain(r.Value, r.Headers, reason)
	}
	if len(r.Value) > 0 {
		example = ". For example: " + activity.Example(s.events.Text(r.Value))
	}
	return why, example
}

// tell says every few seconds what is wrong, in the log and beside what /readyz says.
func (n *input) tell(now time.Time, id, topic string, status *ops.Status, log *slog.Logger) {
	if now.Sub(n.began) < tellInputEvery {
		return
	}
	text, examples := n.describe(id)
	status.Note("input", strings.Join(text, "; ")) // without the examples: everybody may ask for it
	for i, t := range text {
		log.Warn(t+examples[i], "topic", topic)
	}
	*n = newInput()
	n.began = now
}

// describe, where the path of ids is id or empty, says for each reason that matters which share of the events it is, and what to do, and gives an example of each.
func (n *input) describe(id string) (text, examples []string) {
	say := func(example, format string, args ...any) {
		text = append(text, fmt.Sprintf(format, args...))
		examples = append(examples, example)
	}
	var reasons []string
	for r, u := range n.fates {
		if u.events*toldShare >= n.in {
			reasons = append(reasons, r)
		}
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(cmp.Compare(n.fates[b].events, n.fates[a].events), cmp.Compare(a, b))
	})
	for _, r := range reasons {
		u := n.fates[r]
		switch r {
		case window.LateWatermark.String():
			say(u.example, "%d of %d events are late: they are more than SPATE_LATENESS behind other events in their partition, and their windows are closed; "+
				"if these are real events, raise SPATE_LATENESS", u.events, n.in)
		case window.LateIdle.String():
			say(u.example, "%d of %d events are late: their partition was silent for longer than SPATE_IDLE_TIMEOUT and no longer held windows open; "+
				"if such pauses are normal, raise SPATE_IDLE_TIMEOUT", u.events, n.in)
		default:
			say(u.example, "%d of %d events are invalid: %s%s; invalid events are not counted later, so correct the setting and send them again; to start over, run spate up --reset (on your own Kafka, see docs/operations.md)", u.events, n.in, r, u.why)
		}
	}
	if n.far > 0 && n.far*toldShare >= n.in {
		say("", "%d of %d events have times more than a year away from when they were written, for example %s: is SPATE_TIME_FORMAT correct? A replay of old events looks the same",
			n.far, n.in, time.UnixMilli(n.farAt).UTC().Format(time.RFC3339))
	}
	if id != "" && n.in > 0 && n.ids == 0 {
		say("", "none of %d events has %q, so events that are sent twice count twice: is SPATE_DEDUPE_FIELD correct?", n.in, id)
	}
	if snapshots := n.skipped[activity.ReasonSnapshot]; snapshots > 0 {
		say("", "%d snapshot rows were skipped: they have no time of their own, and with the time of the snapshot, they would all form one burst; set SPATE_TIME_FIELD to a column of the row", snapshots)
	}
	if n.in == 0 && n.skipped[activity.ReasonNoChange] > 0 {
		say("", "all %d records were skipped: none of them is a row change, as SPATE_FORMAT=debezium expects", n.skipped[activity.ReasonNoChange])
	}
	return text, examples
}
