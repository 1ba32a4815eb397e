// Package ops provides what operators use to monitor a process: /metrics, /healthz, /readyz and logging. It is independent of what the
// process does.
package ops

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"spate/shared/terminal"
)

// Status is the readiness of one service. The zero value is not ready. It is safe for concurrent use.
type Status struct {
	mu     sync.Mutex
	ready  bool
	reason string
	holds  map[string]string
	notes  map[string]string
}

// Ready tells that the service does its work.
func (s *Status) Ready() { s.set(true, "") }

// NotReady tells why the service does not do its work.
func (s *Status) NotReady(reason string) { s.set(false, reason) }

// Hold makes the service count as not ready for a reason, whatever else is told, until it is called for the same cause with "".
func (s *Status) Hold(cause, reason string) {
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		put(&s.holds, cause, reason)
	}
}

// Note adds something that an operator should know to the answer of a service that is ready, until it is called for the same cause with "".
func (s *Status) Note(cause, text string) {
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		put(&s.notes, cause, text)
	}
}

func put(m *map[string]string, cause, text string) {
	if text == "" {
		delete(*m, cause)
		return
	}
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[cause] = text
}

func (s *Status) set(ready bool, reason string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.reason = ready, reason
}

// Get returns whether the service is ready, and if not, why; if it is, what there is to know.
func (s *Status) Get() (ready bool, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.holds) > 0:
		return false, join(s.holds)
	case !s.ready && s.reason == "":
		return false, "starting"
	case s.ready:
		return true, join(s.notes)
	}
	return false, s.reason
}

func join(texts map[string]string) string {
	all := make([]string, 0, len(texts))
	for _, cause := range slices.Sorted(maps.Keys(texts)) {
		all = append(all, texts[cause])
	}
	return strings.Join(all, "; ")
}

// Server answers for a process. Pages and services may be added while it runs.
type Server struct {
	Registry *prometheus.Registry

	mux    *http.ServeMux
	ln     net.Listener
	host   string // that it was told to listen on
	gate   *gate  // who may ask; nil is everybody
	mu     sync.Mutex
	names  []string
	states []*Status
}

// Listen binds the address, so that a port that is taken is an error at once. "127.0.0.1:0" takes a free port.
func Listen(addr string) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("http: another program is using %s; stop it, or choose another address with --http (SPATE_HTTP)", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("http: listen for /metrics and /healthz (SPATE_HTTP, --http): %w", err)
	}
	s := &Server{Registry: prometheus.NewRegistry(), mux: http.NewServeMux(), ln: ln}
	s.host, _, _ = net.SplitHostPort(addr) // it was listened on
	s.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{Registry: s.Registry}))
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.mux.HandleFunc("GET /readyz", s.readyz)
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Handle adds a page.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Profile adds the profiles of the runtime at /debug/pprof/, without the command line, which may hold secrets.
func (s *Server) Profile() {
	s.Handle("GET /debug/pprof/profile", http.HandlerFunc(pprof.Profile))
	s.Handle("GET /debug/pprof/trace", http.HandlerFunc(pprof.Trace))
	for _, p := range []string{"allocs", "block", "goroutine", "heap", "mutex"} {
		s.Handle("GET /debug/pprof/"+p, pprof.Handler(p))
	}
}

// Service adds a service to what /readyz asks.
func (s *Server) Service(name string) *Status {
	st := &Status{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names, s.states = append(s.names, name), append(s.states, st)
	s.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "spate_ready", Help: "1 if the service is ready, as reported by /readyz.", ConstLabels: prometheus.Labels{"service": name},
	}, func() float64 {
		if ready, _ := st.Get(); ready {
			return 1
		}
		return 0
	}))
	return st
}

// Ready reports whether every service is ready, and what the others wait for.
func (s *Server) Ready() (bool, map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, why := true, make(map[string]string, len(s.names))
	for i, n := range s.names {
		ready, reason := s.states[i].Get()
		if ready && reason == "" {
			reason = "ready"
		} else if ready {
			reason = "ready; " + reason
		}
		why[n] = reason
		all = all && ready
	}
	return all, why
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	all, why := s.Ready()
	w.Header().Set("Content-Type", "application/json")
	if !all {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// The status line is out: an error here is the client's going away.
	_ = json.NewEncoder(w).Encode(why)
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	srv := HTTPServer(s.mux)
	serve := func() error { return srv.Serve(s.ln) }
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // whoever reaches the port could fill it
	if s.gate != nil {
		srv.Handler = s.gate.guard(s.mux)
		srv.ErrorLog = slog.NewLogLogger(s.gate.log.Handler(), slog.LevelDebug)
	}
	if s.TLS() {
		srv.TLSConfig = s.gate.config()
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // HTTP/1.1: what bounds connections knows it
		serve = func() error { return srv.ServeTLS(s.ln, "", "") }
	}
	done := make(chan error, 1)
	go func() { done <- serve() }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close() // a client that holds on to its connection does not hold the process
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	}
	return nil
}

// Logger writes text for a terminal and JSON for everything else, in which nothing steers the terminal that shows it. What
// repeats itself it writes once a second ([Calm]).
func Logger(w io.Writer, level slog.Leveler) *slog.Logger {
	if terminal.Is(w) {
		return slog.New(Calm(slog.NewTextHandler(terminal.Writer(w), &slog.HandlerOptions{Level: level}), time.Now))
	}
	return slog.New(Calm(slog.NewJSONHandler(terminal.JSONWriter(w), &slog.HandlerOptions{Level: level}), time.Now))
}
