package dynamodb

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/store"
)

// DefaultServer is the server that the original wrote into every partition key.
const DefaultServer = "app-server-tomcat-123"

// Config configures a Table.
type Config struct {
	Table string
	// Server is part of every partition key; DefaultServer if empty. The same alert with another server is another item.
	Server string
	// Retain is how long an alert is kept after its last record, if the table's time to live uses expires_at; 0 means forever.
	Retain time.Duration
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	if n := len(c.Table); n < 3 || n > 255 || strings.Trim(c.Table, nameCharacters) != "" {
		errs = append(errs, fmt.Errorf("table: %q is not a valid table name: use 3 to 255 letters, digits, dots, dashes and underscores", c.Table))
	}
	if n := len(c.Server); n > 255 {
		errs = append(errs, fmt.Errorf("server: is %d bytes long; the maximum is 255", n))
	}
	if c.Retain < 0 {
		errs = append(errs, fmt.Errorf("retain: %v is negative (use 0 to keep alerts forever)", c.Retain))
	}
	return errors.Join(errs...)
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// Key is the key of an item.
type Key struct {
	Partition string
	Sort      string // a decimal number, as DynamoDB writes it
}

// Item is an alert as stored in the table.
type Item struct {
	Key
	// Record has its user in canonical form. If its window is unknown, the window and the times of events are zero.
	alert.Record
	// ArrivedAt is when the stream got the record, if its window is not known.
	ArrivedAt time.Time
	// DecidedAt is when the stream got the record; the record's decision is in force from then on. Zero: the record makes no decision.
	DecidedAt time.Time

	// The rest is set by the table.
	OpenedAt     time.Time // when the alert was first stored
	ClosedAt     time.Time // when the final count was stored; zero while open
	Notification Notification
	NotifiedAt   time.Time

	// Incident is the one that the alert is part of, SortOf its sort key, and Counted what the alert has added to its events; empty: none.
	Incident, SortOf string
	Counted          int64
}

// Notification is the state of the message about an alert that is not part of an incident, or that was stored before incidents existed.
type Notification string

// The states of a notification.
const (
	None    Notification = "none" // the attribute is absent
	Pending Notification = "pending"
	Sent    Notification = "sent"
)

// maxPartition is DynamoDB's bound on partition keys, in bytes.
const maxPartition = 2048

// Item returns the item of an alert. A record that the table cannot keep is an error that wraps store.ErrInvalid.
func (c Config) Item(r alert.Record) (Item, error) {
	r, err := store.Prepare(r)
	if err != nil {
		return Item{}, err
	}
	it := Item{Record: r}
	it.Sort = seconds(r.WindowStart, "")
	if r.Key != nil {
		it.Sort = seconds(r.WindowStart, idDigits(r.ID))
	}
	it.Partition, err = c.partition(r)
	return it, err
}

// sequenceDigits is how much of a sequence number is in a sort key: with the ten digits of a time, DynamoDB's numbers, of 38, have room for it.
const sequenceDigits = 27

// Arrived returns the item of an alert whose window is unknown. at is when the stream got the record, and sequence is the record's sequence
// number. A record that is read again gives the same item. The record's window is ignored.
func (c Config) Arrived(r alert.Record, at time.Time, sequence string) (Item, error) {
	r.WindowStart, r.WindowEnd = time.UnixMilli(0), time.UnixMilli(1) // Prepare looks at the window too
	r, err := store.Prepare(r)
	if err != nil {
		return Item{}, err
	}
	r.WindowStart, r.WindowEnd = time.Time{}, time.Time{}
	if sequence == "" || strings.Trim(sequence, "0123456789") != "" || at.Unix() < 0 {
		return Item{}, fmt.Errorf("%w: %q: sequence number %q with arrival time %v is not a position in a stream", store.ErrInvalid, r.ID, sequence, at)
	}
	it := Item{Record: r, ArrivedAt: time.UnixMilli(at.UnixMilli()).UTC()}
	last := sequence[max(0, len(sequence)-sequenceDigits):]
	it.Sort = strconv.FormatInt(at.Unix(), 10) + fraction(strings.Repeat("0", sequenceDigits-len(last))+last)
	it.Partition, err = c.partition(r)
	return it, err
}

func (c Config) partition(r alert.Record) (string, error) {
	server := c.server()
	if !r.IsUser() {
		key, after := "key#"+string(r.Key), "#appserver#"+server
		if len(key)+len(after) > maxPartition {
			sum := sha256.Sum256(r.Key)
			key = "key#sha256:" + hex.EncodeToString(sum[:])
		}
		return key + after, nil
	}
	user := userText(string(r.UserID))
	key := "userid#" + user + "#appserver#" + server
	switch {
	case user == "":
		return "", fmt.Errorf("%w: %q: user_id is empty", store.ErrInvalid, r.ID)
	case len(key) > maxPartition:
		return "", fmt.Errorf("%w: %q: user_id is %d bytes long, so the partition key would exceed %d bytes", store.ErrInvalid, r.ID, len(user), maxPartition)
	}
	return key, nil
}

func (c Config) server() string {
	if c.Server == "" {
		return DefaultServer
	}
	return c.Server
}

// userText is the user in a partition key: a string without its quotes, a number as it is. Strings that could be taken for another user
// then keep them: those that are a number within, and those that begin with a quote.
func userText(token string) string {
	text := activity.UserText([]byte(token))
	if token[0] == '"' && (strings.HasPrefix(text, `"`) || activity.UserToken(text)[0] == text) {
		return token
	}
	return text
}

// idDigits are twenty digits of an alert's id: behind those of a time, they make a sort key of each alert of a key, whatever its rule and window.
// DynamoDB's numbers, of 38 digits, have room for both.
func idDigits(id string) string {
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("%020d", binary.BigEndian.Uint64(sum[:]))
}

// seconds are those since 1970, and more digits behind the milliseconds, as a decimal number without zeros at its end: the way in which DynamoDB
// writes it.
func seconds(t time.Time, more string) string {
	ms := t.UnixMilli()
	sign := ""
	if ms < 0 {
		sign, ms = "-", -ms
	}
	return fmt.Sprintf("%s%d%s", sign, ms/1000, fraction(fmt.Sprintf("%03d", ms%1000)+more))
}

func fraction(digits string) string {
	if digits = strings.TrimRight(digits, "0"); digits != "" {
		return "." + digits
	}
	return ""
}

// at is what orders items: the window's start, or the record's arrival.
func (it Item) at() time.Time {
	if it.WindowStart.IsZero() {
		return it.ArrivedAt
	}
	return it.WindowStart
}

// contradiction returns why next cannot be about the stored alert, or nil if it only repeats it or comes late.
func contradiction(stored, next Item) error {
	switch {
	case stored.ID != next.ID:
		return fmt.Errorf("%w: %s at %s is stored as alert %q, but the record is alert %q; use one table per rule and window size", store.ErrConflict,
			stored.Partition, stored.Sort, stored.ID, next.ID)
	case stored.State == alert.Closed && next.State == alert.Closed && stored.Severity != next.Severity:
		return fmt.Errorf("%w: %s is already closed with severity %s, but the record has %s", store.ErrConflict, next.ID, stored.Severity, next.Severity)
	}
	return store.Contradiction(stored.Record, next.Record)
}

// Alert returns the alert in the form of package store. If the window is unknown, its bounds are zero.
func (it Item) Alert() store.Alert {
	a := store.Alert{Record: it.Record, OpenedAt: it.OpenedAt, ClosedAt: it.ClosedAt, Incident: it.Incident, Delivery: store.Summary{State: store.None}}
	switch it.Notification {
	case Pending:
		a.Delivery.State = store.Pending
	case Sent:
		a.Delivery = store.Summary{State: store.Delivered, Attempts: 1} // at least: how many there were is not kept
	}
	return a
}

func evidenceText(e alert.Evidence) (string, error) {
	b, err := json.Marshal(e)
	return string(b), err
}
