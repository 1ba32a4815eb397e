package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/doctor"
	"spate/services/embedded"
	"spate/services/explainer"
	"spate/services/web"
	"spate/shared/activity"
	"spate/shared/aws/cloud"
	"spate/shared/aws/stream"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
)

type consoleCommand struct {
	Listen        string   `env:"SPATE_CONSOLE_LISTEN" default:"127.0.0.1:8088" placeholder:"HOST:PORT" help:"Address to serve the console on. An address that others can reach needs --token-file, SPATE_CONSOLE_TOKEN or --trusted-header."`
	TokenFile     string   `name:"token-file" env:"SPATE_CONSOLE_TOKEN_FILE" placeholder:"FILE" help:"File that contains the token for visitors (at least 16 characters); reloaded when it changes. Alternatively, set SPATE_CONSOLE_TOKEN."`
	TrustedHeader string   `name:"trusted-header" env:"SPATE_CONSOLE_TRUSTED_HEADER" placeholder:"NAME" help:"Header in which an authenticating proxy names the visitor, such as X-Forwarded-User. Make sure that only the proxy can reach the console."`
	PublicHosts   []string `name:"public-host" env:"SPATE_CONSOLE_PUBLIC_HOSTS" placeholder:"NAME" help:"Host name that visitors use, if it is neither localhost nor the host of --listen. Repeatable."`
	CertFile      string   `name:"http-tls-cert-file" env:"SPATE_HTTP_TLS_CERT_FILE" placeholder:"FILE" help:"Certificate (PEM) for serving the console over TLS; reloaded when it changes."`
	KeyFile       string   `name:"http-tls-key-file" env:"SPATE_HTTP_TLS_KEY_FILE" placeholder:"FILE" help:"Private key of the certificate (PEM)."`

	incidentFlags
	rulesLogFlags
	consoleAWSFlags
	formatFlags
	UserField   []string      `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Fields that may hold the user; use the router's value."`
	TimeField   []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Fields that may hold the event time; use the router's value."`
	TimeFormat  string        `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format; use the router's value."`
	DedupeField string        `name:"dedupe-field" env:"SPATE_DEDUPE_FIELD" placeholder:"FIELD" help:"Event field that holds a unique event ID; use the router's value."`
	Lateness    time.Duration `env:"SPATE_LATENESS" default:"10s" help:"Lateness; use the router's value."`
	MaxAhead    time.Duration `name:"max-ahead" env:"SPATE_MAX_AHEAD" default:"1m" help:"How far in the future an event's time may be; use the router's value."`
}

// Help is shown below the usage.
func (consoleCommand) Help() string {
	return `Serves web pages that show current activity, incidents, explanations of flagged accounts, keys, rules, deliveries and the pipeline's health, and a
studio that runs SQL on the log. The console reads the broker and the database (in mode aws, the stream and the tables) and needs nothing else. spate up and spate demo include it.

  spate console                                                     http://127.0.0.1:8088, for this machine only
  spate console --listen 0.0.0.0:8088 --token-file /run/secrets/console
  curl -s 127.0.0.1:8088/api/incidents?state=open                   incidents as JSON; /assets/openapi.yaml describes the API`
}

// Run is the command.
func (c *consoleCommand) Run(e *env) error {
	log := e.logger(slog.LevelInfo).With("service", "console")
	events := format.Config{Fields: activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}, ID: c.DedupeField}
	err := errors.Join(listenable("listen (SPATE_CONSOLE_LISTEN, --listen)", c.Listen), c.formatFlags.events(&events, e.logger(slog.LevelError)), events.Validate())
	var k kafka.Config
	if e.mode != "aws" {
		var kerr error
		k, kerr = c.config(log)
		err = errors.Join(err, kerr, k.Validate())
	}
	v := visitors{listen: c.Listen, token: ops.Access{Token: os.Getenv("SPATE_CONSOLE_TOKEN"), TokenFile: c.TokenFile}, header: c.TrustedHeader, tls: ops.Access{CertFile: c.CertFile, KeyFile: c.KeyFile}}
	if err := usage(errors.Join(err, v.validate())); err != nil {
		return err
	}
	p := &consoleParts{events: events, initial: c.initialFlags, lateness: c.Lateness, maxAhead: c.MaxAhead, log: log, rules: func(ctx context.Context) (*rulesLog, error) {
		within := *e
		within.ctx = ctx
		return c.rulesLogFlags.open(&within)
	}}
	var st lazyStore
	st.open = func() (incidentReader, error) { return c.incidents(e) }
	defer st.close()
	p.store = st.get
	name := c.Topic
	if e.mode == "aws" {
		cfg, err := cloud.Load(e.ctx)
		if err != nil {
			return usage(err)
		}
		name = c.Stream
		if p.cloud, err = newConsoleAWS(cfg, doctor.Cloud{Stream: c.Stream, AlertsStream: c.AlertsStream, Table: c.Table, StateTable: c.StateTable, TopicARN: c.TopicARN}); err != nil {
			return usage(err)
		}
		p.source = &explainer.Kinesis{Reader: &stream.Reader{API: kinesissdk.NewFromConfig(cfg), Log: slog.New(slog.DiscardHandler)}, Events: events}
	} else {
		p.kafka, p.topic = &k, c.Topic
		p.source = &explainer.Kafka{Config: k, Names: kafka.NamesFor(c.Topic), Events: events}
	}
	cfg := p.config(name)
	cfg.Hosts, cfg.TrustedHeader = append(c.PublicHosts, v.host()), v.header
	if v.token != (ops.Access{}) {
		cfg.Token = v.token.ReadToken
	}
	encrypt, err := v.tls.TLS(log)
	if err != nil {
		return usage(err)
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return usage(fmt.Errorf("listen (SPATE_CONSOLE_LISTEN, --listen): %w", err))
	}
	log.Info("serving the console", "address", consoleURL(ln, encrypt), "token_required", cfg.Token != nil)
	defer p.close()
	return web.New(cfg).Run(e.ctx, ln, encrypt)
}

func consoleURL(ln net.Listener, encrypt *tls.Config) string {
	if encrypt != nil {
		return "https://" + ln.Addr().String()
	}
	return "http://" + ln.Addr().String()
}

// visitors are who may see the console.
type visitors struct {
	listen string
	token  ops.Access
	header string
	tls    ops.Access
}

func (v visitors) host() string {
	host, _, _ := net.SplitHostPort(v.listen) // it was checked
	return host
}

func (v visitors) validate() error {
	errs := []error{v.tls.Validate()}
	if v.token.Token != "" {
		errs = append(errs, ops.CheckToken("SPATE_CONSOLE_TOKEN", v.token.Token))
	}
	if v.token.Token != "" && v.token.TokenFile != "" {
		errs = append(errs, errors.New("token-file: SPATE_CONSOLE_TOKEN is also set; set only one of them"))
	} else if _, err := v.token.ReadToken(); err != nil {
		errs = append(errs, fmt.Errorf("token-file (SPATE_CONSOLE_TOKEN, --token-file): %w", err))
	}
	if v.header != "" && (v.token != ops.Access{}) {
		errs = append(errs, errors.New("trusted-header: a token is also set; set only one of them"))
	}
	if v.header != "" && strings.ContainsFunc(v.header, func(r rune) bool {
		return r != '-' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		errs = append(errs, fmt.Errorf("trusted-header: %.80q is not a valid header name", v.header))
	}
	ip := net.ParseIP(v.host())
	loopback := v.host() == "localhost" || ip != nil && ip.IsLoopback()
	if !loopback && v.header == "" && (v.token == ops.Access{}) {
		errs = append(errs, fmt.Errorf("listen: others can reach %s, so visitors need a token; use --token-file or SPATE_CONSOLE_TOKEN, or --trusted-header behind a proxy that authenticates them", v.listen))
	}
	return errors.Join(errs...)
}

// lazyStore is a database that is opened when it is first needed, and tried again if it is away.
type lazyStore struct {
	open func() (incidentReader, error)

	mu    sync.Mutex
	store incidentReader
	err   error
	tried time.Time
}

// storeAgain is how long a database that is away is not tried again.
const storeAgain = 2 * time.Second

func (l *lazyStore) get() (incidentReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil && time.Since(l.tried) > storeAgain {
		l.store, l.err = l.open()
		l.tried = time.Now()
	}
	return l.store, l.err
}

func (l *lazyStore) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
		_ = l.store.Close() // nothing is written any more
	}
}

// consoleParts are what a console reads.
type consoleParts struct {
	kafka    *kafka.Config // nil in mode aws
	cloud    *consoleAWS   // nil in mode kafka
	topic    string
	events   format.Config
	source   explainer.Log
	initial  initialFlags
	lateness time.Duration
	maxAhead time.Duration
	store    func() (incidentReader, error)
	rules    func(context.Context) (*rulesLog, error)
	log      *slog.Logger

	running, following chan struct{} // places for statements of the studio

	mu     sync.RWMutex
	opened *rulesLog
	looked time.Time
	failed error // of the last look
}

func (p *consoleParts) config(name string) web.Config {
	p.running, p.following = make(chan struct{}, studioAtOnce), make(chan struct{}, liveAtOnce)
	cfg := web.Config{
		Store: func(context.Context) (web.Store, error) {
			st, err := p.store()
			if err != nil {
				return nil, err
			}
			full, ok := st.(web.Store)
			if !ok {
				return nil, errors.New("the console cannot show this database")
			}
			return full, nil
		},
		Why: p, Rules: p, Name: name, Log: p.log,
	}
	if p.kafka != nil {
		names := kafka.NamesFor(p.topic)
		cfg.Source = &web.Kafka{Config: *p.kafka, Names: names}
		cfg.Doctor, cfg.Query = p.doctor, p
		cfg.Changes = func(ctx context.Context, changed func()) { p.follow(ctx, names.Alerts, changed) }
	} else if p.cloud != nil {
		tables := cfg.Store
		cfg.Source, cfg.Scans = p.cloud.figures, true
		cfg.Doctor = func(ctx context.Context) []doctor.Finding { return p.cloud.doctor(ctx, tables) }
	}
	return cfg
}

// close ends the connections.
func (p *consoleParts) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened != nil {
		p.opened.Close()
	}
}

// every2s takes everything for changed.
func every2s(ctx context.Context, changed func()) {
	for ops.Pause(ctx, 2*time.Second) {
		changed()
	}
}

// stored is how long after its record an alert is in the database, as a rule; a page looks twice.
const stored = 400 * time.Millisecond

// follow reads the topic of alerts from its end.
func (p *consoleParts) follow(ctx context.Context, topic string, changed func()) {
	cl, err := kgo.NewClient(p.kafka.Options(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(time.Second),
		kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(time.Second))...)
	if err != nil {
		p.log.Warn("cannot follow the alerts topic, so the console's pages are updated less often", "error", err)
		every2s(ctx, changed)
		return
	}
	defer cl.Close()
	for ctx.Err() == nil {
		if f := cl.PollFetches(ctx); f.NumRecords() > 0 {
			changed()
			if !ops.Pause(ctx, stored) {
				return
			}
			changed()
		} else if len(f.Errors()) > 0 && !ops.Pause(ctx, time.Second) {
			return
		}
	}
}

// fresh is how long the log of the rules is not looked at again, and stale how long it may wait for those who read it.
const fresh, stale = 2 * time.Second, 30 * time.Second

// lookTime bounds a look: others wait for the first one.
const lookTime = 10 * time.Second

// asker returns an asker with the rules as they are now. done must be called when it is not needed any more.
func (p *consoleParts) asker(ctx context.Context) (a *asker, done func(), err error) {
	if err := p.look(ctx); err != nil {
		return nil, nil, err
	}
	p.mu.RLock()
	a = &asker{rulesLog: p.opened, initial: p.initial, since: time.Hour, maxAhead: p.maxAhead, explainer: explainer.Explainer{Log: p.source, Reference: reference, Most: listedEvents}}
	if a.store, err = p.store(); err != nil {
		a.store = nil // the log alone answers
	}
	return a, p.mu.RUnlock, nil
}

// listedEvents is how many events a page lists.
const listedEvents = 100

// look reads what is new in the log of the rules.
func (p *consoleParts) look(ctx context.Context) error {
	p.mu.RLock()
	age, failed := time.Since(p.looked), p.failed
	p.mu.RUnlock()
	switch {
	case age < fresh:
		return failed
	case age < stale:
		if !p.mu.TryLock() { // somebody reads it
			return nil
		}
	default:
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	if time.Since(p.looked) < fresh { // somebody else has looked
		return p.failed
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if p.opened == nil {
		p.opened, p.failed = p.rules(ctx)
	} else {
		_, p.failed = p.opened.Look(ctx)
	}
	if p.failed == nil || ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) { // not if the visitor has gone away
		p.looked = time.Now()
	}
	return p.failed
}

// OfID implements web.Why.
func (p *consoleParts) OfID(ctx context.Context, id string) (*web.Answer, error) {
	a, done, err := p.asker(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if a.store == nil {
		_, err := p.store()
		return nil, err
	}
	full, err := a.ofID(ctx, id)
	if err != nil {
		return nil, ofVisitor(err)
	}
	return &web.Answer{Answer: full.Answer, Deliveries: full.Deliveries}, nil
}

// OfKey implements web.Why.
func (p *consoleParts) OfKey(ctx context.Context, key web.Key, rule string, at time.Time) (out []*web.Answer, err error) {
	a, done, err := p.asker(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	list, err := a.ofKey(ctx, key, rule, at)
	for _, full := range list {
		out = append(out, &web.Answer{Answer: full.Answer, Deliveries: full.Deliveries})
	}
	return out, ofVisitor(err)
}

// ofVisitor marks an error that a visitor can mend.
func ofVisitor(err error) error {
	if errors.Is(err, errUsage) {
		return web.BadRequest(err)
	}
	return err
}

// Windows implements web.Why.
func (p *consoleParts) Windows(ctx context.Context, key web.Key, rule string, from, until time.Time) (out []*explainer.Windows, err error) {
	a, done, err := p.asker(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	q := explainer.Question{From: from.UTC(), Until: until.UTC()}
	if from.IsZero() {
		if q, err = a.question(ctx, time.Time{}); err != nil {
			return nil, err
		}
	}
	rules, err := a.rules(key, rule, q)
	if err != nil {
		return nil, ofVisitor(err)
	}
	out, err = a.explainer.WindowsOf(ctx, q, rules...)
	if errors.Is(err, explainer.ErrAlertsOnly) {
		return nil, nil
	}
	return out, err
}

// doctorTime bounds the checks.
const doctorTime = 15 * time.Second

// doctor checks the pipeline.
func (p *consoleParts) doctor(ctx context.Context) (found []doctor.Finding) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	events := p.events
	doctor.Kafka(ctx, doctor.Config{Kafka: *p.kafka, Layout: kafka.Layout{Names: kafka.NamesFor(p.topic)}, Services: []string{kafka.Router, kafka.Detector, kafka.Alerter}, Events: &events, Log: slog.New(slog.DiscardHandler)},
		func(f doctor.Finding) { found = append(found, f) })
	return found
}

// consoleFlags say where spate up and spate demo show the console.
type consoleFlags struct {
	Console string `env:"SPATE_CONSOLE_LISTEN" default:"127.0.0.1:8088" placeholder:"HOST:PORT" help:"Address of the console: web pages that show incidents and why accounts were flagged. If the port is taken, spate picks another. To turn the console off, set this to none."`
}

// off reports whether there is none.
func (f consoleFlags) off() bool { return f.Console == "none" }

func (f consoleFlags) validate() error {
	if f.off() {
		return nil
	}
	v := visitors{listen: f.Console, token: ops.Access{Token: os.Getenv("SPATE_CONSOLE_TOKEN"), TokenFile: os.Getenv("SPATE_CONSOLE_TOKEN_FILE")}}
	return errors.Join(listenable("console (SPATE_CONSOLE_LISTEN, --console)", f.Console), v.validate())
}

// open listens at the address, or at another port if it is taken.
func (f consoleFlags) open() (net.Listener, error) {
	ln, err := net.Listen("tcp", f.Console)
	if err == nil {
		return ln, nil
	}
	host, _, _ := net.SplitHostPort(f.Console) // it was checked
	if other, oerr := net.Listen("tcp", net.JoinHostPort(host, "0")); oerr == nil {
		return other, nil
	}
	return nil, fmt.Errorf("console (SPATE_CONSOLE_LISTEN, --console): %w", err)
}

// beside adds a console to a pipeline in this process, and returns its address for people.
func (f consoleFlags) beside(cfg *embedded.Config, log *slog.Logger) (string, error) {
	if f.off() {
		return "none", nil
	}
	ln, err := f.open()
	if err != nil {
		return "", err
	}
	cfg.Beside = func(ctx context.Context, i embedded.Info) error {
		return f.serve(ctx, ln, i, cfg.Rule, cfg.Topic, log)
	}
	return consoleURL(ln, nil), nil
}

// serve serves the console of a pipeline in this process.
func (f consoleFlags) serve(ctx context.Context, ln net.Listener, i embedded.Info, r embedded.Rule, topic string, log *slog.Logger) error {
	p := &consoleParts{
		kafka: &i.Kafka, topic: topic, events: r.Events, initial: initialFlags{r.Window, r.Threshold, r.Critical}, lateness: r.Lateness, maxAhead: r.MaxAhead, log: log.With("service", "console"),
		source: &explainer.Kafka{Config: i.Kafka, Names: kafka.NamesFor(topic), Events: r.Events},
		store:  func() (incidentReader, error) { return i.Store, nil },
	}
	p.rules = func(ctx context.Context) (*rulesLog, error) {
		l, _, err := newRulesTopic(i.Kafka, topic, p.initial)
		if err != nil {
			return nil, err
		}
		if _, err := l.Look(ctx); err != nil {
			l.Close()
			return nil, err
		}
		return l, nil
	}
	defer p.close()
	cfg := p.config(topic)
	v := visitors{listen: f.Console, token: ops.Access{Token: os.Getenv("SPATE_CONSOLE_TOKEN"), TokenFile: os.Getenv("SPATE_CONSOLE_TOKEN_FILE")}}
	cfg.Hosts = []string{v.host()}
	if v.token != (ops.Access{}) {
		cfg.Token = v.token.ReadToken
	}
	return web.New(cfg).Run(ctx, ln, nil)
}
