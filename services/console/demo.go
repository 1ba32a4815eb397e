package console

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"spate/services/embedded"
	"spate/shared/alert"
	"spate/shared/terminal"
)

type demoCommand struct {
	ruleFlags
	Duration  time.Duration `default:"20s" help:"How long the traffic lasts."`
	EventRate float64       `name:"event-rate" default:"2000" help:"Events per second, attackers included."`
	Seed      uint64        `default:"1" help:"Seed of the traffic."`
	JSON      bool          `name:"json" help:"Print the summary alone, as JSON."`
}

func (c *demoCommand) Run(e *env) error {
	cfg := embedded.DemoConfig{Rule: c.rule(), Duration: c.Duration, EventRate: c.EventRate, Seed: c.Seed, Log: e.logger(slog.LevelWarn), Begin: func(embedded.Info) {}}
	if !defaultFields(c.ruleFlags) {
		return fmt.Errorf("%w: user-field, time-field: the demo makes its own events, whose fields have fixed names", errUsage)
	}
	if c.Duration < 15*time.Second || c.Duration > time.Hour {
		return fmt.Errorf("%w: duration: %v is not between 15s, in which every attacker has its turn, and 1h", errUsage, c.Duration)
	}
	if !c.JSON {
		v := newView(e.stdout, false)
		cfg.Print = func(r alert.Record) {
			if r.State == alert.Opened {
				v.alert(r)
			}
		}
		cfg.Begin = func(i embedded.Info) {
			terminal.Fprintf(e.stdout, "A Kafka broker, router, detector and alerter run in this process (%s, %s/metrics).\n"+
				"Shoppers and six kinds of attackers send about %.0f events a second for %v. Alerts, as they open:\n\n", i.Brokers, i.HTTP, c.EventRate, c.Duration)
		}
	}
	res, err := embedded.Demo(e.ctx, cfg)
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(res)
	} else {
		err = summary(e.stdout, res)
	}
	if err == nil && !res.Exact() {
		err = errDiffers
	}
	return err
}

func summary(w io.Writer, r embedded.DemoResult) error {
	var b strings.Builder
	terminal.Fprintf(&b, "\nevents     %d in = %d counted + %d late + %d invalid\n", r.EventsIn, r.Counted, r.Late, r.Invalid)
	terminal.Fprintf(&b, "alerts     %d; against an independent count of the log: %d missing, %d wrong, %d extra\n", r.Alerts, r.Missing, r.Wrong, r.Extra)
	for _, x := range r.Examples {
		terminal.Fprintf(&b, "           %s\n", x)
	}
	terminal.Fprintf(&b, "webhooks   %d messages, of which a receiver verified %d\n", r.Messages, r.Verified)
	terminal.Fprintf(&b, "attackers  precision %.3f; recall", r.Precision)
	for _, kind := range slices.Sorted(maps.Keys(r.Recall)) {
		terminal.Fprintf(&b, " %s %.3f", kind, r.Recall[kind])
	}
	terminal.Fprintf(&b, "\ndelay      from the event that breaks the rule to its alert, in the broker: p50 %.0f ms, p99 %.0f ms\n", r.Latency.P50, r.Latency.P99)
	terminal.Fprintf(&b, "\nNext: `spate up`, then write to it with any Kafka client; `spate verify FILE` on your own clicks.\n")
	_, err := io.WriteString(w, b.String()) // escaped above
	return err
}
