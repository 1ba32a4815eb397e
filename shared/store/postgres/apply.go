package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

// move takes a slice of moves, which has each id once, as arrays. It returns a row for each: what the snapshot had before, and, if it moved, the
// state that it moved from, which is empty in a row that was inserted. That may be another than the snapshot's.
const move = `WITH next AS (
  SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::text[],
    $14::text[], $15::text[], $16::boolean[], $17::bigint[], $18::text[], $19::text[], $20::text[])
  WITH ORDINALITY AS n (id, rule, user_id, state, severity, count, threshold, window_start, window_end, first_event_at, last_event_at, evidence, key, columns, at_least, rule_revision, mode, summary, runbook, n)
), seen AS (
  SELECT next.*, a.rule AS was_rule, a.user_id AS was_user_id, a.state AS was_state, a.count AS was_count, a.window_start AS was_start, a.window_end AS was_end, a.columns::text AS was_columns
  FROM next LEFT JOIN alert a ON a.id = next.id
), moved AS (
  INSERT INTO alert (id, rule, user_id, state, severity, count, threshold, window_start, window_end, first_event_at, last_event_at, evidence, key, columns, at_least, rule_revision, mode, summary, runbook, opened_at, closed_at)
  SELECT id, rule, user_id, state, severity, count, threshold, window_start, window_end, first_event_at, last_event_at, evidence::jsonb,
    key::json, columns::json, at_least, rule_revision, mode, summary, runbook, $1::timestamptz, CASE state WHEN 'closed' THEN $1::timestamptz END
  FROM seen WHERE was_state IS NULL OR was_state = 'opened' AND state <> 'opened' OR was_state = 'raised' AND state = 'closed'
  ORDER BY id COLLATE "C"
  ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, severity = excluded.severity, count = excluded.count, threshold = excluded.threshold,
    first_event_at = excluded.first_event_at, last_event_at = excluded.last_event_at, evidence = excluded.evidence, closed_at = excluded.closed_at,
    columns = excluded.columns, at_least = excluded.at_least, rule_revision = excluded.rule_revision, mode = excluded.mode, summary = excluded.summary, runbook = excluded.runbook, previous = alert.state
  WHERE (alert.state = 'opened' AND excluded.state <> 'opened' OR alert.state = 'raised' AND excluded.state = 'closed')
    AND alert.rule = excluded.rule AND alert.user_id = excluded.user_id
    AND alert.window_start = excluded.window_start AND alert.window_end = excluded.window_end
  RETURNING id, previous
)
SELECT seen.n, moved.previous, seen.was_rule, seen.was_user_id, seen.was_state, seen.was_count, seen.was_start, seen.was_end, seen.was_columns
FROM seen LEFT JOIN moved ON moved.id = seen.id`

// selectIdentity is what tells a repetition from a contradiction.
const selectIdentity = `SELECT id, rule, user_id, state, count, window_start, window_end, columns::text FROM alert WHERE id = ANY ($1::text[])`

// planned makes the server plan each statement for the table as it is. A plan that was made for an empty table and kept would read all
// of it for every slice once it is full.
const planned = pgx.QueryExecModeCacheDescribe

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, now time.Time, records []alert.Record, to ...notify.Endpoint) (store.Applied, error) {
	bound, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	now = time.UnixMilli(now.UnixMilli())
	plan := store.NewPlan(records)
	if len(plan.Rounds) == 0 {
		return plan.Applied(), nil
	}
	events, err := s.apply(bound, now, plan, to, apply)
	if refused(err) {
		plan = store.NewPlan(records)
		events, err = s.apply(bound, now, plan, to, halve)
	}
	if err != nil {
		return store.Applied{}, fmt.Errorf("store %d alerts: %w", len(records), s.translate(ctx, err))
	}
	applied := plan.Applied()
	applied.Events = events
	return applied, nil
}

// apply makes the rounds of a plan in one transaction, and writes their incidents and notifications.
func (s *Store) apply(ctx context.Context, now time.Time, plan *store.Plan, to []notify.Endpoint, round func(context.Context, pgx.Tx, time.Time, *store.Plan, []store.Move) error) (events []incident.Event, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, moves := range plan.Rounds {
			if err := round(ctx, tx, now, plan, moves); err != nil {
				return err
			}
		}
		var err error
		if events, err = fold(ctx, tx, now, plan.Changed()); err != nil {
			return err
		}
		return s.send(ctx, tx, now, plan.Changed(), events, to)
	})
	return events, err
}

// halve makes moves that the database may refuse some of; those are rejected, in the end each alone.
func halve(ctx context.Context, tx pgx.Tx, now time.Time, plan *store.Plan, moves []store.Move) error {
	err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error { return apply(ctx, savepoint, now, plan, moves) })
	switch {
	case !refused(err):
		return err
	case len(moves) > 1:
		half := len(moves) / 2
		if err := halve(ctx, tx, now, plan, moves[:half]); err != nil {
			return err
		}
		return halve(ctx, tx, now, plan, moves[half:])
	case len(moves[0].Records) > 1:
		for _, m := range plan.Split(moves[0]) {
			if err := halve(ctx, tx, now, plan, []store.Move{m}); err != nil {
				return err
			}
		}
		return nil
	}
	plan.Reject(moves[0].Records[0], fmt.Errorf("%w: %s: %w", store.ErrInvalid, moves[0].Next.ID, err))
	return nil
}

// apply makes moves that have each id once, and settles them.
func apply(ctx context.Context, tx pgx.Tx, now time.Time, plan *store.Plan, moves []store.Move) error {
	args, err := arrays(now, moves)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, move, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	before := make([]*alert.Record, len(moves))
	again := make(map[string]int)
	for rows.Next() {
		var n int64
		var previous *string
		var rule, user, state, columns *string
		var count *int64
		var start, end *time.Time
		if err := rows.Scan(&n, &previous, &rule, &user, &state, &count, &start, &end, &columns); err != nil {
			return err
		}
		m := moves[n-1]
		switch {
		case previous != nil && *previous == "":
		case previous != nil:
			// It was about the same, whatever the snapshot had.
			was := m.Next
			was.State = alert.State(*previous)
			before[n-1] = &was
		case state == nil:
			again[m.Next.ID] = int(n - 1)
		default:
			was := identity(*rule, *user, *state, *count, *start, *end, columns)
			if m.Forward(was) {
				again[m.Next.ID] = int(n - 1)
			} else {
				before[n-1] = &was
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := readAgain(ctx, tx, again, before); err != nil {
		return err
	}
	for i, m := range moves {
		plan.Settle(m, before[i])
	}
	return nil
}

// readAgain reads what others stored in the meantime.
func readAgain(ctx context.Context, q querier, again map[string]int, before []*alert.Record) error {
	if len(again) == 0 {
		return nil
	}
	ids := make([]string, 0, len(again))
	for id := range again {
		ids = append(ids, id)
	}
	rows, err := q.Query(ctx, selectIdentity, planned, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, rule, user, state string
		var count int64
		var start, end time.Time
		var columns *string
		if err := rows.Scan(&id, &rule, &user, &state, &count, &start, &end, &columns); err != nil {
			return err
		}
		was := identity(rule, user, state, count, start, end, columns)
		before[again[id]] = &was
		delete(again, id)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(again) > 0 {
		return fmt.Errorf("%d alerts were deleted while they were being stored", len(again))
	}
	return nil
}

func identity(rule, user, state string, count int64, start, end time.Time, columns *string) alert.Record {
	r := alert.Record{Rule: rule, UserID: json.RawMessage(user), State: alert.State(state), Count: count, WindowStart: start.UTC(), WindowEnd: end.UTC()}
	if columns != nil {
		r.Columns = json.RawMessage(*columns)
	}
	return r
}

// arrays are the arguments of move.
func arrays(now time.Time, moves []store.Move) ([]any, error) {
	n := len(moves)
	ids, rules, users, states, severities, evidence := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	counts, thresholds := make([]int64, n), make([]int64, n)
	keys, columns, atLeast, revisions, modes := make([]*string, n), make([]*string, n), make([]bool, n), make([]int64, n), make([]string, n)
	summaries, runbooks := make([]string, n), make([]string, n)
	starts, ends, firsts, lasts := make([]time.Time, n), make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
	for i, m := range moves {
		r := m.Next
		e, err := json.Marshal(r.Evidence)
		if err != nil {
			return nil, fmt.Errorf("evidence of alert %s: %w", r.ID, err)
		}
		ids[i], rules[i], users[i], states[i], severities[i], evidence[i] = r.ID, r.Rule, string(r.UserID), string(r.State), string(r.Severity), string(e)
		counts[i], thresholds[i] = r.Count, r.Threshold
		starts[i], ends[i], firsts[i], lasts[i] = r.WindowStart, r.WindowEnd, r.FirstEventAt, r.LastEventAt
		keys[i], columns[i], atLeast[i], revisions[i], modes[i] = textOrNull(r.Key), textOrNull(r.Columns), r.AtLeast, r.RuleRevision, r.Mode
		summaries[i], runbooks[i] = r.Summary, r.Runbook
	}
	return []any{planned, now, ids, rules, users, states, severities, counts, thresholds, starts, ends, firsts, lasts, evidence,
		keys, columns, atLeast, revisions, modes, summaries, runbooks}, nil
}

// textOrNull is JSON as it is stored: NULL if there is none.
func textOrNull(v json.RawMessage) *string {
	if v == nil {
		return nil
	}
	text := string(v)
	return &text
}
