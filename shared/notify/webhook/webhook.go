// Package webhook delivers messages to an endpoint with HTTP calls that follow Standard Webhooks 1.0 (https://www.standardwebhooks.com).
// Sender is the notify.Notifier; Verify is the receiving side.
//
// A call is a POST with the body {"type":…,"timestamp":…,"data":…}, whose bytes are the same on every try, and three headers:
// webhook-id, the message's id, the same on every try; webhook-timestamp, Unix seconds of this try; webhook-signature, for each secret
// the HMAC-SHA256 of "id.timestamp.body". So a receiver does not accept a call that was delayed or changed in transit, and can recognize a
// repeated call by its id.
//
// Package post makes the calls, with its bounds and its guard. Package notify decides when the next try is due.
package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"spate/shared/notify"
	"spate/shared/notify/post"
)

// Sender calls one endpoint. It is safe for concurrent use.
type Sender struct {
	client  *post.Client
	secrets []Secret
}

var _ notify.Notifier = (*Sender)(nil)

// New returns a Sender. It does not connect yet. The caller closes it.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	texts := make([]string, len(c.Secrets))
	for i, secret := range c.Secrets {
		texts[i] = secret.text()
	}
	client, err := post.New(c.target(), "webhook", texts...)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return &Sender{client: client, secrets: append([]Secret(nil), c.Secrets...)}, nil
}

// Host returns the part of the endpoint's URL that may be shown: scheme://host[:port].
func (s *Sender) Host() string { return s.client.Host() }

// String is Host.
func (s *Sender) String() string { return s.Host() }

// GoString is Host.
func (s *Sender) GoString() string { return s.Host() }

// Format keeps every verb of package fmt from showing more than Host.
func (s *Sender) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Host()) }

// LogValue is Host.
func (s *Sender) LogValue() slog.Value { return slog.StringValue(s.Host()) }

// Close closes idle connections. Calls in progress are not interrupted.
func (s *Sender) Close() { s.client.Close() }

// Check implements notify.Notifier.
func (*Sender) Check(m notify.Message) error {
	_, err := encode(m)
	return err
}

// Notify calls once.
func (s *Sender) Notify(ctx context.Context, m notify.Message) notify.Result {
	body, err := encode(m)
	if err != nil {
		return post.Unsendable(err)
	}
	now := s.client.Now()
	signatures, err := sign(s.secrets, m.ID, now, body)
	if err != nil {
		return notify.Result{Outcome: notify.Unsendable, Reason: "message cannot be signed"}
	}
	// Under their canonical names. Receivers tell repeats by the id.
	header := make(http.Header)
	header.Set(HeaderID, m.ID)
	header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	header.Set(HeaderSignature, signatures)
	a := s.client.Do(ctx, post.Call{Header: header, Body: body})
	r := s.client.Judge(a)
	if a.Status == http.StatusGone {
		r.Outcome = notify.Gone
	}
	return r
}

// encode returns the body: the same bytes for the same message. An error wraps notify.ErrUnsendable.
func encode(m notify.Message) ([]byte, error) {
	if m.ID == "" || strings.ContainsFunc(m.ID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("%w: its ID is empty, or contains spaces or characters other than printable ASCII", notify.ErrUnsendable)
	}
	data := []byte(m.Data)
	if len(data) == 0 {
		data = []byte("null")
	}
	if !json.Valid(data) || !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: its data is not JSON in UTF-8", notify.ErrUnsendable)
	}
	kind, err := json.Marshal(m.Type)
	if err != nil {
		return nil, fmt.Errorf("%w: its type cannot be encoded", notify.ErrUnsendable)
	}
	// By hand: an encoder would write the data's bytes anew.
	b := make([]byte, 0, len(data)+len(kind)+64)
	b = append(append(b, `{"type":`...), kind...)
	b = m.At.UTC().AppendFormat(append(b, `,"timestamp":"`...), "2006-01-02T15:04:05.000Z07:00")
	b = append(append(b, `","data":`...), data...)
	return append(b, '}'), nil
}

// sign returns a signature for each secret.
func sign(secrets []Secret, id string, at time.Time, body []byte) (string, error) {
	signatures := make([]string, 0, len(secrets))
	for _, s := range secrets {
		signature, err := s.signer().Sign(id, at, body)
		if err != nil {
			return "", err
		}
		signatures = append(signatures, signature)
	}
	return strings.Join(signatures, " "), nil
}
