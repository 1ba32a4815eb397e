package alert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxRecord bounds a record, in bytes, as brokers and streams do by default.
	maxRecord = 1 << 20
	// maxUser bounds a user token, in bytes, and maxWindow a window, in milliseconds. They are those of the packages activity and window,
	// which this one does not import: the reference reads alerts and must not reach the engine.
	maxUser   = 256
	maxWindow = 7 * 24 * 3600 * 1000
	// maxQuiet bounds how far apart the windows of an incident are, in milliseconds, as package rule does.
	maxQuiet = 24 * 3600 * 1000
	// maxDecision bounds how long a decision holds, in milliseconds.
	maxDecision = 31 * 24 * 3600 * 1000
	// maxName bounds the names of topics, streams and shards, maxSequence the digits of a sequence number: Kafka's and Amazon's bounds.
	maxName     = 249
	maxSequence = 129
)

// Parse decodes a record and refuses whatever spate cannot have written, so that a record which others wrote takes the place of no alert:
// its id is that of its own rule, key and window. Without a key, members that it does not know are ignored, for later versions may add some; of
// members with the same name the last one counts, and what is checked is what is returned. With a key, they are columns, and no name may come
// twice. The error names the member that is wrong.
//
// Parse cannot tell an invented count from a true one. Who may write the topic can lie about it.
func Parse(value []byte) (Record, error) {
	if len(value) > maxRecord {
		return Record{}, fmt.Errorf("decode alert: record is %d bytes long; the maximum is %d", len(value), maxRecord)
	}
	var r Record
	err := errNoKey
	if bytes.Contains(value, []byte(`"key"`)) { // which is rare enough elsewhere
		r, err = parseRow(value)
	}
	if errors.Is(err, errNoKey) {
		r = Record{}
		err = json.Unmarshal(value, &r)
	}
	if err != nil {
		return Record{}, fmt.Errorf("decode alert: %.200s", err.Error()) // it may quote all of the value
	}
	for _, t := range r.times() {
		*t.at = t.at.UTC()
	}
	if err := r.Check(); err != nil {
		return Record{}, fmt.Errorf("check alert %.40q: %w", r.ID, err)
	}
	if r.User != "" && (!r.IsUser() || r.User != userText(r.UserID)) { // what earlier versions wrote has none
		return Record{}, fmt.Errorf("check alert %.40q: user: %.100q does not match user_id", r.ID, r.User)
	}
	r.User = ""
	return r, nil
}

type namedTime struct {
	name string
	at   *time.Time
}

func (r *Record) times() [4]namedTime {
	return [...]namedTime{
		{"window_start", &r.WindowStart}, {"window_end", &r.WindowEnd}, {"first_event_at", &r.FirstEventAt}, {"last_event_at", &r.LastEventAt},
	}
}

// Check returns what is wrong with the record: why Parse would refuse what Encode writes of it, if its times are UTC and its user is JSON.
func (r *Record) Check() error {
	switch {
	case r.State.Rank() == 0:
		return fmt.Errorf("state: %.40q is not one of opened, raised, closed", r.State)
	case r.Severity != Warning && r.Severity != Critical:
		return fmt.Errorf("severity: %.40q is neither warning nor critical", r.Severity)
	case r.RuleRevision < 0:
		return fmt.Errorf("rule_revision: %d is negative", r.RuleRevision)
	case r.Mode != "" && r.Mode != Shadow:
		return fmt.Errorf("mode: %.40q is not %s", r.Mode, Shadow)
	case r.Decision != nil && (!IsRule(r.Decision.Level) || r.Decision.ForMS < 1000 || r.Decision.ForMS > maxDecision):
		return fmt.Errorf("decision: %.40q for %d ms is invalid: use a level, such as challenge, and 1000 to %d ms", r.Decision.Level, r.Decision.ForMS, int64(maxDecision))
	case r.QuietMS < 0 || r.QuietMS > maxQuiet:
		return fmt.Errorf("quiet_ms: %d is not between 0 and %d", r.QuietMS, int64(maxQuiet))
	}
	for _, of := range [...]struct{ name, text string }{{"summary", r.Summary}, {"runbook", r.Runbook}} {
		if len(of.text) > maxText || !utf8.ValidString(of.text) || strings.ContainsFunc(of.text, unicode.IsControl) {
			return fmt.Errorf("%s: %.100q is longer than %d bytes, or contains control characters or bytes that are not UTF-8", of.name, of.text, maxText)
		}
	}
	if err := r.checkContent(); err != nil {
		return err
	}
	for _, t := range r.times() {
		if y := t.at.Year(); t.at.Nanosecond()%int(time.Millisecond) != 0 || y < 0 || y > 9999 {
			return fmt.Errorf("%s: %v is not a time in whole milliseconds between the years 0 and 9999", t.name, *t.at)
		}
	}
	start, size := r.WindowStart.UnixMilli(), r.WindowEnd.UnixMilli()-r.WindowStart.UnixMilli()
	switch {
	case size < 1 || size > maxWindow:
		return fmt.Errorf("window_end: the window from %v to %v is not between 1 ms and 7 days long", r.WindowStart, r.WindowEnd)
	case r.Key == nil && start%size != 0: // before 1970 too: what is aligned has no remainder, of either sign
		return fmt.Errorf("window_start: %v is not a multiple of the window's size, %d ms", r.WindowStart, size)
	case r.FirstEventAt.Before(r.WindowStart) || !r.FirstEventAt.Before(r.WindowEnd):
		return fmt.Errorf("first_event_at: %v is outside the window", r.FirstEventAt)
	case r.LastEventAt.Before(r.FirstEventAt) || !r.LastEventAt.Before(r.WindowEnd):
		return fmt.Errorf("last_event_at: %v is before the first event or outside the window", r.LastEventAt)
	}
	if r.ID != ID(r.Rule, string(r.UserID), start, size) {
		return errors.New("id: does not match the rule, the user or key, and the window")
	}
	if err := r.Evidence.check(); err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	return nil
}

// checkContent returns what is wrong with what the record says of its rule, key and count.
func (r *Record) checkContent() error {
	if r.Key != nil {
		return r.CheckRow()
	}
	switch {
	case r.Rule != Burst:
		return fmt.Errorf("rule: %.40q is not %q, so a key is required", r.Rule, Burst)
	case !canonical(r.UserID):
		return fmt.Errorf("user_id: %.100q is invalid: it must be a number or a string in canonical form, and at most %d bytes long", r.UserID, maxUser)
	case r.Threshold < 1:
		return fmt.Errorf("threshold: %d is below 1", r.Threshold)
	case r.Count <= r.Threshold:
		return fmt.Errorf("num_actions_per_watermark: %d does not exceed the threshold %d", r.Count, r.Threshold)
	case r.Columns != nil || r.AtLeast:
		return errors.New("key: is missing, but the record has columns or at_least")
	}
	return nil
}

// canonical reports whether a JSON value is a user in the one form that package activity gives it: a number as it was written, or a
// string that is not empty and is as encoding/json writes it without HTML escapes. A string that decoding would change, as one that is no
// valid UTF-8, is not.
func canonical(token json.RawMessage) bool {
	switch {
	case len(token) == 0 || len(token) > maxUser || string(token) == `""`:
		return false
	case token[0] != '"':
		return token[0] == '-' || token[0] >= '0' && token[0] <= '9' // it is JSON, so it is a number
	}
	var text string
	if err := json.Unmarshal(token, &text); err != nil {
		return false
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	return enc.Encode(text) == nil && bytes.Equal(bytes.TrimSuffix(b.Bytes(), []byte("\n")), token)
}

// check returns what is wrong with the evidence. There is some: nothing is counted that is nowhere in the log.
func (e Evidence) check() error {
	switch {
	case e.Topic == "" && e.Stream == "" || e.Topic != "" && e.Stream != "":
		return errors.New("must name either a topic or a stream")
	case !isName(e.Topic + e.Stream):
		return fmt.Errorf("%.40q is not a valid topic or stream name", e.Topic+e.Stream)
	case e.Topic != "" && (len(e.Partitions) == 0 || len(e.Shards) > 0), e.Stream != "" && (len(e.Shards) == 0 || len(e.Partitions) > 0):
		return errors.New("a topic must have partitions, and a stream must have shards")
	}
	for p, o := range e.Partitions {
		n, err := strconv.ParseInt(p, 10, 32)
		switch {
		case err != nil || n < 0 || strconv.FormatInt(n, 10) != p:
			return fmt.Errorf("partitions: %.40q is not a partition number", p)
		case o.First < 0 || o.Last < o.First:
			return fmt.Errorf("partitions: %s: offsets %d to %d are not a valid range", p, o.First, o.Last)
		}
	}
	for shard, s := range e.Shards {
		switch {
		case !isName(shard):
			return fmt.Errorf("shards: %.40q is not a valid shard name", shard)
		case !isSequence(s.First) || !isSequence(s.Last) || len(s.Last) < len(s.First) || len(s.Last) == len(s.First) && s.Last < s.First:
			return fmt.Errorf("shards: %s: sequence numbers %.140q to %.140q are not a valid range", shard, s.First, s.Last)
		}
	}
	return nil
}

// isName reports whether a text is made of what names of topics, streams and shards are made of.
func isName(text string) bool {
	const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return text != "" && len(text) <= maxName && strings.Trim(text, characters) == ""
}

func isSequence(text string) bool {
	return text != "" && len(text) <= maxSequence && strings.Trim(text, "0123456789") == ""
}
