package simulator

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// blanks around a field that is not quoted are not part of it.
const blanks = " \t"

// splitPlain appends the fields of a record without quotes, less the cut around them; they share its memory.
func splitPlain(parts []string, s string, comma byte, cut string) []string {
	for {
		i := strings.IndexByte(s, comma)
		if i < 0 {
			return append(parts, strings.Trim(s, cut))
		}
		parts = append(parts, strings.Trim(s[:i], cut))
		s = s[i+1:]
	}
}

// splitQuoted puts the fields of the next record in c.parts, and returns its length with all its lines and their ends. If it is
// malformed, the length is that of its first line, so that a stray quote costs one line and not all that follow.
func (c *CSV) splitQuoted() (length int, reason string, err error) {
	rec, reason, err := c.quotedRecord()
	if err != nil || reason != "" {
		return len(rec), reason, err
	}
	c.parts = c.parts[:0]
	text := trimEnd(rec)
	c.complete = len(rec) > len(text)
	for {
		if len(text) == 0 || text[0] != '"' {
			field, rest, more := bytes.Cut(text, []byte{c.comma})
			c.parts = append(c.parts, string(bytes.Trim(field, c.cut)))
			if !more {
				return len(rec), "", nil
			}
			text = rest
			continue
		}
		c.quoted = c.quoted[:0]
		for text = text[1:]; ; text = text[1:] {
			part, rest, _ := bytes.Cut(text, []byte{'"'})
			c.quoted = append(c.quoted, part...)
			if text = rest; len(text) == 0 || text[0] != '"' {
				break
			}
			c.quoted = append(c.quoted, '"')
		}
		c.parts = append(c.parts, string(c.quoted))
		if len(text) == 0 {
			return len(rec), "", nil
		}
		text = text[1:] // the comma
	}
}

// quotedRecord returns the next record, or, for its length, its first line, and what is wrong with it. Lines after it may be records of their own that look at
// the same lines; so it is kept up to where an open quote stays open, and no line is looked at again for each of them.
func (c *CSV) quotedRecord() (rec []byte, reason string, err error) {
	const never, text = "has a quote that never closes", "has text after a closing quote"
	first, err := c.lines.peek(0)
	if err != nil {
		return nil, "", err
	}
	switch c.scan(first, false) {
	case ends:
		return first, "", nil
	case breaks:
		return first, text, nil
	}
	for end := max(len(first), int(c.openTo-c.lines.pos)); ; {
		at := c.lines.pos + int64(end)
		if at == c.breaksAt {
			return first, text, nil
		}
		more, err := c.lines.peek(end)
		if errors.Is(err, io.EOF) || errors.Is(err, errTooLong) {
			return first, never, nil
		} else if err != nil {
			return nil, "", err
		}
		switch c.scan(more[end:], true) {
		case ends:
			return more, "", nil
		case breaks:
			c.breaksAt = at
			return more[:len(first)], text, nil
		}
		end = len(more)
		c.openTo = c.lines.pos + int64(end)
	}
}

// effect is what a line does to a record.
type effect int

const (
	ends   effect = iota // it ends the record
	opens                // a quoted field goes on in the next line
	breaks               // there is text after a quoted field
)

// scan returns how a line changes the state of a record: the line is at its beginning, or within one of its quoted fields.
func (c *CSV) scan(line []byte, quoted bool) effect {
	c.scanned += int64(len(line))
	for rest := trimEnd(line); ; rest = rest[1:] {
		if !quoted {
			if len(rest) == 0 || rest[0] != '"' {
				comma := bytes.IndexByte(rest, c.comma)
				if comma < 0 {
					return ends
				}
				rest = rest[comma:]
				continue
			}
			rest = rest[1:]
		}
		quoted = false
		for {
			q := bytes.IndexByte(rest, '"')
			if q < 0 {
				return opens
			}
			if rest = rest[q+1:]; len(rest) == 0 || rest[0] != '"' {
				break
			}
			rest = rest[1:] // a doubled quote is text
		}
		switch {
		case len(rest) == 0:
			return ends
		case rest[0] != c.comma:
			return breaks
		}
	}
}

// trimEnd returns line without its LF or CRLF.
func trimEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}
