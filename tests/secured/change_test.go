package secured

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/shared/kafka"
	"spate/shared/kafka/kafkatest"
	"spate/tests/harness"
)

// TestCertificatesAreReplaced replaces the certificates of the broker and of all clients, and the authority that has signed them, while traffic
// flows, and then cuts every connection by a crash of the broker: everybody comes back with the new ones, and nothing is lost.
func TestCertificatesAreReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("starts brokers and services; -short is set")
	}
	t.Parallel()
	w := newWorld(t)
	p := w.pipeline(t, mutual)
	p.start()
	for _, s := range p.services {
		ready(t, s)
	}
	traffic := harness.Spate(t, "traffic", p.env[kafka.Simulator], "simulate", "--time", "now", "--event-rate", "500", "--users", "6000", "--duration", "20s", "--quiet").Start()
	<-time.After(4 * time.Second) // of traffic under the old ones

	fresh := kafkatest.NewAuthority(t, "fresh")
	was, err := os.ReadFile(w.authority.File)
	if err != nil {
		t.Fatal(err)
	}
	is, err := os.ReadFile(fresh.File)
	if err != nil {
		t.Fatal(err)
	}
	// First everybody knows both authorities, then come the certificates of the new one.
	kafkatest.Write(t, w.authority.File, append(was, is...))
	w.renew(t, "listener.name.mutual.ssl.truststore.location", w.authority.File)
	for service, env := range p.env {
		pair := fresh.Sign(t, kafkatest.Leaf{Name: principal(mutual, service)})
		kafkatest.Write(t, setting(env, "SPATE_TLS_KEY_FILE"), pair.Key)
		kafkatest.Write(t, setting(env, "SPATE_TLS_CERT_FILE"), pair.Cert)
	}
	w.certify(t, fresh)
	<-time.After(4 * time.Second) // connections that are there go on with what they began with
	w.Down()
	w.Up()
	if err := traffic.Wait(time.Minute); err != nil {
		t.Fatal(err)
	}
	p.exact(t, w)
	for _, s := range p.services {
		ready(t, s)
		if strings.Contains(string(s.Output()), "is unusable") {
			t.Errorf("%s: a pair that was replaced one file after the other was taken as it was:\n%s", s.Name, harness.Tail(s.Output(), 5))
		}
	}
	p.noSecrets(t, traffic)
	p.stop(t)
}

// setting returns a variable of an environment.
func setting(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// TestTokenServerAway takes the token server away while traffic flows. As long as the token works nobody notices; when it has expired the services
// say so, and they go on by themselves when there are tokens again. Nothing is lost.
func TestTokenServerAway(t *testing.T) {
	if testing.Short() {
		t.Skip("starts brokers and services; -short is set")
	}
	t.Parallel()
	w := newWorld(t)
	p := w.pipeline(t, oauth)
	const refused = "503 Service Unavailable" // in full: a time of the log may hold 503
	for _, s := range p.services {
		s.Start()
		ready(t, s)
	}
	w.tokens.away.Store(true)
	<-time.After(2 * reauthenticate) // they log in again with the token that they have, which works for an hour
	for _, s := range p.services {
		ready(t, s)
		if strings.Contains(string(s.Output()), refused) {
			t.Errorf("%s asks for a token, and the one that it has works:\n%s", s.Name, harness.Tail(s.Output(), 5))
		}
		if err := s.Stop(20 * time.Second); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	w.tokens.away.Store(false)
	w.tokens.setLife(20 * time.Second)
	for _, s := range p.services {
		s.Start()
		ready(t, s)
	}
	p.simulate(t, 5_000)
	w.tokens.away.Store(true)
	for _, s := range p.services {
		says(t, s, refused)
	}
	w.tokens.away.Store(false)
	for _, s := range p.services {
		ready(t, s)
	}
	p.simulate(t, 5_000)
	p.exact(t, w)
	p.noSecrets(t)
	p.stop(t)
}

// testDoctor: what is well is said to be so; what is wrong is named, with what to do, and the exit code is 1.
func testDoctor(t *testing.T, w *world) {
	p := w.pipeline(t, plain)
	p.start()
	for _, s := range p.services {
		ready(t, s)
	}
	p.simulate(t, 1_000)
	doctor := func(t *testing.T, env []string, args ...string) (string, error) {
		t.Helper()
		d := harness.Spate(t, "doctor", append(env, "SPATE_TOPIC="+p.names.Activity, "SPATE_DATABASE_URL="+p.db, "SPATE_INSTANCE="+p.names.Activity+"-1"), append([]string{"doctor"}, args...)...).Start()
		err := d.Wait(time.Minute)
		if strings.Contains(string(d.Output()), password) {
			t.Errorf("it shows the password: %s", d.Output())
		}
		return string(d.Output()), err
	}
	for _, s := range []string{kafka.Router, kafka.Detector, kafka.Alerter} {
		out, err := doctor(t, p.env[s], "--service", s)
		if err != nil {
			t.Errorf("as %s: %v\n%s", s, err, out)
		}
		rights := "ok       rights"
		if s == kafka.Router { // no broker says who may write with a transactional ID
			rights = "unknown  rights        route: cannot check this permission: Write on transactional-id " + p.names.Activity + "-1\n"
		}
		for _, want := range []string{"ok       tls", "ok       login", "ok       brokers", rights, "ok       topics", "ok       transactions", "ok       database", "its certificate is valid until", "no endpoints are configured"} {
			if !strings.Contains(out, want) {
				t.Errorf("as %s: it does not say %q:\n%s", s, want, out)
			}
		}
	}
	// As the alerter it may not do what the router does.
	out, err := doctor(t, p.env[kafka.Alerter], "--service", kafka.Router)
	if err == nil {
		t.Errorf("the exit code is 0:\n%s", out)
	}
	for _, r := range p.names.Rights(kafka.Router, p.names.Activity+"-1") {
		if has := r.Operation == "Describe" || r.Name == p.names.Alerts; !has && !strings.Contains(out, "lacks "+r.String()) {
			t.Errorf("it does not name %v:\n%s", r, out)
		}
	}
	user := []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_SASL_USERNAME=" + principal(plain, kafka.Router)}
	for name, test := range map[string]struct {
		env  []string
		want []string
	}{
		"wrong password":    {append(user, "SPATE_SASL_MECHANISM=PLAIN", "SPATE_SASL_PASSWORD=wrong"), []string{"failed   login", "SASL_AUTHENTICATION_FAILED"}},
		"unknown mechanism": {[]string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_SASL_MECHANISM=AWS_MSK_IAM", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b", "AWS_REGION=x"}, []string{"failed   login", "the broker supports", "SCRAM-SHA-512"}},
		"unknown authority": {[]string{"SPATE_BROKERS=" + w.login, "SPATE_TLS=true"}, []string{"failed   tls", "--tls-ca-file"}},
		"nobody there":      {[]string{"SPATE_BROKERS=127.0.0.1:1"}, []string{"failed   brokers", "nothing is listening at this address"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := doctor(t, test.env)
			if err == nil {
				t.Error("the exit code is 0")
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
		})
	}
	t.Run("settings", func(t *testing.T) {
		t.Parallel()
		out, err := doctor(t, append(p.env[kafka.Router], "SPATE_DATABASE_URL="+filepath.Join(t.TempDir(), "none.db")), "--json")
		if err == nil || !strings.Contains(out, `"check":"rights","level":"failed"`) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
