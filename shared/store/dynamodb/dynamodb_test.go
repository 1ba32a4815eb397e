package dynamodb_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"spate/shared/aws/awstest"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

var (
	start = time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)
	noon  = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	names atomic.Int64
)

func client(t *testing.T) *sdk.Client {
	t.Helper()
	cfg := awstest.Config(awstest.DynamoDB(t))
	return sdk.NewFromConfig(cfg, func(o *sdk.Options) { o.Retryer = awstest.Retryer() })
}

// newTable makes a table of its own. wrap, if not nil, comes between it and the client.
func newTable(t *testing.T, cfg dynamodb.Config, wrap func(dynamodb.API) dynamodb.API) *dynamodb.Table {
	t.Helper()
	cfg.Table = fmt.Sprintf("alerts-%d", names.Add(1))
	table, err := dynamodb.New(client(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // one that is there is fine
		if err := table.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var api dynamodb.API = client(t)
	if wrap != nil {
		api = wrap(api)
	}
	if table, err = dynamodb.New(api, cfg); err != nil {
		t.Fatal(err)
	}
	return table
}

func record(user string, window int, state alert.State, count int64) alert.Record {
	at := start.Add(time.Duration(window) * 10 * time.Second)
	return alert.Record{
		ID: alert.ID(alert.Burst, user, at.UnixMilli(), 10_000), Rule: alert.Burst, State: state, Severity: alert.SeverityOf(count, 10),
		UserID: json.RawMessage(user), Count: count, Threshold: 5, WindowStart: at, WindowEnd: at.Add(10 * time.Second),
		FirstEventAt: at.Add(time.Millisecond), LastEventAt: at.Add(time.Second),
		Evidence: alert.Evidence{Stream: "s", Shards: map[string]alert.SequenceRange{"shardId-000000000000": {First: "1", Last: "2"}}},
	}
}

func item(t *testing.T, table *dynamodb.Table, r alert.Record) dynamodb.Item {
	t.Helper()
	it, err := table.Config().Item(r)
	if err != nil {
		t.Fatal(err)
	}
	return it
}

// topic is told of everything.
var topic = notify.Endpoint{Name: "sns"}

func apply(t *testing.T, table *dynamodb.Table, now time.Time, r alert.Record, to ...notify.Endpoint) dynamodb.Outcome {
	t.Helper()
	out, err := table.Apply(t.Context(), now, item(t, table, r), to...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// raw reads an item as it is in the table.
func raw(t *testing.T, table *dynamodb.Table, key dynamodb.Key) map[string]string {
	t.Helper()
	res, err := client(t).GetItem(t.Context(), &sdk.GetItemInput{TableName: aws.String(table.Config().Table), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"ddb_partition_key": &types.AttributeValueMemberS{Value: key.Partition}, "ddb_sort_key": &types.AttributeValueMemberN{Value: key.Sort}}})
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for name, v := range res.Item {
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			out[name] = "S " + v.Value
		case *types.AttributeValueMemberN:
			out[name] = "N " + v.Value
		default:
			t.Fatalf("%s is %T", name, v)
		}
	}
	return out
}

func alerts(t *testing.T, table *dynamodb.Table, f store.Filter) []store.Alert {
	t.Helper()
	var out []store.Alert
	for a, err := range table.Alerts(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func TestItemIsPinned(t *testing.T) {
	table := newTable(t, dynamodb.Config{Retain: time.Hour}, nil)
	r := record("520088904", 1, alert.Opened, 6)
	r.WindowStart = r.WindowStart.Add(250 * time.Millisecond)
	out := apply(t, table, noon, r, topic)
	if !out.Made || out.Moved || out.Item.Notification != dynamodb.None || len(out.Untold) != 1 {
		t.Fatalf("outcome: %+v", out)
	}
	id := incident.ID(r.Rule, incident.KeyOf(&r), r.WindowStart, r.WindowEnd)
	expires := "N " + fmt.Sprint(noon.Add(time.Hour).Unix())
	want := map[string]string{
		"ddb_partition_key": "S userid#520088904#appserver#app-server-tomcat-123", "ddb_sort_key": "N 1572566410.25",
		"id": "S " + r.ID, "rule": "S burst", "state": "S opened", "state_rank": "N 1", "severity": "S warning",
		"user_id": "N 520088904", "user_token": "S 520088904", "num_actions_per_watermark": "N 6", "threshold": "N 5",
		"window_start": "S 2019-11-01T00:00:10.25Z", "window_end": "S 2019-11-01T00:00:20Z",
		"first_event_at": "S 2019-11-01T00:00:10.001Z", "last_event_at": "S 2019-11-01T00:00:11Z",
		"evidence":  `S {"stream":"s","shards":{"shardId-000000000000":{"first_sequence_number":"1","last_sequence_number":"2"}}}`,
		"opened_at": "S 2026-11-24T12:00:00Z", "expires_at": expires,
		"incident_id": "S " + id, "incident_sort_key": "N " + out.Item.SortOf, "incident_counted": "N 6",
	}
	if diff := cmp.Diff(want, raw(t, table, out.Item.Key)); diff != "" {
		t.Error(diff)
	}
	of := dynamodb.Key{Partition: `incident#burst##{"user_id":520088904}#appserver#app-server-tomcat-123`, Sort: out.Item.SortOf}
	if !strings.HasPrefix(of.Sort, "1572566410.25") {
		t.Errorf("sort key %s", of.Sort)
	}
	data := `{"id":"` + id + `","rule":"burst","state":"open","severity":"warning","key":{"user_id":520088904},"opened_at":"2026-11-24T12:00:00Z","first_window_start":"2019-11-01T00:00:10.25Z",` +
		`"last_window_end":"2019-11-01T00:00:20Z","windows":1,"events":6,"peak":6,"alert_id":"` + r.ID + `"}`
	run := map[string]string{
		"ddb_partition_key": "S " + of.Partition, "ddb_sort_key": "N " + of.Sort, "kind": "S incident", "incident_id": "S " + id, "rule": "S burst", "state": "S open", "severity": "S warning",
		"key": `S {"user_id":520088904}`, "opened_at": "S 2026-11-24T12:00:00Z", "first_window_start": "S 2019-11-01T00:00:10.25Z", "last_window_end": "S 2019-11-01T00:00:20Z",
		"windows": "N 1", "events": "N 6", "peak": "N 6", "escalations": "N 0", "alert_id": "S " + r.ID, "quiet_ms": "N 60000", "longest_ms": "N 9750", "told": "S warning", "expires_at": "N " + fmt.Sprint(noon.Add(31*24*time.Hour+time.Hour).Unix()),
		"untold_opened": `S {"id":"` + id + `_opened","type":"incident.opened","at":"2026-11-24T12:00:00Z","data":` + data + `}`,
	}
	if diff := cmp.Diff(run, raw(t, table, of)); diff != "" {
		t.Error(diff)
	}
	if err := table.Told(t.Context(), noon.Add(time.Second), out.Untold...); err != nil {
		t.Fatal(err)
	}
	delete(run, "untold_opened")
	run["told_at_opened"] = "S 2026-11-24T12:00:01Z"
	if diff := cmp.Diff(run, raw(t, table, of)); diff != "" {
		t.Error(diff)
	}

	r.State, r.Count, r.Severity = alert.Closed, 11, alert.Critical
	out = apply(t, table, noon.Add(time.Minute), r, topic)
	if !out.Moved || out.Made || len(out.Untold) != 1 || out.Untold[0].Message.ID != id+"_escalated_1" {
		t.Errorf("outcome: %+v", out)
	}
	want["state"], want["state_rank"], want["severity"], want["num_actions_per_watermark"], want["incident_counted"] = "S closed", "N 2", "S critical", "N 11", "N 11"
	want["closed_at"], want["expires_at"] = "S 2026-11-24T12:01:00Z", "N "+fmt.Sprint(noon.Add(time.Hour+time.Minute).Unix())
	if diff := cmp.Diff(want, raw(t, table, out.Item.Key)); diff != "" {
		t.Error(diff)
	}
}

// TestUsersHaveKeysOfTheirOwn: users that are written alike are different items, and come back as they were.
func TestUsersHaveKeysOfTheirOwn(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	keys := map[string]string{
		`5`: "5", `"5"`: `"5"`, `"\"5\""`: `"\"5\""`, `5.0`: "5.0", `"5.0"`: `"5.0"`, `-5`: "-5", `5e0`: "5e0", `"a"`: "a", `"\"a"`: `"\"a"`, `"a#b"`: "a#b",
		`"<&> ü"`: "<&> ü", `"-"`: "-", `" 5"`: " 5", `12345678901234567890123456789012345678`: "12345678901234567890123456789012345678",
		`123456789012345678901234567890123456789`: "123456789012345678901234567890123456789",
	}
	for user, text := range keys {
		out := apply(t, table, noon, record(user, 0, alert.Closed, 6))
		if !out.Made {
			t.Errorf("%s is the item of another user", user)
		}
		if want := "userid#" + text + "#appserver#app-server-tomcat-123"; out.Item.Partition != want {
			t.Errorf("%s: %s, want %s", user, out.Item.Partition, want)
		}
	}
	got := alerts(t, table, store.Filter{})
	if len(got) != len(keys) {
		t.Errorf("%d alerts of %d users", len(got), len(keys))
	}
	for _, a := range got {
		want := record(string(a.UserID), 0, alert.Closed, 6)
		if _, ok := keys[string(a.UserID)]; !ok {
			t.Errorf("user %s was none", a.UserID)
		}
		if diff := cmp.Diff(want, a.Record); diff != "" {
			t.Error(diff)
		}
	}
}

// TestAnyOrderGivesTheSameAlert goes through all permutations of the records of an alert, some of them twice.
func TestAnyOrderGivesTheSameAlert(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	records := []struct {
		state alert.State
		count int64
	}{{alert.Opened, 6}, {alert.Opened, 7}, {alert.Closed, 23}, {alert.Closed, 23}}
	window := 0
	permute(len(records), func(order []int) {
		window += 100 // far from the others
		var it dynamodb.Item
		for i, k := range order {
			out := apply(t, table, noon.Add(time.Duration(i)*time.Second), record("7", window, records[k].state, records[k].count), topic)
			it = out.Item
			if err := table.Told(t.Context(), noon, out.Untold...); err != nil {
				t.Fatal(err)
			}
		}
		a, err := table.Alert(t.Context(), it.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(record("7", window, alert.Closed, 23), a.Record); diff != "" {
			t.Errorf("order %v: %s", order, diff)
		}
		if !a.OpenedAt.Equal(noon) || a.ClosedAt.Before(noon) {
			t.Errorf("order %v: opened %v, closed %v", order, a.OpenedAt, a.ClosedAt)
		}
		for i, err := range table.Incidents(t.Context(), store.IncidentFilter{ID: a.Incident}) {
			if err != nil || i.Windows != 1 || i.Events != 23 || i.Peak != 23 || i.Severity != alert.Critical {
				t.Errorf("order %v: %+v, %v", order, i, err)
			}
		}
	})
}

func permute(n int, f func([]int)) {
	order := make([]int, 0, n)
	used := make([]bool, n)
	var next func()
	next = func() {
		if len(order) == n {
			f(order)
			return
		}
		for i := range n {
			if !used[i] {
				used[i], order = true, append(order, i)
				next()
				used[i], order = false, order[:len(order)-1]
			}
		}
	}
	next()
}

// TestOneMessagePerTransition: the record that makes a transition makes its message pending; it stays so until it is told, whoever comes again, and is never
// again.
func TestOneMessagePerTransition(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	pager := notify.Endpoint{Name: "sns", Filter: notify.Filter{MinSeverity: alert.Critical}}
	opened, closed := record("1", 0, alert.Opened, 6), record("1", 0, alert.Closed, 23)
	id := incident.ID(opened.Rule, incident.KeyOf(&opened), opened.WindowStart, opened.WindowEnd)
	if out := apply(t, table, noon, opened, pager); len(out.Untold) != 0 || len(out.Events) != 1 {
		t.Errorf("%+v", out)
	}
	if out := apply(t, table, noon, opened, topic); len(out.Untold)+len(out.Events) != 0 {
		t.Errorf("a repetition made a message: %+v", out)
	}
	if out := apply(t, table, noon, closed, pager); len(out.Untold) != 1 || !out.Moved {
		t.Errorf("%+v", out)
	}
	for _, r := range []alert.Record{closed, opened} { // a crash before it was published: whoever comes again is to publish
		out := apply(t, table, noon, r, pager)
		if len(out.Untold) != 1 || out.Made || out.Moved || out.Untold[0].Message.ID != id+"_escalated_1" {
			t.Fatalf("%+v", out)
		}
		var i incident.Incident
		if err := json.Unmarshal(out.Untold[0].Message.Data, &i); err != nil || i.Events != 23 || i.Severity != alert.Critical {
			t.Errorf("%s, %v", out.Untold[0].Message.Data, err)
		}
	}
	for range 2 { // noted already is fine
		out := apply(t, table, noon, closed, pager)
		if err := table.Told(t.Context(), noon, out.Untold...); err != nil {
			t.Fatal(err)
		}
	}
	if out := apply(t, table, noon, closed, pager); len(out.Untold) != 0 {
		t.Errorf("%+v", out)
	}
	// Told of what is gone is fine and makes nothing.
	gone := dynamodb.Notice{Of: dynamodb.Key{Partition: "incident#none", Sort: "7"}, Transition: incident.Opened}
	if err := table.Told(t.Context(), noon, gone); err != nil {
		t.Fatal(err)
	}
	if got := raw(t, table, gone.Of); len(got) != 0 {
		t.Errorf("an item came to be: %v", got)
	}
}

// TestAlertsFromBefore: an alert that was stored before there were incidents joins one when it closes, and what was to be told of it stays so.
func TestAlertsFromBefore(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	opened, closed := record("1", 0, alert.Opened, 12), record("1", 0, alert.Closed, 23)
	apply(t, table, noon, opened)
	it := item(t, table, opened)
	_, err := client(t).UpdateItem(t.Context(), &sdk.UpdateItemInput{TableName: aws.String(table.Config().Table),
		Key:                       map[string]types.AttributeValue{"ddb_partition_key": &types.AttributeValueMemberS{Value: it.Partition}, "ddb_sort_key": &types.AttributeValueMemberN{Value: it.Sort}},
		UpdateExpression:          aws.String("SET notification = :p REMOVE incident_id, incident_sort_key, incident_counted"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":p": &types.AttributeValueMemberS{Value: "pending"}}})
	if err != nil {
		t.Fatal(err)
	}
	if out := apply(t, table, noon, opened, topic); out.Item.Notification != dynamodb.Pending || out.Item.Incident != "" {
		t.Errorf("%+v", out)
	}
	other := record("1", 1, alert.Opened, 6) // the same incident, by then
	apply(t, table, noon, other, topic)
	out := apply(t, table, noon, closed, topic)
	if out.Item.Notification != dynamodb.Pending || out.Item.Incident == "" {
		t.Errorf("%+v", out)
	}
	if err := table.Sent(t.Context(), noon, out.Item); err != nil {
		t.Fatal(err)
	}
	if a := alerts(t, table, store.Filter{Incident: out.Item.Incident}); len(a) != 2 || a[0].Delivery.State != store.Delivered {
		t.Errorf("%+v", a)
	}
}

func TestConflicts(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	closed := record("1", 0, alert.Closed, 6)
	apply(t, table, noon, closed)
	before := raw(t, table, item(t, table, closed).Key)
	for name, change := range map[string]func(*alert.Record){
		"another count":       func(r *alert.Record) { r.Count = 7 },
		"another severity":    func(r *alert.Record) { r.Severity = alert.Critical },
		"another window size": func(r *alert.Record) { r.WindowEnd = r.WindowStart.Add(time.Minute); r.ID = "other" },
		"another rule":        func(r *alert.Record) { r.Rule = "other" },
	} {
		r := closed
		change(&r)
		if _, err := table.Apply(t.Context(), noon, item(t, table, r), topic); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An item that the original wrote is not an alert of ours, and is left alone.
	theirs := item(t, table, record("2", 0, alert.Closed, 6))
	if _, err := client(t).PutItem(t.Context(), &sdk.PutItemInput{TableName: aws.String(table.Config().Table), Item: map[string]types.AttributeValue{
		"ddb_partition_key": &types.AttributeValueMemberS{Value: theirs.Partition}, "ddb_sort_key": &types.AttributeValueMemberN{Value: theirs.Sort},
		"num_actions_per_watermark": &types.AttributeValueMemberN{Value: "9"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Apply(t.Context(), noon, theirs, topic); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the original's item: %v", err)
	}
	if diff := cmp.Diff(before, raw(t, table, item(t, table, closed).Key)); diff != "" {
		t.Error(diff)
	}
	if got := alerts(t, table, store.Filter{}); len(got) != 1 {
		t.Errorf("%d alerts", len(got))
	}
}

// TestRaceOfWriters: of writers with the same records, one makes each alert and one moves it, and their incident counts each once.
func TestRaceOfWriters(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	const writers, windows = 5, 30
	var made, moved, opened atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range windows {
				window := (i*7 + w*3) % windows
				states := []alert.State{alert.Opened, alert.Closed}
				if w%2 == 1 {
					states = []alert.State{alert.Closed, alert.Opened}
				}
				for _, s := range states {
					count := int64(6)
					if s == alert.Closed {
						count = 12
					}
					it, err := table.Config().Item(record("9", window, s, count))
					if err != nil {
						t.Error(err)
						return
					}
					out, err := table.Apply(context.Background(), noon, it, topic)
					if err != nil {
						t.Error(err)
						return
					}
					if out.Made {
						made.Add(1)
					}
					if out.Moved {
						moved.Add(1)
					}
					for _, e := range out.Events {
						if e.Transition == incident.Opened {
							opened.Add(1)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	got := alerts(t, table, store.Filter{})
	if len(got) != windows || made.Load() != windows || moved.Load() > windows {
		t.Fatalf("%d alerts, made %d, moved %d of %d", len(got), made.Load(), moved.Load(), windows)
	}
	for i, a := range got {
		if diff := cmp.Diff(record("9", i, alert.Closed, 12), a.Record); diff != "" {
			t.Error(diff)
		}
	}
	var list, events int64
	for i, err := range table.Incidents(t.Context(), store.IncidentFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		list, events = list+1, events+i.Events
	}
	if list != opened.Load() || events != 12*windows {
		t.Errorf("%d incidents, opened %d, %d events", list, opened.Load(), events)
	}
}

func TestArrived(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	r := record(`"u"`, 0, alert.Closed, 6)
	r.ID, r.FirstEventAt, r.LastEventAt, r.Evidence = "place", time.Time{}, time.Time{}, alert.Evidence{}
	at := time.UnixMilli(1_700_000_000_750)
	it, err := table.Config().Arrived(r, at, "49590338271490256608559692538361571095921575989136588898")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		out, err := table.Apply(t.Context(), noon, it, topic)
		if err != nil || out.Made != (i == 0) {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	want := map[string]string{
		"ddb_partition_key": "S userid#u#appserver#app-server-tomcat-123", "ddb_sort_key": "N 1700000000.571095921575989136588898",
		"id": "S place", "rule": "S burst", "state": "S closed", "state_rank": "N 2", "severity": "S warning", "user_id": "S u", "user_token": `S "u"`,
		"num_actions_per_watermark": "N 6", "threshold": "N 5", "arrived_at": "S 2023-11-14T22:13:20.75Z",
		"opened_at": "S 2026-11-24T12:00:00Z", "closed_at": "S 2026-11-24T12:00:00Z", "notification": "S pending",
	}
	want["ddb_sort_key"] = "N " + it.Sort
	if diff := cmp.Diff(want, raw(t, table, it.Key)); diff != "" {
		t.Error(diff)
	}
	a, err := table.Alert(t.Context(), "place")
	if err != nil || !a.WindowStart.IsZero() || !a.FirstEventAt.IsZero() {
		t.Errorf("%+v, %v", a, err)
	}
	short, err := table.Config().Arrived(r, at, "100")
	if err != nil || short.Sort != "1700000000.0000000000000000000000001" {
		t.Errorf("%s, %v", short.Sort, err)
	}
	for _, bad := range []string{"", "x1", "-1"} {
		if _, err := table.Config().Arrived(r, at, bad); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestList(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	for _, r := range []alert.Record{
		record("2", 1, alert.Opened, 6), record("1", 1, alert.Closed, 12), record("1", 0, alert.Closed, 7), record(`"z"`, 2, alert.Opened, 11),
	} {
		apply(t, table, noon, r, topic)
	}
	for name, c := range map[string]struct {
		f    store.Filter
		want string
	}{
		"all":      {store.Filter{}, `1 7,1 12,2 6,"z" 11`},
		"newest":   {store.Filter{Newest: true, Limit: 2}, `"z" 11,2 6`},
		"user":     {store.Filter{User: "1"}, "1 7,1 12"},
		"state":    {store.Filter{State: alert.Opened}, `2 6,"z" 11`},
		"severity": {store.Filter{MinSeverity: alert.Critical}, `1 12,"z" 11`},
		"since":    {store.Filter{Since: start.Add(10 * time.Second), Until: start.Add(20 * time.Second)}, "1 12,2 6"},
		"rule":     {store.Filter{Rule: "other"}, ""},
	} {
		var got []string
		for _, a := range alerts(t, table, c.f) {
			got = append(got, fmt.Sprintf("%s %d", a.UserID, a.Count))
		}
		if s := strings.Join(got, ","); s != c.want {
			t.Errorf("%s: %s, want %s", name, s, c.want)
		}
	}
	if _, err := table.Alert(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
	for _, err := range table.Alerts(t.Context(), store.Filter{Limit: -1}) {
		if err == nil {
			t.Error("a wrong filter is fine")
		}
	}
}

// TestAnyRule: alerts of other rules are items of their own, beside those of a user.
func TestAnyRule(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	row := func(rule string, names []string, token string, seconds int, state alert.State) alert.Record {
		r := record("7", 0, state, 12)
		r.Rule, r.Threshold, r.WindowEnd = rule, 0, r.WindowStart.Add(time.Duration(seconds)*time.Second)
		r.SetRow(names, token, []byte(`"z":1.50,"a":"x","n":-0.0`))
		r.ID = alert.ID(rule, token, r.WindowStart.UnixMilli(), int64(seconds)*1000)
		return r
	}
	two := []string{"ip", "product"}
	for i, state := range alert.States() {
		r := row("card-testing", two, `["10.0.0.1",5]`, 10, state)
		r.AtLeast, r.RuleRevision, r.Mode = state != alert.Closed, 3, alert.Shadow
		if out := apply(t, table, noon.Add(time.Duration(i)*time.Second), r); out.Made != (i == 0) || out.Moved != (i > 0) {
			t.Errorf("%s: %+v", state, out)
		}
		got, err := table.Alert(t.Context(), r.ID)
		if diff := cmp.Diff(r, got.Record); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", state, err, diff)
		}
		if out := apply(t, table, noon, row("card-testing", two, `["10.0.0.1",5]`, 10, alert.Opened)); out.Made || out.Moved {
			t.Errorf("opened after %s: %+v", state, out)
		}
	}
	// One user, one window's start: each rule and size has its item.
	user := []alert.Record{
		record("7", 0, alert.Closed, 12), row("a", []string{"user_id"}, "7", 10, alert.Closed), row("b", []string{"user_id"}, "7", 10, alert.Closed), row("b", []string{"user_id"}, "7", 20, alert.Closed),
	}
	partitions := map[string]bool{}
	for _, r := range user {
		if out := apply(t, table, noon, r); !out.Made {
			t.Errorf("%s: %+v", r.Rule, out)
		}
		partitions[item(t, table, r).Partition] = true
	}
	if len(partitions) != 1 {
		t.Errorf("a user has the partitions %v", partitions)
	}
	long := row("a", []string{"url"}, `"`+strings.Repeat("x", 3000)+`"`, 10, alert.Closed)
	apply(t, table, noon, long)
	for f, want := range map[store.Filter]int{{}: 6, {User: "7"}: 4, {Rule: "b"}: 2, {Rule: "card-testing"}: 1, {Rule: alert.Burst}: 1} {
		n := 0
		for _, err := range table.Alerts(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != want {
			t.Errorf("%+v: %d alerts, not %d", f, n, want)
		}
	}
}
