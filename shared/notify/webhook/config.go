package webhook

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"spate/shared/notify/post"
)

// Config configures a Sender. In any format, it prints neither secrets nor more of the URL than the host.
type Config struct {
	// URL is the URL to call: http or https, absolute. Its path and query may hold a token, so they are kept out of errors and logs.
	URL string
	// Secrets all sign every call; there is at least one. While a secret is being replaced, there are two, the old one and the new one,
	// and a receiver that knows either accepts the call.
	Secrets []Secret
	// AllowPrivate lets calls go to loopback and private addresses. Link-local addresses, where clouds keep credentials, stay refused.
	AllowPrivate bool
	// Timeout is the timeout of a whole try, up to 5 min; 0 means 15 s.
	Timeout time.Duration
	// Now is the clock that calls are stamped with; nil is time.Now.
	Now func() time.Time
	// RootCAs are the trusted certificate authorities; nil means the system's.
	RootCAs *x509.CertPool
}

// Validate reports every problem at once. The error contains neither a secret nor the URL's path, query or credentials.
func (c Config) Validate() error {
	var errs []error
	_, err := c.target().Parse()
	if err != nil {
		errs = append(errs, err)
	}
	if len(c.Secrets) == 0 {
		errs = append(errs, errors.New("secrets: missing; give at least one: whsec_ followed by 24 to 64 bytes in base64"+makeSecret))
	}
	for i, s := range c.Secrets {
		if s.signer == nil {
			errs = append(errs, fmt.Errorf("secrets: number %d is empty; create secrets with ParseSecrets or NewSecret", i+1))
		}
	}
	return errors.Join(append(errs, post.CheckTimeout(c.Timeout))...)
}

func (c Config) target() post.Target {
	return post.Target{URL: c.URL, AllowPrivate: c.AllowPrivate, Timeout: c.Timeout, Now: c.Now, RootCAs: c.RootCAs}
}

// Refused returns why calls to the address in the URL are refused, as far as that is known before its name is resolved; nil if they are allowed.
func (c Config) Refused() error { return c.target().Refused() }

// String returns the host and the number of secrets.
func (c Config) String() string {
	return fmt.Sprintf("webhook %s, %d secrets, allow private %t", c.target().Host(), len(c.Secrets), c.AllowPrivate)
}

// GoString is String.
func (c Config) GoString() string { return c.String() }

// Format keeps every verb of package fmt from showing more than String.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON is String: a Config is shown, not stored.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// SecretPrefix is what secrets begin with.
const SecretPrefix = "whsec_"

const (
	minSecret = 24 // bytes, as Standard Webhooks 1.0 has it
	maxSecret = 64
	newSecret = 32
	redacted  = "[secret]"
	// makeSecret follows what is wrong with a secret.
	makeSecret = `; to make one, run: echo "whsec_$(openssl rand -base64 32)"`
)

// Secret signs calls and checks signatures. In any format or encoding, it prints as "[secret]". The zero value signs nothing and is
// refused everywhere.
type Secret struct {
	// A function, because package fmt prints what is in somebody else's unexported field without asking for its methods, and with the
	// wrong verb even what pointers there point to. Of functions it has nothing to print.
	signer func() *standardwebhooks.Webhook
	text   func() string // without the prefix
}

// ParseSecrets reads secrets separated by white space, each whsec_ and 24 to 64 bytes in standard base64. It reports every problem
// at once, by the secret's position. Empty text means no secret and no error.
func ParseSecrets(text string) ([]Secret, error) {
	var (
		secrets []Secret
		errs    []error
	)
	for i, field := range strings.Fields(text) {
		s, err := parseSecret(field)
		if err != nil {
			errs = append(errs, fmt.Errorf("secret %d: %w", i+1, err))
			continue
		}
		secrets = append(secrets, s)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return secrets, nil
}

func parseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, SecretPrefix)
	if !ok {
		return Secret{}, errors.New("does not begin with " + SecretPrefix + makeSecret)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Secret{}, errors.New("the part after " + SecretPrefix + " is not standard base64 with padding" + makeSecret) // the cause may quote it
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return Secret{}, fmt.Errorf("is %d bytes long; it must be %d to %d bytes long"+makeSecret, len(key), minSecret, maxSecret)
	}
	signer, err := standardwebhooks.NewWebhookRaw(bytes.Clone(key))
	if err != nil {
		return Secret{}, errors.New("is rejected by the signing library")
	}
	return Secret{signer: func() *standardwebhooks.Webhook { return signer }, text: func() string { return encoded }}, nil
}

// NewSecret returns the text of a new secret of 32 random bytes.
func NewSecret() string {
	var key [newSecret]byte
	_, _ = rand.Read(key[:]) // never fails
	return SecretPrefix + base64.StdEncoding.EncodeToString(key[:])
}

// String is "[secret]".
func (Secret) String() string { return redacted }

// GoString is "[secret]".
func (Secret) GoString() string { return redacted }

// Format writes "[secret]", whatever the verb: %d and %x would print the bytes.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is "[secret]".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
