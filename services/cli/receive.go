package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"spate/services/receiver"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/terminal"
)

type receiveCommand struct {
	Listen string     `env:"SPATE_RECEIVE_LISTEN" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Address to accept calls on (POST, any path); with port 0, spate picks a free port and prints it. GET /healthz responds while the receiver is running."`
	Secret secretText `env:"SPATE_WEBHOOK_SECRET" placeholder:"SECRET" help:"Secret that the sender signs with: whsec_ followed by 24 to 64 bytes in base64. During rotation, give several, separated by spaces; a call signed with any of them is accepted. Prefer the environment variable: other users of this machine can see command-line flags."`
	JSON   bool       `name:"json" help:"Print JSON lines. Accepted: at, webhook_id, type, verified (true), repeat, data. Refused: at, verified, reason, remote."`
}

// Help is shown below the usage.
func (receiveCommand) Help() string {
	return `Accepts webhook calls, verifies their signatures, and prints one line per call. Use the receiver to see what spate sends, and as a model for your own.

  export SPATE_WEBHOOK_SECRET=whsec_$(head -c 32 /dev/urandom | base64)
  spate receive

Then configure spate to call http://127.0.0.1:8080/ with the same secret. To allow a local address, also set SPATE_WEBHOOK_ALLOW_PRIVATE=true for the sender.

A call is accepted (204) if its ID, timestamp and body are signed with one of the secrets and its timestamp is at most 5 minutes off. Other calls are rejected (401) with a reason. Delivery is at least once: a call whose webhook-id was seen before is marked "(again)". A receiver that acts on calls must skip such calls.`
}

func (c *receiveCommand) Run(e *env) error {
	secrets, err := webhook.ParseSecrets(string(c.Secret))
	if err != nil {
		err = fmt.Errorf("secret (SPATE_WEBHOOK_SECRET, --secret): %w", err)
	} else if len(secrets) == 0 {
		err = errors.New("secret: missing; set SPATE_WEBHOOK_SECRET to the sender's secret, or generate one: whsec_$(head -c 32 /dev/urandom | base64)")
	}
	if err := usage(errors.Join(err, listenable("listen (SPATE_RECEIVE_LISTEN, --listen)", c.Listen))); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", c.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen: another program is using %s; stop it, or choose another address with --listen (SPATE_RECEIVE_LISTEN)", c.Listen)
	}
	if err != nil {
		return fmt.Errorf("listen: cannot listen for calls (SPATE_RECEIVE_LISTEN, --listen): %w", err)
	}
	terminal.Fprintf(e.stderr, "spate receive: listening for webhook calls on http://%s/. Press Ctrl-C to stop.\n", ln.Addr())
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
	line := terminal.Sprintf("%s  %-12s  %s%s%s", at, c.Type, c.WebhookID, callDetails(c), summaryOf(c))
	if c.Repeat {
		line += "  (again)"
	}
	return line
}

// summaryOf is what the rule says about the alert, if it says anything.
func summaryOf(c receiver.Call) terminal.Safe {
	var r struct {
		Summary string `json:"summary"`
	}
	if json.Unmarshal(c.Data, &r) != nil || r.Summary == "" || c.Type == notify.TypeIncidentResolved { // it is that of the last window
		return ""
	}
	return terminal.Sprintf("  %s", r.Summary)
}

// callDetails returns the part of a line that depends on the type of the message.
func callDetails(c receiver.Call) terminal.Safe {
	switch c.Type {
	case notify.TypeIncidentOpened, notify.TypeIncidentEscalated, notify.TypeIncidentResolved:
		var i incident.Incident
		if json.Unmarshal(c.Data, &i) != nil || i.Key == nil {
			return ""
		}
		line := terminal.Sprintf("  %s  %s", string(i.Severity), subject(i))
		if c.Type == notify.TypeIncidentResolved {
			line += terminal.Sprintf("  ended after %s: %s in %s, %s in the busiest", short(i.LastWindowEnd.Sub(i.FirstWindowStart)), counted(i.Events, "event", "events"),
				counted(i.Windows, "window", "windows"), terminal.Grouped(i.Peak))
		}
		return line
	case notify.TypeOpened, notify.TypeRaised, notify.TypeClosed:
		var r struct {
			Rule     string          `json:"rule"`
			Key      json.RawMessage `json:"key"`
			Events   int64           `json:"event_count"`
			Severity string          `json:"severity"`
			// With a key, these are columns of the rule, of any type.
			UserID json.RawMessage `json:"user_id"`
			Count  json.RawMessage `json:"num_actions_per_watermark"`
		}
		if json.Unmarshal(c.Data, &r) != nil {
			return ""
		}
		var whose string
		if r.Key == nil {
			whose = "user " + activity.UserText(r.UserID)
			if len(r.Count) > 0 && json.Unmarshal(r.Count, &r.Events) != nil {
				return ""
			}
		} else {
			key, err := alert.KeyLabel(r.Key)
			if err != nil {
				return ""
			}
			whose = r.Rule + " " + key
		}
		count := fmt.Sprintf("%d events", r.Events)
		if c.Type != notify.TypeClosed {
			count = fmt.Sprintf("%d%s events", r.Events, orMore)
		}
		return terminal.Sprintf("  %s  %s  %s", whose, count, r.Severity)
	case notify.TypeDigest, notify.TypeIncidentDigest:
		var d struct {
			Messages int   `json:"messages"`
			Users    int   `json:"users"`
			Events   int64 `json:"events"`
		}
		if json.Unmarshal(c.Data, &d) != nil {
			return ""
		}
		return terminal.Sprintf("  digest of %d messages  %d users  %d events", d.Messages, d.Users, d.Events)
	}
	return ""
}
