package router_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"spate/services/router"
	"spate/shared/window"
	"spate/tests/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// traffic is events of a few users in two windows, and what they must come to.
type traffic struct {
	b    *bed
	n    int64
	want map[userWindow]int64
}

func (b *bed) traffic() *traffic { return &traffic{b: b, want: map[userWindow]int64{}} }

func (tr *traffic) send() {
	user, second := fmt.Sprintf("u%d", tr.n%7), float64(tr.n%18)
	tr.b.event(int32(tr.n)%tr.b.layout.Partitions, user, second)
	tr.want[userWindow{fmt.Sprintf("%q", user), int64(second) / 10 * 10}]++
	tr.n++
}

// check waits until every event is in the keyed log, and reports whether it is there once.
func (tr *traffic) check() {
	b := tr.b
	b.t.Helper()
	b.eventually("every event is in the keyed log", func() bool {
		got, _ := b.keyed()
		total := int64(0)
		for _, x := range got {
			total += x
		}
		return total >= tr.n
	})
	got, _ := b.keyed()
	if d := cmp.Diff(tr.want, got); d != "" {
		b.t.Errorf("(-sent +keyed): %s", d)
	}
	if late := b.read(b.layout.Names.Late); len(late) > 0 {
		b.t.Errorf("%d late", len(late))
	}
}

// TestNothingLostOrDoubled: each request that a transaction depends on fails three times, in the ways that brokers know, while events
// come. The ones that time out are carried out all the same.
func TestNothingLostOrDoubled(t *testing.T) {
	for _, c := range []struct {
		key    kmsg.Key
		errors []*kerr.Error
	}{
		{kmsg.Produce, []*kerr.Error{kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.UnknownProducerID, kerr.MessageTooLarge, kerr.InvalidTxnState, kerr.RequestTimedOut}},
		{kmsg.TxnOffsetCommit, []*kerr.Error{kerr.UnknownMemberID, kerr.UnknownServerError, kerr.InvalidProducerEpoch, kerr.GroupAuthorizationFailed, kerr.RequestTimedOut}},
		{kmsg.EndTxn, []*kerr.Error{kerr.UnknownServerError, kerr.TransactionAbortable, kerr.InvalidTxnState, kerr.ProducerFenced, kerr.NotCoordinator}},
		{kmsg.Heartbeat, []*kerr.Error{kerr.UnknownMemberID, kerr.RebalanceInProgress}},
		{kmsg.Fetch, []*kerr.Error{kerr.NotLeaderForPartition, kerr.OffsetOutOfRange}},
	} {
		for _, e := range c.errors {
			t.Run(fmt.Sprintf("%s %s", c.key.Name(), e.Message), func(t *testing.T) {
				b := newBed(t, 2)
				tr := b.traffic()
				stop := b.start("one")
				tr.send()
				b.eventually("the router works", func() bool { return b.counts.In.Load() == 1 })
				f := b.cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{c.key}, TopLevel: c.key == kmsg.EndTxn || c.key == kmsg.Heartbeat, Err: e, Count: 3,
					When: func(r kmsg.Request) bool { // the test's own writing is left alone
						p, ok := r.(*kmsg.ProduceRequest)
						return !ok || p.TransactionID != nil
					}})
				defer f.Remove()
				b.eventually("the requests fail", func() bool { tr.send(); return f.Hits() >= 3 })
				for range 10 {
					tr.send()
				}
				tr.check()
				stop()
				if in := b.counts.In.Load(); in != tr.n {
					t.Errorf("%d sent, %d accounted for", tr.n, in)
				}
			})
		}
	}
}

// TestDeletedUnread: what a router that runs has not read yet is deleted under it.
func TestDeletedUnread(t *testing.T) {
	b := newBed(t, 2)
	tr := b.traffic()
	reg := prometheus.NewRegistry()
	b.start("one", func(c *router.Config) { c.Registry = reg })
	tr.send()
	tr.check()
	stuck := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: -1})
	for range 5 {
		b.event(0, "gone", 1)
	}
	var o kadm.Offsets
	o.AddOffset(b.layout.Names.Activity, 0, 6, -1)
	if r, err := kadm.NewClient(b.cl).DeleteRecords(t.Context(), o); err != nil || r.Error() != nil {
		t.Fatal(err, r.Error())
	}
	stuck.Remove()
	lost := func() float64 { return harness.Gathered(t, reg, "spate_router_lost_events_total") }
	b.eventually("it tells of it where nothing follows", func() bool { return lost() == 5 })
	for range 10 {
		tr.send()
	}
	tr.check()
	if n := lost(); n != 5 {
		t.Errorf("%v lost", n)
	}
}

// TestCommittedAndNotSaid: the broker commits a transaction and answers that it does not know. The client takes that for an abort, and reads
// everything again. Every second one is not committed, and is not to undo what was found out about the one before.
func TestCommittedAndNotSaid(t *testing.T) {
	b := newBed(t, 2)
	tr := b.traffic()
	stop := b.start("one")
	tr.send()
	b.eventually("the router works", func() bool { return b.counts.In.Load() == 1 })
	other := b.client()
	var left, inner atomic.Int32
	left.Store(6)
	b.cluster.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := r.(*kmsg.EndTxnRequest)
		if inner.Load() > 0 || !req.Commit || left.Load() == 0 {
			return nil, nil, false
		}
		inner.Add(1)
		if left.Load()%2 == 0 {
			b.cluster.SleepControl(func() {
				again := *req
				if _, err := again.RequestWith(t.Context(), other); err != nil {
					t.Error(err)
				}
			})
		}
		inner.Add(-1)
		left.Add(-1)
		resp := r.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.UnknownServerError.Code
		return resp, nil, true
	})
	b.eventually("commits are not confirmed", func() bool { tr.send(); return left.Load() == 0 })
	for range 10 {
		tr.send()
	}
	tr.check()
	stop()
}

// TestRebalanceInMidTransaction: routers come and go while events come.
func TestRebalanceInMidTransaction(t *testing.T) {
	b := newBed(t, 4)
	tr := b.traffic()
	stops := map[string]func(){"a": b.start("a")}
	for _, step := range []string{"+b", "+c", "-a", "+a", "-b", "-c"} {
		from := b.counts.In.Load()
		b.eventually("the routers work until "+step, func() bool { tr.send(); return b.counts.In.Load() > from+20 })
		if name := step[1:]; step[0] == '+' {
			stops[name] = b.start(name)
		} else {
			stops[name]()
		}
	}
	tr.check()
	b.eventually("all is accounted for", func() bool { return b.counts.In.Load() >= tr.n })
	stops["a"]()
	if in := b.counts.In.Load(); in != tr.n {
		t.Errorf("%d sent, %d accounted for", tr.n, in)
	}
}

// TestRestartEndsWhatItLeftOpen: a router was killed in mid-transaction, and nothing comes any more. Its next life must not wait for an
// event to end that transaction: readers would see nothing of what other routers write until it times out.
func TestRestartEndsWhatItLeftOpen(t *testing.T) {
	b := newBed(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	killed := b.client(kgo.TransactionalID("one"), kgo.TransactionTimeout(10*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := killed.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := killed.ProduceSync(ctx, &kgo.Record{Topic: b.layout.Names.Keyed, Value: []byte("half a transaction")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(b.cl)
	stable := func() bool {
		all, err := adm.ListEndOffsets(ctx, b.layout.Names.Keyed)
		if err != nil {
			t.Fatal(err)
		}
		read, err := adm.ListCommittedOffsets(ctx, b.layout.Names.Keyed)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := all.Lookup(b.layout.Names.Keyed, 0)
		r, _ := read.Lookup(b.layout.Names.Keyed, 0)
		return a.Offset > 0 && a.Offset == r.Offset
	}
	if stable() {
		t.Fatal("no transaction is open")
	}
	b.start("one")
	b.eventually("readers are let through", stable)
	if got := b.read(b.layout.Names.Keyed); len(got) > 0 {
		t.Errorf("half a transaction is read: %q", got[0].Value)
	}
}

// TestPromiseStaysBehindActivePartitions: what a router promises for its silent partition follows the other's, through what that one
// commits, and never gets ahead of it.
func TestPromiseStaysBehindActivePartitions(t *testing.T) {
	b := newBed(t, 2)
	b.now.Store(1_000_000)
	b.start("one", func(c *router.Config) { c.IdleTimeout = time.Minute })
	b.event(0, "u", 100)
	b.eventually("counted", func() bool { return b.counts.Counted.Load() == 1 })
	if _, w := b.keyed(); w != window.NoTime {
		t.Fatalf("watermark %d with a partition that never spoke", w)
	}
	state := func(p int32) (s window.Routed) {
		if g := b.cluster.GroupInfo(b.layout.Names.RouterGroup); g != nil {
			var err error
			if s, err = window.ParseRouted(g.Commits[b.layout.Names.Activity][p].Metadata); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	// Partition 0 stays active: it has an event at every step of the clock. Its time stands still, and so must the promise.
	for range 8 {
		b.now.Add(40_000)
		in := b.counts.In.Load()
		b.event(0, "u", 100)
		b.eventually("counted", func() bool { return b.counts.In.Load() == in+1 })
	}
	b.eventually("partition 1 is promised what partition 0 has reached", func() bool { _, w := b.keyed(); return w == base+90_000 })
	if s := state(1); !s.Idle || s.Floor != base+90_000 || s.MaxTS != window.NoTime {
		t.Errorf("partition 1: %+v", s)
	}
	if s := state(0); s.Idle || s.MaxTS != base+100_000 || s.Floor != window.NoTime {
		t.Errorf("partition 0: %+v", s)
	}
	// When the silent one speaks again it is judged by the promise, and holds windows back from then on.
	b.event(1, "late", 70)
	b.event(1, "u", 95)
	b.eventually("judged", func() bool { return b.counts.Late.Load() == 1 && b.counts.Counted.Load() == 10 })
	b.event(0, "u", 500)
	b.eventually("judged", func() bool { return b.counts.Counted.Load() == 11 })
	if _, w := b.keyed(); w != base+90_000 {
		t.Errorf("watermark %d, want %d, where partition 1 is", w-base, 90_000)
	}
}

// TestPromiseOutlivesTheRouter: what was promised before a restart makes late after it.
func TestPromiseOutlivesTheRouter(t *testing.T) {
	b := newBed(t, 1)
	b.now.Store(1_000_000)
	idle := func(c *router.Config) { c.IdleTimeout = time.Second }
	stop := b.start("one", idle)
	b.event(0, "u", 12)
	b.eventually("counted", func() bool { return b.counts.Counted.Load() == 1 })
	b.eventually("the window is closed", func() bool { b.now.Add(1000); _, w := b.keyed(); return w == base+19_999 })
	stop()
	b.event(0, "u", 19.999)
	b.event(0, "u", 20)
	stop = b.start("two", idle)
	b.eventually("judged", func() bool { return b.counts.In.Load() == 3 })
	stop()
	late := b.read(b.layout.Names.Late)
	if len(late) != 1 || headers(late[0])[router.HeaderReason] != "idle" || headers(late[0])[router.HeaderOffset] != "1" {
		t.Errorf("late: %v", late)
	}
	got, _ := b.keyed()
	if d := cmp.Diff(map[userWindow]int64{{`"u"`, 10}: 1, {`"u"`, 20}: 1}, got); d != "" {
		t.Error(d)
	}
}

// TestWhatIsNoEventInAllItsForms has what TestWhatIsNoEvent leaves out: keys and values that are none, sizes, headers, order.
func TestWhatIsNoEventInAllItsForms(t *testing.T) {
	b := newBed(t, 2)
	mib := strings.Repeat("x", 1<<20)
	large := `{"user_id":1,"event_time":1600000000000,"pad":"` + mib + mib[:1<<19] + `"}`
	type row struct {
		key, value []byte
		reason     string // empty: it is counted
	}
	rows := []row{
		{[]byte("k"), nil, "empty"},
		{nil, nil, "empty"},
		{nil, []byte{}, "empty"},
		{[]byte{}, []byte(" \n"), "empty"},
		{nil, []byte("null"), "not_object"},
		{nil, []byte("12"), "not_object"},
		{nil, []byte(`"text"`), "not_object"},
		{nil, []byte(`[{"user_id":1,"event_time":1600000000000}]`), "not_object"},
		{nil, []byte(`{"user_id":1,"event_time":1600000000000}{}`), "not_json"},
		{nil, []byte(`{"user_id":1,"event_time":16000`), "not_json"},
		{nil, bytes.Repeat([]byte("["), 100_000), "not_json"},
		{nil, bytes.Repeat([]byte{0xff}, 1<<20), "not_json"},
		{nil, []byte(`{"user_id":1,"event_time":1600000000000,"x":{"y":[{]}}`), "not_json"},
		{nil, []byte("{\"user_id\":1,\"event_time\":1600000000000,\"x\":\"\x01\"}"), "not_json"},
		{nil, []byte(`{"user_id":null,"event_time":1600000000000}`), "no_user"},
		{nil, []byte(`{"user_id":"","event_time":1600000000000}`), "no_user"},
		{nil, []byte(`{"user_id":{"id":1},"event_time":1600000000000}`), "bad_user"},
		{nil, []byte(`{"user_id":"\ud800","event_time":1600000000000}`), "bad_user"},
		{nil, []byte(`{"user_id":"` + mib[:300] + `","event_time":1600000000000}`), "bad_user"},
		{nil, []byte(`{"user_id":1,"event_time":null}`), "no_time"},
		{nil, []byte(`{"user_id":1,"event_time":1.5}`), "bad_time"},
		{nil, []byte(`{"user_id":1,"event_time":"2023-02-30T00:00:00Z"}`), "bad_time"},
		{nil, []byte(`{"user_id":1,"event_time":99999999999999999999}`), "time_out_of_range"},
		{nil, []byte(`{"user_id":1,"event_time":9223372036854775807}`), "time_out_of_range"},
		{nil, []byte(`{"user_id":1,"event_time":"9999-12-31T23:59:59Z"}`), "time_ahead"},
		{[]byte("k"), []byte(large), ""},
		{nil, []byte(`{"user_id":1,"event_time":1600000000000}`), ""},
	}
	b.start("one")
	invalid := 0
	for _, r := range rows {
		if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: b.layout.Names.Activity, Partition: 1, Key: r.key, Value: r.value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if r.reason != "" {
			invalid++
		}
	}
	b.eventually("all are judged", func() bool { return b.counts.In.Load() == int64(len(rows)) })
	if c := &b.counts; c.Invalid.Load() != int64(invalid) || c.Counted.Load() != int64(len(rows)-invalid) || c.Late.Load() != 0 {
		t.Errorf("%d counted, %d late, %d invalid of %d", c.Counted.Load(), c.Late.Load(), c.Invalid.Load(), len(rows))
	}
	got := b.read(b.layout.Names.DLQ)
	if len(got) != invalid {
		t.Fatalf("%d dead letters of %d", len(got), invalid)
	}
	i := 0
	for offset, r := range rows {
		if r.reason == "" {
			continue
		}
		h := headers(got[i])
		want := map[string]string{router.HeaderReason: r.reason, router.HeaderTopic: "activity", router.HeaderPartition: "1", router.HeaderOffset: fmt.Sprint(offset)}
		if d := cmp.Diff(want, h); d != "" {
			t.Errorf("%.60q: %s", r.value, d)
		}
		if !bytes.Equal(got[i].Value, r.value) || !bytes.Equal(got[i].Key, r.key) || (r.value == nil) != (got[i].Value == nil) || (r.key == nil) != (got[i].Key == nil) {
			t.Errorf("%.60q with key %q came out as %.60q with key %q", r.value, r.key, got[i].Value, got[i].Key)
		}
		i++
	}
}

// TestAbortForgetsTheTime: an event that is far ahead was read, and the transaction aborted. Read again, the events before it must be
// judged by what was before them, not by what they came with the first time.
func TestAbortForgetsTheTime(t *testing.T) {
	b := newBed(t, 1)
	for i := range 5 {
		b.event(0, "u", float64(i))
	}
	b.event(0, "u", 100)
	b.event(0, "u", 7) // late, the first time and every other
	f := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownServerError, Count: 2})
	stop := b.start("one")
	b.eventually("all are judged", func() bool { return b.counts.In.Load() == 7 })
	stop()
	if f.Hits() != 2 || b.counts.Late.Load() != 1 || b.counts.Counted.Load() != 6 {
		t.Errorf("%d transactions failed; %d late, %d counted", f.Hits(), b.counts.Late.Load(), b.counts.Counted.Load())
	}
	got, _ := b.keyed()
	if d := cmp.Diff(map[userWindow]int64{{`"u"`, 0}: 5, {`"u"`, 100}: 1}, got); d != "" {
		t.Error(d)
	}
	if late := b.read(b.layout.Names.Late); len(late) != 1 || headers(late[0])[router.HeaderOffset] != "6" {
		t.Errorf("late: %v", late)
	}
}
