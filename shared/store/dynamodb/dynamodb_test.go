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
	return sdk.NewFromConfig(cfg, func(o *sdk.Options) { o.Retryer = aws.NopRetryer{} })
}

// newTable makes a table of its own. wrap, if not nil, comes between it and the client.
func newTable(t *testing.T, cfg dynamodb.Config, wrap func(dynamodb.API) dynamodb.API) *dynamodb.Table {
	t.Helper()
	cfg.Table = fmt.Sprintf("alerts-%d", names.Add(1))
	retain := cfg.Retain
	cfg.Retain = 0 // the emulator knows no time to live
	table, err := dynamodb.New(client(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // one that is there is fine
		if err := table.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Retain = retain
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

func apply(t *testing.T, table *dynamodb.Table, now time.Time, r alert.Record, notify bool) dynamodb.Outcome {
	t.Helper()
	out, err := table.Apply(t.Context(), now, item(t, table, r), notify)
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
	out := apply(t, table, noon, r, true)
	if !out.Made || out.Moved || out.Item.Notification != dynamodb.Pending {
		t.Errorf("outcome: %+v", out)
	}
	want := map[string]string{
		"ddb_partition_key": "S userid#520088904#appserver#app-server-tomcat-123", "ddb_sort_key": "N 1572566410.25",
		"id": "S " + r.ID, "rule": "S burst", "state": "S opened", "state_rank": "N 1", "severity": "S warning",
		"user_id": "N 520088904", "user_token": "S 520088904", "num_actions_per_watermark": "N 6", "threshold": "N 5",
		"window_start": "S 2019-11-01T00:00:10.25Z", "window_end": "S 2019-11-01T00:00:20Z",
		"first_event_at": "S 2019-11-01T00:00:10.001Z", "last_event_at": "S 2019-11-01T00:00:11Z",
		"evidence":  `S {"stream":"s","shards":{"shardId-000000000000":{"first_sequence_number":"1","last_sequence_number":"2"}}}`,
		"opened_at": "S 2026-11-24T12:00:00Z", "notification": "S pending", "expires_at": "N " + fmt.Sprint(noon.Add(time.Hour).Unix()),
	}
	if diff := cmp.Diff(want, raw(t, table, out.Item.Key)); diff != "" {
		t.Error(diff)
	}
	if err := table.Sent(t.Context(), noon.Add(time.Second), out.Item); err != nil {
		t.Fatal(err)
	}
	want["notification"], want["notified_at"] = "S sent", "S 2026-11-24T12:00:01Z"
	for range 2 { // noted already is fine, and changes nothing
		if diff := cmp.Diff(want, raw(t, table, out.Item.Key)); diff != "" {
			t.Error(diff)
		}
		if err := table.Sent(t.Context(), noon.Add(time.Minute), out.Item); err != nil {
			t.Fatal(err)
		}
	}

	r.State, r.Count, r.Severity = alert.Closed, 11, alert.Critical
	out = apply(t, table, noon.Add(time.Minute), r, true)
	if !out.Moved || out.Made || out.Item.Notification != dynamodb.Sent {
		t.Errorf("outcome: %+v", out)
	}
	want["state"], want["state_rank"], want["severity"], want["num_actions_per_watermark"] = "S closed", "N 2", "S critical", "N 11"
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
		out := apply(t, table, noon, record(user, 0, alert.Closed, 6), false)
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
		state  alert.State
		count  int64
		notify bool
	}{{alert.Opened, 6, false}, {alert.Opened, 7, false}, {alert.Closed, 23, true}, {alert.Closed, 23, true}}
	window := 0
	permute(len(records), func(order []int) {
		window++
		var it dynamodb.Item
		published := 0
		for i, k := range order {
			r := records[k]
			out := apply(t, table, noon.Add(time.Duration(i)*time.Second), record("7", window, r.state, r.count), r.notify)
			if it = out.Item; it.Notification == dynamodb.Pending {
				published++
				if err := table.Sent(t.Context(), noon, it); err != nil {
					t.Fatal(err)
				}
			}
		}
		a, err := table.Alert(t.Context(), it.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(record("7", window, alert.Closed, 23), a.Record); diff != "" {
			t.Errorf("order %v: %s", order, diff)
		}
		if !a.OpenedAt.Equal(noon) || a.ClosedAt.Before(noon) || a.Delivery.State != store.Delivered || published != 1 {
			t.Errorf("order %v: opened %v, closed %v, %v, published %d times", order, a.OpenedAt, a.ClosedAt, a.Delivery, published)
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

// TestOneMessagePerAlert: the first record that is to be told of makes it pending; it stays so until it is sent, and is never again.
func TestOneMessagePerAlert(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	opened, closed := record("1", 0, alert.Opened, 6), record("1", 0, alert.Closed, 23)
	if out := apply(t, table, noon, opened, false); out.Item.Notification != dynamodb.None {
		t.Errorf("%+v", out)
	}
	if out := apply(t, table, noon, opened, true); out.Item.Notification != dynamodb.None {
		t.Errorf("a repetition made a message: %+v", out)
	}
	if out := apply(t, table, noon, closed, true); out.Item.Notification != dynamodb.Pending || !out.Moved {
		t.Errorf("%+v", out)
	}
	for _, r := range []alert.Record{closed, opened} { // a crash before it was published: whoever comes again is to publish
		out := apply(t, table, noon, r, true)
		if out.Item.Notification != dynamodb.Pending || out.Made || out.Moved {
			t.Errorf("%+v", out)
		}
		if out.Item.State != alert.Closed || out.Item.Count != 23 {
			t.Errorf("what is to be told is not what is stored: %+v", out.Item)
		}
	}
	if err := table.Sent(t.Context(), noon, item(t, table, closed)); err != nil {
		t.Fatal(err)
	}
	if out := apply(t, table, noon, closed, true); out.Item.Notification != dynamodb.Sent {
		t.Errorf("%+v", out)
	}
	// Sent of what is not pending, or not there, is fine and makes nothing.
	other := item(t, table, record("2", 0, alert.Closed, 6))
	if err := table.Sent(t.Context(), noon, other); err != nil {
		t.Fatal(err)
	}
	if got := raw(t, table, other.Key); len(got) != 0 {
		t.Errorf("an item came to be: %v", got)
	}
}

func TestConflicts(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	closed := record("1", 0, alert.Closed, 6)
	apply(t, table, noon, closed, false)
	before := raw(t, table, item(t, table, closed).Key)
	for name, change := range map[string]func(*alert.Record){
		"another count":       func(r *alert.Record) { r.Count = 7 },
		"another severity":    func(r *alert.Record) { r.Severity = alert.Critical },
		"another window size": func(r *alert.Record) { r.WindowEnd = r.WindowStart.Add(time.Minute); r.ID = "other" },
		"another rule":        func(r *alert.Record) { r.Rule = "other" },
	} {
		r := closed
		change(&r)
		if _, err := table.Apply(t.Context(), noon, item(t, table, r), true); !errors.Is(err, store.ErrConflict) {
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
	if _, err := table.Apply(t.Context(), noon, theirs, true); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the original's item: %v", err)
	}
	if diff := cmp.Diff(before, raw(t, table, item(t, table, closed).Key)); diff != "" {
		t.Error(diff)
	}
	if got := alerts(t, table, store.Filter{}); len(got) != 1 {
		t.Errorf("%d alerts", len(got))
	}
}

// TestRaceOfWriters: of writers with the same records, one makes each alert and one moves it.
func TestRaceOfWriters(t *testing.T) {
	table := newTable(t, dynamodb.Config{}, nil)
	const writers, windows = 8, 50
	var made, moved, pending atomic.Int64
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
					out, err := table.Apply(context.Background(), noon, it, s == alert.Closed)
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
					if (out.Made || out.Moved) && out.Item.Notification == dynamodb.Pending {
						pending.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	if made.Load() != windows || pending.Load() != windows || moved.Load() > windows {
		t.Errorf("made %d, moved %d, made pending %d of %d", made.Load(), moved.Load(), pending.Load(), windows)
	}
	got := alerts(t, table, store.Filter{})
	if len(got) != windows {
		t.Fatalf("%d alerts", len(got))
	}
	for i, a := range got {
		if diff := cmp.Diff(record("9", i, alert.Closed, 12), a.Record); diff != "" {
			t.Error(diff)
		}
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
		out, err := table.Apply(t.Context(), noon, it, true)
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
		apply(t, table, noon, r, r.Severity == alert.Critical)
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
		if out := apply(t, table, noon.Add(time.Duration(i)*time.Second), r, false); out.Made != (i == 0) || out.Moved != (i > 0) {
			t.Errorf("%s: %+v", state, out)
		}
		got, err := table.Alert(t.Context(), r.ID)
		if diff := cmp.Diff(r, got.Record); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", state, err, diff)
		}
		if out := apply(t, table, noon, row("card-testing", two, `["10.0.0.1",5]`, 10, alert.Opened), false); out.Made || out.Moved {
			t.Errorf("opened after %s: %+v", state, out)
		}
	}
	// One user, one window's start: each rule and size has its item.
	user := []alert.Record{
		record("7", 0, alert.Closed, 12), row("a", []string{"user_id"}, "7", 10, alert.Closed), row("b", []string{"user_id"}, "7", 10, alert.Closed), row("b", []string{"user_id"}, "7", 20, alert.Closed),
	}
	partitions := map[string]bool{}
	for _, r := range user {
		if out := apply(t, table, noon, r, false); !out.Made {
			t.Errorf("%s: %+v", r.Rule, out)
		}
		partitions[item(t, table, r).Partition] = true
	}
	if len(partitions) != 1 {
		t.Errorf("a user has the partitions %v", partitions)
	}
	long := row("a", []string{"url"}, `"`+strings.Repeat("x", 3000)+`"`, 10, alert.Closed)
	apply(t, table, noon, long, false)
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
