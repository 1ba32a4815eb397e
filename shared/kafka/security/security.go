// Package security authenticates spate to brokers and brokers to spate: TLS, SASL, and the client configuration files of Kafka vendors
// that contain settings for both.
//
// TLS files that have changed are reloaded at the next connection, and password files are read at each login, so certificates and
// passwords can be rotated while the process runs. If a new file is unusable, this is logged and the previous contents stay in use.
package security

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Mechanisms of SASL.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
	AWSMSKIAM   = "AWS_MSK_IAM"
)

var mechanisms = []string{Plain, ScramSHA256, ScramSHA512, OAuthBearer, AWSMSKIAM}

// Config says how connections to the brokers are secured. The zero value is neither encrypted nor authenticated.
type Config struct {
	TLS  TLS
	SASL SASL
}

// TLS is the encryption of connections. Every field but Enabled implies it.
type TLS struct {
	Enabled bool
	// CAFile has the authorities that brokers' certificates are checked against, as PEM; the system's if empty.
	CAFile string
	// CertFile and KeyFile are the client's certificate and key, as PEM, for brokers that ask for one.
	CertFile, KeyFile string
	// ServerName is what the brokers' certificates must be for, in place of the name that is connected to.
	ServerName string
	// InsecureSkipVerify accepts any certificate.
	InsecureSkipVerify bool
}

// SASL is the login at the brokers.
type SASL struct {
	// Mechanism is one of the constants of this package, in any case; none if empty.
	Mechanism string

	Username string
	// Password or PasswordFile, whose last line end does not count: of PLAIN and SCRAM.
	Password, PasswordFile string

	OAuth OAuth
}

// OAuth says where the tokens of OAUTHBEARER come from: a file, or a server that is asked with the client's credentials.
type OAuth struct {
	TokenFile string

	TokenURL, ClientID             string
	ClientSecret, ClientSecretFile string
	Scopes                         []string

	// Extensions are told to the broker with the token, each "name=value".
	Extensions []string
}

// normal returns c with the implied values set.
func (c Config) normal() Config {
	c.SASL.Mechanism = strings.ToUpper(strings.TrimSpace(c.SASL.Mechanism))
	t := c.TLS
	if t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != "" || t.InsecureSkipVerify || c.SASL.Mechanism == AWSMSKIAM {
		c.TLS.Enabled = true
	}
	return c
}

// Validate reports every problem of c at once, each by the name of its setting; it does no I/O.
func (c Config) Validate() error {
	c = c.normal()
	var errs []error
	problem := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	errs = append(errs, c.TLS.validate(brokers))
	s, o := c.SASL, c.SASL.OAuth
	if s.Password != "" && s.PasswordFile != "" {
		problem("sasl-password-file: SPATE_SASL_PASSWORD is also set; set only one of them")
	}
	if o.ClientSecret != "" && o.ClientSecretFile != "" {
		problem("sasl-oauth-client-secret-file: SPATE_SASL_OAUTH_CLIENT_SECRET is also set; set only one of them")
	}
	login := s.Username != "" || s.Password != "" || s.PasswordFile != ""
	tokens := o.TokenFile != "" || o.TokenURL != "" || o.ClientID != "" || o.ClientSecret != "" || o.ClientSecretFile != "" || len(o.Scopes) > 0 || len(o.Extensions) > 0
	switch s.Mechanism {
	case "":
		if login || tokens {
			problem("sasl-mechanism: missing, but other SASL settings are set; set SPATE_SASL_MECHANISM to the mechanism that your brokers use, one of %s", strings.Join(mechanisms, ", "))
		}
	case Plain, ScramSHA256, ScramSHA512:
		if s.Username == "" {
			problem("sasl-username: missing; %s requires it (SPATE_SASL_USERNAME)", s.Mechanism)
		}
		if s.Password == "" && s.PasswordFile == "" {
			problem("sasl-password-file: missing; %s requires a password, in a file or in SPATE_SASL_PASSWORD", s.Mechanism)
		}
		if tokens {
			problem("sasl-oauth: these settings are for OAUTHBEARER, but the mechanism is %s", s.Mechanism)
		}
	case OAuthBearer:
		errs = append(errs, o.validate()...)
		if login {
			problem("sasl-username, sasl-password-file: not used by OAUTHBEARER; set sasl-oauth-client-id and sasl-oauth-client-secret-file instead")
		}
	case AWSMSKIAM:
		if login || tokens {
			problem("sasl-mechanism: AWS_MSK_IAM takes its credentials from the environment, the AWS profile or the instance role; remove the other SASL settings")
		}
	default:
		problem("sasl-mechanism: %.40q is not one of %s", s.Mechanism, strings.Join(mechanisms, ", "))
	}
	return errors.Join(errs...)
}

// validate reports whether a certificate comes without its key, or the other way round.
func (t TLS) validate(of peer) error {
	cert, key := "tls-cert-file", "tls-key-file"
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		return fmt.Errorf("%s: missing, but %s is set; set %s to the key of that certificate", of.flag(key), of.flag(cert), of.set(key))
	case t.KeyFile != "" && t.CertFile == "":
		return fmt.Errorf("%s: missing, but %s is set; set %s to the certificate of that key", of.flag(cert), of.flag(key), of.set(cert))
	}
	return nil
}

// ErrCredentials means that what one logs in with cannot be had: a file cannot be read, a token server gives no token. No broker was asked.
var ErrCredentials = errors.New("no credentials")

// Client secures the connections of all clients of a process. A nil Client secures none.
type Client struct {
	cfg       Config
	material  *material // nil without TLS
	mechanism sasl.Mechanism
}

// New checks c, and reads its files once so that a wrong one is an error at the start. A nil *Client and no error means that there is nothing
// to secure.
func New(c Config, log *slog.Logger) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.normal()
	s := &Client{cfg: c}
	var errs []error
	if c.TLS.Enabled {
		s.material = newMaterial(brokers, c.TLS, log)
		errs = append(errs, s.material.load())
		if c.TLS.InsecureSkipVerify {
			log.Warn("the brokers' certificates are not verified: anyone on the network path can read and change all data (tls-insecure-skip-verify)")
		}
	}
	var err error
	if s.mechanism, err = newMechanism(c, log); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if s.mechanism == nil && s.material == nil {
		return nil, nil
	}
	if !c.TLS.Enabled && c.SASL.Mechanism == Plain {
		log.Warn("the password is sent to the brokers unencrypted; set SPATE_TLS if the brokers support TLS", "mechanism", Plain)
	}
	return s, nil
}

// Options are what a client of the broker needs to connect.
func (s *Client) Options() []kgo.Opt {
	if s == nil {
		return nil
	}
	var opts []kgo.Opt
	if s.material != nil {
		opts = append(opts, kgo.Dialer(s.material.dial))
	}
	if s.mechanism != nil {
		opts = append(opts, kgo.SASL(s.mechanism))
	}
	return opts
}

// Config is what connections are secured with. Its secrets are in it.
func (s *Client) Config() Config {
	if s == nil {
		return Config{}
	}
	return s.cfg
}

func newMechanism(c Config, log *slog.Logger) (sasl.Mechanism, error) {
	s := c.SASL
	password := secret{setting: "sasl-password-file", text: s.Password, file: s.PasswordFile}
	switch s.Mechanism {
	case Plain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := password.read()
			return plain.Auth{User: s.Username, Pass: pass}, lacking(err)
		}), password.check()
	case ScramSHA256, ScramSHA512:
		auth := func(context.Context) (scram.Auth, error) {
			pass, err := password.read()
			return scram.Auth{User: s.Username, Pass: pass}, lacking(err)
		}
		if s.Mechanism == ScramSHA512 {
			return scram.Sha512(auth), password.check()
		}
		return scram.Sha256(auth), password.check()
	case OAuthBearer:
		t, err := newTokens(s.OAuth, c.TLS.CAFile, log)
		if err != nil {
			return nil, err
		}
		return oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			a, err := t.auth(ctx)
			return a, lacking(err)
		}), nil
	case AWSMSKIAM:
		chain := new(iam)
		return aws.ManagedStreamingIAM(func(ctx context.Context) (aws.Auth, error) {
			a, err := chain.auth(ctx)
			return a, lacking(err)
		}), nil
	}
	return nil, nil
}

// lacking marks an error as one of credentials.
func lacking(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrCredentials, err)
}

const (
	dialTimeout  = 10 * time.Second
	shakeTimeout = 5 * time.Second
	keepAlive    = 30 * time.Second
)

var dialer = net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
