package endpoints

import (
	"slices"
	"strings"

	"spate/shared/notify"
	"spate/shared/notify/alertmanager"
	"spate/shared/notify/email"
	"spate/shared/notify/pagerduty"
	"spate/shared/notify/post"
	"spate/shared/notify/slack"
	"spate/shared/notify/template"
	"spate/shared/notify/webhook"
)

// Sender is a notify.Notifier of any format. Host returns the part of its address that may be shown: scheme://host[:port].
type Sender interface {
	notify.Notifier
	Host() string
	// Close closes idle connections. Messages in progress are not interrupted.
	Close()
}

// DefaultFormat is the format of an endpoint that does not name one.
const DefaultFormat = "standard-webhooks"

// Field is a field of an endpoint in the file.
type Field struct {
	Name string `json:"name"`
	// Required: every endpoint of the format must have the field.
	Required bool `json:"required,omitempty"`
	// Secret: the value can also come from the environment variable named in NAME_env or the file named in NAME_file, and is never shown.
	Secret  bool   `json:"secret,omitempty"`
	Default string `json:"default,omitempty"`
	Help    string `json:"help"`
}

// keys are the names under which a field can be given.
func (f Field) keys() []string {
	if f.Secret {
		return []string{f.Name, f.Name + "_env", f.Name + "_file"}
	}
	return []string{f.Name}
}

// Format is a way to notify an endpoint.
type Format struct {
	Name   string  `json:"name"`
	Help   string  `json:"help"`
	Fields []Field `json:"fields"`
	// Example is an endpoint in YAML.
	Example string `json:"example"`

	// open: it shows which incidents are open, so that it has to hear of the end of each.
	open bool
	// shows: it shows how an incident is. Of the messages about one, an earlier one must not come after a later one.
	shows bool
	read  func(endpointNode) destination
}

// destination is where and how an endpoint is notified, as configured.
type destination struct {
	// validate reports problems, each with the name of its field first.
	validate func() error
	// refused says why no connection will be made, as far as that is known before names are resolved.
	refused func() error
	open    func() (Sender, error)
}

func to[C interface{ Validate() error }, S Sender](c C, refused func() error, open func(C) (S, error)) destination {
	return destination{c.Validate, refused, func() (Sender, error) {
		s, err := open(c)
		if err != nil {
			return nil, err
		}
		return s, nil
	}}
}

// Formats returns all formats, the default first.
func Formats() []Format { return slices.Clone(formats) }

// CommonFields returns the fields that endpoints of every format have.
func CommonFields() []Field { return slices.Clone(common) }

var common = []Field{
	{Name: "name", Required: true, Help: "unique name: lower-case letters, digits and single dashes; it is stored with the messages, so do not change it"},
	{Name: "format", Default: DefaultFormat, Help: "name of the format"},
	{Name: "allow_private", Default: "false", Help: "allow addresses on this machine or in a private network"},
	{Name: "rules", Help: "list of rules to notify of; all rules if absent"},
	{Name: "min_severity", Help: "minimum severity to notify of: warning or critical"},
	{Name: "transitions", Help: "list of states (opened, raised, closed): the endpoint is notified of alerts that reach one of them, instead of incidents"},
	{Name: "rate", Help: "maximum attempts per second"},
	{Name: "digest_above", Help: "number of messages per minute that are sent individually; the others, except critical ones, go into one digest"},
	{Name: "link", Help: "URL to open for details; {since} and {until} are replaced with times"},
}

const whereSecret = "whsec_ followed by 24 to 64 random bytes in base64"

var formats = []Format{
	{
		Name: DefaultFormat, Help: "JSON, signed according to Standard Webhooks 1.0 (docs/webhooks.md)",
		Fields: []Field{
			{Name: "url", Required: true, Secret: true, Help: "https://host/path"},
			{Name: "secret", Required: true, Secret: true, Help: whereSecret + "; to rotate, give two secrets, separated by a space"},
		},
		Example: "- name: hook\n  url: https://your.host/hook\n  secret_env: HOOK_SECRET\n",
		read: func(e endpointNode) destination {
			c := webhook.Config{AllowPrivate: e.yes("allow_private")}
			c.URL = e.oneOf("url", "https://host/path", true)
			if text := e.oneOf("secret", whereSecret, true); text != "" {
				var err error
				if c.Secrets, err = webhook.ParseSecrets(text); err != nil {
					for _, p := range Problems(err) {
						e.wrong(e.given("secret"), "%w", p)
					}
				}
			}
			if len(c.Secrets) == 0 {
				c.Secrets = placeholderSecrets // its problems are known
			}
			return to(c, c.Refused, webhook.New)
		},
	},
	{
		Name: "pagerduty", Help: "PagerDuty, Events API v2: one alert per incident, resolved when the incident is",
		Fields: []Field{
			{Name: "routing_key", Required: true, Secret: true, Help: "integration key of an Events API v2 integration, 32 letters and digits"},
			{Name: "url", Default: pagerduty.DefaultURL, Help: "https://events.eu.pagerduty.com for the EU service region; for a trial, any address; an address on your own machine needs allow_private"},
		},
		Example: "- name: on-call\n  format: pagerduty\n  routing_key_env: PAGERDUTY_KEY\n  min_severity: critical\n",
		open:    true, shows: true,
		read: func(e endpointNode) destination {
			c := pagerduty.Config{Target: e.target(e.text("url"), pagerduty.DefaultURL), Link: e.text("link")}
			c.RoutingKey = post.NewSecret(e.oneOf("routing_key", "32 letters and digits", true))
			return to(c, c.Refused, pagerduty.New)
		},
	},
	{
		Name: "slack", Help: "Slack: with url, each message is a new Slack message; with token and channel, an incident is one Slack message, which is edited",
		shows: true,
		Fields: []Field{
			{Name: "url", Secret: true, Help: "incoming webhook, https://hooks.slack.com/services/..."},
			{Name: "token", Secret: true, Help: "token of a bot that has the chat:write scope, xoxb-..."},
			{Name: "channel", Help: "ID of the channel, such as C0123456789; used with token; the bot must be a member"},
			{Name: "api_url", Default: slack.DefaultAPI, Help: "URL of the Web API, used with token; https://slack-gov.com/api for GovSlack"},
		},
		Example: "- name: chat\n  format: slack\n  token_env: SLACK_TOKEN\n  channel: C0123456789\n",
		read:    endpointNode.slack,
	},
	{
		Name: "alertmanager", Help: "Alertmanager, API v2: one alert per incident, resolved when the incident is",
		Fields: []Field{
			{Name: "url", Required: true, Secret: true, Help: "http://host:9093, with the route prefix, if any"},
			{Name: "username", Help: "for basic authentication"},
			{Name: "password", Secret: true, Help: "for basic authentication"},
			{Name: "token", Secret: true, Help: "for bearer authentication"},
		},
		Example: "- name: alertmanager\n  format: alertmanager\n  url: http://alertmanager:9093\n  allow_private: true\n",
		open:    true, shows: true,
		read: func(e endpointNode) destination {
			c := alertmanager.Config{Username: e.text("username"), Link: e.text("link")}
			c.Target = e.target(e.oneOf("url", "http://host:9093", true), "https://unknown.invalid")
			c.Password = post.NewSecret(e.oneOf("password", "any text", false))
			c.Token = post.NewSecret(e.oneOf("token", "any text", false))
			if e.bad[e.given("password")] || e.bad[e.given("token")] {
				c.Username, c.Password, c.Token = "", post.Secret{}, post.Secret{} // the problem is known
			}
			return to(c, c.Refused, alertmanager.New)
		},
	},
	{
		Name: "email", Help: "email over SMTP: the messages about an incident form one thread",
		Fields: []Field{
			{Name: "smtp", Required: true, Help: "server, such as mail.example.com:587"},
			{Name: "from", Required: true, Help: "address, such as spate@example.com or Alerts <spate@example.com>"},
			{Name: "to", Required: true, Help: "list of addresses; if the server refuses one of them, no recipient gets the message"},
			{Name: "tls", Default: email.StartTLS, Help: "starttls, tls (encrypted from the start, as on port 465) or none (only with allow_private, to private addresses, without a password)"},
			{Name: "username", Help: "to log in"},
			{Name: "password", Secret: true, Help: "to log in"},
		},
		Example: "- name: mail\n  format: email\n  smtp: mail.example.com:587\n  from: spate@example.com\n  to: [on-call@example.com]\n  username: spate\n  password_env: MAIL_PASSWORD\n",
		read: func(e endpointNode) destination {
			c := email.Config{
				Server: e.text("smtp"), TLS: e.text("tls"), From: e.text("from"), To: e.texts("to"), Username: e.text("username"), AllowPrivate: e.yes("allow_private"), Link: e.text("link"),
				Password: post.NewSecret(e.oneOf("password", "any text", false)),
			}
			if e.bad[e.given("password")] {
				c.Username = "" // the problem is known
			}
			return to(c, c.Refused, email.New)
		},
	},
	{
		Name: "template", Help: "any HTTP API: the body is a Go template (docs/destinations.md#template)",
		Fields: []Field{
			{Name: "url", Required: true, Secret: true, Help: "https://host/path"},
			{Name: "body", Required: true, Help: "template of the body"},
			{Name: "headers", Help: "additional headers; each value is a template"},
			{Name: "content_type", Default: template.DefaultContentType, Help: "media type of the body; if it is JSON, a body that is not JSON is an error"},
			{Name: "method", Default: "POST", Help: "POST or PUT"},
			{Name: "secret", Secret: true, Help: "value of {{secret}} in the body and in headers"},
		},
		Example: "- name: discord\n  format: template\n  url_env: DISCORD_URL\n  body: |\n    {\"content\": {{json (cut 2000 (print .status \": \" .title))}}, \"allowed_mentions\": {\"parse\": []}}\n",
		read:    endpointNode.template,
	},
}

// slack reads an endpoint in Slack: an incoming webhook, or a bot's token with a channel.
func (e endpointNode) slack() destination {
	c := slack.Config{Link: e.text("link"), Channel: strings.TrimSpace(e.text("channel"))}
	hook := e.oneOf("url", "https://hooks.slack.com/services/...", false)
	c.Token = post.NewSecret(e.oneOf("token", "xoxb-...", false))
	token, api := e.given("token"), e.at("api_url") != nil
	switch withToken, withHook := e.fields[token] != nil, e.fields[e.given("url")] != nil; {
	case withToken && withHook:
		e.wrong(e.given("url"), "cannot be used with token; use url for an incoming webhook, or token and channel for a bot")
	case !withToken && !withHook:
		e.wrong("url", "missing; give url (an incoming webhook, as in https://hooks.slack.com/services/...), or token and channel (a bot); url and token can also be given as _env or _file")
	case withToken && c.Token.IsZero():
		c.Token = post.NewSecret("xoxb-unknown") // its problem is known
	case withHook && api:
		e.wrong("api_url", "is used only with token; remove it")
	}
	c.Target = e.target(hook, "https://unknown.invalid")
	if !c.Token.IsZero() {
		c.Target = e.target(e.text("api_url"), slack.DefaultAPI)
	}
	return to(c, c.Refused, slack.New)
}

// template reads an endpoint whose body is a template.
func (e endpointNode) template() destination {
	c := template.Config{
		Body: e.text("body"), Headers: e.mapping("headers"), Method: e.text("method"), ContentType: e.text("content_type"), Link: e.text("link"),
		Alerts: len(e.texts("transitions")) > 0, Secret: post.NewSecret(e.oneOf("secret", "any text", false)),
	}
	c.Target = e.target(e.oneOf("url", "https://host/path", true), "https://unknown.invalid")
	return to(c, c.Refused, template.New)
}

// target is where an endpoint's calls go.
func (e endpointNode) target(url, otherwise string) post.Target {
	if url = strings.TrimSpace(url); url == "" {
		url = otherwise
	}
	return post.Target{URL: url, AllowPrivate: e.yes("allow_private")}
}

func formatOf(name string) *Format {
	for i := range formats {
		if formats[i].Name == name {
			return &formats[i]
		}
	}
	return nil
}

// names of the formats.
func formatNames() []string {
	var out []string
	for _, f := range formats {
		out = append(out, f.Name)
	}
	return out
}

// having returns the formats that have a key.
func having(key string) (out []string) {
	for _, f := range formats {
		if slices.Contains(f.own(), key) {
			out = append(out, f.Name)
		}
	}
	return out
}

// own are the keys that not every format has.
func (f *Format) own() (out []string) {
	for _, field := range f.Fields {
		out = append(out, field.keys()...)
	}
	return out
}

// keys are all that an endpoint of the format can have.
func (f *Format) keys() []string {
	out := append([]string{common[0].Name}, f.own()...)
	for _, field := range common[1:] {
		out = append(out, field.Name)
	}
	return out
}
