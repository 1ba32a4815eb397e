package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"spate/services/query"
	"spate/services/web"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/incident"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/store"
	"spate/shared/terminal"
)

type topCommand struct {
	Every  time.Duration `default:"2s" help:"Time between updates; at least 1s."`
	Rounds int           `placeholder:"N" help:"Exit after N updates. Default: run until you press Ctrl-C."`
	By     string        `placeholder:"COLUMN" help:"Show the most frequent values of this event column. Default: the user."`
	Last   time.Duration `default:"5s" help:"Period over which the values of --by are counted."`
	JSON   bool          `name:"json" help:"Print one JSON object per update: at, events_per_second, alert_records_per_minute, lag, closed_seconds_ago (null: unknown), troubles, hottest, incidents."`

	incidentFlags
	rulesLogFlags
	formatFlags
	UserField  []string `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Fields that may hold the user; use the router's value."`
	TimeField  []string `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Fields that may hold the event time; use the router's value."`
	TimeFormat string   `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format; use the router's value."`
}

// Help is shown below the usage.
func (topCommand) Help() string {
	return `Shows rates, lag, problems, the users with the most events and the open incidents, from the broker and the database. The console (spate console) also has charts. In a
terminal, the display is updated in place; otherwise, each update is one line.

  spate top
  spate top --by product_id --last 30s
  spate top --json --rounds 2 | tail -n 1 | jq .events_per_second`
}

// hot is a frequent value.
type hot struct {
	Value  string `json:"value"`
	Events int64  `json:"events"`
}

// look is what one look has found.
type look struct {
	At        time.Time           `json:"at"`
	Rate      *float64            `json:"events_per_second"`
	Alerts    *float64            `json:"alert_records_per_minute"`
	Lag       int64               `json:"lag"`
	Closed    *float64            `json:"closed_seconds_ago"`
	Troubles  []string            `json:"troubles"`
	Hottest   []hot               `json:"hottest"`
	Incidents []incident.Incident `json:"incidents"`

	open int  // incidents
	more bool // there are more than that
}

const (
	// hottest and openShown are how many are shown, topBytes bounds what is read for the first.
	hottest   = 10
	openShown = 10
	topBytes  = 64 << 20
)

// Run is the command.
func (c *topCommand) Run(e *env) error {
	var errs []error
	if e.mode == "aws" {
		errs = append(errs, errors.New("mode: spate top reads Kafka and does not work in mode aws; use spate incidents ls and the CloudWatch metrics"))
	}
	if c.Every < time.Second {
		errs = append(errs, fmt.Errorf("every: %v is below 1s", c.Every))
	}
	if c.Rounds < 0 {
		errs = append(errs, fmt.Errorf("rounds: %d is negative", c.Rounds))
	}
	if strings.Contains(c.By, "]") {
		errs = append(errs, fmt.Errorf("by: %q is not the name of a column", c.By))
	}
	if c.Last < time.Second || c.Last > time.Hour {
		errs = append(errs, fmt.Errorf("last: %v is not between 1s and 1h", c.Last))
	}
	events := format.Config{Fields: activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}}
	errs = append(errs, c.formatFlags.events(&events, e.logger(slog.LevelError)), events.Validate())
	k, err := c.config(e.logger(slog.LevelError))
	if err := usage(errors.Join(append(errs, err, k.Validate())...)); err != nil {
		return err
	}
	p := &consoleParts{kafka: &k, topic: c.Topic, events: events, initial: c.initialFlags, lateness: 10 * time.Second, maxAhead: time.Minute, log: slog.New(slog.DiscardHandler)}
	p.rules = func(context.Context) (*rulesLog, error) { return c.rulesLogFlags.open(e) }
	defer p.close()
	var st lazyStore
	st.open = func() (incidentReader, error) { return c.incidents(e) }
	defer st.close()
	p.store = st.get
	source := &web.Kafka{Config: k, Names: kafka.NamesFor(c.Topic)}
	defer source.Close()
	return c.watch(e, p, &web.Meter{Source: source})
}

// watch looks again and again.
func (c *topCommand) watch(e *env, p *consoleParts, meter *web.Meter) (err error) {
	var live *terminal.Live
	if s, ok := e.stdout.(*terminal.Screen); ok && !c.JSON {
		live = s.Live()
		defer func() { err = errors.Join(err, live.Close()) }()
	}
	o := newOut(e.stdout)
	var samples []web.Sample
	for n := 0; e.ctx.Err() == nil; {
		l, s, err := c.look(e.ctx, p, meter, samples)
		if e.ctx.Err() != nil {
			break
		}
		if err != nil && len(samples) == 0 {
			return err
		}
		if err == nil {
			samples = append(samples, s)
			samples = samples[max(len(samples)-10, 0):]
		} else {
			l.Troubles = append(l.Troubles, err.Error())
		}
		switch {
		case c.JSON:
			err = o.json(l)
		case live != nil:
			err = live.Set(l.screen(newOut(e.stdout), c)) // its width may have changed
		default:
			o.printf("%s\n", l.line())
			err = o.end(nil)
		}
		if err != nil {
			return err
		}
		if n++; n == c.Rounds || !ops.Pause(e.ctx, c.Every) {
			break
		}
	}
	return o.end(nil)
}

// look looks once. It returns what is there, also with an error.
func (c *topCommand) look(ctx context.Context, p *consoleParts, meter *web.Meter, before []web.Sample) (*look, web.Sample, error) {
	l := &look{At: time.Now().UTC(), Troubles: []string{}, Hottest: []hot{}, Incidents: []incident.Incident{}}
	try, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := meter.Read(try)
	if err == nil {
		l.Rate, l.Alerts, l.Closed = measured(s.Rate), measured(s.AlertRate), measured(s.Delay)
		if n := s.Lag(); n != nil {
			l.Lag = *n
		}
		l.Troubles = append(l.Troubles, web.Troubles(append(slices.Clone(before), s))...)
		if herr := c.hottest(ctx, p, l); errors.Is(herr, errUsage) {
			return l, s, herr
		} else if herr != nil {
			l.Troubles = append(l.Troubles, herr.Error())
		}
	}
	st, serr := p.store()
	if serr == nil {
		const looked = 1000
		var list []incident.Incident
		if list, serr = store.Collect(st.Incidents(ctx, store.IncidentFilter{State: incident.StateOpen, Newest: true, Limit: looked})); serr == nil {
			l.open, l.more = len(list), len(list) == looked
			slices.SortStableFunc(list, func(a, b incident.Incident) int {
				if critical := a.Severity == alert.Critical; critical != (b.Severity == alert.Critical) {
					if critical {
						return -1
					}
					return 1
				}
				return b.LastWindowEnd.Compare(a.LastWindowEnd)
			})
			l.Incidents = append(l.Incidents, list[:min(len(list), openShown)]...)
		}
	}
	if serr != nil {
		l.Troubles = append(l.Troubles, serr.Error())
	}
	return l, s, err
}

// measured is a figure, or nil.
func measured(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	v = math.Round(v*10) / 10
	return &v
}

// hottest counts the values of a column in the newest part of the log.
func (c *topCommand) hottest(ctx context.Context, p *consoleParts, l *look) error {
	db, err := p.database(ctx, c.Last)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if c.By == "" {
		c.By = c.userColumn(db.Tables())
	}
	if c.By == "" {
		l.Troubles = append(l.Troubles, "the events have no column for the user; name another column with --by")
		return nil
	}
	column := "[" + c.By + "]" // SQLite takes an unknown name in quotation marks for a text
	s, err := db.Run(ctx, fmt.Sprintf("SELECT %s, COUNT(*) AS n FROM activity WHERE %s IS NOT NULL GROUP BY 1 ORDER BY n DESC LIMIT %d", column, column, hottest), query.Bounds{Bytes: topBytes, Timeout: 5 * time.Second},
		query.Output{Columns: func([]string) error { return nil }, Row: func(values []any) error {
			n, _ := values[1].(int64)
			l.Hottest = append(l.Hottest, hot{fmt.Sprint(values[0]), n})
			return nil
		}})
	var wrong *query.Error
	if errors.As(err, &wrong) {
		return usage(fmt.Errorf("by: %w", wrong))
	}
	if err == nil && s.Partial {
		l.Troubles = append(l.Troubles, "the most frequent values cover only part of the events; use a shorter --last")
	}
	return err
}

// userColumn is the column of the events that has the user: one with the name of its field, or user_id, which the built-in table has whatever the field is.
func (c *topCommand) userColumn(tables []query.Table) string {
	for _, field := range append(slices.Clone(c.UserField), "user_id") {
		name := strings.ReplaceAll(field, `\.`, ".")
		for _, t := range tables {
			if t.Name == "activity" && slices.ContainsFunc(t.Columns, func(x query.Column) bool { return x.Name == name }) {
				return name
			}
		}
	}
	return ""
}

// figureText writes a figure for people.
func figureText(v *float64, unit string) string {
	if v == nil {
		return "?" + unit
	}
	return terminal.Grouped(int64(math.Round(*v))) + unit
}

// line is a look in one line.
func (l *look) line() string {
	parts := []string{
		l.At.Format("15:04:05"), figureText(l.Rate, " events/s"), figureText(l.Alerts, " alert records/min"), counted(l.Lag, "event", "events") + " not counted yet",
		"closed up to " + figureText(l.Closed, " s ago"), fmt.Sprintf("%s open", l.openText()),
	}
	if len(l.Hottest) > 0 {
		parts = append(parts, fmt.Sprintf("most: %s (%s)", l.Hottest[0].Value, terminal.Grouped(l.Hottest[0].Events)))
	}
	return strings.Join(append(parts, l.Troubles...), "; ")
}

func (l *look) openText() string {
	if l.more {
		return fmt.Sprintf("%s or more incidents", terminal.Grouped(int64(l.open)))
	}
	return counted(int64(l.open), "incident", "incidents")
}

// screen is a look in the lines of a terminal.
func (l *look) screen(o *out, c *topCommand) (lines []terminal.Safe) {
	lines = append(lines, terminal.Sprintf("%s UTC   %s   %s   %s", l.At.Format("15:04:05"), figureText(l.Rate, " events/s"), figureText(l.Alerts, " alert records/min"), l.openText()+" open"),
		terminal.Sprintf("%s not counted yet   windows are closed up to %s", counted(l.Lag, "event", "events"), figureText(l.Closed, " s ago")))
	for _, t := range l.Troubles {
		lines = append(lines, o.paint(t, terminal.Yellow))
	}
	if len(l.Hottest) > 0 {
		t := terminal.Table{Columns: []terminal.Column{{Head: strings.ToUpper(c.By), Floor: 9}, {Head: "EVENTS IN " + strings.ToUpper(short(c.Last)), Right: true}}}
		for _, h := range l.Hottest {
			t.Row(h.Value, terminal.Grouped(h.Events))
		}
		lines = append(append(lines, ""), t.Lines(o.width)...)
	}
	if len(l.Incidents) > 0 {
		t := terminal.Table{Columns: incidentColumns(o.width)}
		for _, i := range l.Incidents {
			t.Row(incidentCells(o, i, time.Now())...)
		}
		lines = append(append(lines, ""), t.Lines(o.width)...)
	}
	for i := range lines {
		lines[i] = terminal.Cut(lines[i], max(o.width, 20))
	}
	return lines
}
