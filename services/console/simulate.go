package console

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"spate/services/simulator"
	"spate/shared/kafka"
)

type simulateCommand struct {
	simulator.Config
	Brokers []string `env:"SPATE_BROKERS" placeholder:"HOST:PORT" help:"Seed brokers. Default: the broker of spate up, 127.0.0.1:9092."`
	Quiet   bool     `short:"q" help:"Show no progress."`
	JSON    bool     `name:"json" help:"Print what was sent as JSON."`
}

// Validate is called by kong when all flags are there.
func (c *simulateCommand) Validate() error {
	c.Kafka = kafkaFlags{Brokers: c.Brokers}.config()
	return c.Config.Validate()
}

func (c *simulateCommand) Run(e *env) error {
	cfg := c.Config
	cfg.Log = e.logger(slog.LevelInfo)
	cfg.Stdout = e.stdout
	if !c.Quiet {
		cfg.Progress = e.stderr
	}
	res, err := simulator.Run(e.ctx, cfg)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(res)
	}
	to := "topic " + cfg.Topic + " on " + brokers(cfg.Kafka)
	if cfg.Out != "" {
		to = cfg.Out
	}
	fmt.Fprintf(e.stderr, "sent %d events to %s in %v", res.Sent, to, res.Elapsed.Round(time.Millisecond))
	if res.Skipped > 0 {
		fmt.Fprintf(e.stderr, "; %d malformed lines left out", res.Skipped)
	}
	if res.Cut > 0 {
		fmt.Fprintf(e.stderr, "; the last line (%d) is cut and left out", res.CutLine)
	}
	fmt.Fprintln(e.stderr)
	return nil
}

func brokers(c kafka.Config) string {
	s := ""
	for i, b := range c.Brokers {
		if i > 0 {
			s += ","
		}
		s += b
	}
	return s
}
