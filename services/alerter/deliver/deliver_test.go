package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/shared/store/storetest"
	"spate/shared/testport"
)

// hook is a receiver of webhooks that checks signatures.
type hook struct {
	*httptest.Server
	secrets []webhook.Secret
	answer  func(n int, w http.ResponseWriter, r *http.Request) // nil: 204

	mu    sync.Mutex
	calls []call
}

type call struct {
	id   string
	body string
	at   time.Time
}

func newHook(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *hook {
	t.Helper()
	secrets, err := webhook.ParseSecrets(webhook.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{secrets: secrets, answer: answer}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(h.secrets, r.Header, body, time.Now())
		}
		if err != nil {
			t.Errorf("a call that is not ours: %v", err)
		}
		h.mu.Lock()
		h.calls = append(h.calls, call{id: r.Header.Get("webhook-id"), body: string(body), at: time.Now()})
		n := len(h.calls)
		h.mu.Unlock()
		if h.answer != nil {
			h.answer(n, w, r)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) got() []call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]call(nil), h.calls...)
}

// sender calls url, by default that of the hook.
func (h *hook) sender(t *testing.T, url string, timeout time.Duration) *webhook.Sender {
	t.Helper()
	if url == "" {
		url = h.URL
	}
	s, err := webhook.New(webhook.Config{URL: url, Secrets: h.secrets, AllowPrivate: true, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func openStore(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t *testing.T) *sqlite.Store {
	t.Helper()
	s := openStore(t, filepath.Join(t.TempDir(), "alerts.db"))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// deliver runs a deliverer; stop ends it and waits.
func deliver(t *testing.T, s store.Store, log io.Writer, endpoints ...Endpoint) (reg *prometheus.Registry, stop func()) {
	t.Helper()
	reg = prometheus.NewRegistry()
	cfg := Config{Store: s, Endpoints: endpoints, Now: time.Now, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	d := newDeliverer(cfg, newMetrics(reg))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return reg, stop
}

func addAlerts(t *testing.T, s store.Store, n int, to ...Endpoint) (ids []string) {
	t.Helper()
	var told []notify.Endpoint
	for _, e := range to {
		told = append(told, e.Endpoint)
	}
	var records []alert.Record
	for i := range n {
		r := storetest.Record(fmt.Sprint(i+1), i, alert.Opened)
		records, ids = append(records, r), append(ids, notify.IDOf(r))
	}
	for len(records) > 0 {
		batch := records[:min(len(records), 1000)]
		records = records[len(batch):]
		if _, err := s.Apply(t.Context(), time.Now(), batch, told...); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func tries(t *testing.T, s store.Store, f store.TryFilter) (out []store.Try) {
	t.Helper()
	for try, err := range s.ListTries(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, try)
	}
	return out
}

func states(t *testing.T, s store.Store) map[store.DeliveryState]int {
	t.Helper()
	out := map[store.DeliveryState]int{}
	for d, err := range s.ListDeliveries(t.Context(), store.DeliveryFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		out[d.State]++
	}
	return out
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
		<-tick.C
	}
}

// TestAnswers holds each answer of an endpoint against what has to happen next.
func TestAnswers(t *testing.T) {
	status := func(code int, header ...string) func(int, http.ResponseWriter, *http.Request) {
		return func(_ int, w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	const soon, later = 5 * time.Second, 2 * time.Minute // the second try's wait, and what the endpoint asks for
	dead := testport.Reserve(t)                          // nobody listens there
	for _, c := range []struct {
		name    string
		answer  func(int, http.ResponseWriter, *http.Request)
		url     string
		outcome notify.Outcome
		status  int
		wait    time.Duration // until the next try; 0 is none
		state   store.DeliveryState
	}{
		{name: "200", answer: status(200), outcome: notify.Delivered, status: 200, state: store.Delivered},
		{name: "204", answer: status(204), outcome: notify.Delivered, status: 204, state: store.Delivered},
		{name: "301", answer: status(301, "Location", "/elsewhere"), outcome: notify.Failed, status: 301, wait: soon, state: store.Pending},
		{name: "400", answer: status(400), outcome: notify.Failed, status: 400, wait: soon, state: store.Pending},
		{name: "404", answer: status(404), outcome: notify.Failed, status: 404, wait: soon, state: store.Pending},
		{name: "410", answer: status(410), outcome: notify.Gone, status: 410, state: store.Disabled},
		{name: "429 with Retry-After", answer: status(429, "Retry-After", "120"), outcome: notify.Throttled, status: 429, wait: later, state: store.Pending},
		{name: "429", answer: status(429), outcome: notify.Failed, status: 429, wait: soon, state: store.Pending},
		{name: "500", answer: status(500), outcome: notify.Failed, status: 500, wait: soon, state: store.Pending},
		{name: "502", answer: status(502), outcome: notify.Failed, status: 502, wait: soon, state: store.Pending},
		{name: "503 with Retry-After", answer: status(503, "Retry-After", "120"), outcome: notify.Throttled, status: 503, wait: later, state: store.Pending},
		{name: "503", answer: status(503), outcome: notify.Failed, status: 503, wait: soon, state: store.Pending},
		{name: "504", answer: status(504), outcome: notify.Failed, status: 504, wait: soon, state: store.Pending},
		{name: "timeout", answer: func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, outcome: notify.Failed, wait: soon, state: store.Pending},
		{name: "reset", answer: func(_ int, w http.ResponseWriter, _ *http.Request) {
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		}, outcome: notify.Failed, wait: soon, state: store.Pending},
		{name: "refused", url: "http://" + dead, outcome: notify.Failed, wait: soon, state: store.Pending},
		{name: "dns", url: "http://nobody.invalid/", outcome: notify.Failed, wait: soon, state: store.Pending},
		{name: "tls", url: "tls", outcome: notify.Failed, wait: soon, state: store.Pending},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHook(t, c.answer)
			url := c.url
			if url == "tls" { // a certificate that nobody vouches for
				s := httptest.NewUnstartedServer(http.NotFoundHandler())
				s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
				s.StartTLS()
				defer s.Close()
				url = s.URL
			}
			timeout := time.Duration(0)
			if c.name == "timeout" {
				timeout = 300 * time.Millisecond
			}
			e := Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts()}, Notifier: h.sender(t, url, timeout)}
			s := newStore(t)
			id := addAlerts(t, s, 1, e)[0]
			_, stop := deliver(t, s, io.Discard, e)
			within(t, 15*time.Second, "a try", func() bool { return len(tries(t, s, store.TryFilter{})) > 0 })
			stop()
			got := tries(t, s, store.TryFilter{})[0]
			if got.WebhookID != id || got.Endpoint != "ops" || got.Outcome != c.outcome || got.Status != c.status || (got.Reason == "") != (c.outcome == notify.Delivered) {
				t.Errorf("%+v", got)
			}
			d, err := s.Delivery(t.Context(), id, "ops")
			if err != nil {
				t.Fatal(err)
			}
			if d.State != c.state || !d.NextAt.Equal(got.NextAt) {
				t.Errorf("delivery is %s, next at %v; the try says %v", d.State, d.NextAt, got.NextAt)
			}
			if c.wait == 0 {
				if !got.NextAt.IsZero() {
					t.Errorf("next try at %v", got.NextAt)
				}
			} else if wait := got.NextAt.Sub(got.At.Add(got.Took)); wait < c.wait-5*time.Millisecond || wait > c.wait*11/10+5*time.Millisecond {
				t.Errorf("next try after %v, want %v and up to a tenth more", wait, c.wait)
			}
			disabled, err := s.DisabledAt(t.Context(), "ops")
			if err != nil || disabled.IsZero() == (c.outcome == notify.Gone) {
				t.Errorf("disabled at %v, %v", disabled, err)
			}
		})
	}
}

// TestRetriesKeepIdentity: the try after a failed one has the same id and body, and comes when the ledger says, whoever runs then.
func TestRetriesKeepIdentity(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	e := Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts()}, Notifier: h.sender(t, "", 0)}
	path := filepath.Join(t.TempDir(), "alerts.db")
	s := openStore(t, path)
	id := addAlerts(t, s, 1, e)[0]
	_, stop := deliver(t, s, io.Discard, e)
	within(t, 10*time.Second, "a try", func() bool { return len(tries(t, s, store.TryFilter{})) == 1 })
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A restart in mid-schedule.
	s = openStore(t, path)
	defer s.Close()
	next := tries(t, s, store.TryFilter{})[0].NextAt
	_, stop = deliver(t, s, io.Discard, e)
	within(t, 25*time.Second, "a second try", func() bool { return len(tries(t, s, store.TryFilter{})) == 2 })
	stop()
	got := h.got()
	if len(got) != 2 || got[0].id != id || got[1].id != id || got[0].body != got[1].body {
		t.Fatalf("%+v", got)
	}
	if early := next.Sub(got[1].at); early > time.Millisecond {
		t.Errorf("the second try came %v before its time", early)
	}
	if want := map[store.DeliveryState]int{store.Delivered: 1}; states(t, s)[store.Delivered] != 1 {
		t.Errorf("%v, want %v", states(t, s), want)
	}
}

// TestRateIsHeld: 500 deliveries are due, and the endpoint takes ten a second: it is called so often, and no more often, and with each
// message once. The time is the bubble's.
func TestRateIsHeld(t *testing.T) {
	const perSecond = 10
	due := fewer(500)
	synctest.Test(t, func(t *testing.T) {
		a := newAsked(t, func(int) notify.Result { return notify.Result{Outcome: notify.Delivered, Status: 200} })
		e := Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts(), Rate: perSecond}, Notifier: a}
		s := openStore(t, filepath.Join(t.TempDir(), "alerts.db"))
		ids := addAlerts(t, s, due, e)
		reg, stop := deliver(t, s, io.Discard, e)
		until(func() bool { return counted(t, reg, "ops", notify.Delivered) == float64(due) })
		stop()
		turns := a.got()
		told := map[string]int{}
		for i, turn := range turns {
			told[turn.id]++
			if i == 0 {
				continue
			}
			// The limiter reckons with fractions.
			if gap := turn.at.Sub(turns[i-1].at); gap < time.Second/perSecond-time.Microsecond {
				t.Errorf("call %d came %v after the one before it", i, gap)
			}
		}
		for _, id := range ids {
			if told[id] != 1 {
				t.Fatalf("%s was told %d times", id, told[id])
			}
		}
		if took := turns[len(turns)-1].at.Sub(turns[0].at); took > time.Duration(due)*time.Second/perSecond+5*time.Second {
			t.Errorf("%d calls took %v", due, took)
		}
		if got := states(t, s); got[store.Delivered] != due {
			t.Errorf("%v", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// counted returns how many tries of an endpoint had an outcome.
func counted(t *testing.T, reg *prometheus.Registry, endpoint string, outcome notify.Outcome) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "spate_alerter_deliveries_total" && labels["endpoint"] == endpoint && labels["outcome"] == string(outcome) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestThrottledReceiver: an endpoint that says when to come again is left alone until then, and no message is lost or given up for it.
func TestThrottledReceiver(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var until time.Time
	var refused int
	h := newHook(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if n > 30 && until.IsZero() {
			until = time.Now().Add(time.Second)
		}
		if time.Now().Before(until) {
			refused++
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	e := Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts()}, Notifier: h.sender(t, "", 0)}
	s := newStore(t)
	addAlerts(t, s, 100, e)
	_, stop := deliver(t, s, io.Discard, e)
	within(t, 60*time.Second, "all delivered", func() bool { return states(t, s)[store.Delivered] == 100 })
	stop()
	mu.Lock()
	defer mu.Unlock()
	if refused == 0 || refused > 4*maxWorkers {
		t.Errorf("%d calls were refused, want some, but few", refused)
	}
}

// TestDeadEndpoint: while an endpoint is down, few messages use up tries, and when it is back all get there. Another endpoint does not
// notice. The time is the bubble's.
func TestDeadEndpoint(t *testing.T) {
	due := fewer(200)
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		dead := newAsked(t, func(int) notify.Result {
			if down.Load() {
				return notify.Result{Outcome: notify.Failed, Status: 503, Reason: "status 503"}
			}
			return notify.Result{Outcome: notify.Delivered, Status: 204}
		})
		healthy := newAsked(t, func(int) notify.Result { return notify.Result{Outcome: notify.Delivered, Status: 204} })
		a := Endpoint{Endpoint: notify.Endpoint{Name: "dead", Filter: notify.Alerts()}, Notifier: dead}
		b := Endpoint{Endpoint: notify.Endpoint{Name: "healthy", Filter: notify.Alerts()}, Notifier: healthy}
		s := openStore(t, filepath.Join(t.TempDir(), "alerts.db"))
		addAlerts(t, s, due, a, b)
		began := time.Now()
		var log lockedBuffer
		reg, stop := deliver(t, s, &log, a, b)
		until(func() bool { return len(healthy.got()) == due })
		if took := time.Since(began); took >= breakMin {
			t.Errorf("the healthy one had to wait for %v", took)
		}
		time.Sleep(time.Minute)
		// What was under way when the breaker opened, and the probes: after 5, 10, 20 and 30 s at the earliest.
		if n := len(dead.got()); n > maxWorkers+4 {
			t.Errorf("%d tries of a dead endpoint", n)
		}
		down.Store(false)
		// All but the probes that failed: for their third try they wait for five minutes.
		until(func() bool { return counted(t, reg, "dead", notify.Delivered) >= float64(due-4) })
		stop()
		if n := len(distinct(dead.got())); n != due {
			t.Errorf("%d of %d messages were tried", n, due)
		}
		if got := states(t, s); got[store.Delivered]+got[store.Pending] != 2*due {
			t.Errorf("%v", got)
		}
		if strings.Contains(log.String(), "whsec_") {
			t.Error("a secret is in the log")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func distinct(calls []call) map[string]bool {
	out := map[string]bool{}
	for _, c := range calls {
		out[c.id] = true
	}
	return out
}

// asked is an endpoint that keeps count of the turns that it gets, by the bubble's clock, and judges messages as webhooks do.
type asked struct {
	*webhook.Sender
	answer func(n int) notify.Result

	mu    sync.Mutex
	turns []call
}

func newAsked(t *testing.T, answer func(n int) notify.Result) *asked {
	t.Helper()
	secrets, err := webhook.ParseSecrets(webhook.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	sender, err := webhook.New(webhook.Config{URL: "https://ops.example", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	return &asked{Sender: sender, answer: answer}
}

func (a *asked) Notify(_ context.Context, m notify.Message) notify.Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turns = append(a.turns, call{id: m.ID, at: time.Now()})
	return a.answer(len(a.turns))
}

func (a *asked) got() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.turns)
}

// fewer is how many messages a test needs where it has to be quick: the race detector makes SQLite ten times slower.
func fewer(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

// TestPoisonedQueue: a thousand messages that cannot be sent, before one that can, delay that by less than a second, whatever the
// endpoint's rate, and whether its breaker is open. The time is the bubble's: waiting takes it, work does not.
func TestPoisonedQueue(t *testing.T) {
	for _, c := range []struct {
		name     string
		poisoned int
		rate     float64
		down     bool
	}{{name: "up", poisoned: fewer(200)}, {name: "at a low rate", poisoned: fewer(200), rate: 0.01}, {name: "down", poisoned: fewer(1000), down: true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAsked(t, func(n int) notify.Result {
					if c.down && n <= breakAfter {
						return notify.Result{Outcome: notify.Failed, Status: 503, Reason: "status 503"}
					}
					return notify.Result{Outcome: notify.Delivered, Status: 200}
				})
				e := Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts(), Rate: c.rate}, Notifier: a}
				s := openStore(t, filepath.Join(t.TempDir(), "alerts.db"))
				add := func(records ...alert.Record) {
					t.Helper()
					if _, err := s.Apply(t.Context(), time.Now(), records, e.Endpoint); err != nil {
						t.Fatal(err)
					}
				}
				reg, stop := deliver(t, s, io.Discard, e)
				var free time.Time // when the good message could go, but for the others
				if c.down {
					for i := range breakAfter {
						add(storetest.Record(fmt.Sprint(i), 1, alert.Opened))
					}
					until(func() bool { return len(a.got()) == breakAfter })
					free = a.got()[breakAfter-1].at.Add(breakMin)
				}
				var records []alert.Record
				for i := range c.poisoned {
					r := storetest.Record("5", i, alert.Opened)
					r.ID = "po ison" + r.ID // as older versions stored them
					records = append(records, r)
				}
				good := storetest.Record("6", 0, alert.Opened)
				add(records...)
				add(good)
				if now := time.Now(); now.After(free) {
					free = now
				}
				sent := func() time.Time {
					for _, turn := range a.got() {
						if turn.id == notify.IDOf(good) {
							return turn.at
						}
					}
					return time.Time{}
				}
				until(func() bool { return !sent().IsZero() })
				if late := sent().Sub(free); late >= time.Duration(c.poisoned)*time.Second/1000 {
					t.Errorf("the good message was sent %v after its time", late)
				}
				until(func() bool { return counted(t, reg, "ops", notify.Unsendable) == float64(c.poisoned) })
				stop()
				for _, turn := range a.got() {
					if strings.Contains(turn.id, " ") {
						t.Errorf("%s had a turn", turn.id)
					}
				}
				got := tries(t, s, store.TryFilter{Outcome: notify.Exhausted})
				if len(got) != c.poisoned || !strings.Contains(got[0].Reason, "its ID is empty, or contains spaces") || got[0].Status != 0 {
					t.Errorf("%d tries, %+v", len(got), got[0])
				}
				if got := states(t, s); got[store.Exhausted] != c.poisoned {
					t.Errorf("%v", got)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// until polls by a bubble's clock, which stands still while anything works.
func until(ok func() bool) {
	for !ok() {
		time.Sleep(100 * time.Millisecond)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestDisabledEndpoint: an endpoint that answered 410 is told nothing more until somebody enables it, and what it missed can be sent then.
func TestDisabledEndpoint(t *testing.T) {
	t.Parallel()
	h := newHook(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusGone)
		}
	})
	e := Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts(), Rate: 50}, Notifier: h.sender(t, "", 0)}
	s := newStore(t)
	addAlerts(t, s, 1, e)
	_, stop := deliver(t, s, io.Discard, e)
	within(t, 10*time.Second, "it is disabled", func() bool { return states(t, s)[store.Disabled] == 1 })
	addAlerts(t, s, 20, e) // one of them is known
	within(t, 10*time.Second, "nothing is due any more", func() bool { return states(t, s)[store.Disabled] == 20 })
	if n := len(h.got()); n != 1 {
		t.Errorf("%d calls", n)
	}
	if err := s.SetEnabled(t.Context(), time.Now(), "ops", true, ""); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Resend(t.Context(), time.Now(), store.DeliveryFilter{States: []store.DeliveryState{store.Disabled}}); n != 20 || err != nil {
		t.Fatalf("%d sent again: %v", n, err)
	}
	within(t, 20*time.Second, "it has all", func() bool { return states(t, s)[store.Delivered] == 20 })
	stop()
}

// TestFlood: what is above the limit of a minute goes in one message, what is critical goes at once, and every alert says how it was told.
func TestFlood(t *testing.T) {
	t.Parallel()
	h := newHook(t, nil)
	e := Endpoint{
		Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts(), DigestAbove: 3}, Notifier: h.sender(t, "", 0), Link: "https://grafana.example/?from={since}&to={until}",
	}
	s := newStore(t)
	var records []alert.Record
	for i := range 20 {
		r := storetest.Record(fmt.Sprintf(`"<user %d>"`, i), 0, alert.Opened)
		r.Count = int64(6 + i)
		if i >= 18 {
			r.Severity = alert.Critical
		}
		records = append(records, r)
	}
	minute := time.Now().Add(-2 * time.Minute).UTC().Truncate(time.Minute) // it has ended
	if _, err := s.Apply(t.Context(), minute.Add(time.Second), records, e.Endpoint); err != nil {
		t.Fatal(err)
	}
	_, stop := deliver(t, s, io.Discard, e)
	within(t, 20*time.Second, "six calls", func() bool { return len(h.got()) == 6 && len(tries(t, s, store.TryFilter{})) == 6 })
	stop()
	single := map[string]bool{}
	var digest struct {
		Type string        `json:"type"`
		Data notify.Digest `json:"data"`
	}
	for _, c := range h.got() {
		if !strings.HasPrefix(c.id, "digest") {
			single[c.id] = true
			continue
		}
		if err := json.Unmarshal([]byte(c.body), &digest); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(c.body, `"<user 17>"`) {
			t.Errorf("users are not as they were: %s", c.body)
		}
	}
	for _, i := range []int{0, 1, 2, 18, 19} {
		if !single[notify.IDOf(records[i])] {
			t.Errorf("alert %d was not told alone", i)
		}
	}
	d := digest.Data
	if digest.Type != notify.TypeDigest || d.Messages != 15 || d.Users != 15 || d.Opened != 15 || d.BySeverity[alert.Warning] != 15 || d.Events != 15*16 ||
		len(d.Top) != 10 || d.Top[0].Count != 23 || d.Top[9].Count != 14 || !d.Since.Equal(minute) || !d.Until.Equal(minute.Add(time.Minute)) ||
		d.Link != "https://grafana.example/?from="+minute.Format(time.RFC3339)+"&to="+minute.Add(time.Minute).Format(time.RFC3339) {
		t.Errorf("%+v", digest)
	}
	for a, err := range s.Alerts(t.Context(), store.Filter{}) {
		if err != nil || a.Delivery != (store.Summary{State: store.Delivered, Attempts: 1}) {
			t.Errorf("%s: %+v, %v", a.UserID, a.Delivery, err)
		}
	}
}

var errFault = errors.New("out of order")

// forgetful does not take down the first tries, as if the process died before it could.
type forgetful struct {
	store.Store
	mu    sync.Mutex
	fails int
}

func (f *forgetful) Record(ctx context.Context, try store.Try, counts bool) (store.DeliveryState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails > 0 {
		f.fails--
		return "", errFault
	}
	return f.Store.Record(ctx, try, counts)
}

// TestLedgerThatFails: a try that was made is written down when the database is back, and made once.
func TestLedgerThatFails(t *testing.T) {
	t.Parallel()
	h := newHook(t, nil)
	e := Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts()}, Notifier: h.sender(t, "", 0)}
	s := newStore(t)
	addAlerts(t, s, 1, e)
	_, stop := deliver(t, &forgetful{Store: s, fails: 3}, io.Discard, e)
	within(t, 20*time.Second, "it is written down", func() bool { return states(t, s)[store.Delivered] == 1 })
	stop()
	if n := len(h.got()); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// TestOrderWhereItShows: where the state of an incident shows, an opening that failed does not come after the end, and of messages that are due at once, the first
// one goes first. Elsewhere every message is sent.
func TestOrderWhereItShows(t *testing.T) {
	for _, shows := range []bool{true, false} {
		t.Run(fmt.Sprint(shows), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var sent []string
				failed := false
				e := Endpoint{Endpoint: notify.Endpoint{Name: "pager"}, Shows: shows, Notifier: notifier(func(m notify.Message) notify.Result {
					mu.Lock()
					defer mu.Unlock()
					if m.Type == notify.TypeIncidentOpened && !failed {
						failed = true
						return notify.Result{Outcome: notify.Failed, Reason: "away"}
					}
					sent = append(sent, m.Type)
					return notify.Result{Outcome: notify.Delivered}
				})}
				s := newStore(t)
				r := storetest.Record("7", 0, alert.Opened)
				if _, err := s.Apply(t.Context(), time.Now(), []alert.Record{r}, e.Endpoint); err != nil {
					t.Fatal(err)
				}
				_, stop := deliver(t, s, io.Discard, e)
				within(t, 10*time.Second, "the opening has failed", func() bool { return len(tries(t, s, store.TryFilter{})) == 1 })
				if _, err := s.Apply(t.Context(), time.Now(), []alert.Record{storetest.Record("7", 0, alert.Raised)}, e.Endpoint); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Resolve(t.Context(), time.Now(), r.WindowEnd.Add(time.Hour), 10, e.Endpoint); err != nil {
					t.Fatal(err)
				}
				within(t, time.Minute, "all is delivered", func() bool { return states(t, s)[store.Delivered] == 3 })
				stop()
				want := []string{notify.TypeIncidentEscalated, notify.TypeIncidentResolved}
				if !shows {
					want = append(want, notify.TypeIncidentOpened)
				}
				if diff := cmp.Diff(want, sent); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestOrderOfTheDead: a page does not wait for an earlier message about the same incident that is under way for longer than a try takes, as one is whose
// process has died; that one is not sent afterwards where it would show an earlier state.
func TestOrderOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, escalated := make(chan struct{}), make(chan time.Time, 1)
		e := Endpoint{Endpoint: notify.Endpoint{Name: "pager"}, Shows: true, Notifier: notifier(func(m notify.Message) notify.Result {
			if m.Type == notify.TypeIncidentOpened {
				<-release
				return notify.Result{Outcome: notify.Failed, Reason: "the process is gone"}
			}
			escalated <- time.Now()
			return notify.Result{Outcome: notify.Delivered}
		})}
		s := newStore(t)
		_, stop := deliver(t, s, io.Discard, e)
		apply := func(state alert.State) time.Time {
			t.Helper()
			at := time.Now()
			if _, err := s.Apply(t.Context(), at, []alert.Record{storetest.Record("7", 0, state)}, e.Endpoint); err != nil {
				t.Fatal(err)
			}
			return at
		}
		apply(alert.Opened)
		time.Sleep(2 * time.Second)
		at := apply(alert.Raised)
		if took := (<-escalated).Sub(at); took < orderPatience || took > orderPatience+2*time.Second {
			t.Errorf("the escalation was sent after %v", took)
		}
		close(release)
		within(t, time.Minute, "the opening is settled", func() bool { return states(t, s)[store.Delivered] == 2 })
		stop()
		if len(escalated) > 0 {
			t.Error("it was sent twice")
		}
	})
}

type notifier func(notify.Message) notify.Result

func (notifier) Check(notify.Message) error                                 { return nil }
func (n notifier) Notify(_ context.Context, m notify.Message) notify.Result { return n(m) }
