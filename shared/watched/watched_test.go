package watched

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestChanged(t *testing.T) {
	dir := t.TempDir()
	a, b, link := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "link")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	point := func(to string) {
		t.Helper()
		if err := os.Symlink(to, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	write(a, "one")
	write(b, "longer")
	point(a)
	f := New(a, "", link)
	sameTime := func() { // as those do who copy with the time
		t.Helper()
		info, err := os.Stat(a)
		if err != nil {
			t.Fatal(err)
		}
		write(a, "bacK")
		if err := os.Chtimes(a, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"the first look", func() {}, true},
		{"nothing", func() {}, false},
		{"another text", func() { write(a, "other") }, true},
		{"the link leads elsewhere", func() { point(b) }, true},
		{"nothing again", func() {}, false},
		{"it is gone", func() { _ = os.Remove(a) }, true},
		{"and stays so", func() {}, false},
		{"it is back", func() { write(a, "back") }, true},
		{"another file of the same size and time", sameTime, true},
		{"what was found could not be used", f.Forget, true},
		{"and now it can", func() {}, false},
	} {
		step.do()
		if got := f.Changed(); got != step.want {
			t.Errorf("%s: %v", step.what, got)
		}
	}
}

// What is not a regular file, or too large, is refused at once: a pipe would hold the process.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{fifo: "is not a regular file", dir: "is not a regular file", "/dev/zero": "is not a regular file", filepath.Join(dir, "none"): "no such file"} {
		if _, err := Read(path, 10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := Read(file, 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Read(file, 4); err == nil || !strings.Contains(err.Error(), "larger than 4 bytes") {
		t.Error(err)
	}
}
