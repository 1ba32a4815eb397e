package dynamodb_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/shared/store/storetest"
)

// keeper is a table, with those who publish what is to be told.
type keeper struct {
	*dynamodb.Table
	mu       sync.Mutex
	messages map[string]int
}

func (k *keeper) publish(ctx context.Context, list []dynamodb.Notice) error {
	k.mu.Lock()
	for _, n := range list {
		k.messages[n.Message.ID]++
	}
	k.mu.Unlock()
	return k.Told(ctx, noon, list...)
}

func (k *keeper) Apply(ctx context.Context, now time.Time, records []alert.Record) error {
	for _, r := range records {
		it, err := k.Config().Item(r)
		if err != nil {
			return err
		}
		out, err := k.Table.Apply(ctx, now, it, topic)
		if err != nil {
			return err
		}
		var made []dynamodb.Notice // by this record: another's are its own to publish
		for _, n := range out.Untold {
			for _, e := range out.Events {
				if e.ID() == n.Message.ID {
					made = append(made, n)
				}
			}
		}
		if err := k.publish(ctx, made); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) Resolve(ctx context.Context, now, upTo time.Time) error {
	_, err := k.Table.Resolve(ctx, dynamodb.Ending{Now: now, UpTo: upTo, To: []notify.Endpoint{topic}, Publish: k.publish})
	return err
}

func (k *keeper) Messages(context.Context) (map[string]int, error) { return k.messages, nil }

func TestIncidents(t *testing.T) {
	storetest.RunIncidents(t, func(t *testing.T) storetest.Keeper {
		return &keeper{Table: newTable(t, dynamodb.Config{}, nil), messages: map[string]int{}}
	})
}

func incidents(t *testing.T, table *dynamodb.Table, f store.IncidentFilter) (out []incident.Incident) {
	t.Helper()
	for i, err := range table.Incidents(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, i)
	}
	return out
}

func resolve(t *testing.T, table *dynamodb.Table, by dynamodb.Ending) (ids []string) {
	t.Helper()
	if by.Now.IsZero() {
		by.Now = noon
	}
	ended, err := table.Resolve(t.Context(), by)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ended {
		ids = append(ids, e.ID())
	}
	return ids
}

func incidentOf(r alert.Record) string {
	return incident.ID(r.Rule, incident.KeyOf(&r), r.WindowStart, r.WindowEnd)
}

// TestResolveIsToldOnce: what is over is ended when event time has passed it, and told by whoever comes next if nobody could be told.
func TestResolveIsToldOnce(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	r := record("1", 0, alert.Closed, 12)
	apply(t, table, noon, r, topic)
	apply(t, table, noon, record("1", 3, alert.Closed, 7), topic) // it goes on
	id := incidentOf(r)
	open := func(at time.Time) bool {
		t.Helper()
		ok, err := table.Open(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	due := start.Add(40*time.Second + time.Minute + 10*time.Second)
	if !open(time.Time{}) || open(start) {
		t.Error("it is open, and not over at its start")
	}
	to := []notify.Endpoint{topic}
	var published []string
	publish := func(_ context.Context, list []dynamodb.Notice) error {
		for _, n := range list {
			published = append(published, n.Message.ID)
		}
		return nil
	}
	for range 2 { // the index has said that it is over sooner
		if got := resolve(t, table, dynamodb.Ending{UpTo: due.Add(-time.Millisecond), To: to, Publish: publish}); got != nil || published != nil {
			t.Errorf("%v, %v", got, published)
		}
	}
	if open(due.Add(-time.Millisecond)) {
		t.Error("the index does not say when it is over")
	}
	down := errors.New("down")
	ended, err := table.Resolve(t.Context(), dynamodb.Ending{Now: noon, UpTo: due, To: to, Publish: func(context.Context, []dynamodb.Notice) error { return down }})
	if !errors.Is(err, down) || len(ended) != 1 {
		t.Fatalf("%v, %v", ended, err)
	}
	if got := resolve(t, table, dynamodb.Ending{UpTo: due, To: to, Publish: publish}); got != nil {
		t.Errorf("ended again: %v", got)
	}
	// The opening was not told either: whoever applied the record has ended.
	if diff := cmp.Diff([]string{id + "_opened", id + "_resolved"}, published); diff != "" {
		t.Error(diff)
	}
	if got := resolve(t, table, dynamodb.Ending{UpTo: due, To: to, Publish: publish}); got != nil || len(published) != 2 || open(time.Time{}) {
		t.Errorf("%v, %v", got, published)
	}
	var told []string
	for d, err := range table.ListDeliveries(t.Context(), store.DeliveryFilter{Incident: id}) {
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, d.WebhookID+" "+string(d.State))
	}
	if diff := cmp.Diff([]string{id + "_opened delivered", id + "_resolved delivered"}, told); diff != "" {
		t.Error(diff)
	}
	// Nobody is told of what is not severe enough.
	pager := notify.Endpoint{Name: "sns", Filter: notify.Filter{MinSeverity: alert.Critical}}
	apply(t, table, noon, record("2", 0, alert.Closed, 7), pager)
	if got := resolve(t, table, dynamodb.Ending{UpTo: due, To: []notify.Endpoint{pager}, Publish: publish}); len(got) != 1 || len(published) != 2 || open(time.Time{}) {
		t.Errorf("%v, %v", got, published)
	}
}

// TestShorterQuiet: a revision of the rule that shortens quiet ends the incident sooner than the index was told.
func TestShorterQuiet(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	first, next := record("1", 0, alert.Closed, 12), record("1", 1, alert.Closed, 12)
	first.QuietMS, next.QuietMS = 3_600_000, 1000
	apply(t, table, noon, first)
	apply(t, table, noon, next)
	if got := resolve(t, table, dynamodb.Ending{UpTo: start.Add(31 * time.Second)}); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// TestLongIncident: a window that continues an incident finds it however long ago that began, and one that comes late finds the one that it belongs to.
func TestLongIncident(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	long := record("1", 0, alert.Closed, 6)
	long.QuietMS = 24 * 3_600_000
	apply(t, table, noon, long)
	for day := range 4 {
		r := record("1", (day+1)*8640, alert.Closed, 6)
		r.QuietMS = long.QuietMS
		apply(t, table, noon, r)
	}
	before := record("1", -8640, alert.Closed, 6)
	before.QuietMS = long.QuietMS
	apply(t, table, noon, before)
	late := record("1", -2*8640, alert.Closed, 6) // the incident began before its sort key by now
	late.QuietMS = long.QuietMS
	apply(t, table, noon, late)
	got := incidents(t, table, store.IncidentFilter{})
	if len(got) != 1 || got[0].Windows != 7 || got[0].ID != incidentOf(long) {
		t.Errorf("%+v", got)
	}
}

// TestKeysOfAnyLength: incidents of keys that are too long for a partition key, and alike for a long way, are apart; so are those of rules and in shadow.
func TestKeysOfAnyLength(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	n := 0
	for _, key := range []string{fmt.Sprintf("\"%03000d\"", 1), fmt.Sprintf("\"%03000d\"", 2), `"a"`} {
		for _, rule := range []string{"a", "b"} {
			for _, mode := range []string{"", alert.Shadow} {
				r := storetest.Row(rule, []string{"ip"}, key, 0, alert.Closed)
				r.Mode = mode
				r.ID = fmt.Sprintf("%032x", n) // both modes of one window
				r.WindowStart = r.WindowStart.Add(time.Duration(n) * time.Millisecond)
				out := apply(t, table, noon, r, topic)
				if told := len(out.Untold); told != 1 && mode == "" || told != 0 && mode != "" {
					t.Errorf("%s in mode %q: %d messages", rule, mode, told)
				}
				n++
			}
		}
	}
	if got := incidents(t, table, store.IncidentFilter{}); len(got) != n {
		t.Errorf("%d incidents of %d", len(got), n)
	}
}

func TestMark(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	r := record("5", 0, alert.Opened, 6)
	apply(t, table, noon, r)
	m := incident.Marked{Mark: incident.Attack, Note: "a bot <&>", By: "ana", At: noon}
	if err := table.Mark(t.Context(), incidentOf(r), m); err != nil {
		t.Fatal(err)
	}
	apply(t, table, noon, record("5", 0, alert.Closed, 6)) // it keeps the mark
	resolve(t, table, dynamodb.Ending{UpTo: start.Add(time.Hour)})
	if diff := cmp.Diff(&m, incidents(t, table, store.IncidentFilter{Mark: incident.Attack})[0].Marked); diff != "" {
		t.Error(diff)
	}
	if err := table.Mark(t.Context(), incidentOf(r), incident.Marked{}); err != nil || incidents(t, table, store.IncidentFilter{})[0].Marked != nil {
		t.Errorf("no mark: %v", err)
	}
	if err := table.Mark(t.Context(), "none", m); !errors.Is(err, store.ErrNoIncident) {
		t.Errorf("Mark of none: %v", err)
	}
}

func TestSilences(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	five := incident.Silence{ID: "s5", Rule: alert.Burst, Key: map[string]string{"user_id": "5"}, From: noon, Until: noon.Add(time.Hour), Author: "ana", Reason: "load test <&>", CreatedAt: noon}
	past := incident.Silence{ID: "s0", Rule: alert.Burst, From: noon.Add(-time.Hour), Until: noon, CreatedAt: noon.Add(-time.Hour)}
	for _, s := range []incident.Silence{five, past} {
		if err := table.AddSilence(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	list := func(endAfter time.Time) []incident.Silence {
		t.Helper()
		out, err := table.Silences(t.Context(), endAfter)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if diff := cmp.Diff([]incident.Silence{past, five}, list(time.Time{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]incident.Silence{five}, list(noon)); diff != "" {
		t.Error(diff)
	}
	r := record("5", 0, alert.Opened, 6)
	if out := apply(t, table, noon, r, topic); len(out.Untold) != 0 {
		t.Errorf("%+v", out)
	}
	if out := apply(t, table, noon, record("6", 0, alert.Opened, 6), topic); len(out.Untold) != 1 {
		t.Errorf("%+v", out)
	}
	if got := incidents(t, table, store.IncidentFilter{Silenced: "s5"}); len(got) != 1 || got[0].ID != incidentOf(r) {
		t.Errorf("%+v", got)
	}
	// Its end comes early; the incident goes on, and is told now.
	if err := table.EndSilence(t.Context(), "s5", noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	five.Until = noon.Add(time.Minute)
	if diff := cmp.Diff([]incident.Silence{past, five}, list(time.Time{})); diff != "" {
		t.Error(diff)
	}
	if out := apply(t, table, noon.Add(time.Minute), record("5", 0, alert.Closed, 7), topic); len(out.Untold) != 1 || out.Untold[0].Message.ID != incidentOf(r)+"_opened" {
		t.Errorf("%+v", out)
	}
	if err := table.EndSilence(t.Context(), "s5", noon.Add(time.Hour)); err != nil || !list(noon)[0].Until.Equal(five.Until) {
		t.Errorf("a silence that has ended: %v, %v", err, list(noon))
	}
	if err := table.EndSilence(t.Context(), "none", noon); !errors.Is(err, store.ErrNoSilence) {
		t.Errorf("EndSilence of none: %v", err)
	}
}

// between returns a table of which the next transaction waits for f, which works on the same table with nobody between.
func between(t *testing.T) (hooked, plain *dynamodb.Table, set func(f func())) {
	t.Helper()
	var next func()
	plain = newTable(t, dynamodb.Config{}, nil)
	api := &faulty{API: client(t), write: func(_ int64, do func() (*sdk.TransactWriteItemsOutput, error)) (*sdk.TransactWriteItemsOutput, error) {
		if f := next; f != nil {
			next = nil
			f()
		}
		return do()
	}}
	hooked, err := dynamodb.New(api, plain.Config())
	if err != nil {
		t.Fatal(err)
	}
	return hooked, plain, func(f func()) { next = f }
}

// TestSomebodyIsFaster: whatever another does between the reads and the write of one is noticed, and what comes of both is what comes of one after the other.
func TestSomebodyIsFaster(t *testing.T) {
	over := start.Add(80 * time.Second) // when an incident of the first window is
	open, next, far := record("1", 0, alert.Closed, 6), record("1", 7, alert.Closed, 12), record("1", 14, alert.Closed, 6)
	end := dynamodb.Ending{Now: noon, UpTo: over}
	for _, c := range []struct {
		name        string
		first       []alert.Record
		one, other  func(*dynamodb.Table)
		want        []int64 // windows of the incidents
		wantOpen    int
		wantMembers int64 // of all
	}{
		{"a window joins while the incident ends", []alert.Record{open}, func(h *dynamodb.Table) { resolve(t, h, end) }, func(p *dynamodb.Table) { apply(t, p, noon, next) }, []int64{2}, 1, 2},
		{"the incident ends while a window joins", []alert.Record{open}, func(h *dynamodb.Table) { apply(t, h, noon, next) }, func(p *dynamodb.Table) { resolve(t, p, end) }, []int64{1, 1}, 1, 2},
		{"both open the incident", nil, func(h *dynamodb.Table) { apply(t, h, noon, next) }, func(p *dynamodb.Table) { apply(t, p, noon, open) }, []int64{2}, 1, 2},
		{"both join it", []alert.Record{open}, func(h *dynamodb.Table) { apply(t, h, noon, far) }, func(p *dynamodb.Table) { apply(t, p, noon, next) }, []int64{3}, 1, 3},
		{"both end it", []alert.Record{open}, func(h *dynamodb.Table) { resolve(t, h, end) }, func(p *dynamodb.Table) { resolve(t, p, end) }, []int64{1}, 0, 1},
		{"both have the record", []alert.Record{open}, func(h *dynamodb.Table) { apply(t, h, noon, next) }, func(p *dynamodb.Table) { apply(t, p, noon, next) }, []int64{2}, 1, 2},
	} {
		hooked, plain, set := between(t)
		for _, r := range c.first {
			apply(t, plain, noon, r)
		}
		came := false
		set(func() { came = true; c.other(plain) })
		c.one(hooked)
		var windows []int64
		open, members := 0, int64(0)
		for _, i := range incidents(t, plain, store.IncidentFilter{}) {
			windows, members = append(windows, i.Windows), members+i.Windows
			if i.State == incident.StateOpen {
				open++
			}
		}
		if diff := cmp.Diff(c.want, windows); diff != "" || open != c.wantOpen || members != c.wantMembers || !came {
			t.Errorf("%s: %d open, %d windows, came between: %v: %s", c.name, open, members, came, diff)
		}
	}
}

// TestToldMeanwhile: a message that is told between the reads and the write of another is not to be told again.
func TestToldMeanwhile(t *testing.T) {
	first, next := record("1", 0, alert.Closed, 12), record("1", 1, alert.Closed, 12)
	over := dynamodb.Ending{Now: noon, UpTo: start.Add(80 * time.Second), To: []notify.Endpoint{topic}}
	for name, c := range map[string]struct {
		one  func(*dynamodb.Table)
		want []string
	}{
		"a window joins": {func(h *dynamodb.Table) { apply(t, h, noon, next, topic) }, []string{"_opened delivered"}},
		"it ends":        {func(h *dynamodb.Table) { resolve(t, h, over) }, []string{"_opened delivered", "_resolved pending"}},
	} {
		hooked, plain, set := between(t)
		waiting := apply(t, plain, noon, first, topic).Untold
		set(func() {
			if err := plain.Told(t.Context(), noon, waiting...); err != nil {
				t.Error(err)
			}
		})
		c.one(hooked)
		var got []string
		for d, err := range plain.ListDeliveries(t.Context(), store.DeliveryFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.TrimPrefix(d.WebhookID, d.Incident)+" "+string(d.State))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestOpenIncidentsAreKept: what is kept for a time is kept for longer as long as it is open, for its end is still to be told.
func TestOpenIncidentsAreKept(t *testing.T) {
	table := newTable(t, dynamodb.Config{Retain: time.Hour}, nil)
	r := record("1", 0, alert.Closed, 12)
	expires := func() map[string]time.Duration { // by kind, from noon on
		t.Helper()
		out := map[string]time.Duration{}
		res, err := client(t).Scan(t.Context(), &sdk.ScanInput{TableName: aws.String(table.Config().Table)})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range res.Items {
			var kind string
			if k, ok := a["kind"].(*types.AttributeValueMemberS); ok {
				kind = k.Value
			}
			if n, ok := a["expires_at"].(*types.AttributeValueMemberN); ok {
				s, _ := strconv.ParseInt(n.Value, 10, 64)
				out[kind] = time.Unix(s, 0).Sub(noon)
			}
		}
		return out
	}
	const longer = time.Hour + 31*24*time.Hour
	apply(t, table, noon, r)
	if diff := cmp.Diff(map[string]time.Duration{"": time.Hour, "incident": longer, "head": longer}, expires()); diff != "" {
		t.Errorf("open: %s", diff)
	}
	resolve(t, table, dynamodb.Ending{UpTo: start.Add(time.Hour)})
	if diff := cmp.Diff(map[string]time.Duration{"": time.Hour, "incident": time.Hour, "head": time.Hour}, expires()); diff != "" {
		t.Errorf("over: %s", diff)
	}
}

// TestHeadExpiresFirst: DynamoDB deletes what has expired in no order. Without its head, an incident is still found.
func TestHeadExpiresFirst(t *testing.T) {
	table := newTable(t, dynamodb.Config{Retain: time.Hour}, nil)
	first := record("1", 0, alert.Closed, 6)
	first.QuietMS = 3_600_000
	for n := range 3 { // the last one is an hour after the first
		r := record("1", n*180, alert.Closed, 6)
		r.QuietMS = first.QuietMS
		if n < 2 {
			apply(t, table, noon, r)
			continue
		}
		key := map[string]types.AttributeValue{"ddb_partition_key": &types.AttributeValueMemberS{Value: `incident#burst##{"user_id":1}#appserver#` + dynamodb.DefaultServer}, "ddb_sort_key": &types.AttributeValueMemberN{Value: "999999999999"}}
		if out, err := client(t).DeleteItem(t.Context(), &sdk.DeleteItemInput{TableName: aws.String(table.Config().Table), Key: key, ReturnValues: types.ReturnValueAllOld}); err != nil || out.Attributes == nil {
			t.Fatalf("%v, %v", out, err)
		}
		apply(t, table, noon, r)
	}
	if got := incidents(t, table, store.IncidentFilter{}); len(got) != 1 || got[0].Windows != 3 || got[0].ID != incidentOf(first) {
		t.Errorf("%+v", got)
	}
}
