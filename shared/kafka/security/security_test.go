package security

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka/kafkatest"
)

func TestValidate(t *testing.T) {
	login := SASL{Mechanism: "scram-sha-256", Username: "u", Password: "p"}
	for name, test := range map[string]struct {
		cfg  Config
		want string // part of the error; none if empty
	}{
		"nothing":                {Config{}, ""},
		"any case":               {Config{SASL: login}, ""},
		"unknown mechanism":      {Config{SASL: SASL{Mechanism: "GSSAPI"}}, `sasl-mechanism: "GSSAPI" is not one of PLAIN, SCRAM-SHA-256`},
		"no mechanism":           {Config{SASL: SASL{Username: "u", Password: "p"}}, "sasl-mechanism: missing"},
		"no user":                {Config{SASL: SASL{Mechanism: Plain, Password: "p"}}, "sasl-username: missing"},
		"no password":            {Config{SASL: SASL{Mechanism: Plain, Username: "u"}}, "sasl-password-file: missing"},
		"two passwords":          {Config{SASL: SASL{Mechanism: Plain, Username: "u", Password: "p", PasswordFile: "f"}}, "only one of them"},
		"certificate, no key":    {Config{TLS: TLS{CertFile: "c"}}, "tls-key-file: missing"},
		"key, no certificate":    {Config{TLS: TLS{KeyFile: "k"}}, "tls-cert-file: missing"},
		"tokens of another":      {Config{SASL: SASL{Mechanism: Plain, Username: "u", Password: "p", OAuth: OAuth{TokenFile: "t"}}}, "sasl-oauth: these settings are for OAUTHBEARER"},
		"no token":               {Config{SASL: SASL{Mechanism: OAuthBearer}}, "sasl-oauth-token-url: missing"},
		"token file":             {Config{SASL: SASL{Mechanism: OAuthBearer, OAuth: OAuth{TokenFile: "t"}}}, ""},
		"two sources of tokens":  {Config{SASL: SASL{Mechanism: OAuthBearer, OAuth: OAuth{TokenFile: "t", TokenURL: "https://a/b"}}}, "sasl-oauth-token-file: cannot be combined with"},
		"no client":              {Config{SASL: SASL{Mechanism: OAuthBearer, OAuth: OAuth{TokenURL: "https://a/b"}}}, "sasl-oauth-client-id: missing"},
		"a password in the URL":  {Config{SASL: SASL{Mechanism: OAuthBearer, OAuth: OAuth{TokenURL: "https://u:geheim@a/b", ClientID: "c", ClientSecret: "s"}}}, "sasl-oauth-token-url"},
		"extension":              {Config{SASL: SASL{Mechanism: OAuthBearer, OAuth: OAuth{TokenFile: "t", Extensions: []string{"logicalCluster"}}}}, "sasl-oauth-extensions"},
		"login of AWS":           {Config{SASL: SASL{Mechanism: AWSMSKIAM, Username: "u"}}, "AWS_MSK_IAM takes its credentials"},
		"a name for certificate": {Config{TLS: TLS{ServerName: "x"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.cfg.Validate()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "geheim") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
}

// logs collects what is logged.
type logs struct{ bytes.Buffer }

func (l *logs) log() *slog.Logger { return slog.New(slog.NewTextHandler(&l.Buffer, nil)) }

// ask connects to a broker as c says and asks it for a topic.
func ask(t *testing.T, c Config, address string) error {
	t.Helper()
	s, err := New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return askWith(t, s, address)
}

func askWith(t *testing.T, s *Client, address string) error {
	t.Helper()
	cl, err := kgo.NewClient(append(s.Options(), kgo.SeedBrokers(address), kgo.RequestRetries(0))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return cl.Ping(ctx)
}

// broker is one that speaks TLS with certificates that can be changed, and wants a login.
func broker(t *testing.T, server *tls.Config, opts ...kfake.Opt) string {
	t.Helper()
	if server != nil {
		opts = append(opts, kfake.TLS(server))
	}
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.SeedTopics(1, "activity"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

func TestLogins(t *testing.T) {
	authority := kafkatest.NewAuthority(t, "authority")
	server := authority.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"127.0.0.1"}}).TLS(t)
	address := broker(t, &tls.Config{Certificates: []tls.Certificate{server}}, kfake.EnableSASL(),
		kfake.Superuser(Plain, "plain", "p1"), kfake.Superuser(ScramSHA256, "scram", "p2"), kfake.Superuser(ScramSHA512, "strong", "p3"))
	for _, login := range []SASL{
		{Mechanism: "plain", Username: "plain", Password: "p1"},
		{Mechanism: ScramSHA256, Username: "scram", Password: "p2"},
		{Mechanism: ScramSHA512, Username: "strong", Password: "p3"},
	} {
		t.Run(login.Mechanism, func(t *testing.T) {
			if err := ask(t, Config{TLS: TLS{CAFile: authority.File}, SASL: login}, address); err != nil {
				t.Error(err)
			}
			login.Password = "geheim"
			err := ask(t, Config{TLS: TLS{CAFile: authority.File}, SASL: login}, address)
			if err == nil {
				t.Fatal("a wrong password is accepted")
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("a password is shown: %v", err)
			}
		})
	}
}

// A password in a file is read at each login, without the line's end.
func TestPasswordFile(t *testing.T) {
	address := broker(t, nil, kfake.EnableSASL(), kfake.Superuser(ScramSHA256, "u", "new"))
	file := filepath.Join(t.TempDir(), "password")
	kafkatest.Write(t, file, []byte("old\n"))
	s, err := New(Config{SASL: SASL{Mechanism: ScramSHA256, Username: "u", PasswordFile: file}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := askWith(t, s, address); err == nil {
		t.Fatal("the old password is accepted")
	}
	kafkatest.Write(t, file, []byte("new\r\n"))
	if err := askWith(t, s, address); err != nil {
		t.Error(err)
	}
	for name, text := range map[string][]byte{"empty": {'\n'}, "large": make([]byte, 1<<20)} {
		kafkatest.Write(t, file, text)
		if _, err := New(Config{SASL: SASL{Mechanism: ScramSHA256, Username: "u", PasswordFile: file}}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "sasl-password-file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlainWithoutTLSIsTold(t *testing.T) {
	var l logs
	if _, err := New(Config{SASL: SASL{Mechanism: Plain, Username: "u", Password: "geheim"}}, l.log()); err != nil {
		t.Fatal(err)
	}
	if text := l.String(); !strings.Contains(text, "unencrypted") || strings.Contains(text, "geheim") {
		t.Error(text)
	}
}

// What goes wrong in a handshake says what to do about it.
func TestHandshakes(t *testing.T) {
	ours, others := kafkatest.NewAuthority(t, "ours"), kafkatest.NewAuthority(t, "others")
	here := []string{"127.0.0.1"}
	good := ours.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: here})
	client := ours.Sign(t, kafkatest.Leaf{Name: "client"})
	expired := ours.Sign(t, kafkatest.Leaf{Name: "client", Before: time.Now().Add(-2 * time.Hour), After: time.Now().Add(-time.Hour)})
	strange := others.Sign(t, kafkatest.Leaf{Name: "client"})
	mutual := func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ours.Pool() }
	with := func(p kafkatest.Pair) TLS {
		cert, key := p.Files(t)
		return TLS{CAFile: ours.File, CertFile: cert, KeyFile: key}
	}
	for name, test := range map[string]struct {
		server func(*tls.Config)
		pair   kafkatest.Pair
		client TLS
		want   string
	}{
		"good":                {nil, good, TLS{CAFile: ours.File}, ""},
		"unknown authority":   {nil, good, TLS{Enabled: true}, "--tls-ca-file"},
		"another authority":   {nil, good, TLS{CAFile: others.File}, "not issued by any of the CAs in"},
		"not checked":         {nil, good, TLS{InsecureSkipVerify: true}, ""},
		"expired":             {nil, ours.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: here, Before: time.Now().Add(-2 * time.Hour), After: time.Now().Add(-time.Hour)}), TLS{CAFile: ours.File}, "needs a new certificate"},
		"another name":        {nil, ours.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"kafka.example"}}), TLS{CAFile: ours.File}, "--tls-server-name"},
		"the name that it is": {nil, ours.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"kafka.example"}}), TLS{CAFile: ours.File, ServerName: "kafka.example"}, ""},
		"mutual":              {mutual, good, with(client), ""},
		"mutual, old TLS":     {func(c *tls.Config) { mutual(c); c.MaxVersion = tls.VersionTLS12 }, good, with(client), ""},
		"no client":           {mutual, good, TLS{CAFile: ours.File}, "--tls-cert-file"},
		"no client, old TLS":  {func(c *tls.Config) { mutual(c); c.MaxVersion = tls.VersionTLS12 }, good, TLS{CAFile: ours.File}, "--tls-cert-file"},
		"expired client":      {mutual, good, with(expired), "expired at"},
		"strange client":      {mutual, good, with(strange), "rejected the client certificate in"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := &tls.Config{Certificates: []tls.Certificate{test.pair.TLS(t)}}
			if test.server != nil {
				test.server(cfg)
			}
			err := ask(t, Config{TLS: test.client}, broker(t, cfg))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	// Apache Kafka takes what a handshake begins with for the length of a request, and closes the connection.
	t.Run("a broker without TLS", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 5))
				_ = c.Close()
			}
		}()
		if err := ask(t, Config{TLS: TLS{Enabled: true}}, l.Addr().String()); err == nil || !strings.Contains(err.Error(), "use TLS on this port") {
			t.Error(err)
		}
	})
}

// Certificates are replaced while the process runs. Files that are not a pair change nothing, are told, and count when they are mended.
func TestCertificatesAreReplaced(t *testing.T) {
	old, fresh := kafkatest.NewAuthority(t, "old"), kafkatest.NewAuthority(t, "fresh")
	var names []string
	cfg := &tls.Config{ClientAuth: tls.RequireAnyClientCert, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
		c, err := x509.ParseCertificate(raw[0])
		if err == nil {
			names = append(names, c.Subject.CommonName)
		}
		return err
	}}
	current := old.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"127.0.0.1"}}).TLS(t)
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &current, nil }
	address := broker(t, cfg)

	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	place := func(path string, text []byte) { kafkatest.Write(t, path, text) }
	oldCA, err := os.ReadFile(old.File)
	if err != nil {
		t.Fatal(err)
	}
	freshCA, err := os.ReadFile(fresh.File)
	if err != nil {
		t.Fatal(err)
	}
	first, second := old.Sign(t, kafkatest.Leaf{Name: "first"}), fresh.Sign(t, kafkatest.Leaf{Name: "second"})
	place(ca, oldCA)
	place(cert, first.Cert)
	place(key, first.Key)
	var l logs
	s, err := New(Config{TLS: TLS{CAFile: ca, CertFile: cert, KeyFile: key}}, l.log())
	if err != nil {
		t.Fatal(err)
	}
	last := func() string {
		t.Helper()
		if err := askWith(t, s, address); err != nil {
			t.Fatal(err)
		}
		return names[len(names)-1]
	}
	if got := last(); got != "first" {
		t.Error(got)
	}
	place(ca, append(oldCA, freshCA...))
	place(cert, second.Cert) // and the key not yet
	if got := last(); got != "first" {
		t.Errorf("%s is used, whose key is not there", got)
	}
	if text := l.String(); !strings.Contains(text, "do not match") {
		t.Errorf("it is not told: %s", text)
	}
	place(key, second.Key)
	if got := last(); got != "second" {
		t.Error(got)
	}
	current = fresh.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"127.0.0.1"}}).TLS(t)
	if got := last(); got != "second" {
		t.Error(got)
	}
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	if got := last(); got != "second" {
		t.Error(got)
	}
}

// A file that cannot be used is an error at the start that says what it is.
func TestFilesOfTLS(t *testing.T) {
	authority := kafkatest.NewAuthority(t, "authority")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		kafkatest.Write(t, path, []byte(text))
		return path
	}
	cert, key := authority.Sign(t, kafkatest.Leaf{Name: "client"}).Files(t)
	for name, test := range map[string]struct {
		cfg  TLS
		want string
	}{
		"missing":       {TLS{CAFile: filepath.Join(dir, "none")}, "tls-ca-file: stat"},
		"no PEM":        {TLS{CAFile: write("text", "hello")}, "contains no PEM certificate"},
		"keystore":      {TLS{CAFile: write("jks", "\xfe\xed\xfe\xed\x00\x00")}, "Java keystore"},
		"DER":           {TLS{CAFile: write("der", "\x30\x82\x01\x01")}, "openssl"},
		"encrypted key": {TLS{CertFile: cert, KeyFile: write("enc", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")}, "openssl pkey"},
		"swapped":       {TLS{CertFile: key, KeyFile: cert}, "do not match"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(Config{TLS: test.cfg}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// A broker that accepts connections and never shakes hands holds nobody for longer than the timeout of dialing.
func TestSilentBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Read(make([]byte, 1))
			cancel() // in the handshake
			<-t.Context().Done()
			_ = c.Close()
		}
	}()
	m := newMaterial(brokers, TLS{Enabled: true}, slog.New(slog.DiscardHandler))
	if _, err := m.dial(ctx, "tcp", l.Addr().String()); err == nil || !strings.Contains(err.Error(), "TLS with") {
		t.Error(err)
	}
}
