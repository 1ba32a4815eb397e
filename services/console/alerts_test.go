package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/sqlite"
)

// heard is when the stores of the tests hear of alerts: before any clock that they run by.
var heard = time.Date(2020, 11, 24, 9, 30, 0, 0, time.UTC)

// record is an alert of a user, who is a JSON token, in the n-th window: opened at 6 events, or closed with 9.
func record(user string, n int, state alert.State) alert.Record {
	const size = 10 * time.Second
	start := time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * size)
	r := alert.Record{
		ID: alert.ID(alert.Burst, user, start.UnixMilli(), size.Milliseconds()), Rule: alert.Burst, State: state, Severity: alert.Warning,
		UserID: json.RawMessage(user), Count: 6, Threshold: 5, WindowStart: start, WindowEnd: start.Add(size),
		FirstEventAt: start.Add(12 * time.Millisecond), LastEventAt: start.Add(1234 * time.Millisecond),
		Evidence: alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1200, Last: 1311}}},
	}
	if state == alert.Closed {
		r.Count = 9
	}
	return r
}

// bench is a database and the command line that works on it.
type bench struct {
	t    *testing.T
	path string
	st   store.Store
}

func newBench(t *testing.T) *bench {
	t.Helper()
	bare(t)
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "a.db")}
	st, err := sqlite.Open(t.Context(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	b.st = st
	return b
}

// bare takes the settings of whoever runs the tests out of the environment.
func bare(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "SPATE_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
}

func (b *bench) apply(now time.Time, records []alert.Record, to ...notify.Endpoint) {
	b.t.Helper()
	got, err := b.st.Apply(b.t.Context(), now, records, to...)
	if err != nil || len(got.Rejected) > 0 {
		b.t.Fatal(err, got.Rejected)
	}
}

func (b *bench) try(t store.Try) {
	b.t.Helper()
	if _, err := b.st.Record(b.t.Context(), t, t.Outcome != notify.Throttled); err != nil {
		b.t.Fatal(err)
	}
}

// spate runs a command line.
func spate(args ...string) (code int, stdout, stderr string) {
	var o, e bytes.Buffer
	code = Main(args, &o, &e)
	return code, o.String(), e.String()
}

// run runs a command line on the database and returns what it prints.
func (b *bench) run(want int, args ...string) (stdout, stderr string) {
	b.t.Helper()
	code, stdout, stderr := spate(append(args, "--database-url", b.path)...)
	if code != want {
		b.t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	return stdout, stderr
}

// objects decodes JSON lines.
func objects(t *testing.T, text string) (out []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, m)
	}
	return out
}

func keys(m map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("it does not say %q:\n%s", p, text)
		}
	}
}

func TestAlertsLs(t *testing.T) {
	b := newBench(t)
	critical := record(`9`, 2, alert.Opened)
	critical.Severity, critical.Count = alert.Critical, 12
	b.apply(heard, []alert.Record{
		record(`7`, 0, alert.Closed), record(`"7"`, 1, alert.Opened), critical, record(`"<a>&\u001b[31m"`, 3, alert.Opened),
	})
	users := func(text string) (out []string) {
		for _, m := range objects(t, text) {
			u, _ := json.Marshal(m["user_id"])
			out = append(out, string(u))
		}
		return out
	}
	const odd = `"\u003ca\u003e\u0026\u001b[31m"` // as users above encodes it
	for _, c := range []struct {
		args string
		want []string
	}{
		{"", []string{`7`, `"7"`, `9`, odd}},
		{"--user 7", []string{`7`}},
		{`--user "7"`, []string{`"7"`}},
		{`--user seven`, nil},
		{"--only closed", []string{`7`}},
		{"--only opened --limit 2", []string{`9`, odd}},
		{"--severity critical", []string{`9`}},
		{"--severity warning --limit 1", []string{odd}},
		{"--rule burst --limit 0", []string{`7`, `"7"`, `9`, odd}},
		{"--rule flood", nil},
		{"--since 2019-11-01T00:00:10Z --until 2019-11-01T00:00:30Z", []string{`"7"`, `9`}},
		{"--since 2019-11-02", nil},
		{"--until 2019-11-02", []string{`7`, `"7"`, `9`, odd}},
		{"--since 1h", nil},
	} {
		out, _ := b.run(ExitOK, append([]string{"alerts", "ls", "--json"}, strings.Fields(c.args)...)...)
		if diff := cmp.Diff(c.want, users(out)); diff != "" {
			t.Errorf("%s: %s", c.args, diff)
		}
	}

	out, _ := b.run(ExitOK, "alerts", "ls", "--json")
	list := objects(t, out)
	const kept = "delivery evidence first_event_at id last_event_at num_actions_per_watermark opened_at rule severity state threshold user user_id window_end window_start"
	if keys(list[0]) != "closed_at "+kept || keys(list[1]) != kept {
		t.Errorf("keys %s; %s", keys(list[0]), keys(list[1]))
	}
	if diff := cmp.Diff(map[string]any{"state": "none", "attempts": 0.0}, list[0]["delivery"]); diff != "" {
		t.Error(diff)
	}
	says(t, out, `"user_id":"<a>&\u001b[31m"`)

	out, errs := b.run(ExitOK, "alerts", "ls", "--limit", "2")
	if n := strings.Count(out, "\n"); n != 2 || strings.ContainsRune(out, '\x1b') {
		t.Errorf("%d lines: %q", n, out)
	}
	says(t, out, "critical opened  user 9            window 2019-11-01T00:00:20Z - 00:00:30Z  12 events so far   none       "+critical.ID)
	says(t, errs, "(the newest 2; --limit 0 lists all)")
}

func TestAlertsLsExplains(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct{ args, says string }{
		{"--state closed", "--only closed"},
		{"--only open", `state: "open" is neither`},
		{"--severity bad", `severity: "bad"`},
		{"--limit=-1", "limit: -1"},
		{"--since yesterday", `since: "yesterday" is not a time`},
		{"--until=-1h", `until: "-1h" is not a time`},
		{"--since 2019-11-02 --until 2019-11-01", "since, until:"},
		{"--user=", "user: is empty"},
	} {
		_, errs := b.run(ExitUsage, append([]string{"alerts", "ls"}, strings.Fields(c.args)...)...)
		says(t, errs, c.says)
	}
	// Whoever looks makes no database.
	path := filepath.Join(t.TempDir(), "none.db")
	code, _, errs := spate("alerts", "ls", "--database-url", path)
	if _, err := os.Stat(path); code != ExitFailed || err == nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	says(t, errs, path, "no alerts are kept there yet", "spate migrate up")
}

// TestReaderThatLeaves: head has read enough.
func TestReaderThatLeaves(t *testing.T) {
	b := newBench(t)
	var records []alert.Record
	for i := range 200 {
		records = append(records, record(`7`, i, alert.Closed))
	}
	b.apply(heard, records)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var errs bytes.Buffer
	if code := Main([]string{"alerts", "ls", "--limit", "0", "--database-url", b.path}, w, &errs); code != ExitOK || errs.Len() > 0 {
		t.Errorf("exit code %d: %s", code, &errs)
	}
}

func TestMoment(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "0001-01-01T00:00:00Z"},
		{"2020-11-24T09:30:00Z", "2020-11-24T09:30:00Z"},
		{"2020-11-24 10:30:00+01:00", "2020-11-24T09:30:00Z"},
		{"2020-11-24", "2020-11-24T00:00:00Z"},
		{"1h30m", "2020-11-24T08:00:00Z"},
		{"0s", "2020-11-24T09:30:00Z"},
		{"2d", "2020-11-22T09:30:00Z"},
		{"2026-02-30", ""}, {"-1h", ""}, {"-2d", ""}, {"1", ""}, {"99999999d", ""}, {"yesterday", ""},
	} {
		got, err := moment("since", c.text, heard)
		if (err != nil) != (c.want == "") || err == nil && got.Format(time.RFC3339Nano) != c.want {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
}

func TestAlertsShow(t *testing.T) {
	b := newBench(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "activity"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	broker := cluster.ListenAddrs()[0]
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	var sent []*kgo.Record
	send := func(p int32, user, at string) {
		sent = append(sent, &kgo.Record{Topic: "activity", Partition: p, Value: fmt.Appendf(nil, `{"user_id": %s, "event_time":"2019-11-01 00:00:%s UTC"}`, user, at)})
	}
	send(0, `7`, "03") // before the evidence
	for i := range 4 {
		send(0, `7`, fmt.Sprintf("0%d", 2*i))
		send(0, `"7"`, "01")
		send(0, `8`, "01")
	}
	sent = append(sent, &kgo.Record{Topic: "activity", Partition: 0, Value: []byte("no event")})
	send(0, `7`, "10") // the next window
	send(0, `7`, "09")
	send(0, `7`, "03") // after the evidence
	for range 3 {
		send(1, `7`, "05")
	}
	if err := cl.ProduceSync(t.Context(), sent...).FirstErr(); err != nil {
		t.Fatal(err)
	}

	r := record(`7`, 0, alert.Opened)
	closed := r
	closed.State, closed.Count = alert.Closed, 8
	closed.Evidence = alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1, Last: 15}, "1": {First: 0, Last: 2}}}
	to := notify.Endpoint{Name: "pager"}
	b.apply(heard, []alert.Record{r}, to)
	b.apply(heard.Add(time.Second), []alert.Record{closed}, to)
	b.try(store.Try{WebhookID: r.ID + "_opened", Endpoint: "pager", At: heard, Took: 23 * time.Millisecond, Status: 500, Outcome: notify.Failed, Reason: "status 500", NextAt: heard.Add(5 * time.Second)})
	b.try(store.Try{WebhookID: r.ID + "_opened", Endpoint: "pager", At: heard.Add(5 * time.Second), Took: 9 * time.Millisecond, Status: 204, Outcome: notify.Delivered})

	out, _ := b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker)
	says(t, out, "alert      "+r.ID, "window     2019-11-01T00:00:00Z - 00:00:10Z", "count      8 events, threshold 5", "opened     2020-11-24T09:30:00.000Z", "closed     2020-11-24T09:30:01.000Z",
		"partition 0, offsets 1 to 15", "delivery   pending, 2 tries", r.ID+"_opened to pager: delivered, 2 tries",
		"2020-11-24T09:30:00.000Z  try 1  failed     status 500  23 ms  next 2020-11-24T09:30:05.000Z", r.ID+"_closed to pager: pending, 0 tries, due 2020",
		"8 events of the user in the window, as the log has them:", `partition 0 offset 1  {"user_id":7,"event_time":"2019-11-01 00:00:00 UTC"}`)

	out, _ = b.run(ExitOK, "alerts", "show", r.ID+"_closed", "--json", "--brokers", broker)
	got := objects(t, out)[0]
	if want := "closed_at deliveries delivery events events_more evidence first_event_at id last_event_at num_actions_per_watermark opened_at rule severity state threshold user user_id window_end window_start"; keys(got) != want {
		t.Errorf("keys %s", keys(got))
	}
	var story struct {
		Deliveries []struct {
			WebhookID string           `json:"webhook_id"`
			State     string           `json:"state"`
			Tries     []map[string]any `json:"tries"`
		} `json:"deliveries"`
		Events []struct {
			Partition int32     `json:"partition"`
			Offset    int64     `json:"offset"`
			At        time.Time `json:"at"`
		} `json:"events"`
	}
	if err := json.Unmarshal([]byte(out), &story); err != nil {
		t.Fatal(err)
	}
	var at []string
	for _, ev := range story.Events {
		at = append(at, fmt.Sprintf("%d/%d %s", ev.Partition, ev.Offset, ev.At.Format("05")))
	}
	if diff := cmp.Diff([]string{"0/1 00", "0/4 02", "0/7 04", "1/0 05", "1/1 05", "1/2 05", "0/10 06", "0/15 09"}, at); diff != "" {
		t.Error(diff)
	}
	if len(story.Deliveries) != 2 || len(story.Deliveries[0].Tries) != 2 || keys(story.Deliveries[0].Tries[0]) != "at endpoint n next_at outcome reason status took_ms webhook_id" ||
		story.Deliveries[0].Tries[1]["next_at"] != nil || len(story.Deliveries[1].Tries) != 0 {
		t.Errorf("deliveries %+v", story.Deliveries)
	}

	// Other fields: there are no such events.
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker, "--user-field", "account")
	says(t, out, "0 events of the user in the window, as the log has them (the alert counted 8):")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--no-events")
	says(t, out, "events were not read: not asked for")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--brokers", "127.0.0.1:1")
	says(t, out, "events were not read: the broker 127.0.0.1:1 cannot be reached", "delivery   pending")
	_, errs := b.run(ExitFailed, "alerts", "show", "abc")
	says(t, errs, "no alert has the id abc")
	_, errs = b.run(ExitUsage, "alerts", "show", r.ID, "--brokers", "nowhere", "--time-field", "user_id")
	says(t, errs, `"nowhere" is not host:port`, "is the user field too")
}

// TestAlertsShowOfALogThatMovedOn: what is gone, or never was there, is told, and the rest is read.
func TestAlertsShowOfALogThatMovedOn(t *testing.T) {
	b := newBench(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "activity"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	broker := cluster.ListenAddrs()[0]
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for range maxEvents + 20 {
		cl.Produce(t.Context(), &kgo.Record{Topic: "activity", Partition: 0, Value: []byte(`{"user_id":7,"event_time":"2019-11-01T00:00:01Z"}`)}, nil)
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := record(`7`, 0, alert.Closed)
	r.Evidence.Partitions = map[string]alert.OffsetRange{"0": {First: 0, Last: 1000}, "1": {First: 5, Last: 9}, "7": {First: 0, Last: 0}}
	other := record(`8`, 0, alert.Closed)
	other.Evidence.Topic = "elsewhere"
	b.apply(heard, []alert.Record{r, other})
	out, _ := b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker)
	says(t, out, "120 events of the user", "and 20 more", "partition 0 ends at offset 120, before the evidence does", "partition 1 ends at offset 0", "partition 7 is not there")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker, "--json")
	if m := objects(t, out)[0]; m["events_more"] != 20.0 || len(m["events"].([]any)) != maxEvents || m["events_note"] == nil {
		t.Errorf("%v %v", m["events_more"], m["events_note"])
	}
	out, _ = b.run(ExitOK, "alerts", "show", other.ID, "--brokers", broker, "--json")
	says(t, out, `"events":null`, "topic elsewhere")
}
