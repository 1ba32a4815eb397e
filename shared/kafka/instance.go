package kafka

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// maxInstances bounds the processes of one service on one host.
const maxInstances = 256

// Instance is a name for this process that its next life on this host gets again, and that no other live process has: the host's
// name and the lowest free number. A transactional id must be such a name: a restarted router then ends the transaction that it left
// open at once, where otherwise all readers would wait for it to time out.
//
// The number is held by a lock on a file, which the kernel releases however the process ends. Call release at the end.
func Instance(service string) (name string, release func(), err error) {
	host, err := os.Hostname()
	if err != nil {
		return "", nil, fmt.Errorf("instance name: %w", err)
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("spate-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("instance name: %w", err)
	}
	for i := range maxInstances {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s-%d.lock", service, i)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return "", nil, fmt.Errorf("instance name: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return fmt.Sprintf("%s-%s-%d", service, host, i), func() { f.Close() }, nil
		}
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("instance name: lock %s: %w", f.Name(), err)
		}
	}
	return "", nil, fmt.Errorf("instance name: %d processes of %s on this host", maxInstances, service)
}
