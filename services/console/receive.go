package console

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"spate/services/receiver"
	"spate/shared/activity"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/terminal"
)

type receiveCommand struct {
	Listen string     `env:"SPATE_RECEIVE_LISTEN" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where calls come in, POST on any path; port 0 takes a free one and says which. GET /healthz tells that it runs."`
	Secret secretText `env:"SPATE_WEBHOOK_SECRET" placeholder:"SECRET" help:"What the sender signs with: whsec_ and 24 to 64 bytes in base64. Several, separated by spaces, while it is being replaced: a call signed with any of them is accepted. The environment is the better place: other users of the machine can see flags."`
	JSON   bool       `name:"json" help:"Print JSON lines. Accepted: at, webhook_id, type, verified (true), repeat, data. Refused: at, verified, reason, remote."`
}

// Help is the command's longer help.
func (receiveCommand) Help() string {
	return `Takes webhook calls, checks who signed them, and prints a line for each: to see what spate sends, and to see what a receiver of your own has to do.

  export SPATE_WEBHOOK_SECRET=whsec_$(head -c 32 /dev/urandom | base64)
  spate receive

Let spate call http://127.0.0.1:8080/ with the same secret; an address of your own machine needs SPATE_WEBHOOK_ALLOW_PRIVATE=true there.

A call is accepted (204) if one of the secrets signed its id, timestamp and body, and its timestamp is at most 5 minutes off. Others are refused (401) with the reason. Calls come at least once: one whose webhook-id came before is marked "(again)", and a receiver that acts on calls has to leave those out.`
}

func (c *receiveCommand) Run(e *env) error {
	secrets, err := webhook.ParseSecrets(string(c.Secret))
	if err != nil {
		return usage(fmt.Errorf("secret (SPATE_WEBHOOK_SECRET, --secret): %w", err))
	}
	if len(secrets) == 0 {
		return fmt.Errorf("%w: secret: there is none; set SPATE_WEBHOOK_SECRET to the one that the sender signs with, "+
			"or make one: whsec_$(head -c 32 /dev/urandom | base64)", errUsage)
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for calls (SPATE_RECEIVE_LISTEN, --listen): %w", err)
	}
	terminal.Fprintf(e.stderr, "spate receive: webhook calls go to http://%s/ and are printed here. Ctrl-C ends it.\n", ln.Addr())
	p := &callPrinter{w: e.stdout, json: c.JSON}
	if err := receiver.Run(e.ctx, receiver.Config{Listener: ln, Secrets: secrets, On: p.print, Log: e.logger(slog.LevelWarn)}); err != nil {
		return err
	}
	return p.error()
}

// callPrinter prints calls, a line each.
type callPrinter struct {
	w    io.Writer
	json bool

	mu    sync.Mutex
	first error
}

func (p *callPrinter) print(c receiver.Call) {
	line := callText(c)
	var err error
	if p.json {
		line, err = callJSON(c)
	}
	if err == nil {
		_, err = terminal.Fprintln(p.w, line)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil {
		p.first = err
	}
}

// error returns why a line was not printed, if one was not.
func (p *callPrinter) error() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first != nil {
		return fmt.Errorf("print call: %w", p.first)
	}
	return nil
}

func callJSON(c receiver.Call) (terminal.Safe, error) {
	var v any = struct {
		At        time.Time       `json:"at"`
		WebhookID string          `json:"webhook_id"`
		Type      string          `json:"type"`
		Verified  bool            `json:"verified"`
		Repeat    bool            `json:"repeat"`
		Data      json.RawMessage `json:"data"`
	}{c.At, c.WebhookID, c.Type, c.Verified, c.Repeat, c.Data}
	if c.Reason != "" {
		v = struct {
			At       time.Time `json:"at"`
			Verified bool      `json:"verified"`
			Reason   string    `json:"reason"`
			Remote   string    `json:"remote"`
		}{c.At, c.Verified, c.Reason, c.Remote}
	}
	var b strings.Builder
	enc := json.NewEncoder(terminal.JSONWriter(&b))
	enc.SetEscapeHTML(false) // users stay as the sender has them
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return terminal.Safe(strings.TrimSuffix(b.String(), "\n")), nil
}

func callText(c receiver.Call) terminal.Safe {
	at := c.At.Format("15:04:05")
	if c.Reason != "" {
		return terminal.Sprintf("%s  refused       %s  from %s", at, c.Reason, c.Remote)
	}
	line := terminal.Sprintf("%s  %-12s  %s%s", at, c.Type, c.WebhookID, callDetails(c))
	if c.Repeat {
		line += "  (again)"
	}
	return line
}

// callDetails tells of the data what is known for the type.
func callDetails(c receiver.Call) terminal.Safe {
	switch c.Type {
	case notify.TypeOpened, notify.TypeClosed:
		var r struct {
			UserID   json.RawMessage `json:"user_id"`
			Count    int64           `json:"num_actions_per_watermark"`
			Severity string          `json:"severity"`
		}
		if json.Unmarshal(c.Data, &r) != nil {
			return ""
		}
		count := fmt.Sprintf("%d events", r.Count)
		if c.Type == notify.TypeOpened {
			count += " so far"
		}
		return terminal.Sprintf("  user %s  %s  %s", activity.UserText(r.UserID), count, r.Severity)
	case notify.TypeDigest:
		var d struct {
			Messages int   `json:"messages"`
			Users    int   `json:"users"`
			Events   int64 `json:"events"`
		}
		if json.Unmarshal(c.Data, &d) != nil {
			return ""
		}
		return terminal.Sprintf("  %d messages in one  %d users  %d events", d.Messages, d.Users, d.Events)
	}
	return ""
}
