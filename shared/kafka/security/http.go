package security

import (
	"errors"
	"log/slog"
	"net/http"
)

// Registry is how a schema registry is asked: with TLS where its address has it, and with a login.
type Registry struct {
	TLS      TLS
	Username string
	// Password or PasswordFile, which is read at each request and whose last line end does not count.
	Password, PasswordFile string
}

// Client returns a client for the registry, or what is wrong with the settings. It follows no redirect, which would carry the password elsewhere.
func (r Registry) Client(log *slog.Logger) (*http.Client, error) {
	if err := r.TLS.validate(registry); err != nil {
		return nil, err
	}
	m := newMaterial(registry, r.TLS, log)
	password := secret{setting: registry.flag("password-file"), text: r.Password, file: r.PasswordFile}
	if err := errors.Join(m.load(), password.check()); err != nil {
		return nil, err
	}
	if r.TLS.InsecureSkipVerify {
		log.Warn("the schema registry's certificate is not verified: anyone on the network path can read and change all data (schema-registry-tls-insecure-skip-verify)")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialTLSContext = m.dial
	return &http.Client{
		Transport:     login{transport, r.Username, password, log},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// login adds name and password to requests.
type login struct {
	http.RoundTripper
	username string
	password secret
	log      *slog.Logger
}

// RoundTrip implements http.RoundTripper.
func (l login) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.username != "" {
		password, err := l.password.read()
		if err != nil {
			return nil, err
		}
		if r.URL.Scheme == "http" && !here(r.URL.Hostname()) {
			l.log.Warn("the password is sent to the schema registry unencrypted; use an https URL (schema-registry-url)")
		}
		r = r.Clone(r.Context())
		r.SetBasicAuth(l.username, password)
	}
	return l.RoundTripper.RoundTrip(r)
}
