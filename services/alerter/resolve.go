package alerter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/alerter/deliver"
	"spate/shared/incident"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/store"
	"spate/shared/window"
)

const (
	// resolveEvery is the interval between looks for incidents to resolve.
	resolveEvery = 2 * time.Second
	// resolveAtOnce is how many are resolved in one transaction.
	resolveAtOnce = 500
	// lastTime is the latest event time that every store can keep.
	lastTime = 253402300799999 // the end of the year 9999, in milliseconds
)

// resolver ends incidents when event time has passed them. Every alerter has one, for all partitions; that several do the same at a time is harmless.
type resolver struct {
	cfg     Config
	metrics *metrics
	adm     *kadm.Client

	waiting *horizon // nil: none
	warned  time.Time

	// While all source partitions are silent and everything is read, event time walks on with the wall clock, as it does for windows.
	silentSince time.Time // zero: they are not
	silentAt    int64     // the watermark then
}

// horizon is a watermark, and where the partitions of the alerts topic ended after it was committed: what is before is all that it can have caused.
type horizon struct {
	watermark int64
	ends      map[int32]int64
}

// resolveIncidents resolves incidents until ctx ends.
func resolveIncidents(ctx context.Context, cfg Config, m *metrics) error {
	cl, err := kgo.NewClient(cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(cfg.Log)))...)
	if err != nil {
		return fmt.Errorf("alerter: connect: %w", err)
	}
	defer cl.Close()
	r := &resolver{cfg: cfg, metrics: m, adm: kadm.NewClient(cl)}
	for ops.Pause(ctx, resolveEvery) {
		if err := r.look(ctx); err != nil && ctx.Err() == nil && time.Since(r.warned) > time.Minute {
			r.warned = time.Now()
			cfg.Log.Warn("cannot determine which incidents have ended; they stay open until a retry succeeds", "error", err)
		}
	}
	return nil
}

// look resolves the incidents that are due by the last horizon, if all alerts up to there are stored, and then looks for the next horizon.
func (r *resolver) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if open, err := r.open(ctx); err != nil || !open {
		r.waiting, r.silentSince = nil, time.Time{}
		return err
	}
	if r.waiting != nil {
		stored, err := r.stored(ctx, r.waiting.ends)
		if err != nil || !stored {
			r.cfg.Log.Debug("open incidents are waiting for alerts to be stored", "watermark", r.waiting.watermark, "ends", r.waiting.ends)
			return err
		}
		if err := r.resolve(ctx, r.waiting.watermark); err != nil {
			return err
		}
		r.waiting = nil
	}
	watermark, err := r.watermark(ctx)
	if err != nil || watermark == window.NoTime {
		return err
	}
	ends, err := offsets(ctx, r.adm.ListCommittedOffsets, r.cfg.Layout.Names.Alerts)
	if err != nil {
		return err
	}
	r.waiting = &horizon{watermark: watermark, ends: ends}
	return nil
}

// open reports whether any incident is: the broker is asked nothing if there is none.
func (r *resolver) open(ctx context.Context) (bool, error) {
	for _, err := range r.cfg.Store.Incidents(ctx, store.IncidentFilter{State: incident.StateOpen, Limit: 1}) {
		return err == nil, err
	}
	return false, nil
}

// offsets are those of a topic's partitions that the broker lists.
func offsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topic string) (map[int32]int64, error) {
	listed, err := list(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list offsets of topic %s: %w", topic, err)
	}
	out := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

// stored reports whether the alerts before these offsets are stored.
func (r *resolver) stored(ctx context.Context, ends map[int32]int64) (bool, error) {
	names := r.cfg.Layout.Names
	committed, err := r.fetch(ctx, names.AlerterGroup)
	if err != nil {
		return false, err
	}
	stored := func(starts map[int32]int64) bool {
		for p, end := range ends {
			o, ok := committed.Lookup(names.Alerts, p)
			if end > starts[p] && (!ok || o.Err != nil || o.At < end) {
				return false
			}
		}
		return true
	}
	if stored(nil) {
		return true, nil
	}
	// What was deleted is not waited for.
	starts, err := offsets(ctx, r.adm.ListStartOffsets, names.Alerts)
	return err == nil && stored(starts), err
}

// resolve ends the incidents that are due at a watermark.
func (r *resolver) resolve(ctx context.Context, watermark int64) error {
	upTo := time.UnixMilli(min(watermark, lastTime) + 1) // windows that end there are closed
	for {
		ended, err := r.cfg.Store.Resolve(ctx, r.cfg.Now(), upTo, resolveAtOnce, deliver.Told(r.cfg.Endpoints)...)
		if err != nil {
			return err
		}
		r.metrics.tell(ended)
		if len(ended) < resolveAtOnce {
			return nil
		}
	}
}

// watermark returns the event time up to which every detector has written its alerts, or window.NoTime.
func (r *resolver) watermark(ctx context.Context) (int64, error) {
	names := r.cfg.Layout.Names
	committed, err := r.fetch(ctx, names.DetectorGroup)
	if err != nil {
		return 0, err
	}
	ends, err := offsets(ctx, r.adm.ListEndOffsets, names.Keyed)
	if err != nil {
		return 0, err
	}
	low, read := int64(window.EndOfTime), true
	for p, end := range ends {
		o, ok := committed.Lookup(names.Keyed, p)
		if !ok || o.Err != nil || o.At < 0 {
			return window.NoTime, o.Err
		}
		pos, err := window.ParsePosition(o.At, o.Metadata)
		if err != nil {
			return window.NoTime, nil // somebody reset the offsets; the detector commits a position soon
		}
		low = min(low, pos.Watermark())
		read = read && end-pos.Next <= 1 // only the marker of a transaction may be left, which is not a batch
	}
	if len(ends) == 0 || low == window.NoTime {
		return window.NoTime, nil
	}
	silent := false
	if read && low != window.EndOfTime {
		if silent, err = r.silent(ctx); err != nil {
			return 0, err
		}
	}
	r.cfg.Log.Debug("event time of the detectors", "watermark", low, "all_read", read, "silent", silent)
	switch {
	case !silent:
		r.silentSince = time.Time{}
	case r.silentSince.IsZero() || r.silentAt != low:
		r.silentSince, r.silentAt = time.Now(), low
	default:
		low += time.Since(r.silentSince).Milliseconds()
	}
	return low, nil
}

// silent reports whether all source partitions are read to their end and silent, as the routers have committed.
func (r *resolver) silent(ctx context.Context) (bool, error) {
	names := r.cfg.Layout.Names
	committed, err := r.fetch(ctx, names.RouterGroup)
	if err != nil {
		return false, err
	}
	ends, err := offsets(ctx, r.adm.ListEndOffsets, names.Activity)
	if err != nil {
		return false, err
	}
	for p, end := range ends {
		o, ok := committed.Lookup(names.Activity, p)
		if !ok || o.Err != nil || o.At < end {
			return false, o.Err
		}
		if routed, err := window.ParseRouted(o.Metadata); err != nil || !routed.Idle {
			return false, nil
		}
	}
	return len(ends) > 0, nil
}

// fetch returns what a group has committed; a group that never did has nothing.
func (r *resolver) fetch(ctx context.Context, group string) (kadm.OffsetResponses, error) {
	committed, err := r.adm.FetchOffsets(ctx, group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the committed offsets of group %s: %w", group, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "group", Name: group}))
	}
	return committed, nil
}

// tell counts what became of incidents.
func (m *metrics) tell(events []incident.Event) {
	for _, e := range events {
		if !e.Again {
			m.incidents.WithLabelValues(string(e.Transition), string(e.Incident.Severity)).Inc()
		}
	}
}
