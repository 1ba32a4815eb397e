package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"spate/shared/testport"
)

// Password of the private servers' superuser. It is odd enough to be found where it must not be.
const Password = "pa55-w0rd-Zq8%/x"

// Server is a private server on a port of the loopback interface.
type Server struct {
	// URL is that of its superuser's database.
	URL string

	dir, bin string
	port     int
	release  func()              // gives the port back
	owner    *syscall.Credential // nil: whoever runs the test
	done     chan struct{}       // closed when the process has ended; nil: none runs
	cmd      *exec.Cmd
	log      *bytes.Buffer // of the present process; to be read after done
}

// Start starts a server that is the test's alone, to be stopped and started at will. It is removed when the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := start()
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(s.remove)
	return s
}

// Database returns the URL of a new, empty database.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	return database(t, s.URL)
}

// Stop ends the server as pg_ctl stop -m fast does: connections are cut, what was committed is kept. With crash it is as if the
// machine's memory were lost: nothing is written any more.
func (s *Server) Stop(t testing.TB, crash bool) {
	t.Helper()
	sig := syscall.SIGINT
	if crash {
		sig = syscall.SIGQUIT
	}
	if err := s.stop(sig); err != nil {
		t.Fatal(err)
	}
}

// Start starts it again, on the same port, and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func start() (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	if s.dir, err = os.MkdirTemp("", "spate-postgres-"); err != nil {
		return nil, err
	}
	if err := s.init(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// find returns the folder of the newest installation.
func find() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("initdb is neither on PATH nor in /usr/lib/postgresql/*/bin")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 comes first
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

func (s *Server) init() error {
	if os.Geteuid() == 0 {
		if err := s.disown(); err != nil {
			return err
		}
	}
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(Password), 0o600); err != nil {
		return err
	}
	if s.owner != nil {
		if err := os.Chown(secret, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := s.command(ctx, "initdb", "--pgdata", s.data(), "--username", "spate", "--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	var err error
	if s.port, s.release, err = testport.Hold(); err != nil {
		return err
	}
	s.URL = fmt.Sprintf("postgres://spate:%s@127.0.0.1:%d/postgres?sslmode=disable", "pa55-w0rd-Zq8%25%2Fx", s.port)
	return s.start()
}

// disown gives the folder to a user who is not root, as whom Postgres does not run.
func (s *Server) disown() error {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return err
		}
		s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return os.Chown(s.dir, int(uid), int(gid))
	}
	return errors.New("initdb does not run as root, and neither the user postgres nor the user nobody exists")
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = attributes(s.owner)
	return cmd
}

func (s *Server) start() error {
	s.log = new(bytes.Buffer)
	s.cmd = s.command(context.Background(), "postgres", "-D", s.data(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "shared_buffers=64MB", "-c", "max_connections=50")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The signal at our death is one at the death of the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // how it ended is in its log
		}
		close(done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.done = done
	return s.wait()
}

// wait waits until it answers.
func (s *Server) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.URL)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.done:
			return fmt.Errorf("postgres ended:\n%s", s.log)
		case <-ctx.Done():
			return fmt.Errorf("postgres did not respond: %w", err)
		case <-tick.C:
		}
	}
}

func (s *Server) stop(sig syscall.Signal) error {
	if s.done == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop postgres: %w", err)
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-s.done:
		s.done = nil
		return nil
	case <-t.C:
		return errors.New("postgres did not stop")
	}
}

func (s *Server) remove() {
	_ = s.stop(syscall.SIGQUIT) // nothing in it is needed any more
	_ = os.RemoveAll(s.dir)     // a folder for temporary files
	if s.release != nil {
		s.release()
	}
}
