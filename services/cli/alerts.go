package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/terminal"
)

type alertsCommand struct {
	Ls   alertsLsCommand   `cmd:"" help:"List stored alerts, newest last."`
	Show alertsShowCommand `cmd:"" help:"Show one alert in detail: its window, its notifications, and the events behind it."`
}

// errNoDatabase: nothing has made the database yet.
var errNoDatabase = errors.New("the database has not been created yet; spate up and spate alert create it when they start. If spate is running with --state or SPATE_DATABASE_URL, give the same value here")

// look opens a database that is there already, and leaves its schema as it is: whoever looks at alerts changes nothing.
func (f migrateFlags) look(ctx context.Context) (store.Store, error) {
	db, err := f.target()
	if err != nil {
		return nil, err
	}
	migrations, err := db.status(ctx)
	if err != nil {
		return nil, err
	}
	states := make(map[string]int)
	for _, m := range migrations {
		states[stateOf(m)]++
	}
	switch {
	case states["pending"] > 0 && states["pending"] == len(migrations):
		return nil, fmt.Errorf("%s: %w", db.name, errNoDatabase)
	case states["pending"] > 0:
		return nil, fmt.Errorf("%s has the schema of an older version of spate; run spate migrate up", db.name)
	}
	return db.open(ctx)
}

// moment reads a time as people write it: an instant, a day (its beginning, UTC), or how long ago.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, ok := activity.Moment(text, now); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%s: %q is not a time; use a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24), or an age (1h, 7d)", flag, text)
}

// userToken reads a user as people write it: 7 is the number, "7" in quotes the string, everything else is a string.
func userToken(text string) (string, error) {
	if strings.HasPrefix(text, `"`) {
		token, err := store.User(json.RawMessage(text))
		if err == nil {
			return token, nil
		}
	}
	if text == "" {
		return "", errors.New("user: is empty")
	}
	return activity.UserToken(text)[0], nil
}

// directoryNotState tells those apart who mean the state of what is listed: --state is the directory, as everywhere.
func (f migrateFlags) directoryNotState(states ...string) error {
	if slices.Contains(states, f.State) {
		return fmt.Errorf("state: --state is the database directory, as in spate up; to filter by state, use --only %s (for a directory with that name, use ./%s)", f.State, f.State)
	}
	return nil
}

type alertsLsCommand struct {
	migrateFlags
	tableFlags
	User     *string  `placeholder:"USER" help:"List only alerts about this user. 7 is the number, '\"7\"' is the string, and any other text is a string."`
	Only     string   `name:"only" placeholder:"STATE" help:"List only alerts in this state: opened (the alert's window has not closed yet), raised (the alert became critical after it opened) or closed."`
	Severity string   `placeholder:"SEVERITY" help:"List only alerts with this severity or a higher one: warning or critical."`
	Key      []string `name:"key" placeholder:"COLUMN=VALUE" help:"List only alerts whose key has this value, such as product_id=7; 7 matches the number and the string. Repeatable; all must match."`
	Rule     string   `placeholder:"RULE" help:"List only alerts from this rule. Without a rules file, the only rule is burst."`
	Since    string   `placeholder:"TIME" help:"List only windows that start at or after this time: a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24, from midnight UTC), or an age (1h, 7d)."`
	Until    string   `placeholder:"TIME" help:"List only windows that start before this time, in the same form as --since."`
	listFlags
	alertsRulesFlags
	JSON bool `name:"json" help:"Print one JSON line per alert: the record as in the alerts topic, plus opened_at, closed_at, incident (its ID) and delivery (state, attempts)."`
}

// between reads the two ends of a time, of which each may be missing.
func between(since, until string, now time.Time) (from, to time.Time, err error) {
	from, err = moment("since", since, now)
	to, err2 := moment("until", until, now)
	if err = errors.Join(err, err2); err == nil && !from.IsZero() && !to.IsZero() && !from.Before(to) {
		err = fmt.Errorf("since, until: %s is not before %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return from, to, err
}

func (c *alertsLsCommand) filter(now time.Time) (store.Filter, error) {
	f := store.Filter{State: alert.State(c.Only), Rule: c.Rule, MinSeverity: alert.Severity(c.Severity), Limit: c.atMost(c.JSON)}
	errs := []error{c.directoryNotState("opened", "raised", "closed")}
	var err error
	if c.User != nil {
		f.User, err = userToken(*c.User)
		errs = append(errs, err)
	}
	f.Since, f.Until, err = between(c.Since, c.Until, now)
	errs = append(errs, err)
	if _, err := keyValues(c.Key); err != nil {
		errs = append(errs, fmt.Errorf("key: %w", err))
	}
	errs = append(errs, flagged(f.Validate(), "state", "only"))
	return f, errors.Join(errs...)
}

func (c *alertsLsCommand) Run(e *env) (err error) {
	now := time.Now()
	f, err := c.filter(now)
	if err != nil {
		return usage(err)
	}
	var st alertReader
	if e.mode == "aws" {
		if st, _, err = c.table(e.ctx); err != nil {
			return usage(err)
		}
	} else {
		db, err := c.look(e.ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		st = db
	}
	none := "no alerts yet"
	if len(c.Key) > 0 || f.User != "" || f.State != "" || f.Rule != "" || f.MinSeverity != "" || !f.Since.IsZero() || !f.Until.IsZero() {
		none = "no alerts match; to list all alerts, run spate alerts ls without flags"
	}
	return list(e, c.listFlags, listing[store.Alert]{
		json: c.JSON, object: func(a store.Alert) any { a.Record = a.Written(); return a }, none: none,
		unknown: func() (bool, error) { return c.unknown(e, st, "alert", c.Rule, c.Key) },
		columns: append(slices.Clone(alertColumns), terminal.Column{Head: "NOTIFIED"}, idColumn),
		row: func(o *out, a store.Alert) []any {
			return append(alertCells(o, a.Record, now), notified(a.Delivery.State), o.paint(a.ID, terminal.Dim))
		},
	}, func(limit int) iter.Seq2[store.Alert, error] {
		f.Newest, f.Limit = limit > 0, limit
		if len(c.Key) == 0 {
			return st.Alerts(e.ctx, f)
		}
		f.Limit = 0                   // of those that have the key
		values, _ := keyValues(c.Key) // they were checked
		return keep(st.Alerts(e.ctx, f), limit, func(a store.Alert) bool { return hasKey(a.Record, values) })
	})
}

// hasKey reports whether the columns of an alert's key have values, as a person writes them.
func hasKey(r alert.Record, values map[string]string) bool { return keyHas(incident.KeyOf(&r), values) }

// alertColumns are those of alerts wherever they are printed, with the cells of alertCells.
var alertColumns = []terminal.Column{{Head: "SEVERITY"}, {Head: "USER", Floor: 9}, {Head: "WINDOW (UTC)"}, {Head: "EVENTS", Right: true}}

// idColumn is that of ids, of which a beginning that no other has is enough for every command.
var idColumn = terminal.Column{Head: "ALERT", Floor: shortID, Prefix: true}

const shortID = 8 // digits

func alertCells(o *out, r alert.Record, now time.Time) []any {
	return []any{severityText(o, r.Severity), whose(r), windowText(r.WindowStart, r.WindowEnd, now), countText(r)}
}

// whose names what an alert is about: the user, or, for a rule of a rules file, the rule and the key.
func whose(r alert.Record) string {
	if r.Key == nil {
		return r.KeyText()
	}
	return r.Rule + " " + keyText(r.Key, r.UserID)
}

// keyText writes a key for people, with the names of its columns if there are several and they are known.
func keyText(key, token json.RawMessage) string {
	if text, err := alert.KeyLabel(key); err == nil {
		return text
	}
	return activity.UserText(token)
}

func severityText(o *out, s alert.Severity) terminal.Safe {
	if s == alert.Critical {
		return o.paint(string(s), terminal.Red)
	}
	return o.paint(string(s), terminal.Yellow)
}

// countText is the count of an alert. It is not known how many events followed after an alert that is not closed was opened.
func countText(r alert.Record) string {
	if r.State != alert.Closed {
		return terminal.Grouped(r.Count) + orMore
	}
	return terminal.Grouped(r.Count)
}

const orMore = " or more"

// notified says how far the messages about an alert are.
func notified(s store.DeliveryState) string {
	if s == store.None {
		return "-"
	}
	return string(s)
}
