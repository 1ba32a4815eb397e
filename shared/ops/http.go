package ops

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second // of a request with its body
	writeTimeout  = 30 * time.Second // of an answer; the runtime's profiles add their duration
	idleTimeout   = 2 * time.Minute  // longer than those who ask regularly keep connections
	maxHeader     = 64 << 10         // bytes
	maxConns      = 256
)

// HTTPServer returns a server that no client can hold for long: every phase of a request has a timeout, headers are bounded, and so are
// connections. Of too many, one that is idle is closed, or else the newest, so that idle ones keep nobody out.
func HTTPServer(h http.Handler) *http.Server {
	c := &conns{busy: make(map[net.Conn]bool)}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ConnState: c.changed,
	}
}

// conns are the connections of a server.
type conns struct {
	mu   sync.Mutex
	busy map[net.Conn]bool // those that are open; false is idle
}

// changed is a callback for http.Server.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.busy, conn)
		return
	case http.StateNew:
		if len(c.busy) >= maxConns {
			c.closeOne(conn)
		}
	}
	if _, known := c.busy[conn]; known || state == http.StateNew {
		c.busy[conn] = state != http.StateIdle
	}
}

// closeOne makes room for a new connection, or closes it.
func (c *conns) closeOne(fresh net.Conn) {
	victim := fresh
	for conn, busy := range c.busy {
		if !busy {
			victim = conn
			break
		}
	}
	delete(c.busy, victim)
	_ = victim.Close() // the server finds out
}

// HandleHere adds a page with data about users. It is there for those only who ask for this server by an address, as localhost, by the name
// that it listens on or is advertised under: a page of a stranger's that a browser shows can make its own name point here, and then read
// what the browser gets.
func (s *Server) HandleHere(pattern string, h http.Handler, advertised string) {
	names := []string{"localhost", s.host}
	if host, _, err := net.SplitHostPort(advertised); err == nil {
		names = append(names, host)
	}
	s.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if net.ParseIP(host) == nil && (host == "" || !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) })) {
			http.Error(w, fmt.Sprintf("this page is not served under the host name %.100q; use the IP address, or set SPATE_ADVERTISE to the name and port", host), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	}))
}
