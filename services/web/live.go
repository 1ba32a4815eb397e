package web

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// maxPages bounds the pages that are open at once.
	maxPages = 200
	// breath is how long pages wait at least before they are told of the next change.
	breath = 500 * time.Millisecond
	// heartbeat keeps proxies from ending a quiet stream, and finds out who is gone.
	heartbeat = 15 * time.Second
	// patience is how long a page may take nothing before it is dropped.
	patience = 10 * time.Second
)

// hub tells open pages that something has changed. A page that is told only learns that it is out of date, so there is nothing to queue: a slow one misses nothing but
// intermediate states.
type hub struct {
	mu      sync.Mutex
	version uint64
	pages   map[chan struct{}]bool
	dirty   chan struct{}
}

func newHub() *hub { return &hub{pages: make(map[chan struct{}]bool), dirty: make(chan struct{}, 1)} }

// Changed notes that what pages show has changed. It never waits.
func (h *hub) Changed() {
	select {
	case h.dirty <- struct{}{}:
	default:
	}
}

// run passes changes on, at most one each half second.
func (h *hub) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.dirty:
		}
		h.mu.Lock()
		h.version++
		for page := range h.pages {
			select {
			case page <- struct{}{}:
			default:
			}
		}
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(breath):
		}
	}
}

func (h *hub) now() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version
}

func (h *hub) join() (chan struct{}, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pages) >= maxPages {
		return nil, false
	}
	c := make(chan struct{}, 1)
	h.pages[c] = true
	return c, true
}

func (h *hub) leave(c chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.pages, c)
}

// stream is GET /api/stream: an event "changed" with a version for each change.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	c, ok := s.hub.join()
	if !ok {
		w.Header().Set("Retry-After", "10")
		s.refuse(w, r, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open, which is the maximum; this page does not update automatically.", maxPages))
		return
	}
	defer s.hub.leave(c)
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(format string, args ...any) bool {
		if out.SetWriteDeadline(time.Now().Add(patience)) != nil {
			return false
		}
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && out.Flush() == nil
	}
	if !send("retry: 2000\nevent: changed\ndata: {\"version\":%d}\n\n", s.hub.now()) {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		case <-c:
			if !send("event: changed\ndata: {\"version\":%d}\n\n", s.hub.now()) {
				return
			}
		case <-beat.C:
			if !send(": still here\n\n") {
				return
			}
		}
	}
}

// fragments keeps the live part of pages, as it was rendered for a version of the data: a hundred tabs that show the same page are one query.
type fragments struct {
	mu      sync.Mutex
	version uint64
	pages   map[string]*fragment
}

type fragment struct {
	once sync.Once
	body []byte
	code int
}

// maxFragments bounds the pages that are kept.
const maxFragments = 500

// of returns the fragment of a page, which the first who asks renders.
func (f *fragments) of(version uint64, url string, render func() ([]byte, int)) ([]byte, int) {
	f.mu.Lock()
	if f.version != version || len(f.pages) >= maxFragments {
		f.version, f.pages = version, nil
	}
	if f.pages == nil {
		f.pages = make(map[string]*fragment)
	}
	p := f.pages[url]
	if p == nil {
		p = &fragment{}
		f.pages[url] = p
	}
	f.mu.Unlock()
	p.once.Do(func() { p.body, p.code = render() })
	return p.body, p.code
}
