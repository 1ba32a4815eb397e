package chaos

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"spate/shared/testskip"
)

// TestProxy: what goes through it arrives, and what is cut or held up does not.
func TestProxy(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() { // answers with what it is sent
		for {
			conn, err := target.Accept()
			if err != nil {
				return
			}
			go io.Copy(conn, conn) //nolint:errcheck // it ends with the connection
		}
	}()
	p, err := newProxy()
	if err != nil {
		t.Fatal(err)
	}
	p.Forward(target.Addr().String())
	defer p.Close()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	reader, writer := dial(), dial()
	read := []byte{0, 0, 0, 4, 0, 1, 7, 7} // a request of kind 1
	write := []byte{0, 0, 0, 4, 0, 0, 8, 8}
	echo := func(conn net.Conn, request []byte, within time.Duration) error {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		return answer(t, conn, request, within)
	}
	for range 2 {
		if err := echo(reader, read, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := echo(writer, write, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	pid := os.Getpid()
	if _, err := portsOf(pid); err != nil {
		testskip.Missing(t, "processes' connections are found in /proc: %v", err)
	}

	n, release, err := p.Hold(pid, true)
	if n != 1 || err != nil {
		t.Fatalf("%d connections held up, %v; one writes", n, err)
	}
	if err := echo(reader, read, time.Minute); err != nil {
		t.Errorf("who reads is held up: %v", err)
	}
	if err := echo(writer, write, 100*time.Millisecond); err == nil {
		t.Error("who writes is not held up")
	}
	release()
	if err := answer(t, writer, write, time.Minute); err != nil {
		t.Errorf("what was held up does not arrive: %v", err)
	}

	if n, err := p.Cut(pid); n != 2 || err != nil {
		t.Fatalf("%d connections cut, %v", n, err)
	}
	if err := echo(reader, read, time.Minute); err == nil {
		t.Error("a connection that was cut answers")
	}
	if err := echo(dial(), read, time.Minute); err != nil {
		t.Errorf("no connection after a cut: %v", err)
	}
}

func answer(t *testing.T, conn net.Conn, want []byte, within time.Duration) error {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%v arrives as %v", want, got)
	}
	return nil
}
