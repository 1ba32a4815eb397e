package explainer

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/evidence"
	"spate/shared/format"
)

// Fate is what became of an event.
type Fate string

// The fates. An event whose fate is counted is filtered if WHERE does not let it pass, and repeated if it has the id of one that counts.
const (
	Counted  Fate = "counted"
	Filtered Fate = "filtered"
	Repeated Fate = "repeated"
	Late     Fate = "late"    // its window was closed
	Idle     Fate = "idle"    // its window was closed, because its partition had been silent
	Invalid  Fate = "invalid" // it is not an event
	Waiting  Fate = "waiting" // it is not routed yet
)

// Event is a record of the log that may be about a key.
type Event struct {
	evidence.Place
	At       time.Time       `json:"at,omitzero"` // event time; zero if it is invalid
	Fate     Fate            `json:"fate"`
	Reason   string          `json:"reason,omitempty"` // why it is invalid
	LateByMS int64           `json:"late_by_ms,omitempty"`
	Value    json.RawMessage `json:"value"`

	text   []byte
	fields []byte // what of it the fields of the rule are read from
	user   []byte
	id     string
	// missed is the start of the window that a late event missed.
	missed int64
}

// Facts are what a log has about a key in some time.
type Facts struct {
	// Events are those that may be the key's, in the order of their times.
	Events []Event
	// Watermark is up to which event time windows are closed; zero if it is not known.
	Watermark time.Time
	// Read is how many records were read.
	Read int64
	// Cut reports that there are more than [maxEvents] or [maxBytes].
	Cut bool
	// Notes say what could not be read, and Missing that it was events.
	Notes   []string
	Missing bool

	bytes int
}

// between returns what there is of a part of the time. An event that is invalid because it is ahead may have been meant for it.
func (f *Facts) between(from, until time.Time) *Facts {
	out := *f
	out.Events = slices.DeleteFunc(slices.Clone(f.Events), func(e Event) bool {
		return !e.At.IsZero() && (e.At.Before(from) || e.Fate != Invalid && !e.At.Before(until))
	})
	return &out
}

// maxEvents is how many events of a key are kept, and maxBytes how long they are together.
const maxEvents, maxBytes = 200_000, 256 << 20

// about decides which records may be about a key, before they are decoded.
type about struct {
	texts [][]byte // each of which its JSON contains
}

// maybe reports whether a JSON text, or a header, may be about the key.
func (a about) maybe(text []byte, headers []kgo.RecordHeader) bool {
	return bytes.IndexByte(text, '\\') >= 0 || a.has(text, headers) // an escape can hide anything
}

// has reports whether a record contains the key's texts as they are.
func (a about) has(text []byte, headers []kgo.RecordHeader) bool {
	return !slices.ContainsFunc(a.texts, func(t []byte) bool {
		return !contains(text, t) && !slices.ContainsFunc(headers, func(h kgo.RecordHeader) bool { return contains(h.Value, t) })
	})
}

// contains reports whether a text has a word. A number may have zeros in front of it.
func contains(text, word []byte) bool {
	part := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
	}
	for from := 0; ; {
		i := bytes.Index(text[from:], word)
		if i < 0 {
			return false
		}
		at := from + i
		end := at + len(word)
		from = at + 1
		if word[0] >= '0' && word[0] <= '9' {
			for at > 0 && text[at-1] == '0' {
				at--
			}
		}
		if (at == 0 || !part(text[at-1]) || !part(word[0])) && (end == len(text) || !part(text[end]) || !part(word[len(word)-1])) {
			return true
		}
	}
}

// picker takes the records that may be a key's.
type picker struct {
	events *format.Reader
	about  about
	from   int64 // event time, milliseconds; both are 0 if all times are wanted
	until  int64
	facts  *Facts
}

// take looks at a record of the topic of events.
func (p *picker) take(ctx context.Context, at evidence.Place, value []byte, headers []kgo.RecordHeader) error {
	p.facts.Read++
	if len(value) > 0 && value[0] == '{' && !p.about.maybe(value, headers) {
		return nil
	}
	mark, reason, err := p.events.Mark(ctx, value, headers)
	if err != nil {
		return err
	}
	text := p.events.Text(value)
	if !p.about.maybe(text, headers) {
		return nil
	}
	if reason == activity.ReasonNone && p.until > 0 && (mark.TimeMS < p.from || mark.TimeMS >= p.until) {
		return nil
	}
	if len(p.facts.Events) == maxEvents || p.facts.bytes+len(text) > maxBytes {
		p.facts.Cut = true
		return nil
	}
	out := Event{Place: at.Clone(), Fate: Counted, text: bytes.Clone(text), user: bytes.Clone(mark.User), id: string(mark.ID)}
	if reason != activity.ReasonNone {
		out.Fate, out.Reason = Invalid, string(reason)
	} else {
		out.At = time.UnixMilli(mark.TimeMS).UTC()
	}
	out.fields = p.events.Inside(out.text, headers)
	if out.Fate == Invalid && (len(p.about.texts) == 0 || !p.about.has(text, headers)) {
		return nil // nobody knows whose it is
	}
	p.facts.bytes += len(text)
	p.facts.Events = append(p.facts.Events, out)
	return nil
}

// written returns the event with its value as JSON: not every record is.
func (e Event) written() Event {
	if e.Value = e.text; !json.Valid(e.text) {
		e.Value = activity.AppendString(nil, e.text)
	}
	return e
}

// sort orders the events by their times and places, those without a time at the end.
func (f *Facts) sort() {
	slices.SortStableFunc(f.Events, func(a, b Event) int {
		switch {
		case a.At.IsZero() != b.At.IsZero():
			if a.At.IsZero() {
				return 1
			}
			return -1
		case !a.At.Equal(b.At):
			return a.At.Compare(b.At)
		}
		return a.Place.Compare(b.Place)
	})
}
