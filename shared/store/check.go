package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"spate/shared/alert"
)

// maxID bounds an alert's id, in bytes. Ours have 32; what comes from elsewhere has to go into an index, with what became of the alert and
// the endpoint's name, or no batch that it is in could ever be stored.
const maxID = 1000

// Prepare returns r as a store keeps it: the user or key in canonical form, times in UTC and cut to the millisecond. A record that no store
// can keep is an error that wraps ErrInvalid. Adapters call it for every record before they touch the database, so that what the
// schema would refuse never fails a whole transaction.
func Prepare(r alert.Record) (alert.Record, error) {
	refuse := func(format string, args ...any) (alert.Record, error) {
		return alert.Record{}, fmt.Errorf("%w: %q: %s", ErrInvalid, r.ID, fmt.Sprintf(format, args...))
	}
	for _, text := range []struct{ name, value string }{{"id", r.ID}, {"rule", r.Rule}, {"evidence topic", r.Evidence.Topic}} {
		if !utf8.ValidString(text.value) || strings.ContainsRune(text.value, 0) {
			return refuse("%s %q is not valid UTF-8 or contains a NUL character", text.name, text.value)
		}
	}
	for p := range r.Evidence.Partitions {
		if !utf8.ValidString(p) || strings.ContainsRune(p, 0) {
			return refuse("evidence partition %q is not valid UTF-8 or contains a NUL character", p)
		}
	}
	r.WindowStart, r.WindowEnd = milli(r.WindowStart), milli(r.WindowEnd)
	r.FirstEventAt, r.LastEventAt = milli(r.FirstEventAt), milli(r.LastEventAt)
	user, err := identify(r)
	switch {
	case r.ID == "":
		return refuse("id is missing")
	case len(r.ID) > maxID:
		return alert.Record{}, fmt.Errorf("%w: %.100q: id is %d bytes long; the maximum is %d", ErrInvalid, r.ID, len(r.ID), maxID)
	case r.Rule == "":
		return refuse("rule is missing")
	case err != nil:
		return refuse("%v", err)
	case r.State.Rank() == 0:
		return refuse("state %q is not one of opened, raised, closed", r.State)
	case r.Severity != alert.Warning && r.Severity != alert.Critical:
		return refuse("severity %q is neither warning nor critical", r.Severity)
	case r.Count < 1:
		return refuse("count %d is below 1", r.Count)
	case r.RuleRevision < 0:
		return refuse("rule_revision %d is below 0", r.RuleRevision)
	case r.Mode != "" && r.Mode != alert.Shadow:
		return refuse("mode %q is not %s", r.Mode, alert.Shadow)
	case r.Threshold < 0:
		return refuse("threshold %d is below 0", r.Threshold)
	case !r.WindowEnd.After(r.WindowStart):
		return refuse("the window from %v to %v is empty", r.WindowStart, r.WindowEnd)
	}
	r.UserID = json.RawMessage(user)
	return r, nil
}

// identify returns the canonical token of the user, or of the key.
func identify(r alert.Record) (string, error) {
	if r.Key == nil {
		return User(r.UserID)
	}
	if err := r.CheckRow(); err != nil {
		return "", err
	}
	return string(r.UserID), nil
}

func milli(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

// CeilMilli is the first whole millisecond that is not before t. Windows start at whole ones, so an adapter whose times are coarser than
// t compares with it instead.
func CeilMilli(t time.Time) time.Time {
	ms := milli(t)
	if ms.Before(t) {
		ms = ms.Add(time.Millisecond)
	}
	return ms
}

// User returns the canonical token of a user: a JSON number as it is written, a JSON string as encoding/json writes it without HTML
// escapes. A record may come with another form of the same string, for json.Marshal escapes <, > and & within a RawMessage.
func User(token json.RawMessage) (string, error) {
	switch {
	case len(token) == 0:
		return "", fmt.Errorf("user_id is missing")
	case !utf8.Valid(token) || !json.Valid(token):
		return "", fmt.Errorf("user_id %q is not valid JSON", token)
	case token[0] == '-' || token[0] >= '0' && token[0] <= '9':
		return string(bytes.TrimRight(token, " \t\r\n")), nil
	case token[0] != '"':
		return "", fmt.Errorf("user_id %s is neither a number nor a string", token)
	case !bytes.ContainsRune(token, '\\') && !bytes.ContainsRune(token, '\u2028') && !bytes.ContainsRune(token, '\u2029'):
		return string(bytes.TrimRight(token, " \t\r\n")), nil
	}
	var text string
	if err := json.Unmarshal(token, &text); err != nil {
		return "", fmt.Errorf("user_id %s: %w", token, err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		return "", fmt.Errorf("user_id %s: %w", token, err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// Contradiction returns why the record next cannot be about the stored alert, or nil if it only repeats or comes late. It looks at rule,
// user, window, state, count and columns, which Prepare has made comparable. Adapters call it for records that changed nothing.
func Contradiction(stored, next alert.Record) error {
	switch {
	case !sameAlert(stored, next):
		return fmt.Errorf("%w: %s is stored as %s, user %s, window %s, but the record has %s, user %s, window %s", ErrConflict, next.ID,
			stored.Rule, stored.UserID, span(stored), next.Rule, next.UserID, span(next))
	case stored.State == alert.Closed && next.State == alert.Closed && string(stored.Columns) != string(next.Columns):
		return fmt.Errorf("%w: %s is already closed with columns %.300s, but the record has %.300s", ErrConflict, next.ID, stored.Columns, next.Columns)
	case stored.State == alert.Closed && next.State == alert.Closed && stored.Count != next.Count:
		return fmt.Errorf("%w: %s is already closed with count %d, but the record has count %d", ErrConflict, next.ID, stored.Count, next.Count)
	}
	return nil
}

// sameAlert reports whether two records under one id are about the same.
func sameAlert(a, b alert.Record) bool {
	return a.Rule == b.Rule && string(a.UserID) == string(b.UserID) && a.WindowStart.Equal(b.WindowStart) && a.WindowEnd.Equal(b.WindowEnd)
}

func span(r alert.Record) string {
	return r.WindowStart.Format(time.RFC3339Nano) + " to " + r.WindowEnd.Format(time.RFC3339Nano)
}
