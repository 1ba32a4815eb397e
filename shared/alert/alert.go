// Package alert is what spate tells: the record of a user who did too much in one window. It defines identity, states, severity
// and the JSON form, which is the contract with everything that reads the alerts.
package alert

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// State of an alert. It only moves forward.
type State string

const (
	// Opened: the window's count passed the threshold. The count is what was known then; it can only grow.
	Opened State = "opened"
	// Closed: the window has ended and its count is exact.
	Closed State = "closed"
)

// Rank orders states: a record of a lower or equal rank changes nothing. 0 means no state.
func (s State) Rank() int {
	switch s {
	case Opened:
		return 1
	case Closed:
		return 2
	}
	return 0
}

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

// Burst is the rule: more than a threshold of events of one user in one tumbling window.
const Burst = "burst"

// ID identifies the alert of a user in the window of the given size that starts at startMS. It depends on nothing else, so every
// run over the same events gives the same one: it is the primary key of every store and the webhook-id. user is the canonical JSON
// token: the number 5 and the string "5" are two users.
func ID(rule string, user string, startMS, sizeMS int64) string {
	var b [96]byte
	s := append(b[:0], "spate/1\x00"...)
	s = append(append(s, rule...), 0)
	s = append(append(s, user...), 0)
	s = append(strconv.AppendInt(s, startMS, 10), 0)
	s = strconv.AppendInt(s, sizeMS, 10)
	sum := sha256.Sum256(s)
	return hex.EncodeToString(sum[:16])
}

// Record is an alert in one of its states: the value in the topic "alerts". Consumers made for the original pipeline find its two
// fields, user_id and num_actions_per_watermark, under the names that they had.
type Record struct {
	ID       string   `json:"id"`
	Rule     string   `json:"rule"`
	State    State    `json:"state"`
	Severity Severity `json:"severity"`
	// UserID is the user as the events had it: a JSON number or string.
	UserID json.RawMessage `json:"user_id"`
	// User is UserID as text, for readers that cannot hold every number: JavaScript makes another user of 9007200134741019. It is set in what is
	// written, and empty in what is read, which has been checked to agree.
	User string `json:"user,omitempty"`
	// Count of the window's events: exact when closed, a lower bound when opened.
	Count        int64     `json:"num_actions_per_watermark"`
	Threshold    int64     `json:"threshold"`
	WindowStart  time.Time `json:"window_start"`
	WindowEnd    time.Time `json:"window_end"`
	FirstEventAt time.Time `json:"first_event_at"`
	LastEventAt  time.Time `json:"last_event_at"`
	Evidence     Evidence  `json:"evidence"`
}

// Evidence says where in the log the counted events lie: between the two places of each partition, among other users' events. The log is
// a Kafka topic with partitions and offsets, or a Kinesis stream with shards and sequence numbers.
type Evidence struct {
	Topic      string                   `json:"topic,omitempty"`
	Partitions map[string]OffsetRange   `json:"partitions,omitempty"`
	Stream     string                   `json:"stream,omitempty"`
	Shards     map[string]SequenceRange `json:"shards,omitempty"`
}

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
	r.User = userText(r.UserID)
	return r
}

// userText returns a canonical user token without quotes and escapes.
func userText(token json.RawMessage) string {
	var text string
	if len(token) > 0 && token[0] == '"' && json.Unmarshal(token, &text) == nil {
		return text
	}
	return string(token)
}

// Encode returns the record's JSON, with the user as text. Unlike json.Marshal it leaves <, > and & as they are, so a user stays what it was.
func (r Record) Encode() ([]byte, error) {
	r = r.Written()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("encode alert %s: %w", r.ID, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
