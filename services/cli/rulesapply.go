package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"spate/shared/cases"
	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/rule"
	"spate/shared/terminal"
	"spate/shared/window"
)

type rulesApplyCommand struct {
	File string            `arg:"" help:"Rules file, or - for standard input."`
	Set  map[string]string `name:"set" mapsep:"none" placeholder:"RULE.PARAM=VALUE" help:"Parameter value, applied with the rules; overrides the one in the file. Repeatable."`
	reviseFlags
	Lateness  time.Duration `env:"SPATE_LATENESS" default:"10s" help:"How far an event can lag behind the newest event in its partition and still be counted. Recorded with the first revision, unless WATERMARK in the file sets it; later revisions keep it and ignore this flag."`
	MaxAhead  time.Duration `name:"max-ahead" env:"SPATE_MAX_AHEAD" default:"1m" help:"An event whose time is further in the future than this is invalid; 0 accepts any time. Recorded with the first revision; later revisions keep it and ignore this flag."`
	TimeField []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Fields that may hold the event time; use the router's value. Rules that expect the event time in other fields are refused."`
	kafkaFlags
	initialFlags
	rulesTableFlags
}

// reviseFlags say how a revision of the rules is applied.
type reviseFlags struct {
	From    string `placeholder:"beginning|TIME" help:"Windows for which the rules are in force: all, or those that begin at this time (RFC 3339) or later. Default: all if nothing has been counted yet, otherwise as early as possible."`
	Message string `short:"m" placeholder:"TEXT" help:"Reason for the change, shown by spate rules history."`
	Replace bool   `name:"replace-unreadable" help:"Replace a revision that neither this version of spate nor any router can evaluate, and all later revisions. The new rules are in force from the boundary of that revision; the replaced revisions are never in force."`
	DryRun  bool   `name:"dry-run" help:"Show what would change, and write nothing."`
	Yes     bool   `name:"yes" short:"y" help:"Do not ask for confirmation. Without a terminal, the command never asks."`
	JSON    bool   `name:"json" help:"Print one JSON object: revision, applied, dry_run, boundary (null: from the beginning), rules (name, change and more), feeds."`
}

// Help is shown below the usage.
func (rulesApplyCommand) Help() string {
	return `The rules become a revision in the log that routers and detectors read (the topic activity.rules; in mode aws, the worker reads them from the state
table), so no service has to be restarted. The revision is in force for windows that begin at its boundary or later. The boundary is 30 s plus --max-ahead from now, so that
every router has the revision before it reads an event of such a window. Rules that did not change continue without a gap. If nothing has been counted yet, the revision is in force for all windows.

Before spate writes anything, it checks the file, runs the cases in NAME_test.yaml next to the file, and shows what changes. Applying rules that are already
in force has no effect. The exit code is 2 if the file has errors, and 1 if a case fails or the rules were not applied.

  spate rules apply rules.sql                                   asks for confirmation in a terminal
  spate rules apply rules.sql --dry-run                         shows what would change
  spate rules apply rules.sql --set scraper.products=40 -m 'fewer false alarms'
  spate rules apply rules.sql --from 2026-12-01T00:00:00Z       at the beginning of December
  spate rules rollback                                          applies the previous revision again`
}

func (c *rulesApplyCommand) Run(e *env) (err error) {
	f, err := readRules(c.File, c.Set)
	if err != nil {
		return err
	}
	if err := f.printErrors(e.stderr); err != nil {
		return err
	}
	log := e.logger(slog.LevelWarn)
	l, broker, err := c.connect(e, log)
	if err != nil {
		return err
	}
	defer l.Close()
	if _, _, err := f.set.Stream(); err != nil {
		return usage(fmt.Errorf("%s: %w", f.name, err))
	}
	if err := c.test(e, f); err != nil {
		return err
	}
	if !c.DryRun && broker != nil {
		if err := c.makeTopics(e.ctx, broker, f.set, log); err != nil {
			return err
		}
	}
	if _, err := l.Look(e.ctx); err != nil {
		return err
	}
	rec, err := l.record(e.ctx, *f.source(), f.set, f.name, c.Lateness, c.MaxAhead, c.TimeField)
	if err != nil {
		return err
	}
	return c.revise(e, l, rec, f.name)
}

// record makes rules a record for the log. Lateness and max-ahead are those of the log; without a revision, those given. times are the fields
// of the event time. name is that of the rules in messages.
func (l *rulesLog) record(ctx context.Context, s revision.Source, set *rule.Set, name string, given, maxAhead time.Duration, times []string) (rec revision.Record, err error) {
	rec = revision.Record{Source: s, LatenessMS: given.Milliseconds(), MaxAheadMS: maxAhead.Milliseconds()}
	lateness, clock, err := set.Stream()
	if err != nil {
		return rec, usage(fmt.Errorf("%s: %w", name, err))
	}
	begun, err := l.Begun(ctx)
	if err != nil {
		return rec, err
	}
	first, ok := l.First()
	if ok && begun {
		rec.LatenessMS, rec.MaxAheadMS = first.LatenessMS, first.MaxAheadMS
	}
	if begun && !ok && clock != "" && !slices.Contains(times, clock) { // it would stop whoever judges events
		return rec, usage(fmt.Errorf("time-field: in %s, the event time is %s, but SPATE_TIME_FIELD (--time-field) is %s; if the pipeline reads the time from %[2]s, set SPATE_TIME_FIELD to the same value as for the %[4]s; otherwise, write WATERMARK FOR %s",
			name, clock, strings.Join(times, ","), l.judge, times[0]))
	}
	if lateness < 0 {
		return rec, nil
	}
	if begun && !ok && lateness != given { // so would this
		return rec, usage(fmt.Errorf("lateness: WATERMARK in %s sets it to %v, but SPATE_LATENESS (--lateness) is %v, and the lateness cannot change while the pipeline runs; change WATERMARK, or set SPATE_LATENESS to %v for all %ss and for this command",
			name, lateness, given, lateness, l.judge))
	}
	rec.LatenessMS = lateness.Milliseconds()
	return rec, nil
}

// connect connects to the log; the topic is nil in mode aws.
func (c *rulesApplyCommand) connect(e *env, log *slog.Logger) (*rulesLog, *rulesTopic, error) {
	errs := []error{window.CheckLateness(c.Lateness), c.checkMaxAhead(), c.checkFrom()}
	if e.mode == "aws" {
		l, err := c.rulesTableFlags.connect(e, c.initialFlags, errs...)
		return l, nil, err
	}
	cfg, err := c.settings(e, log)
	return newRulesTopic(cfg, c.Topic, c.initialFlags, append(errs, err)...)
}

func (c *rulesApplyCommand) checkMaxAhead() error {
	if c.MaxAhead < 0 || c.MaxAhead%time.Millisecond != 0 {
		return fmt.Errorf("max-ahead: %v is not a whole number of milliseconds; use 0 to accept any time", c.MaxAhead)
	}
	return nil
}

// test runs the cases beside the file, if there are any. Programs are told only of those that fail.
func (c *rulesApplyCommand) test(e *env, f rulesFile) error {
	if f.path == "-" {
		terminal.Fprintln(e.stderr, "spate: the rules were not tested: standard input has no case file")
		return nil
	}
	if _, ok := cases.Beside(f.path); !ok {
		return nil
	}
	quiet := *e
	var said bytes.Buffer
	if c.JSON {
		quiet.stdout = &said
	}
	err := (&rulesTestCommand{Files: []string{f.path}, JSON: c.JSON}).Run(&quiet)
	if err != nil {
		if _, werr := said.WriteTo(e.stdout); werr != nil {
			return werr
		}
	}
	switch {
	case errors.Is(err, errCases):
		terminal.Fprintln(e.stderr, "spate: nothing was applied, because test cases failed")
	case errors.Is(err, errRules):
		terminal.Fprintln(e.stderr, "spate: nothing was applied, because the test cases have errors")
	}
	return err
}

// brokerWait is how long a broker may take to come up.
var brokerWait = 30 * time.Second

// makeTopics makes the topics that are missing, and checks the others.
func (c *rulesApplyCommand) makeTopics(ctx context.Context, t *rulesTopic, set *rule.Set, log *slog.Logger) error {
	var longest int64
	for _, r := range set.Rules {
		longest = max(longest, r.Window.Size)
	}
	layout := c.layout(kafka.Ruler, "")
	layout.Replays = time.Duration(longest)*time.Millisecond + c.Lateness
	waiting, cancel := context.WithTimeout(ctx, brokerWait)
	defer cancel()
	try, stop := context.WithTimeout(waiting, brokerWait/3)
	defer stop()
	_, err := layout.Ensure(try, t.adm)
	if err == nil || errors.Is(err, kafka.ErrLayout) || errors.Is(err, kafka.ErrDenied) {
		return err
	}
	why := ""
	_, err = layout.EnsureWhenReady(waiting, t.cl, t.cfg.Brokers, log, func(reason string) {
		if reason != "" {
			why = reason
		}
	})
	if err != nil && ctx.Err() == nil && why != "" {
		return fmt.Errorf("the rules were not applied: %s", why)
	}
	return err
}

// checkFrom checks --from, as far as the log does not matter.
func (f reviseFlags) checkFrom() error {
	_, _, err := f.from()
	return err
}

// from is the earliest boundary that is asked for, in milliseconds; 0 for none. beginning: the beginning of time is asked for.
func (f reviseFlags) from() (ms int64, beginning bool, err error) {
	switch f.From {
	case "":
		return 0, false, nil
	case "beginning":
		return 0, true, nil
	}
	t, err := time.Parse(time.RFC3339, f.From)
	if err != nil || t.UnixMilli() < 1 || t.After(time.UnixMilli(revision.MaxFromMS)) {
		return 0, false, fmt.Errorf("from: %q is neither beginning nor a time such as 2026-01-31T23:59:00Z", f.From)
	}
	if ms = t.UnixMilli(); time.UnixMilli(ms).Before(t) {
		ms++
	}
	return ms, false, nil
}

// revised is what a command did to the rules.
type revised struct {
	Revision   int64         `json:"revision"`
	Applied    bool          `json:"applied"` // false: they were in force already, or it is a dry run
	DryRun     bool          `json:"dry_run"`
	Boundary   *time.Time    `json:"boundary"` // null: from the beginning
	LatenessMS int64         `json:"lateness_ms"`
	MaxAheadMS int64         `json:"max_ahead_ms"`
	Rules      []changedRule `json:"rules"`
	Feeds      changedFeeds  `json:"feeds"`
}

// revise makes a record the next revision, unless its rules are in force already. name is what they are called in messages.
func (f reviseFlags) revise(e *env, l *rulesLog, rec revision.Record, name string) error {
	l.noteIgnored(e)
	switch u := l.Unreadable(); {
	case u != nil && !f.Replace:
		return u
	case u != nil:
		rec.InsteadOf = u.Revision
	case f.Replace:
		return usage(errors.New("replace-unreadable: this version of spate can evaluate every revision; omit this flag"))
	}
	was := l.rulesBefore(len(l.Entries()))
	result := revised{Revision: l.Revision(), DryRun: f.DryRun, LatenessMS: rec.LatenessMS, MaxAheadMS: rec.MaxAheadMS}
	now := time.Now()
	if newest, ok := l.Newest(); ok && newest.Same(rec.Source) && !f.moves(newest, now) && !f.Replace {
		result.Boundary, result.Rules = boundaryOf(newest), compareRules(was, was)
		result.Feeds = compareFeeds(l.Log, l.Log, result.Rules)
		if f.JSON {
			return newResult(e, result)
		}
		_, err := terminal.Fprintf(e.stdout, "%s is revision %d, which is in force %s; nothing was written\n", name, newest.Revision, terminal.Safe(inForce(newest, now)))
		return err
	}
	if err := f.place(e.ctx, l, &rec, now); err != nil {
		return err
	}
	rec.Author, rec.Message, rec.Program = author(), f.Message, version()
	next, err := l.With(now.UnixMilli(), rec)
	if err != nil {
		return usage(fmt.Errorf("%s: %w", name, err))
	}
	entry, _ := next.Newest()
	result.Revision, result.Boundary, result.Rules = entry.Revision, boundaryOf(entry), compareRules(was, entry.Set.Rules)
	result.Feeds = compareFeeds(l.Log, next, result.Rules)
	asks := !f.DryRun && !f.Yes && terminal.Is(os.Stdin) && terminal.Is(e.stderr)
	if !f.JSON {
		f.preview(e.stdout, l, entry, result)
	} else if asks {
		f.preview(e.stderr, l, entry, result)
	}
	if f.DryRun {
		if f.JSON {
			return newResult(e, result)
		}
		_, err := terminal.Fprintf(e.stdout, "dry run: as revision %d, these rules would be in force %s; nothing was written\n%s", entry.Revision, terminal.Safe(inForce(entry, now)), firstWindows(entry, result.Rules, now))
		return err
	}
	if asks {
		terminal.Fprintf(e.stderr, "Apply %s as revision %d, in force %s? [y/N] ", name, entry.Revision, terminal.Safe(inForce(entry, now)))
		if yes, err := agreed(e.ctx, os.Stdin); err != nil || !yes {
			return errors.Join(err, errors.New("nothing was applied"))
		}
	}
	// An interrupt comes too late now: whether it is in force has to be told. The write has a limit of its own.
	entry, err = l.Append(context.WithoutCancel(e.ctx), rec)
	if errors.Is(err, revision.ErrLate) {
		terminal.Fprintf(e.stderr, "spate: revision %d is in force, but %v\n", entry.Revision, err)
	} else if err != nil {
		return err
	}
	result.Applied, result.Boundary = true, boundaryOf(entry)
	if f.JSON {
		return newResult(e, result)
	}
	return f.tell(e.stdout, entry, result, rec)
}

// moves reports whether a revision that is not in force yet is to be so from another time on.
func (f reviseFlags) moves(e revision.Entry, now time.Time) bool {
	ms, _, err := f.from()
	return err == nil && ms > 0 && ms != e.BoundaryMS && e.BoundaryMS > now.UnixMilli()+revision.Margin.Milliseconds()+e.MaxAheadMS
}

// place says from when on a record is to be in force.
func (f reviseFlags) place(ctx context.Context, l *rulesLog, rec *revision.Record, now time.Time) error {
	ms, beginning, err := f.from()
	if err != nil {
		return usage(err)
	}
	begun, err := l.Begun(ctx)
	if err != nil {
		return err
	}
	if rec.Beginning = !begun && ms == 0; rec.Beginning {
		return nil
	}
	if rec.InsteadOf > 0 {
		if f.From != "" {
			return usage(errors.New("from: rules that replace a revision are in force from its boundary; omit --from"))
		}
		return nil
	}
	earliest := now.UnixMilli() + revision.Margin.Milliseconds() + rec.MaxAheadMS
	// Rounded up, because somebody is going to type it.
	at := time.UnixMilli(earliest).UTC().Add(time.Second - time.Millisecond).Truncate(time.Second).Format(time.RFC3339)
	switch {
	case beginning:
		return usage(fmt.Errorf("from: events have been counted already, or a %s is running, so the rules cannot be in force from the beginning; the earliest possible time is %s, which is the default", l.judge, at))
	case ms > 0 && ms < earliest:
		hint := ""
		if !begun {
			hint = "; nothing has been counted yet, so --from beginning is also possible"
		}
		return usage(fmt.Errorf("from: %s is too early: %ss may judge events of windows that begin at this time before they receive the rules; the earliest possible time is %s%s", f.From, l.judge, at, hint))
	}
	rec.FromMS = ms
	return nil
}

// preview prints what a revision would change.
func (f reviseFlags) preview(w io.Writer, l *rulesLog, entry revision.Entry, r revised) {
	o := newOut(w)
	before := "the rule from the settings"
	if newest, ok := l.Newest(); ok {
		before = fmt.Sprintf("revision %d", newest.Revision)
	}
	o.printf("revision %d, compared with %s:\n", entry.Revision, terminal.Safe(before))
	o.compared(r.Rules)
	o.printf("%s; %s\n", terminal.Safe(tallyText(r.Rules)), terminal.Safe(r.Feeds.String()))
	for _, line := range l.consequences(entry, r) {
		o.printf("%s\n", line)
	}
	_ = o.end(nil) // the command writes more to w, and fails then
}

// consequences are what somebody may not expect of the next revision.
func (l *rulesLog) consequences(entry revision.Entry, r revised) (lines []string) {
	for _, c := range r.Rules {
		if c.Change == removed && c.Mode == rule.Live {
			lines = append(lines, c.Name+" is live and will no longer raise alerts; to keep it, add it to the file")
		}
		if slices.ContainsFunc(c.Changes, func(part rule.Change) bool { return part.Part == "mode" && part.From == string(rule.Live) }) {
			what := "will no longer raise alerts"
			if c.Mode == rule.Shadow {
				what = "will no longer notify anyone"
			}
			lines = append(lines, c.Name+" is live and "+what)
		}
	}
	if entry.InsteadOf > 0 {
		lines = append(lines, fmt.Sprintf("revision %d replaces revision %d, which cannot be evaluated, and all later revisions; the replaced revisions will never be in force", entry.Revision, entry.InsteadOf))
	}
	if replaced := l.replacedBy(entry); len(replaced) > 0 {
		lines = append(lines, fmt.Sprintf("%s will never be in force, because revision %d takes effect at the same time or earlier", strings.Join(replaced, ", "), entry.Revision))
	}
	if entry.Revision == 1 {
		must := ""
		if !entry.Beginning {
			must = fmt.Sprintf("; a %s with a different --lateness or --max-ahead stops and reports the difference", l.judge)
		}
		lines = append(lines, fmt.Sprintf("lateness %s and max-ahead %s are recorded with this revision%s", short(time.Duration(r.LatenessMS)*time.Millisecond), short(time.Duration(r.MaxAheadMS)*time.Millisecond), must))
	}
	return lines
}

// firstWindows says when the first windows begin of the rules that a revision adds or changes, if it is not in force from the beginning.
func firstWindows(e revision.Entry, changes []changedRule, now time.Time) terminal.Safe {
	if e.BoundaryMS == 0 {
		return ""
	}
	var b strings.Builder
	for _, c := range changes {
		i := slices.IndexFunc(e.Set.Rules, func(r *rule.Rule) bool { return r.Name == c.Name })
		if i < 0 || c.Change != added && c.Change != changed || c.Mode == rule.Off {
			continue
		}
		if start, ok := e.Set.Rules[i].Window.First(e.BoundaryMS); ok {
			b.WriteString(string(terminal.Sprintf("first window of %s: %s UTC\n", c.Name, clockText(time.UnixMilli(start), now))))
		}
	}
	return terminal.Safe(b.String())
}

// tell says from when on a revision is in force.
func (f reviseFlags) tell(w io.Writer, e revision.Entry, r revised, rec revision.Record) error {
	now, more := time.Now(), ""
	n := tally(r.Rules)
	switch {
	case same(r.Rules):
		more = "; no rule has changed, so all of them continue"
	case !e.Beginning && n[unchanged] > 0:
		more = "; rules that did not change continue"
	}
	if rec.FromMS > 0 && e.BoundaryMS > rec.FromMS {
		more += fmt.Sprintf(" (later than %s, which was too early when the revision was written)", clockText(time.UnixMilli(rec.FromMS), now))
	}
	_, err := terminal.Fprintf(w, "revision %d is in force %s%s\n%s", e.Revision, terminal.Safe(inForce(e, now)), terminal.Safe(more), firstWindows(e, r.Rules, now))
	return err
}

// author is who runs the command, as far as the system knows.
func author() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		name += "@" + host
	}
	return name
}
