package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/kafka"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/store/postgres/postgrestest"
	"spate/shared/testport"
	"spate/shared/window"
	"spate/tests/harness"
)

// receiver is an endpoint that comes and goes, on a port that stays.
type receiver struct {
	t       *testing.T
	addr    string
	secrets []webhook.Secret

	mu    sync.Mutex
	srv   *http.Server
	sick  bool   // answers 500
	first func() // called before the first answer
	calls map[string]int
}

func newReceiver(t *testing.T, secret string) *receiver {
	t.Helper()
	secrets, err := webhook.ParseSecrets(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, addr: testport.Reserve(t), secrets: secrets, calls: map[string]int{}}
	r.up()
	t.Cleanup(r.down)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // whoever called is dead
	}
	if err := webhook.Verify(r.secrets, req.Header, body, time.Now()); err != nil {
		r.t.Errorf("a call that is not ours: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sick {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	r.calls[req.Header.Get("webhook-id")]++
	if r.first != nil {
		r.first()
		r.first = nil
	}
}

// before has f called when the next call is there and not answered.
func (r *receiver) before(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first = f
}

func (r *receiver) up() {
	ln, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Error(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.srv = &http.Server{Handler: r}
	go r.srv.Serve(ln) //nolint:errcheck // it ends with down
}

func (r *receiver) down() {
	r.mu.Lock()
	srv := r.srv
	r.mu.Unlock()
	_ = srv.Close() // connections are cut
}

func (r *receiver) set(sick bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sick = sick
}

func (r *receiver) got() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.calls)
}

// endpoints is a file with two endpoints at one receiver: a machine that is told of alerts, and people who are told of incidents.
func endpoints(t *testing.T, url, secret string, names ...string) string {
	t.Helper()
	text := "endpoints:\n"
	for _, name := range names {
		text += fmt.Sprintf("  - {name: %s, url: %q, secret: %q, allow_private: true", name, url, secret)
		if name == "machine" {
			text += ", transitions: [opened, raised, closed]"
		}
		text += "}\n"
	}
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEverythingDies: while alerts are written, Postgres, the broker, the alerter and the webhook each die at random. In the end every
// alert is stored once and was told, so was every incident, and reading the whole topic again changes nothing. SPATE_TEST_ALERTS is how many, by default 5000,
// a multiple of 25.
func TestEverythingDies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes; -short is set")
	}
	t.Parallel()
	n := 5_000
	if v := os.Getenv("SPATE_TEST_ALERTS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	harness.OnOwnBrokers(t, func(t *testing.T, b harness.Broker) { testEverythingDies(t, n, b) })
}

func testEverythingDies(t *testing.T, n int, broker harness.Broker) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d, %d alerts", seed, n)
	server := postgrestest.Start(t)
	database := server.Database(t)
	secret := webhook.NewSecret()
	hook := newReceiver(t, secret)
	broker.Up()
	env := []string{"SPATE_BROKERS=" + broker.Addr, "SPATE_DATABASE_URL=" + database,
		"SPATE_ENDPOINTS=" + endpoints(t, "http://"+hook.addr+"/hook", secret, "machine", "people")}
	alerter := harness.Spate(t, "alerter", env, "alert", "--json").Start()
	names := kafka.NamesFor(kafka.DefaultTopic)
	ready := func() bool {
		code, _ := alerter.Get("/readyz")
		return code == http.StatusOK
	}
	harness.Eventually(t, 60*time.Second, "the alerter is ready", ready)

	// The alerts, each opened and then closed, over some time.
	cl := harness.Connect(t, broker.Addr, kgo.DefaultProduceTopic(names.Alerts))
	written := make(chan error, 1)
	const windows = 25 // of each user
	users := n / windows
	go func() { written <- writeAlerts(t.Context(), cl, n, users, 20*time.Second) }()

	kills := map[string]int{}
	busy := true
	for busy || len(kills) < 4 {
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			busy, written = false, nil
		case <-time.After(time.Duration(300+rng.IntN(1200)) * time.Millisecond):
		}
		outage := time.Duration(200+rng.IntN(1800)) * time.Millisecond
		victim := []string{"postgres", "broker", "alerter", "webhook"}[rng.IntN(4)]
		if victim == "alerter" && broker.KeepsDead {
			harness.Eventually(t, 60*time.Second, "the alerter has joined its group", ready)
		}
		kills[victim]++
		switch victim {
		case "postgres":
			server.Stop(t, rng.IntN(2) == 0)
			<-time.After(outage)
			server.Start(t)
		case "broker":
			broker.Down()
			<-time.After(outage)
			broker.Up()
		case "alerter":
			alerter.Kill()
			alerter.Start()
		case "webhook":
			if rng.IntN(2) == 0 {
				hook.set(true)
				<-time.After(outage)
				hook.set(false)
			} else {
				hook.down()
				<-time.After(outage)
				hook.up()
			}
		}
	}
	t.Logf("killed %v", kills)

	// Now all is well. What failed more than once waits for minutes, by the schedule; somebody asks for it now.
	db, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	number := func(query string) (v int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), query).Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	more := time.Duration(n) * 10 * time.Millisecond
	harness.Eventually(t, 3*time.Minute+more, "all alerts are closed", func() bool { return number(`SELECT count(*) FROM alert WHERE state = 'closed'`) == n })
	// Event time has passed them all, the detectors say.
	commitPositions(t, cl, names)
	incidents := users * ((windows + 9) / 10)
	harness.Eventually(t, time.Minute+more, "all incidents are over", func() bool { return number(`SELECT count(*) FROM incident WHERE resolved_at IS NOT NULL`) == incidents })
	asked := time.Now()
	harness.Eventually(t, 4*time.Minute+more, "all are delivered", func() bool {
		if time.Since(asked) > 10*time.Second {
			asked = time.Now()
			if err := harness.Spate(t, "recover", env, "deliveries", "recover", "--since", "1h").Start().Wait(time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		return number(`SELECT count(*) FROM delivery WHERE state <> 'delivered'`) == 0
	})

	log := map[string]int{} // webhook ids in the log
	harness.ReadAll(t, broker.Addr, names.Alerts, func(r *kgo.Record) {
		a, err := alert.Parse(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		log[notify.IDOf(a)]++
	})
	messages := maps.Clone(log)
	for user := range users {
		for first := 0; first < windows; first += 10 {
			key, start := json.RawMessage(fmt.Sprintf(`{"user_id":%d}`, user)), windowStart(first)
			id := incident.ID(alert.Burst, key, start, start.Add(alertSize))
			messages[id+"_opened"]++
			messages[id+"_resolved"]++
			windows := min(10, windows-first)
			if got := number(fmt.Sprintf(`SELECT count(*) FROM incident WHERE id = '%s' AND windows = %d AND events = %d AND peak = 7 AND last_window_end - first_window_start = interval '%d seconds'`,
				id, windows, 7*windows, 10*windows)); got != 1 {
				t.Errorf("incident %s of user %d from window %d is not there with %d windows", id, user, first, windows)
			}
		}
	}
	check := func() (calls int) {
		t.Helper()
		if rows, told := number(`SELECT count(*) FROM alert`), number(`SELECT count(*) FROM delivery`); rows != n || len(log) != 2*n || told != len(messages) || number(`SELECT count(*) FROM incident`) != incidents {
			t.Errorf("%d alerts, %d messages in the log, %d deliveries; want %d, %d, %d", rows, len(log), told, n, 2*n, len(messages))
		}
		got := hook.got()
		for id := range messages {
			if got[id] == 0 {
				t.Errorf("%s was not told", id)
			}
		}
		for id, k := range got {
			if messages[id] == 0 {
				t.Errorf("%s was told and is about nothing", id)
			}
			calls += k
		}
		return calls
	}
	calls := check()
	t.Logf("%d calls for %d messages, %d tries written down", calls, len(messages), number(`SELECT count(*) FROM delivery_try`))

	// The whole topic once more.
	if err := alerter.Stop(20 * time.Second); err != nil {
		t.Error(err)
	}
	admin := kadm.NewClient(cl)
	harness.Eventually(t, 30*time.Second, "the group is gone", func() bool {
		resp, err := admin.DeleteGroup(t.Context(), names.AlerterGroup)
		return err == nil && resp.Err == nil
	})
	alerter.Start()
	harness.Eventually(t, 3*time.Minute, "all is read again", func() bool {
		lag, err := admin.Lag(t.Context(), names.AlerterGroup)
		if err != nil || lag.Error() != nil {
			return false
		}
		g := lag[names.AlerterGroup]
		parts := g.Lag[names.Alerts]
		for _, p := range parts {
			if p.Commit.At < 0 && p.End.Offset > 0 {
				return false
			}
		}
		return len(parts) > 0 && g.Lag.Total() == 0
	})
	if again := check(); again != calls {
		t.Errorf("%d calls after the topic was read again, %d before", again, calls)
	}
	if out := alerter.Output(); strings.Contains(string(out), secret) || strings.Contains(string(out), secret[len("whsec_"):]) || strings.Contains(string(out), postgrestest.Password) {
		t.Error("a secret is in the log")
	}
}

// commitPositions has the detectors of a pipeline that has none say that event time is at its end.
func commitPositions(t *testing.T, cl *kgo.Client, names kafka.Names) {
	t.Helper()
	metadata, err := (window.Position{Watermarks: []int64{window.EndOfTime}}).Metadata()
	if err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(cl)
	keyed, err := adm.ListEndOffsets(t.Context(), names.Keyed)
	if err != nil {
		t.Fatal(err)
	}
	offsets := kadm.Offsets{}
	keyed.Each(func(o kadm.ListedOffset) {
		offsets.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: 0, LeaderEpoch: -1, Metadata: metadata})
	})
	if _, err := adm.CommitOffsets(t.Context(), names.DetectorGroup, offsets); err != nil {
		t.Fatal(err)
	}
}

const alertSize = 10 * time.Second

// windowStart is where the n-th window of writeAlerts begins: after each ten of them, a user is quiet for 70 s.
func windowStart(n int) time.Time {
	return time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n+7*(n/10)) * alertSize)
}

// writeAlerts writes n alerts of so many users, opened and closed, spread over some time.
func writeAlerts(ctx context.Context, cl *kgo.Client, n, users int, over time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	chunk := max(1, n/100)
	tick := time.NewTicker(max(over/100, time.Millisecond))
	defer tick.Stop()
	for from := 0; from < n; from += chunk {
		var records []*kgo.Record
		for i := from; i < min(from+chunk, n); i++ {
			start := windowStart(i / users)
			user := strconv.Itoa(i % users)
			for _, state := range []alert.State{alert.Opened, alert.Closed} {
				r := alert.Record{
					ID: alert.ID(alert.Burst, user, start.UnixMilli(), alertSize.Milliseconds()), Rule: alert.Burst, State: state, Severity: alert.Warning,
					UserID: json.RawMessage(user), Count: 7, Threshold: 5, WindowStart: start, WindowEnd: start.Add(alertSize), FirstEventAt: start, LastEventAt: start.Add(time.Second),
					Evidence: alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1, Last: 7}}},
				}
				value, err := r.Encode()
				if err != nil {
					return err
				}
				records = append(records, &kgo.Record{Key: []byte(user), Value: value})
			}
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return fmt.Errorf("write alerts: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// alerting is an alerter on an in-process broker, with a Postgres and a webhook of its own.
type alerting struct {
	t        *testing.T
	cl       *kgo.Client
	server   *postgrestest.Server
	database string
	secret   string
	hook     *receiver
	alerter  *harness.Process
}

// newAlerting starts an alerter, but not its Postgres if that is away.
func newAlerting(t *testing.T, away bool) *alerting {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	brokers := strings.Join(c.ListenAddrs(), ",")
	a := &alerting{t: t, server: postgrestest.Start(t), secret: webhook.NewSecret(), cl: harness.Connect(t, brokers, kgo.DefaultProduceTopic(kafka.NamesFor(kafka.DefaultTopic).Alerts))}
	a.database = a.server.Database(t)
	if away {
		a.server.Stop(t, false)
	}
	a.hook = newReceiver(t, a.secret)
	a.alerter = harness.Spate(t, "alerter", []string{"SPATE_BROKERS=" + brokers, "SPATE_DATABASE_URL=" + a.database,
		"SPATE_ENDPOINTS=" + endpoints(t, "http://"+a.hook.addr+"/hook?token=t0ken", a.secret, "machine")}, "alert").Start()
	return a
}

// ready waits until the alerter is, or is not and says why.
func (a *alerting) ready(why string) {
	a.t.Helper()
	what := "/readyz is 200"
	if why != "" {
		what = "/readyz is 503 and says " + why
	}
	harness.Eventually(a.t, 40*time.Second, what, func() bool {
		code, body := a.alerter.Get("/readyz")
		return why == "" && code == http.StatusOK || why != "" && code == http.StatusServiceUnavailable && strings.Contains(body, why)
	})
	if code, _ := a.alerter.Get("/healthz"); code != http.StatusOK {
		a.t.Errorf("/healthz: %d", code)
	}
}

// alerts writes n alerts; those that were written before are written again.
func (a *alerting) alerts(n int) {
	a.t.Helper()
	if err := writeAlerts(a.t.Context(), a.cl, n, 100, 0); err != nil {
		a.t.Fatal(err)
	}
}

// TestPostgresFaults: whatever the database does, the alerter says what is wrong, waits, and goes on.
func TestPostgresFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	a := newAlerting(t, true)
	a.ready("is not running")
	a.server.Start(t)
	a.ready("")
	a.alerts(20)
	told := func(n int) {
		t.Helper()
		harness.Eventually(t, 60*time.Second, fmt.Sprintf("%d alerts are told", n), func() bool { return len(a.hook.got()) == 2*n })
	}
	told(20)
	// Full: the server answers as it does then.
	postgrestest.Exec(t, a.database, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$`)
	postgrestest.Exec(t, a.database, `CREATE TRIGGER full_disk BEFORE INSERT ON alert FOR EACH STATEMENT EXECUTE FUNCTION full_disk()`)
	a.alerts(40)
	a.ready("the disk is full")
	postgrestest.Exec(t, a.database, `DROP TRIGGER full_disk ON alert`)
	told(40)
	// A failover: connections are cut, and who answers is read-only at first.
	postgrestest.Exec(t, a.database, `ALTER DATABASE `+databaseOf(a.database)+` SET default_transaction_read_only = on`)
	postgrestest.Exec(t, a.server.URL, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
	a.alerts(60)
	a.ready("is read-only")
	postgrestest.Exec(t, a.server.URL, `ALTER DATABASE `+databaseOf(a.database)+` RESET default_transaction_read_only`)
	postgrestest.Exec(t, a.server.URL, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
	told(60)
	a.ready("")
	// Nothing of all this told a secret.
	_, metrics := a.alerter.Get("/metrics")
	if !strings.Contains(metrics, `spate_alerter_deliveries_total{endpoint="machine",outcome="delivered"} `) {
		t.Error("/metrics does not tell of deliveries")
	}
	if err := a.alerter.Stop(20 * time.Second); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{"log": string(a.alerter.Output()), "/metrics": metrics} {
		for _, secret := range []string{strings.TrimPrefix(a.secret, "whsec_"), postgrestest.Password, "t0ken"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a secret", name)
			}
		}
	}
}

func databaseOf(url string) string {
	path, _, _ := strings.Cut(url[strings.LastIndex(url, "/")+1:], "?")
	return path
}

// TestKilledBetweenCallAndLedger: the alerter dies when the webhook has the message and the ledger does not. The message is told again,
// under the same id.
func TestKilledBetweenCallAndLedger(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute; -short is set")
	}
	t.Parallel()
	a := newAlerting(t, false)
	a.ready("")
	killed := make(chan struct{})
	a.hook.before(func() {
		a.alerter.Signal(syscall.SIGKILL)
		close(killed)
	})
	a.alerts(1)
	<-killed
	a.alerter.Kill()
	a.alerter.Start()
	// Whoever ran the job is taken for dead after 45 s, which is looked after every 30 s.
	harness.Eventually(t, 2*time.Minute, "both messages are told, the first twice", func() bool {
		got := a.hook.got()
		calls := 0
		for _, n := range got {
			calls += n
		}
		return len(got) == 2 && calls >= 3
	})
}
