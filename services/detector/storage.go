package detector

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/lovoo/goka/storage"

	"spate/shared/rule"
	"spate/shared/window"
)

// keyedPartition is one partition of the group table. It implements goka's storage for that partition. It is safe for concurrent use.
type keyedPartition struct {
	partition int32
	log       *slog.Logger
	recovered func()

	open atomic.Int64 // windows in the table

	mu     sync.Mutex
	table  *window.Table
	resume window.Position
	until  int64 // end of the log when the partition was taken over
	ready  bool
	// caughtUp: the log was read up to there. Before that the table lacks what is still to be read again.
	caughtUp bool
	latest   window.Position // as last handed out for commit
	failed   int64           // the first batch that was not applied, and must be read again; -1: there is none
}

var _ storage.Storage = (*keyedPartition)(nil)

// Open is part of storage.Storage.
func (s *keyedPartition) Open() error { return nil }

// Close is part of storage.Storage.
func (s *keyedPartition) Close() error { return nil }

// errWhole is what single users are answered with: the callback works on the table as a whole.
var errWhole = errors.New("the group table does not support single values")

// Has, Get, Set and Delete are part of storage.Storage.
func (s *keyedPartition) Has(string) (bool, error)   { return false, errWhole }
func (s *keyedPartition) Get(string) ([]byte, error) { return nil, errWhole }
func (s *keyedPartition) Set(string, []byte) error   { return errWhole }
func (s *keyedPartition) Delete(string) error        { return errWhole }

// GetOffset is part of storage.Storage: nothing is kept between sessions.
func (s *keyedPartition) GetOffset(def int64) (int64, error) { return def, nil }

// SetOffset is part of storage.Storage.
func (s *keyedPartition) SetOffset(int64) error { return nil }

// MarkRecovered is goka's word that messages follow.
func (s *keyedPartition) MarkRecovered() error {
	s.takeOver()
	s.recovered() // which looks at all partitions, so this one is not locked
	return nil
}

func (s *keyedPartition) takeOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Resume(s.resume)
	s.count()
	s.ready = true
	s.log.Info("partition taken over", "partition", s.partition, "kept_windows", s.table.Stats().Panes, "replay_from", s.resume.Replay, "told_up_to", s.resume.Next)
}

func (s *keyedPartition) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// Iterator and IteratorWithRange are part of storage.Storage; only goka's visitors need them.
func (s *keyedPartition) Iterator() (storage.Iterator, error) { return nil, errWhole }
func (s *keyedPartition) IteratorWithRange([]byte, []byte) (storage.Iterator, error) {
	return nil, errWhole
}

// begin prepares for a session of the partition; goka ends the preparation with MarkRecovered.
func (s *keyedPartition) begin(p window.Position, until int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resume, s.until, s.ready, s.caughtUp, s.failed = p, until, false, false, -1
}

// end tells that the partition is another's.
func (s *keyedPartition) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = false
}

// fail tells that a batch was not applied: nothing from it on is done, whatever goka makes of it. A context that has ended makes a failure a success for it.
func (s *keyedPartition) fail(offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed < 0 {
		s.failed = offset
	}
}

// hasFailed reports whether a batch was not applied: the next ones must not be either.
func (s *keyedPartition) hasFailed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed >= 0
}

// apply applies a batch and returns its verdicts, and how many of its events were counted before.
func (s *keyedPartition) apply(offset int64, batch []byte, plan *rule.Plan) (out []window.Verdict, repeated int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.count()
	if s.table.Revision() < plan.Revision {
		s.table.Extend(plan)
	}
	was := s.table.Stats()
	out, err = s.table.Apply(offset, batch, out)
	now := s.table.Stats()
	if was.Foreign == 0 && now.Foreign > 0 {
		s.log.Error("the keyed log has events for rules that this detector does not have; these events are not counted: routers and detectors must have the same rules and windows",
			"partition", s.partition, "offset", offset)
	}
	return out, now.Repeated - was.Repeated, err
}

// count is called after every change of the table, with the lock held.
func (s *keyedPartition) count() { s.open.Store(s.table.Stats().Open()) }
