package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/alecthomas/kong"

	"spate/services/alerter/deliver"
	"spate/shared/notify/endpoints"
	"spate/shared/notify/webhook"
)

// webhookFlags say who is notified of alerts: one endpoint in flags, any number in a file.
//
// It has no method Validate, and must have none: kong would call it, also for the commands that embed it.
type webhookFlags struct {
	WebhookURL          string     `name:"webhook-url" env:"SPATE_WEBHOOK_URL" placeholder:"URL" help:"URL to notify of every incident (https://host/path). Calls are signed according to Standard Webhooks, which requires a secret. The endpoint is named webhook."`
	WebhookSecret       secretText `name:"webhook-secret" env:"SPATE_WEBHOOK_SECRET" placeholder:"SECRET" help:"Secret that signs the calls: whsec_ followed by 24 to 64 random bytes in base64. To rotate, give two secrets, separated by a space. Prefer the environment variable: other users of this machine can see command-line flags."`
	WebhookAllowPrivate bool       `name:"webhook-allow-private" env:"SPATE_WEBHOOK_ALLOW_PRIVATE" help:"Allow the address of --webhook-url to be on this machine or in a private network."`
	Endpoints           string     `name:"endpoints" env:"SPATE_ENDPOINTS" placeholder:"FILE" help:"YAML file that defines additional endpoints: signed webhooks, PagerDuty, Slack, Alertmanager, email and others, with filters, rate limits and digests. For an example, run spate endpoints --help; to list all formats and fields, run spate endpoints formats."`
}

// secretText is a flag that holds secrets. It takes all that follow it on the command line, with or without quotes, so that none ends up
// in a complaint about an argument that nobody expects; printed, it is hidden.
type secretText string

// Decode implements kong.MapperValue.
func (s *secretText) Decode(ctx *kong.DecodeContext) error {
	text, err := popText(ctx, "a secret", func(next string) bool { return strings.HasPrefix(next, webhook.SecretPrefix) })
	*s = secretText(text)
	if err != nil {
		return fmt.Errorf("%w: "+webhook.SecretPrefix+"..., or set SPATE_WEBHOOK_SECRET", err)
	}
	return nil
}

// popText reads the value of a flag, and the arguments after it that are more of the same.
func popText(ctx *kong.DecodeContext, what string, more func(string) bool) (string, error) {
	var text string
	if err := ctx.Scan.PopValueInto("value", &text); err != nil {
		return "", errors.New(what + " is missing") // the cause quotes what is there
	}
	for {
		next, ok := ctx.Scan.Peek().Value.(string)
		if !ok || !more(next) {
			return text, nil
		}
		ctx.Scan.Pop()
		text += " " + next
	}
}

// Format keeps every verb of package fmt from showing it.
func (s secretText) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = io.WriteString(f, "[secret]")
	}
}

// endpoints returns who is notified of alerts, and what closes them, which is never nil. An error is the person's to mend; it names
// everything that is wrong by file, line, endpoint and field, and has neither a secret nor a URL's path in it.
func (f webhookFlags) endpoints(log *slog.Logger) ([]deliver.Endpoint, func(), error) {
	specs, err := endpoints.Flags{URL: f.WebhookURL, Secret: string(f.WebhookSecret), AllowPrivate: f.WebhookAllowPrivate}.Spec()
	if f.Endpoints != "" {
		more, ferr := endpoints.Read(f.Endpoints, len(specs) > 0, log)
		specs, err = append(specs, more...), errors.Join(err, ferr)
	}
	if err != nil {
		return nil, func() {}, err
	}
	var out []deliver.Endpoint
	var senders []endpoints.Sender
	stop := func() {
		for _, s := range senders {
			s.Close()
		}
	}
	for _, s := range specs {
		sender, err := s.Open()
		if err != nil { // it was checked
			stop()
			return nil, func() {}, fmt.Errorf("endpoint %q: %w", s.Name, err)
		}
		if err := s.Refused(); err != nil {
			log.Warn("this endpoint will not be called: "+err.Error(), "endpoint", s.Name)
		}
		senders = append(senders, sender)
		out = append(out, deliver.Endpoint{Endpoint: s.Endpoint, Notifier: sender, Format: s.Format, Shows: s.Shows, Link: s.Link})
	}
	return out, stop, nil
}
