package incident

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"spate/shared/alert"
)

// Silence suppresses notifications about the incidents of a rule, a key, or both, for a time of the wall clock. The incidents are still stored.
type Silence struct {
	ID   string `json:"id"`
	Rule string `json:"rule,omitempty"` // empty is any
	// Key maps columns of the key to values as text: a string without quotes, anything else as JSON. Empty means any key.
	Key       map[string]string `json:"key,omitempty"`
	From      time.Time         `json:"from"`
	Until     time.Time         `json:"until"`
	Author    string            `json:"author"`
	Reason    string            `json:"reason"`
	CreatedAt time.Time         `json:"created_at"`
}

// Bounds of a silence. To exclude something permanently, change the rule.
const (
	MinSilence = time.Second
	MaxSilence = 31 * 24 * time.Hour
	// maxText bounds an author, a reason and the values of a key, in bytes each.
	maxText = 2000
)

// NewSilenceID returns an id that no other silence has.
func NewSilenceID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Validate reports every problem at once.
func (s Silence) Validate() error {
	var errs []error
	if s.Rule == "" && len(s.Key) == 0 {
		errs = append(errs, errors.New("rule, key: both are missing; give a rule, a key, or both"))
	}
	if s.Rule != "" && !alert.IsRule(s.Rule) {
		errs = append(errs, fmt.Errorf("rule: %.80q is not a valid rule name", s.Rule))
	}
	if s.Until.Sub(s.From) < MinSilence {
		errs = append(errs, fmt.Errorf("for: %v is shorter than %v", s.Until.Sub(s.From), MinSilence))
	} else if s.Until.Sub(s.From) > MaxSilence {
		errs = append(errs, fmt.Errorf("for: %v is longer than %v; to exclude something permanently, add a condition to the rule's WHERE clause", s.Until.Sub(s.From), MaxSilence))
	}
	if strings.TrimSpace(s.Reason) == "" {
		errs = append(errs, errors.New("why: missing; give the reason for the silence, for the people on call"))
	}
	texts := []string{s.Author, s.Reason}
	for name, value := range s.Key {
		texts = append(texts, name, value)
	}
	for _, text := range texts {
		if len(text) > maxText || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			errs = append(errs, fmt.Errorf("%.40q is longer than %d bytes, is not UTF-8, or contains a NUL character", text, maxText))
		}
	}
	return errors.Join(errs...)
}

// Active reports whether the silence is active at a time.
func (s Silence) Active(now time.Time) bool { return !now.Before(s.From) && now.Before(s.Until) }

// Match reports whether the silence applies to an incident.
func (s Silence) Match(i *Incident) bool {
	if s.Rule != "" && s.Rule != i.Rule {
		return false
	}
	if len(s.Key) == 0 {
		return true
	}
	var columns map[string]json.RawMessage
	if json.Unmarshal(i.Key, &columns) != nil {
		return false
	}
	for name, value := range s.Key {
		token, ok := columns[name]
		if !ok || textOf(token) != value {
			return false
		}
	}
	return true
}

// textOf is a JSON value as text: a string without quotes and escapes.
func textOf(token json.RawMessage) string {
	var text string
	if len(token) > 0 && token[0] == '"' && json.Unmarshal(token, &text) == nil {
		return text
	}
	return string(bytes.TrimSpace(token))
}
