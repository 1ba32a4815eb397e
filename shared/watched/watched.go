// Package watched reads files that are replaced while a process runs, as in certificate rotation: under the same name, all at once or one
// after another, by a link or a new file.
package watched

import (
	"fmt"
	"io"
	"os"
)

// Files are looked at together. They are not safe for concurrent use.
type Files struct {
	paths []string
	seen  map[string]os.FileInfo
}

// New returns files of which nothing is known yet; empty paths are left out.
func New(paths ...string) *Files {
	f := &Files{seen: make(map[string]os.FileInfo)}
	for _, p := range paths {
		if p != "" {
			f.paths = append(f.paths, p)
		}
	}
	return f
}

// Changed reports whether any of them is another than at the last call; the first call, and the one after [Files.Forget], says yes. A file that is missing
// counts as one of its own.
func (f *Files) Changed() bool {
	changed := false
	for _, p := range f.paths {
		now, err := os.Stat(p)
		if err != nil {
			now = nil
		}
		was, known := f.seen[p]
		if !known || !same(was, now) {
			changed = true
			f.seen[p] = now
		}
	}
	return changed
}

// Forget makes the next call of [Files.Changed] say yes: what was found could not be used, and the reason may be mended without a trace on the file.
func (f *Files) Forget() { clear(f.seen) }

// same reports whether two looks found the same file with the same content, as far as can be told without reading it.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// Read returns the content of a file of up to limit bytes. It waits for nobody, so it refuses what is not a regular file: a pipe would hold the process,
// and could be read once only.
func Read(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, nil
}
