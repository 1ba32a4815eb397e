package cli

import (
	"io"
	"strings"
	"time"

	"spate/shared/revision"
	"spate/shared/terminal"
)

type rulesShowCommand struct {
	Revision revisionArg `arg:"" optional:"" help:"Revision. Default: the newest."`
	JSON     bool        `name:"json" help:"Print one JSON object: revision, at, boundary (null: from the beginning), text, name, set, lateness_ms, max_ahead_ms, author, message, program."`
	rulesLogFlags
}

// Help is shown below the usage.
func (rulesShowCommand) Help() string {
	return `Prints the rules file, as it was applied, to standard output: byte for byte unless standard output is a terminal. All other details of the revision go to standard error.

  spate rules show              the rules in force
  spate rules show 3 >rules.sql`
}

// shownRevision is a revision as programs see it.
type shownRevision struct {
	Revision int64      `json:"revision"`
	At       time.Time  `json:"at"`
	Boundary *time.Time `json:"boundary"` // null: the beginning
	revision.Source
	LatenessMS int64  `json:"lateness_ms"`
	MaxAheadMS int64  `json:"max_ahead_ms"`
	Author     string `json:"author,omitempty"`
	Message    string `json:"message,omitempty"`
	Program    string `json:"program,omitempty"`
}

func (c *rulesShowCommand) Run(e *env) error {
	l, err := c.open(e)
	if err != nil {
		return err
	}
	defer l.Close()
	var entry revision.Entry
	if c.Revision == 0 {
		entry, err = l.newest()
	} else {
		entry, err = l.entry(int64(c.Revision))
	}
	if err != nil {
		return err
	}
	at := time.UnixMilli(entry.AtMS).UTC()
	if c.JSON {
		return newResult(e, shownRevision{Revision: entry.Revision, At: at, Boundary: boundaryOf(entry), Source: entry.Source, LatenessMS: entry.LatenessMS, MaxAheadMS: entry.MaxAheadMS,
			Author: entry.Author, Message: entry.Message, Program: entry.Program})
	}
	now := time.Now()
	terminal.Fprintf(e.stderr, "revision %d, applied at %s UTC, in force %s\n", entry.Revision, clockText(at, now), terminal.Safe(inForce(entry, now)))
	for _, line := range []struct{ name, text string }{
		{"author", entry.Author}, {"message", entry.Message}, {"program", entry.Program}, {"parameters", params(entry.Source.Set)}, {"name of the rule", entry.Name},
	} {
		if line.text != "" && (line.name != "name of the rule" || !strings.Contains(entry.Text, "-- rule:")) {
			terminal.Fprintf(e.stderr, "%s: %s\n", terminal.Safe(line.name), line.text)
		}
	}
	text := entry.Text
	if terminal.Is(e.stdout) {
		if text = terminal.Lines(text); !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
	}
	o := newOut(e.stdout)
	_, err = io.WriteString(o, text)
	return o.end(err)
}
