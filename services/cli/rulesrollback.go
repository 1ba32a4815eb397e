package cli

import (
	"errors"
	"fmt"
	"strconv"

	"spate/shared/revision"
	"spate/shared/terminal"
)

type rulesRollbackCommand struct {
	Revision *rollbackArg `arg:"" optional:"" help:"Revision to return to; 0 is the rule from the settings, which applied before the first revision. Default: the revision before the newest."`
	reviseFlags
	rulesLogFlags
}

// Help is shown below the usage.
func (rulesRollbackCommand) Help() string {
	return `Applies the rules from an earlier revision, with their parameters, as a new revision. The log is append-only, and windows that have begun keep the rules
that they began with. Rolling back twice restores the rules that you started with.

  spate rules history
  spate rules diff 3            what has changed since revision 3
  spate rules rollback          to the revision before the newest
  spate rules rollback 0        to the rule from the settings
  spate rules rollback 3 -m 'revision 4 flags customers'`
}

func (c *rulesRollbackCommand) Run(e *env) error {
	l, err := c.open(e)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := usage(c.checkFrom()); err != nil {
		return err
	}
	entries := l.Entries()
	newest, ok := l.Newest()
	switch {
	case c.Replace && !ok && l.Unreadable() != nil:
		return errors.New("no revision can be evaluated, so there is none to roll back to; use spate rules apply FILE --replace-unreadable")
	case !c.Replace:
		if newest, err = l.newest(); err != nil {
			return err
		}
	}
	to := int64(0)
	switch before := len(entries) - 2; { // the index of the one before the newest
	case c.Revision != nil:
		to = int64(*c.Revision)
	case c.Replace:
		to = newest.Revision
	case before >= 0:
		to = entries[before].Revision
	default:
		return fmt.Errorf("revision %d is the only one; to return to the rule from the settings, run spate rules rollback 0", newest.Revision)
	}
	source, what, name := c.source(), "the rule from the settings", "the rule from the settings"
	if to > 0 {
		entry, err := l.entry(to)
		if err != nil {
			return err
		}
		source, what, name = entry.Source, fmt.Sprintf("revision %d", to), fmt.Sprintf("the file of revision %d", to)
	}
	if c.Message == "" {
		c.Message = "roll back to " + what
	}
	return c.revise(e, l, revision.Record{Source: source, LatenessMS: newest.LatenessMS, MaxAheadMS: newest.MaxAheadMS}, name)
}

// rollbackArg is the number of a revision; 0 is before the first one.
type rollbackArg int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *rollbackArg) UnmarshalText(text []byte) error {
	if string(text) == "0" {
		return nil
	}
	return (*revisionArg)(r).UnmarshalText(text)
}

// revisionArg is the number of a revision; 0 if none is given.
type revisionArg int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *revisionArg) UnmarshalText(text []byte) error {
	n, ok := revisionNumber(string(text))
	if !ok {
		return fmt.Errorf("%s is not the number of a revision; use a number such as 3 (to list the revisions, run spate rules history)", terminal.Text(strconv.Quote(string(text))))
	}
	*r = revisionArg(n)
	return nil
}

// revisionNumber reads the number of a revision.
func revisionNumber(text string) (n int64, ok bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n > 0
}
