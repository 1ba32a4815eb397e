package cli

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
	"spate/shared/evidence"
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
	const kept = "delivery evidence first_event_at id incident last_event_at num_actions_per_watermark opened_at rule severity state threshold user user_id window_end window_start"
	if keys(list[0]) != "closed_at "+kept || keys(list[1]) != kept {
		t.Errorf("keys %s; %s", keys(list[0]), keys(list[1]))
	}
	if diff := cmp.Diff(map[string]any{"state": "none", "attempts": 0.0}, list[0]["delivery"]); diff != "" {
		t.Error(diff)
	}
	says(t, out, `"user_id":"<a>&\u001b[31m"`)

	out, errs := b.run(ExitOK, "alerts", "ls", "--limit", "2")
	if n := strings.Count(out, "\n"); n != 3 || strings.ContainsRune(out, '\x1b') {
		t.Errorf("%d lines: %q", n, out)
	}
	says(t, out, "SEVERITY  USER          WINDOW (UTC)                  EVENTS  NOTIFIED  ALERT\n",
		"critical  9             2019-11-01 00:00:20 +10s  12 or more  -         "+critical.ID+"\n", `warning   <a>&\x1b[31m  2019-11-01 00:00:30 +10s   6 or more`)
	says(t, errs, "(showing the newest 2; use --limit 0 to list all)")
	out, errs = b.run(ExitOK, "alerts", "ls", "--user", "nobody")
	if out != "" {
		t.Errorf("%q", out)
	}
	says(t, errs, "no alerts match")
}

// TestAlertsOfAnyRule: they are listed, shown and found by their rule.
func TestAlertsOfAnyRule(t *testing.T) {
	b := newBench(t)
	r := record(`7`, 0, alert.Raised)
	r.Rule, r.Threshold, r.Severity, r.Count, r.AtLeast, r.Mode = "card-testing", 0, alert.Critical, 12, true, alert.Shadow
	r.SetRow([]string{"ip", "product"}, `["10.0.0.1",5]`, []byte(`"ip":"10.0.0.1","cards":1024,"amount":"12.50"`))
	r.Summary, r.Runbook = "10.0.0.1 tried 1024 cards", "https://runbooks.example/cards"
	r.ID = alert.ID(r.Rule, string(r.UserID), r.WindowStart.UnixMilli(), 10_000)
	b.apply(heard, []alert.Record{r, record(`7`, 0, alert.Opened)})

	out, _ := b.run(ExitOK, "alerts", "ls", "--rule", "card-testing")
	says(t, out, `critical  card-testing ip=10.0.0.1 product=5  2019-11-01 00:00:00 +10s  12 or more  -`)
	if n := strings.Count(out, "\n"); n != 2 {
		t.Errorf("%d lines: %s", n, out)
	}
	for _, c := range []struct {
		args string
		n    int
	}{
		{"--key product=5", 1}, {"--key product=5 --key ip=10.0.0.1", 1}, {"--key product=5 --key ip=10.0.0.2", 0}, {"--key user_id=7", 1}, {"--key user_id=7 --rule card-testing", 0},
		{"--key cards=1024", 0}, {"--key product=5 --limit 1", 1}, {"--key product=5 --limit 0", 1},
	} {
		out, _ := b.run(ExitOK, append(strings.Fields("alerts ls --json "+c.args), "--wide")...)
		if n := len(objects(t, out)); n != c.n {
			t.Errorf("%s: %d alerts: %s", c.args, n, out)
		}
	}
	_, errs := b.run(ExitUsage, "alerts", "ls", "--key", "7")
	says(t, errs, "key: 7 is not COLUMN=VALUE")
	out, _ = b.run(ExitOK, "alerts", "ls", "--only", "raised", "--json")
	says(t, out, `"mode":"shadow","summary":"10.0.0.1 tried 1024 cards","runbook":"https://runbooks.example/cards","key":{"ip":"10.0.0.1","product":5},"ip":"10.0.0.1","cards":1024,"amount":"12.50","at_least":true,"event_count":12,`, `"opened_at":`)
	out, _ = b.run(ExitOK, "alerts", "show", r.ID)
	says(t, out, `card-testing ip=10.0.0.1 product=5: 12 or more events in 10s (2019-11-01 00:00:00 to 00:00:10 UTC); the alert is critical.`, "rule      card-testing\n", "mode      shadow",
		`key       {"ip":"10.0.0.1","product":5}`, `columns   {"ip":"10.0.0.1","cards":1024,"amount":"12.50"}`, "lower bound", "Events not read: the rule determines which events count",
		"10.0.0.1 tried 1024 cards (so far)\ncard-testing", "runbook   https://runbooks.example/cards\n")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--json", "--no-events")
	if got := objects(t, out)[0]; got["rule"] != "card-testing" || got["cards"] != 1024.0 || got["events_note"] != "skipped (--no-events)" {
		t.Errorf("%s", out)
	}
}

// TestAlertsOfUnknownNames: a rule or a column that nothing has is told from one that has no alerts.
func TestAlertsOfUnknownNames(t *testing.T) {
	b := newBench(t)
	b.apply(heard, []alert.Record{record(`7`, 0, alert.Opened)})
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "rules.sql", twoRules))
	r.run(ExitOK, "apply", rulesFileOf(t, "off.sql", "-- rule: old-pair\n-- mode: off\nINSERT INTO alerts SELECT user_id, product_id AS item, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id, product_id;"))
	for _, c := range []struct {
		args string
		code int
		want string // on standard error
	}{
		{"--rule scrapper", ExitUsage, "spate: rule: there are no alerts from a rule named scrapper; did you mean scraper?\n"},
		{"--rule nothing-like-it --json", ExitUsage, "spate: rule: there are no alerts from a rule named nothing-like-it\n"},
		{"--key userid=7 --rule brust", ExitUsage, "spate: rule: there are no alerts from a rule named brust; did you mean burst?\nspate: key: no alert has a key with the column userid; did you mean user_id?\n"},
		{"--rule scraper", ExitOK, ""}, {"--rule scraper --json", ExitOK, ""}, {"--rule old-pair", ExitOK, ""}, {"--key item=3", ExitOK, ""}, {"--key user_id=8", ExitOK, ""},
		{"--rule burst --since 2019-12-01", ExitOK, ""},
	} {
		out, errs := b.run(c.code, append(strings.Fields("alerts ls "+c.args), "--brokers", r.addr)...)
		if out != "" {
			t.Errorf("%s: %s", c.args, out)
		}
		want := c.want // which is all there is: a list that cannot have anything is not reported as empty as well
		if want == "" && !strings.Contains(c.args, "--json") {
			want = "no alerts match; to list all alerts, run spate alerts ls without flags\n"
		}
		if errs != want {
			t.Errorf("%s: %q, want %q", c.args, errs, want)
		}
		out, errs = b.run(c.code, append(strings.Fields("incidents ls "+c.args), "--brokers", r.addr)...)
		want = strings.NewReplacer("no alerts", "no incidents", "no alert", "no incident", "all alerts", "all incidents", "spate alerts", "spate incidents").Replace(want)
		if out != "" || errs != want {
			t.Errorf("incidents ls %s: %s%q, want %q", c.args, out, errs, want)
		}
	}
	// Who does not reach the log of the rules does not know.
	r.broker.Close()
	_, errs := b.run(ExitOK, "alerts", "ls", "--rule", "brust", "--brokers", r.addr)
	says(t, errs, "spate: rule: there are no alerts from a rule named brust; did you mean burst?\n")
}

// TestIDs: the beginning of an id is enough if no other one begins like that.
func TestIDs(t *testing.T) {
	b := newBench(t)
	one, other := record(`7`, 0, alert.Closed), record(`7`, 1, alert.Closed)
	b.apply(heard, []alert.Record{one, other}, notify.Endpoint{Name: "pager", Filter: notify.Alerts()})
	for _, text := range []string{one.ID, one.ID[:8], one.ID[:minID], one.ID[:8] + "_closed", one.ID + "_closed"} {
		out, _ := b.run(ExitOK, "alerts", "show", text, "--no-events", "--json")
		if m := objects(t, out)[0]; m["id"] != one.ID {
			t.Errorf("%s: %v", text, m["id"])
		}
		out, _ = b.run(ExitOK, "deliveries", "show", text, "--json")
		if m := objects(t, out); len(m) != 1 || m[0]["webhook_id"] != one.ID+"_closed" {
			t.Errorf("%s: %s", text, out)
		}
	}
	_, errs := b.run(ExitFailed, "deliveries", "resend", one.ID[:8])
	says(t, errs, "for pager, the message is still pending")
	for text, why := range map[string]string{
		"0000": "no alert has the ID 0000", "xyzw": "no alert has the ID xyzw", one.ID[:8] + "f": "no alert has the ID",
	} {
		_, errs := b.run(ExitFailed, "alerts", "show", text, "--no-events")
		says(t, errs, why)
	}
	_, errs = b.run(ExitUsage, "alerts", "show", one.ID[:3], "--no-events")
	says(t, errs, "is too short: give at least its first 4 digits")
	// Ids that begin alike are found by trying: two of some hundred do.
	var many []alert.Record
	byBeginning := make(map[string][]string)
	for i := range 3000 {
		r := record(`8`, i, alert.Closed)
		many = append(many, r)
		byBeginning[r.ID[:minID]] = append(byBeginning[r.ID[:minID]], r.ID)
	}
	b.apply(heard, many)
	for beginning, ids := range byBeginning {
		if len(ids) == 2 {
			_, errs := b.run(ExitFailed, "alerts", "show", beginning, "--no-events")
			says(t, errs, "more than one alert ID begins with "+beginning, ids[0], ids[1], "give more digits")
			return
		}
	}
	t.Fatal("no two ids begin alike")
}

func TestAlertsLsExplains(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct{ args, says string }{
		{"--state closed", "--only closed"},
		{"--only open", `only: "open" is not one of`},
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
	says(t, errs, path, "the database has not been created yet", "--state or SPATE_DATABASE_URL")
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

// newActivity starts a broker with a topic of two partitions, and returns a client that writes to a partition by number.
func newActivity(t *testing.T) (cl *kgo.Client, broker string) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "activity"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	broker = cluster.ListenAddrs()[0]
	cl, err = kgo.NewClient(kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl, broker
}

func TestAlertsShow(t *testing.T) {
	b := newBench(t)
	cl, broker := newActivity(t)
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
	closed.State, closed.Count, closed.FirstEventAt, closed.LastEventAt = alert.Closed, 8, r.WindowStart, r.WindowStart.Add(9*time.Second)
	closed.Evidence = alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1, Last: 15}, "1": {First: 0, Last: 2}}}
	to := notify.Endpoint{Name: "pager", Filter: notify.Alerts()}
	b.apply(heard, []alert.Record{r}, to)
	b.apply(heard.Add(time.Second), []alert.Record{closed}, to)
	b.try(store.Try{WebhookID: r.ID + "_opened", Endpoint: "pager", At: heard, Took: 23 * time.Millisecond, Status: 500, Outcome: notify.Failed, Reason: "status 500", NextAt: heard.Add(5 * time.Second)})
	b.try(store.Try{WebhookID: r.ID + "_opened", Endpoint: "pager", At: heard.Add(5 * time.Second), Took: 9 * time.Millisecond, Status: 204, Outcome: notify.Delivered})

	out, _ := b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker)
	if want := "7: 8 events in 10s (2019-11-01 00:00:00 to 00:00:10 UTC). More than 5 raise an alert.\n\nalert "; !strings.HasPrefix(out, want) {
		t.Errorf("%s does not begin with %s", out, want)
	}
	says(t, out, "alert     "+r.ID, "window    2019-11-01 00:00:00 UTC, 10s", "events    8, from 00:00:00.000 to 00:00:09.000", "opened    2020-11-24 09:30:00 UTC", "closed    2020-11-24 09:30:01 UTC",
		"partition 0, offsets 1 to 15", "notified  pending, 2 attempts", r.ID+"_opened  pager     delivered      2\n", r.ID+"_closed  pager     pending        0  due 2020",
		r.ID+"_opened  pager       1  failed      500\n", "8 events are in the log\n", "00:00:00.000  0:1\n")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker, "--wide", "--events", "3")
	says(t, out, `partition 0 offset 1  {"user_id":7,"event_time":"2019-11-01 00:00:00 UTC"}`, "and 5 more; use --events N")

	out, _ = b.run(ExitOK, "alerts", "show", r.ID+"_closed", "--json", "--brokers", broker)
	got := objects(t, out)[0]
	if want := "closed_at deliveries delivery events events_more evidence fields first_event_at id incident last_event_at num_actions_per_watermark opened_at rule severity state threshold user user_id window_end window_start"; keys(got) != want {
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

	// Fields that no event has: those that fit the alert are found.
	out, errs := b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker, "--user-field", "account", "--time-field", "at")
	says(t, out, "8 events are in the log\n")
	says(t, errs, "the fields were inferred from the alert: --user-field user_id --time-field event_time --time-format auto")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--no-events")
	says(t, out, "Events not read: skipped")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--brokers", "127.0.0.1:1")
	says(t, out, "Events not read: cannot connect to broker 127.0.0.1:1", "notified  pending")
	_, errs = b.run(ExitFailed, "alerts", "show", "abcd")
	says(t, errs, "no alert has the ID abcd")
	_, errs = b.run(ExitUsage, "alerts", "show", r.ID, "--brokers", "nowhere", "--time-field", "user_id")
	says(t, errs, `"nowhere" is not host:port`, "is also a user field")
}

// TestAlertsShowOfAStraddlingBurst: an alert names those of its user in the windows next to it, and no others.
func TestAlertsShowOfAStraddlingBurst(t *testing.T) {
	b := newBench(t)
	const user = "\"a\u200b\""
	first, second, third, last := record(user, 8638, alert.Closed), record(user, 8639, alert.Closed), record(user, 8640, alert.Opened), record(user, 8642, alert.Closed)
	second.Severity, second.Count = alert.Critical, 1200
	b.apply(heard, []alert.Record{first, second, third, last, record(`"b"`, 8638, alert.Closed)})

	out, _ := b.run(ExitOK, "alerts", "show", first.ID, "--no-events")
	says(t, out, "alerts in adjacent windows: 1,200 events in the window after ("+second.ID+").\n")
	out, _ = b.run(ExitOK, "alerts", "show", second.ID, "--no-events")
	says(t, out, `a\u200b: 1,200 events in 10s (2019-11-01 23:59:50 to 2019-11-02 00:00:00 UTC). More than 5 raise an alert; this one is critical.`,
		"alerts in adjacent windows: 9 events in the window before ("+first.ID+"), 6 or more events in the window after ("+third.ID+").\n")
	out, _ = b.run(ExitOK, "alerts", "show", third.ID, "--no-events")
	says(t, out, `a\u200b: 6 or more events in 10s (`)
	out, _ = b.run(ExitOK, "alerts", "show", last.ID, "--no-events")
	if strings.Contains(out, "next to it") {
		t.Error(out)
	}
}

// TestAlertsShowOfManyFields: that not all fields are summarized is said.
func TestAlertsShowOfManyFields(t *testing.T) {
	b := newBench(t)
	cl, broker := newActivity(t)
	show := func(user string, fields int, flags ...string) string {
		t.Helper()
		event := `{"user_id":` + user + `,"event_time":"2019-11-01T00:00:01Z"`
		for i := range fields - 2 {
			event += fmt.Sprintf(`,"f%d":1`, i)
		}
		sent := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "activity", Partition: 0, Value: []byte(event + "}")})
		if err := sent.FirstErr(); err != nil {
			t.Fatal(err)
		}
		r := record(user, 0, alert.Closed)
		r.Evidence.Partitions = map[string]alert.OffsetRange{"0": {First: sent[0].Record.Offset, Last: sent[0].Record.Offset}}
		b.apply(heard, []alert.Record{r})
		out, _ := b.run(ExitOK, append([]string{"alerts", "show", r.ID, "--brokers", broker}, flags...)...)
		return out
	}
	if out := show(`7`, evidence.MaxFields); strings.Contains(out, "not summarized") || !strings.Contains(out, "f61") {
		t.Error(out)
	}
	says(t, show(`8`, evidence.MaxFields+1), "the events have more than 64 fields; the others are not summarized")
	says(t, show(`9`, evidence.MaxFields+1, "--json"), `"fields_more":true`)
}

// TestAlertsShowOfALogThatMovedOn: what is gone, or never was there, is told, and the rest is read.
func TestAlertsShowOfALogThatMovedOn(t *testing.T) {
	b := newBench(t)
	cl, broker := newActivity(t)
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
	says(t, out, "120 events are in the log; the alert counted 9", "and 110 more", "partition 0 ends at offset 120, before the end of the evidence", "partition 1 ends at offset 0", "partition 7 does not exist")
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--brokers", broker, "--json")
	if m := objects(t, out)[0]; m["events_more"] != 20.0 || len(m["events"].([]any)) != maxEvents || m["events_note"] == nil {
		t.Errorf("%v %v", m["events_more"], m["events_note"])
	}
	out, _ = b.run(ExitOK, "alerts", "show", other.ID, "--brokers", broker, "--json")
	says(t, out, `"events":null`, "topic elsewhere")
}
