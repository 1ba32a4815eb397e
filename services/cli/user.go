package cli

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"time"

	"spate/services/detector"
	"spate/shared/activity"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/terminal"
)

type userCommand struct {
	ID string `arg:"" help:"User, as written in the events."`
	brokerFlags
	tokenFlags
	HTTPTLSCAFile string `name:"http-tls-ca-file" env:"SPATE_HTTP_TLS_CA_FILE" placeholder:"FILE" help:"CA certificates (PEM) used to verify the detectors' certificates; if set, detectors without TLS are not queried. Default: the system's."`
	Topic         string `env:"SPATE_TOPIC" default:"activity" help:"Events topic."`
	JSON          bool   `name:"json" help:"Print one JSON line per matching user (a number and a string can both match)."`
}

func (c *userCommand) Run(e *env) error {
	k, err := c.config(e.logger(slog.LevelError))
	if err := usage(errors.Join(err, k.Validate())); err != nil {
		return err
	}
	users, err := detector.Ask(e.ctx, k, kafka.NamesFor(c.Topic), ops.Asker{CAFile: c.HTTPTLSCAFile, Access: c.access()}, c.ID)
	if err != nil {
		return err
	}
	for _, u := range users {
		if c.JSON {
			if err := json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(u); err != nil {
				return err
			}
			continue
		}
		if err := printUser(e.stdout, u); err != nil {
			return err
		}
	}
	return nil
}

// printUser prints a detector's answer about a user.
func printUser(w io.Writer, u detector.User) error {
	o := newOut(w)
	o.printf("user %s (partition %d)", activity.UserText(u.UserID), u.Partition)
	if u.Watermark != nil {
		o.printf(", windows closed up to %s", u.Watermark.Format(time.RFC3339Nano))
	}
	o.printf("\n")
	if len(u.Windows) == 0 {
		o.printf("  no open windows\n")
	}
	for _, w := range u.Windows {
		o.printf("  %s - %s  %d events", w.WindowStart.Format(time.RFC3339), w.WindowEnd.Format("15:04:05"), w.Count)
		if w.AlertID != "" {
			o.printf("  alert %s", w.AlertID)
		}
		o.printf("\n")
	}
	return o.end(nil)
}
