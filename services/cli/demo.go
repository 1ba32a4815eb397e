package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"spate/services/embedded"
	"spate/services/simulator"
	"spate/shared/kafka"
	"spate/shared/terminal"
)

type demoCommand struct {
	ruleFlags
	rulesFlags
	consoleFlags
	Duration  time.Duration `default:"20s" help:"Duration of the traffic."`
	EventRate float64       `name:"event-rate" default:"2000" help:"Events per second, attackers included."`
	Seed      uint64        `default:"1" help:"Seed for the generated traffic."`
	JSON      bool          `name:"json" help:"Print only the summary, as JSON."`
}

func (c *demoCommand) Run(e *env) error {
	cfg := embedded.DemoConfig{Rule: c.rule(), Duration: c.Duration, EventRate: c.EventRate, Seed: c.Seed, Log: e.logger(slog.LevelWarn), Begin: func(embedded.Info) {}}
	if !defaultFields(c.ruleFlags) {
		return usage(errors.New("user-field, time-field: the demo generates its own events, whose field names are fixed; omit these settings"))
	}
	if c.Duration < 15*time.Second || c.Duration > time.Hour {
		return usage(fmt.Errorf("duration: %v is not between 15s (the time that every kind of attacker needs) and 1h", c.Duration))
	}
	if err := usage(c.consoleFlags.validate()); err != nil {
		return err
	}
	if err := c.load(&cfg.Rule, e.stderr); err != nil {
		return err
	}
	console := ""
	if !c.JSON && !c.off() {
		ln, err := c.open()
		if err != nil {
			return usage(err)
		}
		console = consoleURL(ln, nil)
		cfg.Beside = func(ctx context.Context, i embedded.Info) error {
			return c.serve(ctx, ln, i, cfg.Rule, kafka.DefaultTopic, cfg.Log)
		}
	}
	closeView := func() error { return nil }
	stays := terminal.Is(e.stdout) && terminal.Is(os.Stdin) // until its user ends it
	if !c.JSON {
		v := newView(e.stdout, false)
		closeView = v.close
		cfg.Print, cfg.Progress = v.alert, e.stderr
		cfg.Begin = func(i embedded.Info) {
			if console != "" {
				until := ""
				if !stays {
					until = " until the demo ends"
				}
				terminal.Fprintf(e.stdout, "See the demo in a browser%s, with the reason for each alert: %s\n", terminal.Safe(until), console)
			}
			if cfg.Rules != nil {
				terminal.Fprintf(e.stdout, "One process: Kafka %s, metrics %s/metrics\n"+
					"Shoppers, attackers, and innocents who look like attackers send about %.0f events a second for %s.\n"+
					"Rules: %s (%s)\n\n", i.Brokers, i.HTTP, c.EventRate, short(c.Duration), i.Rules.Names(), c.Rules)
				return
			}
			terminal.Fprintf(e.stdout, "One process: Kafka %s, metrics %s/metrics\n"+
				"Shoppers and six kinds of attackers send about %.0f events a second for %s.\n"+
				"More than %d events by a user in %s raise an alert; more than %d raise a critical one.\n\n",
				i.Brokers, i.HTTP, c.EventRate, short(c.Duration), cfg.Threshold, short(cfg.Window), cfg.Critical)
		}
	}
	shown := false
	show := func(res embedded.DemoResult) error {
		shown = true
		switch err := closeView(); {
		case err != nil:
			return err
		case c.JSON:
			return json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(res)
		case cfg.Rules != nil:
			return rulesSummary(e.stdout, res)
		}
		return summary(e.stdout, res)
	}
	var serr error
	if console != "" && stays {
		cfg.Linger = func(ctx context.Context, res embedded.DemoResult) {
			if serr = show(res); serr == nil {
				linger(ctx, e.stdout, console)
			}
		}
	}
	res, err := embedded.Demo(e.ctx, cfg)
	if err := cmp.Or(err, serr); err != nil {
		return cmp.Or(err, closeView())
	}
	if !shown {
		err = show(res)
	}
	if err == nil && !res.Exact() {
		err = errDiffers
	}
	return err
}

// linger keeps the console up until the person at the terminal has seen enough.
func linger(ctx context.Context, w io.Writer, console string) {
	open := opener()
	if open == nil {
		terminal.Fprintf(w, "\nWhy was an account flagged? %s shows the reason. Press Ctrl-C to exit.\n", console)
		<-ctx.Done()
		return
	}
	terminal.Fprintf(w, "\nWhy was an account flagged? Press Enter to open %s in a browser, or Ctrl-C to exit.\n", console)
	pressed := make(chan struct{})
	go func() { // it ends with the program
		in := bufio.NewReader(os.Stdin)
		for {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			pressed <- struct{}{}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pressed:
			if err := exec.CommandContext(ctx, open[0], append(open[1:], console)...).Start(); err != nil {
				terminal.Fprintf(w, "%s cannot be started: %s\n", open[0], err)
			}
		}
	}
}

// opener returns the command that opens an address in a browser; nil without a display.
func opener() []string {
	switch runtime.GOOS {
	case "darwin":
		return []string{"open"}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return nil
	}
	if _, err := exec.LookPath("xdg-open"); err != nil {
		return nil
	}
	return []string{"xdg-open"}
}

// whatTheyDo says what the kinds of attackers are that break the rule.
var whatTheyDo = map[simulator.Kind]string{
	simulator.KindBurst:     "(a bot, again and again)",
	simulator.KindBulkOrder: "(one large order)",
	simulator.KindFlood:     "(many accounts at once)",
	simulator.KindGiant:     "(half of all traffic)",
}

func summary(w io.Writer, r embedded.DemoResult) error {
	var b strings.Builder
	terminal.Fprintf(&b, "\nevents      %s in = %s counted + %s late + %s invalid\n", terminal.Grouped(r.EventsIn), terminal.Grouped(r.Counted), terminal.Grouped(r.Late), terminal.Grouped(r.Invalid))
	terminal.Fprintf(&b, "alerts      %d; compared with a recount of the log: %d missing, %d wrong, %d extra\n", r.Alerts, r.Missing, r.Wrong, r.Extra)
	for _, x := range r.Examples {
		terminal.Fprintf(&b, "            %s\n", x)
	}
	terminal.Fprintf(&b, "incidents   %d, %d critical\n", r.Incidents, r.Critical)
	terminal.Fprintf(&b, "webhooks    %d messages about them, %d verified by a receiver\n", r.Messages, r.Verified)
	found, missed := make([]string, 0, len(r.Recall)), make([]string, 0, len(r.Recall))
	for _, kind := range slices.Sorted(maps.Keys(r.Recall)) {
		if r.Recall[kind] == 1 {
			found = append(found, kind+" "+whatTheyDo[simulator.Kind(kind)])
		} else {
			missed = append(missed, fmt.Sprintf("%s (%.0f%% found)", kind, 100*r.Recall[kind]))
		}
	}
	var lines []string
	for two := range slices.Chunk(found, 2) { // more do not fit in a line
		lines = append(lines, strings.Join(two, ", "))
	}
	terminal.Fprintf(&b, "attackers   found: %s\n", terminal.Safe(strings.Join(lines, ",\n            ")))
	if len(missed) > 0 {
		terminal.Fprintf(&b, "            partly missed: %s\n", strings.Join(missed, ", "))
	}
	var spared []string
	if r.Precision < 1 {
		terminal.Fprintf(&b, "            %.1f%% of the alerts are about shoppers\n", 100*(1-r.Precision))
	} else {
		spared = append(spared, "shoppers")
	}
	if len(r.Within) > 0 {
		spared = append(spared, strings.Join(r.Within, ", ")+" (attackers who stay within the rule)")
	}
	terminal.Fprintf(&b, "not flagged %s\n", strings.Join(spared, "; "))
	terminal.Fprintf(&b, "delay       from the triggering event to its alert: p50 %.0f ms, p99 %.0f ms\n", r.Latency.P50, r.Latency.P99)
	terminal.Fprintf(&b, "\nNext:  spate up             process events from any Kafka client\n       spate verify FILE    check every alert for your own events\n")
	_, err := io.WriteString(w, b.String()) // escaped above
	return err
}

// rulesSummary is the summary of a demo with a rules file.
func rulesSummary(w io.Writer, r embedded.DemoResult) error {
	o := newOut(w)
	o.printf("\nevents      %s in = %s counted + %s late + %s invalid\n", terminal.Grouped(r.EventsIn), terminal.Grouped(r.Counted), terminal.Grouped(r.Late), terminal.Grouped(r.Invalid))
	o.printf("alerts      %s; compared with what SQLite finds in the log:\n", terminal.Grouped(int64(r.Alerts)))
	for _, d := range r.Rules {
		if d.Refused != "" {
			o.printf("            %s: not verified: %s\n", d.Rule, d.Refused)
			continue
		}
		o.printf("            %s: %s, %d missing, %d extra\n", d.Rule, terminal.Safe(counted(int64(d.Rows), "alert", "alerts")), d.Missing, d.Extra)
		for _, x := range d.Examples {
			o.printf("              %s\n", x)
		}
	}
	o.printf("incidents   %d, %d critical\n", r.Incidents, r.Critical)
	o.printf("webhooks    %d messages about them, %d verified by a receiver\n", r.Messages, r.Verified)
	var found, partly, missed []string
	for _, kind := range slices.Sorted(maps.Keys(r.Recall)) {
		switch share := r.Recall[kind]; share {
		case 1:
			found = append(found, kind)
		case 0:
			missed = append(missed, kind)
		default:
			partly = append(partly, fmt.Sprintf("%s (%.0f%%)", kind, 100*share))
		}
	}
	for _, line := range []struct {
		name  string
		kinds []string
	}{{"found: ", found}, {"partly found: ", partly}, {"not found by these rules: ", missed}} {
		if len(line.kinds) > 0 {
			o.printf("attackers   %s%s\n", line.name, strings.Join(line.kinds, ", "))
		}
	}
	flagged := "none flagged"
	if len(r.Flagged) > 0 {
		flagged = "flagged: " + strings.Join(r.Flagged, ", ")
	}
	o.printf("innocents   %s\n", flagged)
	o.printf("\nNext:  spate up --rules FILE      run the rules on events from any Kafka client\n       spate rules test FILE      test the rules with the cases next to FILE\n")
	return o.end(nil)
}
