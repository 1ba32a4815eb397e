// Package broker runs a Kafka broker inside the process: franz-go's kfake, which is made for tests, behind a guard.
//
// With a state directory, it stores its topics and offsets there and restores them at startup. It writes without fsync: acknowledged data
// survives a crash of the process, but not a power failure.
//
//	broker.go     start, stop, and the state directory: who owns it and who may read it
//	guard.go      limits between the port and kfake: connections, memory, time
//	frame.go      which requests are let through, and in which form
//	disk.go       repair of damage on disk before kfake reads it: its state files, and the offsets of groups
//	segment.go    the same for the records of partitions
//	abort.go      the end of the transactions that a kill -9 has cut short
//	room.go       what the broker does while the disk is full
package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"

	"spate/shared/kafka/intake"
)

// Broker is a Kafka broker inside the process.
type Broker struct {
	cluster *kfake.Cluster
	guard   *guard
	room    *room // nil in memory
	lock    *os.File
	Addr    string // where it listens
	dir     string // where it keeps its state, or empty
	log     *slog.Logger
}

const clusterID = "spate"

// ErrInUse means that another process has the state directory or the port.
var ErrInUse = errors.New("in use")

// Port returns the port of an address that a broker can listen on, or what is wrong with it.
func Port(addr string) (int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, fmt.Errorf("listen: %q is not host:port", addr)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 {
		return 0, fmt.Errorf("listen: %q is not a port", port)
	}
	if host != "127.0.0.1" && host != "localhost" {
		return 0, fmt.Errorf("listen: the embedded broker has neither authentication nor encryption, so it listens on 127.0.0.1 only, not on %q; for other addresses, run a Kafka broker and set SPATE_BROKERS", host)
	}
	return n, nil
}

// Start listens on addr, a loopback address; port 0 takes a free one. dir is where it keeps its state; empty is in memory.
func Start(addr, dir string, log *slog.Logger) (*Broker, error) {
	n, err := Port(addr)
	if err != nil {
		return nil, err
	}
	b := &Broker{log: log}
	listen := func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		b.guard = newGuard(l, log)
		return b.guard, nil
	}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(n), kfake.ListenFn(listen), kfake.WithLogger(brokerLogger{log}), kfake.ClusterID(clusterID)}
	if dir != "" {
		if b.lock, err = lockDir(dir); err != nil {
			return nil, err
		}
		b.dir = filepath.Join(dir, "broker")
		if err := checkDisk(b.dir, log); err != nil {
			b.unlock()
			return nil, err
		}
		opts = append(opts, kfake.DataDir(b.dir), compactSooner())
	}
	b.cluster, err = kfake.NewCluster(opts...)
	if err != nil {
		b.unlock()
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s: %w: another program, perhaps another `spate up`, is using the port; stop it or choose another address with --listen", addr, ErrInUse)
		}
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	if b.dir != "" {
		if b.room, err = openRoom(b.dir, log); err != nil {
			b.Close()
			return nil, fmt.Errorf("state directory %s: %w", dir, err)
		}
		b.room.watch(b.cluster)
	}
	if err := intake.Check(b.cluster); err != nil {
		b.Close()
		return nil, err
	}
	intake.Mend(b.cluster)
	b.Addr = b.cluster.ListenAddrs()[0]
	return b, nil
}

// lockDir makes a state directory and takes it for this process. The kernel gives it back however the process ends.
//
// What is in it is about users, and for its owner only. kfake and SQLite make files at any time, with modes of their own, so the umask of the
// process that has a state directory is tight from here on; modes from before are mended. The directory itself may be one of the user's own,
// with other things in it, and stays as it is.
func lockDir(dir string) (*os.File, error) {
	syscall.Umask(0o077)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory (SPATE_STATE, --state): %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("state directory (SPATE_STATE, --state): %s is a symbolic link; remove it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("state directory (SPATE_STATE, --state): %w", err)
	}
	if err := takeLock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("state directory %s: %w", dir, err)
	}
	if err := tighten(dir); err != nil {
		unlockDir(f)
		return nil, fmt.Errorf("state directory %s: %w", dir, err)
	}
	return f, nil
}

// unlockDir gives a state directory back. Closing alone would not: a process that another goroutine is starting has the file too, until its exec.
func unlockDir(lock *os.File) {
	_ = syscall.Flock(int(lock.Fd()), syscall.LOCK_UN)
	lock.Close()
}

// takeLock locks the file and writes the process id into it, for a second process to name. It writes over nothing else.
func takeLock(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("lock %s: not a regular file; remove it", f.Name())
	}
	b := make([]byte, 32)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("lock: %w", err)
	}
	pid := strings.TrimSpace(string(b[:n]))
	if _, err := strconv.Atoi(pid); err != nil && pid != "" {
		return fmt.Errorf("lock %s: contains no process ID, so it belongs to another program; move it away or choose another directory with --state", f.Name())
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w by process %s; stop it or choose another directory with --state", ErrInUse, pid)
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// tighten takes the rights of others away from what is ours in a state directory. It follows no symbolic link.
func tighten(dir string) error {
	ours := []string{"lock", "broker", "spate.db", "spate.db-wal", "spate.db-shm"}
	if info, err := os.Lstat(filepath.Join(dir, "broker")); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%s is a symbolic link; give its target directory with --state", filepath.Join(dir, "broker"))
	}
	for _, name := range ours {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() && !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err != nil || info.Mode().Perm()&0o077 == 0 {
				return err
			}
			return os.Chmod(path, info.Mode().Perm()&0o700)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove permissions of other users: %w", err)
		}
	}
	return nil
}

func (b *Broker) unlock() {
	if b.lock != nil {
		unlockDir(b.lock)
	}
}

// Collectors are the broker's metrics.
func (b *Broker) Collectors() []prometheus.Collector {
	all := []prometheus.Collector{b.guard.refused}
	if b.room != nil {
		all = append(all, b.room.fullness)
	}
	return all
}

// Close stops the broker; what it acknowledged is in its directory.
func (b *Broker) Close() {
	if b.dir == "" {
		b.cluster.Close()
		return
	}
	_ = os.Remove(filepath.Join(b.dir, copyOldName)) // what follows is newer
	if b.room != nil {
		defer b.room.reserve.Close()
		b.room.leave()
	}
	b.cluster.Close()
	if err := saveCopy(b.dir); err != nil {
		b.log.Error("the embedded broker stopped without saving a copy of its state, so damage to it may go unnoticed", "error", err)
	}
	b.unlock()
}

// brokerLogger passes the broker's warnings and errors on. Their reason is the part of the format that is always the same, for the handler that
// writes one line a second for a cause. That a transaction took more than 5 ms to end is not a warning to anybody.
type brokerLogger struct{ log *slog.Logger }

func (l brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	at := slog.LevelWarn
	switch level {
	case kfake.LogLevelError:
		at = slog.LevelError
	case kfake.LogLevelWarn:
		if strings.HasPrefix(format, "txn: EndTxn slow") {
			return
		}
	default:
		return
	}
	reason, _, _ := strings.Cut(format, "%")
	l.log.Log(context.Background(), at, "message from the embedded broker", "reason", strings.TrimSpace(reason), "text", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
