package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"spate/services/embedded"
	"spate/services/simulator"
	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/terminal"
)

// replayFlags are those of replay and verify.
type replayFlags struct {
	ruleFlags
	rulesFlags
	dedupeFlags
	File string `arg:"" help:"Event file: CSV with a header (columns separated by comma, semicolon, tab or |) or JSON lines; plain, .gz, .bz2, .zst, .xz or .zip; - reads standard input."`

	onSent     func(partition int32, value []byte, at time.Time)
	absent     *absent
	Partitions int32  `env:"SPATE_PARTITIONS" default:"4" help:"Number of partitions per topic."`
	Key        string `env:"SPATE_KEY" enum:"category_id,user_id,none" default:"category_id" help:"Field to use as the record key: category_id, user_id or none."`
	brokerFlags
	Alerts     string   `placeholder:"PATH" help:"Write the closed alerts to this file as JSON lines, sorted by window and user; - writes to standard output."`
	NullValues []string `name:"null-values" env:"SPATE_NULL_VALUES" default:"\\\\N,NULL,null,NaN,nan,None,<NA>,undefined" help:"Values in the user column that stand for a missing user."`
	Quiet      bool     `short:"q" help:"Do not show progress."`
	JSON       bool     `name:"json" help:"Print the result as JSON."`
}

func (c *replayFlags) run(e *env) (embedded.ReplayResult, error) {
	if c.Partitions == 0 {
		c.Partitions = kafka.DefaultPartitions
	}
	cfg := embedded.ReplayConfig{NullValues: c.NullValues, Rule: c.rule(), File: c.File, Key: c.Key, Partitions: c.Partitions, Log: e.logger(slog.LevelWarn)}
	cfg.Events.ID = c.DedupeField
	if err := c.load(&cfg.Rule, e.stderr); err != nil {
		return embedded.ReplayResult{}, err
	}
	c.absent = columnsOf(cfg.Rules)
	cfg.OnSent = func(partition int32, value []byte, at time.Time) {
		c.absent.sent(partition, value, at)
		if c.onSent != nil {
			c.onSent(partition, value, at)
		}
	}
	if err := eventsFile(c.File); err != nil {
		return embedded.ReplayResult{}, err
	}
	var err error
	if e.mode != "embedded" {
		cfg.Kafka, err = c.secured(cfg.Log)
	}
	if !c.Quiet {
		cfg.Progress = e.stderr
	}
	if err := usage(errors.Join(err, cfg.Validate())); err != nil {
		return embedded.ReplayResult{}, err
	}
	res, err := embedded.Replay(e.ctx, cfg)
	if errors.Is(err, simulator.ErrTimeColumn) && cfg.Rules != nil {
		err = fmt.Errorf("%w; a WATERMARK in %s takes precedence over this setting", err, c.Rules)
	}
	if err != nil {
		return res, err
	}
	if c.Alerts != "" {
		if err := writeAlerts(c.Alerts, e.stdout, res.Alerts); err != nil {
			return res, fmt.Errorf("write alerts: %w", err)
		}
	}
	return res, nil
}

// eventsFile looks whether a file of events can be opened, before anything is started for it.
func eventsFile(path string) error {
	if path == "" || path == "-" || strings.Contains(path, "://") {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return usage(errors.New(terminal.Text(fileError(err).Error()))) // of one line, whatever the name
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return usage(fmt.Errorf("%s: is a directory", terminal.Text(path)))
	}
	return nil
}

func writeAlerts(path string, stdout io.Writer, alerts []alert.Record) (err error) {
	w := stdout
	if path != "-" {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer func() {
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}()
		w = f
	}
	b := bufio.NewWriter(w)
	for _, a := range alerts {
		line, err := a.Encode()
		if err != nil {
			return err
		}
		if _, err := terminal.Fprintln(b, terminal.Safe(terminal.JSON(line))); err != nil {
			return err
		}
	}
	return b.Flush()
}

type replayCommand struct{ replayFlags }

func (c *replayCommand) Run(e *env) error {
	res, err := c.run(e)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(res)
	}
	out := e.stdout
	if c.Alerts == "-" {
		out = e.stderr
	}
	if c.Alerts == "" {
		if err := printAlerts(out, res.Alerts); err != nil {
			return err
		}
	}
	repeated := ""
	if c.DedupeField != "" {
		repeated = fmt.Sprintf(" (%d of them duplicates, excluded from alerts)", res.Repeated)
	}
	terminal.Fprintf(out, "%s: %d counted%s, %d late, %d invalid; %s; %.1f s\n", counted(res.EventsIn, "event", "events"), res.Counted, terminal.Safe(repeated), res.Late, res.Invalid,
		counted(len(res.Alerts), "alert", "alerts"), res.ElapsedS)
	c.remarks(e, res)
	return nil
}

// printAlerts prints all of them, for people.
func printAlerts(w io.Writer, alerts []alert.Record) error {
	o := newOut(w)
	rows := newPages(o, append(slices.Clone(alertColumns), idColumn))
	now := time.Now()
	for _, a := range alerts {
		rows.row(append(alertCells(o, a, now), o.paint(a.ID, terminal.Dim)))
	}
	rows.flush()
	return o.end(nil)
}

// remarks says what is odd about the rows of a file.
func (c *replayFlags) remarks(e *env, res embedded.ReplayResult) {
	if res.Invalid > 0 && res.InvalidWhy != "" {
		terminal.Fprintf(e.stderr, "%d of %d events are invalid; the first one: %s\n", res.Invalid, res.EventsIn, res.InvalidWhy)
	}
	if res.WithoutID > 0 {
		terminal.Fprintf(e.stderr, "%d of %d events have no %s (--dedupe-field); each of them counts\n", res.WithoutID, res.Counted, c.DedupeField)
	}
	c.absent.remark(e)
}

type verifyCommand struct{ replayFlags }

func (c *verifyCommand) Run(e *env) error {
	if c.Rules != "" {
		return c.verifyRules(e)
	}
	// What is sent is counted a second time, in the plain way.
	var mu sync.Mutex
	ref := verifier.NewReference(verifier.Rule{
		Window: max(c.Window, time.Millisecond), Lateness: c.Lateness, Threshold: c.Threshold, MaxAhead: c.MaxAhead, User: c.UserField, Time: c.TimeField, TimeFormat: c.TimeFormat, ID: c.DedupeField,
	})
	c.onSent = func(partition int32, value []byte, at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		ref.AddJSON(partition, value, at)
	}
	res, err := c.run(e)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	diff := verifier.Compare(ref.Result(), res.Alerts)
	accounts := ref.In == res.EventsIn && ref.Counted == res.Counted && ref.Late == res.Late && ref.Invalid == res.Invalid && ref.Repeated == res.Repeated
	if c.JSON {
		if err := json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(diff); err != nil {
			return err
		}
	} else {
		repeated := ""
		if c.DedupeField != "" {
			repeated = fmt.Sprintf(" (%s of them repeated)", terminal.Grouped(res.Repeated))
		}
		terminal.Fprintf(e.stdout, "%s = %s counted%s + %s late + %s invalid\n", counted(res.EventsIn, "event", "events"), terminal.Grouped(res.Counted), terminal.Safe(repeated), terminal.Grouped(res.Late), terminal.Grouped(res.Invalid))
		terminal.Fprintf(e.stdout, "%s; compared with an independent count: %d missing, %d wrong, %d extra\n", counted(diff.Rows, "alert", "alerts"), diff.Missing, diff.Wrong, diff.Extra)
		c.remarks(e, res)
		for _, x := range diff.Examples {
			terminal.Fprintln(e.stdout, "  "+x)
		}
	}
	if !accounts {
		terminal.Fprintf(e.stderr, "spate: events in/counted/late/invalid: reference %d/%d/%d/%d, pipeline %d/%d/%d/%d\n",
			ref.In, ref.Counted, ref.Late, ref.Invalid, res.EventsIn, res.Counted, res.Late, res.Invalid)
	}
	if !diff.Exact() || !accounts {
		return errDiffers
	}
	return nil
}
