package console

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"spate/services/alerter"
	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/terminal"
)

type endpointsCommand struct {
	Ls      endpointsLsCommand      `cmd:"" help:"List who is notified of alerts, and how far that is."`
	Test    endpointsTestCommand    `cmd:"" help:"Send an endpoint a message of type endpoint.test, now, and tell what it answers."`
	Enable  endpointsEnableCommand  `cmd:"" help:"Tell an endpoint of alerts again."`
	Disable endpointsDisableCommand `cmd:"" help:"Tell an endpoint of nothing: what is due for it is dropped, until it is enabled."`
}

// Help is shown below the usage.
func (endpointsCommand) Help() string {
	return `An endpoint is set with SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET; it is named webhook. More are in a YAML file, SPATE_ENDPOINTS:

  endpoints:
    - name: pager                     # lower-case letters, digits, single dashes; it stays with the messages
      url_env: PAGER_URL              # or url: https://..., or url_file: a path
      secret_file: /run/secrets/pager # or secret: whsec_..., or secret_env: a variable; two with a space between them while you replace one
      min_severity: critical          # this and what follows may be left out: then it is notified of everything
      rules: [burst]
      transitions: [opened]           # or closed
      allow_private: true             # the address may be on this machine or in a private network
      rate: 10                        # tries a second at most
      digest_above: 100               # so many messages a minute go one by one, the others, unless critical, in one at its end
      link: https://grafana.example/d/spate?from={since}&to={until} # in that one

Paths are relative to the file. spate up and spate alert read it when they start.`
}

// known is what is known of an endpoint, from the configuration and from the database.
type known struct {
	Name       string    `json:"name"`
	Configured bool      `json:"configured"`
	Host       string    `json:"host,omitempty"` // scheme://host[:port]
	Enabled    bool      `json:"enabled"`
	DisabledAt time.Time `json:"disabled_at,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	Pending    int64     `json:"pending"`
	Exhausted  int64     `json:"exhausted"`
	Dropped    int64     `json:"dropped"`

	Rules       []string       `json:"rules,omitempty"`
	MinSeverity alert.Severity `json:"min_severity,omitempty"`
	Transitions []alert.State  `json:"transitions,omitempty"`
	Rate        float64        `json:"rate,omitempty"`
	DigestAbove int            `json:"digest_above,omitempty"`
}

// hostOf returns what may be told of where an endpoint is.
func hostOf(e alerter.Endpoint) string {
	if h, ok := e.Notifier.(interface{ Host() string }); ok {
		return h.Host()
	}
	return ""
}

// join puts together what is known, in the order of the configuration, then by name.
func join(configured []alerter.Endpoint, states []store.EndpointState) []known {
	byName := make(map[string]store.EndpointState, len(states))
	for _, s := range states {
		byName[s.Name] = s
	}
	of := func(name string) known {
		s := byName[name]
		delete(byName, name)
		return known{Name: name, Enabled: s.DisabledAt.IsZero(), DisabledAt: s.DisabledAt, Reason: s.Reason, Pending: s.Pending, Exhausted: s.Exhausted, Dropped: s.Dropped}
	}
	var out []known
	for _, e := range configured {
		k := of(e.Name)
		k.Configured, k.Host = true, hostOf(e)
		k.Rules, k.MinSeverity, k.Transitions, k.Rate, k.DigestAbove = e.Filter.Rules, e.Filter.MinSeverity, e.Filter.Transitions, e.Rate, e.DigestAbove
		out = append(out, k)
	}
	for _, s := range states {
		if _, left := byName[s.Name]; left {
			out = append(out, of(s.Name))
		}
	}
	return out
}

// told says which alerts the endpoint is told of.
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
		parts = append(parts, fmt.Sprintf("%v a second", k.Rate))
	}
	if k.DigestAbove > 0 {
		parts = append(parts, fmt.Sprintf("digest above %d a minute", k.DigestAbove))
	}
	return strings.Join(parts, "; ")
}

type endpointsLsCommand struct {
	migrateFlags
	webhookFlags
	JSON bool `name:"json" help:"Print a JSON line for each endpoint."`
}

func (c *endpointsLsCommand) Run(e *env) error {
	configured, stop, err := c.endpoints(e.logger(slog.LevelWarn))
	if err != nil {
		return usage(err)
	}
	defer stop()
	var states []store.EndpointState
	st, err := c.look(e.ctx)
	switch {
	case errors.Is(err, errNoDatabase):
		terminal.Fprintln(e.stderr, "spate:", err) // nobody was told of anything yet: that is not a failure here
	case err != nil:
		return err
	default:
		states, err = st.Endpoints(e.ctx)
		if err := errors.Join(err, st.Close()); err != nil {
			return err
		}
	}
	list := join(configured, states)
	o := newOut(e.stdout)
	if c.JSON {
		for _, k := range list {
			if err := o.json(k); err != nil {
				return o.end(err)
			}
		}
		return o.end(nil)
	}
	if len(list) == 0 {
		terminal.Fprintln(e.stderr, "nobody is notified of alerts: set SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET, or SPATE_ENDPOINTS; see spate endpoints --help")
		return nil
	}
	t := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
	terminal.Fprintf(t, "NAME\tHOST\tPENDING\tEXHAUSTED\tDROPPED\tRECEIVES\tSTATE\n")
	for _, k := range list {
		host, told := k.Host, k.told()
		if !k.Configured {
			host, told = "not configured", "-"
		}
		state := "enabled"
		if !k.Enabled {
			state = fmt.Sprintf("disabled since %s: %s", k.DisabledAt.Format(instant), k.Reason)
		}
		terminal.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", k.Name, host, k.Pending, k.Exhausted, k.Dropped, told, state)
	}
	return o.end(t.Flush())
}

type endpointsTestCommand struct {
	webhookFlags
	Name string `arg:"" help:"Name of the endpoint; that of --webhook-url is webhook."`
	JSON bool   `name:"json" help:"Print a JSON line: endpoint, webhook_id, outcome, status (0: no answer), reason, took_ms."`
}

// Help is shown below the usage.
func (endpointsTestCommand) Help() string {
	return `It is sent whether or not the endpoint is disabled, tried once, and kept nowhere. The exit code is 0 only if the endpoint took it.`
}

func (c *endpointsTestCommand) Run(e *env) error {
	configured, stop, err := c.endpoints(e.logger(slog.LevelWarn))
	if err != nil {
		return usage(err)
	}
	defer stop()
	i := slices.IndexFunc(configured, func(x alerter.Endpoint) bool { return x.Name == c.Name })
	if i < 0 {
		return fmt.Errorf("endpoint %s is not configured; %s", shown(c.Name), names(configured))
	}
	to := configured[i]
	now := time.Now()
	data, err := json.Marshal(struct {
		Endpoint string `json:"endpoint"`
		Text     string `json:"text"`
	}{to.Name, "spate endpoints test: the endpoint works if you can read this; it is not about an alert"})
	if err != nil {
		return err
	}
	m := notify.Message{ID: "test_" + strings.ToLower(rand.Text()), Type: notify.TypeTest, At: now, Data: data}
	if !c.JSON {
		terminal.Fprintf(e.stdout, "%s to %s (%s)\n", m.ID, to.Name, hostOf(to))
	}
	r := to.Notifier.Notify(e.ctx, m)
	took := time.Since(now)
	if to.Name != flagEndpoint || c.WebhookURL == "" {
		r.Reason = strings.ReplaceAll(r.Reason, "set SPATE_WEBHOOK_ALLOW_PRIVATE=true", "write allow_private: true in the file of endpoints")
	}
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

func names(configured []alerter.Endpoint) string {
	if len(configured) == 0 {
		return "none is: set SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET, or SPATE_ENDPOINTS; see spate endpoints --help"
	}
	all := make([]string, len(configured))
	for i, e := range configured {
		all[i] = e.Name
	}
	return "there is " + strings.Join(all, ", ")
}

// endpointFlags are those of enable and disable.
type endpointFlags struct {
	migrateFlags
	webhookFlags
	Name string `arg:"" help:"Name of the endpoint; that of --webhook-url is webhook."`
	JSON bool   `name:"json" help:"Print a JSON line: name, enabled, disabled_at, reason, pending, exhausted, dropped."`
}

// state returns what the database knows of the endpoint. One that it does not know has to be configured.
func (c *endpointFlags) state(ctx context.Context, log *slog.Logger, st store.Store) (store.EndpointState, error) {
	states, err := st.Endpoints(ctx)
	if err != nil {
		return store.EndpointState{}, err
	}
	for _, s := range states {
		if s.Name == c.Name {
			return s, nil
		}
	}
	// Whoever was notified of everything is not among them.
	told, err := gather(st.ListDeliveries(ctx, store.DeliveryFilter{Endpoint: c.Name, Limit: 1}))
	if err != nil {
		return store.EndpointState{}, err
	}
	if len(told) > 0 {
		return store.EndpointState{Name: c.Name}, nil
	}
	// Only now: a mistake in the configuration keeps nobody from disabling what runs.
	configured, stop, err := c.endpoints(log)
	if err != nil {
		return store.EndpointState{}, usage(err)
	}
	defer stop()
	if !slices.ContainsFunc(configured, func(e alerter.Endpoint) bool { return e.Name == c.Name }) {
		return store.EndpointState{}, fmt.Errorf("endpoint %s is neither configured nor known to the database; %s", shown(c.Name), names(configured))
	}
	return store.EndpointState{Name: c.Name}, nil
}

// set enables or disables the endpoint and returns its state before and after.
func (c *endpointFlags) set(ctx context.Context, log *slog.Logger, st store.Store, enabled bool, reason string) (before, after store.EndpointState, err error) {
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
	st, err := c.look(e.ctx)
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
		terminal.Fprintf(e.stdout, "%s was enabled already\n", after.Name)
	} else {
		terminal.Fprintf(e.stdout, "%s is enabled; it was disabled since %s: %s\n", after.Name, before.DisabledAt.Format(instant), before.Reason)
	}
	if after.Dropped == 0 {
		return nil
	}
	oldest, err := gather(st.ListDeliveries(e.ctx, store.DeliveryFilter{Endpoint: c.Name, States: []store.DeliveryState{store.Disabled}, Limit: 1}))
	if err != nil || len(oldest) == 0 {
		return err
	}
	what := fmt.Sprintf("%d messages were dropped meanwhile; this sends them", after.Dropped)
	if after.Dropped == 1 {
		what = "1 message was dropped meanwhile; this sends it"
	}
	terminal.Fprintf(e.stdout, "%s:\n    spate deliveries recover --endpoint %s --since %s\n", what, after.Name, oldest[0].CreatedAt.Format(instant))
	return nil
}

type endpointsDisableCommand struct {
	endpointFlags
	Reason string `default:"disabled by hand" placeholder:"TEXT" help:"Why, for whoever looks at it later."`
}

func (c *endpointsDisableCommand) Run(e *env) (err error) {
	st, err := c.look(e.ctx)
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
		terminal.Fprintf(e.stdout, "%s was disabled already, since %s: %s\n", after.Name, after.DisabledAt.Format(instant), after.Reason)
	default:
		terminal.Fprintf(e.stdout, "%s is disabled: what is due for it is dropped, and spate endpoints enable %s tells how to send it later\n", after.Name, after.Name)
	}
	return nil
}
