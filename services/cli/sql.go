package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"spate/services/query"
	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/rule"
	"spate/shared/terminal"
)

type sqlCommand struct {
	Statement string `arg:"" optional:"" help:"Statement to run. Default: read from standard input or, in a terminal, from a prompt."`

	File  []string `name:"file" short:"f" placeholder:"FILE" help:"Read this event file instead of the log: CSV or JSON lines, plain or compressed. Repeatable."`
	Since string   `placeholder:"TIME" help:"Read only records appended to the log since this time: an age (10m, 7d), a timestamp (2026-11-24T09:30:00Z) or a date."`
	From  string   `placeholder:"TIME" help:"Same as --since."`
	To    string   `placeholder:"TIME" help:"Read only records appended before this time, in the same form."`

	MaxRows  *int64        `name:"max-rows" placeholder:"N" help:"Print at most N rows; 0 prints all. Default: 1000, or all with --json and --csv."`
	MaxBytes int64         `name:"max-bytes" default:"0" placeholder:"N" help:"Stop reading after N bytes of records; the result is then partial. 0 means no limit."`
	Timeout  time.Duration `default:"5m" help:"Stop reading after this time; the result is then partial. 0 means no limit."`
	Follow   bool          `help:"With a rule: continue with new events, and print each row as its window closes."`

	JSON bool `name:"json" help:"Print one JSON object per row, and the summary as a JSON object on standard error."`
	CSV  bool `name:"csv" help:"Print CSV."`
	Wide bool `short:"w" help:"Do not truncate lines to fit the terminal."`

	incidentFlags
	rulesFlags
	rulesLogFlags
	formatFlags
	UserField   []string      `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Fields that may hold the user; use the router's value."`
	TimeField   []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Fields that may hold the event time; use the router's value."`
	TimeFormat  string        `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format; use the router's value."`
	DedupeField string        `name:"dedupe-field" env:"SPATE_DEDUPE_FIELD" placeholder:"FIELD" help:"Event field that holds a unique event ID; used only if the statement is a rule. Use the router's value."`
	MaxAhead    time.Duration `name:"max-ahead" env:"SPATE_MAX_AHEAD" default:"1m" help:"How far in the future an event's time may be; use the router's value."`
	Lateness    time.Duration `env:"SPATE_LATENESS" default:"10s" help:"Lateness of a rule whose table has no WATERMARK; use the router's value."`
	IdleTimeout time.Duration `name:"idle-timeout" env:"SPATE_IDLE_TIMEOUT" default:"5s" help:"With --follow: a partition that has had no events for this long no longer holds windows open; 0 disables this timeout."`
	Partitions  int32         `env:"SPATE_PARTITIONS" default:"0" help:"With --file: number of partitions into which spate splits the file for a rule; 0 means 4, as in spate replay."`
	RecordKey   string        `name:"record-key" env:"SPATE_KEY" enum:"category_id,user_id,none" default:"category_id" help:"With --file: field that determines the partition: category_id, user_id or none."`
}

// Help is shown below the usage.
func (sqlCommand) Help() string {
	return `Tables: activity (events), late and dlq (events that were not counted, and why), alerts and incidents. Events have the columns that the rules in force,
or those in --rules, declare. Every record has _partition, _offset, _timestamp (its append time), _key and _value. Times are text in UTC.

  spate sql "SELECT user_id, COUNT(*) AS n FROM activity GROUP BY user_id ORDER BY n DESC LIMIT 10" --since 10m
  spate sql "SELECT * FROM late WHERE _late_by_ms > 60000"
  spate sql --file clicks.csv "SELECT event_type, COUNT(*) FROM activity GROUP BY 1"
  spate sql                                     a prompt: \d lists tables, help shows more, \q ends it

If the statement has conditions on _timestamp, _partition or _offset, or a lower bound on the event time, spate reads only the matching part of the log. A statement with TUMBLE, HOP or CUMULATE in GROUP
BY is a rule, and runs in the engine:

  spate sql "SELECT user_id, COUNT(*) AS n FROM activity
             GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5" --follow`
}

// defaultRows are printed for people unless another number is asked for.
const defaultRows = 1000

// bounds are those of the flags.
func (c *sqlCommand) bounds() query.Bounds {
	b := query.Bounds{Rows: defaultRows, Bytes: c.MaxBytes, Timeout: c.Timeout, Follow: c.Follow}
	switch {
	case c.MaxRows != nil:
		b.Rows = *c.MaxRows
	case c.JSON || c.CSV || c.Follow:
		b.Rows = 0
	}
	if c.Follow {
		b.Timeout = 0
	}
	return b
}

// Run is the command.
func (c *sqlCommand) Run(e *env) error {
	var errs []error
	if c.JSON && c.CSV {
		errs = append(errs, errors.New("json, csv: give only one of them"))
	}
	if c.Since != "" && c.From != "" {
		errs = append(errs, errors.New("since, from: give only one of them"))
	}
	if c.Follow && (len(c.File) > 0 || c.To != "") {
		errs = append(errs, errors.New("follow: --file and --to give the input an end; omit them"))
	}
	if e.mode == "aws" && len(c.File) == 0 {
		errs = append(errs, errors.New("mode: spate sql cannot read Kinesis or DynamoDB yet; it reads files (--file) in mode aws, and the log in mode kafka"))
	}
	errs = append(errs, c.bounds().Validate())
	if err := usage(errors.Join(errs...)); err != nil {
		return err
	}
	interactive := c.Statement == "" && terminal.Is(os.Stdin)
	if interactive && (c.JSON || c.CSV || c.Follow || !terminal.Is(os.Stdout)) {
		return usage(errors.New("statement: missing; without one, spate sql opens a prompt, which needs a terminal and cannot be used with --json, --csv or --follow"))
	}
	if c.Statement == "" && !interactive {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, 2<<20))
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		c.Statement = string(text)
	}
	db, closer, err := c.open(e)
	if err != nil {
		return err
	}
	defer closer()
	if interactive {
		return c.prompt(e, db)
	}
	return c.statement(e, db)
}

// open opens the database over the log or the files.
func (c *sqlCommand) open(e *env) (db *query.DB, closer func(), err error) {
	closers := []func(){}
	all := func() {
		for _, f := range slices.Backward(closers) {
			f()
		}
	}
	defer func() {
		if err != nil {
			all()
		}
	}()
	now := time.Now()
	cfg := query.Config{MaxAhead: c.MaxAhead, Lateness: c.Lateness, IdleTimeout: c.IdleTimeout}
	cfg.Events = format.Config{Fields: activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}, ID: c.DedupeField}
	errs := []error{c.formatFlags.events(&cfg.Events, e.logger(slog.LevelError))}
	var serr, terr error
	cfg.From, serr = moment("since", c.Since, now)
	if c.From != "" {
		cfg.From, serr = moment("from", c.From, now)
	}
	cfg.To, terr = moment("to", c.To, now)
	if err := usage(errors.Join(append(errs, serr, terr)...)); err != nil {
		return nil, nil, err
	}
	var set *rule.Set
	if c.Rules != "" {
		f, err := readRules(c.Rules, c.Set)
		if err != nil {
			return nil, nil, err
		}
		if err := f.printErrors(e.stderr); err != nil {
			return nil, nil, err
		}
		set = f.set
	}
	if len(c.File) > 0 {
		for _, path := range c.File {
			if err := eventsFile(path); err != nil {
				return nil, nil, err
			}
		}
		cfg.Log, cfg.NoStore = newFileLog(c, cfg.Events.Fields, set), "--file reads only events; omit it to read alerts and incidents"
	} else if set, err = c.pipeline(e, &cfg, set, &closers); err != nil {
		return nil, nil, err
	}
	if set != nil {
		if err := declare(&cfg, set); err != nil {
			return nil, nil, usage(err)
		}
		if f, ok := cfg.Log.(*fileLog); ok {
			f.fields = cfg.Events.Fields
		}
	}
	if err := usage(cfg.Validate()); err != nil {
		return nil, nil, err
	}
	if db, err = query.Open(e.ctx, cfg); err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() { _ = db.Close() })
	return db, all, nil
}

// pipeline is the log, the rules and the database of a pipeline.
func (c *sqlCommand) pipeline(e *env, cfg *query.Config, set *rule.Set, closers *[]func()) (*rule.Set, error) {
	k, kerr := c.config(e.logger(slog.LevelError))
	if err := usage(errors.Join(kerr, k.Validate())); err != nil {
		return nil, err
	}
	cfg.Log = &query.Kafka{Config: k, Names: kafka.NamesFor(c.Topic)}
	l, err := c.rulesLogFlags.open(e)
	if err != nil {
		return nil, err
	}
	*closers = append(*closers, l.Close)
	if newest, ok := l.Newest(); ok && l.Unreadable() == nil {
		cfg.Lateness, cfg.MaxAhead = time.Duration(newest.LatenessMS)*time.Millisecond, time.Duration(newest.MaxAheadMS)*time.Millisecond
		if set == nil {
			set = newest.Set
		}
	}
	st, err := c.incidents(e)
	if err != nil {
		cfg.NoStore = err.Error()
		return set, nil
	}
	*closers = append(*closers, func() { _ = st.Close() })
	cfg.Store = st
	return set, nil
}

// declare gives a query the tables and the times that rules declare.
func declare(cfg *query.Config, set *rule.Set) error {
	for _, r := range set.Rules {
		if !slices.ContainsFunc(cfg.Tables, func(t *rule.Table) bool { return t.Name == r.Table.Name }) {
			cfg.Tables = append(cfg.Tables, r.Table)
		}
	}
	lateness, clock, err := set.Stream()
	if err != nil {
		return err
	}
	if lateness >= 0 {
		cfg.Lateness = lateness
	}
	if clock != "" && !slices.Contains(cfg.Events.Fields.Time, clock) {
		cfg.Events.Fields.Time = []string{clock}
	}
	return nil
}

// errStatement is how the command ends if the statement is invalid; it has been said already.
var errStatement = errors.New("the statement is invalid")

// wrong says what is wrong with the statement, with a caret under the place.
func wrong(w io.Writer, err error) error {
	var e *query.Error
	if !errors.As(err, &e) {
		return err
	}
	terminal.Fprintf(w, "%s\n", terminal.Safe(terminal.Lines(e.Format())))
	return errStatement
}

// statement runs the one statement of the command line.
func (c *sqlCommand) statement(e *env, db *query.DB) error {
	o := newOut(e.stdout)
	if c.Wide {
		o.width = 0
	}
	r := c.rows(o, terminal.Is(e.stdout))
	s, err := db.Run(e.ctx, c.Statement, c.bounds(), r.output(c.Follow))
	if err = errors.Join(err, r.end()); err != nil {
		return wrong(e.stderr, o.end(err))
	}
	if err := o.end(nil); err != nil {
		return err
	}
	if c.JSON {
		se := newOut(e.stderr)
		if err := se.end(se.json(s)); err != nil {
			return err
		}
	} else {
		terminal.Fprintf(e.stderr, "%s\n", terminal.Safe(summaryText(s)))
	}
	for _, n := range s.Notes {
		terminal.Fprintf(e.stderr, "spate: note: %s\n", n)
	}
	return c.complete(e.ctx, s)
}

// complete returns an error if a result is partial, unless somebody asked for no more.
func (c *sqlCommand) complete(ctx context.Context, s query.Summary) error {
	if !s.Partial || s.By == query.ByRows || c.Follow && s.By == query.ByInterrupted {
		return nil
	}
	if s.By == query.ByInterrupted {
		return ctx.Err()
	}
	return errors.New(partialText(s, c.bounds()))
}

// partialText says why a result is partial.
func partialText(s query.Summary, b query.Bounds) string {
	switch s.By {
	case query.ByBytes:
		return fmt.Sprintf("the result is partial: reading stopped after %d bytes (--max-bytes); narrow the statement with _timestamp, _partition or --since", b.Bytes)
	case query.ByTimeout:
		return fmt.Sprintf("the result is partial: reading stopped after %v (--timeout); narrow the statement with _timestamp, _partition or --since", b.Timeout)
	}
	return "the result is partial: interrupted"
}

// summaryText says how much was read.
func summaryText(s query.Summary) string {
	text := fmt.Sprintf("%s; read %s", counted(s.Rows, "row", "rows"), counted(s.Read, "record", "records"))
	if s.Of > 0 {
		text = fmt.Sprintf("%s; read %s of %s", counted(s.Rows, "row", "rows"), terminal.Grouped(s.Read), counted(s.Of, "record", "records"))
	}
	if s.Invalid > 0 {
		text += fmt.Sprintf("; %s invalid", terminal.Grouped(s.Invalid))
	}
	if s.Late > 0 {
		text += fmt.Sprintf("; %s late for the rule", terminal.Grouped(s.Late))
	}
	if s.Partial {
		text += "; partial (" + s.By + ")"
		if s.By == query.ByRows {
			text += ": there are more rows; --max-rows 0 prints all"
		}
	}
	return text
}
