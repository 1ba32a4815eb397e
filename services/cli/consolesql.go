package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"spate/services/query"
	"spate/services/web"
	"spate/shared/kafka"
	"spate/shared/rule"
)

const (
	// studioTime, studioBytes and studioRows bound a statement of the studio.
	studioTime  = 20 * time.Second
	studioBytes = 2 << 30
	studioRows  = 100_000
	// studioAtOnce bounds the statements that run at once, and liveAtOnce those that are followed, each for liveTime.
	studioAtOnce, liveAtOnce = 2, 4
	liveTime                 = 15 * time.Minute
	// studioIdle is after which a silent partition no longer holds windows open.
	studioIdle = 5 * time.Second
	// studioFile is how a text is called in messages.
	studioFile = "rules"
)

// database opens the log for a statement.
func (p *consoleParts) database(ctx context.Context, since time.Duration) (*query.DB, error) {
	a, done, err := p.asker(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	cfg := query.Config{Log: &query.Kafka{Config: *p.kafka, Names: kafka.NamesFor(p.topic)}, Events: p.events, MaxAhead: p.maxAhead, Lateness: p.lateness, IdleTimeout: studioIdle}
	if since > 0 {
		cfg.From = time.Now().Add(-since)
	}
	if newest, ok := a.Newest(); ok && a.Unreadable() == nil {
		cfg.Lateness, cfg.MaxAhead = time.Duration(newest.LatenessMS)*time.Millisecond, time.Duration(newest.MaxAheadMS)*time.Millisecond
		if err := declare(&cfg, newest.Set); err != nil {
			return nil, err
		}
	}
	if st, err := p.store(); err != nil {
		cfg.NoStore = err.Error()
	} else {
		cfg.Store = st
	}
	return query.Open(ctx, cfg)
}

// Run implements web.Query.
func (p *consoleParts) Run(ctx context.Context, statement string, since time.Duration, columns func([]string, int) error, row func([]any) error) (web.Result, error) {
	profile := &query.Profile{}
	r, err := p.run(ctx, p.running, statement, since, query.Bounds{Rows: studioRows, Bytes: studioBytes, Timeout: studioTime}, query.Output{Columns: func(names []string) error { return columns(names, keyColumn(statement, names)) }, Row: row, Windows: true, Profile: profile})
	if r.Rule {
		r.Profile = profile
	}
	return r, err
}

// Follow implements web.Query.
func (p *consoleParts) Follow(ctx context.Context, statement string, since time.Duration, columns func([]string) error, row func([]any) error) (web.Result, error) {
	return p.run(ctx, p.following, statement, since, query.Bounds{Bytes: studioBytes, Timeout: liveTime, Follow: true}, query.Output{Columns: columns, Row: row, Windows: true})
}

// run runs a statement while it has one of the places.
func (p *consoleParts) run(ctx context.Context, places chan struct{}, statement string, since time.Duration, b query.Bounds, out query.Output) (web.Result, error) {
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		return web.Result{}, fmt.Errorf("%d statements are already running; try again when one has finished", cap(places))
	}
	db, err := p.database(ctx, since)
	if err != nil {
		return web.Result{}, err
	}
	defer func() { _ = db.Close() }()
	s, err := db.Run(ctx, statement, b, out)
	var wrong *query.Error
	if errors.As(err, &wrong) {
		return web.Result{}, web.BadRequest(errors.New(wrong.Format()))
	}
	r := web.Result{Rows: s.Rows, Read: s.Read, Of: s.Of, Invalid: s.Invalid, Late: s.Late, Notes: s.Notes, Elapsed: s.Elapsed.Round(time.Millisecond), Rule: s.Rule}
	if s.Partial {
		r.Partial = strings.TrimPrefix(s.By, "max-")
	}
	return r, err
}

// keyColumn returns the index of the column that is the key of a rule; -1 if the statement is not a rule or the key has several columns.
func keyColumn(statement string, names []string) int {
	set, errs := rule.Compile(inserting(statement), rule.Options{Name: studioFile, Tables: []*rule.Table{rule.Activity()}})
	if !query.IsRule(statement) || len(errs) > 0 || len(set.Rules[0].Keys) != 1 {
		return -1
	}
	return slices.Index(names, set.Rules[0].Keys[0].Name)
}
