package post

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[secret]"

// Secret is a token, key or password. In any format or encoding, it prints as "[secret]".
type Secret struct {
	// A function, because package fmt prints what is in somebody else's unexported field without asking for its methods. Of functions it has
	// nothing to print.
	text func() string
}

// NewSecret returns the secret with a text. Empty text means no secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: func() string { return text }}
}

// Reveal returns the text. Use it only to make a request.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return s.text()
}

// IsZero reports whether the secret is missing.
func (s Secret) IsZero() bool { return s.text == nil }

// String is "[secret]".
func (Secret) String() string { return redacted }

// GoString is "[secret]".
func (Secret) GoString() string { return redacted }

// Format writes "[secret]", whatever the verb: %d and %x would print the bytes.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is "[secret]".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
