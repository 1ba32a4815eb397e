package sqlite

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

const scheme = "sqlite://"

// Path returns the absolute path of the file that a setting names:
//
//	sqlite:///var/lib/spate/alerts.db   an absolute path
//	sqlite://./alerts.db                a path relative to the working directory
//	alerts.db                           a path as it stands
//
// Percent escapes are decoded in the URL forms only. The URL has no host and no parameters. A database in memory is none: it would
// lose what it acknowledged.
func Path(setting string) (string, error) {
	path, isURL := strings.CutPrefix(setting, scheme)
	if isURL {
		if at := strings.IndexAny(path, "?#"); at >= 0 {
			return "", fmt.Errorf("%q has parameters (%s), which a SQLite path does not take; write ? as %%3F", setting, path[at:])
		}
		first, _, _ := strings.Cut(path, "/")
		if path != "" && first != "" && first != "." && first != ".." {
			return "", fmt.Errorf("%q names a host, %q: an absolute path has three slashes (sqlite:///path), a relative one a dot (sqlite://./path)", setting, first)
		}
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			return "", fmt.Errorf("%q: %w", setting, err)
		}
	} else if at := strings.Index(setting, "://"); at > 0 {
		return "", fmt.Errorf("%q is no SQLite path: the scheme is %q, not sqlite", setting, setting[:at])
	}
	switch {
	case path == "":
		return "", errors.New("the path of the SQLite file is empty")
	case strings.HasSuffix(path, "/"):
		return "", fmt.Errorf("%q is a directory, not a file", setting)
	case path == ":memory:":
		return "", errors.New(`":memory:" keeps nothing; name a file`)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%q has a zero byte", setting)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find %q: %w", setting, err)
	}
	return abs, nil
}
