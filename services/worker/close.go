package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"spate/shared/alert"
	"spate/shared/aws/stream"
	"spate/shared/window"
)

// flush brings what was judged into the table and writes the alerts that open, and what was set aside.
func (s *session) flush(ctx context.Context) error {
	verdicts, err := s.apply(nil)
	if err != nil {
		return err
	}
	again := s.again()
	s.tally.Counted, s.tally.Repeated = s.tally.Counted-again, s.tally.Repeated+again
	s.counted.counted, s.counted.repeated = s.counted.counted-again, s.counted.repeated+again
	if err := s.queue(verdicts); err != nil {
		return err
	}
	if err := s.emit(ctx); err != nil {
		return err
	}
	return s.writeAside(ctx)
}

// again returns how many events the table has left out since the last call, because it knew them by their ids.
func (s *session) again() int64 {
	was := s.repeated
	s.repeated = s.table.Stats().Repeated
	return s.repeated - was
}

// apply hands the sums, or, with watermarks, the watermark to the table, as one batch of a log that is never written.
func (s *session) apply(watermarks []window.Watermark) (out []window.Verdict, err error) {
	s.gathers = time.Time{}
	if s.combiner.Panes() > 0 || watermarks != nil {
		same := func([]byte) int32 { return 0 }
		s.combiner.Flush(1, same, window.Header{Sources: s.sources(), Watermarks: watermarks}, func(_ int32, value []byte) {
			if err == nil {
				out, err = s.table.Apply(s.batch, value, out)
			}
			s.batch++
		})
		if err != nil {
			return nil, fmt.Errorf("apply batch: %w", err)
		}
	}
	s.snap()
	return out, nil
}

// sources is how many numbers of shards the engine knows.
func (s *session) sources() int32 { return max(1, int32(len(s.numbered))) }

// snap notes how far the shards have come before the next batch. Shards that have not moved share nothing: there are few.
func (s *session) snap() {
	at := make(map[string]mark, len(s.shards))
	for id, sh := range s.shards {
		if !sh.waits {
			at[id] = sh.mark()
		}
	}
	if n := len(s.snaps); n > 0 && s.snaps[n-1].batch == s.batch {
		s.snaps[n-1].at = at // nothing was counted in between
		return
	}
	s.snaps = append(s.snaps, snapshot{s.batch, at})
}

// snapShard adds a shard that begins to the snapshots: nothing of it is in any batch so far.
func (s *session) snapShard(sh *shard) {
	for _, p := range s.snaps {
		p.at[sh.id] = sh.mark()
	}
}

func (sh *shard) mark() mark { return mark{sh.at, sh.src.MaxTS, sh.seqs.Next()} }

// queue encodes the alerts of verdicts.
func (s *session) queue(verdicts []window.Verdict) error {
	for _, v := range verdicts {
		r := s.teller.Record(v)
		if !slices.Contains(s.cfg.Transitions, r.State) {
			continue
		}
		r.Evidence = alert.Evidence{Stream: s.cfg.Stream, Shards: make(map[string]alert.SequenceRange)}
		for _, e := range v.Pane.Evidence() {
			sh := s.numbered[e.Partition]
			r.Evidence.Shards[sh.id] = alert.SequenceRange{First: sh.seqs.At(e.First), Last: sh.seqs.At(e.Last)}
		}
		value, err := r.Encode()
		if err != nil {
			return err
		}
		entry := stream.Entry{Key: partitionKey(r.KeyText()), Data: value}
		if n := len(entry.Key) + len(value); n > stream.MaxEntryBytes {
			s.metrics.tooLarge.Inc()
			s.cfg.Log.Error("an alert is not written because it is larger than a record of Kinesis can be", "rule", r.Rule, "id", r.ID, "state", string(r.State), "bytes", n, "max_bytes", stream.MaxEntryBytes)
			continue
		}
		s.outbox = append(s.outbox, entry)
		s.metrics.alerts.WithLabelValues(r.Rule, string(r.State)).Inc()
		s.reports.alert(r.State)
	}
	return nil
}

// partitionKey is a key of a stream that stands for the key of an alert: itself, or a digest if a stream does not take it, as it is empty or too long.
func partitionKey(text string) string {
	if n := utf8.RuneCountInString(text); n >= 1 && n <= stream.MaxKeyLength && utf8.ValidString(text) {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// emit writes the alerts that wait.
func (s *session) emit(ctx context.Context) error {
	if len(s.outbox) == 0 {
		return nil
	}
	if _, err := s.alerts.Put(ctx, s.outbox); err != nil {
		return fmt.Errorf("write alerts: %w", err)
	}
	s.outbox = s.outbox[:0]
	return nil
}

// decide closes all windows up to a watermark. It is called when everything that was judged is in the table and written.
func (s *session) decide(ctx context.Context, watermark int64) error {
	s.st.Pending = watermark
	if err := s.save(ctx); err != nil { // before it has any effect
		return err
	}
	return s.close(ctx)
}

// close writes the alerts of the windows up to the pending watermark. It can be done again, with the same result.
func (s *session) close(ctx context.Context) error {
	watermarks := make([]window.Watermark, s.sources())
	for i := range watermarks {
		watermarks[i] = window.Watermark{Partition: int32(i), WatermarkMS: s.st.Pending} // it is that of all shards together
	}
	verdicts, err := s.apply(watermarks)
	if err != nil {
		return err
	}
	if err := s.queue(verdicts); err != nil {
		return err
	}
	if err := s.emit(ctx); err != nil {
		return err
	}
	s.st.Closed = s.st.Pending
	s.forget()
	s.dirty = true
	return nil
}

// forget drops what the windows that are open do not need, and moves resume on.
func (s *session) forget() {
	p := s.table.Position(s.batch)
	s.table.Committed(p)
	i := 0
	for i+1 < len(s.snaps) && s.snaps[i+1].batch <= p.Replay {
		i++
	}
	s.snaps = slices.Delete(s.snaps, 0, i)
	for id, at := range s.snaps[0].at {
		sh := s.shards[id]
		sh.seqs.Forget(at.record)
		if sh.ended && sh.closed && at.Position == sh.at { // no open window has an event of it, and nobody reads it any more
			s.drop(id)
		}
	}
	for _, sh := range s.shards {
		sh.src.Floor = max(sh.src.Floor, s.st.Closed)
	}
}

// drop forgets a shard that is read to its end and not needed any more.
func (s *session) drop(id string) {
	delete(s.shards, id)
	for _, p := range s.snaps {
		delete(p.at, id)
	}
}

// save writes the state: where to resume, and how far everything is judged. Alerts that opened up to there are written.
func (s *session) save(ctx context.Context) error {
	resume := s.snaps[0].at
	s.st.Shards = make(map[string]place, len(s.shards))
	for id, sh := range s.shards {
		p := place{Waits: sh.waits, Ended: sh.ended, Parents: sh.parents, MaxTS: sh.src.MaxTS, Position: sh.at}
		if at, ok := resume[id]; ok && !sh.waits {
			p.Position, p.MaxTS = at.Position, at.maxTS
			if sh.at != at.Position {
				p.Cut = sh.at.After
			}
		}
		s.st.Shards[id] = p
	}
	s.st.Tally, s.st.Revision = s.tally, s.rules.Revision()
	if err := s.store(ctx); err != nil {
		return err
	}
	s.told()
	return nil
}

// store writes the state as it is.
func (s *session) store(ctx context.Context) error {
	b, err := s.st.encode()
	if err != nil {
		return err
	}
	if err := s.held.Save(ctx, b); err != nil {
		return err
	}
	s.metrics.saves.Inc()
	s.saved, s.dirty = time.Now(), false
	return nil
}

// told counts the events whose place is saved.
func (s *session) told() {
	c := &s.counted
	add := func(fate, reason string, n int64) {
		if n > 0 {
			s.metrics.events.WithLabelValues(fate, reason).Add(float64(n))
		}
	}
	add("counted", "", c.counted)
	add("repeated", "", c.repeated)
	var late, invalid int64
	for f, n := range c.late {
		add("late", window.Fate(f).String(), n)
		late += n
	}
	for reason, n := range c.invalid {
		add("invalid", string(reason), n)
		invalid += n
	}
	for reason, n := range c.skipped {
		add("skipped", string(reason), n)
	}
	if k := s.cfg.Counts; k != nil {
		k.Counted.Add(c.counted)
		k.Repeated.Add(c.repeated)
		k.Late.Add(late)
		k.Invalid.Add(invalid)
		k.In.Add(c.counted + c.repeated + late + invalid)
	}
	s.reports.events(c.counted, late, invalid, c.repeated)
	s.counted = counts{}
}

// faults counts what rules could not compute since it was called last.
func (s *session) faults() {
	for i, n := range s.table.Faults() {
		if i == len(s.faulty) {
			s.faulty = append(s.faulty, 0)
		}
		if n > s.faulty[i] {
			s.metrics.faults.WithLabelValues(s.stream.Plan.Rules[i].Name).Add(float64(n - s.faulty[i]))
			s.faulty[i] = n
		}
	}
}

func (s *session) gauges() {
	var idle, live, behind int64
	for _, sh := range s.shards {
		if !sh.live() {
			continue
		}
		live++
		if sh.src.Idle {
			idle++
		}
		behind = max(behind, sh.behind)
	}
	s.faults()
	stats := s.table.Stats()
	s.metrics.shards.Set(float64(live))
	s.metrics.idle.Set(float64(idle))
	s.metrics.behind.Set(float64(behind) / 1000)
	s.metrics.open.Set(float64(stats.Panes))
	s.metrics.openLimit.Set(float64(s.cfg.MaxOpenWindows))
	if s.st.Closed != window.NoTime {
		s.metrics.watermark.Set(float64(s.st.Closed) / 1000)
	}
	if int64(stats.Panes) >= s.cfg.MaxOpenWindows {
		s.cfg.Status.NotReady(strconv.Itoa(stats.Panes) + " windows are open, so only the slowest shard is read: raise SPATE_MAX_OPEN_WINDOWS (--max-open-windows)")
	} else {
		s.cfg.Status.Ready()
	}
	if err := s.reports.flush(behind); err != nil {
		s.cfg.Log.Warn("cannot write metrics to the log", "error", err)
	}
}
