package simulator

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/activity"
)

func generated(t testing.TB, change func(*Config)) []Row {
	t.Helper()
	cfg := fast(nil)
	change(&cfg)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return collect(t, NewGenerator(cfg), 0)
}

func TestSameSeedSameBytes(t *testing.T) {
	sum := func(seed uint64) string {
		h := sha256.New()
		cfg := fast(h)
		cfg.Seed, cfg.Events, cfg.Disorder = seed, 50_000, 3*time.Second
		if res := mustRun(t, cfg); res.Sent != 50_000 {
			t.Fatalf("sent %d", res.Sent)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	one := sum(1)
	if again := sum(1); one != again {
		t.Errorf("the same seed gave %s and %s", one, again)
	}
	if other := sum(2); one == other {
		t.Error("two seeds gave the same")
	}
	// Integers only, so this holds on every platform. It changes when the generator does; nothing depends on the value itself.
	if want := "692c6b53a27db4c9ba889c23456457738ef448887dbdb71cc542d4cdd05d4f54"; one != want {
		t.Errorf("seed 1 gave %s, want %s", one, want)
	}
}

func TestRowsCarryTheirTime(t *testing.T) {
	last := int64(0)
	for i, r := range generated(t, func(c *Config) { c.Events = 20_000 }) {
		txn, ok := activity.ParseTime([]byte(r.Event.TxnTimestamp))
		if !ok || !r.HasTime || txn != r.TimeMS {
			t.Fatalf("row %d: time %d, but txn_timestamp %q", i, r.TimeMS, r.Event.TxnTimestamp)
		}
		if sec, ok := activity.ParseTime([]byte(r.Event.EventTime)); !ok || sec != floorTo(txn, 1000) || !strings.HasSuffix(r.Event.EventTime, " UTC") {
			t.Fatalf("row %d: event_time %q, txn_timestamp %q", i, r.Event.EventTime, r.Event.TxnTimestamp)
		}
		if txn < last {
			t.Fatalf("row %d goes back in time by %d ms", i, last-txn)
		}
		last = txn
	}
}

// TestShoppersKeepTheRule checks every stretch of one window's length, not only the windows.
func TestShoppersKeepTheRule(t *testing.T) {
	for _, c := range []struct {
		seed      uint64
		users     int
		rate      float64
		window    time.Duration
		threshold int
	}{
		{1, 20_000, 500, 10 * time.Second, 5},
		{2, 20_000, 500, 10 * time.Second, 5},
		{3, 5_200, 500, 10 * time.Second, 5}, // about as few as Validate allows
		{4, 100_000, 5000, 10 * time.Second, 5},
		{5, 20_000, 500, time.Second, 1000},
		{6, 20_000, 500, 7 * time.Second, 1},
	} {
		t.Run(fmt.Sprintf("seed %d", c.seed), func(t *testing.T) {
			rows := generated(t, func(cfg *Config) {
				cfg.Seed, cfg.Users, cfg.EventRate, cfg.Window, cfg.Threshold = c.seed, c.users, c.rate, c.window, c.threshold
				cfg.Events = 100_000
				if c.threshold > 5 {
					cfg.Attackers = nil // they would leave no room
				}
			})
			times := make(map[string][]int64)
			shoppers := 0
			for _, r := range rows {
				id, err := strconv.Atoi(r.Event.UserID)
				if err != nil || (r.Kind == "") != (id < AttackerBase) {
					t.Fatalf("user %q is of kind %q", r.Event.UserID, r.Kind)
				}
				if r.Kind == "" {
					shoppers++
					times[r.Event.UserID] = append(times[r.Event.UserID], r.TimeMS)
				}
			}
			if shoppers < len(rows)/3 {
				t.Errorf("only %d of %d events are shoppers'", shoppers, len(rows))
			}
			for user, at := range times {
				for i := c.threshold; i < len(at); i++ {
					if span := at[i] - at[i-c.threshold]; span < c.window.Milliseconds() {
						t.Fatalf("shopper %s has %d events in %d ms", user, c.threshold+1, span)
					}
				}
			}
		})
	}
}

func TestRate(t *testing.T) {
	for _, attackers := range []string{"none", "all"} {
		n := len(generated(t, func(c *Config) {
			c.Attackers = []string{attackers}
			c.Duration, c.Start = 2*time.Minute, time.Date(2019, 11, 1, 3, 0, 0, 0, time.UTC)
		}))
		want := int(500 * 120 * dayCurve[3] / 1000)
		if n < want*9/10 || n > want*11/10*6/5 {
			t.Errorf("attackers %s: %d events in 2 minutes, want about %d", attackers, n, want)
		}
	}
	sum := int64(0)
	for _, f := range dayCurve {
		sum += f
	}
	if sum != 24*1000 {
		t.Errorf("the day's average is %d/24, want 1000", sum)
	}
}

func TestShopIsCoherent(t *testing.T) {
	products := make(map[string]activity.Event)
	sessions := make(map[string]string)
	kinds := make(map[string]int)
	for _, r := range generated(t, func(c *Config) { c.Events = 50_000 }) {
		e := r.Event
		what := activity.Event{ProductID: e.ProductID, CategoryID: e.CategoryID, CategoryCode: e.CategoryCode, Brand: e.Brand, Price: e.Price}
		if was, ok := products[e.ProductID]; ok && was != what {
			t.Fatal("a product changed:", cmp.Diff(was, what))
		}
		products[e.ProductID] = what
		if was, ok := sessions[e.UserSession]; ok && was != e.UserID {
			t.Fatalf("session %s is of users %s and %s", e.UserSession, was, e.UserID)
		}
		sessions[e.UserSession] = e.UserID
		kinds[e.EventType]++
		if len(e.CategoryID) != 19 || len(e.UserSession) != 36 {
			t.Fatalf("odd event: %+v", e)
		}
	}
	for _, k := range []string{"view", "cart", "purchase", "remove_from_cart"} {
		if kinds[k] == 0 {
			t.Errorf("no %s", k)
		}
	}
	if kinds["view"] < kinds["cart"] || kinds["cart"] < kinds["remove_from_cart"] {
		t.Errorf("odd funnel: %v", kinds)
	}
}

// window of an attacker, as recomputed here
type visit struct {
	kind  Kind
	user  string
	start int64
}

func TestAttackers(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	run := func(name string, change func(*Config)) {
		t.Run(name, func(t *testing.T) {
			cfg := fast(nil)
			change(&cfg)
			rows := generated(t, change)
			g := NewGenerator(cfg)
			size := cfg.Window.Milliseconds()
			end := rows[len(rows)-1].TimeMS + 1
			if cfg.Duration > 0 {
				end = g.startMS + cfg.Duration.Milliseconds() - 1000
			}
			count := make(map[visit]int)
			times := make(map[visit][]int64)
			for _, r := range rows {
				if r.Kind == "" {
					continue
				}
				if r.TimeMS < g.startMS || r.TimeMS >= end {
					t.Errorf("%s attacks at %d, outside of %d to %d", r.Kind, r.TimeMS, g.startMS, end)
				}
				v := visit{r.Kind, r.Event.UserID, floorTo(r.TimeMS, size)}
				count[v]++
				times[v] = append(times[v], r.TimeMS)
			}
			breaks, keeps := make(map[Kind]int), make(map[Kind]int)
			flood := make(map[string]bool)
			for v, n := range count {
				if n > cfg.Threshold {
					breaks[v.kind]++
				} else {
					keeps[v.kind]++
				}
				at := times[v]
				span := at[len(at)-1] - at[0]
				switch v.kind {
				case KindSlow, KindStraddler:
					if n != cfg.Threshold {
						t.Errorf("%s has %d events in a window, want %d", v.kind, n, cfg.Threshold)
					}
				case KindBulkOrder:
					if n < cfg.Threshold+3 || n > cfg.Threshold+15 || span >= 1000 {
						t.Errorf("bulk order of %d lines in %d ms", n, span)
					}
				case KindFlood:
					flood[v.user] = true
					if n <= cfg.Threshold {
						t.Errorf("flood account with %d events", n)
					}
				}
			}
			for _, k := range Kinds() {
				switch k {
				case KindSlow, KindStraddler:
					if keeps[k] == 0 || breaks[k] > 0 {
						t.Errorf("%s: keeps the rule in %d windows, breaks it in %d", k, keeps[k], breaks[k])
					}
				default:
					if breaks[k] == 0 {
						t.Errorf("%s never breaks the rule", k)
					}
				}
			}
			if keeps[KindStraddler] < 2 {
				t.Errorf("straddler in %d windows", keeps[KindStraddler])
			}
			if len(flood) != floodAccounts {
				t.Errorf("%d accounts flood, want %d", len(flood), floodAccounts)
			}
		})
	}
	run("shortest", func(c *Config) { c.Duration = 15 * time.Second })
	run("few events", func(c *Config) { c.Events, c.EventRate, c.Users = 2000, 50, 2000 })
	run("by events", func(c *Config) { c.Events = 7500 })
	run("long", func(c *Config) { c.Duration = 5 * time.Minute; c.EventRate = 100 })
	for range 30 {
		seed, ms := rng.Uint64(), defaultStart+rng.Int64N(86_400_000)
		d := 15*time.Second + time.Duration(rng.Int64N(int64(150*time.Second)))
		run(fmt.Sprintf("seed %d start %d duration %v", seed, ms, d), func(c *Config) {
			c.Seed, c.Start, c.Duration, c.EventRate = seed, time.UnixMilli(ms), d, 100
		})
	}
	for range 5 {
		seed := rng.Uint64()
		run(fmt.Sprintf("window 1m threshold 20 seed %d", seed), func(c *Config) {
			c.Seed, c.Window, c.Threshold, c.Duration, c.EventRate = seed, time.Minute, 20, 14*time.Minute, 50
		})
	}
}

func TestAttackerShapes(t *testing.T) {
	rows := generated(t, func(c *Config) { c.Duration = 10 * time.Minute; c.EventRate = 100 })
	bySession := make(map[string][]Row)
	for _, r := range rows {
		if r.Kind != "" {
			bySession[r.Event.UserSession] = append(bySession[r.Event.UserSession], r)
		}
	}
	across := 0
	for _, s := range bySession {
		span := s[len(s)-1].TimeMS - s[0].TimeMS
		switch s[0].Kind {
		case KindBurst:
			if len(s) < 12 || len(s) > 40 || span > 8000 {
				t.Errorf("burst of %d events in %d ms", len(s), span)
			}
			if floorTo(s[0].TimeMS, 10_000) != floorTo(s[len(s)-1].TimeMS, 10_000) {
				across++
			}
		case KindFlood:
			if len(s) < 6 || len(s) > 9 {
				t.Errorf("flood account with %d events", len(s))
			}
		}
	}
	if across == 0 {
		t.Error("no burst across the end of a window")
	}
	// The straddler's 10 events lie within 3 s.
	var straddle []int64
	for _, r := range rows {
		if r.Kind == KindStraddler {
			straddle = append(straddle, r.TimeMS)
		}
	}
	for c := range slices.Chunk(straddle, 10) {
		if span := c[len(c)-1] - c[0]; len(c) != 10 || span >= 3000 {
			t.Errorf("straddler: %d events in %d ms", len(c), span)
		}
	}
}

func TestGiantShare(t *testing.T) {
	for _, d := range []time.Duration{15 * time.Second, 45 * time.Second, 5 * time.Minute} {
		rows := generated(t, func(c *Config) { c.Duration = d })
		first, last := slices.IndexFunc(rows, isGiant), len(rows)
		active, giants := 0, 0
		for c := range slices.Chunk(rows[first:last], 200) { // active: a fifth of 200 events in a row
			n := 0
			for _, r := range c {
				if isGiant(r) {
					n++
				}
			}
			if n > 40 {
				active += len(c)
				giants += n
			}
		}
		if share := float64(giants) / float64(active); share < 0.45 || share > 0.55 {
			t.Errorf("%v: the giant has %.2f of the traffic while it is active", d, share)
		}
		if part := float64(active) / float64(len(rows)); part < 0.2 || part > 0.5 {
			t.Errorf("%v: the giant is active for %.2f of the events", d, part)
		}
	}
}

func isGiant(r Row) bool { return r.Kind == KindGiant }

func TestAttackersOnAndOff(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  []Kind
	}{
		{nil, nil},
		{[]string{"none"}, nil},
		{[]string{"slow", "giant"}, []Kind{KindGiant, KindSlow}},
		{[]string{"scraper"}, []Kind{KindScraper}},
		{[]string{"library", "slow"}, []Kind{KindCardTester, KindCartHoarder, KindCouponAbuser, KindCredentialStuffer, KindPasswordGuesser, KindScraper, KindSlow}},
		{[]string{"all"}, []Kind{KindBulkOrder, KindBurst, KindFlood, KindGiant, KindSlow, KindStraddler}},
	} {
		var got []Kind
		for _, r := range generated(t, func(cfg *Config) { cfg.Attackers, cfg.Duration = c.names, 30*time.Second }) {
			if r.Kind != "" && !slices.Contains(got, r.Kind) {
				got = append(got, r.Kind)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%v: %s", c.names, d)
		}
	}
}

func BenchmarkGenerator(b *testing.B) {
	cfg := fast(nil)
	cfg.Events = b.N + 1
	g := NewGenerator(cfg)
	b.ReportAllocs()
	var r Row
	for b.Loop() {
		if g.made >= g.cfg.Events {
			g.cfg.Events += 1 << 20
		}
		if err := g.Next(&r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
