package router

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/ops"
	"spate/shared/window"
)

const (
	// tellInputEvery is how often the log says what is wrong with the input.
	tellInputEvery = 5 * time.Second
	// toldShare is the share of events, one in so many, from which on they are told of.
	toldShare = 100
	// maxKept bounds a value that is kept as an example.
	maxKept = 64 << 10
	// implausible is how far an event's time may be from when the log took it before it is told of.
	implausible = 365 * 24 * time.Hour
)

// input is what has become of events since the log was told last: which share of them was not counted, and why. A producer that sends something else
// than is expected shows here within seconds, not when somebody looks for an alert.
type input struct {
	began    time.Time
	in       int64
	fates    map[string]int64  // of what was not counted, by reason
	examples map[string][]byte // the first of each
	far      int64             // counted, and implausible
	farAt    int64             // the time of one of them
}

func newInput() input {
	return input{began: time.Now(), fates: make(map[string]int64), examples: make(map[string][]byte)}
}

// add takes an event that is not counted.
func (n *input) add(reason string, value []byte) {
	n.fates[reason]++
	if _, known := n.examples[reason]; !known && len(value) <= maxKept {
		n.examples[reason] = bytes.Clone(value)
	}
}

// tell says every few seconds what is wrong, in the log and beside what /readyz says.
func (n *input) tell(now time.Time, scanner *activity.Scanner, topic string, status *ops.Status, log *slog.Logger) {
	if now.Sub(n.began) < tellInputEvery {
		return
	}
	text, examples := n.describe(scanner)
	status.Note("input", strings.Join(text, "; ")) // without the examples: everybody may ask for it
	for i, t := range text {
		log.Warn(t+examples[i], "topic", topic)
	}
	*n = newInput()
	n.began = now
}

// describe says for each reason that matters which share of the events it is, and what to do, and gives an example of each.
func (n *input) describe(scanner *activity.Scanner) (text, examples []string) {
	say := func(reason, format string, args ...any) {
		text = append(text, fmt.Sprintf(format, args...))
		examples = append(examples, example(n.examples[reason]))
	}
	reasons := make([]string, 0, len(n.fates))
	for r, count := range n.fates {
		if count*toldShare >= n.in {
			reasons = append(reasons, r)
		}
	}
	slices.SortFunc(reasons, func(a, b string) int { return cmp.Or(cmp.Compare(n.fates[b], n.fates[a]), cmp.Compare(a, b)) })
	for _, r := range reasons {
		switch r {
		case window.LateWatermark.String():
			say(r, "%d of %d events are late: others of their partition are further in time by more than SPATE_LATENESS, and their windows are closed; "+
				"raise it if they are honest", n.fates[r], n.in)
		case window.LateIdle.String():
			say(r, "%d of %d events are late: their partition was silent for longer than SPATE_IDLE_TIMEOUT, and did not hold windows open any more; "+
				"raise it if that is usual", n.fates[r], n.in)
		default:
			why := r
			if v, ok := n.examples[r]; ok {
				why += " - " + scanner.Explain(v, activity.Reason(r))
			}
			say(r, "%d of %d events are invalid: %s", n.fates[r], n.in, why)
		}
	}
	if n.far > 0 && n.far*toldShare >= n.in {
		say("", "%d of %d events have times that are more than a year from when they were written, %s for example: is SPATE_TIME_FORMAT right? A replay of old events looks the same",
			n.far, n.in, time.UnixMilli(n.farAt).UTC().Format(time.RFC3339))
	}
	return text, examples
}

func example(value []byte) string {
	if len(value) == 0 {
		return ""
	}
	return ". For example: " + activity.Example(value)
}
