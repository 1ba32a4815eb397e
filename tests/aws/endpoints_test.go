package aws

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	diffs "github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify/webhook"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/tests/harness"
)

// receivers stand for the services that endpoints are.
type receivers struct {
	t      *testing.T
	secret []webhook.Secret
	away   atomic.Bool // one of them does not work

	mu      sync.Mutex
	bodies  map[string]map[string]string // by endpoint and message: what came first
	calls   map[string]map[string]int    // by endpoint and message
	pager   map[string][]string          // by incident: the actions, in order
	chat    map[string][]bool            // by Slack message: whether each text said that it is over
	digests map[string]int               // by digest: how many messages it stands for
}

func newReceivers(t *testing.T) (*receivers, string) {
	t.Helper()
	key := webhook.NewSecret()
	secret, err := webhook.ParseSecrets(key)
	if err != nil {
		t.Fatal(err)
	}
	r := &receivers{
		t: t, secret: secret, bodies: map[string]map[string]string{}, calls: map[string]map[string]int{}, pager: map[string][]string{}, chat: map[string][]bool{}, digests: map[string]int{},
	}
	r.away.Store(true)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	text := fmt.Sprintf(`endpoints:
  - {name: hooks, url: %[1]s/hooks, secret: %[2]s, allow_private: true}
  - {name: away, url: %[1]s/away, secret: %[2]s, allow_private: true}
  - {name: few, url: %[1]s/few, secret: %[2]s, allow_private: true, digest_above: 2}
  - {name: pager, format: pagerduty, url: %[1]s, routing_key: %[3]s, allow_private: true}
  - {name: chat, format: slack, api_url: %[1]s/chat, token: xoxb-1-a, channel: C0123456789, allow_private: true}
`, server.URL, key, strings.Repeat("a", 32))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return r, path
}

func (r *receivers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // whoever calls was killed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch name := strings.TrimPrefix(req.URL.Path, "/"); name {
	case "v2/enqueue":
		var e struct {
			Action string `json:"event_action"`
			Key    string `json:"dedup_key"`
		}
		if err := json.Unmarshal(body, &e); err != nil {
			r.t.Errorf("%v: %s", err, body)
		}
		r.pager[e.Key] = append(r.pager[e.Key], e.Action)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"status":"success"}`)
	case "chat/chat.postMessage", "chat/chat.update":
		var m struct{ TS string }
		if err := json.Unmarshal(body, &m); err != nil {
			r.t.Errorf("%v: %s", err, body)
		}
		if m.TS == "" {
			m.TS = fmt.Sprintf("17.%d", len(r.chat)+1)
		} else if r.chat[m.TS] == nil {
			r.t.Errorf("an edit of %s, which was never posted", m.TS)
		}
		r.chat[m.TS] = append(r.chat[m.TS], strings.Contains(string(body), ":white_check_mark:"))
		fmt.Fprintf(w, `{"ok":true,"channel":"C0123456789","ts":%q}`, m.TS)
	default:
		if err := webhook.Verify(r.secret, req.Header, body, time.Now()); err != nil {
			r.t.Errorf("%s: %v", name, err)
		}
		id := req.Header.Get("webhook-id")
		if r.calls[name] == nil {
			r.calls[name], r.bodies[name] = map[string]int{}, map[string]string{}
		}
		r.calls[name][id]++
		if name == "away" && r.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if first, ok := r.bodies[name][id]; !ok {
			r.bodies[name][id] = string(body)
		} else if first != string(body) {
			r.t.Errorf("%s: message %s comes again with another content:\n%s\n%s", name, id, first, body)
		}
		if strings.HasPrefix(id, "digest_") {
			var m struct{ Data struct{ Messages int } }
			if err := json.Unmarshal(body, &m); err != nil {
				r.t.Errorf("%v: %s", err, body)
			}
			r.digests[id] = m.Data.Messages
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// got are the messages that an endpoint has.
func (r *receivers) got(name string) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]bool{}
	for id := range r.bodies[name] {
		out[id] = true
	}
	return out
}

// TestEndpoints: endpoints of several formats are notified beside the topic, while the alerter, and now and then the worker, is killed with kill -9. Each message reaches each endpoint,
// once or again under the same id, and what shows an incident shows it in order. An endpoint that does not answer gets all of it later, and holds up no other.
func TestEndpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes minutes")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	r, file := newReceivers(t)
	a := harness.OnAWS(t, 1, "SPATE_LATENESS=2s", "SPATE_LEASE=2s", "SPATE_IDLE_TIMEOUT=2s", "SPATE_ENDPOINTS="+file)
	applyRules(t, a, calmRule)
	q := subscribe(t, a.TopicARN)
	topic := map[string]bool{}
	receive := func() {
		for _, body := range q.receive(t) {
			var m struct{ ID string }
			if err := json.Unmarshal([]byte(body), &m); err != nil || m.ID == "" {
				t.Fatalf("%v: %s", err, body)
			}
			topic[m.ID] = true
		}
	}
	worker, alerter := harness.Spate(t, "worker", a.Env, "work").Start(), harness.Spate(t, "alerter", a.Env, "alert").Start()
	traffic := harness.Spate(t, "traffic", a.Env, "simulate", "--time", "shift", "--disorder", "1s", "--event-rate", "200", "--users", "1500", "--window", "2s", "--duration", "20s",
		"--seed", fmt.Sprint(rng.IntN(1000)), "--quiet").Start()
	kills := 0
	for running := true; running; {
		select {
		case <-traffic.Done():
			running = false
		case <-time.After(2*time.Second + time.Duration(rng.Int64N(int64(3*time.Second)))): // the moment is what is random here
			victim := alerter
			if kills++; kills%4 == 0 {
				victim = worker
			}
			victim.Kill()
			victim.Start()
			receive()
		}
	}
	if err := traffic.Err(); err != nil {
		t.Fatal(err)
	}
	table, err := dynamodb.New(a.DynamoDB, dynamodb.Config{Table: a.Table})
	if err != nil {
		t.Fatal(err)
	}
	pending := func() (out []string) {
		states, err := table.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range states {
			if s.Pending > 0 {
				out = append(out, s.Name)
			}
		}
		return out
	}
	st, _ := a.State()
	var incidents []incident.Incident
	harness.Eventually(t, patience, "every alert is closed, every incident has ended, and all but one endpoint have all", func() bool {
		receive()
		now, _ := a.State()
		var list []store.Alert
		list, incidents = collect(t, table)
		written, _ := alerts(t, a)
		return now.Closed > st.Closed && len(list) > 0 && len(list) == len(written) &&
			!slices.ContainsFunc(list, func(a store.Alert) bool { return a.State != alert.Closed }) &&
			!slices.ContainsFunc(incidents, func(i incident.Incident) bool { return i.State != incident.StateResolved }) &&
			slices.Equal(pending(), []string{"away"})
	})
	want := map[string]bool{}
	for _, i := range incidents {
		want[i.ID+"_opened"], want[i.ID+"_resolved"] = true, true
		if i.Escalations > 0 {
			want[i.ID+"_escalated_1"] = true
		}
	}
	harness.Eventually(t, patience, "the topic was told of everything", func() bool {
		receive()
		return len(topic) >= len(want)
	})
	if diff := diffs.Diff(want, topic); diff != "" {
		t.Errorf("the topic: %s", diff)
	}
	if diff := diffs.Diff(want, r.got("hooks")); diff != "" {
		t.Errorf("hooks: %s", diff)
	}
	if got := r.got("away"); len(got) > 0 {
		t.Errorf("away has %v", got)
	}
	r.checkShown(incidents)
	r.checkDigests(len(want))

	// It is back: what waits for a retry, and what is given up, can be sent at once.
	r.away.Store(false)
	spate := func(args ...string) string {
		t.Helper()
		p := harness.Spate(t, strings.Join(args, " "), a.Env, args...).Start()
		if err := p.Wait(patience); err != nil {
			t.Fatalf("%v: %v: %s", args, err, p.Output())
		}
		return string(p.Output())
	}
	if out := spate("deliveries", "ls", "--endpoint", "away", "--json", "--limit", "0"); !strings.Contains(out, `"n":2,`) || strings.Contains(out, `"delivered"`) {
		t.Errorf("the endpoint that is away is not tried again: %s", out)
	}
	if out := spate("endpoints", "ls", "--json"); !strings.Contains(out, `"failing":"failing: status 503`) || strings.Count(out, "\n") != 5 {
		t.Errorf("endpoints ls: %s", out)
	}
	harness.Eventually(t, patience, "it has all", func() bool {
		spate("deliveries", "recover", "--since", "1h", "--endpoint", "away") // again, for a try may have been under way
		return len(pending()) == 0
	})
	if diff := diffs.Diff(want, r.got("away")); diff != "" {
		t.Errorf("away: %s", diff)
	}
	repeated := 0
	for _, n := range r.calls["hooks"] {
		repeated += n - 1
	}
	if len(incidents) < 3 || kills < 4 {
		t.Errorf("%d incidents, %d kills: the test proves less than it should", len(incidents), kills)
	}
	t.Logf("%d incidents, %d messages, %d repeated, %d kills, %d digests", len(incidents), len(want), repeated, kills, len(r.digests))
	for _, p := range []*harness.Process{worker, alerter} {
		if err := p.Stop(20 * time.Second); err != nil {
			t.Errorf("%s does not end well on SIGTERM: %v", p.Name, err)
		}
	}
}

// checkShown: each incident is over where it is shown, and nothing came after that.
func (r *receivers) checkShown(incidents []incident.Incident) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range incidents {
		actions := slices.Compact(r.pager[i.ID])
		if last := len(actions) - 1; last < 0 || slices.Index(actions, "resolve") != last {
			r.t.Errorf("pager: incident %s: %v", i.ID, r.pager[i.ID])
		}
	}
	over := 0
	for ts, said := range r.chat {
		n := slices.Index(said, true)
		if n >= 0 && slices.Contains(said[n:], false) {
			r.t.Errorf("chat: %s: %v", ts, said)
		}
		if n >= 0 {
			over++
		}
	}
	// A Slack message that a crash repeated is not edited any more; most are.
	if len(r.pager) != len(incidents) || over < len(incidents) || len(r.chat)-over >= over {
		r.t.Errorf("pager has %d incidents, chat %d of which %d are over, of %d", len(r.pager), len(r.chat), over, len(incidents))
	}
}

// checkDigests: each message was sent alone or in one digest.
func (r *receivers) checkDigests(want int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	alone, held := 0, 0
	for id := range r.bodies["few"] {
		if !strings.HasPrefix(id, "digest_") {
			alone++
		}
	}
	for _, n := range r.digests {
		held += n
	}
	if alone+held != want || held == 0 {
		r.t.Errorf("few: %d alone and %d in digests, of %d", alone, held, want)
	}
}
