package harness

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/rule"
	"spate/shared/window"
)

// UniqueTopic is a topic of events for one test; everything else of the pipeline follows from its name.
func UniqueTopic(t *testing.T) string {
	return fmt.Sprintf("test-%d-%s", time.Now().UnixNano(), strings.NewReplacer("/", "-", "#", "-").Replace(strings.ToLower(t.Name())))
}

// Connect returns a client that is closed at the end of the test.
func Connect(t *testing.T, brokers string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kafka.Config{Brokers: kafka.ParseBrokers(brokers)}.Options(append(opts, kgo.AlwaysRetryEOF())...)...) // tests kill brokers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// readPatience is how long nothing may come when a topic is read.
const readPatience = 2 * time.Minute

// MakeTopics makes the topics of a pipeline, as a service does at its start: a broker that is busy may refuse for a moment.
func MakeTopics(t *testing.T, cl *kgo.Client, layout kafka.Layout) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := layout.EnsureWhenReady(ctx, cl, nil, slog.New(slog.DiscardHandler), func(string) {}); err != nil {
		t.Fatal(err)
	}
}

// ReadAll reads the committed records of a topic from its beginning to its present end. What nobody can read is left out.
func ReadAll(t *testing.T, brokers, topic string, each func(*kgo.Record)) (n int64) {
	t.Helper()
	// A topic may have millions of events, and batches that take long to be unpacked: what counts is that it goes on.
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stands := time.AfterFunc(readPatience, func() { cancel(fmt.Errorf("nothing was read for %v", readPatience)) })
	defer stands.Stop()
	at := map[int32]int64{}
	position := func(p int32) int64 {
		if o, ok := at[p]; ok {
			return o
		}
		return -1
	}
	ends, err := committedEnds(ctx, kadm.NewClient(Connect(t, brokers)), topic)
	if err != nil {
		t.Fatal(err)
	}
	left, from := map[int32]int64{}, map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		from[o.Partition] = kgo.NewOffset().AtStart()
		if o.Offset > 0 {
			left[o.Partition], at[o.Partition], from[o.Partition] = o.Offset, 0, kgo.NewOffset().At(0)
		}
	})
	cfg := kafka.Config{Brokers: kafka.ParseBrokers(brokers)}
	r, err := cfg.NewReader(topic, slog.New(slog.DiscardHandler), position, kgo.NewClient, kgo.AlwaysRetryEOF(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Client().Close()
	moved := func(p int32, to int64) {
		stands.Reset(readPatience)
		if at[p] = to; to >= left[p] {
			delete(left, p)
		}
	}
	var standing kafka.Progress
	for len(left) > 0 {
		pctx, done := context.WithTimeout(ctx, time.Second)
		f, gaps, err := r.Poll(pctx, 50_000)
		done()
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			t.Fatalf("read %s: %v, partitions left %v at %v", topic, err, left, at)
		}
		for it := f.RecordIter(); !it.Done(); {
			r := it.Next()
			moved(r.Partition, r.Offset+1)
			if !r.Attrs.IsControl() {
				n++
				each(r)
			}
		}
		bounds := map[int32]kafka.Bounds{}
		for p, end := range left {
			bounds[p] = kafka.Bounds{Stable: end}
		}
		for p, d := range standing.Stands(time.Now(), at, bounds) {
			if g, ok, err := r.Probe(ctx, p); d > kafka.ProbeAfter && ok && err == nil {
				gaps = append(gaps, g)
			}
		}
		for _, g := range gaps {
			if g.To <= at[g.Partition] {
				continue
			}
			if !g.Passed {
				r.Skip(g)
			}
			moved(g.Partition, g.To)
		}
	}
	return n
}

// UserWindow is a window of a user, who is a JSON token.
type UserWindow struct {
	User    string
	StartMS int64
}

// committedEnds returns the ends of a topic's partitions. For a moment after it was made, a partition may have no leader.
func committedEnds(ctx context.Context, adm *kadm.Client, topic string) (ends kadm.ListedOffsets, err error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ends, err = adm.ListCommittedOffsets(ctx, topic); err == nil {
			err = ends.Error()
		}
		if err == nil {
			return ends, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("ends of %s: %w", topic, err)
		case <-tick.C:
		}
	}
}

// KeyedCounts adds up what the keyed log says, window by window.
func KeyedCounts(t *testing.T, brokers, topic string, size time.Duration) map[UserWindow]int64 {
	t.Helper()
	counts, stray := keyedCounts(t, brokers, topic, size)
	if stray != 0 {
		t.Errorf("%d stray events", stray)
	}
	return counts
}

// keyedCounts tells as well how many events came for windows that were closed. The table with a threshold of 0 tells every window's
// count.
func keyedCounts(t *testing.T, brokers, topic string, size time.Duration) (counts map[UserWindow]int64, stray int64) {
	t.Helper()
	rules, err := rule.Burst(size, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	stream := window.Stream{Plan: rules.Plan()}
	tables := map[int32]*window.Table{}
	counts = map[UserWindow]int64{}
	take := func(vs []window.Verdict, err error) {
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vs {
			if v.State == window.Closed {
				counts[UserWindow{v.Key, v.Pane.StartMS}] += v.Pane.Count
			}
		}
	}
	ReadAll(t, brokers, topic, func(r *kgo.Record) {
		if tables[r.Partition] == nil {
			tables[r.Partition] = window.NewTable(stream)
		}
		take(tables[r.Partition].Apply(r.Offset, r.Value, nil))
	})
	for _, table := range tables {
		stray += table.Stats().Stray
		table.Each(func(user string, p window.Pane) { counts[UserWindow{user, p.StartMS}] = p.Count })
	}
	return counts, stray
}

// Reference counts the topic of events in the plain way.
func Reference(t *testing.T, brokers, topic string, rule verifier.Rule) *verifier.Reference {
	t.Helper()
	ref := verifier.NewReference(rule)
	ReadAll(t, brokers, topic, func(r *kgo.Record) { ref.AddJSON(r.Partition, r.Value, r.Timestamp) })
	return ref
}

// ReferenceAsPromised is [Reference] for a pipeline whose partitions may have fallen silent: which events came too late for a promise depends on the
// wall clock, and only the late topic can tell. tests/chaos finds out whether such promises were well founded.
func ReferenceAsPromised(t *testing.T, brokers string, names kafka.Names, rule verifier.Rule) *verifier.Reference {
	t.Helper()
	type place struct{ partition, offset string }
	promised := map[place]bool{}
	ReadAll(t, brokers, names.Late, func(r *kgo.Record) {
		h := map[string]string{}
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		if h["spate-reason"] == "idle" {
			promised[place{h["spate-source-partition"], h["spate-source-offset"]}] = true
		}
	})
	ref := verifier.NewReference(rule)
	ReadAll(t, brokers, names.Activity, func(r *kgo.Record) {
		if promised[place{strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10)}] {
			ref.AddIdleJSON(r.Partition, r.Value, r.Timestamp)
		} else {
			ref.AddJSON(r.Partition, r.Value, r.Timestamp)
		}
	})
	return ref
}

// ParsePosition returns the offset below which a detector has told everything.
func ParsePosition(o kadm.OffsetResponse) (int64, error) {
	p, err := window.ParsePosition(o.At, o.Metadata)
	return p.Next, err
}

// CheckLog holds the keyed log and the side topics against the topic of events, when the routers have read all of that: the windows of all alerts can be closed
// before.
func CheckLog(t *testing.T, brokers string, names kafka.Names, ref *verifier.Reference) {
	t.Helper()
	adm := kadm.NewClient(Connect(t, brokers))
	Eventually(t, time.Minute, "the routers have read all events", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		committed, err := adm.FetchOffsets(ctx, names.RouterGroup)
		ends, eerr := committedEnds(ctx, adm, names.Activity)
		read := err == nil && eerr == nil
		ends.Each(func(o kadm.ListedOffset) {
			at, ok := committed.Lookup(o.Topic, o.Partition)
			read = read && (o.Offset == 0 || ok && at.At >= o.Offset)
		})
		return read
	})
	report(t, LogViolations(t, brokers, names, ref))
}

// LogViolations is CheckLog for a test that wants to know what is wrong.
func LogViolations(t *testing.T, brokers string, names kafka.Names, ref *verifier.Reference) (wrong []string) {
	t.Helper()
	var counted int64
	counts, stray := keyedCounts(t, brokers, names.Keyed, ref.Window())
	for _, n := range counts {
		counted += n
	}
	late := ReadAll(t, brokers, names.Late, func(*kgo.Record) {})
	invalid := ReadAll(t, brokers, names.DLQ, func(*kgo.Record) {})
	t.Logf("%d in = %d counted + %d late + %d invalid", ref.In, counted, late, invalid)
	if stray != 0 {
		wrong = append(wrong, fmt.Sprintf("%d stray events", stray))
	}
	once := ref.Counted - ref.Repeated // what came a second time is in no sum
	if counted != once || late != ref.Late || invalid != ref.Invalid || counted+late+invalid != ref.In-ref.Repeated {
		wrong = append(wrong, fmt.Sprintf("accounts: in %d, counted %d (want %d), late %d (want %d), invalid %d (want %d)", ref.In, counted, once, late, ref.Late, invalid, ref.Invalid))
	}
	other := 0
	for _, row := range ref.Above(0) {
		if counts[UserWindow{row.User, row.WindowStart}] != row.Count {
			other++
		}
		delete(counts, UserWindow{row.User, row.WindowStart})
	}
	if other > 0 || len(counts) > 0 {
		wrong = append(wrong, fmt.Sprintf("%d windows have another count in the keyed log, %d are in it alone", other, len(counts)))
	}
	return wrong
}

// CheckAlertTopic: whatever was written twice was written with the same content.
func CheckAlertTopic(t *testing.T, brokers string, names kafka.Names, want int) {
	t.Helper()
	_, wrong := AlertTopicViolations(t, brokers, names, want)
	report(t, wrong)
}

// AlertTopicViolations is CheckAlertTopic for a test that wants to know what is wrong. It returns the closed alerts by id, too.
func AlertTopicViolations(t *testing.T, brokers string, names kafka.Names, want int) (closed map[string]alert.Record, wrong []string) {
	t.Helper()
	closed, opened, wrong := alertsOf(t, brokers, names)
	if opened != want || len(closed) != want {
		wrong = append(wrong, fmt.Sprintf("alerts topic: %d alerts are opened and %d closed, want %d", opened, len(closed), want))
	}
	return closed, wrong
}

// AlertsOf returns the closed alerts of the topic by id, and what is wrong there: records with the same id and state that differ.
func AlertsOf(t *testing.T, brokers string, names kafka.Names) (closed map[string]alert.Record, wrong []string) {
	t.Helper()
	closed, _, wrong = alertsOf(t, brokers, names)
	return closed, wrong
}

func alertsOf(t *testing.T, brokers string, names kafka.Names) (closed map[string]alert.Record, opened int, wrong []string) {
	t.Helper()
	type key struct {
		id    string
		state alert.State
	}
	content := map[key]string{}
	closed = map[string]alert.Record{}
	var conflicts, repeats int
	ReadAll(t, brokers, names.Alerts, func(r *kgo.Record) {
		a, err := alert.Parse(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		k := key{a.ID, a.State}
		was, ok := content[k]
		switch {
		case !ok:
			content[k] = string(r.Value)
			switch a.State {
			case alert.Opened:
				opened++
			case alert.Closed:
				closed[a.ID] = a
			}
		case was != string(r.Value):
			if conflicts++; conflicts == 1 {
				wrong = append(wrong, fmt.Sprintf("told twice, differently:\n%s\n%s", was, r.Value))
			}
		default:
			repeats++
		}
	})
	t.Logf("%d alert records, %d of them told again", len(content)+repeats, repeats)
	if conflicts > 1 {
		wrong = append(wrong, fmt.Sprintf("alerts topic: %d conflicts", conflicts))
	}
	return closed, opened, wrong
}

func report(t *testing.T, wrong []string) {
	t.Helper()
	for _, w := range wrong {
		t.Error(w)
	}
}

// TopicExists reports whether a topic can be written to.
func TopicExists(t *testing.T, cl *kgo.Client, topic string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	found, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil || found[topic].Err != nil {
		return false
	}
	for _, p := range found[topic].Partitions {
		if p.Err != nil { // it has no leader yet
			return false
		}
	}
	return len(found[topic].Partitions) > 0
}
