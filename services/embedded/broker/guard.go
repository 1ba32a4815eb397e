package broker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The guard stands between the port and kfake, as the listener that kfake accepts from. kfake is made for tests, whose clients are honest:
//
//   - It looks a request up by the key of its frame, kmsg.RequestForKey, and calls a method of what it got. For a key that it does not
//     know, that is nil: seven bytes, 00 00 00 03 'a' 'b' 'c', ended the whole process, for a panic of a goroutine cannot be caught by
//     another, and those of kfake are its own. So nothing may reach kfake that makes it panic.
//   - It makes room for as many bytes as the first four claim, up to 4 GiB: `GET ` is 1.2 GB.
//   - It waits for the rest of a frame, and for a client to read an answer, for ever.
//   - When Accept fails, as it does while the process has no file descriptor left, it never accepts again.
//
// The guard reads a frame itself, passes it on when it has judged it (frame.go), and reads the next when the answer is written, so a
// connection has one request under way. A panic inside of kfake on a request of the right layout is kept out by rule only: those known are
// in frame.go, found by sending every request with every field at random (TestGuardTakesAnything).

const (
	// maxConns bounds the connections. A client has three to five to a broker; the services in this process have some twenty.
	maxConns = 512
	// maxMemory bounds the frames and answers under way, all together. The largest frame takes half of it, once here and once in kfake.
	maxMemory = 512 << 20
	// frameTime is how long the rest of a frame, or the reading of an answer, may take. Over loopback, 128 MiB take a second.
	frameTime = 30 * time.Second
	// idleTime ends a connection that says nothing, as Kafka's connections.max.idle.ms does: clients know that.
	idleTime = 10 * time.Minute
	// firstRoom is made for a frame before its bytes are there.
	firstRoom = 64 << 10
	// keptRoom is what a connection keeps of it for the next frame.
	keptRoom = 4 * firstRoom
)

type guard struct {
	net.Listener
	log     *slog.Logger
	refused *prometheus.CounterVec

	mu    sync.Mutex
	conns map[*guardedConn]struct{}
	used  int64 // bytes under way
}

func newGuard(l net.Listener, log *slog.Logger) *guard {
	return &guard{Listener: l, log: log, conns: make(map[*guardedConn]struct{}), refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "spate_broker_connections_ended_total",
		Help: "Connections closed by the embedded broker, by reason: length, key, version, body (these four: unsupported request), slow, memory, connections (too many).",
	}, []string{"reason"})}
}

// Accept ends with the listener only.
func (g *guard) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			g.log.Error("the embedded broker cannot accept a connection", "error", err)
			time.Sleep(100 * time.Millisecond) // until a file descriptor is free, most likely; nothing tells
			continue
		}
		c := &guardedConn{Conn: conn, g: g, in: bufio.NewReader(conn), since: time.Now(), answered: make(chan struct{}, 1), closed: make(chan struct{})}
		c.answered <- struct{}{}
		g.mu.Lock()
		var old *guardedConn
		if len(g.conns) >= maxConns {
			old = g.dispensable()
			g.drop(old)
		}
		g.conns[c] = struct{}{}
		g.mu.Unlock()
		if old != nil {
			g.tell("connections", old, errors.New("too many connections; this one was idle the longest"))
		}
		return c, nil
	}
}

// dispensable is the connection to end for a new one: one that has not sent a request yet before one that has, and of these the one whose
// last request is the longest ago. g.mu is held.
func (g *guard) dispensable() *guardedConn {
	var old *guardedConn
	for c := range g.conns {
		if old == nil || c.proven != old.proven && !c.proven || c.proven == old.proven && c.since.Before(old.since) {
			old = c
		}
	}
	return old
}

// drop takes a connection off the books and ends it. g.mu is held.
func (g *guard) drop(c *guardedConn) {
	if _, ok := g.conns[c]; ok {
		delete(g.conns, c)
		g.used -= c.held
		c.held = 0
		close(c.closed)
		_ = c.Conn.Close() // what it had to say was not to be heard
	}
}

// tell counts and logs a connection that the guard ended.
func (g *guard) tell(reason string, c *guardedConn, err error) {
	g.refused.WithLabelValues(reason).Inc()
	g.log.Warn("the embedded broker closed a connection", "client", c.RemoteAddr().String(), "reason", reason, "error", err)
}

// reserve takes n bytes for c. If that exceeds the limit, it closes the connection that has reserved the most, which may be c itself. The few
// connections that fill the memory are closed, and the many that send little are served.
func (g *guard) reserve(c *guardedConn, n int64) error {
	var ended []*guardedConn
	defer func() {
		for _, e := range ended {
			g.tell("memory", e, errMemory)
		}
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.conns[c]; !ok {
		return net.ErrClosed
	}
	g.used, c.held = g.used+n, c.held+n
	for g.used > maxMemory {
		most := c
		for o := range g.conns {
			if o.held > most.held {
				most = o
			}
		}
		g.drop(most)
		ended = append(ended, most)
		if most == c {
			return errMemory
		}
	}
	return nil
}

func (g *guard) release(c *guardedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= c.held
	c.held = 0
}

var errMemory = errors.New("no memory left for its pending requests")

// guardedConn is a connection whose Read yields only what may reach kfake.
type guardedConn struct {
	net.Conn
	g  *guard
	in *bufio.Reader

	room     []byte        // of the last frame, to be used again
	frame    []byte        // the rest of the frame that is being passed on
	key      int16         // of the request under way
	version  int16         // of the request under way
	answered chan struct{} // has one element if no request is under way
	closed   chan struct{}

	// of the guard's, under its mu
	held   int64
	since  time.Time // the last request was begun
	proven bool      // has sent a request
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if len(c.frame) == 0 {
		if err := c.next(); err != nil {
			var r *refusal
			switch {
			case errors.As(err, &r):
				c.g.tell(r.reason, c, r.err)
			case errors.Is(err, errStalled):
				c.g.tell("slow", c, err)
			}
			return 0, err
		}
	}
	n := copy(p, c.frame)
	c.frame = c.frame[n:]
	return n, nil
}

var errStalled = errors.New("the rest of a request was not sent, or a response was not read, in time")

// next waits until the request before is answered, then reads and judges a frame.
func (c *guardedConn) next() error {
	select {
	case <-c.answered:
	case <-c.closed:
		return net.ErrClosed
	}
	if err := c.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
		return err
	}
	if _, err := c.in.Peek(1); err != nil {
		return err
	}
	now := time.Now()
	if err := c.SetReadDeadline(now.Add(frameTime)); err != nil {
		return err
	}
	c.g.mu.Lock()
	c.since = now
	c.g.mu.Unlock()
	header, err := c.in.Peek(4)
	if err != nil {
		return stalled(err)
	}
	if err := checkLength(header); err != nil {
		return err
	}
	if header, err = c.in.Peek(4 + headerBytes); err != nil {
		return stalled(err)
	}
	size, key, version, err := checkHeader(header)
	if err != nil {
		return err
	}
	frame := c.room[:0] // kfake has copied what was there
	for total := 4 + size; len(frame) < total; {
		n := min(total-len(frame), max(len(frame), firstRoom))
		if err := c.g.reserve(c, 2*int64(n)); err != nil { // once here, once in kfake
			return err
		}
		frame = slices.Grow(frame, n)[:len(frame)+n]
		if _, err := io.ReadFull(c.in, frame[len(frame)-n:]); err != nil {
			return stalled(err)
		}
	}
	frame, structs, answered, err := admit(frame)
	if err != nil {
		return err
	}
	if err := c.g.reserve(c, structs); err != nil {
		return err
	}
	c.g.mu.Lock()
	c.proven = true
	c.g.mu.Unlock()
	c.frame, c.key, c.version = frame, key, version
	if c.room = frame; cap(frame) > keptRoom {
		c.room = nil
	}
	if !answered {
		c.done()
	}
	return nil
}

func stalled(err error) error {
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return errStalled
	}
	return err
}

// Write writes an answer; kfake writes each with one call.
func (c *guardedConn) Write(p []byte) (int, error) {
	out := p
	if c.key == keyAPIVersions {
		out = offer(p, c.version)
	}
	if err := c.g.reserve(c, int64(len(p))); err != nil {
		return 0, err
	}
	err := c.SetWriteDeadline(time.Now().Add(frameTime))
	if err == nil {
		_, err = c.Conn.Write(out)
	}
	if err != nil {
		if err = stalled(err); errors.Is(err, errStalled) {
			c.g.tell("slow", c, err)
		}
		return 0, err
	}
	c.done()
	return len(p), nil
}

// done is the end of a request.
func (c *guardedConn) done() {
	c.g.release(c)
	select {
	case c.answered <- struct{}{}:
	default:
	}
}

func (c *guardedConn) Close() error {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	c.g.drop(c)
	return nil
}

// offer changes kfake's answer to the question for its versions into what the guard lets through.
func offer(answer []byte, version int16) []byte {
	const prefix = 8 // length and correlation id; this answer's header has no tagged fields
	if version > apis[keyAPIVersions].max {
		version = 0 // of a newer client
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = version
	if err := resp.ReadFrom(answer[prefix:]); err != nil {
		return answer
	}
	resp.ApiKeys = slices.DeleteFunc(resp.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { _, ok := apis[k.ApiKey]; return !ok })
	for i := range resp.ApiKeys {
		k := &resp.ApiKeys[i]
		k.MaxVersion = min(k.MaxVersion, apis[k.ApiKey].max)
	}
	out := resp.AppendTo(slices.Clone(answer[:prefix]))
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}
