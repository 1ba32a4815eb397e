package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sparingLog logs what may come without end: for each cause at most one line in a while, which says how many it stands for. There are as
// many causes as places in the code, not as clients can make up.
type sparingLog struct {
	log *slog.Logger
	mu  sync.Mutex
	by  map[string]*cause
}

type cause struct {
	last   time.Time
	unsaid int
}

func newSparingLog(log *slog.Logger) *sparingLog {
	return &sparingLog{log: log, by: make(map[string]*cause)}
}

// Log logs msg, unless it did for the same cause less than every ago.
func (s *sparingLog) Log(every time.Duration, level slog.Level, of, msg string, args ...any) {
	s.mu.Lock()
	c := s.by[of]
	if c == nil {
		c = &cause{}
		s.by[of] = c
	}
	now := time.Now()
	if !c.last.IsZero() && now.Sub(c.last) < every {
		c.unsaid++
		s.mu.Unlock()
		return
	}
	if c.unsaid > 0 {
		args = append(args, "suppressed", c.unsaid)
	}
	c.last, c.unsaid = now, 0
	s.mu.Unlock()
	s.log.Log(context.Background(), level, msg, args...)
}
