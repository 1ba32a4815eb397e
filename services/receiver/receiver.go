// Package receiver is the receiving side of webhooks: a server that accepts Standard Webhooks 1.0 calls, verifies their signatures and
// passes them on. It is used to try out spate, in tests, and as an example of what a receiver has to do:
//
//  1. read the body's bytes, a bounded number of them, and parse nothing yet;
//  2. check signature and timestamp over these bytes (webhook.Verify), and answer 401 if they are wrong;
//  3. look up the webhook-id: delivery is at least once, so the same call may come again;
//  4. respond with 2xx quickly.
//
// It keeps the ids it has seen in memory; a receiver that must not repeat its work should store the ids together with the results.
package receiver

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"spate/shared/notify/webhook"
	"spate/shared/ops"
)

const (
	maxBody = 1 << 20 // bytes
	maxSeen = 100_000 // ids
	grace   = time.Second
)

// Config of a receiver.
type Config struct {
	// Listener is where calls come in; Run closes it.
	Listener net.Listener
	// Secrets of which one has to have signed a call; while it is being replaced there are two.
	Secrets []webhook.Secret
	// On, if set, is called for every call that arrives, one after another, before the caller gets its answer.
	On func(Call)
	// Log gets what goes wrong with connections; nil is nowhere.
	Log *slog.Logger
	// Now is the clock that timestamps are held against; nil is time.Now.
	Now func() time.Time
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	if c.Listener == nil {
		errs = append(errs, errors.New("listener: missing"))
	}
	if len(c.Secrets) == 0 {
		errs = append(errs, errors.New("secrets: missing; give the secret that the sender signs with"))
	}
	return errors.Join(errs...)
}

// Call is what came in.
type Call struct {
	At     time.Time // when it came
	Remote string    // address that it came from
	// Verified: one of the secrets signed it. If not, nothing that it says can be believed, and it is not told here.
	Verified bool
	// Reason says why it was refused; empty is accepted.
	Reason string

	// WebhookID is the same however often a message comes.
	WebhookID string
	// Repeat: an accepted call with this id came before, and is among those that are remembered, the last 100,000.
	Repeat bool
	Type   string
	// Timestamp is when what the message tells happened, as it has it.
	Timestamp string
	Data      json.RawMessage
}

// Run serves until ctx ends, and returns nil then.
func Run(ctx context.Context, c Config) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("receiver: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.On == nil {
		c.On = func(Call) {}
	}
	r := &receiver{Config: c, seen: newSeen(maxSeen)}
	srv := ops.HTTPServer(r)
	srv.ErrorLog = slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(c.Listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", c.Listener.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		_ = srv.Close() // a caller that holds on to its connection does not hold the process
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", c.Listener.Addr(), err)
	}
	return nil
}

type receiver struct {
	Config

	mu   sync.Mutex // around seen and On
	seen *seen
}

// ServeHTTP takes any path as it is: a ServeMux would redirect those that are not clean, and senders follow no redirects.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.Method == http.MethodPost:
		r.take(w, req)
	case req.Method == http.MethodGet && req.URL.Path == "/healthz":
		fmt.Fprintln(w, "ok")
	default:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhook calls must use POST", http.StatusMethodNotAllowed)
	}
}

// take answers a call: 204 it was accepted, 401 it is not verified, 413 it is too long, 400 it is not a message.
func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	call := Call{At: r.Now().UTC(), Remote: req.RemoteAddr}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		var long *http.MaxBytesError
		if errors.As(err, &long) {
			r.refuse(w, call, http.StatusRequestEntityTooLarge, fmt.Sprintf("body is longer than %d bytes", maxBody))
			return
		}
		r.refuse(w, call, http.StatusBadRequest, "body is incomplete")
		return
	}
	if err := webhook.Verify(r.Secrets, req.Header, body, r.Now()); err != nil {
		r.refuse(w, call, http.StatusUnauthorized, strings.TrimPrefix(err.Error(), "verify call: "))
		return
	}
	call.Verified, call.WebhookID = true, req.Header.Get(webhook.HeaderID)
	var m struct {
		Type      string          `json:"type"`
		Timestamp string          `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &m); err != nil || m.Type == "" {
		r.refuse(w, call, http.StatusBadRequest, "body is not a message: expected a JSON object with a type")
		return
	}
	call.Type, call.Timestamp, call.Data = m.Type, m.Timestamp, m.Data
	r.accept(w, call)
}

// accept remembers a call before its answer is sent: the caller that does not get the answer calls again.
func (r *receiver) accept(w http.ResponseWriter, call Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	call.Repeat = r.seen.add(call.WebhookID)
	r.On(call)
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) refuse(w http.ResponseWriter, call Call, status int, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	call.Reason = reason
	r.On(call)
	http.Error(w, reason, status)
}

// seen remembers the last ids. Hashes, so that long ids take no more memory than short ones.
type seen struct {
	ids  map[[sha256.Size]byte]struct{}
	ring [][sha256.Size]byte
	next int // in the ring
	max  int
}

func newSeen(limit int) *seen {
	return &seen{ids: make(map[[sha256.Size]byte]struct{}), max: limit}
}

// add remembers an id and reports whether it was there already. A repeat does not make it younger.
func (s *seen) add(id string) bool {
	key := sha256.Sum256([]byte(id))
	if _, ok := s.ids[key]; ok {
		return true
	}
	if len(s.ring) < s.max {
		s.ring = append(s.ring, key)
	} else {
		delete(s.ids, s.ring[s.next])
		s.ring[s.next] = key
		s.next = (s.next + 1) % s.max
	}
	s.ids[key] = struct{}{}
	return false
}
