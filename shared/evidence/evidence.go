// Package evidence reads the events behind an alert from the log: those of its user in its window, between the positions that the alert
// records. If some of them cannot be read, it reports this as a note, not an error, so that partial results are still shown.
//
// Storing alerts (shared/store) and displaying events (services/cli) are left to other packages.
package evidence

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
)

const (
	reachTime = 5 * time.Second  // for the broker to answer
	readTime  = 30 * time.Second // for all events
)

var (
	errReach = fmt.Errorf("no response within %v", reachTime)
	errRead  = fmt.Errorf("reading took longer than %v", readTime)
)

// Event is one event of the log.
type Event struct {
	Place
	At    time.Time       `json:"at"` // event time
	Value json.RawMessage `json:"value"`
}

// Place is where an event is in its log: a topic of Kafka, or a stream of Kinesis.
type Place struct {
	Partition *int32 `json:"partition,omitempty"`
	Offset    *int64 `json:"offset,omitempty"`
	Shard     string `json:"shard_id,omitempty"`
	Sequence  string `json:"sequence_number,omitempty"`
}

func (p Place) String() string {
	if p.Shard != "" {
		return p.Shard + " " + p.Sequence
	}
	return fmt.Sprintf("partition %d offset %d", *p.Partition, *p.Offset)
}

// Clone returns a place that can be kept.
func (p Place) Clone() Place {
	if p.Partition != nil {
		partition, offset := *p.Partition, *p.Offset
		p.Partition, p.Offset = &partition, &offset
	}
	return p
}

// Compare orders places by partition, then by how far they are in it.
func (p Place) Compare(o Place) int {
	switch {
	case p.Shard != o.Shard:
		return cmp.Compare(p.Shard, o.Shard)
	case p.Shard != "":
		return cmp.Or(cmp.Compare(len(p.Sequence), len(o.Sequence)), cmp.Compare(p.Sequence, o.Sequence))
	}
	return cmp.Or(cmp.Compare(*p.Partition, *o.Partition), cmp.Compare(*p.Offset, *o.Offset))
}

// before orders events by time, then by place.
func (e Event) before(other Event) bool {
	return cmp.Or(e.At.Compare(other.At), e.Place.Compare(other.Place)) < 0
}

// Found is what the log has of an alert.
type Found struct {
	// Events are the first ones by event time, as many as were asked for; nil if none could be read.
	Events []Event
	// More is how many there are beside them.
	More int
	// Fields are what all of them say, by member: the first [MaxFields], and FieldsMore if there are others.
	Fields     []Field
	FieldsMore bool
	// Note says why events are missing.
	Note string
	// Guessed are the fields of user and time with which they were found, if those that were given find none.
	Guessed *activity.Fields
}

// Count is how many events were found.
func (f *Found) Count() int { return len(f.Events) + f.More }

func (f *Found) note(format string, args ...any) {
	if f.Note != "" {
		f.Note += "; "
	}
	f.Note += fmt.Sprintf(format, args...)
}

// source is a log: it reads every record between the places that the alert names, and hands over those that may be events.
type source func(ctx context.Context, f *Found, take Take) error

// Take is handed a record. It keeps copies only: each part of a record keeps the whole batch in memory. An error ends the reading.
type Take func(ctx context.Context, at Place, value []byte, headers []kgo.RecordHeader) error

// search reads the events of an alert, at most so many of them, from a log. If the fields of cfg find none, it looks for the fields that do.
func search(ctx context.Context, a alert.Record, cfg format.Config, most int, from source) *Found {
	ctx, cancel := context.WithTimeoutCause(ctx, readTime, errRead)
	defer cancel()
	found := read(ctx, a, cfg, most, from)
	if found.Events == nil {
		return found
	}
	if n := int64(found.Count()); n > 0 {
		if n > a.Count && a.State == alert.Closed {
			found.note("there are more events than the alert counted: events that were sent twice count once (SPATE_DEDUPE_FIELD), and late ones do not count")
		}
		return found
	}
	if fields := guess(ctx, a, cfg, from); fields != nil {
		cfg.Fields = *fields
		if other := read(ctx, a, cfg, most, from); other.Count() > 0 {
			other.Guessed = fields
			return other
		}
	}
	if found.Note == "" {
		found.note("no record at these offsets is an event by this user in this window: do SPATE_USER_FIELD, SPATE_TIME_FIELD, SPATE_TIME_FORMAT, SPATE_FORMAT and SPATE_SCHEMA_REGISTRY_URL match the router's settings?")
	}
	return found
}

// read is one pass over the log.
func read(ctx context.Context, a alert.Record, cfg format.Config, most int, from source) *Found {
	found := &Found{}
	events, err := format.New(cfg)
	if err != nil {
		found.note("%v", err)
		return found
	}
	start, end := a.WindowStart.UnixMilli(), a.WindowEnd.UnixMilli()
	var fields summary
	err = from(ctx, found, func(ctx context.Context, at Place, value []byte, headers []kgo.RecordHeader) error {
		mark, reason, err := events.Mark(ctx, value, headers)
		if err != nil {
			return err
		}
		if reason != activity.ReasonNone || !bytes.Equal(mark.User, a.UserID) || mark.TimeMS < start || mark.TimeMS >= end {
			return nil
		}
		text := events.Text(value)
		fields.add(text)
		e := Event{Place: at.Clone(), At: time.UnixMilli(mark.TimeMS).UTC(), Value: valid(text)}
		to := sort.Search(len(found.Events), func(i int) bool { return e.before(found.Events[i]) })
		found.Events = slices.Insert(found.Events, to, e)
		if len(found.Events) > most {
			found.Events = found.Events[:most]
			found.More++
		}
		return nil
	})
	if err != nil {
		if ctx.Err() != nil { // whatever the source made of that
			err = context.Cause(ctx)
		}
		found.note("some events were not read: %v", err)
	}
	found.Fields, found.FieldsMore = fields.fields(), fields.more
	return found
}

// valid returns a copy of text as JSON: not every record that was decoded can be written as JSON, and such a one becomes a string.
func valid(text []byte) json.RawMessage {
	if !json.Valid(text) {
		return activity.AppendString(nil, text)
	}
	return bytes.ToValidUTF8(text, []byte("\ufffd"))
}

// brief leaves out of an error of a connection what a client adds for its programmer.
func brief(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errReach
	}
	return err
}
