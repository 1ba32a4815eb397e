package broker

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/ops"
)

// pipes is a listener whose connections are in memory, so that their deadlines are those of a synctest bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// connect returns the two ends of a connection: the client's, and the guard's.
func connect(t *testing.T, g *guard) (client net.Conn, server *guardedConn) {
	t.Helper()
	client, inner := net.Pipe()
	accepted := make(chan net.Conn)
	go func() {
		c, err := g.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	g.Listener.(pipes) <- inner
	return client, (<-accepted).(*guardedConn)
}

func testGuard() *guard {
	return newGuard(make(pipes), slog.New(slog.DiscardHandler))
}

// TestStalledFrame: the rest of a frame has to come; a connection that says nothing has longer.
func TestStalledFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGuard()
		client, server := connect(t, g)
		begun := time.Now()
		go func() { _, _ = client.Write([]byte("\x00\x00\x00\x40\x00\x03\x00\x09\x00")) }()
		if _, err := server.Read(make([]byte, 4)); !errors.Is(err, errStalled) {
			t.Errorf("half a frame: %v", err)
		}
		if took := time.Since(begun); took != frameTime {
			t.Errorf("ended after %v", took)
		}
		_, idle := connect(t, g)
		begun = time.Now()
		if _, err := idle.Read(make([]byte, 4)); err == nil {
			t.Error("a connection that says nothing is read from")
		}
		if took := time.Since(begun); took != idleTime {
			t.Errorf("idle: ended after %v", took)
		}
		if n := testutil.ToFloat64(g.refused.WithLabelValues("slow")); n != 1 {
			t.Errorf("%v ended as slow", n)
		}
	})
}

// TestUnreadAnswer: an answer has to be read.
func TestUnreadAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGuard()
		_, server := connect(t, g)
		begun := time.Now()
		if _, err := server.Write(make([]byte, 100)); !errors.Is(err, errStalled) {
			t.Errorf("%v", err)
		}
		if took := time.Since(begun); took != frameTime {
			t.Errorf("ended after %v", took)
		}
	})
}

// TestMemory: the connection that holds the most ends when there is no room; others are served.
func TestMemory(t *testing.T) {
	g := testGuard()
	_, greedy := connect(t, g)
	_, small := connect(t, g)
	if err := g.reserve(greedy, maxMemory); err != nil {
		t.Fatal(err)
	}
	if err := g.reserve(small, 1000); err != nil {
		t.Errorf("the small one is not served: %v", err)
	}
	if err := g.reserve(greedy, 1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the greedy one: %v", err)
	}
	if g.used != 1000 {
		t.Errorf("%d bytes are in use", g.used)
	}
	if err := g.reserve(small, maxMemory); !errors.Is(err, errMemory) {
		t.Errorf("more than there is: %v", err)
	}
	if g.used != 0 || len(g.conns) != 0 {
		t.Errorf("%d bytes of %d connections are in use", g.used, len(g.conns))
	}
	// The largest frame that there may be has room.
	_, large := connect(t, g)
	if err := g.reserve(large, 2*(maxProduceBytes+4)); err != nil {
		t.Error(err)
	}
}

// TestConnections: those that are idle make room for new ones, first those that never sent a request.
func TestConnections(t *testing.T) {
	b := startTestBroker(t, "", nil)
	createTopic(t, b, "t", 1)
	honest := client(t, b)
	if err := honest.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.guard.mu.Lock()
	proven := make(map[*guardedConn]bool)
	for c := range b.guard.conns {
		proven[c] = c.proven
	}
	b.guard.mu.Unlock()
	for range maxConns + 50 {
		dial(t, b)
	}
	serves(t, b, "t")
	b.guard.mu.Lock()
	defer b.guard.mu.Unlock()
	if n := len(b.guard.conns); n > maxConns {
		t.Errorf("%d connections", n)
	}
	for c, proven := range proven {
		if _, ok := b.guard.conns[c]; proven && !ok {
			t.Error("one that has sent a request is ended before those that have not")
		}
	}
}

// TestOffer: clients are offered what is let through.
func TestOffer(t *testing.T) {
	b := startTestBroker(t, "", nil)
	s := stranger{addr: b.Addr, conn: dial(t, b), patience: 20 * time.Second}
	for _, version := range []int16{0, 3, 5, 9} {
		keys := s.versions(t, version)
		if version > 5 {
			if len(keys) != 1 {
				t.Errorf("a newer client is told of %d keys", len(keys))
			}
			continue
		}
		for key, highest := range keys {
			if a, ok := apis[key]; !ok || highest > a.max {
				t.Errorf("version %d: key %d up to %d is offered", version, key, highest)
			}
		}
		for key := range apis {
			if _, ok := keys[key]; !ok {
				t.Errorf("version %d: key %d is not offered", version, key)
			}
		}
	}
}

// versions asks for what is offered.
func (s *stranger) versions(t *testing.T, version int16) map[int16]int16 {
	t.Helper()
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = version, "test", "1"
	answer, err := s.ask(frameOf(req))
	if err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = version
	if version > apis[keyAPIVersions].max {
		resp.Version = 0
	}
	if err := resp.ReadFrom(answer[4:]); err != nil {
		t.Fatal(err)
	}
	keys := make(map[int16]int16)
	for _, k := range resp.ApiKeys {
		keys[k.ApiKey] = k.MaxVersion
	}
	return keys
}

// TestBrokerLogger: what kfake says over and over is one cause for the log, whatever it is about.
func TestBrokerLogger(t *testing.T) {
	var out bytes.Buffer
	l := brokerLogger{slog.New(ops.Calm(slog.NewTextHandler(&out, nil), func() time.Time { return time.Time{} }))}
	for i := range 1000 {
		l.Logf(kfake.LogLevelWarn, "persist batch %s-%d: no space", "t", i)
		l.Logf(kfake.LogLevelError, "endTx %d", i)
		l.Logf(kfake.LogLevelInfo, "chatter")
	}
	said := out.String()
	if strings.Count(said, "\n") != 2 || !strings.Contains(said, `level=WARN msg="message from the embedded broker" reason="persist batch" text="persist batch t-0: no space"`) || !strings.Contains(said, "level=ERROR") {
		t.Error(said)
	}
}

// TestLock: the lock is a file of ours, and nothing else is written over.
func TestLock(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(t *testing.T, dir, lock string)
		says string
	}{
		"none":      {func(*testing.T, string, string) {}, ""},
		"our own":   {func(t *testing.T, _, lock string) { write(t, lock, "1234\n") }, ""},
		"a link":    {func(t *testing.T, dir, lock string) { write(t, dir+"/precious", "1"); link(t, dir+"/precious", lock) }, "symbolic link"},
		"dangling":  {func(t *testing.T, dir, lock string) { link(t, dir+"/precious", lock) }, "symbolic link"},
		"precious":  {func(t *testing.T, _, lock string) { write(t, lock, "the only copy") }, "belongs to another program"},
		"directory": {func(t *testing.T, _, lock string) { mkdir(t, lock) }, "is a directory"},
		"broker is a link": {func(t *testing.T, dir, _ string) {
			mkdir(t, dir+"/elsewhere")
			link(t, dir+"/elsewhere", dir+"/broker")
		}, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lock := filepath.Join(dir, "lock")
			c.put(t, dir, lock)
			before, _ := os.ReadFile(lock)
			f, err := lockDir(dir)
			if err == nil {
				defer f.Close()
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v does not say %q", err, c.says)
			}
			if after, _ := os.ReadFile(lock); len(before) > 0 && c.says != "" && string(after) != string(before) {
				t.Errorf("%q became %q", before, after)
			}
		})
	}
}

// TestModes: what is ours is for us alone, whether it was there before or is made later; what else is in the directory stays as it is.
func TestModes(t *testing.T) {
	dir := t.TempDir()
	before, err := Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	createTopic(t, before, "t", 1)
	serves(t, before, "t")
	before.Close()
	mkdir(t, filepath.Join(dir, "mine"))
	write(t, filepath.Join(dir, "mine/file"), "")
	write(t, filepath.Join(dir, "spate.db"), "")
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	link(t, filepath.Join(dir, "mine/file"), filepath.Join(dir, "spate.db-wal"))
	b := startTestBroker(t, dir, nil)
	createTopic(t, b, "t2", 1)
	serves(t, b, "t2")
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if theirs := rel == "." || strings.HasPrefix(rel, "mine"); theirs != (info.Mode().Perm()&0o077 != 0) {
			t.Errorf("%s is %v", rel, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}
