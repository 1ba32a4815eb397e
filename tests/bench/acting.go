package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/incident"
)

// actingRate is how many events a second there are while it is measured how soon people and systems can act.
const actingRate = 20_000

// critical is what the rule of the section calls so: more events than this.
const critical = 8

const actingRule = `-- rule: burst
-- critical: COUNT(*) > 8
-- decision: challenge 10m
INSERT INTO alerts SELECT user_id, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND))
GROUP BY user_id, window_start, window_end
HAVING COUNT(*) > 5;
`

// acted is a measured line: from the append of an event, by the broker's clock, to when somebody can act, by the clock of the same machine.
type acted struct {
	What    string  `json:"what"`
	Sent    float64 `json:"sent_events_per_s"`
	Seconds float64 `json:"seconds"`
	Cases   int     `json:"cases"`
	Missing int     `json:"missing"`
	P50     float64 `json:"p50_ms"`
	P90     float64 `json:"p90_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

// firsts are when something was first seen of users.
type firsts struct {
	mu sync.Mutex
	at map[int64]int64 // ms
}

func (f *firsts) see(user int64, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, seen := f.at[user]; !seen {
		f.at[user] = at.UnixMilli()
	}
}

// acting measures how soon a pager for what is critical is called, and how soon a replica of spate decide says that a user is flagged.
func (b *bench) acting(ctx context.Context) error {
	calls, flags := &firsts{at: map[int64]int64{}}, &firsts{at: map[int64]int64{}}
	hook, err := listen(func(w http.ResponseWriter, r *http.Request) {
		at := time.Now()
		body, err := io.ReadAll(r.Body)
		var m struct {
			Data incident.Incident `json:"data"`
		}
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		var key struct {
			User int64 `json:"user_id"`
		}
		if err == nil {
			err = json.Unmarshal(m.Data.Key, &key)
		}
		if err != nil {
			b.say("a call that is not about an incident: %v", err)
			return
		}
		calls.see(key.User, at)
	})
	if err != nil {
		return err
	}
	defer hook.Close()
	endpoints := b.file("acting.yaml")
	text := fmt.Sprintf("endpoints: [{name: pager, url: %q, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, min_severity: critical, allow_private: true}]\n", "http://"+hook.Addr)
	if err := os.WriteFile(endpoints, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the endpoints: %w", err)
	}
	database := b.database
	if database == "" {
		database = b.file("acting.db")
	}
	s := &services{}
	if s.pipeline, err = b.pipeline(ctx, b.name("acting"), 4); err != nil {
		return err
	}
	b.made[s.names.Decisions] = struct{}{}
	if err := b.apply(ctx, s.pipeline, actingRule); err != nil {
		return err
	}
	var alerter, decider *process
	defer func() {
		for _, p := range []*process{decider, alerter} {
			if p != nil {
				p.stop()
			}
		}
		if s.router != nil && s.detector != nil {
			b.endOf(ctx, s)
		}
	}()
	if s.router, err = b.spate(ctx, s.pipeline, "route"); err == nil {
		s.detector, err = b.spate(ctx, s.pipeline, "detect")
	}
	if err == nil {
		alerter, err = b.spate(ctx, s.with("SPATE_DATABASE_URL="+database, "SPATE_ENDPOINTS="+endpoints), "alert")
	}
	if err == nil {
		decider, err = b.spate(ctx, s.pipeline, "decide")
	}
	if err == nil {
		err = ready(ctx, s.router, s.detector, alerter, decider)
	}
	if err != nil {
		return err
	}
	asking, enough := context.WithCancel(ctx)
	defer enough()
	asked := make(chan error, 1)
	go func() { asked <- follow(asking, decider, flags) }()

	b.say("acting at %d events/s for %v", actingRate, b.latencyFor)
	began := time.Now()
	sending, stop := context.WithTimeout(ctx, warmUp+b.latencyFor)
	defer stop()
	n, err := b.send(sending, traffic{topic: s.names.Activity, rate: actingRate, pick: crowd(actingRate, 100)}, nil)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	sent := acted{Seconds: time.Since(began).Seconds(), Sent: float64(n) / time.Since(began).Seconds()}
	if err := b.caughtUp(ctx, s, b.patience); err != nil {
		return err
	}
	wait(ctx, 5*time.Second) // for the last ones, which count as missing after it
	enough()
	if err := <-asked; err != nil {
		return err
	}
	b.report.printf("\nActing: from the append of the event to the pager's call, and to the answer of spate decide, ms")
	b.report.printf(actingFormat, "what", "sent ev/s", "p50", "p90", "p99", "max", "cases", "missing")
	var wrong error
	for _, c := range []struct {
		what   string
		passes int
		seen   *firsts
	}{{"pager is called", critical, calls}, {"decide flags", threshold, flags}} {
		line := sent
		line.What = c.what
		if err := b.actedOn(ctx, s, began.Add(warmUp), c.passes, c.seen, &line); err != nil {
			return err
		}
		if err := b.report.acting(line); err != nil {
			return err
		}
		if line.Missing > 0 {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %d users are missing", c.what, line.Missing))
		}
	}
	return wrong
}

const actingFormat = "%-16s %10s %8s %8s %8s %8s %8s %8s"

func (r *report) acting(a acted) error {
	r.printf(actingFormat, a.What, number(a.Sent, 0), number(a.P50, 0), number(a.P90, 0), number(a.P99, 0), number(a.Max, 0), fmt.Sprint(a.Cases), fmt.Sprint(a.Missing))
	return r.json("acting", a)
}

// listen serves on a free port of this machine.
func listen(h http.HandlerFunc) (*http.Server, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	srv := &http.Server{Addr: l.Addr().String(), Handler: h, ReadHeaderTimeout: grace}
	go func() { _ = srv.Serve(l) }() // until it is closed
	return srv, nil
}

// follow asks a decider again and again what has changed, until ctx ends.
func follow(ctx context.Context, p *process, flags *firsts) error {
	for page := "/v1/decisions/stream?startup=true"; ctx.Err() == nil; page = "/v1/decisions/stream" {
		out, err := p.get(ctx, page, 10*time.Second)
		if ctx.Err() != nil {
			return nil
		}
		at := time.Now()
		var changes struct {
			New []struct {
				Value int64 `json:"value,string"`
			} `json:"new"`
		}
		if err == nil {
			err = json.Unmarshal(out, &changes)
		}
		if err != nil {
			return fmt.Errorf("decisions: %w", err)
		}
		for _, d := range changes.New {
			flags.see(d.Value, at)
		}
		wait(ctx, 5*time.Millisecond)
	}
	return nil
}

// actedOn reads the topic of events again: an attacker, of whom there are events in one window, is a case from the event on that passes a bound.
func (b *bench) actedOn(ctx context.Context, s *services, from time.Time, bound int, seen *firsts, line *acted) error {
	appended := map[pair][]int64{}
	if err := b.each(ctx, s.names.Activity, func(r *kgo.Record) error {
		user, ts, err := scanEvent(r.Value)
		if err == nil && user >= firstAttacker {
			w := pair{user, ts - ts%10_000}
			appended[w] = append(appended[w], r.Timestamp.UnixMilli())
		}
		return err
	}); err != nil {
		return err
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	var ms []float64
	for w, at := range appended {
		if len(at) <= bound {
			continue
		}
		slices.Sort(at) // partitions are read one beside the other
		acted, ok := seen.at[w.user]
		switch {
		case !ok:
			line.Missing++
		case at[bound] >= from.UnixMilli():
			ms = append(ms, float64(acted-at[bound]))
		}
	}
	slices.Sort(ms)
	line.Cases = len(ms)
	line.P50, line.P90, line.P99, line.Max = quantile(ms, 0.5), quantile(ms, 0.9), quantile(ms, 0.99), quantile(ms, 1)
	return nil
}
