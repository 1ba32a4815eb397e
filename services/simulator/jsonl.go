package simulator

import (
	"bytes"
	"fmt"

	"spate/shared/activity"
)

// line reads one line of JSON; ok says that it is in r. It is sent as it is.
func (c *CSV) line(r *Row, line []byte, atLine int64) (ok bool, err error) {
	text := bytes.TrimSpace(line)
	if len(text) == 0 {
		c.lines.consume(len(line))
		return false, nil
	}
	*r = Row{JSON: bytes.Clone(text)}
	mark, place, reason := c.scanner.Locate(r.JSON)
	complete := bytes.HasSuffix(line, []byte("\n"))
	c.lines.consume(len(line))
	if reason == activity.ReasonNotJSON && !complete {
		return false, c.bad(atLine, "is not valid JSON", true)
	}
	r.Event.UserID = activity.UserText(mark.User)
	if c.keys != nil {
		if key, _, _ := c.keys.Locate(r.JSON); key.User != nil {
			r.Event.CategoryID = activity.UserText(key.User)
		}
	}
	r.TimeMS, r.HasTime = mark.TimeMS, reason == activity.ReasonNone
	r.TimeAt = place
	c.at = atLine
	c.stats.Rows++
	return true, nil
}

// retime puts another time into the JSON of a row, written as the others of the file are.
func (r *Row) retime(format activity.TimeFormat) error {
	if r.TimeAt.End <= r.TimeAt.Start {
		return fmt.Errorf("the row has no time to replace: %s", activity.Example(r.JSON))
	}
	b := make([]byte, 0, len(r.JSON)+32)
	b = append(b, r.JSON[:r.TimeAt.Start]...)
	b = format.Append(b, r.TimeMS)
	end := len(b)
	b = append(b, r.JSON[r.TimeAt.End:]...)
	r.JSON, r.TimeAt.End = b, end
	return nil
}
