package verifier

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"spate/shared/alert"
)

// RuleDiff is how the alerts of a rule differ from the reference.
type RuleDiff struct {
	Rule string `json:"rule"`
	Rows int    `json:"rows"` // of the reference
	// Missing are rows of the reference without an alert, Extra alerts without a row. An alert with another value is one of each.
	Missing int `json:"missing"`
	Extra   int `json:"extra"`
	// Uncompared are rows without an alert that have more distinct values than spate counts: for them, HAVING may be unknown.
	Uncompared int `json:"uncompared,omitempty"`
	// Refused says why the reference cannot evaluate the rule; empty if it can.
	Refused string `json:"refused,omitempty"`
	// Examples are differences in words, at most 10.
	Examples []string `json:"examples,omitempty"`
}

// Exact reports whether the alerts of the rule are those of the reference.
func (d RuleDiff) Exact() bool { return d.Refused == "" && d.Missing == 0 && d.Extra == 0 }

// CompareRules holds the closed alerts among got against the rows of a reference, rule by rule.
func CompareRules(want RulesReport, got []alert.Record) []RuleDiff {
	var out []RuleDiff
	for _, r := range want.Rules {
		d := RuleDiff{Rule: r.Rule, Rows: len(r.Rows)}
		if r.Refused != nil {
			d.Refused = r.Refused.Error()
			out = append(out, d)
			continue
		}
		rows := map[string]int{} // with sums of DOUBLE rounded, which SQLite adds up in another order
		for i, row := range r.Rows {
			rows[rounded(r.JSON(i), row.Values)]++
		}
		for _, a := range got {
			if a.Rule != r.Rule || a.State != alert.Closed {
				continue
			}
			line, values := lineOf(a, r.Columns)
			key := rounded(line, values)
			if rows[key] == 0 {
				d.Extra++
				d.example("extra: " + line)
				continue
			}
			rows[key]--
		}
		for i, row := range r.Rows {
			key := rounded(r.JSON(i), row.Values)
			if rows[key] > 0 {
				rows[key]--
				if row.AtLeast {
					d.Uncompared++
					continue
				}
				d.Missing++
				d.example("missing: " + r.JSON(i))
			}
		}
		out = append(out, d)
	}
	return out
}

func (d *RuleDiff) example(text string) {
	if len(d.Examples) < maxExamples {
		d.Examples = append(d.Examples, text)
	}
}

// lineOf is an alert as a row with the columns: those that the record has anyway are the bounds of the window and the user.
func lineOf(a alert.Record, columns []string) (line string, values []json.RawMessage) {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(a.Columns, &members) // it has been checked
	b := []byte{'{'}
	for i, name := range columns {
		value := string(members[name])
		switch {
		case name == "window_start":
			value = a.WindowStart.Format(`"2006-01-02T15:04:05.000"`)
		case name == "window_end":
			value = a.WindowEnd.Format(`"2006-01-02T15:04:05.000"`)
		case name == "user_id" && a.IsUser():
			value = string(a.UserID)
		case a.Key == nil: // the rule without a rules file
			value = strconv.FormatInt(a.Count, 10)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(append(b, '"'), name...), `":`...), value...)
		values = append(values, json.RawMessage(value))
	}
	return string(append(b, '}')), values
}

// rounded is a row whose floating-point numbers have ten digits.
func rounded(line string, values []json.RawMessage) string {
	if !slices.ContainsFunc(values, isDouble) {
		return line
	}
	var b []byte
	for _, v := range values {
		text := string(v)
		if f, err := strconv.ParseFloat(text, 64); err == nil && isDouble(v) {
			text = strconv.FormatFloat(math.Round(f*1e6)/1e6, 'g', 10, 64)
		}
		b = append(append(b, text...), ',')
	}
	return string(b)
}

// isDouble reports whether a value is a number with a point or an exponent.
func isDouble(v json.RawMessage) bool {
	return len(v) > 0 && (v[0] == '-' || v[0] >= '0' && v[0] <= '9') && bytes.ContainsAny(v, ".eE")
}
