package security

import (
	"bytes"
	"fmt"

	"spate/shared/watched"
)

// maxSecret is the size of a file with a secret: a token with many claims has some kilobytes.
const maxSecret = 64 << 10

// secret is a text, or a file that is read each time it is needed.
type secret struct {
	setting    string
	text, file string
}

// read returns the secret. An error names the setting and the file, and nothing of what is in it.
func (s secret) read() (string, error) {
	if s.file == "" {
		return s.text, nil
	}
	b, err := watched.Read(s.file, maxSecret)
	if err != nil {
		return "", fmt.Errorf("%s: %w", s.setting, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")) // editors end files so
	if len(b) == 0 {
		return "", fmt.Errorf("%s: %s is empty", s.setting, s.file)
	}
	return string(b), nil
}

// check reports whether it can be read.
func (s secret) check() error {
	_, err := s.read()
	return err
}
