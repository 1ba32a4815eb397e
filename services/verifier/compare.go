package verifier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"spate/shared/alert"
)

const maxExamples = 10

// Diff says how alerts differ from the reference.
type Diff struct {
	Rows    int `json:"rows"`    // of the reference
	Missing int `json:"missing"` // rows of the reference without an alert
	Wrong   int `json:"wrong"`   // rows whose alert has another count, or whose alerts disagree
	Extra   int `json:"extra"`   // users and windows with an alert, but without a row of the reference
	// Examples are differences in words, at most 10, the earliest windows first.
	Examples []string `json:"examples,omitempty"`
}

// Exact reports whether the alerts are those of the reference.
func (d Diff) Exact() bool { return d.Missing == 0 && d.Wrong == 0 && d.Extra == 0 }

// Compare compares the closed alerts in got with the rows of a reference. Alerts may come in any order, and repeatedly.
func Compare(want []Row, got []alert.Record) Diff {
	d := Diff{Rows: len(want)}
	counts := make(map[pane][]int64, len(got))
	for _, r := range FromRecords(got) {
		p := pane{r.User, r.WindowStart}
		if !slices.Contains(counts[p], r.Count) {
			counts[p] = append(counts[p], r.Count)
		}
	}
	type difference struct {
		row  Row
		text string
	}
	var found []difference
	for _, w := range want {
		p := pane{w.User, w.WindowStart}
		switch have := counts[p]; {
		case len(have) == 0:
			d.Missing++
			found = append(found, difference{w, fmt.Sprintf("missing: %s: %d events, no alert", place(w), w.Count)})
		case len(have) > 1:
			d.Wrong++
			found = append(found, difference{w, fmt.Sprintf("wrong: %s: %d events, alerts with counts %v", place(w), w.Count, have)})
		case have[0] != w.Count:
			d.Wrong++
			found = append(found, difference{w, fmt.Sprintf("wrong: %s: %d events, alert says %d", place(w), w.Count, have[0])})
		}
		delete(counts, p)
	}
	for p, have := range counts {
		d.Extra++
		r := Row{User: p.user, WindowStart: p.start}
		found = append(found, difference{r, fmt.Sprintf("extra: %s: alert with count %d, none expected", place(r), have[0])})
	}
	slices.SortFunc(found, func(a, b difference) int { return compareRows(a.row, b.row) })
	for _, f := range found[:min(len(found), maxExamples)] {
		d.Examples = append(d.Examples, f.text)
	}
	return d
}

func place(r Row) string {
	return fmt.Sprintf("user %s, window %s", r.User, time.UnixMilli(r.WindowStart).UTC().Format(time.RFC3339Nano))
}

// FromRecords returns the closed ones of records as rows, in their order. Those of rules of a rules file are left out.
func FromRecords(records []alert.Record) []Row {
	var rows []Row
	for _, r := range records {
		if r.State == alert.Closed && r.Key == nil {
			rows = append(rows, Row{canonical(r.UserID), r.WindowStart.UnixMilli(), r.Count})
		}
	}
	return rows
}

// canonical undoes the escapes that json.Marshal adds to a RawMessage: <, > and & of a user arrive as \u003c and so on.
func canonical(token json.RawMessage) string {
	if !bytes.ContainsRune(token, '\\') {
		return string(token)
	}
	var text string
	if json.Unmarshal(token, &text) != nil {
		return string(token)
	}
	return quote(text)
}
