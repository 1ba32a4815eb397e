package cli

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
	Put   string `name:"put" env:"SPATE_PUT" placeholder:"s3://BUCKET/KEY" help:"Upload FILE to this S3 object instead of sending its events; s3://BUCKET/KEY can then be used as FILE."`
	Quiet bool   `short:"q" help:"Do not show progress."`
	JSON  bool   `name:"json" help:"Print a summary as JSON."`
}

// Help is printed below the flags' summary.
func (simulateCommand) Help() string {
	return `Examples:

  spate simulate events.csv --brokers host:9092              send to Kafka
  spate simulate events.csv.gz --to kinesis --stream clicks  send to Kinesis
  spate simulate events.csv --put s3://bucket/events.csv     upload to S3,
  spate simulate s3://bucket/events.csv --to kinesis         then send from there
  spate simulate --attackers library --innocents all --duration 5m --speed 0 --out events.jsonl --truth truth.jsonl
                                                             write traffic for testing rules, and the ground truth

The AWS region, credentials and endpoints come from the environment and the AWS profile, as for the AWS CLI.`
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
	if err := eventsFile(cfg.File); err != nil {
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
		none = fmt.Errorf("none of the %d rows sent is a valid event: %s", res.Sent, res.Why)
	}
	if c.JSON {
		return errors.Join(json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(res), none)
	}
	verb := "sent"
	if cfg.Out != "" {
		verb = "wrote"
	}
	terminal.Fprintf(e.stderr, "%s %s to %s in %v", terminal.Safe(verb), terminal.Safe(counted(res.Sent, "event", "events")), target(cfg), res.Elapsed.Round(time.Millisecond))
	if res.Skipped > 0 {
		terminal.Fprintf(e.stderr, "; %d malformed lines skipped", res.Skipped)
	}
	if res.Cut > 0 {
		terminal.Fprintf(e.stderr, "; the last line (%d) is truncated and was skipped", res.CutLine)
	}
	if res.Interrupted {
		terminal.Fprintf(e.stderr, "; interrupted")
	}
	terminal.Fprintln(e.stderr)
	if res.Invalid > 0 && none == nil {
		terminal.Fprintf(e.stderr, "%d of them are not valid events: %s\n", res.Invalid, res.Why)
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
		problems = append(problems, errors.New("file: missing; --put uploads a file (to write generated traffic to a file, use --out)"))
	case c.File == "-" || object.IsURL(c.File):
		problems = append(problems, fmt.Errorf("file: --put uploads a local file, and %s is not one", c.File))
	}
	if c.Out != "" {
		problems = append(problems, errors.New("put, out: only one of them can be given"))
	}
	if err := usage(errors.Join(problems...)); err != nil {
		return err
	}
	file, err := os.Open(c.File)
	if err != nil {
		return usage(errors.New(terminal.Text(fileError(err).Error())))
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
