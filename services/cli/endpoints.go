package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"spate/services/alerter/deliver"
	"spate/shared/notify"
	"spate/shared/notify/endpoints"
	"spate/shared/store"
	"spate/shared/terminal"
)

type endpointsCommand struct {
	Ls      endpointsLsCommand      `cmd:"" help:"List endpoints, with counts of their pending, exhausted and dropped messages."`
	Formats endpointsFormatsCommand `cmd:"" help:"List the endpoint formats, such as pagerduty and slack, with their fields."`
	Test    endpointsTestCommand    `cmd:"" help:"Send a message of type endpoint.test to an endpoint, and print the outcome."`
	Enable  endpointsEnableCommand  `cmd:"" help:"Enable an endpoint, so that it is notified again."`
	Disable endpointsDisableCommand `cmd:"" help:"Disable an endpoint; its messages are dropped until it is enabled."`
}

// Help is shown below the usage.
func (endpointsCommand) Help() string {
	return `SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET define one endpoint, named webhook. Define more in a YAML file, SPATE_ENDPOINTS:

  endpoints:
    - name: pager                     # lower-case letters, digits and single dashes; stored with the messages, so do not change it
      url_env: PAGER_URL              # or url: https://..., or url_file: a path
      secret_file: /run/secrets/pager # or secret: whsec_..., or secret_env: a variable; to rotate, give two secrets separated by a space
      min_severity: critical          # this and all keys below are optional; by default, the endpoint is notified of all incidents
      rules: [burst]
      transitions: [opened, closed]   # notify of alerts that reach these states, instead of incidents
      allow_private: true             # allow addresses on this machine or in a private network
      rate: 10                        # maximum attempts per second
      digest_above: 100               # number of messages per minute that are sent individually; the others, except critical ones, go into one digest
      link: https://grafana.example/d/spate?from={since}&to={until} # URL to open for details
    - name: on-call
      format: pagerduty               # by default standard-webhooks; spate endpoints formats lists all formats and their fields
      routing_key_env: PAGERDUTY_KEY

Paths are relative to the YAML file. spate up and spate alert read the file at startup.`
}

// known is an endpoint as the configuration and the database describe it.
type known struct {
	Name       string    `json:"name"`
	Configured bool      `json:"configured"`          // here, in the environment of this command
	RunningAt  time.Time `json:"running_at,omitzero"` // when a process that delivers said that it has it; the configuration is its own then
	Enabled    bool      `json:"enabled"`
	DisabledAt time.Time `json:"disabled_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	Failing    string    `json:"failing,omitempty"` // why the last try did not get there, if messages are pending
	Pending    int64     `json:"pending"`
	Exhausted  int64     `json:"exhausted"`
	Dropped    int64     `json:"dropped"`

	store.EndpointConfig
}

// join puts together what is known, in the order of the configuration, then by name.
func join(configured []deliver.Endpoint, states []store.EndpointState) []known {
	byName := make(map[string]store.EndpointState, len(states))
	for _, s := range states {
		byName[s.Name] = s
	}
	of := func(name string) known {
		s := byName[name]
		delete(byName, name)
		k := known{Name: name, Enabled: s.DisabledAt.IsZero(), DisabledAt: s.DisabledAt, Reason: s.Reason, Pending: s.Pending, Exhausted: s.Exhausted, Dropped: s.Dropped}
		if c := s.Config; c != nil {
			k.RunningAt, k.EndpointConfig = s.ConfiguredAt, *c
		}
		return k
	}
	var out []known
	for _, e := range configured {
		k := of(e.Name)
		k.Configured, k.EndpointConfig = true, e.Config()
		out = append(out, k)
	}
	for _, s := range states {
		if _, left := byName[s.Name]; left {
			out = append(out, of(s.Name))
		}
	}
	return out
}

// told says what the endpoint is notified of.
func (k known) told() string {
	var parts []string
	if k.MinSeverity != "" {
		parts = append(parts, string(k.MinSeverity))
	}
	if len(k.Rules) > 0 {
		parts = append(parts, strings.Join(k.Rules, ","))
	}
	if len(k.Transitions) > 0 {
		states := make([]string, len(k.Transitions))
		for i, t := range k.Transitions {
			states[i] = string(t)
		}
		parts = append(parts, strings.Join(states, ","))
	}
	if len(parts) == 0 {
		parts = append(parts, "all")
	}
	if k.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%v per second", k.Rate))
	}
	if k.DigestAbove > 0 {
		parts = append(parts, fmt.Sprintf("digest above %d per minute", k.DigestAbove))
	}
	return strings.Join(parts, "; ")
}

type endpointsLsCommand struct {
	deliveryFlags
	webhookFlags
	alertsRulesFlags
	Wide bool `short:"w" help:"Do not truncate columns to fit the terminal."`
	JSON bool `name:"json" help:"Print one JSON line per endpoint."`
}

func (c *endpointsLsCommand) Run(e *env) error {
	configured, stop, err := c.endpoints(e.logger(slog.LevelWarn))
	if err != nil {
		return usage(err)
	}
	defer stop()
	var states []store.EndpointState
	failing := make(map[string]string)
	st, err := c.ledger(e)
	switch {
	case errors.Is(err, errNoDatabase):
		terminal.Fprintln(e.stderr, "spate:", err) // no notification was sent yet: that is not a failure here
	case err != nil:
		return err
	default:
		if states, err = st.Endpoints(e.ctx); err == nil {
			failing, err = failures(e.ctx, st, states)
		}
		if err := errors.Join(err, st.Close()); err != nil {
			return err
		}
	}
	c.warnRules(e, configured)
	list := join(configured, states)
	o := newOut(e.stdout)
	if c.JSON {
		for _, k := range list {
			k.Failing = failing[k.Name]
			if err := o.json(k); err != nil {
				return o.end(err)
			}
		}
		return o.end(nil)
	}
	if len(list) == 0 {
		terminal.Fprintln(e.stderr, terminal.Safe("no endpoints are configured: set SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET,\nor SPATE_ENDPOINTS; see spate endpoints --help"))
		return nil
	}
	now := time.Now()
	t := terminal.Table{Columns: []terminal.Column{
		{Head: "NAME", Floor: 20}, {Head: "FORMAT", Floor: 8}, {Head: "HOST", Floor: 16}, {Head: "PENDING", Right: true}, {Head: "EXHAUSTED", Right: true}, {Head: "DROPPED", Right: true}, {Head: "RECEIVES", Floor: 8}, {Head: "STATE", Floor: 8},
	}}
	for _, k := range list {
		host, receives := k.Host, k.told()
		if !k.Configured && k.RunningAt.IsZero() {
			host, receives = "not configured", "-"
		}
		state := o.paint("enabled", terminal.Green)
		if !k.Enabled {
			state = o.paint(fmt.Sprintf("disabled since %s: %s", clockText(k.DisabledAt.Truncate(time.Second), now), k.Reason), terminal.Red)
		} else if f := failing[k.Name]; f != "" {
			state = o.paint(f, terminal.Red)
		} else if !k.Configured && !k.RunningAt.IsZero() {
			state += terminal.Sprintf(", in the process started at %s", clockText(k.RunningAt.Truncate(time.Second), now))
		}
		t.Row(k.Name, cmp.Or(k.Format, "-"), host, terminal.Grouped(k.Pending), terminal.Grouped(k.Exhausted), terminal.Grouped(k.Dropped), receives, state)
	}
	if c.Wide {
		o.width = 0
	}
	leaveOut(&t, o.width, "DROPPED", "EXHAUSTED")
	o.lines(t.Lines(o.width))
	return o.end(nil)
}

// leaveOut removes columns that are 0 in every row, one after the other, as long as lines do not fit.
func leaveOut(t *terminal.Table, width int, heads ...string) {
	for _, head := range heads {
		i := slices.IndexFunc(t.Columns, func(c terminal.Column) bool { return c.Head == head })
		if width == 0 || t.Narrowest() <= width || slices.ContainsFunc(t.Rows, func(r []terminal.Safe) bool { return r[i] != "0" }) {
			continue
		}
		t.Columns = slices.Delete(t.Columns, i, i+1)
		for n := range t.Rows {
			t.Rows[n] = slices.Delete(t.Rows[n], i, i+1)
		}
	}
}

// failures says of each endpoint that has messages to come, and whose last try failed, why, and when the next try of that message is.
func failures(ctx context.Context, st ledger, states []store.EndpointState) (map[string]string, error) {
	now := time.Now()
	out := make(map[string]string)
	for _, s := range states {
		if s.Pending == 0 || !s.DisabledAt.IsZero() {
			continue
		}
		last, err := store.Collect(st.ListTries(ctx, store.TryFilter{Endpoint: s.Name, Newest: true, Limit: 1}))
		if err != nil {
			return nil, err
		}
		if len(last) == 0 || last[0].Outcome == notify.Delivered {
			continue
		}
		out[s.Name] = "failing: " + last[0].Reason
		if due := last[0].NextAt; !due.IsZero() {
			out[s.Name] += ", next attempt " + clockText(due.Truncate(time.Second), now)
		}
	}
	return out, nil
}

type endpointsFormatsCommand struct {
	Format string `arg:"" optional:"" help:"Name of a format. Default: all."`
	JSON   bool   `name:"json" help:"Print one JSON line per format: name, help, fields, example."`
}

// Help is shown below the usage.
func (endpointsFormatsCommand) Help() string {
	return `An endpoint in the endpoints file (SPATE_ENDPOINTS) has the common fields and the fields of its format. A secret field NAME can also be
given as NAME_env (the name of an environment variable) or NAME_file (a path).`
}

func (c *endpointsFormatsCommand) Run(e *env) error {
	formats := endpoints.Formats()
	if c.Format != "" {
		i := slices.IndexFunc(formats, func(f endpoints.Format) bool { return f.Name == c.Format })
		if i < 0 {
			var all []string
			for _, f := range formats {
				all = append(all, f.Name)
			}
			return usage(fmt.Errorf("format %s does not exist; the formats are %s", endpoints.Redacted(c.Format), strings.Join(all, ", ")))
		}
		formats = formats[i : i+1]
	}
	o := newOut(e.stdout)
	if c.JSON {
		for _, f := range formats {
			f.Fields = slices.Concat(f.Fields, endpoints.CommonFields())
			if err := o.json(f); err != nil {
				return o.end(err)
			}
		}
		return o.end(nil)
	}
	for _, f := range formats {
		o.lines([]terminal.Safe{terminal.Sprintf("%s: %s", f.Name, f.Help), ""})
		o.lines(fieldTable(f.Fields).Lines(0))
		o.lines([]terminal.Safe{""})
		for line := range strings.Lines(f.Example) {
			o.lines([]terminal.Safe{terminal.Sprintf("    %s", strings.TrimSuffix(line, "\n"))})
		}
		o.lines([]terminal.Safe{""})
	}
	o.lines([]terminal.Safe{"Every endpoint:", ""})
	o.lines(fieldTable(endpoints.CommonFields()).Lines(0))
	return o.end(nil)
}

func fieldTable(fields []endpoints.Field) *terminal.Table {
	t := &terminal.Table{Columns: []terminal.Column{{Head: "FIELD"}, {Head: "REQUIRED"}, {Head: "DEFAULT"}, {Head: "MEANING"}}}
	for _, f := range fields {
		name, required := f.Name, "-"
		if f.Secret {
			name += ", _env, _file"
		}
		if f.Required {
			required = "yes"
		}
		t.Row(name, required, cmp.Or(f.Default, "-"), f.Help)
	}
	return t
}

type endpointsTestCommand struct {
	webhookFlags
	alertsRulesFlags
	Name string `arg:"" help:"Name of the endpoint; the endpoint from --webhook-url is named webhook."`
	JSON bool   `name:"json" help:"Print one JSON line: endpoint, webhook_id, outcome, status (0: no response), reason, took_ms."`
}

// Help is shown below the usage.
func (endpointsTestCommand) Help() string {
	return `The message is sent once, even to a disabled endpoint, and is not stored. The exit code is 0 only if the endpoint accepted it.`
}

func (c *endpointsTestCommand) Run(e *env) error {
	configured, stop, err := c.endpoints(e.logger(slog.LevelWarn))
	if err != nil {
		return usage(err)
	}
	defer stop()
	i := slices.IndexFunc(configured, func(x deliver.Endpoint) bool { return x.Name == c.Name })
	if i < 0 {
		return fmt.Errorf("endpoint %s is not configured; %s", endpoints.Redacted(c.Name), names(configured))
	}
	to := configured[i]
	now := time.Now()
	m, err := notify.NewTest(now, to.Name)
	if err != nil {
		return err
	}
	if !c.JSON {
		terminal.Fprintf(e.stdout, "%s to %s (%s)\n", m.ID, to.Name, to.Config().Host)
	}
	r := to.Notifier.Notify(e.ctx, m)
	took := time.Since(now)
	c.warnRules(e, configured[i:i+1])
	if err := e.ctx.Err(); err != nil && r.Outcome != notify.Delivered {
		return err
	}
	if c.JSON {
		err = newResult(e, struct {
			Endpoint  string         `json:"endpoint"`
			WebhookID string         `json:"webhook_id"`
			Outcome   notify.Outcome `json:"outcome"`
			Status    int            `json:"status"`
			Reason    string         `json:"reason"`
			TookMS    int64          `json:"took_ms"`
		}{to.Name, m.ID, r.Outcome, r.Status, r.Reason, took.Milliseconds()})
	} else if r.Outcome == notify.Delivered {
		terminal.Fprintf(e.stdout, "delivered: status %d in %d ms\n", r.Status, took.Milliseconds())
	}
	if err == nil && r.Outcome != notify.Delivered {
		err = fmt.Errorf("endpoint %s: %s: %s", to.Name, r.Outcome, terminal.Text(r.Reason))
	}
	return err
}

func names(configured []deliver.Endpoint) string {
	if len(configured) == 0 {
		return "no endpoints are configured: set SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET, or SPATE_ENDPOINTS; see spate endpoints --help"
	}
	all := make([]string, len(configured))
	for i, e := range configured {
		all[i] = e.Name
	}
	return "configured endpoints: " + strings.Join(all, ", ")
}

// endpointFlags are those of enable and disable.
type endpointFlags struct {
	deliveryFlags
	webhookFlags
	Name string `arg:"" help:"Name of the endpoint; the endpoint from --webhook-url is named webhook."`
	JSON bool   `name:"json" help:"Print one JSON line: name, enabled, disabled_at, reason, pending, exhausted, dropped."`
}

// state returns what the database knows of the endpoint. One that it does not know has to be configured.
func (c *endpointFlags) state(ctx context.Context, log *slog.Logger, st ledger) (store.EndpointState, error) {
	states, err := st.Endpoints(ctx)
	if err != nil {
		return store.EndpointState{}, err
	}
	for _, s := range states {
		if s.Name == c.Name {
			return s, nil
		}
	}
	// An endpoint without pending, exhausted or dropped messages is not among them.
	told, err := store.Collect(st.ListDeliveries(ctx, store.DeliveryFilter{Endpoint: c.Name, Limit: 1}))
	if err != nil {
		return store.EndpointState{}, err
	}
	if len(told) > 0 {
		return store.EndpointState{Name: c.Name}, nil
	}
	// Only now, so that a mistake in the configuration does not prevent disabling an endpoint.
	configured, stop, err := c.endpoints(log)
	if err != nil {
		return store.EndpointState{}, usage(err)
	}
	defer stop()
	if !slices.ContainsFunc(configured, func(e deliver.Endpoint) bool { return e.Name == c.Name }) {
		return store.EndpointState{}, fmt.Errorf("endpoint %s is neither configured nor in the database; %s", endpoints.Redacted(c.Name), names(configured))
	}
	return store.EndpointState{Name: c.Name}, nil
}

// set enables or disables the endpoint and returns its state before and after.
func (c *endpointFlags) set(ctx context.Context, log *slog.Logger, st ledger, enabled bool, reason string) (before, after store.EndpointState, err error) {
	if before, err = c.state(ctx, log, st); err != nil {
		return before, after, err
	}
	if err = st.SetEnabled(ctx, time.Now(), c.Name, enabled, reason); err != nil {
		return before, after, err
	}
	after, err = c.state(ctx, log, st)
	return before, after, err
}

func (c *endpointFlags) write(e *env, s store.EndpointState) error {
	return newResult(e, struct {
		Name       string    `json:"name"`
		Enabled    bool      `json:"enabled"`
		DisabledAt time.Time `json:"disabled_at,omitzero"`
		Reason     string    `json:"reason,omitempty"`
		Pending    int64     `json:"pending"`
		Exhausted  int64     `json:"exhausted"`
		Dropped    int64     `json:"dropped"`
	}{s.Name, s.DisabledAt.IsZero(), s.DisabledAt, s.Reason, s.Pending, s.Exhausted, s.Dropped})
}

type endpointsEnableCommand struct{ endpointFlags }

func (c *endpointsEnableCommand) Run(e *env) (err error) {
	st, err := c.ledger(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	before, after, err := c.set(e.ctx, e.logger(slog.LevelWarn), st, true, "")
	if err != nil {
		return err
	}
	if c.JSON {
		return c.write(e, after)
	}
	if before.DisabledAt.IsZero() {
		terminal.Fprintf(e.stdout, "%s is already enabled\n", after.Name)
	} else {
		terminal.Fprintf(e.stdout, "%s is enabled; it had been disabled since %s: %s\n", after.Name, before.DisabledAt.Format(instant), before.Reason)
	}
	if after.Dropped == 0 {
		return nil
	}
	oldest, err := store.Collect(st.ListDeliveries(e.ctx, store.DeliveryFilter{Endpoint: c.Name, States: []store.DeliveryState{store.Disabled}, Limit: 1}))
	if err != nil || len(oldest) == 0 {
		return err
	}
	what := fmt.Sprintf("%d messages were dropped in the meantime; to send them, run", after.Dropped)
	if after.Dropped == 1 {
		what = "1 message was dropped in the meantime; to send it, run"
	}
	terminal.Fprintf(e.stdout, "%s:\n    spate deliveries recover --endpoint %s --since %s\n", what, after.Name, oldest[0].CreatedAt.Format(instant))
	return nil
}

type endpointsDisableCommand struct {
	endpointFlags
	Reason string `default:"by hand" placeholder:"TEXT" help:"Reason to record."`
}

func (c *endpointsDisableCommand) Run(e *env) (err error) {
	st, err := c.ledger(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	before, after, err := c.set(e.ctx, e.logger(slog.LevelWarn), st, false, c.Reason)
	if err != nil {
		return err
	}
	switch {
	case c.JSON:
		return c.write(e, after)
	case !before.DisabledAt.IsZero():
		terminal.Fprintf(e.stdout, "%s is already disabled, since %s: %s\n", after.Name, after.DisabledAt.Format(instant), after.Reason)
	default:
		terminal.Fprintf(e.stdout, "%s is disabled, and its messages are dropped; spate endpoints enable %s shows how to send them later\n", after.Name, after.Name)
	}
	return nil
}
