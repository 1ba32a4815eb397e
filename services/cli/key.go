package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"spate/services/detector"
	"spate/shared/activity"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/rule"
	"spate/shared/terminal"
	"spate/shared/window"
)

// askFlags say how detectors are asked.
type askFlags struct {
	tokenFlags
	HTTPTLSCAFile string `name:"http-tls-ca-file" env:"SPATE_HTTP_TLS_CA_FILE" placeholder:"FILE" help:"CA certificates (PEM) used to verify the detectors' certificates; if set, detectors without TLS are not queried. Default: the system's CA certificates."`
}

func (f askFlags) asker() ops.Asker { return ops.Asker{CAFile: f.HTTPTLSCAFile, Access: f.access()} }

// keyFlags say which detectors are asked for a key.
type keyFlags struct {
	brokerFlags
	askFlags
	Topic string `env:"SPATE_TOPIC" default:"activity" help:"Events topic."`
	Wide  bool   `short:"w" help:"Do not truncate lines to fit the terminal."`
	JSON  bool   `name:"json" help:"Print one JSON line per matching key (a number and a string can both match)."`
}

// ask asks the detectors for keys, and prints the windows of each that a condition is about.
func (f keyFlags) ask(e *env, k kafka.Config, what string, tokens []string, about func(detector.KeyWindow) bool) error {
	for _, token := range tokens {
		if len(token) > window.MaxKey {
			return usage(fmt.Errorf("%s: a key can be at most %s bytes long as JSON, but this one is %s bytes long; rules do not count events with longer keys", what, terminal.Grouped(window.MaxKey), terminal.Grouped(len(token))))
		}
	}
	keys, err := detector.Ask(e.ctx, k, kafka.NamesFor(f.Topic), f.asker(), tokens...)
	if err != nil {
		return err
	}
	found := slices.ContainsFunc(keys, func(k detector.Key) bool { return slices.ContainsFunc(k.Windows, about) })
	for i, key := range keys {
		key.Windows = slices.DeleteFunc(key.Windows, func(w detector.KeyWindow) bool { return !about(w) })
		if len(key.Windows) == 0 && (found || i > 0) {
			continue // the other one is meant
		}
		maps.DeleteFunc(key.More, func(rule string, _ int) bool {
			return !slices.ContainsFunc(key.Windows, func(w detector.KeyWindow) bool { return w.Rule == rule })
		})
		if f.JSON {
			out := any(key)
			if what == "user" {
				out = userKey{key.Token, key}
			}
			if err := json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(out); err != nil {
				return err
			}
			continue
		}
		if err := printKey(e.stdout, what, key, f.Wide); err != nil {
			return err
		}
	}
	return nil
}

// userKey is a key that is a user.
type userKey struct {
	UserID json.RawMessage `json:"user_id"`
	detector.Key
}

type userCommand struct {
	ID string `arg:"" help:"User, as written in the events."`
	keyFlags
}

// Help is shown below the usage.
func (userCommand) Help() string {
	return "Shows the windows of all rules whose key is user_id alone. For rules with another key, use spate key."
}

func (c *userCommand) Run(e *env) error {
	k, err := c.config(e.logger(slog.LevelError))
	if err := usage(errors.Join(err, k.Validate())); err != nil {
		return err
	}
	return c.ask(e, k, "user", activity.UserToken(c.ID), func(w detector.KeyWindow) bool {
		return w.Key == nil || slices.Equal(keyNames(w.Key), []string{"user_id"})
	})
}

type keyCommand struct {
	Columns []string `arg:"" optional:"" name:"column=value" help:"Value of a key column, such as user_id=alice. Give all key columns; for a rule without GROUP BY columns, give none."`
	Null    []string `name:"null" placeholder:"COLUMN" help:"Key column that is NULL; use instead of COLUMN=VALUE. Repeatable."`
	Rule    string   `placeholder:"NAME" help:"Show only this rule. Default: all rules with this key."`
	keyFlags
	initialFlags
}

// Help is shown below the usage.
func (keyCommand) Help() string {
	return `For each rule with this key, shows the open windows: the events so far, the rule's columns, and the alert, if any. The answer
comes from the detector that counts the key, not from the database.

  spate key user_id=900600000
  spate key product_id=44600062 --rule scraped
  spate key user_id=7 ip=10.0.0.1         for a rule with GROUP BY user_id, ip
  spate key user_id=7 --null ip           for events without ip; ip=NULL means the text NULL
  spate rules ls                          lists the rules and their keys`
}

func (c *keyCommand) Run(e *env) error {
	k, err := c.config(e.logger(slog.LevelError))
	values, verr := columnValues(c.Columns, c.Null)
	if err := usage(errors.Join(err, k.Validate(), verr)); err != nil {
		return err
	}
	l, _, err := newRulesTopic(k, c.Topic, c.initialFlags)
	if err != nil {
		return err
	}
	defer l.Close()
	if _, err := l.Look(e.ctx); err != nil {
		return err
	}
	var tokens []string
	var about []*rule.Rule
	var wrong error
	for _, r := range l.Plan().Rules { // windows of earlier revisions may not have ended
		if !r.HasKey(sortedKeys(values)) || c.Rule != "" && r.Name != c.Rule {
			continue
		}
		more, err := r.KeyTokens(values)
		if err != nil { // the column may have another type for another rule
			wrong = fmt.Errorf("%s: %w", r.Name, err)
			continue
		}
		about = append(about, r)
		for _, t := range more {
			if !slices.Contains(tokens, t) {
				tokens = append(tokens, t)
			}
		}
	}
	switch {
	case len(about) == 0 && wrong != nil:
		return usage(wrong)
	case len(about) == 0:
		return usage(noSuchKey(l.InForce(), sortedKeys(values), c.Rule))
	}
	plan, now := l.Plan(), time.Now()
	for _, r := range about {
		if from := r.Window.From; from > now.UnixMilli() && r.Window.Until != from {
			terminal.Fprintf(e.stderr, "spate: rule %s of revision %d takes effect at %s UTC and has no windows before that\n", r.Name, plan.Since[slices.Index(plan.Rules, r)], clockText(time.UnixMilli(from), now))
		}
	}
	return c.ask(e, k, "key", tokens, func(w detector.KeyWindow) bool {
		return slices.ContainsFunc(about, func(r *rule.Rule) bool {
			return r.Name == w.Rule && (w.Key == nil || r.HasKey(slices.Sorted(slices.Values(keyNames(w.Key)))))
		})
	})
}

// columnValues are those of the columns of a key; nil is NULL.
func columnValues(columns, null []string) (map[string]*string, error) {
	texts, err := keyValues(columns)
	out := map[string]*string{}
	for name, text := range texts {
		out[name] = &text
	}
	for _, name := range null {
		if _, twice := out[name]; twice {
			err = errors.Join(err, fmt.Errorf("column %s is given twice", terminal.Text(name)))
		}
		out[name] = nil
	}
	return out, err
}

// keyValues reads COLUMN=VALUE.
func keyValues(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s is not COLUMN=VALUE; use, for example, user_id=alice", terminal.Text(a))
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("column %s is given twice", terminal.Text(name))
		}
		out[name] = value
	}
	return out, nil
}

// noSuchKey says which keys there are.
func noSuchKey(rules []*rule.Rule, names []string, only string) error {
	byKey := map[string][]string{}
	for _, r := range rules {
		if only != "" && r.Name != only {
			continue
		}
		var columns []string
		for _, k := range r.Keys {
			columns = append(columns, k.Name)
		}
		key := strings.Join(columns, ", ")
		if len(columns) == 0 {
			key = "no column"
		}
		if !slices.Contains(byKey[key], r.Name) {
			byKey[key] = append(byKey[key], r.Name)
		}
	}
	if len(byKey) == 0 {
		return fmt.Errorf("rule: no rule %s is in force; to list the rules in force, run spate rules ls", terminal.Text(only))
	}
	var list []string
	for _, key := range sortedKeys(byKey) {
		list = append(list, fmt.Sprintf("%s (%s)", key, strings.Join(byKey[key], ", ")))
	}
	if len(names) == 0 {
		return fmt.Errorf("give the key as COLUMN=VALUE; the keys are: %s", strings.Join(list, "; "))
	}
	return fmt.Errorf("no rule has the key %s; the keys are: %s", terminal.Text(strings.Join(names, ", ")), strings.Join(list, "; "))
}

// keyNames are the names of the members of a JSON object, in their order.
func keyNames(object json.RawMessage) (names []string) {
	dec := json.NewDecoder(strings.NewReader(string(object)))
	if _, err := dec.Token(); err != nil {
		return nil
	}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err != nil || dec.Decode(&value) != nil {
			return names
		}
		names = append(names, fmt.Sprint(name))
	}
	return names
}

// printKey prints a detector's answer about a key.
func printKey(w io.Writer, what string, k detector.Key, wide bool) error {
	o := newOut(w)
	if wide {
		o.width = 0
	}
	var key json.RawMessage
	if len(k.Windows) > 0 {
		key = k.Windows[0].Key
	}
	o.printf("%s %s (partition %d)", what, keyText(key, k.Token), k.Partition)
	if k.Watermark != nil {
		o.printf(", windows closed up to %s", k.Watermark.Format(time.RFC3339Nano))
	}
	o.printf("\n")
	if len(k.Windows) == 0 {
		o.printf("  no open windows%s\n", terminal.Safe(map[string]string{"user": " for rules whose key is user_id; for other keys, use spate key"}[what]))
		return o.end(nil)
	}
	now := time.Now()
	t := terminal.Table{Columns: []terminal.Column{{Head: "RULE"}, {Head: "WINDOW (UTC)"}, {Head: "EVENTS", Right: true}, {Head: "ALERT"}, {Head: "COLUMNS", Floor: 12}}}
	for _, w := range k.Windows {
		state := any("")
		switch {
		case w.AlertID != "":
			state = w.AlertID
		case w.Holds:
			state = "at the end"
		}
		if w.Critical && (w.AlertID != "" || w.Holds) {
			state = o.paint(fmt.Sprint(state), terminal.Red)
		}
		t.Row(w.Rule, clockText(w.WindowStart, now)+" - "+w.WindowEnd.UTC().Format(clock), w.Count, state, strings.Trim(string(w.Columns), "{}"))
	}
	o.lines(t.Lines(o.width))
	for _, rule := range sortedKeys(k.More) {
		o.printf("  and for %s, %s\n", rule, terminal.Safe(counted(k.More[rule], "window that ends later", "windows that end later")))
	}
	return o.end(nil)
}
