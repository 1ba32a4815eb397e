package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/decider"
	"spate/shared/decision"
	"spate/shared/decision/table"
	"spate/shared/decision/topic"
	"spate/shared/kafka"
	"spate/shared/store/dynamodb"
	"spate/shared/terminal"
)

type decideCommand struct {
	kafkaFlags
	tableFlags
	httpFlags `set:"pages=/v1/decisions, /v1/check, /metrics, /healthz and /readyz"`
	MaxAge    time.Duration `name:"max-age" env:"SPATE_DECIDE_MAX_AGE" default:"0s" placeholder:"DURATION" help:"Respond with 503 if the decisions in memory are older than this because the broker or the table is unavailable; 0 means no limit."`
}

// Help is shown below the usage.
func (decideCommand) Help() string {
	return `Your own code sends GET /v1/decisions?scope=username&value=42 to the address of --http. The response is null or a list of decisions. The API is compatible with
CrowdSec's bouncer API, so existing bouncers work; they send the token (SPATE_HTTP_TOKEN) as X-Api-Key. A rule makes decisions if it has the decision directive.`
}

// Run is the command.
func (c *decideCommand) Run(e *env) error {
	log := e.logger(slog.LevelInfo).With("service", "decider")
	cfg := decider.Config{MaxAge: c.MaxAge, Log: log}
	var err error
	if e.mode == "aws" {
		cfg.Table, _, err = c.table(e.ctx)
	} else {
		cfg.Kafka, err = c.settings(e, log)
		cfg.Topic = kafka.NamesFor(c.Topic).Decisions
	}
	if err := usage(errors.Join(err, cfg.Validate())); err != nil {
		return err
	}
	server, err := c.listen(log)
	if err != nil {
		return err
	}
	cfg.Registry, cfg.Status = server.Registry, server.Service("decider")
	d, err := decider.New(cfg)
	if err != nil {
		return err
	}
	for pattern, page := range d.Handlers() {
		server.HandleHere(pattern, page, server.Addr())
	}
	access, err := c.access().ReadToken()
	if err != nil {
		return err
	}
	log.Info("answering queries about decisions", "try", server.URL()+"/v1/decisions?scope=username&value=42", "token_required", access != "")
	return serve(e, server, log, func(ctx context.Context) error {
		collectAt(lookupGCPercent)
		return d.Run(ctx)
	})
}

// lookupGCPercent is more than other services have: each query leaves some 3 kB behind, and the decisions are full of pointers. With 100,000
// decisions, a core answers a fifth more queries than at 50, with 60 % more memory (210 MB).
const lookupGCPercent = 200

type decisionsCommand struct {
	Ls  decisionsLsCommand  `cmd:"" help:"List the decisions in force."`
	Add decisionsAddCommand `cmd:"" help:"Make a decision about a value by hand."`
	Rm  decisionsRmCommand  `cmd:"" help:"End the decisions about a value."`
}

// decisionFlags say where decisions are kept.
type decisionFlags struct {
	brokerFlags
	tableFlags
	Topic string `env:"SPATE_TOPIC" default:"activity" help:"Events topic; the name of the decisions topic is derived from it."`
}

// decisions is the topic or the table that keeps them.
type decisions interface {
	// list returns the decisions in force.
	list(ctx context.Context) ([]decision.Decision, error)
	put(ctx context.Context, d decision.Decision) error
	end(ctx context.Context, ds []decision.Decision) error
}

// open opens the topic or the table.
func (f decisionFlags) open(e *env) (decisions, error) {
	if e.mode == "aws" {
		table, _, err := f.table(e.ctx)
		return tableDecisions{table}, usage(err)
	}
	k, err := f.config(e.logger(slog.LevelError))
	if err := usage(errors.Join(err, k.Validate())); err != nil {
		return nil, err
	}
	return topicDecisions{k, kafka.NamesFor(f.Topic).Decisions, e.logger(slog.LevelError)}, nil
}

// decisionsWait bounds how long the topic is read for a list.
const decisionsWait = 30 * time.Second

// topicDecisions are those of mode kafka.
type topicDecisions struct {
	kafka kafka.Config
	name  string
	log   *slog.Logger
}

func (t topicDecisions) list(ctx context.Context) ([]decision.Decision, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, decisionsWait, fmt.Errorf("topic %s could not be read within %s; is the broker reachable?", t.name, short(decisionsWait)))
	defer cancel()
	view := decision.NewView()
	read := errors.New("all is read")
	f := &topic.Follower{Kafka: t.kafka, Topic: t.name, View: view, Log: t.log, Now: time.Now}
	err := f.Run(ctx, func() error { return read })
	switch {
	case errors.Is(err, read), errors.Is(err, topic.ErrMissing):
		list, _ := view.All(time.Now())
		return list, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, err
}

// put makes the topic if it is missing.
func (t topicDecisions) put(ctx context.Context, d decision.Decision) error {
	cl, err := kgo.NewClient(t.kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, decisionsWait, fmt.Errorf("the broker did not respond within %s", short(decisionsWait)))
	defer cancel()
	adm := kadm.NewClient(cl)
	ok, err := topic.Exists(ctx, adm, t.name)
	if err == nil && !ok {
		err = topic.Ensure(ctx, adm, t.name, kafka.DefaultPartitions, 0)
	}
	if err == nil {
		err = t.write(func(w *topic.Writer) error { return w.Put(ctx, d) })
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (t topicDecisions) end(ctx context.Context, ds []decision.Decision) error {
	return t.write(func(w *topic.Writer) error { return w.End(ctx, ds...) })
}

func (t topicDecisions) write(f func(*topic.Writer) error) error {
	w, err := topic.NewWriter(t.kafka, t.name, t.log)
	if err != nil {
		return err
	}
	defer w.Close()
	return f(w)
}

// tableDecisions are those of mode aws.
type tableDecisions struct{ table *dynamodb.Table }

func (t tableDecisions) list(ctx context.Context) ([]decision.Decision, error) {
	view := decision.NewView()
	read := errors.New("all is read")
	f := &table.Follower{Table: t.table, View: view, Now: time.Now}
	if err := f.Run(ctx, func() error { return read }); !errors.Is(err, read) {
		return nil, err
	}
	list, _ := view.All(time.Now())
	return list, nil
}

func (t tableDecisions) put(ctx context.Context, d decision.Decision) error {
	return t.table.PutDecision(ctx, time.Now(), d)
}

func (t tableDecisions) end(ctx context.Context, ds []decision.Decision) error {
	for _, d := range ds {
		if err := t.table.EndDecision(ctx, time.Now(), d); err != nil {
			return err
		}
	}
	return nil
}

// valueFlags name a value.
type valueFlags struct {
	Scope string `required:"" placeholder:"SCOPE" help:"Kind of value: username for a user_id, otherwise the name of the rule's key column, such as ip."`
	Value string `required:"" placeholder:"VALUE" help:"The value, such as 42."`
}

// scopeOf is the scope of a kind of value: people also call users by their column.
func scopeOf(kind string) string {
	if kind == "user_id" {
		return decision.ScopeUser
	}
	return kind
}

type decisionsLsCommand struct {
	decisionFlags
	Scope string `placeholder:"SCOPE" help:"List only decisions with this scope."`
	Value string `placeholder:"VALUE" help:"List only decisions about this value."`
	Wide  bool   `short:"w" help:"Do not truncate lines to fit the terminal."`
	JSON  bool   `name:"json" help:"Print one JSON line per decision, as in the topic or the table."`
}

// Run is the command.
func (c *decisionsLsCommand) Run(e *env) error {
	c.Scope = scopeOf(c.Scope)
	kept, err := c.open(e)
	if err != nil {
		return err
	}
	list, err := kept.list(e.ctx)
	if err != nil {
		return err
	}
	o := newOut(e.stdout)
	if c.Wide {
		o.width = 0
	}
	now := time.Now()
	t := terminal.Table{Columns: []terminal.Column{{Head: "SCOPE"}, {Head: "VALUE", Floor: 9}, {Head: "LEVEL"}, {Head: "FOR", Right: true}, {Head: "UNTIL (UTC)"}, {Head: "RULE"}, {Head: "WHY", Floor: 12}}}
	n := 0
	for _, d := range list {
		if c.Scope != "" && d.Scope != c.Scope || c.Value != "" && d.Value != c.Value {
			continue
		}
		n++
		if c.JSON {
			if err := o.json(d); err != nil {
				return o.end(err)
			}
			continue
		}
		rule := d.Rule
		if rule == "" {
			rule = "by " + d.Author
		}
		t.Row(d.Scope, d.Value, d.Level, short(d.Until.Sub(now).Round(time.Second)), clockText(d.Until.Truncate(time.Second), now), rule, d.Reason)
	}
	switch {
	case c.JSON:
	case n == 0 && (c.Scope != "" || c.Value != ""):
		terminal.Fprintln(e.stderr, "no decision in force matches --scope and --value; to list all decisions, run spate decisions ls")
	case n == 0:
		terminal.Fprintln(e.stderr, "no decisions are in force; a rule makes them with a line such as -- decision: challenge 10m")
	default:
		o.lines(t.Lines(o.width))
	}
	return o.end(nil)
}

type decisionsAddCommand struct {
	decisionFlags
	valueFlags
	rulesTableFlags
	Level string        `required:"" placeholder:"LEVEL" help:"What your code should do about the value: challenge, block, ..."`
	For   time.Duration `name:"for" default:"1h" help:"Duration, 1s to 744h (31 days)."`
	Why   string        `placeholder:"TEXT" help:"Reason for the decision."`
	By    string        `placeholder:"NAME" help:"Author of the decision. Default: the user who runs the command."`
	JSON  bool          `name:"json" help:"Print the decision as JSON."`
}

// Run is the command.
func (c *decisionsAddCommand) Run(e *env) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	c.Scope = scopeOf(c.Scope)
	d := decision.Decision{Scope: c.Scope, Value: c.Value, Level: c.Level, Until: now.Add(c.For), Since: now, Author: c.By, Reason: c.Why}
	if u, err := user.Current(); err == nil && d.Author == "" {
		d.Author = u.Username
	}
	if err := usage(flagged(d.Validate(), "author", "by", "reason", "why")); err != nil {
		return err
	}
	kept, err := c.open(e)
	if err != nil {
		return err
	}
	if err := kept.put(e.ctx, d); err != nil { // first: it may be urgent
		return err
	}
	c.stranger(e)
	if c.JSON {
		return newResult(e, d)
	}
	terminal.Fprintf(e.stdout, "%s %s: %s until %s UTC\n", d.Scope, d.Value, d.Level, clockText(d.Until.Truncate(time.Second), now))
	return nil
}

// stranger warns about a scope that no rule makes decisions of, nor anyone without a rule: who asks will hardly ask for it. If the rules cannot be
// read, it says nothing.
func (c *decisionsAddCommand) stranger(e *env) {
	is := func(scope string) bool { return strings.EqualFold(scope, c.Scope) }
	if is(decision.ScopeUser) || is("ip") {
		return
	}
	l, err := alertsRulesFlags{c.brokerFlags, c.rulesTableFlags, c.Topic}.openShortly(e)
	if err != nil {
		return
	}
	defer l.Close()
	if l.Unreadable() != nil {
		return
	}
	var scopes []string
	for _, r := range l.inForce() {
		if s := decision.ScopeOf(ruleColumns(r)); !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	if !slices.ContainsFunc(scopes, is) {
		terminal.Fprintf(e.stderr, "spate: warning: scope: no rule in force has the key %s%s; the scopes of the rules in force are %s\n",
			c.Scope, didYouMean(c.Scope, scopes), strings.Join(scopes, ", "))
	}
}

type decisionsRmCommand struct {
	decisionFlags
	valueFlags
	JSON bool `name:"json" help:"Print {\"ended\":n}."`
}

// Run is the command.
func (c *decisionsRmCommand) Run(e *env) error {
	c.Scope = scopeOf(c.Scope)
	kept, err := c.open(e)
	if err != nil {
		return err
	}
	list, err := kept.list(e.ctx)
	if err != nil {
		return err
	}
	var ended []decision.Decision
	for _, d := range list {
		if d.Scope == c.Scope && d.Value == c.Value {
			ended = append(ended, d)
		}
	}
	if len(ended) > 0 {
		if err := kept.end(e.ctx, ended); err != nil {
			return err
		}
	}
	if c.JSON {
		return newResult(e, struct {
			Ended int `json:"ended"`
		}{len(ended)})
	}
	if len(ended) == 0 {
		return fmt.Errorf("no decision about %s %s is in force; to list decisions, run spate decisions ls", terminal.Text(c.Scope), terminal.Text(c.Value))
	}
	again := ""
	if slices.ContainsFunc(ended, func(d decision.Decision) bool { return d.Rule != "" }) {
		again = "; if the attack continues, the rule makes a new decision"
	}
	terminal.Fprintf(e.stdout, "%s ended%s\n", counted(len(ended), "decision", "decisions"), again)
	return nil
}
