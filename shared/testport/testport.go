// Package testport reserves ports on the loopback interface: for programs that need to know their port before they listen, for servers
// that stop and start on the same port, and for addresses on which nothing listens.
//
// A port that was free a moment ago may be taken by the time it is needed. A reserved one is bound to a socket that never listens. Linux
// assigns such a port neither to a program that asks for any port nor to a connection; a program that asks for it by number with SO_REUSEADDR,
// as servers do, can listen on it any number of times.
package testport

import (
	"fmt"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// Reserve reserves a port until the end of the test and returns its address, 127.0.0.1:PORT.
func Reserve(t testing.TB) string {
	t.Helper()
	port, release, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Hold reserves a port until release is called.
func Hold() (port int, release func(), err error) {
	syscall.ForkLock.RLock() // no process that starts now inherits the socket
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	release = func() { syscall.Close(fd) }
	if port, err = bind(fd); err != nil {
		release()
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	if runtime.GOOS != "linux" { // others let nobody listen at what is bound: there the port is free, for now
		release()
		release = func() {}
	}
	return port, release, nil
}

func bind(fd int) (port int, err error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return addr.(*syscall.SockaddrInet4).Port, nil
}
