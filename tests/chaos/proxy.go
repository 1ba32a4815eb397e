package chaos

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// proxy is the only way to the broker: the broker advertises its address. It knows which process a connection is of, and can cut it or
// hold it up.
type proxy struct {
	Addr string

	ln     net.Listener
	target string

	mu    sync.Mutex
	links map[*link]bool
	done  sync.WaitGroup
}

// link is one connection through the proxy.
type link struct {
	client, broker net.Conn

	mu     sync.Mutex
	open   *sync.Cond
	held   bool
	closed bool
	writes bool // it has carried records to the broker
}

// newProxy listens at an address of its own. Close ends it.
func newProxy() (*proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the proxy: %w", err)
	}
	return &proxy{Addr: ln.Addr().String(), ln: ln, links: map[*link]bool{}}, nil
}

// Forward begins to forward to the target, which may come and go.
func (p *proxy) Forward(target string) {
	p.target = target
	p.done.Go(func() {
		for {
			conn, err := p.ln.Accept()
			if err != nil {
				return // closed
			}
			p.done.Go(func() { p.serve(conn) })
		}
	})
}

func (p *proxy) serve(client net.Conn) {
	broker, err := net.Dial("tcp", p.target)
	if err != nil { // it is down, which the client is to see
		client.Close()
		return
	}
	l := &link{client: client, broker: broker}
	l.open = sync.NewCond(&l.mu)
	p.mu.Lock()
	p.links[l] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		defer l.close()
		l.requests()
	})
	both.Go(func() {
		defer l.close()
		l.answers()
	})
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// Close cuts everything.
func (p *proxy) Close() {
	p.ln.Close()
	p.mu.Lock()
	for l := range p.links {
		l.close()
	}
	p.mu.Unlock()
	p.done.Wait()
}

// of returns the connections of a process.
func (p *proxy) of(pid int) ([]*link, error) {
	ports, err := portsOf(pid)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*link
	for l := range p.links {
		if ports[l.client.RemoteAddr().(*net.TCPAddr).Port] {
			out = append(out, l)
		}
	}
	return out, nil
}

// Cut cuts the connections of a process and tells how many they were.
func (p *proxy) Cut(pid int) (int, error) {
	links, err := p.of(pid)
	for _, l := range links {
		l.close()
	}
	return len(links), err
}

// Hold holds the connections of a process up, or only those that it writes records with, until release is called.
func (p *proxy) Hold(pid int, writes bool) (held int, release func(), err error) {
	links, err := p.of(pid)
	for _, l := range links {
		if l.hold(writes) {
			held++
		}
	}
	return held, func() {
		for _, l := range links {
			l.release()
		}
	}, err
}

func (l *link) hold(writes bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if writes && !l.writes {
		return false
	}
	l.held = true
	return true
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.open.Broadcast()
}

func (l *link) close() {
	l.client.Close()
	l.broker.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.open.Broadcast()
}

// pass waits until the link is not held up, and reports whether it is still there.
func (l *link) pass() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.held && !l.closed {
		l.open.Wait()
	}
	return !l.closed
}

// requests forwards what the client sends, one request after another: each has its length before it and begins with its kind.
func (l *link) requests() {
	const produce = 0
	head := make([]byte, 6)
	for {
		if _, err := io.ReadFull(l.client, head); err != nil {
			return
		}
		if binary.BigEndian.Uint16(head[4:]) == produce {
			l.mu.Lock()
			l.writes = true
			l.mu.Unlock()
		}
		if !l.pass() {
			return
		}
		if _, err := l.broker.Write(head); err != nil {
			return
		}
		if _, err := io.CopyN(l.broker, l.client, int64(binary.BigEndian.Uint32(head))-2); err != nil {
			return
		}
	}
}

func (l *link) answers() {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.broker.Read(buf)
		if n > 0 {
			if !l.pass() {
				return
			}
			if _, err := l.client.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// portsOf returns the local ports of a process's TCP connections over IPv4.
func portsOf(pid int) (map[int]bool, error) {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		return nil, fmt.Errorf("find the connections of process %d: nothing in /proc: %w", pid, os.ErrNotExist)
	}
	sockets := map[string]bool{} // by inode
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil { // it may be closed already
			if inode, ok := strings.CutPrefix(to, "socket:["); ok {
				sockets[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, fmt.Errorf("find the connections of process %d: %w", pid, err)
	}
	ports := map[int]bool{}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 10 || !sockets[f[9]] {
			continue
		}
		if _, hex, ok := strings.Cut(f[1], ":"); ok {
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
				ports[int(port)] = true
			}
		}
	}
	return ports, nil
}
