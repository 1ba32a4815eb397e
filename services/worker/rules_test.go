package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"spate/shared/alert"
	"spate/shared/revision"
	"spate/shared/revision/table"
)

// In these tests, an event arrives when it happens, and a revision is appended when the test says, so that boundaries need not be waited for.

// arriveWhenTheyHappen gives the records the times of their events.
func arriveWhenTheyHappen(_ string, out *kinesis.GetRecordsOutput) {
	for i := range out.Records {
		var e struct {
			Time time.Time `json:"txn_timestamp"`
		}
		if json.Unmarshal(out.Records[i].Data, &e) == nil {
			out.Records[i].ApproximateArrivalTimestamp = aws.Time(e.Time)
		}
	}
}

// timed writes revisions at a time of the test.
type timed struct {
	*dynamodb.Client
	atMS   int64
	record []byte // in place of the real one, if not nil
}

func (c timed) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	in.ExpressionAttributeValues[":at"] = &dynamotypes.AttributeValueMemberN{Value: fmt.Sprint(c.atMS)}
	if c.record != nil {
		in.ExpressionAttributeValues[":record"] = &dynamotypes.AttributeValueMemberB{Value: c.record}
	}
	return c.Client.UpdateItem(ctx, in, opts...)
}

// rulesConfig is that of a worker whose events arrive when they happen.
func (r *rig) rulesConfig() Config {
	cfg := r.config()
	cfg.MaxAhead = time.Second
	r.faults(&cfg).afterRead = arriveWhenTheyHappen
	return cfg
}

// apply makes rules the next revision, as of a time after base. record replaces what is written, if it is not nil.
func (r *rig) apply(cfg Config, at int64, rec revision.Record, record []byte) {
	r.t.Helper()
	initial, err := cfg.initial()
	if err != nil {
		r.t.Fatal(err)
	}
	reader := table.NewReader(timed{r.dynamo, base + at, record}, cfg.Lease.Table, cfg.Stream, initial)
	if _, err := reader.Look(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if rec.LatenessMS == 0 {
		rec.LatenessMS, rec.MaxAheadMS = cfg.Lateness.Milliseconds(), cfg.MaxAhead.Milliseconds()
	}
	if _, err := reader.Append(r.t.Context(), rec); err != nil && record == nil {
		r.t.Fatal(err)
	}
}

// aRule is one that counts users in windows of 4 s.
func aRule(name string, more int) string {
	return fmt.Sprintf("-- rule: %s\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '4' SECOND), user_id HAVING COUNT(*) > %d;\n", name, more)
}

func rulesOf(texts ...string) revision.Record {
	return revision.Record{Source: revision.Source{Text: strings.Join(texts, "")}}
}

// found returns the alerts of closed windows as "rule/revision user@start": count.
func (r *rig) found() map[string]int64 {
	r.t.Helper()
	out := map[string]int64{}
	for _, a := range r.told() {
		if a.State != alert.Closed {
			continue
		}
		key := fmt.Sprintf("%s/%d %s", a.Rule, a.RuleRevision, countKey(string(a.UserID), a.WindowStart.UnixMilli()))
		if n, there := out[key]; there && n != a.Count {
			r.t.Errorf("alert %s has the counts %d and %d", key, n, a.Count)
		}
		out[key] = a.Count
	}
	return out
}

func (r *rig) judged(n int64) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%d events are judged and saved", n), func() bool { st, _ := r.state(); return st.Tally.In == n })
}

// margin is how long after its append time a revision is about events, with the max-ahead of the tests.
var margin = revision.Margin.Milliseconds() + 1000

// TestRulesChange: events before the boundary are judged by the rules before it, later ones by those of the revision. It makes no difference whether the
// revision was there when the worker began. A rule that stays the same goes on.
func TestRulesChange(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			cfg := r.rulesConfig()
			first := slices.Concat(burst(3, 1, 0, 0), burst(3, 1, 12_000, 0))
			rest := slices.Concat(
				burst(3, 1, 32_000, 0), burst(5, 2, 36_000, 0), // burst: they begin before 41 s
				burst(3, 1, 40_000, 0),
				burst(3, 1, 44_000, 0), burst(5, 2, 44_500, 0), // a
				burst(5, 2, 60_000, 0), // a, after revision 2 brought b for windows from 61 s on
				burst(5, 2, 64_000, 0), // a and b
				burst(1, 9, 80_000, 0),
			)
			if !running {
				r.apply(cfg, 10_000, rulesOf(aRule("a", 4)), nil)
				r.apply(cfg, 30_000, rulesOf(aRule("a", 4), aRule("b", 3)), nil)
			}
			r.put(first...)
			stop := r.start(cfg)
			r.judged(6)
			if running {
				r.apply(cfg, 10_000, rulesOf(aRule("a", 4)), nil)
				r.put(rest[:8]...)
				r.judged(14)
				r.apply(cfg, 30_000, rulesOf(aRule("a", 4), aRule("b", 3)), nil)
				rest = rest[8:]
			}
			r.put(rest...)
			r.eventually("the last windows are closed", func() bool { return len(r.found()) >= 8 })
			stop()
			want := map[string]int64{
				"burst/0 1@0": 3, "burst/0 1@12000": 3, "burst/0 1@32000": 3, "burst/0 2@36000": 5, "burst/0 1@40000": 3,
				"a/1 2@44000": 5, "a/1 2@60000": 5, "a/1 2@64000": 5, "b/2 2@64000": 5,
			}
			if d := cmp.Diff(want, r.found()); d != "" {
				t.Error(d)
			}
			if r.log.has(revision.TooLate) {
				t.Error("a revision was too late")
			}
			if st, _ := r.state(); st.Revision != 2 {
				t.Errorf("revision %d in the state", st.Revision)
			}
		})
	}
}

// TestRulesFromTheBeginning: rules that were applied before anything was counted are in force for all windows, with their settings.
func TestRulesFromTheBeginning(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.rulesConfig()
	rec := rulesOf(aRule("a", 4))
	rec.Beginning, rec.LatenessMS, rec.MaxAheadMS = true, 6000, 1000
	r.apply(cfg, 10_000, rec, nil)
	r.put(burst(4, 1, 0, 0)...)
	r.put(burst(1, 2, 9000, 0)...) // with a lateness of 2 s, the next would be late
	r.put(burst(1, 1, 3000, 0)...)
	r.drain(cfg)
	if d := cmp.Diff(map[string]int64{"a/1 1@0": 5}, r.found()); d != "" {
		t.Error(d)
	}
	st, _ := r.state()
	if want := (settings{Origin: 1, LatenessMS: 6000, MaxAheadMS: 1000, Fields: st.Rule.Fields}); st.Rule != want {
		t.Errorf("%+v, want %+v", st.Rule, want)
	}
}

// TestRulesFromTheBeginningLater: the worker has begun when rules are applied as if it had not. It starts over with them.
func TestRulesFromTheBeginningLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.rulesConfig()
	r.put(burst(5, 1, 0, 0)...)
	stop := r.start(cfg)
	r.judged(5)
	rec := rulesOf(aRule("a", 4))
	rec.Beginning = true
	r.apply(cfg, 0, rec, nil)
	r.put(burst(1, 2, 40_000, 0)...)
	r.eventually("the window is closed", func() bool { return r.found()["a/1 1@0"] == 5 })
	stop()
	if !r.log.has("in force from the beginning; starting over with it") {
		t.Error("it has not started over")
	}
}

// TestRulesTooLate: a revision that appears after events were judged that it is about is reported.
func TestRulesTooLate(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.rulesConfig()
	r.put(burst(3, 1, 50_000, 0)...)
	stop := r.start(cfg)
	r.judged(3)
	r.apply(cfg, 10_000, rulesOf(aRule("a", 4)), nil)
	r.put(burst(5, 1, 70_000, 0)...)
	r.eventually("it is reported", func() bool { return r.log.has(revision.TooLate) })
	stop()
}

// TestRulesOfANewerVersion: the worker stops before the first event that a revision can be about which it cannot evaluate, and says why.
func TestRulesOfANewerVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.rulesConfig()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.apply(cfg, 10_000, rulesOf(aRule("a", 4)), w.EncodeAll([]byte(`{"version":99,"revision":1}`), nil))
	r.put(burst(3, 1, 30_000, 0)...)
	stop := r.start(cfg)
	r.judged(3)
	r.put(burst(3, 1, 39_000, 0)...)
	r.judged(6)
	r.put(burst(3, 1, 40_000, 0)...)
	r.eventually("it says why it does not go on", func() bool {
		ready, reason := cfg.Status.Get()
		return !ready && strings.Contains(reason, "revision 1 of the rules cannot be evaluated by this version of spate; upgrade spate")
	})
	if st, _ := r.state(); st.Tally.In != 6 {
		t.Errorf("%d events are judged", st.Tally.In)
	}
	// With other rules in its place, it goes on. They are in force from the boundary that it had, 41 s, though it is much later.
	instead := rulesOf(aRule("a", 4))
	instead.InsteadOf = 1
	r.apply(cfg, 90_000, instead, nil)
	r.put(slices.Concat(burst(5, 2, 44_000, 0), burst(1, 9, 60_000, 0))...)
	r.eventually("the windows are closed", func() bool { return len(r.found()) >= 4 })
	stop()
	want := map[string]int64{"burst/0 1@28000": 3, "burst/0 1@36000": 3, "burst/0 1@40000": 3, "a/2 2@44000": 5}
	if d := cmp.Diff(want, r.found()); d != "" {
		t.Error(d)
	}
	if r.log.has(revision.TooLate) {
		t.Error("a revision was too late")
	}
}

// TestRulesAreGone: a worker does not go on by older rules than those that events were judged by.
func TestRulesAreGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.rulesConfig()
	r.apply(cfg, 10_000, rulesOf(aRule("a", 4)), nil)
	r.put(burst(3, 1, 30_000, 0)...)
	r.drain(cfg)
	_, err := r.dynamo.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
		TableName: aws.String(r.table), Key: map[string]dynamotypes.AttributeValue{"pk": &dynamotypes.AttributeValueMemberS{Value: "rules#" + r.events + "#1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := r.start(cfg)
	defer stop()
	r.eventually("it says so", func() bool {
		ready, reason := cfg.Status.Get()
		return !ready && strings.Contains(reason, "events were judged by revision 1 of the rules, but table "+r.table+" has only revisions up to 0")
	})
}

// TestKeysOfAlerts: a rule can have any text as its key, also what is no partition key of a stream, and what does not fit into a record.
func TestKeysOfAlerts(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.rulesConfig()
	r.apply(cfg, 0, revision.Record{
		Source: revision.Source{Text: `-- rule: brands
INSERT INTO alerts SELECT brand, COUNT(*) AS n, MIN(event_type) AS low, MAX(event_type) AS high FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '4' SECOND), brand HAVING COUNT(*) > 1`},
		Beginning: true, LatenessMS: 2000, MaxAheadMS: 1000,
	}, nil)
	brands := []string{"", "a", strings.Repeat("é", 256), strings.Repeat("é", 257), "a\x00b", "large", strings.Repeat("x", 600<<10)}
	for _, b := range brands {
		kind := "view"
		if b == "large" {
			kind = strings.Repeat("y", 600<<10)
		}
		for range 2 {
			e, err := json.Marshal(map[string]any{"user_id": 1, "txn_timestamp": time.UnixMilli(base).UTC().Format(time.RFC3339Nano), "brand": b, "event_type": kind})
			if err != nil {
				t.Fatal(err)
			}
			r.put(row{raw: e})
		}
	}
	r.drain(cfg)
	got := map[string]bool{}
	for _, a := range r.told() {
		if a.State == alert.Closed && a.Count == 2 {
			got[a.KeyText()] = true
		}
	}
	for i, b := range brands[:5] {
		if !got[b] {
			t.Errorf("no alert of brand %d", i)
		}
	}
	if len(got) != 5 || !r.log.has("exceeds the maximum size of a Kinesis record") {
		t.Errorf("%d alerts", len(got))
	}
}

// TestCrashWhileRulesChange crashes the worker at its first write, its second, and so on, while rules change twice. What all of them tell together is
// what one would have told.
func TestCrashWhileRulesChange(t *testing.T) {
	t.Parallel()
	input := newRig(t, 2)
	one, two := 10_000+margin, 30_000+margin
	var rows []row
	want := map[string]int64{}
	for seed, kinds := uint64(time.Now().UnixNano()), 0; kinds < 4; seed++ { // until each rule has an alert in each revision
		t.Logf("seed %d", seed)
		rows, want = changingInput(seed, one, two)
		kinds = len(slices.CompactFunc(slices.Sorted(maps.Keys(want)), func(a, b string) bool { return a[:3] == b[:3] }))
	}
	input.put(rows...)
	const lanes = 4
	var mu sync.Mutex
	writes := 0
	for lane := range lanes {
		t.Run(fmt.Sprintf("lane %d", lane), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.events = input.events
			cfg := r.rulesConfig()
			cfg.Lease.Duration = 2 * time.Second
			r.arrive = arriveWhenTheyHappen
			r.apply(cfg, 10_000, rulesOf(aRule("a", 4), aRule("b", 5)), nil)
			r.apply(cfg, 30_000, rulesOf(aRule("a", 4), aRule("b", 3)), nil)
			n := 1 + lane/2
			for after := lane%2 == 1; r.crashed(cfg, n, after); n += lanes / 2 {
				if n > 1 || after { // before the first, there was no lease
					r.expire()
				}
				r.drain(cfg)
				if d := cmp.Diff(want, r.found()); d != "" {
					t.Fatalf("crash at write %d, done: %t: %s", n, after, d)
				}
				r.afresh()
			}
			if d := cmp.Diff(want, r.found()); d != "" {
				t.Errorf("no crash: %s", d)
			}
			mu.Lock()
			defer mu.Unlock()
			writes = max(writes, n)
		})
	}
	t.Cleanup(func() {
		if writes < 8 {
			t.Errorf("a worker has %d writes only: windows do not close on the way", writes)
		}
	})
}

// changingInput is random events, and the alerts of the rules whose boundaries are at two times.
func changingInput(seed uint64, one, two int64) (rows []row, want map[string]int64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	for at := int64(0); at < 90_000; at += 100 + rng.Int64N(400) {
		rows = append(rows, row{at: max(0, at-rng.Int64N(1000)), user: rng.IntN(4), hash: rng.Float64()})
	}
	want = map[string]int64{}
	counts := map[[2]int64]int64{}
	for _, e := range rows {
		counts[[2]int64{int64(e.user), (base+e.at)/4000*4000 - base}]++
	}
	for k, n := range counts {
		for _, c := range []struct {
			rule     string
			more     int64
			from, to int64
		}{{"burst/0", 2, -4000, one}, {"a/1", 4, one, 1 << 40}, {"b/1", 5, one, two}, {"b/2", 3, two, 1 << 40}} {
			if k[1] >= c.from && k[1] < c.to && n > c.more {
				want[fmt.Sprintf("%s %s", c.rule, countKey(fmt.Sprint(k[0]), base+k[1]))] = n
			}
		}
	}
	return rows, want
}
