// Package post contains the code that the adapters of notify share: HTTP calls to an endpoint that someone else runs, and that may be slow, broken or
// hostile. It bounds the time of a try, how much of a response is read, and where connections go (guard.go, also for adapters that do not speak
// HTTP). It follows no redirects and uses no proxy. Its reasons for a failure contain neither the URL's path nor a secret: they quote only the
// beginning of a response, and only if that contains neither (said.go). The adapters define the content of a call and the meaning of an answer beyond its
// status; notify defines when the next try is due.
package post

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
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"spate/shared/notify"
)

const (
	// DefaultTimeout is the lower end of what Standard Webhooks 1.0 recommends, 15 to 30 s.
	DefaultTimeout = 15 * time.Second
	// MaxTimeout is the longest timeout that can be set.
	MaxTimeout = 5 * time.Minute

	// maxHeader bounds an answer's header, in bytes.
	maxHeader = 64 << 10
	// Where the status decides, the body does not: this much of it is read so that the connection can be used again.
	maxDrain     = 64 << 10 // bytes
	maxDrainTime = time.Second
	// maxBody bounds a body that decides, in bytes.
	maxBody = 1 << 20

	maxIdlePerHost = 16
	idleTimeout    = 90 * time.Second

	minAfter = time.Second
	// MaxAfter keeps absurd numbers of seconds from overflowing; notify has a bound of its own.
	MaxAfter = 365 * 24 * time.Hour
)

// Target is the destination of calls. In any format, it prints no more of the URL than the host.
type Target struct {
	// URL is the URL to call: http or https, absolute. Its path and query may hold a token, so they are kept out of errors and logs.
	URL string
	// AllowPrivate lets calls go to loopback and private addresses. Link-local addresses, where clouds keep credentials, stay refused.
	AllowPrivate bool
	// Timeout is the timeout of a whole try, up to MaxTimeout; 0 means DefaultTimeout.
	Timeout time.Duration
	// Now is the clock of calls; nil means time.Now.
	Now func() time.Time
	// RootCAs are the trusted certificate authorities; nil means the system's.
	RootCAs *x509.CertPool
}

// Validate reports every problem at once. The error contains nothing of the URL's path, query or credentials.
func (t Target) Validate() error {
	_, err := t.Parse()
	return errors.Join(err, CheckTimeout(t.Timeout))
}

// CheckTimeout returns an error if the timeout of a try is out of range.
func CheckTimeout(d time.Duration) error {
	if d < 0 || d > MaxTimeout {
		return fmt.Errorf("timeout: %v is not between 0 (the default, %v) and %v", d, DefaultTimeout, MaxTimeout)
	}
	return nil
}

// Parse checks the URL. The parser's own errors quote it, so they are not passed on.
func (t Target) Parse() (*url.URL, error) {
	const form = "use https://host/path"
	if t.URL == "" {
		return nil, errors.New("url: missing; " + form)
	}
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return nil, errors.New("url: is not a valid URL; " + form + ", with special characters percent-encoded")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("url: must begin with https:// or http://; " + form)
	case u.User != nil:
		return nil, errors.New("url: must not contain a user name or password; calls are authenticated by a signature or by other fields")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("url: has no host; " + form)
	case strings.Contains(t.URL, "#"):
		return nil, errors.New("url: contains a fragment (#), which is never sent; remove it, or write # as %23")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return nil, errors.New("url: the port is not between 1 and 65535")
		}
	}
	return u, nil
}

// Host returns the part of the URL that may be shown.
func (t Target) Host() string {
	u, err := t.Parse()
	if err != nil {
		return "[no URL]"
	}
	return hostOf(u)
}

// hostOf returns the part of a URL that may be shown.
func hostOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

// Refused returns why calls to the address in the URL are refused, as far as that is known before its name is resolved; nil if they are allowed.
func (t Target) Refused() error {
	u, err := t.Parse()
	if err != nil {
		return err
	}
	return Refused(u.Hostname(), t.AllowPrivate)
}

// String returns the host and whether private addresses are allowed.
func (t Target) String() string { return fmt.Sprintf("%s, allow private %t", t.Host(), t.AllowPrivate) }

// GoString is String.
func (t Target) GoString() string { return t.String() }

// Format keeps every verb of package fmt from showing more than String.
func (t Target) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue is String.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON is String: a Target is shown, not stored.
func (t Target) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// Client calls one target. It is safe for concurrent use. In any format, it prints only the host.
type Client struct {
	url       func() *url.URL // a function for the reason that Secret has one
	quotes    func() Quotes
	agent     string
	timeout   time.Duration
	now       func() time.Time
	transport *http.Transport
}

// New returns a Client. It does not connect yet. The caller closes it. agent names the purpose of the calls, such as webhook. Responses that quote one of
// the secrets are not kept.
func New(t Target, agent string, secrets ...string) (*Client, error) {
	u, err := t.Parse()
	if err = errors.Join(err, CheckTimeout(t.Timeout)); err != nil {
		return nil, err
	}
	quotes := NewQuotes(u, secrets...)
	c := &Client{
		url: func() *url.URL { return u }, quotes: func() Quotes { return quotes },
		agent: "spate/1 (+" + agent + ")", timeout: t.Timeout, now: t.Now,
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.transport = &http.Transport{
		Proxy:                  nil, // a proxy would connect to what the guard refuses
		DialContext:            Dialer(c.timeout, t.AllowPrivate).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: t.RootCAs},
		TLSHandshakeTimeout:    c.timeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
	return c, nil
}

// Host returns the part of the URL that may be shown: scheme://host[:port].
func (c *Client) Host() string { return hostOf(c.url()) }

// String is Host.
func (c *Client) String() string { return c.Host() }

// GoString is Host.
func (c *Client) GoString() string { return c.Host() }

// Format keeps every verb of package fmt from showing more than Host.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.Host()) }

// LogValue is Host.
func (c *Client) LogValue() slog.Value { return slog.StringValue(c.Host()) }

// MarshalJSON is Host.
func (c *Client) MarshalJSON() ([]byte, error) { return json.Marshal(c.Host()) }

// Close closes idle connections. Calls in progress are not interrupted.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Now returns the time on the client's clock.
func (c *Client) Now() time.Time { return c.now() }

// Said is [Quotes.Said] for the URL and the secrets of this client.
func (c *Client) Said(body []byte) string { return c.quotes().Said(body) }

// Call is one call.
type Call struct {
	Method string   // POST if empty
	Path   []string // elements that are joined to the path of the URL
	Header http.Header
	Body   []byte
	// Decides: the body of the answer contains the result of the call, so all of it is read, up to 1 MiB, within the time of the try. Otherwise, the
	// status decides, and a slow or endless body changes nothing.
	Decides bool
}

// Answer to a call.
type Answer struct {
	Status int // 0: there was none
	Header http.Header
	Body   []byte // all of it if it decides, and otherwise its beginning
	Why    string // why there was none, or why its body did not come
}

// Do calls once. It always returns an Answer.
func (c *Client) Do(ctx context.Context, call Call) Answer {
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	to := c.url()
	if len(call.Path) > 0 {
		to = to.JoinPath(call.Path...)
	}
	method := call.Method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(try, method, to.String(), bytes.NewReader(call.Body))
	if err != nil {
		return Answer{Why: "the request cannot be created"}
	}
	req.Header = http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {c.agent},
		// Empty, so it is not sent: it tells the transport that on a connection which turns out to be closed already the call may be
		// made anew. Every message can be told twice.
		"Idempotency-Key": {},
	}
	for name, values := range call.Header {
		req.Header[name] = slices.Clone(values)
	}
	// The transport alone, not a client: no redirects, no cookies, and no URL in its errors.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return Answer{Why: c.reason(ctx, err)}
	}
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if !call.Decides || resp.StatusCode == http.StatusSwitchingProtocols {
		a.Body = drain(resp, cancel)
		return a
	}
	defer resp.Body.Close()
	if a.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1)); err != nil {
		a.Why = c.reason(ctx, err)
	} else if len(a.Body) > maxBody {
		a.Why = fmt.Sprintf("response is larger than %d bytes", maxBody)
	}
	return a
}

func (c *Client) reason(ctx context.Context, err error) string {
	if text, ok := Reason(ctx, err, c.timeout); ok {
		return text
	}
	return "invalid HTTP response"
}

// drain reads what is left of a short answer, so that the connection can be used again, and closes it otherwise. It returns the beginning.
func drain(resp *http.Response, cancel context.CancelFunc) []byte {
	var said bytes.Buffer
	if resp.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection: it heeds no context and may never end
		timer := time.AfterFunc(maxDrainTime, cancel)
		_, _ = io.CopyN(&said, resp.Body, 4*maxSaid)                                // the status has decided
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxDrain+1-4*maxSaid)) // likewise
		timer.Stop()
	}
	_ = resp.Body.Close()
	return said.Bytes()
}

// Judge maps the status of an answer to a result as Standard Webhooks 1.0 recommends, except for 410: only there does it mean that no more messages are
// wanted; elsewhere, it is a status like others.
func (c *Client) Judge(a Answer) notify.Result {
	if a.Status == 0 {
		return Failed(0, a.Why)
	}
	if a.Status >= 200 && a.Status < 300 {
		return notify.Result{Outcome: notify.Delivered, Status: a.Status}
	}
	r := Failed(a.Status, fmt.Sprintf("status %d", a.Status))
	switch {
	case a.Status >= 300 && a.Status < 400:
		r.Reason += ": redirects are not followed"
	case a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable:
		if after, ok := ParseRetryAfter(a.Header.Get("Retry-After"), c.now()); ok {
			r.Outcome, r.After = notify.Throttled, after
		}
	}
	if said := c.Said(a.Body[:min(len(a.Body), 4*maxSaid)]); said != "" {
		r.Reason += ": " + said
	}
	return r
}

// Throttle makes 429 without Retry-After Throttled, too, for the duration usual.
func Throttle(r notify.Result, usual time.Duration) notify.Result {
	if r.Outcome == notify.Failed && r.Status == http.StatusTooManyRequests {
		r.Outcome, r.After = notify.Throttled, usual
	}
	return r
}

// Failed returns the result of a try that failed.
func Failed(status int, reason string) notify.Result {
	return notify.Result{Outcome: notify.Failed, Status: status, Reason: reason}
}

// Unsendable returns the result of a message that cannot be sent. The error must contain no secret.
func Unsendable(err error) notify.Result {
	return notify.Result{Outcome: notify.Unsendable, Reason: err.Error()}
}

// ParseRetryAfter reads seconds or an HTTP date (RFC 9110, 10.2.3) and returns how long to wait from now: at least one second. A time that is not in
// the future does not say when the endpoint accepts a message, so ok is false.
func ParseRetryAfter(text string, now time.Time) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, false
	}
	if strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > int64(MaxAfter/time.Second) { // digits alone: out of range
			return MaxAfter, true
		}
		return time.Duration(n) * time.Second, n > 0
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	wait := at.Sub(now)
	return min(max(wait, minAfter), MaxAfter), wait > 0
}

// Encode is json.Marshal without HTML escapes.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("%w: it cannot be encoded", notify.ErrUnsendable)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
