package ops

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A name that a stranger made point here does not show data about users.
func TestHandleHere(t *testing.T) {
	s, err := Listen("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	s.HandleHere("GET /users/{token}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "user") }), "detector-0.example:8080")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for host, want := range map[string]int{
		"": 200, "127.0.0.1": 200, "10.1.2.3:8080": 200, "[::1]:8080": 200, "[::1]": 200, "localhost:1": 200, "LOCALHOST": 200, "detector-0.example:8080": 200,
		"detector-0.example": 200, "evil.example": 403, "evil.example:8080": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "x": 403,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+"/users/7", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %q: status %d, want %d", host, resp.StatusCode, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Idle connections are closed: when there are too many, and after a while; one that asks is served.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	const more = 20
	ask := func() net.Conn {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1024)
		if n, err := conn.Read(b); err != nil || string(b[:15]) != "HTTP/1.1 200 OK" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		return conn
	}
	var open []net.Conn
	for range maxConns + more {
		open = append(open, ask())
	}
	closed := make(chan bool)
	for _, conn := range open {
		go func() {
			b := make([]byte, 1)
			_, err := conn.Read(b)
			if errors.Is(err, io.EOF) {
				closed <- true
			}
			conn.Close()
		}()
	}
	for range more { // or the test's time is up
		<-closed
	}
	go func() {
		for range closed {
		}
	}()
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestHTTPServerHasTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
		client, server := net.Pipe()
		ln := &oneConn{conns: make(chan net.Conn, 1), over: make(chan struct{})}
		ln.conns <- server
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := io.Copy(io.Discard, client); err != nil { // ends when the server closes
			t.Error(err)
		}
		if idle := time.Since(began); idle != idleTimeout {
			t.Errorf("an idle connection is closed after %v", idle)
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conns chan net.Conn
	over  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { close(l.over); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
