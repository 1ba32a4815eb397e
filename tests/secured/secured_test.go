package secured

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/kafka/kafkatest"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/tests/harness"
)

const (
	plain, scram256, scram512, oauth, mutual = "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "mTLS"
)

// settings are the environment of a service that logs in with a mechanism as a principal.
func (w *world) settings(t *testing.T, mechanism, as string) []string {
	t.Helper()
	env := []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_SASL_MECHANISM=" + mechanism}
	switch mechanism {
	case mutual:
		cert, key := w.authority.Sign(t, kafkatest.Leaf{Name: as}).Files(t)
		return []string{"SPATE_BROKERS=" + w.mutual, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_TLS_CERT_FILE=" + cert, "SPATE_TLS_KEY_FILE=" + key}
	case oauth:
		return append(env, "SPATE_SASL_OAUTH_TOKEN_URL="+w.tokens.URL+"/token", "SPATE_SASL_OAUTH_CLIENT_ID="+as, "SPATE_SASL_OAUTH_CLIENT_SECRET=secret", "SPATE_SASL_OAUTH_SCOPES=kafka")
	case scram256:
		w.user(t, as, kadm.ScramSha256, password)
	case scram512:
		w.user(t, as, kadm.ScramSha512, password)
	}
	return append(env, "SPATE_SASL_USERNAME="+as, "SPATE_SASL_PASSWORD="+password)
}

// principalOf is what the broker calls who logs in so.
func principalOf(mechanism, as string) string {
	if mechanism == mutual {
		return "CN=" + as
	}
	return as
}

// pipeline is one on the broker, each service a process and a principal of its own.
type pipeline struct {
	names    kafka.Names
	db       string
	services []*harness.Process
	env      map[string][]string // of a service
}

var rule = verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5}

func (w *world) pipeline(t *testing.T, mechanism string) *pipeline {
	t.Helper()
	p := &pipeline{names: kafka.NamesFor(harness.UniqueTopic(t)), db: filepath.Join(t.TempDir(), "alerts.db"), env: make(map[string][]string)}
	w.makeTopics(t, p.names)
	instance := p.names.Activity + "-1"
	for _, s := range kafka.Services {
		as := principal(mechanism, s)
		w.allow(t, principalOf(mechanism, as), p.names.Rights(s, instance)...)
		p.env[s] = append(w.settings(t, mechanism, as), "SPATE_TOPIC="+p.names.Activity, "SPATE_DATABASE_URL="+p.db, "SPATE_IDLE_TIMEOUT=2s", "SPATE_INSTANCE="+instance)
	}
	for _, s := range []string{kafka.Router, kafka.Detector, kafka.Alerter} {
		p.services = append(p.services, harness.Spate(t, s, p.env[s], s))
	}
	return p
}

func (p *pipeline) start() {
	for _, s := range p.services {
		s.Start()
	}
}

// simulate sends traffic with attackers.
func (p *pipeline) simulate(t *testing.T, events int) {
	t.Helper()
	traffic := harness.Spate(t, "traffic", p.env[kafka.Simulator], "simulate", "--time", "now", "--speed", "0", "--events", fmt.Sprint(events), "--quiet").Start()
	if err := traffic.Wait(time.Minute); err != nil {
		t.Fatal(err)
	}
}

// stored waits for all windows to close and compares the stored alerts with the rows.
func (p *pipeline) stored(t *testing.T, want []verifier.Row) {
	t.Helper()
	st, err := sqlite.Open(t.Context(), p.db)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	harness.CheckStored(t, st, want, time.Minute)
}

// exact waits for all windows to close and holds the stored alerts against an independent count of the log.
func (p *pipeline) exact(t *testing.T, w *world) {
	t.Helper()
	ref := harness.Reference(t, w.Addr, p.names.Activity, rule)
	want := ref.Result()
	p.stored(t, want)
	harness.CheckLog(t, w.Addr, p.names, ref)
	t.Logf("%d events, %d alerts", ref.In, len(want))
}

func (p *pipeline) stop(t *testing.T) {
	t.Helper()
	for _, s := range p.services {
		if err := s.Stop(20 * time.Second); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// secrets must not be in what processes say.
func (p *pipeline) noSecrets(t *testing.T, more ...*harness.Process) {
	t.Helper()
	for _, s := range append(slices.Clone(p.services), more...) {
		out := string(s.Output())
		if strings.Contains(out, password) || strings.Contains(out, "eyJ") || strings.Contains(out, "PRIVATE KEY") {
			t.Errorf("%s shows a secret:\n%s", s.Name, out)
		}
	}
}

// TestSecured does what needs nothing but a secured Kafka on the same one.
func TestSecured(t *testing.T) {
	if testing.Short() {
		t.Skip("starts brokers and services; -short is set")
	}
	t.Parallel()
	w := newWorld(t)
	for name, test := range map[string]func(*testing.T, *world){"logins": testLogins, "faults": testFaults, "rights": testRights, "doctor": testDoctor} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// testLogins runs the pipeline with every way to log in, each service with the rights that are documented for it and no more.
func testLogins(t *testing.T, w *world) {
	for _, mechanism := range []string{plain, scram256, scram512, oauth, mutual} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			p := w.pipeline(t, mechanism)
			p.start()
			p.simulate(t, 20_000)
			p.exact(t, w)
			ask := harness.Spate(t, "user", p.env[kafka.Asker], "user", "1").Start()
			if err := ask.Wait(20 * time.Second); err != nil {
				t.Errorf("user: %v", err)
			}
			show := harness.Spate(t, "show", p.env[kafka.Teller], "alerts", "show", "--json", stored(t, p.db)).Start()
			if err := show.Wait(20 * time.Second); err != nil {
				t.Errorf("alerts show: %v", err)
			}
			var story struct {
				Events []json.RawMessage `json:"events"`
			}
			if err := json.Unmarshal(show.Output(), &story); err != nil || len(story.Events) <= int(rule.Threshold) {
				t.Errorf("%d events, %v: %s", len(story.Events), err, show.Output())
			}
			p.noSecrets(t, ask, show)
			p.stop(t)
		})
	}
}

// stored is the id of an alert that is stored, "" if none is.
func stored(t *testing.T, db string) string {
	t.Helper()
	st, err := sqlite.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for a, err := range st.Alerts(t.Context(), store.Filter{Limit: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		return a.ID
	}
	return ""
}

// says waits for a service to be not ready for a reason.
func says(t *testing.T, p *harness.Process, reasons ...string) {
	t.Helper()
	last := ""
	ok := func() bool {
		code, text := p.Get("/readyz")
		last = text
		return code == http.StatusServiceUnavailable && !slices.ContainsFunc(reasons, func(r string) bool { return !strings.Contains(text, r) })
	}
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: /readyz says %s, want %q\n%s", p.Name, last, reasons, harness.Tail(p.Output(), 10))
		}
		<-time.After(100 * time.Millisecond)
	}
}

// ready waits for a service to be ready.
func ready(t *testing.T, p *harness.Process) {
	t.Helper()
	harness.Eventually(t, 45*time.Second, p.Name+" is ready", func() bool {
		code, _ := p.Get("/readyz")
		return code == http.StatusOK
	})
}

// testFaults: what keeps a service out is told in one line, and it goes on by itself when it is mended.
func testFaults(t *testing.T, w *world) {
	begin := func(t *testing.T, env []string) (*pipeline, *harness.Process) {
		t.Helper()
		p := &pipeline{names: kafka.NamesFor(harness.UniqueTopic(t))}
		w.makeTopics(t, p.names)
		for _, name := range []string{"somebody", "CN=somebody"} {
			w.allow(t, name, p.names.Rights(kafka.Alerter, "")...)
		}
		s := harness.Spate(t, "alert", append(env, "SPATE_TOPIC="+p.names.Activity, "SPATE_DATABASE_URL="+filepath.Join(t.TempDir(), "alerts.db")), "alert").Start()
		p.services = append(p.services, s)
		return p, s
	}
	w.user(t, "somebody", kadm.ScramSha256, password)
	t.Run("wrong password", func(t *testing.T) {
		t.Parallel()
		file := write(t, "password", "wrong\n")
		p, s := begin(t, []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_SASL_MECHANISM=scram-sha-256", "SPATE_SASL_USERNAME=somebody", "SPATE_SASL_PASSWORD_FILE=" + file})
		says(t, s, "broker denies access", "SPATE_SASL_USERNAME")
		kafkatest.Write(t, file, []byte(password+"\n"))
		ready(t, s)
		p.noSecrets(t)
	})
	t.Run("wrong mechanism", func(t *testing.T) {
		t.Parallel()
		_, s := begin(t, []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_SASL_MECHANISM=AWS_MSK_IAM", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b", "AWS_REGION=eu-central-1"})
		says(t, s, "broker denies access", "SPATE_SASL_MECHANISM")
	})
	t.Run("no login", func(t *testing.T) {
		t.Parallel()
		_, s := begin(t, []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File})
		says(t, s, "SPATE_SASL_MECHANISM")
	})
	t.Run("no TLS", func(t *testing.T) {
		t.Parallel()
		_, s := begin(t, []string{"SPATE_BROKERS=" + w.login, "SPATE_SASL_MECHANISM=scram-sha-256", "SPATE_SASL_USERNAME=somebody", "SPATE_SASL_PASSWORD=" + password})
		says(t, s, "SPATE_TLS")
	})
	t.Run("TLS where there is none", func(t *testing.T) {
		t.Parallel()
		_, s := begin(t, []string{"SPATE_BROKERS=" + w.Addr, "SPATE_TLS=true"})
		says(t, s, "use TLS on this port")
	})
	t.Run("unknown authority", func(t *testing.T) {
		t.Parallel()
		other := kafkatest.NewAuthority(t, "other")
		_, s := begin(t, []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + other.File, "SPATE_SASL_MECHANISM=scram-sha-256", "SPATE_SASL_USERNAME=somebody", "SPATE_SASL_PASSWORD=" + password})
		says(t, s, "not issued by any of the CAs in "+other.File)
		right, err := os.ReadFile(w.authority.File)
		if err != nil {
			t.Fatal(err)
		}
		kafkatest.Write(t, other.File, right)
		ready(t, s)
	})
	t.Run("expired client certificate", func(t *testing.T) {
		t.Parallel()
		old := w.authority.Sign(t, kafkatest.Leaf{Name: "somebody", Before: time.Now().Add(-2 * time.Hour), After: time.Now().Add(-time.Hour)})
		cert, key := old.Files(t)
		p, s := begin(t, []string{"SPATE_BROKERS=" + w.mutual, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_TLS_CERT_FILE=" + cert, "SPATE_TLS_KEY_FILE=" + key})
		says(t, s, "expired at")
		fresh := w.authority.Sign(t, kafkatest.Leaf{Name: "somebody"})
		kafkatest.Write(t, key, fresh.Key)
		kafkatest.Write(t, cert, fresh.Cert)
		ready(t, s)
		p.noSecrets(t)
	})
	t.Run("no client certificate", func(t *testing.T) {
		t.Parallel()
		_, s := begin(t, []string{"SPATE_BROKERS=" + w.mutual, "SPATE_TLS_CA_FILE=" + w.authority.File})
		says(t, s, "SPATE_TLS_CERT_FILE")
	})
	t.Run("no token", func(t *testing.T) {
		t.Parallel()
		secret := write(t, "secret", "wrong")
		p, s := begin(t, []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_SASL_MECHANISM=OAUTHBEARER",
			"SPATE_SASL_OAUTH_TOKEN_URL=" + w.tokens.URL + "/token", "SPATE_SASL_OAUTH_CLIENT_ID=somebody", "SPATE_SASL_OAUTH_CLIENT_SECRET_FILE=" + secret})
		says(t, s, "cannot log in", "refused to issue a token", "invalid_client")
		kafkatest.Write(t, secret, []byte("secret"))
		ready(t, s)
		p.noSecrets(t)
	})
}
