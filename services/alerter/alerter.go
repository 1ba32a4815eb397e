package alerter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/notify"
	"spate/shared/ops"
)

const (
	maxBatch = 1000
	// tick is how often the broker is looked after when no alert comes.
	tick = 250 * time.Millisecond

	// fetchWait is how long the broker holds a fetch that finds nothing. A partition that is taken over is fetched only after that.
	fetchWait = 500 * time.Millisecond

	sessionTimeout   = 6 * time.Second // Apache Kafka's lower bound by default
	rebalanceTimeout = 15 * time.Second
	commitTimeout    = 5 * time.Second
	// grace is what a batch that is being stored, and then its commit and leaving the group, each get when ctx ends.
	grace = 2 * time.Second

	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

// Run stores alerts and tells the endpoints, until ctx ends. A broken session is rebuilt and a failing store tried again, both for ever;
// only a setting that cannot work is an error.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("alerter: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g, ctx := errgroup.WithContext(ctx)
	m := newMetrics(cfg.Registry)
	g.Go(func() error { return storeAlerts(ctx, cfg, m) })
	if len(cfg.Endpoints) > 0 {
		d := newDeliverer(cfg, newDeliveryMetrics(cfg.Registry))
		g.Go(func() error { return d.run(ctx) })
	}
	return g.Wait()
}

// storeAlerts takes alerts from the topic to the store.
func storeAlerts(ctx context.Context, cfg Config, m *metrics) error {
	bad := ops.Sparse(cfg.Log)
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		cfg.Status.NotReady("waiting for the broker")
		s := &session{cfg: cfg, metrics: m, bad: bad, lag: make(map[int32]int64)}
		began := cfg.Now()
		err := s.run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kafka.ErrLayout):
			return fmt.Errorf("alerter: %w", err)
		}
		cfg.Status.NotReady(err.Error())
		if cfg.Now().Sub(began) > time.Minute {
			wait = retryMin
		}
		cfg.Log.Warn("alerter session ended, starting anew", "error", err, "wait", wait)
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// session is one life of the client.
type session struct {
	cfg     Config
	metrics *metrics
	bad     *slog.Logger // of records that are passed over
	cl      *kgo.Client
	pinged  time.Time

	mu     sync.Mutex
	joined bool            // the group has given partitions, or told that there are none for us
	lag    map[int32]int64 // by owned partition
}

func (s *session) run(ctx context.Context) error {
	names := s.cfg.Layout.Names
	if err := s.ensure(ctx); err != nil {
		return err
	}
	var err error
	s.cl, err = kgo.NewClient(s.cfg.Kafka.Options(
		kgo.WithLogger(kafka.Logger(s.cfg.Log)),
		kgo.ConsumerGroup(names.AlerterGroup),
		kgo.ConsumeTopics(names.Alerts),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(time.Second),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.FetchMaxBytes(8<<20),
		kgo.FetchMaxWait(fetchWait),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.revoked),
	)...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer kafka.Close(s.cl, s.cfg.Log)
	s.cfg.Log.Info("alerter started", "topic", names.Alerts, "group", names.AlerterGroup)
	return s.loop(ctx)
}

// ensure waits for the broker and the topics.
func (s *session) ensure(ctx context.Context) error {
	plain, err := kgo.NewClient(s.cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(s.cfg.Log)))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer plain.Close()
	_, _, err = s.cfg.Layout.EnsureWhenReady(ctx, plain, s.cfg.Kafka.Brokers, s.cfg.Log)
	return err
}

func (s *session) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		f, err := s.poll(ctx)
		if err == nil && f.NumRecords() > 0 {
			err = s.batch(ctx, f)
		}
		s.cl.AllowRebalance()
		if err != nil {
			return err
		}
		s.checkBroker(ctx, f.NumRecords() > 0)
	}
	return nil
}

// poll returns what has been fetched, or nothing after a tick.
func (s *session) poll(ctx context.Context) (kgo.Fetches, error) {
	pctx, cancel := context.WithTimeout(ctx, tick)
	defer cancel()
	f := s.cl.PollRecords(pctx, maxBatch)
	if f.IsClientClosed() {
		return nil, kgo.ErrClientClosed
	}
	for _, e := range f.Errors() {
		if errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, context.Canceled) {
			continue
		}
		// An offset that is gone (retention) is reset by the client, and everything else it retries.
		s.cfg.Log.Warn("fetch", "topic", e.Topic, "partition", e.Partition, "error", e.Err)
		if group := (*kgo.ErrGroupSession)(nil); errors.As(e.Err, &group) {
			s.setJoined(false)
			s.cfg.Status.NotReady(e.Err.Error())
		}
	}
	return f, nil
}

// batch stores the records of one poll and commits their offsets.
func (s *session) batch(ctx context.Context, f kgo.Fetches) error {
	records, places := s.parse(f)
	changed, err := s.store(ctx, records, places)
	if err != nil {
		return err
	}
	if s.cfg.OnStored != nil && len(records) > 0 {
		s.cfg.OnStored(records, changed)
	}
	s.commit(ctx)
	if s.cfg.Print != nil {
		for i, r := range records {
			if changed[i] {
				s.cfg.Print(r)
			}
		}
	}
	s.stored(f)
	return nil
}

// parse returns what is an alert, with its place in the topic, and makes the rest known.
func (s *session) parse(f kgo.Fetches) (records []alert.Record, places []*kgo.Record) {
	f.EachRecord(func(r *kgo.Record) {
		a, err := alert.Parse(r.Value)
		if err != nil {
			s.metrics.alerts.WithLabelValues("", outcomeMalformed).Inc()
			s.bad.Error("alert record is malformed, passed over", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
			return
		}
		records, places = append(records, a), append(places, r)
	})
	return records, places
}

// store applies the records, as often as it takes. It gives up only when ctx ends, and then nothing is stored.
func (s *session) store(ctx context.Context, records []alert.Record, places []*kgo.Record) ([]bool, error) {
	if len(records) == 0 {
		return nil, nil
	}
	told := make([]notify.Endpoint, 0, len(s.cfg.Endpoints))
	for _, e := range s.cfg.Endpoints {
		told = append(told, e.Endpoint)
	}
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		tctx, cancel := outlive(ctx, grace)
		began := s.cfg.Now()
		applied, err := s.cfg.Store.Apply(tctx, began, records, told...)
		took := s.cfg.Now().Sub(began)
		cancel()
		if err == nil {
			s.metrics.store.Observe(took.Seconds())
			s.ready()
			outcomes := make([]string, len(records))
			for _, r := range applied.Rejected {
				outcomes[r.Index] = outcomeOf(r.Err)
				at, what := places[r.Index], "alert record cannot be stored, passed over"
				if outcomes[r.Index] == outcomeConflict {
					what = "alert record contradicts the stored alert, passed over"
				}
				s.bad.Error(what, "topic", at.Topic, "partition", at.Partition, "offset", at.Offset,
					"id", records[r.Index].ID, "state", records[r.Index].State, "error", r.Err)
			}
			for i, r := range records {
				switch {
				case outcomes[i] != "":
				case applied.Changed[i]:
					outcomes[i] = outcomeStored
				default:
					outcomes[i] = outcomeRepeated
				}
				s.metrics.alerts.WithLabelValues(string(r.State), outcomes[i]).Inc()
			}
			return applied.Changed, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.metrics.storeErrors.Inc()
		s.cfg.Status.NotReady("store: " + err.Error())
		s.cfg.Log.Error("store does not take alerts, trying again", "alerts", len(records), "error", err, "wait", wait)
		if !pause(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

// commit commits the offsets of everything polled, which is stored by now. If that fails, the next commit includes it.
func (s *session) commit(ctx context.Context) {
	cctx, stop := outlive(ctx, grace)
	defer stop()
	cctx, cancel := context.WithTimeout(cctx, commitTimeout)
	defer cancel()
	if err := s.cl.CommitUncommittedOffsets(cctx); err != nil {
		s.cfg.Log.Warn("offsets not committed; alerts may be read again, which changes nothing", "error", err)
	}
}

// checkBroker keeps the readiness true: the client hides that a broker is away, for it comes back by itself.
func (s *session) checkBroker(ctx context.Context, heard bool) {
	now := s.cfg.Now()
	if heard || now.Sub(s.pinged) < time.Second {
		return
	}
	s.pinged = now
	pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := s.cl.Ping(pctx); err != nil {
		if ctx.Err() == nil {
			s.cfg.Status.NotReady("broker does not answer: " + err.Error())
			s.cfg.Log.Warn("broker does not answer, trying again", "brokers", s.cfg.Kafka.Brokers, "error", err)
		}
		return
	}
	s.ready()
}

// ready tells so if the group has taken this alerter in.
func (s *session) ready() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joined {
		s.cfg.Status.Ready()
	}
}

func (s *session) setJoined(joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined = joined
}

func (s *session) assigned(context.Context, *kgo.Client, map[string][]int32) { s.setJoined(true) }

func (s *session) revoked(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts[s.cfg.Layout.Names.Alerts] {
		delete(s.lag, p)
	}
	s.gauge()
}

// stored brings the lag up to date.
func (s *session) stored(f kgo.Fetches) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 {
			s.lag[p.Partition] = max(0, p.HighWatermark-p.Records[n-1].Offset-1)
		}
	})
	s.gauge()
}

func (s *session) gauge() {
	var sum int64
	for _, n := range s.lag {
		sum += n
	}
	s.metrics.lag.Set(float64(sum))
}
