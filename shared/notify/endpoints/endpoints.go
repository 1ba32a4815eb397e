// Package endpoints reads the configuration of endpoints: one from flags, and any number from a YAML file. Its errors list all problems, by
// file, line, endpoint and field. They contain neither secrets nor URL paths, even if the user has mixed up fields.
package endpoints

import (
	"errors"
	"fmt"
	"strings"

	"spate/shared/notify"
	"spate/shared/notify/webhook"
)

// FlagName is the name of the endpoint that the flags make.
const FlagName = "webhook"

// Spec is an endpoint as configured. Its secrets are inside its functions.
type Spec struct {
	notify.Endpoint
	Format string
	Link   string // URL for details, with {since} and {until}
	// Shows: the endpoint shows the current state of an incident, so an earlier message about the incident must not come after a later one.
	Shows bool
	// Refused returns why calls to the endpoint are refused, as far as that is known before names are resolved; nil if they are allowed.
	Refused func() error
	// Open returns a Sender for the endpoint. It does not connect yet. The caller closes it.
	Open func() (Sender, error)
}

// Flags are the settings that define one endpoint without a file.
type Flags struct {
	URL, Secret  string
	AllowPrivate bool
}

// Spec returns the endpoint, or none if nothing is set. The error lists every problem.
func (f Flags) Spec() ([]Spec, error) {
	secret := strings.TrimSpace(f.Secret)
	switch {
	case f.URL == "" && secret == "":
		return nil, nil
	case secret == "":
		return nil, errors.New("webhook-secret: missing, but webhook-url is set and calls must be signed; set SPATE_WEBHOOK_SECRET to whsec_ followed by 24 to 64 random bytes in base64, " +
			"for example whsec_$(openssl rand -base64 32)")
	case f.URL == "":
		return nil, errors.New("webhook-url: missing, but webhook-secret is set; set SPATE_WEBHOOK_URL to the URL to notify of alerts")
	}
	cfg := webhook.Config{URL: f.URL, AllowPrivate: f.AllowPrivate}
	var errs []error
	var err error
	if cfg.Secrets, err = webhook.ParseSecrets(secret); err != nil {
		for _, e := range Problems(err) {
			errs = append(errs, fmt.Errorf("webhook-secret: %w", e))
		}
		cfg.Secrets = placeholderSecrets
	}
	for _, e := range Problems(cfg.Validate()) {
		errs = append(errs, fmt.Errorf("webhook-%w", e)) // it begins with the field's name
	}
	d := to(cfg, cfg.Refused, webhook.New)
	return []Spec{{Endpoint: notify.Endpoint{Name: FlagName}, Format: DefaultFormat, Refused: d.refused, Open: d.open}}, errors.Join(errs...)
}

// placeholderSecrets stand for secrets whose problems are known, so that those of the other fields are found, too.
var placeholderSecrets = func() []webhook.Secret {
	s, err := webhook.ParseSecrets(webhook.NewSecret())
	if err != nil {
		panic(err)
	}
	return s
}()

// Problems returns the errors that errors.Join combined.
func Problems(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, Problems(e)...)
		}
		return out
	}
	return []error{err}
}
