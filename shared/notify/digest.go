package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"spate/shared/alert"
)

// Digest is the data of a message of type alert.digest: what the messages that it stands for told.
type Digest struct {
	// Since and Until bound the time in which the alerts were heard of.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Messages is how many messages this one stands for. Opened, Raised and Closed are how many of each kind.
	Messages int `json:"messages"`
	Opened   int `json:"opened"`
	Raised   int `json:"raised,omitempty"`
	Closed   int `json:"closed"`
	// Users is how many different users they are about (rules may have other keys), Events the sum of their counts: of each alert the highest one told.
	Users  int   `json:"users"`
	Events int64 `json:"events"`
	// BySeverity and ByRule are numbers of messages.
	BySeverity map[alert.Severity]int `json:"by_severity"`
	ByRule     map[string]int         `json:"by_rule"`
	// Top are the alerts with the highest counts, the highest first.
	Top []alert.Record `json:"top"`
	// Link is where to look, if that is configured.
	Link string `json:"link,omitempty"`
}

// maxTop is how many alerts a digest names.
const maxTop = 10

// Digester makes a digest of records, one by one.
type Digester struct {
	d      Digest
	users  map[string]struct{}
	counts map[string]int64 // by alert
}

// NewDigester begins a digest of what was heard of from since until until.
func NewDigester(since, until time.Time) *Digester {
	return &Digester{
		d: Digest{
			Since: since.UTC(), Until: until.UTC(), BySeverity: make(map[alert.Severity]int), ByRule: make(map[string]int), Top: []alert.Record{},
		},
		users: make(map[string]struct{}), counts: make(map[string]int64),
	}
}

// Add takes what one message would have told.
func (b *Digester) Add(r alert.Record) {
	b.d.Messages++
	switch r.State {
	case alert.Opened:
		b.d.Opened++
	case alert.Raised:
		b.d.Raised++
	case alert.Closed:
		b.d.Closed++
	}
	b.d.BySeverity[r.Severity]++
	b.d.ByRule[r.Rule]++
	if r.IsUser() {
		b.users[string(r.UserID)] = struct{}{}
	}
	known, again := b.counts[r.ID]
	if r.Count > known {
		b.d.Events += r.Count - known
		b.counts[r.ID] = r.Count
	}
	if again {
		if i := slices.IndexFunc(b.d.Top, func(t alert.Record) bool { return t.ID == r.ID }); i >= 0 {
			if r.State.Rank() <= b.d.Top[i].State.Rank() {
				return
			}
			b.d.Top = slices.Delete(b.d.Top, i, i+1)
		}
	}
	at, _ := slices.BinarySearchFunc(b.d.Top, r, byCount)
	if at < maxTop {
		b.d.Top = slices.Insert(b.d.Top, at, r.Written())
		b.d.Top = b.d.Top[:min(len(b.d.Top), maxTop)]
	}
}

// byCount has the highest count first, then the lowest id.
func byCount(a, b alert.Record) int {
	switch {
	case a.Count != b.Count && a.Count > b.Count:
		return -1
	case a.Count != b.Count:
		return 1
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}

// Data returns the digest. link, unless it is nil, makes its link. An error wraps ErrUnsendable.
func (b *Digester) Data(link func(Digest) string) (json.RawMessage, error) {
	b.d.Users = len(b.users)
	if link != nil {
		b.d.Link = link(b.d)
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false) // a user stays what it was
	if err := enc.Encode(b.d); err != nil {
		return nil, fmt.Errorf("%w: encode digest: %w", ErrUnsendable, err)
	}
	return bytes.TrimSuffix(data.Bytes(), []byte("\n")), nil
}
