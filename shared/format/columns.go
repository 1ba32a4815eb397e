package format

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/rule"
)

// columns are what rules read of an event beyond its mark.
type columns struct {
	inputs []rule.Input
	at     []int // the input of each path
	from   *layout
	values []rule.Value
	text   []byte // of strings that have escapes
}

// read takes the inputs of a plan, and returns the paths to look for: the mark has the user, and the time in milliseconds.
func (c *columns) read(inputs []rule.Input) (paths [][]string) {
	c.inputs, c.values = inputs, make([]rule.Value, len(inputs))
	for i, in := range inputs {
		if in.Type.Kind != rule.Token {
			paths = append(paths, in.Path)
			c.at = append(c.at, i)
		}
	}
	return paths
}

// Columns returns what rules read of the record that was marked last, whose mark and headers are given. The values are valid until the next call of
// Mark, and as long as the record's value is. What is absent, or is not of its type, is NULL.
func (r *Reader) Columns(mark activity.Mark, headers []kgo.RecordHeader) []rule.Value {
	c := &r.columns
	for i, in := range c.inputs {
		switch {
		case in.Type.Kind == rule.Token:
			c.values[i] = rule.TokenValue(mark.User)
		case in.Time:
			c.values[i] = rule.TimeValue(mark.TimeMS, 0)
		}
	}
	if len(c.at) == 0 {
		return c.values
	}
	c.text = c.text[:0]
	for k, i := range c.at {
		v := c.from.columns[k].of(r.values, headers, &r.buf)
		if c.inputs[i].Time {
			// The mark's time counts; the text may have more digits.
			if t, ok := rule.ParseTime(v.token); ok && t.Int() == mark.TimeMS {
				c.values[i] = t
			}
			continue
		}
		c.values[i] = rule.Value{}
		switch {
		case activity.Absent(v.token):
		case v.unit != "" && c.inputs[i].Type.Kind == rule.Timestamp: // a time by its schema
			if ms, reason := v.unit.Instant(v.token); reason == activity.ReasonNone {
				c.values[i] = rule.TimeValue(ms, 0)
			}
		default:
			c.values[i], c.text = rule.FromJSON(c.inputs[i].Type, v.token, c.text)
		}
	}
	return c.values
}
