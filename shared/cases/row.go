package cases

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"spate/shared/activity"
	"spate/shared/rule"
	"spate/shared/window"
)

// Kinds of failures.
const (
	Missing    = "missing"    // no alert is like the row, or, with a difference in windows, not enough are
	Unexpected = "unexpected" // an alert that no row is like
	Different  = "different"  // the alert nearest to the row has other members
)

// Failure is a row that is not as expected.
type Failure struct {
	Rule string `json:"rule"`
	Kind string `json:"kind"`
	// Line is that of the expected row; of the rule in expect, or of the case, if there is none.
	Line     int          `json:"line"`
	Expected Row          `json:"expected,omitempty"`
	Got      Row          `json:"got,omitempty"`
	Differs  []Difference `json:"differs,omitempty"`
}

// Difference is a member that is not as expected.
type Difference struct {
	Member   string          `json:"member"`
	Expected json.RawMessage `json:"expected"`
	Got      json.RawMessage `json:"got"`
}

// Row are the members of an alert, in order.
type Row []Member

// Member is a column, or what else an alert can be compared by.
type Member struct {
	Name  string
	Value json.RawMessage
}

// MarshalJSON writes an object.
func (r Row) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range r {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(activity.AppendString(b, m.Name), ':')
		b = append(b, m.Value...)
	}
	return append(b, '}'), nil
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// String is the row as it can stand in expect.
func (r Row) String() string {
	members := make([]string, len(r))
	for i, m := range r {
		name := m.Name
		if !plainName.MatchString(name) {
			name = string(activity.AppendString(nil, name))
		}
		members[i] = name + ": " + string(m.Value)
	}
	return "{" + strings.Join(members, ", ") + "}"
}

// want is a row that is expected.
type want struct {
	line int
	Row
	types []rule.Type // of the members
	// least is how many alerts the row stands for; with any, there can be more. windows is how that was written: nil if it was not.
	least   int
	any     bool
	windows json.RawMessage
}

// expected is the row as it was written.
func (w want) expected() Row {
	if w.windows == nil {
		return w.Row
	}
	return append(slices.Clone(w.Row), Member{windowsMember, w.windows})
}

// windowsMember says how many alerts a row stands for, if the rule has no such column.
const windowsMember = "windows"

// The members of an alert that are no columns.
var others = []rule.Column{
	{Name: "window_start", Type: rule.Type{Kind: rule.Timestamp}},
	{Name: "window_end", Type: rule.Type{Kind: rule.Timestamp}},
	{Name: "opened", Type: rule.Type{Kind: rule.Boolean}},
	{Name: "critical", Type: rule.Type{Kind: rule.Boolean}},
}

// members are what the alerts of a rule can be compared by.
func members(r *rule.Rule) []rule.Column {
	var list []rule.Column
	for _, c := range r.Columns {
		list = append(list, rule.Column{Name: c.Name, Type: c.Type})
	}
	for _, o := range others {
		if !slices.ContainsFunc(list, func(c rule.Column) bool { return c.Name == o.Name }) {
			list = append(list, o)
		}
	}
	return list
}

func rowOf(r *rule.Rule, v window.Verdict, opened bool) (Row, error) {
	var columns map[string]json.RawMessage
	if err := json.Unmarshal(slices.Concat([]byte("{"), v.Columns, []byte("}")), &columns); err != nil {
		return nil, fmt.Errorf("read the columns of rule %s: %w", r.Name, err)
	}
	own := []rule.Value{rule.TimeValue(v.Pane.StartMS, 0), rule.TimeValue(v.Pane.EndMS(), 0), rule.BoolValue(opened), rule.BoolValue(v.Critical)}
	var row Row
	for _, m := range members(r) {
		value, ok := columns[m.Name]
		if !ok {
			value = own[slices.IndexFunc(others, func(o rule.Column) bool { return o.Name == m.Name })].JSON(m.Type)
		}
		row = append(row, Member{m.Name, value})
	}
	return row, nil
}

// same reports whether two values of a type agree: floating-point numbers to nine digits, as people write them, and everything else exactly.
func same(t rule.Type, a, b json.RawMessage) bool {
	if string(a) == string(b) {
		return true
	}
	if t.Kind != rule.Double && t.Kind != rule.Float {
		return false
	}
	x, err1 := strconv.ParseFloat(string(a), 64)
	y, err2 := strconv.ParseFloat(string(b), 64)
	return err1 == nil && err2 == nil && math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y))
}

// differs are the members in which a row is not as expected.
func (w want) differs(got Row) (list []Difference) {
	for i, m := range w.Row {
		at := slices.IndexFunc(got, func(o Member) bool { return o.Name == m.Name })
		if value := got[at].Value; !same(w.types[i], m.Value, value) {
			list = append(list, Difference{m.Name, m.Value, value})
		}
	}
	return list
}

// compare pairs rows. A row that names few members is like several alerts, so the most pairs are looked for, not the first that fit.
func (e *expectation) compare(name string, rows []Row) (failures []Failure) {
	var slots []int // the expected row of each alert that there has to be
	for i, w := range e.rows {
		slots = append(slots, slices.Repeat([]int{i}, w.least)...)
	}
	of := make([]int, len(rows)) // the slot of an alert
	spare := make([]bool, len(rows))
	for j, row := range rows {
		of[j] = -1
		spare[j] = slices.ContainsFunc(e.rows, func(w want) bool { return w.any && len(w.differs(row)) == 0 })
	}
	var pair func(slot int, seen []bool) bool
	pair = func(slot int, seen []bool) bool {
		for j, row := range rows {
			if seen[j] || len(e.rows[slots[slot]].differs(row)) > 0 {
				continue
			}
			seen[j] = true
			if of[j] < 0 || pair(of[j], seen) {
				of[j] = slot
				return true
			}
		}
		return false
	}
	// Alerts that a row with any can have besides come second: what has been paired stays so, with one slot or another.
	paired := make([]bool, len(slots))
	for slot := range slots {
		paired[slot] = pair(slot, slices.Clone(spare))
	}
	missing := make([]int, len(e.rows))
	for slot, i := range slots {
		if !paired[slot] && !pair(slot, make([]bool, len(rows))) {
			missing[i]++
		}
	}
	for i, n := range missing {
		if n == 0 {
			continue
		}
		w := e.rows[i]
		f := Failure{Rule: name, Kind: Missing, Line: w.line, Expected: w.expected()}
		if n < w.least {
			f.Differs = []Difference{{windowsMember, w.windows, json.RawMessage(strconv.Itoa(w.least - n))}}
			failures = append(failures, f)
			continue
		}
		// It is shown with the alert that is nearest to it, if they have anything in common.
		nearest := -1
		for j, row := range rows {
			if of[j] >= 0 {
				continue
			}
			if d := w.differs(row); len(d) < len(w.Row) && (nearest < 0 || len(d) < len(f.Differs)) {
				nearest, f.Kind, f.Got, f.Differs = j, Different, row, d
			}
		}
		if nearest >= 0 {
			of[nearest] = 0
		}
		failures = append(failures, f)
	}
	for j := range rows {
		if of[j] < 0 && !spare[j] {
			failures = append(failures, Failure{Rule: name, Kind: Unexpected, Line: e.line, Got: rows[j]})
		}
	}
	return failures
}
