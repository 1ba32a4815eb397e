package console

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
	ID string `arg:"" help:"User, as the events have it."`
	brokerFlags
	tokenFlags
	HTTPTLSCAFile string `name:"http-tls-ca-file" env:"SPATE_HTTP_TLS_CA_FILE" placeholder:"FILE" help:"Authorities (PEM) that the detectors' certificates are checked against; then one without TLS is not asked. Default: the system's."`
	Topic         string `env:"SPATE_TOPIC" default:"activity" help:"Topic that the events come in."`
	JSON          bool   `name:"json" help:"Print JSON, a line for each user that has this name (a number and a string can)."`
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

// printUser tells what a detector says of a user.
func printUser(w io.Writer, u detector.User) error {
	o := newOut(w)
	o.printf("user %s (partition %d)", activity.UserText(u.UserID), u.Partition)
	if u.Watermark != nil {
		o.printf(", windows are closed up to %s", u.Watermark.Format(time.RFC3339Nano))
	}
	o.printf("\n")
	if len(u.Windows) == 0 {
		o.printf("  no open window\n")
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
