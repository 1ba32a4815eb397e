package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Disk is a small file system. It is one in memory of its own where mounting is allowed; elsewhere it is a folder that cannot be full.
type Disk struct {
	Dir   string
	Small bool // it can be full
}

// NewDisk mounts a disk of some bytes until the test ends. Processes that use it must be started after it.
func NewDisk(t *testing.T, size int64) *Disk {
	t.Helper()
	d := &Disk{Dir: t.TempDir()}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "spate-test", d.Dir).CombinedOutput(); err != nil {
		t.Logf("the disk will not be full: mounting one needs more rights: %v: %s", err, out)
		return d
	}
	d.Small = true
	t.Cleanup(func() {
		if out, err := exec.Command("umount", d.Dir).CombinedOutput(); err != nil {
			t.Errorf("unmount %s: %v: %s", d.Dir, err, out)
		}
	})
	return d
}

func (d *Disk) ballast() string { return filepath.Join(d.Dir, "ballast") }

// Fill leaves no byte free.
func (d *Disk) Fill() error {
	if !d.Small {
		return nil
	}
	f, err := os.Create(d.ballast())
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill the disk: %w", err)
	}
	return nil
}

// Free takes what Fill wrote away.
func (d *Disk) Free() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free the disk: %w", err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
