package sqlite

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// Forms are the settings that name a SQLite file.
const Forms = "a path, or sqlite:///path; a relative path with a space or any of : = @ ? ; in it must begin with ./"

// ErrNotAPath is the error of a setting that is not a path of a file.
var ErrNotAPath = errors.New("not a SQLite file: expected " + Forms)

var (
	scheme = regexp.MustCompile(`(?i)^sqlite://`)
	// odd is in what was not meant to be a path: a URL of another database or one with a mistake, a DSN with a password.
	odd = regexp.MustCompile(`[:=@?;\s]|//`)
)

// Path returns the absolute path of the file that a setting names:
//
//	sqlite:///var/lib/spate/alerts.db   an absolute path
//	sqlite://./alerts.db                a path relative to the working directory
//	alerts.db                           a path as it stands
//
// Percent escapes are decoded in the URL forms only. The URL has no host and no parameters. A database in memory is none: it would
// lose what it acknowledged. What looks like the address of a server is not a path, and errors have nothing of it: it may have a password.
func Path(setting string) (string, error) {
	path := strings.TrimSpace(setting)
	if s := scheme.FindString(path); s != "" {
		path = path[len(s):]
		if strings.ContainsAny(path, "?#") {
			return "", errors.New("sqlite:// takes no parameters; write ? as %3F and # as %23")
		}
		if first, _, _ := strings.Cut(path, "/"); first != "" && first != "." && first != ".." {
			return "", errors.New("sqlite:// takes no host: an absolute path has three slashes (sqlite:///path), a relative one a dot (sqlite://./path)")
		}
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			return "", errors.New("the path after sqlite:// is not correctly percent-encoded; write % as %25")
		}
	} else if path != ":memory:" && (strings.HasPrefix(path, "//") || !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "./") && !strings.HasPrefix(path, "../") && odd.MatchString(path)) {
		return "", ErrNotAPath
	}
	switch {
	case path == "":
		return "", errors.New("the path of the SQLite file is empty")
	case strings.HasSuffix(path, "/"):
		return "", errors.New("the path of the SQLite file ends in /: it names a directory")
	case path == ":memory:":
		return "", errors.New(`":memory:" does not keep alerts; give a file`)
	case strings.ContainsRune(path, 0):
		return "", errors.New("the path of the SQLite file contains a zero byte")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the SQLite file: %w", err)
	}
	return abs, nil
}
