// Package slack delivers messages to a channel of Slack, in one of two ways.
//
// With the URL of an incoming webhook, each message is a Slack message of its own. With the token of a bot, an incident is one Slack message, which
// chat.postMessage makes and chat.update changes when the incident escalates or is resolved: the message's channel and time, which name it, are
// [notify.Result.Ref], and come back as [notify.Message.Ref]. Without a Ref, or if the Slack message is gone, a new one is posted.
//
// Slack reports the result of a call in the body of its answer, even with status 200.
package slack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/notify/post"
)

const (
	// DefaultAPI is the URL of the Web API; https://slack-gov.com/api is the URL for GovSlack.
	DefaultAPI = "https://slack.com/api"

	// usually is how long Slack is left alone that does not say for how long.
	usually = time.Minute
)

// Config configures a Sender. In any format, it prints only the host.
type Config struct {
	// Target is the incoming webhook, or, with a Token, the Web API.
	post.Target
	// Token is the token of a bot that may write to Channel (scope chat:write); Channel is the id of a channel. Set both or neither.
	Token   post.Secret
	Channel string
	// Link is the URL for details, with {since} and {until}; empty: there is none.
	Link string
}

var (
	tokenForm = regexp.MustCompile(`^xox[a-z][a-zA-Z0-9.-]{4,500}$`)
	// channelForm: an id, or, for public channels, a name.
	channelForm = regexp.MustCompile(`^#?[\p{L}\p{N}_-]{1,80}$`)
)

// Validate reports every problem at once, each beginning with the name of its field. No error contains a secret.
func (c Config) Validate() error {
	if c.Token.IsZero() {
		var err error
		if c.Channel != "" {
			err = errors.New("channel: requires a bot's token, which is missing; an incoming webhook has its own channel")
		}
		return errors.Join(c.Target.Validate(), err)
	}
	var errs []error
	if err := c.Target.Validate(); err != nil {
		errs = append(errs, errors.New("api_"+err.Error()))
	}
	if !tokenForm.MatchString(c.Token.Reveal()) {
		errs = append(errs, errors.New("token: is not a Slack token; a bot's token begins with xoxb-"))
	}
	switch {
	case c.Channel == "":
		errs = append(errs, errors.New("channel: missing; give the ID of the channel, as in channel: C0123456789"))
	case !channelForm.MatchString(c.Channel):
		errs = append(errs, errors.New("channel: is not the ID of a channel; use an ID such as C0123456789"))
	}
	return errors.Join(errs...)
}

// Sender is the notify.Notifier. It is safe for concurrent use.
type Sender struct {
	client  *post.Client
	token   post.Secret
	channel string
	link    string
}

var _ notify.Notifier = (*Sender)(nil)

// New returns a Sender. The caller closes it.
func New(c Config) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("slack: %w", err)
	}
	client, err := post.New(c.Target, "slack", c.Token.Reveal())
	if err != nil {
		return nil, fmt.Errorf("slack: %w", err)
	}
	return &Sender{client: client, token: c.Token, channel: c.Channel, link: c.Link}, nil
}

// Host returns the part of the URL that may be shown.
func (s *Sender) Host() string { return s.client.Host() }

// String is Host.
func (s *Sender) String() string { return s.Host() }

// Format keeps every verb of package fmt from showing more than Host.
func (s *Sender) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Host()) }

// LogValue is Host.
func (s *Sender) LogValue() slog.Value { return slog.StringValue(s.Host()) }

// Close closes idle connections.
func (s *Sender) Close() { s.client.Close() }

// Check implements notify.Notifier.
func (s *Sender) Check(m notify.Message) error {
	_, err := brief.Of(m, s.link)
	return err
}

// Notify implements notify.Notifier.
func (s *Sender) Notify(ctx context.Context, m notify.Message) notify.Result {
	b, err := brief.Of(m, s.link)
	if err != nil {
		return post.Unsendable(err)
	}
	if s.token.IsZero() {
		return s.webhook(ctx, b)
	}
	// What begins is always a Slack message of its own: an edit makes no sound.
	if channel, ts, ok := strings.Cut(m.Ref, ":"); ok && b.Phase != brief.Begins && refForm.MatchString(m.Ref) {
		r, code := s.api(ctx, "chat.update", page(b, channel, ts))
		if !gone[code] {
			return r
		}
	}
	r, _ := s.api(ctx, "chat.postMessage", page(b, s.channel, ""))
	return r
}

// refForm is that of [notify.Result.Ref].
var refForm = regexp.MustCompile(`^[A-Z0-9]{2,80}:[0-9]{1,20}\.[0-9]{1,20}$`)

// gone are the errors of chat.update that say that the Slack message cannot be changed, now or ever, while another one may well be possible.
var gone = map[string]bool{"message_not_found": true, "cant_update_message": true, "edit_window_closed": true, "channel_not_found": true, "is_archived": true}

// webhook posts to the incoming webhook, which answers with the text ok, or with a status and the code of an error.
func (s *Sender) webhook(ctx context.Context, b brief.Brief) notify.Result {
	body, err := post.Encode(page(b, "", ""))
	if err != nil {
		return post.Unsendable(err)
	}
	a := s.client.Do(ctx, post.Call{Body: body, Decides: true})
	r := post.Throttle(s.client.Judge(a), usually)
	if r.Outcome != notify.Delivered {
		return r
	}
	switch said := strings.TrimSpace(string(a.Body)); {
	case a.Why != "":
		return post.Failed(a.Status, fmt.Sprintf("status %d: %s", a.Status, a.Why))
	case a.Status != http.StatusOK || said != "ok":
		return post.Failed(a.Status, fmt.Sprintf("status %d, but the response is not \"ok\": %s", a.Status, s.client.Said(a.Body)))
	}
	return r
}

// answer is what the Web API says.
type answer struct {
	OK      bool   `json:"ok"`
	Error   string `json:"error"`
	Channel string `json:"channel"`
	TS      string `json:"ts"`
}

// api calls a method of the Web API. It returns the code of the error, too.
func (s *Sender) api(ctx context.Context, method string, p message) (notify.Result, string) {
	body, err := post.Encode(p)
	if err != nil {
		return post.Unsendable(err), ""
	}
	a := s.client.Do(ctx, post.Call{Path: []string{method}, Body: body, Decides: true, Header: http.Header{
		"Content-Type": {"application/json; charset=utf-8"}, "Authorization": {"Bearer " + s.token.Reveal()},
	}})
	r := post.Throttle(s.client.Judge(a), usually)
	if r.Outcome != notify.Delivered {
		return r, ""
	}
	var said answer
	switch err := json.Unmarshal(a.Body, &said); {
	case a.Why != "":
		return post.Failed(a.Status, fmt.Sprintf("status %d: %s", a.Status, a.Why)), ""
	case err != nil:
		return post.Failed(a.Status, fmt.Sprintf("status %d, but the response is not JSON, so it is not from Slack", a.Status)), ""
	case said.OK && a.Status == http.StatusOK:
		if ref := said.Channel + ":" + said.TS; refForm.MatchString(ref) {
			r.Ref = ref
		}
		return r, ""
	}
	code := s.client.Said([]byte(said.Error))
	if !codeForm.MatchString(code) {
		return post.Failed(a.Status, method+": Slack refused the call and gave no reason"), ""
	}
	if code == "ratelimited" || code == "rate_limited" {
		after, ok := post.ParseRetryAfter(a.Header.Get("Retry-After"), s.client.Now())
		if !ok {
			after = usually
		}
		return notify.Result{Outcome: notify.Throttled, Status: a.Status, After: after, Reason: method + ": " + code}, code
	}
	reason := method + ": " + code
	if fix := fixes[code]; fix != "" {
		reason += ": " + fix
	}
	return post.Failed(a.Status, reason), code
}

var codeForm = regexp.MustCompile(`^[a-z0-9_]{1,80}$`)

const (
	fixToken   = "check the token"
	fixChannel = "check the channel: it must be an ID, and if the channel is private, the bot must be a member"
)

// fixes are what to do about an error.
var fixes = map[string]string{
	"invalid_auth": fixToken, "not_authed": fixToken, "token_revoked": fixToken, "token_expired": fixToken, "account_inactive": fixToken,
	"missing_scope":     "the token needs the chat:write scope",
	"channel_not_found": fixChannel, "not_in_channel": "invite the bot to the channel", "is_archived": "the channel is archived",
	"restricted_action": "the workspace does not let the bot write to the channel",
}
