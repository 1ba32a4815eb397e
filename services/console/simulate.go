package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"spate/services/simulator"
	"spate/shared/aws/cloud"
	"spate/shared/aws/object"
	"spate/shared/kafka"
	"spate/shared/terminal"
)

// simulatorFlags is the configuration without its methods. kong would call Validate before it is known where the events go by default,
// which depends on the mode.
type simulatorFlags simulator.Config

type simulateCommand struct {
	simulatorFlags
	brokerFlags
	Put   string `name:"put" env:"SPATE_PUT" placeholder:"s3://BUCKET/KEY" help:"Store FILE in S3, and send nothing; s3://BUCKET/KEY is then a FILE to send."`
	Quiet bool   `short:"q" help:"Show no progress."`
	JSON  bool   `name:"json" help:"Print what was sent, or stored, as JSON."`
}

// Help is printed below the flags' summary.
func (simulateCommand) Help() string {
	return `Examples:

  spate simulate events.csv --brokers host:9092              to your Kafka
  spate simulate events.csv.gz --to kinesis --stream clicks  to Kinesis
  spate simulate events.csv --put s3://bucket/events.csv     into S3 first,
  spate simulate s3://bucket/events.csv --to kinesis         and out of it

Region, credentials and endpoints of AWS come from the environment and the profile, as for the aws command.`
}

// settings returns the configuration with what the mode decides.
func (c *simulateCommand) settings(mode string) simulator.Config {
	cfg := simulator.Config(c.simulatorFlags)
	if cfg.To == "" {
		cfg.To = simulator.ToKafka
		if mode == "aws" {
			cfg.To = simulator.ToKinesis
		}
	}
	return cfg
}

func (c *simulateCommand) Run(e *env) error {
	if c.Put != "" {
		return c.put(e)
	}
	cfg := c.settings(e.mode)
	var err error
	cfg.Log = e.logger(slog.LevelInfo)
	if cfg.To == simulator.ToKafka && cfg.Out == "" {
		cfg.Kafka, err = c.config(cfg.Log)
	}
	if err := usage(errors.Join(err, cfg.Validate())); err != nil {
		return err
	}
	cfg.Stdout = e.stdout
	if !c.Quiet {
		cfg.Progress = e.stderr
	}
	res, err := simulator.Run(e.ctx, cfg)
	if errors.Is(err, cloud.ErrNoRegion) {
		return usage(err)
	} else if err != nil {
		return err
	}
	var none error
	if res.Invalid > 0 && res.Invalid == res.Sent {
		none = fmt.Errorf("none of the %d rows that were sent is an event: %s", res.Sent, res.Why)
	}
	if c.JSON {
		return errors.Join(json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(res), none)
	}
	terminal.Fprintf(e.stderr, "sent %d events to %s in %v", res.Sent, target(cfg), res.Elapsed.Round(time.Millisecond))
	if res.Skipped > 0 {
		terminal.Fprintf(e.stderr, "; %d malformed lines left out", res.Skipped)
	}
	if res.Cut > 0 {
		terminal.Fprintf(e.stderr, "; the last line (%d) is cut and left out", res.CutLine)
	}
	if res.Interrupted {
		terminal.Fprintf(e.stderr, "; interrupted")
	}
	terminal.Fprintln(e.stderr)
	if res.Invalid > 0 && none == nil {
		terminal.Fprintf(e.stderr, "%d of them are not events: %s\n", res.Invalid, res.Why)
	}
	return none
}

// target says where the events of a configuration go.
func target(cfg simulator.Config) string {
	switch {
	case cfg.Out != "":
		return cfg.Out
	case cfg.To == simulator.ToKinesis:
		return "stream " + cfg.Stream
	}
	return "topic " + cfg.Topic + " on " + brokers(cfg.Kafka)
}

func brokers(c kafka.Config) string { return strings.Join(c.Brokers, ",") }

// put stores the file in S3.
func (c *simulateCommand) put(e *env) error {
	bucket, key, err := object.ParseURL(c.Put)
	var problems []error
	if err != nil {
		problems = append(problems, fmt.Errorf("put: %w", err))
	}
	switch {
	case c.File == "":
		problems = append(problems, errors.New("file: put needs one; generated traffic becomes one with --out"))
	case c.File == "-" || object.IsURL(c.File):
		problems = append(problems, fmt.Errorf("file: put stores a local file, and %s is none", c.File))
	}
	if c.Out != "" {
		problems = append(problems, errors.New("put, out: only one of them can be given"))
	}
	if err := usage(errors.Join(problems...)); err != nil {
		return err
	}
	file, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("open events file: %w", err)
	}
	defer file.Close()
	cfg, err := cloud.Load(e.ctx)
	if errors.Is(err, cloud.ErrNoRegion) {
		return usage(err)
	} else if err != nil {
		return err
	}
	stored, err := object.Put(e.ctx, cfg, bucket, key, file)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(stored)
	}
	terminal.Fprintf(e.stderr, "stored %s as %s: %d bytes, ETag %s\n", c.File, c.Put, stored.Bytes, stored.ETag)
	return nil
}
