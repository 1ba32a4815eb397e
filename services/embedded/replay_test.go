package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/services/simulator"
	"spate/services/verifier"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
)

func TestReplayOfWhatIsNoEvents(t *testing.T) {
	const header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
	const row = "2019-11-01 00:00:00 UTC,view,1,2,,b,1.0,77,s\n"
	for name, c := range map[string]struct{ content, want string }{
		"JSON lines":    {strings.Repeat("{\"user_id\":5}\n", 29), `no line could be read as an event: 29 events are invalid; the most frequent reason is "no_time" (29 times, first on line 1)`},
		"no user":       {header + strings.Repeat(strings.ReplaceAll(row, "77", ""), 3) + "\"x\n", `1 line is malformed, 3 events are invalid; the most frequent reason is "no_user" (3 times, first on line 2)`},
		"bad time":      {header + strings.ReplaceAll(row, "77", "") + "\n" + strings.Repeat(strings.ReplaceAll(row, "2019", "soon"), 2), `"bad_time" (2 times, first on line 4)`},
		"one is enough": {header + row + strings.Repeat(strings.ReplaceAll(row, "77", ""), 9), ""},
		"text":          {"# spate\n\n" + strings.Repeat("text\n", 3) + "a,b,c,d,e,f,g,h,i\n", `3 lines are malformed, 1 event is invalid; the most frequent reason is "the line has 1 field, but a file without a header must have 9 or 10" (3 times, first on line 3)`},
		"no lines":      {header, "the file has no rows"},
	} {
		path := filepath.Join(t.TempDir(), "a.csv")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Replay(t.Context(), ReplayConfig{
			Rule: Rule{Events: format.Config{Fields: activity.DefaultFields()}, Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Closed}},
			File: path, Key: "category_id", Log: slog.New(slog.DiscardHandler),
		})
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrNothingRead) || !strings.Contains(err.Error(), c.want) || err != nil && strings.Count(err.Error(), "must have") > 1) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was sent twice counts once, in whichever partitions it is; an event without an id, or with that of another user's or window's event, counts.
func TestReplayCountsOnce(t *testing.T) {
	var b strings.Builder
	b.WriteString("at,who,id\n")
	add := func(second int, who, id string, times int) {
		for range times {
			fmt.Fprintf(&b, "2019-11-01 00:00:%02d,%s,%s\n", second, who, id)
		}
	}
	for i := range 7 {
		add(i, "anna", fmt.Sprint("a", i), 3)    // 7
		add(i, "bert", fmt.Sprint("b", i%5), 3)  // 5: no alert
		add(i, "cleo", "", 1)                    // 7
		add(i+10, "anna", fmt.Sprint("a", i), 1) // 7
		add(i, "dora", fmt.Sprint("a", i), 1)    // 7
	}
	path := filepath.Join(t.TempDir(), "a.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	fields := activity.Fields{User: []string{"who"}, Time: []string{"at"}}
	var mu sync.Mutex
	ref := verifier.NewReference(verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5, User: fields.User, Time: fields.Time, ID: "id"})
	res, err := Replay(t.Context(), ReplayConfig{
		Rule: Rule{Events: format.Config{Fields: fields, ID: "id"}, Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Closed}},
		File: path, Key: "none", Partitions: 3, Log: slog.New(slog.DiscardHandler),
		OnSent: func(partition int32, value []byte, at time.Time) {
			mu.Lock()
			defer mu.Unlock()
			ref.AddJSON(partition, value, at)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := verifier.Compare(ref.Result(), res.Alerts); !diff.Exact() || diff.Rows != 4 || res.Counted != 63 || res.Repeated != 7*2+16 || ref.Repeated != res.Repeated {
		t.Errorf("%+v; %+v; %d repeated in the reference", diff, res, ref.Repeated)
	}
	for _, a := range res.Alerts {
		if a.Count != 7 {
			t.Errorf("%s at %v: %d events", a.UserID, a.WindowStart, a.Count)
		}
	}
}

// The simulator and the reference read the same rows, whatever the quotes of a file do. They share no code.
func TestReferenceReadsWhatIsSent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	parts := []string{"\"", "\"\"", "\"\n", "\n", "\r\n", ",", ",\"", "\",", "a\",\"b\n", "2019-11-01 00:00:00 UTC,view,1,2,,b,1.0,77,s\n", "\"2019-11-01 00:00:00 UTC\",v,1,2,,\"b\nc\",1.0,77,s\n", strings.Repeat("x", 30_000), "x"}
	files := 3000
	if testing.Short() {
		files = 300
	}
	for range files {
		var b strings.Builder
		b.WriteString("event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n")
		for range rng.IntN(40) {
			b.WriteString(parts[rng.IntN(len(parts))])
		}
		path := filepath.Join(t.TempDir(), "a.csv")
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := simulator.OpenCSV(path)
		if err != nil {
			t.Fatal(err)
		}
		var row simulator.Row
		for err == nil {
			err = in.Next(&row)
		}
		rows := in.Stats().Rows
		if in.Close(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		ref, err := verifier.File(path, "none", 1, verifier.Rule{Window: time.Second})
		if err != nil || ref.In != rows {
			t.Fatalf("%d rows are sent, the reference has %d, %v: %.4000q", rows, ref.In, err, b.String())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReplayOfWhatPeopleHave replays files as people have them (testdata/field): each has 29 events and one burst, unless it says otherwise.
func TestReplayOfWhatPeopleHave(t *testing.T) {
	type want struct {
		counted, invalid int64
		alerts           int
		users            string // of the alerts; 700000001 if empty
		err              string // part of the error, if there is to be one
	}
	base := want{counted: 29, alerts: 1}
	shop := want{counted: 81, alerts: 3, users: `"bad-1" "bad-2" "bad-3"`}
	for _, c := range []struct {
		file   string
		fields activity.Fields
		want   want
	}{
		{"03-offset-nocolon.csv", activity.Fields{}, base},
		{"04-offset-short-postgres.csv", activity.Fields{}, base},
		{"05-epoch-ms.csv", activity.Fields{}, base},
		{"06-epoch-s.csv", activity.Fields{}, want{err: `"1572566400" looks like seconds since 1970: set SPATE_TIME_FORMAT (--time-format) to s`}},
		{"06-epoch-s.csv", activity.Fields{TimeFormat: activity.TimeS}, base},
		{"08-comma-fraction.csv", activity.Fields{}, base},
		{"09-java-offsetdatetime-tostring.csv", activity.Fields{}, base},
		{"10-semicolon.csv", activity.Fields{}, base},
		{"11-tab.csv", activity.Fields{}, base},
		{"12-utf16.csv", activity.Fields{}, want{err: "is UTF-16 text; convert it"}},
		{"13b-sep-line-user-price-swapped.csv", activity.Fields{}, base},
		{"14-comment-line-reordered.csv", activity.Fields{}, base},
		{"20-user-missing-nan.csv", activity.Fields{}, want{counted: 21, invalid: 8}},
		{"22-space-after-comma.csv", activity.Fields{}, base},
		{"24-concatenated-other-order.csv", activity.Fields{}, base},
		{"27-one-row-in-2091.csv", activity.Fields{}, want{counted: 29, invalid: 1, alerts: 1}},
		{"29-cr-only.csv", activity.Fields{}, want{err: "has lines that end with CR only"}},
		{"30-events.jsonl", activity.Fields{}, base},
		{"31-csv.bz2", activity.Fields{}, base},
		{"33-retailrocket.csv", activity.Fields{}, want{err: "the header has no column user_id for the user, only timestamp, visitorid, event, itemid, transactionid: set the column with --user-field"}},
		{"33-retailrocket.csv", activity.Fields{User: []string{"visitorid"}}, base},
		{"33-retailrocket.csv", activity.Fields{User: []string{"visitorid"}, Time: []string{"timestamp"}}, base},
		{"42-eu-date.csv", activity.Fields{}, want{err: `"01.11.2019 00:00:00"`}},
		{"42-eu-date.csv", activity.Fields{TimeFormat: "02.01.2006 15:04:05"}, base},
		{"43-java-zoneddatetime.csv", activity.Fields{}, base},
		{"44-go-time-string.csv", activity.Fields{}, base},
		{"46-header-only.csv", activity.Fields{}, want{err: "the file has no rows"}},
		{"47-empty.csv", activity.Fields{}, want{err: "the file has no rows"}},
		{"49b-kaggle-archive.zip", activity.Fields{}, want{counted: 58, alerts: 2, users: "700000001 700000001"}},
		{"53-newest-first.csv", activity.Fields{}, want{err: "sorted from newest to oldest"}},
		{"58-camelcase-header-other-order.csv", activity.Fields{}, base},
		{"59d.csv.zst", activity.Fields{}, base},
		{"59x.csv.xz", activity.Fields{}, base},
		{"64-short-rows.csv", activity.Fields{}, base},
		{"shop.csv", activity.Fields{User: []string{"customer"}, Time: []string{"created_at"}}, shop},
		{"shop.csv", activity.Fields{User: []string{"customer"}}, shop},
		{"shop.csv", activity.Fields{}, want{err: "the header has no column user_id for the user, only id, created_at, customer, action, url: set the column with --user-field"}},
		{"shop.csv", activity.Fields{User: []string{"custmer"}, Time: []string{"created_at"}}, want{err: "no column custmer for the user, only id, created_at, customer, action, url"}},
		{"shop-seconds.csv", activity.Fields{User: []string{"customer"}, Time: []string{"created_at"}, TimeFormat: activity.TimeS}, shop},
		{"shop-seconds.csv", activity.Fields{User: []string{"customer"}, TimeFormat: activity.TimeS}, shop},
		{"shop-seconds.csv", activity.Fields{User: []string{"customer"}, Time: []string{"created_at"}}, want{err: "looks like seconds since 1970"}},
		{"shop.jsonl", activity.Fields{User: []string{"customer.id"}, Time: []string{"created_at"}}, shop},
		{"shop.jsonl", activity.Fields{}, want{err: `the event has no field "user_id"; it has action, created_at, customer.id, id`}},
	} {
		t.Run(c.file+strings.Join(c.fields.User, ",")+string(c.fields.TimeFormat), func(t *testing.T) {
			t.Parallel()
			fields, d := c.fields, activity.DefaultFields()
			if fields.User == nil {
				fields.User = d.User
			}
			if fields.Time == nil {
				fields.Time = d.Time
			}
			var mu sync.Mutex
			ref := verifier.NewReference(verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5, MaxAhead: time.Minute, User: fields.User, Time: fields.Time, TimeFormat: string(fields.TimeFormat)})
			res, err := Replay(t.Context(), ReplayConfig{
				Rule: Rule{Events: format.Config{Fields: fields}, Window: 10 * time.Second, Lateness: 10 * time.Second, MaxAhead: time.Minute, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Closed}},
				File: filepath.Join("../../testdata/field", c.file), Key: "category_id", Log: slog.New(slog.DiscardHandler),
				OnSent: func(partition int32, value []byte, at time.Time) {
					mu.Lock()
					defer mu.Unlock()
					ref.AddJSON(partition, value, at)
				},
			})
			if c.want.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.want.err) {
					t.Errorf("%v, want %q", err, c.want.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if res.Counted != c.want.counted || res.Invalid != c.want.invalid || res.Late != 0 || len(res.Alerts) != c.want.alerts {
				t.Errorf("%+v, %d alerts, want %+v", res, len(res.Alerts), c.want)
			}
			var users []string
			for _, a := range res.Alerts {
				users = append(users, string(a.UserID))
			}
			if want := cmp.Or(c.want.users, "700000001"); len(users) > 0 && strings.Join(users, " ") != want {
				t.Errorf("users %v, want %s", users, want)
			}
			mu.Lock()
			defer mu.Unlock()
			if d := verifier.Compare(ref.Result(), res.Alerts); !d.Exact() {
				t.Errorf("%+v", d)
			}
		})
	}
}
