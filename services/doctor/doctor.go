// Package doctor checks everything that a pipeline depends on, and reports what will not work and how to fix it. It changes nothing.
package doctor

import (
	"fmt"
	"log/slog"

	"spate/shared/format"
	"spate/shared/kafka"
)

// Level says how much a finding matters.
type Level string

// Levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, and may surprise
	Failed  Level = "failed"  // something will not work
	Unknown Level = "unknown" // it could not be seen, mostly for want of a right
)

// Finding is what a check has found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// Config says what to look at.
type Config struct {
	Kafka  kafka.Config
	Layout kafka.Layout
	// Services are those whose rights are looked at ([kafka.Services]); Instance is the name of the router, if it is set.
	Services []string
	Instance string
	// Events says how events are written; nil looks at none.
	Events *format.Config
	Log    *slog.Logger
}

// teller passes findings on.
type teller func(Finding)

func (t teller) ok(check, format string, args ...any) {
	t(Finding{Check: check, Level: OK, Text: fmt.Sprintf(format, args...)})
}

func (t teller) say(level Level, check, fix, format string, args ...any) {
	t(Finding{Check: check, Level: level, Text: fmt.Sprintf(format, args...), Fix: fix})
}
