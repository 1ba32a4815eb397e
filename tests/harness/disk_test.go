package harness

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"spate/shared/testskip"
)

func TestDisk(t *testing.T) {
	d := NewDisk(t, 1<<20)
	if !d.Small {
		testskip.Missing(t, "a small file system cannot be mounted")
	}
	file := filepath.Join(d.Dir, "file")
	if err := d.Fill(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write to a full disk: %v", err)
	}
	if err := d.Free(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
}
