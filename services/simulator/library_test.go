package simulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func withLibrary(cfg *Config) {
	cfg.Attackers, cfg.Innocents = []string{"all", "library"}, []string{"all"}
}

func TestLibrarySameSeedSameBytes(t *testing.T) {
	h := sha256.New()
	cfg := fast(h)
	withLibrary(&cfg)
	cfg.Events = 100_000
	mustRun(t, cfg)
	if got, want := hex.EncodeToString(h.Sum(nil)), "a2ce1692afe6a59c40b7c661ad4e1bc15ca88b1806a2b50db653f8298a74c362"; got != want {
		t.Errorf("seed 1 gave %s, want %s", got, want)
	}
}

// TestOldEventsStay: the events that there were before carry no member that they did not have.
func TestOldEventsStay(t *testing.T) {
	members := []string{"brand", "category_code", "category_id", "event_time", "event_type", "price", "product_id", "txn_timestamp", "user_id", "user_session"}
	more := make(map[Kind][]string)
	for _, r := range generated(t, func(c *Config) { withLibrary(c); c.Duration = 2 * time.Minute }) {
		var m map[string]any
		if err := json.Unmarshal(r.AppendJSON(nil), &m); err != nil {
			t.Fatal(err)
		}
		for name := range m {
			if !slices.Contains(members, name) && !slices.Contains(more[r.Kind], name) {
				more[r.Kind] = append(more[r.Kind], name)
			}
		}
	}
	for _, names := range more {
		slices.Sort(names)
	}
	if d := cmp.Diff(map[Kind][]string{
		KindCredentialStuffer: {"ip", "user_agent"}, KindPasswordGuesser: {"ip", "user_agent"},
		KindCouponAbuser: {"coupon", "ip", "user_agent"}, KindOffice: {"coupon", "ip", "user_agent"},
	}, more); d != "" {
		t.Error(d)
	}
}

// attacksOf returns the rows of every attack.
func attacksOf(rows []Row) map[*Attack][]Row {
	out := make(map[*Attack][]Row)
	for _, r := range rows {
		if r.Attack != nil {
			out[r.Attack] = append(out[r.Attack], r)
		}
	}
	return out
}

// distinct counts the different values of something.
func distinct(rows []Row, of func(Row) string) int {
	seen := make(map[string]bool)
	for _, r := range rows {
		seen[of(r)] = true
	}
	return len(seen)
}

func TestLibraryShapes(t *testing.T) {
	for seed := range uint64(5) {
		rows := generated(t, func(c *Config) { withLibrary(c); c.Seed, c.Duration, c.EventRate = seed, 4*time.Minute, 100 })
		counts := make(map[Kind]int)
		for a, rows := range attacksOf(rows) {
			counts[a.Kind]++
			span := rows[len(rows)-1].TimeMS - rows[0].TimeMS
			is := func(name string, got, least, most int) {
				if got < least || got > most {
					t.Errorf("seed %d: %s %v has %d %s, want %d to %d", seed, a.Kind, a.Key, got, name, least, most)
				}
			}
			of := func(eventType string) []Row {
				return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Event.EventType != eventType })
			}
			users := distinct(rows, func(r Row) string { return r.Event.UserID })
			products := distinct(rows, func(r Row) string { return r.Event.ProductID })
			times := distinct(rows, func(r Row) string { return r.Event.TxnTimestamp })
			addresses := distinct(rows, func(r Row) string { return r.IP })
			for _, r := range rows {
				id, _ := strconv.Atoi(r.Event.UserID)
				if innocent := slices.Contains(Innocents(), a.Kind); innocent != (id < AttackerBase) || id < InnocentBase {
					t.Errorf("%s has user id %d", a.Kind, id)
				}
				for name, value := range a.Key {
					if got := map[string]string{"user_id": r.Event.UserID, "ip": r.IP, "coupon": r.Coupon}[name]; got != value {
						t.Errorf("%s has an event of %s %s, want %s", a.Kind, name, got, value)
					}
				}
			}
			switch a.Kind {
			case KindScraper:
				is("products", products, 24, 24)
				is("views", len(of("view")), len(rows), len(rows))
				for i := 5; i < len(rows); i++ {
					is("ms for 6 events", int(rows[i].TimeMS-rows[i-5].TimeMS), 10_000, 60_000)
				}
			case KindCardTester:
				is("payments", len(rows), 10, 15)
				is("products", products, 1, 1)
				if sessions := distinct(rows, func(r Row) string { return r.Event.UserSession }); sessions != 1 {
					is("sessions", sessions, len(rows), len(rows))
				}
				is("declined payments", len(of("payment_failed")), 3, 15)
			case KindCredentialStuffer:
				is("accounts", users, 40, 79)
				is("failures", len(of("login_failed")), users*2/3, 2*users)
				is("addresses", addresses, 1, 1)
			case KindPasswordGuesser:
				is("failures", len(of("login_failed")), 12, 21)
				is("accounts", users, 1, 1)
				is("addresses", addresses, 9, 21)
			case KindCouponAbuser:
				is("accounts", users, 8, 15)
				is("purchases", len(of("purchase")), users, users)
			case KindCartHoarder:
				is("products", products, 36, 44)
				is("carts", len(of("cart")), len(rows), len(rows))
			case KindOrder:
				is("lines", len(of("purchase")), 6, 40)
				is("times", times, 1, 1)
			case KindMassRemoval:
				is("removals", distinct(of("remove_from_cart"), func(r Row) string { return string(r.AppendJSON(nil)) }), 8, 17)
				is("ms", int(span), 0, 9999)
			case KindDoubleSent:
				is("rows", len(rows), 10, 10)
				is("different rows", distinct(rows, func(r Row) string { return string(r.AppendJSON(nil)) }), 5, 5)
			case KindOffice:
				is("colleagues", users, 20, 29)
				is("logins", len(of("login")), users, users)
				is("who mistype", distinct(of("login_failed"), func(r Row) string { return r.Event.UserID }), 5, 5)
				is("coupons", len(of("purchase")), 4, 4)
			}
		}
		for _, k := range slices.Concat(LibraryKinds(), Innocents()) {
			if want := map[Kind]int{KindCardTester: 8}[k]; counts[k] != max(want, 4) {
				t.Errorf("seed %d: %d of %s in 4 minutes", seed, counts[k], k)
			}
		}
	}
}

// TestShortRuns: whatever there is time for, nothing happens before the start, at the very end, or not at all.
func TestShortRuns(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 1500 * time.Millisecond, 3 * time.Second, 15 * time.Second} {
		kinds := make(map[Kind]bool)
		for _, r := range generated(t, func(c *Config) { withLibrary(c); c.Duration, c.EventRate = d, 100 }) {
			if at := time.Duration(r.TimeMS-defaultStart) * time.Millisecond; r.Kind != "" && (at < 0 || at >= d) {
				t.Errorf("%v: %s attacks at %v", d, r.Kind, at)
			}
			kinds[r.Kind] = true
		}
		for _, k := range slices.Concat(LibraryKinds(), Innocents()) {
			if d == 15*time.Second && !kinds[k] {
				t.Errorf("no %s in %v", k, d)
			}
		}
	}
	generated(t, func(c *Config) { withLibrary(c); c.Events = 10 })
}

// TestTogetherNow: in time mode now, the lines of an order still have one time, and an event that is sent twice is the same to the last byte.
func TestTogetherNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fast(nil)
		cfg.Attackers, cfg.Innocents = []string{"none"}, []string{"order", "double_sent"}
		cfg.Speed, cfg.Duration, cfg.TimeMode = 1, 30*time.Second, TimeNow
		cfg.Out, cfg.Stdout = "-", new(bytes.Buffer)
		looks := time.Duration(0)
		cfg.Now = func() time.Time { looks++; return time.Now().Add(looks * time.Millisecond) } // a slow machine
		var rows []Row
		cfg.OnSent = func(r Row, _ int32, _ int64) { rows = append(rows, r) }
		mustRun(t, cfg)
		for a, rows := range attacksOf(rows) {
			want := map[Kind]int{KindOrder: 1, KindDoubleSent: 5}[a.Kind]
			if n := distinct(rows, func(r Row) string { return r.Event.TxnTimestamp }); n != want {
				t.Errorf("%s has %d times, want %d", a.Kind, n, want)
			}
		}
		if n := len(attacksOf(rows)); n != 2 {
			t.Errorf("%d innocents, want 2", n)
		}
	})
}

// TestTruthOfAttacks: an attack is named by its kind, its key, its first and its last event, whatever windows it is in.
func TestTruthOfAttacks(t *testing.T) {
	cfg := fast(nil)
	withLibrary(&cfg)
	cfg.Stdout, cfg.Duration, cfg.Disorder = new(bytes.Buffer), 3*time.Minute, 5*time.Second
	var rows []Row
	cfg.OnSent = func(r Row, _ int32, _ int64) { rows = append(rows, r) }
	res := mustRun(t, cfg)
	want := make(map[string]int) // events
	for a, rows := range attacksOf(rows) {
		byTime := func(x, y Row) int { return int(x.TimeMS - y.TimeMS) }
		want[fmt.Sprint(a.Kind, a.Key, slices.MinFunc(rows, byTime).TimeMS, slices.MaxFunc(rows, byTime).TimeMS)] = len(rows)
	}
	got := make(map[string]int)
	flagged := make(map[Kind]int)
	for _, e := range res.Truth {
		got[fmt.Sprint(e.Kind, e.Key, e.FromMS, e.ToMS)] += e.Events
		if from := time.UnixMilli(e.FromMS).UTC().Format(time.RFC3339Nano); from != e.From || e.WindowStartMS+9999 < e.FromMS || e.WindowStartMS > e.ToMS {
			t.Errorf("odd times: %+v", e)
		}
		if e.Innocent != slices.Contains(Innocents(), e.Kind) {
			t.Errorf("innocent: %+v", e)
		}
		if e.Innocent && e.BreaksRule {
			flagged[e.Kind]++
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// What innocents are for: a rule that only counts flags all of them.
	for _, k := range []Kind{KindOrder, KindMassRemoval, KindDoubleSent} {
		if flagged[k] != 3 {
			t.Errorf("%d of %s break the rule, want 3", flagged[k], k)
		}
	}
	line, err := json.Marshal(res.Truth[slices.IndexFunc(res.Truth, func(e Truth) bool { return e.Kind == KindCredentialStuffer })])
	if err != nil || !strings.Contains(string(line), `"key":{"ip":"203.0.113.`) || strings.Contains(string(line), "innocent") {
		t.Errorf("%s, error %v", line, err)
	}
}
