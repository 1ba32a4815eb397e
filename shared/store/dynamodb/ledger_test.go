package dynamodb_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/shared/store/storetest"
)

// ledger is a table as a store whose Apply takes many records, one after the other.
type ledger struct {
	*dynamodb.Table
	uncalled
}

// uncalled is what the suite does not call.
type uncalled struct{ store.Store }

func (l ledger) Apply(ctx context.Context, now time.Time, records []alert.Record, to ...notify.Endpoint) (out store.Applied, err error) {
	out.Changed = make([]bool, len(records))
	for i, r := range records {
		it, err := l.Config().Item(r)
		if err != nil {
			return out, err
		}
		o, err := l.Table.Apply(ctx, now, it, to...)
		if errors.Is(err, store.ErrConflict) {
			out.Rejected = append(out.Rejected, store.Rejection{Index: i, Err: err})
			continue
		} else if err != nil {
			return out, err
		}
		out.Changed[i], out.Events = o.Made || o.Moved, append(out.Events, o.Events...)
	}
	return out, nil
}

func (l ledger) Resolve(ctx context.Context, now, upTo time.Time, limit int, to ...notify.Endpoint) ([]incident.Event, error) {
	return l.Table.Resolve(ctx, dynamodb.Ending{Now: now, UpTo: upTo, Limit: limit, To: to})
}

func (l ledger) Close() error { return nil }

func TestDeliveries(t *testing.T) {
	storetest.RunDeliveries(t, func(t *testing.T) func() store.Store {
		table := newTable(t, dynamodb.Config{}, nil)
		return func() store.Store { return newLedger(t, table.Config()) }
	})
}

// newLedger opens a table that is there, as another process does.
func newLedger(t *testing.T, cfg dynamodb.Config) ledger {
	t.Helper()
	table, err := dynamodb.New(client(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return ledger{Table: table}
}

// works works off the deliveries to endpoints until the test ends.
func works(t *testing.T, table *dynamodb.Table, do store.Do, names ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var queues []store.Queue
	for _, name := range names {
		queues = append(queues, store.Queue{Endpoint: name, Workers: 4})
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := table.Work(ctx, queues, slog.New(slog.DiscardHandler), do); err != nil {
			t.Errorf("Work: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func delivered(t *testing.T, table *dynamodb.Table, id, endpoint string) store.Delivery {
	t.Helper()
	d, err := table.Delivery(t.Context(), id, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// idsOf is a digest's data that has the ids of its messages.
func idsOf(held iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
	ids := []string{}
	for h, err := range held {
		if err != nil {
			return nil, err
		}
		ids = append(ids, notify.IDOf(*h.Alert))
	}
	return json.Marshal(ids)
}

// TestFlood: while alerts come in, two processes work off what is due. Each message is sent alone or in one digest, no more than the limit alone in a minute, and none is lost. The
// minute is over, so digests are made while more messages come that they could hold.
func TestFlood(t *testing.T) {
	const users, limit = 60, 5
	table := newTable(t, dynamodb.Config{}, nil)
	other := newLedger(t, table.Config()).Table
	few := notify.Endpoint{Name: "few", Filter: notify.Alerts(), DigestAbove: limit}
	var mu sync.Mutex
	sent := map[string]int{}         // messages sent alone
	digests := map[string][]string{} // messages by digest
	for _, by := range []*dynamodb.Table{table, other} {
		works(t, by, func(ctx context.Context, id, endpoint string) (time.Time, error) {
			d, err := by.Delivery(ctx, id, endpoint)
			if err != nil || d.State != store.Pending {
				return time.Time{}, err
			}
			var ids []string
			if notify.IsDigest(d.Type) {
				if d, err = by.Seal(ctx, id, endpoint, idsOf); err != nil {
					return time.Time{}, err
				}
				if err := json.Unmarshal(d.Data, &ids); err != nil {
					return time.Time{}, err
				}
			}
			mu.Lock()
			if sent[id]++; ids != nil {
				digests[id] = ids
			}
			mu.Unlock()
			_, err = by.Record(ctx, store.Try{WebhookID: id, Endpoint: endpoint, At: time.Now(), Outcome: notify.Delivered}, true)
			return time.Time{}, err
		}, "few")
	}
	want := map[string]bool{} // whether it is critical
	var applied sync.WaitGroup
	for n := range 4 {
		var records []alert.Record
		for user := n; user < users; user += 4 {
			r := record(strconv.Itoa(user), 0, alert.Opened, 6)
			if user%10 == 0 {
				r.Severity = alert.Critical
			}
			want[notify.IDOf(r)] = r.Severity == alert.Critical
			records = append(records, r)
		}
		by := []*dynamodb.Table{table, other}[n%2]
		applied.Go(func() {
			for _, r := range records {
				it, err := by.Config().Item(r)
				if err == nil {
					_, err = by.Apply(t.Context(), noon, it, few)
				}
				if err != nil {
					t.Errorf("Apply: %v", err)
				}
			}
		})
	}
	applied.Wait()
	eventually(t, "nothing is pending", func() bool {
		states, err := table.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(states) == 0
	})
	mu.Lock()
	defer mu.Unlock()
	in := map[string]string{} // digest by message
	for digest, ids := range digests {
		for _, id := range ids {
			if in[id] != "" {
				t.Errorf("%s is in %s and in %s", id, in[id], digest)
			}
			in[id] = digest
		}
	}
	alone := 0
	for id, critical := range want {
		switch {
		case sent[id] > 1:
			t.Errorf("%s was sent %d times", id, sent[id])
		case sent[id] == 1 && in[id] != "":
			t.Errorf("%s was sent alone and in %s", id, in[id])
		case sent[id] == 0 && in[id] == "":
			t.Errorf("%s was not sent: %+v", id, delivered(t, table, id, "few"))
		case critical && in[id] != "":
			t.Errorf("%s is critical, and was held", id)
		case sent[id] == 1 && !critical:
			alone++
		}
		if d := delivered(t, table, id, "few"); d.Digest != in[id] || (d.State == store.Held) != (in[id] != "") {
			t.Errorf("%+v, but it is in digest %q", d, in[id])
		}
	}
	if alone != limit || len(in) != users-users/10-limit {
		t.Errorf("%d were sent alone, %d in digests", alone, len(in))
	}
	t.Logf("%d alone, %d in %d digests", alone, len(in), len(digests))
}

// TestSeal: what a digest holds is settled when it is made, and each of its messages is the alert or incident as it is then.
func TestSeal(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	alerts, incidents := notify.Endpoint{Name: "alerts", Filter: notify.Alerts(), DigestAbove: 1}, notify.Endpoint{Name: "incidents", DigestAbove: 1}
	works(t, table, func(ctx context.Context, id, endpoint string) (time.Time, error) {
		if strings.HasPrefix(id, "digest_") {
			return time.Now().Add(time.Hour), nil
		}
		_, err := table.Record(ctx, store.Try{WebhookID: id, Endpoint: endpoint, At: noon, Outcome: notify.Delivered}, true)
		return time.Time{}, err
	}, "alerts", "incidents")
	settled := func(id, endpoint string) store.Delivery {
		t.Helper()
		var d store.Delivery
		eventually(t, id+" is sent or held", func() bool { d = delivered(t, table, id, endpoint); return d.State != store.Pending })
		return d
	}
	first, opened, closed := record("1", 0, alert.Opened, 6), record("2", 0, alert.Opened, 6), record("2", 0, alert.Closed, 9)
	for n, r := range []alert.Record{first, opened, closed} {
		apply(t, table, noon.Add(time.Duration(n)*time.Second), r, alerts, incidents)
		settled(notify.IDOf(r), "alerts")
	}
	digest := settled(notify.IDOf(closed), "alerts").Digest
	if want := fmt.Sprintf("digest_alerts_%d", noon.Unix()); digest != want || settled(notify.IDOf(first), "alerts").State != store.Delivered {
		t.Fatalf("digest %q, not %q", digest, want)
	}
	d := delivered(t, table, digest, "alerts")
	if end := noon.Add(time.Minute); d.Data != nil || d.Type != notify.TypeDigest || !d.CreatedAt.Equal(noon) || !d.BegunAt.Equal(end) || !d.NextAt.Equal(end) {
		t.Errorf("digest: %+v", d)
	}
	if n, err := table.Resend(t.Context(), noon, store.DeliveryFilter{WebhookID: digest}); n != 0 || err != nil {
		t.Errorf("Resend of a digest whose minute has not ended: %d, %v", n, err)
	}
	broken := errors.New("broken")
	for range 2 { // it may look at a part only
		if _, err := table.Seal(t.Context(), digest, "alerts", func(held iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
			for _, err := range held {
				return nil, errors.Join(broken, err)
			}
			return nil, errors.New("nothing is held")
		}); !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if _, err := table.Seal(t.Context(), digest, "alerts", func(iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
		return json.RawMessage(`"` + strings.Repeat("x", 400<<10) + `"`), nil
	}); !errors.Is(err, notify.ErrUnsendable) {
		t.Errorf("a digest for which there is no room: %v", err)
	}
	got := map[string]alert.Record{}
	d, err := table.Seal(t.Context(), digest, "alerts", func(held iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
		for h, err := range held {
			if err != nil {
				return nil, err
			}
			got[notify.IDOf(*h.Alert)] = *h.Alert
		}
		return json.RawMessage(`{"n": 1}`), nil
	})
	if err != nil || string(d.Data) != `{"n": 1}` {
		t.Fatalf("%s, %v", d.Data, err)
	}
	now := closed
	now.State = alert.Opened
	if diff := cmp.Diff(map[string]alert.Record{notify.IDOf(opened): now, notify.IDOf(closed): closed}, got); diff != "" {
		t.Errorf("held: %s", diff)
	}
	again, err := table.Seal(t.Context(), digest, "alerts", nil)
	if diff := cmp.Diff(d, again); diff != "" || err != nil {
		t.Errorf("second Seal: %v %s", err, diff)
	}

	// What comes later goes with the next digest.
	late := record("3", 0, alert.Opened, 6)
	apply(t, table, noon.Add(3*time.Second), late, alerts)
	if d := settled(notify.IDOf(late), "alerts"); d.Digest != fmt.Sprintf("digest_alerts_%d", noon.Unix()+60) {
		t.Errorf("late: %+v", d)
	}

	// An incident as it is now; one that has expired, as the message had it.
	second := record("2", 1, alert.Closed, 7)
	apply(t, table, noon.Add(4*time.Second), second, incidents)
	id := incidentOf(opened)
	digest = settled(id+"_opened", "incidents").Digest
	for _, want := range []int64{2, 1} {
		held := 0
		_, err := table.Seal(t.Context(), digest, "incidents", func(list iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
			for h, err := range list {
				if held++; err != nil || h.Incident == nil || h.Incident.ID != id || h.Incident.Windows != want {
					t.Errorf("%+v, %v", h, err)
				}
			}
			return nil, broken
		})
		if !errors.Is(err, broken) || held != 1 {
			t.Errorf("%d held, %v", held, err)
		}
		removeIncidents(t, table)
	}
}

// removeIncidents is what the time to live does.
func removeIncidents(t *testing.T, table *dynamodb.Table) {
	t.Helper()
	res, err := client(t).Scan(t.Context(), &sdk.ScanInput{TableName: aws.String(table.Config().Table)})
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range res.Items {
		if kind, ok := it["kind"].(*types.AttributeValueMemberS); !ok || kind.Value != "incident" {
			continue
		}
		key := map[string]types.AttributeValue{"ddb_partition_key": it["ddb_partition_key"], "ddb_sort_key": it["ddb_sort_key"]}
		if _, err := client(t).DeleteItem(t.Context(), &sdk.DeleteItemInput{TableName: aws.String(table.Config().Table), Key: key}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneTransaction: an alert and the messages about it are stored together or not at all, and once, though answers are lost.
func TestOneTransaction(t *testing.T) {
	lost := errors.New("connection reset")
	var fail, largest atomic.Int64 // 1: before the transaction, 2: after it
	table := newTable(t, dynamodb.Config{}, func(api dynamodb.API) dynamodb.API {
		return &counting{API: api, largest: &largest, write: func(do func() error) error {
			switch fail.Swap(0) {
			case 1:
				return lost
			case 2:
				return errors.Join(do(), lost)
			}
			return do()
		}}
	})
	var to []notify.Endpoint
	for n := range dynamodb.MaxEndpoints {
		e := notify.Endpoint{Name: fmt.Sprintf("e%d", n)}
		if n == 0 {
			e.Filter = notify.Alerts()
		}
		to = append(to, e)
	}
	count := func() (n int) {
		for _, err := range table.ListDeliveries(t.Context(), store.DeliveryFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	r := record("1", 0, alert.Opened, 12)
	it := item(t, table, r)
	for _, c := range []struct {
		fail int64
		made bool
		want int
	}{{1, false, 0}, {2, false, len(to)}, {0, false, len(to)}} {
		fail.Store(c.fail)
		out, err := table.Apply(t.Context(), noon, it, append(to, topic)...)
		if errors.Is(err, lost) != (c.fail > 0) || out.Made != c.made {
			t.Errorf("%+v: %+v, %v", c, out, err)
		}
		if got := count(); got != c.want+min(c.want, 1) { // one is the topic's
			t.Errorf("%+v: %d deliveries", c, got)
		}
	}
	for _, c := range []int64{1, 2} {
		fail.Store(c)
		_, err := table.Resolve(t.Context(), dynamodb.Ending{Now: noon, UpTo: noon, To: to})
		if !errors.Is(err, lost) {
			t.Errorf("Resolve: %v", err)
		}
		if got, want := count(), len(to)+1+int(c-1)*(len(to)-1); got != want {
			t.Errorf("after Resolve: %d deliveries, not %d", got, want)
		}
	}
	if n := largest.Load(); n > 100-1 { // a decision is one more
		t.Errorf("a transaction had %d writes", n)
	}
	if _, err := table.Apply(t.Context(), noon, item(t, table, record("2", 0, alert.Opened, 12)), append(to, notify.Endpoint{Name: "more"})...); err == nil || errors.Is(err, store.ErrInvalid) {
		t.Errorf("one endpoint too many: %v", err)
	}
}

// counting knows the largest transaction, and refuses scans if it is to.
type counting struct {
	dynamodb.API
	largest *atomic.Int64
	noScan  atomic.Bool
	write   func(do func() error) error
}

func (c *counting) TransactWriteItems(ctx context.Context, in *sdk.TransactWriteItemsInput, opts ...func(*sdk.Options)) (out *sdk.TransactWriteItemsOutput, err error) {
	if c.largest != nil {
		c.largest.Store(max(c.largest.Load(), int64(len(in.TransactItems))))
	}
	do := func() (err error) {
		out, err = c.API.TransactWriteItems(ctx, in, opts...)
		return err
	}
	if c.write != nil {
		return out, c.write(do)
	}
	return out, do()
}

func (c *counting) Scan(ctx context.Context, in *sdk.ScanInput, opts ...func(*sdk.Options)) (*sdk.ScanOutput, error) {
	if c.noScan.Load() {
		return nil, errors.New("the whole table is read")
	}
	return c.API.Scan(ctx, in, opts...)
}

// TestNoScan: whoever delivers never reads the whole table, and neither do those who look for what was not delivered.
func TestNoScan(t *testing.T) {
	watched := &counting{}
	table := newTable(t, dynamodb.Config{}, func(api dynamodb.API) dynamodb.API {
		watched.API = api
		return watched
	})
	watched.noScan.Store(true)
	to := notify.Endpoint{Name: "a"}
	r := record("1", 0, alert.Closed, 12)
	apply(t, table, noon, r, to)
	apply(t, table, noon, record("2", 0, alert.Closed, 12), to)
	id := incidentOf(r)
	list := func(f store.DeliveryFilter, want int) {
		t.Helper()
		n := 0
		for _, err := range table.ListDeliveries(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != want {
			t.Errorf("%+v: %d deliveries", f, n)
		}
	}
	list(store.DeliveryFilter{Incident: id, Endpoint: "a"}, 1)
	list(store.DeliveryFilter{Incident: id}, 1)
	list(store.DeliveryFilter{WebhookID: id + "_opened"}, 1)
	list(store.DeliveryFilter{Endpoint: "a", States: []store.DeliveryState{store.Pending, store.Exhausted}}, 2)
	for range 2 {
		for _, f := range []store.IncidentFilter{{State: incident.StateOpen}, {ID: id, State: incident.StateOpen}, {ID: id}} {
			want := map[bool]int{true: 2, false: 1}[f.ID == ""]
			if got := incidents(t, table, f); len(got) != want {
				t.Errorf("%+v: %+v", f, got)
			}
		}
	}
	if got := resolve(t, table, dynamodb.Ending{UpTo: noon, To: []notify.Endpoint{to}}); len(got) != 2 {
		t.Errorf("ended: %v", got)
	}
	if got := incidents(t, table, store.IncidentFilter{State: incident.StateOpen}); len(got) != 0 {
		t.Errorf("open: %+v", got)
	}
	if got := incidents(t, table, store.IncidentFilter{ID: id, State: incident.StateResolved}); len(got) != 1 {
		t.Errorf("resolved: %+v", got)
	}
	if _, err := table.Record(t.Context(), store.Try{WebhookID: id + "_opened", Endpoint: "a", At: noon, Outcome: notify.Exhausted}, true); err != nil {
		t.Fatal(err)
	}
	list(store.DeliveryFilter{States: []store.DeliveryState{store.Exhausted}}, 1)
	if n, err := table.Resend(t.Context(), noon.Add(time.Second), store.DeliveryFilter{States: []store.DeliveryState{store.Pending, store.Exhausted, store.Disabled}}); n != 1 || err != nil {
		t.Errorf("Resend: %d, %v", n, err)
	}
	if states, err := table.Endpoints(t.Context()); err != nil || len(states) != 1 || states[0].Pending != 4 || states[0].Exhausted != 0 {
		t.Errorf("%+v, %v", states, err)
	}
	var calls sync.Map
	works(t, table, func(_ context.Context, id, _ string) (time.Time, error) {
		calls.Store(id, true)
		return time.Time{}, nil
	}, "a")
	eventually(t, "all are worked off", func() bool {
		n := 0
		calls.Range(func(any, any) bool { n++; return true })
		return n == 4
	})
}

// TestArrivedIsTold: an alert whose window is unknown is told to endpoints that are notified of alerts, in a form that they can show.
func TestArrivedIsTold(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	r := record("1", 0, alert.Closed, 12)
	r.ID = "row-1"
	it, err := table.Config().Arrived(r, noon, "12345")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := table.Apply(t.Context(), noon, it, notify.Endpoint{Name: "alerts", Filter: notify.Alerts()}, notify.Endpoint{Name: "incidents"}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for d, err := range table.ListDeliveries(t.Context(), store.DeliveryFilter{}) {
		if n++; err != nil || d.Endpoint != "alerts" || d.AlertID != r.ID {
			t.Errorf("%+v, %v", d, err)
		}
		if _, err := brief.Of(notify.Message{ID: d.WebhookID, Type: d.Type, At: d.CreatedAt, Data: d.Data}, ""); err != nil {
			t.Errorf("%v: %s", err, d.Data)
		}
	}
	if n != 1 {
		t.Errorf("%d deliveries", n)
	}
}
