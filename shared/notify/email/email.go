// Package email delivers messages by SMTP. The messages of an incident are one thread: the Message-ID is a function of the message, and all but the
// first are replies to the first one (In-Reply-To, References), whose subject they have. A message that is sent twice has the same Message-ID.
//
// If the server refuses one recipient, nothing is sent, and the try has failed: a delivery has one outcome, and no recipient is left out silently. A
// recipient who must not depend on the other addresses needs a separate endpoint.
package email

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/notify/post"
)

// The ways to encrypt a connection.
const (
	StartTLS = "starttls" // from the command STARTTLS on; a server without it is refused
	TLS      = "tls"      // from the first byte on
	// None is allowed within a machine or a private network, as for a relay on localhost, and without a password: what goes through other networks
	// unencrypted can be read and changed on the way, and a message about abuse has what an attacker wants to know.
	None = "none"
)

const (
	maxTo = 50
	// maxRead bounds what is read of a server in one try, in bytes.
	maxRead = 1 << 20
)

// Config configures a Sender. In any format, it prints only the host.
type Config struct {
	Server       string // host:port
	TLS          string // StartTLS (also if empty), TLS or None
	Username     string
	Password     post.Secret
	From         string // an address, with a name or without
	To           []string
	AllowPrivate bool
	Timeout      time.Duration // of a whole try; 0 means post.DefaultTimeout
	Now          func() time.Time
	RootCAs      *x509.CertPool
	// Link is the URL for details, with {since} and {until}; empty: there is none.
	Link string
}

// String returns the host and whether private addresses are allowed.
func (c Config) String() string {
	return fmt.Sprintf("email by %s, allow private %t", c.host(), c.AllowPrivate)
}

// GoString is String.
func (c Config) GoString() string { return c.String() }

// Format keeps every verb of package fmt from showing more than String.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON is String: a Config is shown, not stored.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

func (c Config) host() string {
	host, port, err := c.split()
	switch {
	case err != nil:
		return "[no server]"
	case c.TLS == TLS:
		return "smtps://" + net.JoinHostPort(host, port)
	}
	return "smtp://" + net.JoinHostPort(host, port)
}

// split returns the host and the port. Package net's own errors quote the address.
func (c Config) split() (host, port string, err error) {
	if c.Server == "" {
		return "", "", errors.New("smtp: missing; give the server as host:port, as in smtp: mail.example.com:587")
	}
	host, port, err = net.SplitHostPort(c.Server)
	n, nerr := strconv.Atoi(port)
	if err != nil || nerr != nil || n < 1 || n > 65535 || host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/@<>"\`, r) }) {
		return "", "", errors.New("smtp: is not host:port; use a form such as mail.example.com:587")
	}
	return host, port, nil
}

// Refused returns why connections are refused, as far as that is known before the host's name is resolved; nil if they are allowed.
func (c Config) Refused() error {
	host, _, err := c.split()
	if err != nil {
		return err
	}
	return post.Refused(host, c.AllowPrivate)
}

// Validate reports every problem at once, each beginning with the name of its field. No error contains a secret.
func (c Config) Validate() error {
	_, _, err := c.split()
	errs := []error{err, post.CheckTimeout(c.Timeout)}
	switch c.TLS {
	case "", StartTLS, TLS:
	case None:
		if !c.AllowPrivate {
			errs = append(errs, errors.New("tls: none is allowed only for servers on this machine or in a private network; also set allow_private: true, or set tls to starttls or tls"))
		}
		if !c.Password.IsZero() {
			errs = append(errs, errors.New("tls: none would send the password unencrypted; set tls to starttls or tls, or remove the password"))
		}
	default:
		errs = append(errs, errors.New("tls: must be starttls, tls or none"))
	}
	if (c.Username == "") != c.Password.IsZero() {
		errs = append(errs, errors.New("username: authentication requires both username and password; add the missing one"))
	}
	if c.From == "" {
		errs = append(errs, errors.New("from: missing; give an address, as in from: spate@example.com"))
	} else if _, err := address(c.From); err != nil {
		errs = append(errs, fmt.Errorf("from: %w", err))
	}
	if len(c.To) == 0 {
		errs = append(errs, errors.New("to: missing; give a list of addresses, as in to: [on-call@example.com]"))
	}
	if len(c.To) > maxTo {
		errs = append(errs, fmt.Errorf("to: has more than %d addresses; use a mailing list", maxTo))
	}
	for i, to := range c.To {
		if _, err := address(to); err != nil {
			errs = append(errs, fmt.Errorf("to: address %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

// address reads an address, with a name or without. What has other characters than ASCII in the address itself needs an extension of SMTP.
func address(text string) (*mail.Address, error) {
	a, err := mail.ParseAddress(text)
	if err != nil || strings.ContainsFunc(a.Address, func(r rune) bool { return r <= ' ' || r > '~' }) || strings.ContainsAny(a.Address, `<>"\`) || len(a.Address) > 254 {
		return nil, errors.New("is not an e-mail address; use a form such as on-call@example.com")
	}
	return a, nil
}

// Sender is the notify.Notifier. It is safe for concurrent use: every message has a connection of its own.
type Sender struct {
	host, port string
	shown      string
	mode       string
	username   string
	password   post.Secret
	from       *mail.Address
	to         []*mail.Address
	private    bool
	timeout    time.Duration
	roots      *x509.CertPool
	link       string
	quotes     func() post.Quotes // a function for the reason that post.Secret has one
}

var _ notify.Notifier = (*Sender)(nil)

// New returns a Sender.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("email: %w", err)
	}
	s := &Sender{shown: c.host(), mode: c.TLS, username: c.Username, password: c.Password, private: c.AllowPrivate, timeout: c.Timeout, roots: c.RootCAs, link: c.Link}
	if s.timeout == 0 {
		s.timeout = post.DefaultTimeout
	}
	quotes := post.NewQuotes(nil, c.Password.Reveal())
	s.quotes = func() post.Quotes { return quotes }
	var err error
	if s.host, s.port, err = c.split(); err != nil {
		return nil, fmt.Errorf("email: %w", err)
	}
	if s.from, err = address(c.From); err != nil {
		return nil, fmt.Errorf("email: from: %w", err)
	}
	for _, to := range c.To {
		a, err := address(to)
		if err != nil {
			return nil, fmt.Errorf("email: to: %w", err)
		}
		s.to = append(s.to, a)
	}
	return s, nil
}

// Host returns the server: smtp://host:port, or smtps://host:port if the connection is encrypted from the first byte.
func (s *Sender) Host() string { return s.shown }

// String is Host.
func (s *Sender) String() string { return s.Host() }

// GoString is Host.
func (s *Sender) GoString() string { return s.Host() }

// Format keeps every verb of package fmt from showing more than Host.
func (s *Sender) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Host()) }

// LogValue is Host.
func (s *Sender) LogValue() slog.Value { return slog.StringValue(s.Host()) }

// MarshalJSON is Host.
func (s *Sender) MarshalJSON() ([]byte, error) { return json.Marshal(s.Host()) }

// Close does nothing: no connection outlives its message.
func (*Sender) Close() {}

// Check implements notify.Notifier.
func (s *Sender) Check(m notify.Message) error {
	_, err := s.letter(m)
	return err
}

// Notify implements notify.Notifier. The status of the result is an SMTP status: 250 means delivered.
func (s *Sender) Notify(ctx context.Context, m notify.Message) notify.Result {
	letter, err := s.letter(m)
	if err != nil {
		return post.Unsendable(err)
	}
	code, step, err := s.send(ctx, letter)
	if err == nil {
		return notify.Result{Outcome: notify.Delivered, Status: code}
	}
	var (
		said   *textproto.Error
		own    ownError
		record tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &said):
		reason := fmt.Sprintf("%s: status %d", step, said.Code)
		if text := s.quotes().Said([]byte(said.Msg)); text != "" {
			reason += ": " + text
		}
		return post.Failed(max(said.Code, 0), reason)
	case errors.As(err, &own):
		return post.Failed(0, step+": "+string(own))
	case errors.As(err, &record):
		return post.Failed(0, "TLS: the response is not TLS; set tls: starttls if the connection begins unencrypted, as on port 587")
	}
	if reason, ok := post.Reason(ctx, err, s.timeout); ok {
		return post.Failed(0, reason)
	}
	return post.Failed(0, step+": invalid SMTP response")
}

// ownError is a reason in our words.
type ownError string

func (e ownError) Error() string { return string(e) }

// send sends a letter. It returns the last status, and at which step it failed.
func (s *Sender) send(ctx context.Context, letter []byte) (code int, step string, err error) {
	try, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	dialer := post.Dialer(s.timeout, s.private)
	if s.mode == None {
		dialer = post.PrivateDialer(s.timeout)
	}
	raw, err := dialer.DialContext(try, "tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		return 0, "connect", err
	}
	defer raw.Close()
	if deadline, ok := try.Deadline(); ok {
		if err := raw.SetDeadline(deadline); err != nil {
			return 0, "connect", err
		}
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() }) // interrupted
	defer stop()
	var conn net.Conn = &bounded{Conn: raw, left: maxRead}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.roots, ServerName: s.host}
	if s.mode == TLS {
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(try); err != nil {
			return 0, "TLS", err
		}
		conn = secured
	}
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return 0, "greeting", err
	}
	defer c.Close()
	if err := c.Hello(domain(s.from)); err != nil {
		return 0, "EHLO", err
	}
	if s.mode == "" || s.mode == StartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return 0, "STARTTLS", ownError("the server does not support it; set tls: tls if the connection is encrypted from the start, as on port 465")
		}
		if err := c.StartTLS(config); err != nil {
			return 0, "STARTTLS", err
		}
	}
	if s.username != "" {
		auth, err := s.auth(c)
		if err != nil {
			return 0, "AUTH", err
		}
		if err := c.Auth(auth); err != nil {
			return 0, "AUTH", err
		}
	}
	if err := c.Mail(s.from.Address); err != nil {
		return 0, "MAIL", err
	}
	for i, to := range s.to {
		if err := c.Rcpt(to.Address); err != nil {
			return 0, fmt.Sprintf("recipient %d of %d", i+1, len(s.to)), err
		}
	}
	w, err := c.Data()
	if err != nil {
		return 0, "DATA", err
	}
	if _, err := w.Write(letter); err != nil {
		return 0, "DATA", err
	}
	if err := w.Close(); err != nil {
		return 0, "end of DATA", err
	}
	_ = c.Quit() // the message has been accepted
	return 250, "", nil
}

// auth returns the way to log in that the server has: PLAIN, or LOGIN, which is all that some large providers have.
func (s *Sender) auth(c *smtp.Client) (smtp.Auth, error) {
	_, offered := c.Extension("AUTH")
	mechanisms := strings.Fields(strings.ToUpper(offered))
	switch {
	case slices.Contains(mechanisms, "PLAIN"):
		return smtp.PlainAuth("", s.username, s.password.Reveal(), s.host), nil
	case slices.Contains(mechanisms, "LOGIN"):
		return &login{s.username, s.password}, nil
	}
	return nil, ownError("the server supports neither PLAIN nor LOGIN")
}

// login is AUTH LOGIN, which was never standardized: the server asks for the name, then for the password.
type login struct {
	username string
	password post.Secret
}

// Start implements smtp.Auth.
func (*login) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS {
		return "", nil, ownError("the connection is not encrypted")
	}
	return "LOGIN", nil, nil
}

// Next implements smtp.Auth.
func (l *login) Next(question []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	switch q := strings.ToLower(string(question)); {
	case strings.HasPrefix(q, "user"):
		return []byte(l.username), nil
	case strings.HasPrefix(q, "pass"):
		return []byte(l.password.Reveal()), nil
	}
	return nil, ownError("during AUTH LOGIN, the server asked for something other than a user name or a password")
}

// bounded is a connection of which only so much is read.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, ownError("the server sends too much data")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// domain is that of an address.
func domain(a *mail.Address) string { return a.Address[strings.LastIndexByte(a.Address, '@')+1:] }

// letter is the whole mail.
func (s *Sender) letter(m notify.Message) ([]byte, error) {
	b, err := brief.Of(m, s.link)
	if err != nil {
		return nil, err
	}
	return s.write(m, b)
}
