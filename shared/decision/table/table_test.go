package table_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"spate/shared/aws/awstest"
	"spate/shared/decision"
	"spate/shared/decision/table"
	"spate/shared/store/dynamodb"
)

const patience = time.Minute

func newTable(t *testing.T, wrap func(dynamodb.API) dynamodb.API) *dynamodb.Table {
	t.Helper()
	var api dynamodb.API = sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t)), func(o *sdk.Options) { o.Retryer = awstest.Retryer() })
	if wrap != nil {
		api = wrap(api)
	}
	tab, err := dynamodb.New(api, dynamodb.Config{Table: fmt.Sprintf("decisions%d", time.Now().UnixNano())})
	if err == nil {
		err = tab.Create(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// follow runs a follower until the test ends, and waits until it has caught up.
func follow(t *testing.T, tab *dynamodb.Table) *table.Follower {
	t.Helper()
	f := &table.Follower{Table: tab, View: decision.NewView(), Now: time.Now, Malformed: func(err error) { t.Error(err) }}
	ctx, cancel := context.WithCancel(context.Background())
	ended, caught := make(chan error, 1), make(chan struct{})
	go func() { ended <- f.Run(ctx, func() error { close(caught); return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-caught:
	case <-time.After(patience):
		t.Fatal("it does not catch up")
	}
	return f
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// upToDate waits until a view has what was written before the call.
func upToDate(t *testing.T, f *table.Follower) {
	t.Helper()
	now := time.Now()
	eventually(t, "the view is up to date", func() bool { return f.Fresh().After(now) })
}

func decided(value, level string, since time.Time, f time.Duration) decision.Decision {
	since = since.UTC().Truncate(time.Millisecond)
	return decision.Decision{Scope: "username", Value: value, Level: level, Since: since, Until: since.Add(f), Author: "ana"}
}

func TestFollow(t *testing.T) {
	tab := newTable(t, nil)
	now := time.Now()
	first := decided("1", "block", now, time.Hour)
	if err := tab.PutDecision(t.Context(), now, first); err != nil {
		t.Fatal(err)
	}
	f := follow(t, tab)
	level := func(value string) string {
		for _, d := range f.View.Lookup("username", value, time.Now()) {
			return d.Level
		}
		return ""
	}
	if level("1") != "block" {
		t.Error("what was there is not known")
	}
	_, changes := f.View.All(time.Now())
	longer := decided("1", "challenge", now.Add(time.Second), time.Hour)
	for _, d := range []decision.Decision{longer, first, decided("2", "block", now, time.Hour)} { // the first is written again: it is older
		if err := tab.PutDecision(t.Context(), time.Now(), d); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the second is known", func() bool { return level("2") == "block" })
	upToDate(t, f)
	if level("1") != "challenge" {
		t.Errorf("an older decision replaces a newer one: %s", level("1"))
	}
	if list, _, ok := f.View.Since(changes); !ok || len(list) != 2 {
		t.Errorf("changes: %+v", list)
	}
	if err := tab.EndDecision(t.Context(), time.Now(), longer); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has ended", func() bool { return level("1") == "" })
	if err := tab.PutDecision(t.Context(), time.Now(), longer); err != nil { // repeated after its end
		t.Fatal(err)
	}
	upToDate(t, f)
	if level("1") != "" {
		t.Error("a repetition revives what was ended")
	}
	if g := follow(t, tab); len(g.View.Lookup("username", "1", time.Now())) != 0 || g.View.Len() != 1 {
		t.Error("who reads anew sees something else")
	}
}

// TestAnyWriters: several write decisions and ends about the same values, with clocks that are up to five seconds apart, while a follower reads. In the end it has what
// was made last of each, as somebody has who reads all of it anew.
func TestAnyWriters(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	tab := newTable(t, nil)
	f := follow(t, tab)
	var mu sync.Mutex
	last := map[string]decision.Decision{} // level empty: ended
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			clock := time.Duration(r.IntN(5000)) * time.Millisecond // ahead
			for range 40 {
				value, now := fmt.Sprint(r.IntN(8)), time.Now().UTC().Add(clock).Truncate(2*time.Millisecond)
				since := now.Add(-time.Duration(r.IntN(1500)) * 2 * time.Millisecond) // those made at the same instant are the same
				d := decided(value, fmt.Sprintf("l%d", since.UnixMilli()), since, time.Hour)
				var err error
				if r.IntN(4) == 0 {
					now = now.Add(time.Millisecond) // never when one is made
					d.Since = now.Add(-time.Minute)
					err = tab.EndDecision(context.Background(), now, d)
					d.Since, d.Level = now, ""
				} else {
					err = tab.PutDecision(context.Background(), now, d)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if was, ok := last[value]; !ok || d.Since.After(was.Since) {
					last[value] = d
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	want := map[string]string{}
	for value, d := range last {
		if d.Level != "" {
			want[value] = d.Level
		}
	}
	see := func(f *table.Follower) map[string]string {
		got := map[string]string{}
		list, _ := f.View.All(time.Now())
		for _, d := range list {
			got[d.Value] = d.Level
		}
		return got
	}
	upToDate(t, f)
	if diff := cmp.Diff(want, see(f)); diff != "" {
		t.Errorf("who followed: %s", diff)
	}
	if diff := cmp.Diff(want, see(follow(t, tab))); diff != "" {
		t.Errorf("who reads anew: %s", diff)
	}
}

// TestClockFarAhead: one writer whose clock is an hour ahead hides nothing of what others write.
func TestClockFarAhead(t *testing.T) {
	tab := newTable(t, nil)
	ahead := time.Now().Add(time.Hour)
	if err := tab.PutDecision(t.Context(), ahead, decided("1", "block", ahead, time.Hour)); err != nil {
		t.Fatal(err)
	}
	f := follow(t, tab)
	for _, value := range []string{"2", "3"} {
		now := time.Now()
		if err := tab.PutDecision(t.Context(), now, decided(value, "block", now, time.Hour)); err != nil {
			t.Fatal(err)
		}
		upToDate(t, f)
		if len(f.View.Lookup("username", value, time.Now())) != 1 {
			t.Errorf("%s is not known", value)
		}
	}
	if f.View.Len() != 3 {
		t.Errorf("%d are known", f.View.Len())
	}
}

// away is a table that does not answer while it is down.
type away struct {
	dynamodb.API
	mu   sync.Mutex
	down bool
	from []string // of the queries that it has answered
}

var errAway = errors.New("no answer")

func (a *away) Query(ctx context.Context, in *sdk.QueryInput, opts ...func(*sdk.Options)) (*sdk.QueryOutput, error) {
	a.mu.Lock()
	down := a.down
	if !down {
		a.from = append(a.from, in.ExpressionAttributeValues[":from"].(*types.AttributeValueMemberN).Value)
	}
	a.mu.Unlock()
	if down {
		return nil, errAway
	}
	return a.API.Query(ctx, in, opts...)
}

// TestTableIsAway: without the table the view keeps what it has, and goes on from there. A table that is too busy to answer is not read from its beginning again.
func TestTableIsAway(t *testing.T) {
	door := &away{}
	tab := newTable(t, func(api dynamodb.API) dynamodb.API { door.API = api; return door })
	if err := tab.PutDecision(t.Context(), time.Now(), decided("1", "block", time.Now(), time.Hour)); err != nil {
		t.Fatal(err)
	}
	f := &table.Follower{Table: tab, View: decision.NewView(), Now: time.Now}
	err := f.Run(t.Context(), func() error {
		door.mu.Lock()
		door.down = true
		door.mu.Unlock()
		return nil
	})
	if !errors.Is(err, errAway) || len(f.View.Lookup("username", "1", time.Now())) != 1 {
		t.Errorf("%v", err)
	}
	door.mu.Lock()
	door.down = false
	door.mu.Unlock()
	if err := tab.PutDecision(t.Context(), time.Now(), decided("2", "block", time.Now(), time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := tab.EndDecision(t.Context(), time.Now(), decided("1", "block", time.Now(), time.Hour)); err != nil {
		t.Fatal(err)
	}
	read := errors.New("read")
	err = f.Run(t.Context(), func() error { return read })
	if !errors.Is(err, read) || len(f.View.Lookup("username", "1", time.Now())) != 0 || len(f.View.Lookup("username", "2", time.Now())) != 1 {
		t.Errorf("%v", err)
	}
	if n := len(door.from); n != 2 || door.from[0] != "0" || door.from[1] == "0" {
		t.Errorf("read from %v", door.from)
	}
}
