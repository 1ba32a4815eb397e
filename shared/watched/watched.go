// Package watched finds out that files have been replaced, as those do who rotate certificates: under the same name, at once or one after
// another, by a link or by another file.
package watched

import (
	"os"
	"time"
)

// Files are looked at together. They are not safe for concurrent use.
type Files struct {
	paths []string
	seen  map[string]stamp
}

type stamp struct {
	changed time.Time
	size    int64
}

// New returns files of which nothing is known yet; empty paths are left out.
func New(paths ...string) *Files {
	f := &Files{seen: make(map[string]stamp)}
	for _, p := range paths {
		if p != "" {
			f.paths = append(f.paths, p)
		}
	}
	return f
}

// Changed reports whether any of them is another than at the last call; the first call says yes. A file that is missing counts as one of its own.
func (f *Files) Changed() bool {
	changed := false
	for _, p := range f.paths {
		var now stamp
		if info, err := os.Stat(p); err == nil {
			now = stamp{info.ModTime(), info.Size()}
		}
		if was, known := f.seen[p]; !known || was != now {
			changed = true
			f.seen[p] = now
		}
	}
	return changed
}
