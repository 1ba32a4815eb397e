package cli

import (
	"errors"
	"fmt"
	"strconv"

	"spate/shared/revision"
	"spate/shared/terminal"
)

type rulesRollbackCommand struct {
	Revision revisionArg `arg:"" optional:"" help:"Revision to return to. Default: the one before the newest."`
	reviseFlags
	rulesLogFlags
}

// Help is shown below the usage.
func (rulesRollbackCommand) Help() string {
	return `Applies the rules of an earlier revision, with their parameters, as a new revision: the log only grows, and windows that have begun keep the rules
that they began with. To roll back twice is to return to where you were.

  spate rules history
  spate rules diff 3            what has changed since revision 3
  spate rules rollback          to the revision before the newest
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
	newest, ok := l.Newest()
	to := int64(c.Revision)
	switch {
	case c.Replace && !ok && l.Unreadable() != nil:
		return errors.New("no revision can be evaluated, so there is none to roll back to; use spate rules apply FILE --replace-unreadable")
	case c.Replace && to == 0:
		to = newest.Revision
	case !c.Replace:
		if newest, err = l.newest(); err != nil {
			return err
		}
	}
	if to == 0 {
		if to = newest.Revision - 1; to == 0 {
			return errors.New("revision 1 is the only one; there is none to roll back to")
		}
	}
	entry, err := l.entry(to)
	if err != nil {
		return err
	}
	if c.Message == "" {
		c.Message = fmt.Sprintf("roll back to revision %d", to)
	}
	rec := revision.Record{Source: entry.Source, LatenessMS: newest.LatenessMS, MaxAheadMS: newest.MaxAheadMS}
	return c.revise(e, l, rec, fmt.Sprintf("the file of revision %d", to))
}

// revisionArg is the number of a revision; 0 if none is given.
type revisionArg int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *revisionArg) UnmarshalText(text []byte) error {
	n, ok := revisionNumber(string(text))
	if !ok {
		return fmt.Errorf("%s is not the number of a revision, such as 3 (spate rules history)", terminal.Text(strconv.Quote(string(text))))
	}
	*r = revisionArg(n)
	return nil
}

// revisionNumber reads the number of a revision.
func revisionNumber(text string) (n int64, ok bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n > 0
}
