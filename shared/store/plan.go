package store

import (
	"cmp"
	"slices"

	"spate/shared/alert"
)

// Plan is how a slice of records can be applied with one statement for many alerts, as if each record had been applied in its turn:
// what the records of one alert come to is one [Move], and the rounds, one after the other, have each alert once. There is one round
// unless records contradict each other within the slice. An adapter makes the moves of a round, then settles each.
type Plan struct {
	// Rounds have their moves by id (bytewise), so that those who lock rows in this order do not wait for each other in a circle.
	Rounds [][]Move

	records []alert.Record // prepared
	applied Applied
}

// Move is what some records of one alert, all about the same rule, user and window, come to.
type Move struct {
	Next    alert.Record // what the alert becomes, if it is not there yet or is behind: the first of those whose state is the highest
	Records []int        // where they are in the slice
}

// NewPlan prepares records; what cannot be stored is rejected.
func NewPlan(records []alert.Record) *Plan {
	p := &Plan{records: make([]alert.Record, len(records)), applied: Applied{Changed: make([]bool, len(records))}}
	type place struct{ round, move int }
	last := make(map[string]place, len(records))
	for i, r := range records {
		r, err := Prepare(r)
		if err != nil {
			p.Reject(i, err)
			continue
		}
		p.records[i] = r
		at, ok := last[r.ID]
		if ok {
			m := &p.Rounds[at.round][at.move]
			if sameAlert(m.Next, r) {
				m.Records = append(m.Records, i)
				if r.State.Rank() > m.Next.State.Rank() {
					m.Next = r
				}
				continue
			}
			at.round++
		}
		if at.round == len(p.Rounds) {
			p.Rounds = append(p.Rounds, nil)
		}
		at.move = len(p.Rounds[at.round])
		p.Rounds[at.round] = append(p.Rounds[at.round], Move{Next: r, Records: []int{i}})
		last[r.ID] = at
	}
	for _, round := range p.Rounds {
		slices.SortFunc(round, func(a, b Move) int { return cmp.Compare(a.Next.ID, b.Next.ID) })
	}
	return p
}

// Split returns a move for each record of m, to be made in this order: for a database that refuses m as a whole.
func (p *Plan) Split(m Move) []Move {
	var out []Move
	for _, i := range m.Records {
		out = append(out, Move{Next: p.records[i], Records: []int{i}})
	}
	return out
}

// Forward reports whether m moves an alert that is stored as before on.
func (m Move) Forward(before alert.Record) bool { return forward(before, m.Next) }

func forward(before, next alert.Record) bool {
	return next.State.Rank() > before.State.Rank() && sameAlert(before, next)
}

// Settle notes what became of the records of m. before is what was stored before the move, of which only rule, user, window, state,
// count and columns matter; nil is nothing.
func (p *Plan) Settle(m Move, before *alert.Record) {
	for _, i := range m.Records {
		next := p.records[i]
		if before == nil || forward(*before, next) {
			p.applied.Changed[i], before = true, &next
		} else if err := Contradiction(*before, next); err != nil {
			p.Reject(i, err)
		}
	}
}

// Reject notes that the i-th record changed nothing, and never will.
func (p *Plan) Reject(i int, err error) {
	p.applied.Rejected = append(p.applied.Rejected, Rejection{Index: i, Err: err})
}

// Changed returns the records that changed something, prepared, after all is settled.
func (p *Plan) Changed() []alert.Record {
	var out []alert.Record
	for i, changed := range p.applied.Changed {
		if changed {
			out = append(out, p.records[i])
		}
	}
	return out
}

// Applied returns what became of the records, after all is settled.
func (p *Plan) Applied() Applied {
	slices.SortStableFunc(p.applied.Rejected, func(a, b Rejection) int { return cmp.Compare(a.Index, b.Index) })
	return p.applied
}
