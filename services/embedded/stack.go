package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/alerter"
	"spate/services/alerter/deliver"
	"spate/services/detector"
	"spate/services/embedded/broker"
	"spate/services/router"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/revision"
	"spate/shared/revision/topic"
	"spate/shared/rule"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/shared/window"
)

// Rule is what the pipeline looks for; the services' own settings say more of each.
type Rule struct {
	Events format.Config
	// Rules are a rules file, which is applied if it differs from the rules in force. Without it these stay: at first, the rule burst, of Window,
	// Threshold and Critical.
	Rules       *revision.Source
	Window      time.Duration
	Lateness    time.Duration
	IdleTimeout time.Duration
	MaxAhead    time.Duration
	// OpenTransactionTimeout is the router's.
	OpenTransactionTimeout time.Duration
	Threshold              int64
	Critical               int64
	Transitions            []alert.State
}

// Config of the whole pipeline in one process.
type Config struct {
	Rule
	// State is the directory of the broker's topics and of the database; empty keeps the topics in memory.
	State string
	// Open opens the database of alerts, which the pipeline closes when it ends; nil is the SQLite file spate.db in the state directory.
	// Database is its name for people.
	Open func(context.Context) (store.Store, error)
	// Endpoints are notified of the alerts.
	Endpoints []deliver.Endpoint
	Database  string
	// Kafka is the one to use; without brokers the embedded one is started, which listens on Listen.
	Kafka  kafka.Config
	Listen string
	// Author is who applies the rules, for the history.
	Author string
	// Drains: the input ends, and what is open closes then.
	Drains bool
	// HTTP is where the pages for operators are; with Profile, those of the runtime's profiles are among them.
	HTTP       string
	Profile    bool
	Access     ops.Access
	Partitions int32
	Topic      string
	// Print, if set, is called for each alert that is new or has changed, when it is stored.
	Print func(alert.Record)
	// Beside, if set, runs beside the services from when they have begun, until its context ends.
	Beside func(context.Context, Info) error
	Log    *slog.Logger
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	k := c.Kafka
	if len(k.Brokers) == 0 {
		k.Brokers = []string{"127.0.0.1:0"}
	}
	errs := []error{
		router.Config{Kafka: k, Events: c.Events, Window: c.Window, Lateness: c.Lateness, IdleTimeout: c.IdleTimeout, MaxAhead: c.MaxAhead, OpenTransactionTimeout: c.OpenTransactionTimeout}.Validate(),
		detector.Config{Kafka: k, Window: c.Window, Threshold: c.Threshold, Critical: c.Critical, Transitions: c.Transitions}.Validate(),
	}
	if len(c.Kafka.Brokers) == 0 && c.Listen != "" {
		if _, err := broker.Port(c.Listen); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Partitions < 0 || c.Partitions > 256 {
		errs = append(errs, fmt.Errorf("partitions: %d is not between 0 (keep existing) and 256", c.Partitions))
	}
	return errors.Join(errs...)
}

// stack is the running pipeline.
type stack struct {
	cfg    Config
	broker *broker.Broker
	server *ops.Server
	store  store.Store
	db     string // name of the database
	kafka  kafka.Config
	layout kafka.Layout
	rules  *revision.Log

	routed   router.Counts
	detected detector.Counts
	drain    chan struct{} // closed: the input has ended

	cancel  context.CancelFunc
	serving context.CancelFunc
	wg      sync.WaitGroup
	failed  chan error
}

// start brings everything up: what fails to, fails here.
func start(ctx context.Context, cfg Config) (_ *stack, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &stack{cfg: cfg, drain: make(chan struct{}), failed: make(chan error, 5)}
	defer func() {
		if err != nil {
			if s.serving != nil {
				s.serving()
			}
			s.wg.Wait()
			s.release()
		}
	}()
	s.kafka = cfg.Kafka
	if len(cfg.Kafka.Brokers) == 0 {
		if s.broker, err = broker.Start(cfg.Listen, cfg.State, cfg.Log); err != nil {
			return nil, err
		}
		s.kafka.Brokers = []string{s.broker.Addr}
	}
	if s.server, err = ops.Listen(cfg.HTTP); err != nil {
		return nil, err
	}
	if err := s.server.Secure(cfg.Access, cfg.Log); err != nil {
		return nil, err
	}
	if s.broker != nil {
		s.server.Registry.MustRegister(s.broker.Collectors()...)
	}
	if cfg.Profile {
		s.server.Profile()
	}
	// It answers from here on: what the services wait for is asked while they do.
	routing, detecting, alerting := s.server.Service("router"), s.server.Service("detector"), s.server.Service("alerter")
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.serving = cancel
	s.run(sctx, s.server.Run)
	alerting.NotReady("waiting for the database")
	if err := s.openStore(ctx); err != nil {
		return nil, err
	}
	longest := cfg.Window
	if cfg.Rules != nil {
		longest = rule.MaxWindowMS * time.Millisecond
	}
	s.layout = kafka.Layout{Names: kafka.NamesFor(cfg.Topic), Partitions: cfg.Partitions, Replays: longest + cfg.Lateness}
	if err := s.makeTopics(ctx); err != nil {
		return nil, err
	}
	if err := s.applyRules(ctx); err != nil {
		return nil, err
	}
	det, err := detector.New(detector.Config{
		Kafka: s.kafka, Layout: s.layout, Window: cfg.Window, Threshold: cfg.Threshold, Critical: cfg.Critical, Transitions: cfg.Transitions,
		Drains: cfg.Drains, Address: s.server.Addr(), TLS: s.server.TLS(), Log: cfg.Log.With("service", "detector"), Registry: s.server.Registry, Status: detecting, Counts: &s.detected,
	})
	if err != nil {
		return nil, err
	}
	for pattern, page := range det.Handlers() {
		s.server.HandleHere(pattern, page, s.server.Addr())
	}

	wctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.run(wctx, det.Run)
	rcfg := router.Config{
		Kafka: s.kafka, Layout: s.layout, Events: cfg.Events, Window: cfg.Window, Lateness: s.cfg.Lateness, IdleTimeout: cfg.IdleTimeout, MaxAhead: s.cfg.MaxAhead, OpenTransactionTimeout: cfg.OpenTransactionTimeout,
		Instance: s.instance(), Drain: s.drain,
		Log: cfg.Log.With("service", "router"), Registry: s.server.Registry, Status: routing, Counts: &s.routed,
	}
	s.run(wctx, func(ctx context.Context) error { return router.Run(ctx, rcfg) })
	acfg := alerter.Config{
		Kafka: s.kafka, Layout: s.layout, Store: s.store, Endpoints: cfg.Endpoints, Print: cfg.Print, Drains: cfg.Drains,
		Log: cfg.Log.With("service", "alerter"), Registry: s.server.Registry, Status: alerting,
	}
	s.run(wctx, func(ctx context.Context) error { return alerter.Run(ctx, acfg) })
	if cfg.Beside != nil {
		s.run(sctx, func(ctx context.Context) error { return cfg.Beside(ctx, s.info()) })
	}
	return s, nil
}

func (s *stack) openStore(ctx context.Context) error {
	if s.cfg.Open != nil {
		var err error
		s.store, err = s.cfg.Open(ctx)
		s.db = s.cfg.Database
		return err
	}
	s.db = filepath.Join(s.cfg.State, "spate.db")
	st, err := sqlite.Open(ctx, s.db)
	if err != nil {
		return err
	}
	s.store = st
	return nil
}

func (s *stack) run(ctx context.Context, f func(context.Context) error) {
	s.wg.Go(func() {
		if err := f(ctx); err != nil {
			s.failed <- err
		}
	})
}

// instance names the router: the embedded broker has no other, a Kafka may.
func (s *stack) instance() string {
	if s.broker != nil {
		return "spate-router-embedded"
	}
	return ""
}

// makeTopics makes them before the services ask for them all at once, and before a client may write.
func (s *stack) makeTopics(ctx context.Context) error {
	cl, err := kgo.NewClient(s.kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	trouble := ""
	try := ctx
	if s.cfg.Drains { // somebody waits for the end of a run: a broker that is away for so long is not waited for
		var cancel context.CancelFunc
		try, cancel = context.WithTimeout(ctx, brokerWait)
		defer cancel()
	}
	_, err = s.layout.EnsureWhenReady(try, cl, s.kafka.Brokers, s.cfg.Log, func(reason string) { trouble = cmp.Or(reason, trouble) })
	if try.Err() != nil && ctx.Err() == nil && trouble != "" {
		return fmt.Errorf("gave up after %v: %s", brokerWait, trouble)
	}
	return err
}

// brokerWait is how long a run that ends by itself waits for its broker.
const brokerWait = 30 * time.Second

// applyRules makes the rules of the configuration follow those in force, unless they are the same, before the services read them.
func (s *stack) applyRules(ctx context.Context) error {
	initial, err := rule.Burst(s.cfg.Window, s.cfg.Threshold, s.cfg.Critical)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(s.kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	r := topic.NewReader(s.kafka, kadm.NewClient(cl), s.layout.Names, initial)
	s.rules = r.Log
	if _, err := r.Look(ctx); err != nil {
		return err
	}
	if e, ok := r.Newest(); s.cfg.Rules != nil && (!ok || !e.Same(*s.cfg.Rules)) {
		if err := s.revise(ctx, r); err != nil {
			return fmt.Errorf("apply the rules: %w", err)
		}
	}
	if first, ok := r.First(); ok { // the embedded router is the only one
		s.cfg.Lateness, s.cfg.MaxAhead = time.Duration(first.LatenessMS)*time.Millisecond, time.Duration(first.MaxAheadMS)*time.Millisecond
	}
	return nil
}

// revise makes the rules of the configuration the next revision.
func (s *stack) revise(ctx context.Context, r *topic.Reader) error {
	begun, err := r.Begun(ctx)
	if err != nil {
		return err
	}
	rec := revision.Record{Source: *s.cfg.Rules, Beginning: !begun, LatenessMS: s.cfg.Lateness.Milliseconds(), MaxAheadMS: s.cfg.MaxAhead.Milliseconds(), Author: s.cfg.Author}
	if first, ok := r.First(); ok && begun {
		set, err := rec.Compile(r.Inputs())
		if err != nil {
			return err
		}
		if lateness, _, err := set.Stream(); err == nil && lateness < 0 { // the rules do not say
			rec.LatenessMS = first.LatenessMS
		}
		rec.MaxAheadMS = first.MaxAheadMS
	}
	_, err = r.Append(ctx, rec)
	return err
}

// stop ends the services, then what they stand on.
func (s *stack) stop() {
	s.cancel()
	s.serving()
	s.wg.Wait()
	s.release()
}

func (s *stack) release() {
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.cfg.Log.Error("cannot close the database", "error", err)
		}
	}
	if s.broker != nil {
		s.broker.Close()
	}
}

// drained waits until everything that was in the topic of events when the drain channel was closed has become stored alerts.
func (s *stack) drained(ctx context.Context) error {
	close(s.drain)
	cl, err := kgo.NewClient(s.kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	return s.until(ctx, func() (bool, error) { return s.finished(ctx, adm) })
}

// until asks done again and again, until it says so, or fails, or a service does, or ctx ends.
func (s *stack) until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.failed:
			return err
		case <-tick.C:
		}
	}
}

// finished reports whether every partition of the detector has closed its last window, and the alerter stored every alert.
func (s *stack) finished(ctx context.Context, adm *kadm.Client) (bool, error) {
	n := s.layout.Names
	positions, err := fetchOffsets(ctx, adm, n.DetectorGroup)
	if err != nil {
		return false, err
	}
	keyed, err := adm.ListCommittedOffsets(ctx, n.Keyed)
	if err != nil {
		return false, fmt.Errorf("list offsets: %w", err)
	}
	for p := range int32(len(keyed[n.Keyed])) {
		o, ok := positions.Lookup(n.Keyed, p)
		if !ok {
			return false, nil
		}
		pos, err := window.ParsePosition(o.At, o.Metadata)
		if err != nil {
			return false, err
		}
		if pos.Watermark() != window.EndOfTime {
			return false, nil
		}
	}
	stored, err := fetchOffsets(ctx, adm, n.AlerterGroup)
	if err != nil {
		return false, err
	}
	ends, err := adm.ListEndOffsets(ctx, n.Alerts)
	if err != nil {
		return false, fmt.Errorf("list offsets: %w", err)
	}
	done := true
	ends.Each(func(e kadm.ListedOffset) {
		o, ok := stored.Lookup(n.Alerts, e.Partition)
		if e.Offset > 0 && (!ok || o.At < e.Offset) {
			done = false
		}
	})
	return done, nil
}

// fetchOffsets returns what a group committed; a group that never committed is none yet.
func fetchOffsets(ctx context.Context, adm *kadm.Client, group string) (kadm.OffsetResponses, error) {
	offsets, err := adm.FetchOffsets(ctx, group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	return offsets, nil
}
