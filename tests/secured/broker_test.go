// Package secured tests spate on brokers with TLS, logins and an authorizer.
package secured

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"spate/shared/kafka"
	"spate/shared/kafka/kafkatest"
	"spate/shared/testport"
	"spate/tests/harness"
)

// world is a real Kafka with an authorizer: one listener with TLS and a login, one with client certificates, and one for the test, which may
// do everything.
type world struct {
	harness.Broker // its address is the test's
	login, mutual  string
	authority      *kafkatest.Authority
	tokens         *tokenServer
	adm            *kadm.Client
	keystore       string // of the broker: key and certificate
}

// reauthenticate is how often a client has to log in again with its token, on the connection that it has.
const reauthenticate = 5 * time.Second

// password is that of every user.
const password = "pass word='1"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{login: testport.Reserve(t), mutual: testport.Reserve(t), authority: kafkatest.NewAuthority(t, "authority"), tokens: newTokenServer(t)}
	w.keystore = filepath.Join(t.TempDir(), "broker.pem")
	w.certify(t, w.authority)
	jaas := `org.apache.kafka.common.security.`
	w.Broker = harness.KafkaWith(t, []string{"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + w.tokens.URL + "/keys"}, func(addr, controller string) []string {
		return []string{
			"listeners=TEST://" + addr + ",LOGIN://" + w.login + ",MUTUAL://" + w.mutual + ",CONTROLLER://" + controller,
			"advertised.listeners=TEST://" + addr + ",LOGIN://" + w.login + ",MUTUAL://" + w.mutual,
			"listener.security.protocol.map=TEST:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT",
			"inter.broker.listener.name=TEST",
			"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users=User:ANONYMOUS",
			"ssl.keystore.type=PEM", "ssl.keystore.location=" + w.keystore,
			"ssl.truststore.type=PEM", "ssl.truststore.location=" + w.authority.File,
			"listener.name.mutual.ssl.client.auth=required",
			"listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
			"listener.name.login.plain.sasl.jaas.config=" + jaas + "plain.PlainLoginModule required" + plainUsers() + ";",
			"listener.name.login.scram-sha-256.sasl.jaas.config=" + jaas + "scram.ScramLoginModule required;",
			"listener.name.login.scram-sha-512.sasl.jaas.config=" + jaas + "scram.ScramLoginModule required;",
			"listener.name.login.oauthbearer.sasl.jaas.config=" + jaas + "oauthbearer.OAuthBearerLoginModule required;",
			"listener.name.login.oauthbearer.sasl.server.callback.handler.class=" + jaas + "oauthbearer.OAuthBearerValidatorCallbackHandler",
			"listener.name.login.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=" + w.tokens.URL + "/keys",
			"listener.name.login.oauthbearer.sasl.oauthbearer.expected.audience=kafka",
			"listener.name.login.oauthbearer.connections.max.reauth.ms=" + strconv.Itoa(int(reauthenticate.Milliseconds())),
		}
	})
	w.Up()
	w.adm = kadm.NewClient(harness.Connect(t, w.Addr))
	return w
}

// plainUsers are those who can log in with PLAIN: the broker's configuration has to name them.
func plainUsers() string {
	var b strings.Builder
	for _, s := range kafka.Services {
		fmt.Fprintf(&b, ` user_%s="%s"`, principal("PLAIN", s), password)
	}
	return b.String()
}

// principal is the name of a service that logs in with a mechanism.
func principal(mechanism, service string) string {
	return strings.ReplaceAll(strings.ToLower(mechanism+"-"+service), " ", "-")
}

// certify gives the broker a certificate. One that runs takes it when it is told to ([world.renew]).
func (w *world) certify(t *testing.T, by *kafkatest.Authority) {
	t.Helper()
	p := by.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"127.0.0.1"}, After: time.Now().Add(60 * 24 * time.Hour)})
	kafkatest.Write(t, w.keystore, append(p.Key, p.Cert...))
}

// renew makes the broker read its certificates again: those for logins, or those for clients with certificates.
func (w *world) renew(t *testing.T, setting, file string) {
	t.Helper()
	res, err := w.adm.AlterBrokerConfigs(w.ctx(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: setting, Value: &file}}, 1)
	if err == nil {
		err = res[0].Err
	}
	if err != nil {
		t.Fatalf("%s: %v", setting, err)
	}
}

func (w *world) ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// user makes one that can log in with SCRAM.
func (w *world) user(t *testing.T, name string, mechanism kadm.ScramMechanism, pass string) {
	t.Helper()
	res, err := w.adm.AlterUserSCRAMs(w.ctx(t), nil, []kadm.UpsertSCRAM{{User: name, Mechanism: mechanism, Iterations: 4096, Password: pass}})
	if err == nil {
		err = res.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	// The broker knows it a moment later.
	mech := scram.Auth{User: name, Pass: pass}.AsSha256Mechanism()
	if mechanism == kadm.ScramSha512 {
		mech = scram.Auth{User: name, Pass: pass}.AsSha512Mechanism()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.login), kgo.SASL(mech), kgo.DialTLSConfig(&tls.Config{RootCAs: w.authority.Pool()}), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	harness.Eventually(t, 20*time.Second, name+" can log in", func() bool { return cl.Ping(w.ctx(t)) == nil })
}

// allow gives a principal rights.
func (w *world) allow(t *testing.T, principal string, rights ...kafka.Right) {
	t.Helper()
	for _, r := range rights {
		res, err := w.adm.CreateACLs(w.ctx(t), acl(t, r).Allow("User:"+principal).AllowHosts())
		if err == nil {
			err = res[0].Err
		}
		if err != nil {
			t.Fatalf("%v: %v", r, err)
		}
	}
}

// acl is a right in the broker's words.
func acl(t *testing.T, r kafka.Right) *kadm.ACLBuilder {
	t.Helper()
	b := kadm.NewACLs()
	switch r.Resource {
	case "topic":
		b.Topics(r.Name)
	case "group":
		b.Groups(r.Name)
	case "transactional-id":
		b.TransactionalIDs(r.Name)
	default:
		t.Fatalf("%v: resource %q", r, r.Resource)
	}
	op, err := kmsg.ParseACLOperation(r.Operation)
	if err != nil {
		t.Fatal(err)
	}
	b.Operations(op)
	if r.Prefix {
		b.ResourcePatternType(kadm.ACLPatternPrefixed)
	} else {
		b.ResourcePatternType(kadm.ACLPatternLiteral)
	}
	return b
}

// makeTopics makes those of a pipeline, as an administrator does.
func (w *world) makeTopics(t *testing.T, names kafka.Names) {
	t.Helper()
	if _, err := (kafka.Layout{Names: names, Partitions: 2}).Ensure(w.ctx(t), w.adm); err != nil {
		t.Fatal(err)
	}
}

// tokenServer gives signed tokens to clients whose secret is the password, and the key that they can be checked with.
type tokenServer struct {
	*httptest.Server
	key   *rsa.PrivateKey
	given atomic.Int64
	away  atomic.Bool

	mu       sync.Mutex
	lifetime time.Duration
}

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &tokenServer{key: key, lifetime: time.Hour}
	mux := http.NewServeMux()
	b64 := base64.RawURLEncoding
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
			"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": b64.EncodeToString(key.N.Bytes()), "e": b64.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		id, pass, ok := r.BasicAuth()
		if s.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if !ok || pass != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid_client"}`))
			return
		}
		s.given.Add(1)
		life := s.life()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": s.sign(id, life), "token_type": "bearer", "expires_in": int(life.Seconds())})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) life() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lifetime
}

func (s *tokenServer) setLife(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifetime = d
}

func (s *tokenServer) sign(subject string, life time.Duration) string {
	b64 := base64.RawURLEncoding
	now := time.Now()
	head := b64.EncodeToString([]byte(`{"alg":"RS256","kid":"1","typ":"JWT"}`))
	body, _ := json.Marshal(map[string]any{"sub": subject, "aud": "kafka", "iss": "test", "scope": "kafka", "iat": now.Unix(), "exp": now.Add(life).Unix()}) // of strings and numbers
	text := head + "." + b64.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	sig, _ := rsa.SignPKCS1v15(nil, s.key, crypto.SHA256, sum[:]) // the key is large enough
	return text + "." + b64.EncodeToString(sig)
}

// write puts a text into a file of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// produce writes events.
func produce(t *testing.T, cl *kgo.Client, topic string, partition int32, values ...string) {
	t.Helper()
	for _, v := range values {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// event is one of a user at a second of a day.
func event(user, second int) string {
	return fmt.Sprintf(`{"user_id":%d,"txn_timestamp":"2026-01-01T00:%02d:%02dZ"}`, user, second/60, second%60)
}
