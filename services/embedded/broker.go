package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// broker is a Kafka broker inside the process.
type broker struct {
	cluster *kfake.Cluster
	guard   *guard
	lock    *os.File
	addr    string
}

// ErrInUse means that another process has the state directory or the port.
var ErrInUse = errors.New("in use")

// startBroker listens on addr, a loopback address; port 0 takes a free one. dir is where it keeps its state; empty is in memory.
func startBroker(addr, dir string, log *slog.Logger) (*broker, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %q is not host:port", addr)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 {
		return nil, fmt.Errorf("listen: %q is no port", port)
	}
	if host != "127.0.0.1" && host != "localhost" {
		return nil, fmt.Errorf("listen: the embedded broker has neither authentication nor encryption and listens on 127.0.0.1 only, not on %q; run a Kafka broker and set SPATE_BROKERS for more", host)
	}
	b := &broker{}
	sparing := newSparingLog(log)
	listen := func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		b.guard = newGuard(l, sparing)
		return b.guard, nil
	}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(n), kfake.ListenFn(listen), kfake.WithLogger(brokerLogger{sparing}), kfake.ClusterID("spate")}
	if dir != "" {
		if b.lock, err = lockDir(dir); err != nil {
			return nil, err
		}
		opts = append(opts, kfake.DataDir(filepath.Join(dir, "broker")))
	}
	b.cluster, err = kfake.NewCluster(opts...)
	if err != nil {
		b.unlock()
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s: %w: another program, perhaps another `spate up`, has the port; stop it or give another with --listen", addr, ErrInUse)
		}
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	b.addr = b.cluster.ListenAddrs()[0]
	return b, nil
}

// lockDir makes a state directory and takes it for this process. The kernel gives it back however the process ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory (SPATE_STATE, --state): %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory (SPATE_STATE, --state): %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(path) // for the message only
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %s: %w by process %s; stop it or give another with --state", dir, ErrInUse, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func (b *broker) unlock() {
	if b.lock != nil {
		b.lock.Close()
	}
}

// Close stops the broker; what it acknowledged is in its directory.
func (b *broker) Close() {
	b.cluster.Close()
	b.unlock()
}

// brokerLogger passes the broker's warnings and errors on, each kind at most once a second. Its kind is its format.
type brokerLogger struct{ log *sparingLog }

func (l brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	at := slog.LevelWarn
	switch level {
	case kfake.LogLevelError:
		at = slog.LevelError
	case kfake.LogLevelWarn:
	default:
		return
	}
	l.log.Log(time.Second, at, format, "the embedded broker says: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
}
