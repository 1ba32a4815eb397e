package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// variant is one line of the section rules: a program, and the rules that it evaluates.
type variant struct {
	name    string
	program string // that of the bench if empty
	rules   string // none: that of the settings
}

// theBurst is the rule from the settings, as a rule of a file: what is held against the expected results.
const theBurst = `-- rule: burst
-- critical: COUNT(*) > 10
INSERT INTO alerts SELECT user_id, COUNT(*) AS num_actions_per_watermark FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;
`

// rulesOn are further rules in windows of ten seconds with a key, for the events that a condition is about: one for each condition over the window.
func rulesOn(key, where string, having ...string) string {
	var b strings.Builder
	if where != "" {
		where = "WHERE " + where
	}
	for i, h := range having {
		fmt.Fprintf(&b, "-- rule: %s-%x-%d\nINSERT INTO alerts SELECT %s, COUNT(*) AS n FROM activity %s GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), %[4]s HAVING %[6]s;\n",
			strings.ReplaceAll(key, "_", "-"), len(where), i, key, where, h)
	}
	return b.String()
}

// variants are few alerts apart from those of burst: what is measured is what rules cost that find nothing, as nearly always.
func (b *bench) variants() []variant {
	many := func(n int) string { return fmt.Sprintf("COUNT(*) > %d", n) }
	thresholds := rulesOn("user_id", "", many(200), many(210), many(220), many(230), many(240), many(250), many(260), many(270), many(280))
	mixed := rulesOn("user_id", "", many(200), many(300)+" AND COUNT(*) FILTER (WHERE event_type = 'purchase') = 0", "COUNT(*) FILTER (WHERE event_type = 'view') > 200",
		"COUNT(*) FILTER (WHERE event_type = 'cart') > 200", "SUM(price) > 1000000", "MAX(price) > 100000", "COUNT(DISTINCT product_id) > 200", "COUNT(DISTINCT brand) > 200", "AVG(price) > 100000")
	other := rulesOn("product_id", "", many(100_000))
	out := []variant{
		{"1 rule", "", ""}, {"1 rule of a file", "", theBurst}, {"10 thresholds", "", theBurst + thresholds}, {"10 rules", "", theBurst + mixed},
		{"2 feeds", "", theBurst + other},
		{"4 feeds", "", theBurst + other + rulesOn("user_id", "event_type = 'cart'", many(200)) + rulesOn("user_id", "event_type = 'purchase'", many(200))},
	}
	if b.beside != "" {
		out = slices.Insert(out, 0, variant{"beside", b.beside, ""})
	}
	return out
}

// rules measures what rules cost, and another build beside this one.
func (b *bench) rules(ctx context.Context) error {
	load, err := b.referenceBacklog(ctx, b.events, 4)
	if err != nil {
		return err
	}
	defer func() { b.tidy(ctx, load.topic) }()
	b.report.throughputHead(fmt.Sprintf("Rules: %d events, %d partitions, keyed by category, %d results of burst", load.events, load.partitions, len(load.want)))
	variants := b.variants()
	var all []run
	var wrong error
	for round := range b.rounds {
		base, err := b.goCount(ctx, load)
		if err != nil {
			return err
		}
		runs := []run{base}
		for i := range variants {
			r, err := b.variant(ctx, load, variants[(i+round)%len(variants)])
			if err != nil {
				return err
			}
			runs = append(runs, r)
		}
		relate(runs)
		for i := range runs {
			runs[i].Round = round + 1
			wrong = errors.Join(wrong, runs[i].check())
			if err := b.report.run("rules", runs[i]); err != nil {
				return err
			}
		}
		all = append(all, runs...)
	}
	return errors.Join(wrong, b.report.medians(all), b.report.rules(all))
}

func (b *bench) variant(ctx context.Context, load *backlog, v variant) (run, error) {
	if v.program != "" {
		mine := b.program
		b.program = v.program
		defer func() { b.program = mine }()
	}
	r, err := b.bothWith(ctx, load, v.rules)
	r.System = v.name
	return r, err
}

// apply makes rules the first revision.
func (b *bench) apply(ctx context.Context, pipe pipeline, rules string) error {
	path := b.file("rules.sql")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		return fmt.Errorf("write the rules: %w", err)
	}
	p, err := b.spate(ctx, pipe, "rules", "apply", "--yes", path)
	if err != nil {
		return err
	}
	defer p.stop()
	return p.wait(ctx)
}

// rules prints what the section is for: by round, because only what ran side by side can be compared.
func (r *report) rules(all []run) error {
	cpu := map[string]map[int]float64{}
	for _, m := range all {
		if cpu[m.System] == nil {
			cpu[m.System] = map[int]float64{}
		}
		cpu[m.System][m.Round] = m.CPU
	}
	r.printf("\nCPU of router and detector in the same round: median [lowest, highest]")
	for _, c := range []struct {
		what, format, a, b string
		of                 func(a, b float64) float64
	}{
		{"this build, of the one beside", "%.3f", "1 rule", "beside", func(a, b float64) float64 { return a / b }},
		{"the rule of a file, of that of the settings", "%.3f", "1 rule of a file", "1 rule", func(a, b float64) float64 { return a / b }},
		{"ten thresholds on one count, of one", "%.2f", "10 thresholds", "1 rule of a file", func(a, b float64) float64 { return a / b }},
		{"ten rules on one key, of one", "%.2f", "10 rules", "1 rule of a file", func(a, b float64) float64 { return a / b }},
		{"a second feed, us/event", "%+.2f", "2 feeds", "1 rule of a file", func(a, b float64) float64 { return a - b }},
		{"each of three more feeds, us/event", "%+.2f", "4 feeds", "1 rule of a file", func(a, b float64) float64 { return (a - b) / 3 }},
	} {
		var of []float64
		for round, a := range cpu[c.a] {
			if b := cpu[c.b][round]; b > 0 {
				of = append(of, c.of(a, b))
			}
		}
		if len(of) == 0 {
			continue
		}
		slices.Sort(of)
		r.printf("  %-46s "+c.format+" ["+c.format+", "+c.format+"]", c.what, of[len(of)/2], of[0], of[len(of)-1])
	}
	return nil
}
