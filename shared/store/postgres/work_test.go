package postgres

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/postgres/postgrestest"
	"spate/shared/store/storetest"
)

var ops = []store.Queue{{Endpoint: "ops", Workers: 4}}

// tell adds n deliveries to the endpoint ops that are due.
func tell(t *testing.T, s *Store, n int) {
	t.Helper()
	var records []alert.Record
	for i := range n {
		records = append(records, storetest.Record("5", i, alert.Opened))
	}
	if _, err := s.Apply(t.Context(), time.Now(), records, notify.Endpoint{Name: "ops", Filter: notify.Alerts()}); err != nil {
		t.Fatal(err)
	}
}

// work works off ops until stop, which returns how long it took to end. As the alerter does, it begins anew when the server ends the connection that
// it begins with.
func work(t *testing.T, s *Store, log io.Writer, do store.Do) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		for {
			err := s.Work(ctx, ops, slog.New(slog.NewTextHandler(log, nil)), do)
			if ctx.Err() != nil || !Temporary(err) {
				done <- err
				return
			}
		}
	}()
	var took time.Duration
	var once sync.Once
	stop = func() time.Duration {
		once.Do(func() {
			at := time.Now()
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Work: %v", err)
			}
			if took = time.Since(at); took > 6*time.Second {
				t.Errorf("Work took %v to end", took)
			}
		})
		return took
	}
	t.Cleanup(func() { stop() })
	return stop
}

// Connections that are cut at any time lose no delivery, though what was taken just then waits to be rescued.
func TestConnectionsCutWhileWorking(t *testing.T) {
	if testing.Short() {
		t.Skip("takes up to 2 minutes; -short is set")
	}
	t.Parallel()
	const n = 400
	database := postgrestest.URL(t)
	s := open(t, database)
	defer s.Close()
	tell(t, s, n)
	calls := make(chan string, 100*n)
	var log bytes.Buffer
	stop := work(t, s, &log, func(_ context.Context, id, _ string) (time.Time, error) {
		calls <- id
		return time.Time{}, nil
	})
	done := map[string]int{}
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	cut := time.NewTicker(100 * time.Millisecond)
	defer cut.Stop()
	cuts := 0
	for len(done) < n {
		select {
		case id := <-calls:
			done[id]++
		case <-cut.C:
			if cuts++; cuts > 20 {
				cut.Stop()
				continue
			}
			postgrestest.Exec(t, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		case <-deadline.C:
			stop()
			t.Fatalf("%d of %d were done, after %d cuts; the log:\n%.10000s", len(done), n, min(cuts, 20), log.String())
		}
	}
	stop()
	more := 0
	for _, calls := range done {
		more += calls - 1
	}
	t.Logf("%d done twice, %d lines of log", more, strings.Count(log.String(), "\n"))
	if strings.Contains(log.String(), postgrestest.Password) {
		t.Error("the password is in the log")
	}
}

// As after kill -9: whoever had it does not end it, and another gets it after a while.
func TestAbandonedDeliveryIsRescued(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute; -short is set")
	}
	t.Parallel()
	database := postgrestest.URL(t)
	one, two := open(t, database), open(t, database)
	defer one.Close()
	defer two.Close()
	tell(t, one, 1)
	began, release, released := make(chan string, 1), make(chan struct{}), make(chan struct{})
	stop := work(t, one, io.Discard, func(_ context.Context, id, _ string) (time.Time, error) {
		defer close(released)
		began <- id
		<-release // whatever ctx says
		return time.Time{}, nil
	})
	id := <-began
	stop()
	rescued := make(chan string, 1)
	at := time.Now()
	work(t, two, io.Discard, func(_ context.Context, id, _ string) (time.Time, error) {
		rescued <- id
		return time.Time{}, nil
	})
	select {
	case again := <-rescued:
		if t.Logf("after %v", time.Since(at)); again != id {
			t.Errorf("%s instead of %s", again, id)
		}
	case <-time.After(100 * time.Second):
		t.Error("nobody took it over")
	}
	close(release)
	<-released
}

// Work ends in time although the server is gone, or takes what it is sent and says nothing.
func TestWorkEndsWithoutServer(t *testing.T) {
	server := postgrestest.Start(t)
	for name, interrupt := range map[string]func(*proxy){
		"gone":   func(*proxy) { server.Stop(t, true) },
		"silent": func(p *proxy) { p.stall() },
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(server.Database(t))
			if err != nil {
				t.Fatal(err)
			}
			p := forward(t, u.Host)
			u.Host = p.Addr().String()
			s := open(t, u.String())
			tell(t, s, 1)
			began := make(chan struct{}, 10)
			var log bytes.Buffer
			stop := work(t, s, &log, func(ctx context.Context, _, _ string) (time.Time, error) {
				began <- struct{}{}
				<-ctx.Done()
				return time.Time{}, ctx.Err()
			})
			<-began
			interrupt(p)
			t.Logf("ended after %v", stop())
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := s.Work(ctx, ops, slog.New(slog.DiscardHandler), nil); name == "gone" && (err == nil || !strings.Contains(err.Error(), "connection")) {
				t.Errorf("Work without a server: %v", err)
			}
			p.close()
			s.Close()
			if name == "gone" {
				server.Start(t)
			}
			if strings.Contains(log.String(), postgrestest.Password) {
				t.Error("the password is in the log")
			}
		})
	}
}

// proxy stands between a store and its server.
type proxy struct {
	net.Listener
	to   string
	wg   sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn
	over bool
	mute chan struct{} // closed: nothing gets through any more
}

func forward(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: to, mute: make(chan struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.open = append(p.open, client, server)
		if p.over {
			client.Close()
			server.Close()
		}
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(client, server) })
		p.wg.Go(func() { p.copy(server, client) })
	}
}

func (p *proxy) copy(from, to net.Conn) {
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		select {
		case <-p.mute:
			if err == nil {
				continue
			}
		default:
		}
		if n > 0 {
			if _, werr := to.Write(b[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) stall() { close(p.mute) }

func (p *proxy) close() {
	p.Listener.Close()
	p.mu.Lock()
	p.over = true
	for _, c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// Without a URL that says otherwise a process has few connections, however many queues there are.
func TestConnectionsAreFew(t *testing.T) {
	database := postgrestest.URL(t)
	s := open(t, database)
	defer s.Close()
	var queues []store.Queue
	for i := range 20 {
		queues = append(queues, store.Queue{Endpoint: fmt.Sprint("e", i), Workers: 4})
	}
	calls := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Work(ctx, queues, slog.New(slog.DiscardHandler), func(_ context.Context, id, _ string) (time.Time, error) {
			calls <- id
			return time.Time{}, nil
		})
	}()
	for i := range queues {
		if _, err := s.Apply(t.Context(), time.Now(), []alert.Record{storetest.Record("5", i, alert.Opened)}, notify.Endpoint{Name: queues[i].Endpoint, Filter: notify.Alerts()}); err != nil {
			t.Fatal(err)
		}
	}
	for range queues {
		<-calls
	}
	var n int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").Scan(&n); err != nil || n > connections+queueConnections+1 {
		t.Errorf("%d connections, %v", n, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
