package testport

import (
	"net"
	"runtime"
	"testing"

	"spate/shared/testskip"
)

// TestReserve: whoever knows the port can listen at it, again and again; nobody gets it by chance.
func TestReserve(t *testing.T) {
	if runtime.GOOS != "linux" {
		testskip.Missing(t, "ports are reserved on Linux only")
	}
	t.Parallel()
	reserved := map[string]bool{}
	for range 200 {
		addr := Reserve(t)
		reserved[addr] = true
		for range 2 {
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if second, err := net.Listen("tcp", addr); err == nil {
				second.Close()
				t.Errorf("two listen at %s", addr)
			}
			ln.Close()
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("somebody listens at %s", addr)
		}
	}
	for range 1000 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if reserved[ln.Addr().String()] {
			t.Errorf("%s is given to somebody else", ln.Addr())
		}
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if reserved[c.LocalAddr().String()] {
			t.Errorf("%s is given to a connection", c.LocalAddr())
		}
		c.Close()
		ln.Close()
	}
}
