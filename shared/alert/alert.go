// Package alert defines the alert, the record that a rule's condition holds for one key, such as a user, in one window: its identity, states,
// severity, and its JSON form, which is the contract with all consumers of alerts.
package alert

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// State of an alert. It only moves forward.
type State string

const (
	// Opened: the rule's condition came to hold, as the window's count passed the threshold. The count is what was known then; it can only grow.
	Opened State = "opened"
	// Raised: an alert that was opened as a warning became critical before its window ended.
	Raised State = "raised"
	// Closed: the window has ended and its count is exact.
	Closed State = "closed"
)

// Rank orders states: a record of a lower or equal rank changes nothing. 0 means no state.
func (s State) Rank() int {
	switch s {
	case Opened:
		return 1
	case Raised:
		return 2
	case Closed:
		return 3
	}
	return 0
}

// States are all of them, in order.
func States() []State { return []State{Opened, Raised, Closed} }

// Severity of an alert.
type Severity string

// The severities; [SeverityOf] tells which one applies.
const (
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// SeverityOf grades a count that exceeds the rule's threshold: critical above critical, which the original set to 10.
func SeverityOf(count, critical int64) Severity {
	if count > critical {
		return Critical
	}
	return Warning
}

// Burst is the rule without a rules file: more than a threshold of events of one user in one tumbling window.
const Burst = "burst"

// Shadow is the mode of an alert that is stored, and that nobody is notified of.
const Shadow = "shadow"

// ID identifies the alert of a key in the window of the given size that starts at startMS. It depends on nothing else, so every
// run over the same events gives the same one: it is the primary key of every store and the webhook-id. key is the canonical JSON
// token of a user, or of the key as Record.UserID has it: the number 5 and the string "5" are two users.
func ID(rule string, key string, startMS, sizeMS int64) string {
	var b [96]byte
	s := append(b[:0], "spate/1\x00"...)
	s = append(append(s, rule...), 0)
	s = append(append(s, key...), 0)
	s = append(strconv.AppendInt(s, startMS, 10), 0)
	s = strconv.AppendInt(s, sizeMS, 10)
	sum := sha256.Sum256(s)
	return hex.EncodeToString(sum[:16])
}

// Record is an alert in one of its states: the value in the topic "alerts". Consumers made for the original pipeline find its two
// fields, user_id and num_actions_per_watermark, under the names that they had.
//
// There are two forms. An alert of the rule without a rules file has a user, a count and a threshold. All others have a key and columns,
// and in their JSON the columns are at top level; see [Record.SetRow].
type Record struct {
	ID       string   `json:"id"`
	Rule     string   `json:"rule"`
	State    State    `json:"state"`
	Severity Severity `json:"severity"`
	// RuleRevision is the revision of the rules that was in force; 0 if they have none.
	RuleRevision int64 `json:"rule_revision,omitempty"`
	// Mode is Shadow or empty.
	Mode string `json:"mode,omitempty"`
	// Summary says in the rule's words what the key did, Runbook is the URL of what to do about it; empty if the rule has none.
	Summary string `json:"summary,omitempty"`
	Runbook string `json:"runbook,omitempty"`
	// QuietMS is how far apart the windows of one incident are at most, in milliseconds; 0 is the default (package incident).
	QuietMS int64 `json:"quiet_ms,omitempty"`
	// Decision is what the alert means for the key that it is about; nil: nothing (package decision).
	Decision *Decision `json:"decision,omitempty"`
	// UserID is the user as the events had it: a JSON number or string. In an alert with a Key it is the key's token, whatever that is: the value
	// of the only key column, or the JSON array of all. It is user_id in the JSON only if [Record.IsUser].
	UserID json.RawMessage `json:"user_id"`
	// User is UserID as text, for readers that cannot hold every number: JavaScript makes another user of 9007200134741019. It is set in what is
	// written, and empty in what is read, which has been checked to agree.
	User string `json:"user,omitempty"`
	// Count of the window's events: exact when closed, a lower bound before. With a Key, its name in the JSON is event_count.
	Count int64 `json:"num_actions_per_watermark"`
	// Threshold is what Count exceeds; 0 with a Key.
	Threshold    int64     `json:"threshold"`
	WindowStart  time.Time `json:"window_start"`
	WindowEnd    time.Time `json:"window_end"`
	FirstEventAt time.Time `json:"first_event_at"`
	LastEventAt  time.Time `json:"last_event_at"`
	Evidence     Evidence  `json:"evidence"`

	// Key is the JSON object of the key columns, in the rule's order: {} if the rule has none. It is nil for the rule without a rules file.
	Key json.RawMessage `json:"key,omitempty"`
	// Columns is the JSON object of the SELECT list, in its order, without what the record has anyway: the bounds of the window and the user.
	Columns json.RawMessage `json:"-"`
	// AtLeast reports whether some column is a lower bound, because it counts more distinct values than are kept.
	AtLeast bool `json:"at_least,omitempty"`
}

// Decision is what to do about a key, and for how long from the alert on.
type Decision struct {
	Level string `json:"level"`
	ForMS int64  `json:"for_ms"`
}

// Evidence says where in the log the counted events lie: between the two places of each partition, among other users' events. The log is
// a Kafka topic with partitions and offsets, or a Kinesis stream with shards and sequence numbers.
type Evidence struct {
	Topic      string                   `json:"topic,omitempty"`
	Partitions map[string]OffsetRange   `json:"partitions,omitempty"`
	Stream     string                   `json:"stream,omitempty"`
	Shards     map[string]SequenceRange `json:"shards,omitempty"`
}

// ByNumber orders the partitions of an Evidence, numbers without leading zeros, by their numbers.
func ByNumber(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

// OffsetRange is inclusive at both ends.
type OffsetRange struct {
	First int64 `json:"first_offset"`
	Last  int64 `json:"last_offset"`
}

// SequenceRange is inclusive at both ends.
type SequenceRange struct {
	First string `json:"first_sequence_number"`
	Last  string `json:"last_sequence_number"`
}

// Written returns the record as it is written: with the user as text.
func (r Record) Written() Record {
	if r.IsUser() {
		r.User = userText(r.UserID)
	}
	return r
}

// KeyText is the key as text: a string without quotes and escapes, any other value and several of them as JSON.
func (r *Record) KeyText() string { return userText(r.UserID) }

// userText returns a canonical token without quotes and escapes.
func userText(token json.RawMessage) string {
	var text string
	if len(token) > 0 && token[0] == '"' && json.Unmarshal(token, &text) == nil {
		return text
	}
	return string(token)
}

// Encode returns the record's JSON, with the user as text. Unlike json.Marshal it leaves <, > and & as they are, so a user stays what it was.
func (r Record) Encode() ([]byte, error) { return r.Written().MarshalJSON() }

// MarshalJSON implements json.Marshaler.
func (r Record) MarshalJSON() ([]byte, error) {
	if r.Key != nil {
		return r.encodeRow()
	}
	type plain Record // without this method
	b, err := marshal(plain(r))
	if err != nil {
		return nil, fmt.Errorf("encode alert %s: %w", r.ID, err)
	}
	return b, nil
}

// marshal is json.Marshal without HTML escapes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Join returns the members of a JSON object followed by those of others, which are encoded. A type that has a Record in it needs it: the
// methods of the Record would be its own.
func Join(object []byte, more ...any) ([]byte, error) {
	out := slices.Clip(bytes.TrimSuffix(object, []byte("}")))
	for _, m := range more {
		b, err := marshal(m)
		if err != nil {
			return nil, err
		}
		if b[0] == '{' && len(b) > 2 {
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, b[1:len(b)-1]...)
		}
	}
	return append(out, '}'), nil
}
