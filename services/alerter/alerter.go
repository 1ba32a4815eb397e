package alerter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"spate/services/alerter/deliver"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/ops"
)

const (
	maxBatch = 1000
	// tick bounds a poll, and lookEvery is how often the broker is asked where partitions end.
	tick      = 250 * time.Millisecond
	lookEvery = time.Second

	// fetchWait is how long the broker holds a fetch that finds nothing. A partition that is taken over is fetched only after that.
	fetchWait = 500 * time.Millisecond

	rebalanceTimeout = 15 * time.Second
	commitTimeout    = 5 * time.Second
	// grace is what a batch that is being stored, and then its commit and leaving the group, each get when ctx ends.
	grace = 2 * time.Second

	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

// Run stores alerts and notifies the endpoints until ctx ends. A broken session is rebuilt and a failing store is retried, both forever;
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
	g.Go(func() error { return resolveIncidents(ctx, cfg, m) })
	if len(cfg.Endpoints) > 0 {
		g.Go(func() error {
			return deliver.Run(ctx, deliver.Config{Store: cfg.Store, Endpoints: cfg.Endpoints, Log: cfg.Log, Registry: cfg.Registry, Now: cfg.Now})
		})
	}
	return g.Wait()
}

// storeAlerts takes alerts from the topic to the store.
func storeAlerts(ctx context.Context, cfg Config, m *metrics) error {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		cfg.Status.NotReady("waiting for the broker")
		s := &session{cfg: cfg, metrics: m, position: make(map[int32]int64)}
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
		cfg.Log.Warn("alerter session ended, restarting", "error", err, "wait", wait)
		if !ops.Pause(ctx, wait) {
			return nil
		}
	}
}

// session is one life of the client.
type session struct {
	cfg     Config
	metrics *metrics
	cl      *kgo.Client
	reader  *kafka.Reader
	adm     *kadm.Client
	topics  kafka.Topics
	looked  time.Time

	standing kafka.Progress

	decisions *decisions // nil: no alert had one yet

	mu       sync.Mutex
	joined   bool            // the group has assigned partitions, or none
	position map[int32]int64 // by owned partition: what comes before is stored
}

func (s *session) run(ctx context.Context) error {
	names := s.cfg.Layout.Names
	plain, err := kgo.NewClient(s.cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(s.cfg.Log)))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer plain.Close()
	s.adm = kadm.NewClient(plain)
	if s.topics, err = s.cfg.Layout.EnsureWhenReady(ctx, plain, s.cfg.Kafka.Brokers, s.cfg.Log, s.hold); err != nil {
		return err
	}
	s.reader, err = s.cfg.Kafka.NewReader(names.Alerts, s.cfg.Log, s.at, kgo.NewClient,
		kgo.ConsumerGroup(names.AlerterGroup),
		kgo.ConsumeTopics(names.Alerts),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(kafka.SessionTimeout),
		kgo.HeartbeatInterval(time.Second),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.FetchMaxBytes(8<<20),
		kgo.FetchMaxWait(fetchWait),
		kgo.KeepControlRecords(), // they move the position
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.AdjustFetchOffsetsFn(s.adjust),
		kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.revoked),
	)
	if err != nil {
		return err
	}
	s.cl = s.reader.Client()
	defer kafka.Close(s.cl, s.cfg.Log)
	defer s.cfg.Status.Hold("standing", "")
	defer func() { s.decisions.close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wg.Go(func() {
		if err := s.cfg.Layout.Watch(ctx, plain, s.topics, s.cfg.Log, s.hold); err != nil {
			cancel(err)
		}
	})
	s.cfg.Log.Info("alerter started", "topic", names.Alerts, "group", names.AlerterGroup)
	err = s.loop(ctx)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.cfg.Status.NotReady(err.Error()) // to leave the group of a broker that is away takes its time
	}
	return err
}

// hold reports what is wrong with the broker; "" means nothing.
func (s *session) hold(reason string) { s.cfg.Status.Hold("broker", reason) }

func (s *session) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		f, gaps, err := s.poll(ctx)
		if err == nil && f.NumRecords() > 0 {
			err = s.batch(ctx, f)
		}
		if err == nil {
			gaps, err = s.look(ctx, gaps)
		}
		if err == nil {
			s.leaveOut(ctx, gaps)
		}
		s.cl.AllowRebalance()
		if err != nil {
			return err
		}
	}
	return nil
}

// poll returns what has been fetched, or nothing after a tick.
func (s *session) poll(ctx context.Context) (kgo.Fetches, []kafka.Gap, error) {
	pctx, cancel := context.WithTimeout(ctx, tick)
	defer cancel()
	return s.reader.Poll(pctx, maxBatch)
}

// look asks the broker where partitions end, every second. It adds to the gaps those at which partitions stand still without the client's saying
// so.
func (s *session) look(ctx context.Context, gaps []kafka.Gap) ([]kafka.Gap, error) {
	if time.Since(s.looked) < lookEvery {
		return gaps, nil
	}
	s.looked = time.Now()
	topic := s.cfg.Layout.Names.Alerts
	lctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	bounds, err := kafka.ListBounds(lctx, s.adm, topic)
	if err != nil {
		return gaps, nil // whoever watches the broker says so
	}
	s.mu.Lock()
	at := maps.Clone(s.position)
	joined := s.joined
	s.mu.Unlock()
	s.reader.Begins(bounds)
	var lag int64
	var text []string
	for p := range at {
		lag += max(0, bounds[p].End-at[p])
	}
	s.metrics.lag.Set(float64(lag))
	for p, d := range s.standing.Stands(time.Now(), at, bounds) {
		var why error
		if d >= kafka.ProbeAfter {
			g, ok, err := s.reader.Probe(ctx, p)
			if why = err; ok {
				gaps = append(gaps, g)
			} else if err != nil {
				s.cfg.Log.Warn("a partition has stalled", "topic", topic, "partition", p, "offset", at[p], "error", err)
			}
		}
		if d >= kafka.StalledAfter {
			text = append(text, kafka.Stalled(topic, p, at[p], bounds[p], d, why))
		}
	}
	slices.Sort(text)
	s.cfg.Status.Hold("standing", strings.Join(text, "; "))
	if joined {
		s.cfg.Status.Ready()
	}
	return gaps, nil
}

// leaveOut continues after unreadable batches. The records before them are stored.
func (s *session) leaveOut(ctx context.Context, gaps []kafka.Gap) {
	for _, g := range gaps {
		if at := s.at(g.Partition); at < 0 || !g.Passed && g.To <= at {
			continue
		}
		if g.Deleted || g.Aborted {
			s.move(g.Partition, max(s.at(g.Partition), g.To))
		}
		switch {
		case g.Deleted:
			s.gone(g.Partition, g.From, g.To)
			continue
		case g.Aborted:
			continue
		}
		s.metrics.alerts.WithLabelValues("", outcomeUnreadable).Inc()
		s.cfg.Log.Error("skipping an unreadable batch of alerts", "topic", g.Topic, "partition", g.Partition, "offset", g.From, "next", g.To, "error", g.Cause)
		if g.Passed {
			continue
		}
		s.reader.Skip(g)
		s.move(g.Partition, g.To)
		cctx, cancel := context.WithTimeout(ctx, commitTimeout)
		s.cl.CommitOffsetsSync(cctx, map[string]map[int32]kgo.EpochOffset{g.Topic: {g.Partition: {Epoch: -1, Offset: g.To}}}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				s.cfg.Log.Warn("offset not committed; the unreadable batch will be read again", "error", err)
			}
		})
		cancel()
	}
}

// gone counts and logs records that were deleted before they were read.
func (s *session) gone(partition int32, from, to int64) {
	s.metrics.alerts.WithLabelValues("", outcomeDeleted).Add(float64(to - from))
	s.cfg.Log.Error("alert records were deleted before they were read: alerts may be missing; increase the topic's retention.ms",
		"topic", s.cfg.Layout.Names.Alerts, "partition", partition, "offset", from, "log_begins", to)
}

// at is where a partition is read next, -1 if it is not owned.
func (s *session) at(partition int32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.position[partition]; ok {
		return at
	}
	return -1
}

func (s *session) move(partition int32, to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ours := s.position[partition]; ours {
		s.position[partition] = to
	}
}

// adjust notes where partitions begin to be read. One that was never committed begins where its log does: the client can leave out only what it
// knows the place of.
func (s *session) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	topic := s.cfg.Layout.Names.Alerts
	bounds, err := kafka.ListBounds(ctx, s.adm, topic)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, o := range offsets[topic] {
		at := o.EpochOffset().Offset
		if start := bounds[p].Start; at < start {
			if at >= 0 { // else nothing was ever read
				s.gone(p, at, start)
			}
			at = start
		}
		if at > bounds[p].End {
			// The topic was made anew, or has lost its end. What is stored already is known by its id.
			s.cfg.Log.Error("the alerts topic ends before the last position read; reading it from the beginning", "topic", topic, "partition", p, "offset", at, "end", bounds[p].End)
			at = bounds[p].Start
		}
		s.position[p] = at
		offsets[topic][p] = kgo.NewOffset().At(at)
	}
	return offsets, nil
}

// batch stores the records of one poll and commits their offsets.
func (s *session) batch(ctx context.Context, f kgo.Fetches) error {
	records, places := s.parse(f)
	changed, err := s.store(ctx, records, places)
	if err != nil {
		return err
	}
	if err := s.decide(ctx, records, places); err != nil {
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
		if r.Attrs.IsControl() {
			return
		}
		a, err := alert.Parse(r.Value)
		if latest := r.Timestamp.Add(kafka.MaxClockSkew); err == nil && a.State == alert.Closed && a.WindowEnd.After(latest) && !s.cfg.Drains {
			// It would take the place of the true one, which comes when the window has ended.
			err = fmt.Errorf("window ends at %s, which is after the record was written (%s at the latest)", a.WindowEnd.Format(time.RFC3339), latest.UTC().Format(time.RFC3339))
		}
		if err != nil {
			s.metrics.alerts.WithLabelValues("", outcomeMalformed).Inc()
			s.cfg.Log.Error("skipping a malformed alert record", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
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
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		tctx, cancel := ops.Outlive(ctx, grace)
		began := s.cfg.Now()
		applied, err := s.cfg.Store.Apply(tctx, began, records, deliver.Told(s.cfg.Endpoints)...)
		took := s.cfg.Now().Sub(began)
		cancel()
		if err == nil {
			s.metrics.store.Observe(took.Seconds())
			s.metrics.tell(applied.Events)
			s.ready()
			outcomes := make([]string, len(records))
			for _, r := range applied.Rejected {
				outcomes[r.Index] = outcomeOf(r.Err)
				at, what := places[r.Index], "skipping an alert record that cannot be stored"
				if outcomes[r.Index] == outcomeConflict {
					what = "skipping an alert record that conflicts with the stored alert"
				}
				s.cfg.Log.Error(what, "topic", at.Topic, "partition", at.Partition, "offset", at.Offset,
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
		s.cfg.Log.Error("cannot store alerts, retrying", "alerts", len(records), "error", err, "wait", wait)
		if !ops.Pause(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

// commit commits the offsets of everything polled, which is stored by now. If that fails, the next commit includes it.
func (s *session) commit(ctx context.Context) {
	cctx, stop := ops.Outlive(ctx, grace)
	defer stop()
	cctx, cancel := context.WithTimeout(cctx, commitTimeout)
	defer cancel()
	if err := s.cl.CommitUncommittedOffsets(cctx); err != nil {
		s.cfg.Log.Warn("offsets not committed; alerts may be read again, which is harmless", "error", err)
	}
}

// ready sets the status to ready if this alerter has joined the group.
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
		delete(s.position, p)
	}
}

// stored brings the positions up to date.
func (s *session) stored(f kgo.Fetches) {
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 {
			s.move(p.Partition, p.Records[n-1].Offset+1)
		}
	})
}
