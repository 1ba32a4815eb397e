package detector

import (
	"errors"
	"log/slog"
	"sync"

	"github.com/lovoo/goka/storage"

	"spate/shared/window"
)

// ownerKey is the key of the record that a new owner writes to the changelog before it reads it. goka recovers until it is handed the
// record before the end that it saw; without this one that could be a tombstone, which compaction may have removed. No user has it:
// users are JSON tokens.
const ownerKey = "owner"

// shard is one partition of the group table. It implements goka's storage for that partition. It is safe for concurrent use.
type shard struct {
	partition int32
	log       *slog.Logger
	recovered func()

	mu     sync.Mutex
	table  *window.Table
	resume window.Position
	end    int64 // of the log when the partition was taken over
	ready  bool
	// caughtUp: the log was read up to end. Before that the table may lack what the checkpoint did not have.
	caughtUp bool
	latest   window.Position // as last handed out for commit
	waste    int             // unreadable records of the checkpoint
}

var _ storage.Storage = (*shard)(nil)

// Open is part of storage.Storage.
func (s *shard) Open() error { return nil }

// Close is part of storage.Storage.
func (s *shard) Close() error { return nil }

// Has tells whether a user has open windows.
func (s *shard) Has(key string) (bool, error) {
	b, err := s.Get(key)
	return b != nil, err
}

// Get returns a user's state as the changelog has it.
func (s *shard) Get(key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.State(key), nil
}

// Set takes over a record of the changelog. One that cannot be read is left out: the user's windows come back from the log.
func (s *shard) Set(key string, value []byte) error {
	if key == ownerKey {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.table.Load(key, value); err != nil {
		s.waste++
		s.log.Warn("checkpoint record left out", "partition", s.partition, "error", err)
	}
	return nil
}

// Delete takes over a tombstone of the changelog.
func (s *shard) Delete(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Load(key, nil)
}

// GetOffset is part of storage.Storage: nothing is kept between sessions.
func (s *shard) GetOffset(def int64) (int64, error) { return def, nil }

// SetOffset is part of storage.Storage.
func (s *shard) SetOffset(int64) error { return nil }

// MarkRecovered ends the recovery; goka calls it before the first message.
func (s *shard) MarkRecovered() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Resume(s.resume)
	s.ready = true
	st := s.table.Stats()
	s.log.Info("partition recovered", "partition", s.partition, "users", st.Users, "replay_from", s.resume.Replay, "told_up_to", s.resume.Next)
	s.recovered()
	return nil
}

var errNoIterator = errors.New("the group table has no iterator")

// Iterator is part of storage.Storage; only goka's visitors need it.
func (s *shard) Iterator() (storage.Iterator, error) { return nil, errNoIterator }

// IteratorWithRange is part of storage.Storage.
func (s *shard) IteratorWithRange([]byte, []byte) (storage.Iterator, error) {
	return nil, errNoIterator
}

func (s *shard) apply(offset int64, batch []byte, out []window.Verdict) ([]window.Verdict, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Apply(offset, batch, out)
}
