package cli

import (
	"encoding/json"
	"time"

	"spate/services/verifier"
	"spate/shared/terminal"
)

// verifyRules runs a file through the pipeline and through SQLite, which shares nothing with it but the text of the rules.
func (c *verifyCommand) verifyRules(e *env) error {
	script, err := readText(c.Rules, 1<<20)
	if err != nil {
		return err
	}
	r := c.rule()
	if err := c.load(&r, e.stderr); err != nil {
		return err
	}
	fields := verifier.Rule{User: r.Events.Fields.User, Time: r.Events.Fields.Time, TimeFormat: c.TimeFormat}
	events := make(chan verifier.Event, 1024)
	type answer struct {
		report verifier.RulesReport
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		report, err := verifier.Rules(e.ctx, script, verifier.RulesOptions{Name: defaultRule(c.Rules), Set: c.Set, Lateness: r.Lateness, MaxAhead: c.MaxAhead}, func(yield func(verifier.Event, error) bool) {
			for ev := range events {
				if !yield(ev, nil) {
					break
				}
			}
		})
		for range events { // nobody waits for one that has given up
		}
		answered <- answer{report, err}
	}()
	c.onSent = func(partition int32, value []byte, at time.Time) { events <- fields.Event(partition, value, at) }
	res, err := c.run(e)
	close(events)
	a := <-answered
	if err != nil {
		return err
	}
	if a.err != nil {
		return a.err
	}
	diffs := verifier.CompareRules(a.report, res.Alerts)
	exact := a.report.In == res.EventsIn && a.report.Invalid == res.Invalid
	if c.JSON {
		enc := json.NewEncoder(terminal.JSONWriter(e.stdout))
		for _, d := range diffs {
			if err := enc.Encode(d); err != nil {
				return err
			}
		}
	} else {
		terminal.Fprintf(e.stdout, "%s = %s counted + %s late + %s invalid\n", counted(res.EventsIn, "event", "events"), terminal.Grouped(res.Counted), terminal.Grouped(res.Late), terminal.Grouped(res.Invalid))
		c.remarks(e, res)
	}
	for _, d := range diffs {
		exact = exact && (d.Exact() || d.Refused != "")
		if c.JSON {
			continue
		}
		if d.Refused != "" {
			terminal.Fprintf(e.stdout, "%s: not verified: %s\n", d.Rule, d.Refused)
			continue
		}
		terminal.Fprintf(e.stdout, "%s: %s; compared with SQLite: %d missing, %d extra\n", d.Rule, counted(d.Rows, "alert", "alerts"), d.Missing, d.Extra)
		if d.Uncompared > 0 {
			terminal.Fprintf(e.stdout, "  %s not compared: a condition that counts more than 65,536 distinct values may have an unknown result\n", counted(int64(d.Uncompared), "window without an alert is", "windows without an alert are"))
		}
		for _, x := range d.Examples {
			terminal.Fprintln(e.stdout, "  "+x)
		}
	}
	if a.report.In != res.EventsIn || a.report.Invalid != res.Invalid {
		terminal.Fprintf(e.stderr, "spate: events in/invalid: reference %d/%d, pipeline %d/%d\n", a.report.In, a.report.Invalid, res.EventsIn, res.Invalid)
	}
	if !exact {
		return errDiffers
	}
	return nil
}
