package watched

import (
	"os"
	"path/filepath"
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
	} {
		step.do()
		if got := f.Changed(); got != step.want {
			t.Errorf("%s: %v", step.what, got)
		}
	}
}
