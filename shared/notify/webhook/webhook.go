// Package webhook delivers messages to an endpoint with HTTP calls that follow Standard Webhooks 1.0 (https://www.standardwebhooks.com).
// Sender is the notify.Notifier; Verify is the receiving side.
//
// A call is a POST with the body {"type":…,"timestamp":…,"data":…}, whose bytes are the same on every try, and three headers:
// webhook-id, the message's id, the same on every try; webhook-timestamp, Unix seconds of this try; webhook-signature, for each secret
// the HMAC-SHA256 of "id.timestamp.body". So a call that was held back or changed in transit is not accepted, and a repeated call
// can be recognized by its id.
//
// An endpoint belongs to someone else: it may be slow, broken or hostile. The Sender limits the time of a try, how much of a response it
// reads, and where it connects to (guard.go). It follows no redirects, and its errors contain neither the URL's path nor a secret: they quote
// only the beginning of a response, and only if it contains neither (said.go). It does not decide when the next try is due.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"spate/shared/notify"
)

const (
	userAgent = "spate/1 (+webhook)"

	// maxHeader bounds an answer's header, in bytes.
	maxHeader = 64 << 10
	// The status decides, the body does not: this much of it is read so that the connection can be used again.
	maxBody     = 64 << 10 // bytes
	maxBodyTime = time.Second

	maxIdlePerHost = 16
	idleTimeout    = 90 * time.Second

	minAfter = time.Second
	// maxAfter keeps absurd numbers of seconds from overflowing; notify has a bound of its own.
	maxAfter = 365 * 24 * time.Hour
)

// Sender calls one endpoint. It is safe for concurrent use.
type Sender struct {
	url       func() *url.URL // a function for the reason that Secret has one
	secrets   []Secret
	timeout   time.Duration
	now       func() time.Time
	transport *http.Transport
}

var _ notify.Notifier = (*Sender)(nil)

// New returns a Sender. It connects to nothing yet; Close ends it.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	u, err := c.parse()
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	s := &Sender{url: func() *url.URL { return u }, secrets: append([]Secret(nil), c.Secrets...), timeout: c.Timeout, now: c.Now}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	if s.now == nil {
		s.now = time.Now
	}
	dialer := &net.Dialer{Timeout: s.timeout, ControlContext: guard(c.AllowPrivate)}
	s.transport = &http.Transport{
		Proxy:                  nil, // a proxy would connect to what the guard refuses
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs},
		TLSHandshakeTimeout:    s.timeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
	return s, nil
}

// Host is the part of the endpoint's URL that may be shown: scheme://host[:port].
func (s *Sender) Host() string { return hostOf(s.url()) }

// String is Host.
func (s *Sender) String() string { return s.Host() }

// GoString is Host.
func (s *Sender) GoString() string { return s.Host() }

// Format keeps every verb of package fmt from showing more than Host.
func (s *Sender) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Host()) }

// LogValue is Host.
func (s *Sender) LogValue() slog.Value { return slog.StringValue(s.Host()) }

// Close closes the connections that wait for another call. Calls under way are not interrupted.
func (s *Sender) Close() { s.transport.CloseIdleConnections() }

// Check implements notify.Notifier.
func (*Sender) Check(m notify.Message) error {
	_, err := encode(m)
	return err
}

// Notify calls once.
func (s *Sender) Notify(ctx context.Context, m notify.Message) notify.Result {
	body, err := encode(m)
	if err != nil {
		return notify.Result{Outcome: notify.Unsendable, Reason: err.Error()}
	}
	try, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(try, http.MethodPost, s.url().String(), bytes.NewReader(body))
	if err != nil {
		return failed(0, "the request cannot be made")
	}
	now := s.now()
	req.Header = http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {userAgent},
		// Empty, so it is not sent: it tells the transport that on a connection which turns out to be closed already the call may be
		// made anew. Receivers tell repeats by the id.
		"Idempotency-Key": {},
	}
	req.Header.Set(HeaderID, m.ID)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	signatures, err := sign(s.secrets, m.ID, now, body)
	if err != nil {
		return notify.Result{Outcome: notify.Unsendable, Reason: "message cannot be signed"}
	}
	req.Header.Set(HeaderSignature, signatures)

	// The transport alone, not a client: no redirects, no cookies, and no URL in its errors.
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return failed(0, s.reason(ctx, err))
	}
	result := judgeAnswer(resp, s.now())
	answer := drain(resp, cancel)
	if result.Outcome == notify.Delivered {
		return result
	}
	if said := s.said(answer); said != "" {
		result.Reason += ": " + said
	}
	return result
}

// encode returns the body: the same bytes for the same message. An error wraps notify.ErrUnsendable.
func encode(m notify.Message) ([]byte, error) {
	if m.ID == "" || strings.ContainsFunc(m.ID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("%w: its id is not printable ASCII without spaces", notify.ErrUnsendable)
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

// drain reads what is left of a short answer, so that the connection can be used again, and closes it otherwise. It returns the beginning.
func drain(resp *http.Response, cancel context.CancelFunc) []byte {
	var said bytes.Buffer
	if resp.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection: it heeds no context and may never end
		timer := time.AfterFunc(maxBodyTime, cancel)
		_, _ = io.CopyN(&said, resp.Body, 4*maxSaid)                               // the status has decided
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody+1-4*maxSaid)) // likewise
		timer.Stop()
	}
	_ = resp.Body.Close()
	return said.Bytes()
}

// judgeAnswer maps a status as Standard Webhooks 1.0 recommends.
func judgeAnswer(resp *http.Response, now time.Time) notify.Result {
	status := resp.StatusCode
	text := fmt.Sprintf("status %d", status)
	switch {
	case status >= 200 && status < 300:
		return notify.Result{Outcome: notify.Delivered, Status: status}
	case status >= 300 && status < 400:
		return failed(status, text+": redirects are not followed")
	case status == http.StatusGone:
		return notify.Result{Outcome: notify.Gone, Status: status, Reason: text}
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		if after, ok := parseRetryAfter(resp.Header.Get("Retry-After"), now); ok {
			return notify.Result{Outcome: notify.Throttled, Status: status, After: after, Reason: text}
		}
	}
	return failed(status, text)
}

func failed(status int, reason string) notify.Result {
	return notify.Result{Outcome: notify.Failed, Status: status, Reason: reason}
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110, 10.2.3), as how long to wait from now: a second at least. An endpoint that may be
// asked at once has not said when it will take a message: that is not ok.
func parseRetryAfter(text string, now time.Time) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, false
	}
	if strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > int64(maxAfter/time.Second) { // digits alone: out of range
			return maxAfter, true
		}
		return time.Duration(n) * time.Second, n > 0
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	wait := at.Sub(now)
	return min(max(wait, minAfter), maxAfter), wait > 0
}

// reason says in words of its own why there was no answer: the errors of the network quote what the endpoint sent, and are long.
func (s *Sender) reason(ctx context.Context, err error) string {
	var (
		refused *refusedError
		dns     *net.DNSError
		timeout net.Error
	)
	switch {
	case errors.As(err, &refused):
		return refused.Error()
	case ctx.Err() != nil:
		return "interrupted before there was a response"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "host not found"
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no response within %v", s.timeout)
	case errors.As(err, &dns):
		return "host not found: the name server did not respond"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "host is unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed without a response"
	}
	if text, ok := reasonTLS(err); ok {
		return text
	}
	return "invalid HTTP response"
}

func reasonTLS(err error) (string, bool) {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		cert      *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.As(err, &authority):
		return "TLS: certificate is not trusted", true
	case errors.As(err, &host):
		return "TLS: certificate is for another host", true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "TLS: certificate has expired or is not valid yet", true
	case errors.As(err, &cert):
		return "TLS: certificate is not valid", true
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "TLS: the response is not TLS; the URL may have to begin with http://", true
	case errors.As(err, &alert):
		return "TLS: handshake refused", true
	}
	return "", false
}
