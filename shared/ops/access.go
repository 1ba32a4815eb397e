package ops

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"spate/shared/watched"
)

// Access says who may ask a server, and how connections to it are encrypted. The zero value lets everybody ask, without encryption.
type Access struct {
	// CertFile and KeyFile are the server's certificate and its key, as PEM. They are read again when they change.
	CertFile, KeyFile string
	// Token, or TokenFile, which is read when it changes: what those who ask send as "Authorization: Bearer ...". /healthz needs none.
	Token, TokenFile string
}

// maxFile bounds what is read of a file.
const maxFile = 1 << 20

// minToken is how long a token must be.
const minToken = 16

// Validate reports every problem at once; it does no I/O.
func (a Access) Validate() error {
	var errs []error
	switch {
	case a.CertFile != "" && a.KeyFile == "":
		errs = append(errs, errors.New("http-tls-key-file: missing, but http-tls-cert-file is set; set SPATE_HTTP_TLS_KEY_FILE to the key of that certificate"))
	case a.KeyFile != "" && a.CertFile == "":
		errs = append(errs, errors.New("http-tls-cert-file: missing, but http-tls-key-file is set; set SPATE_HTTP_TLS_CERT_FILE to the certificate of that key"))
	}
	if a.Token != "" && a.TokenFile != "" {
		errs = append(errs, errors.New("http-token-file: SPATE_HTTP_TOKEN is also set; set only one of them"))
	}
	if a.Token != "" {
		errs = append(errs, CheckToken("SPATE_HTTP_TOKEN", a.Token))
	}
	return errors.Join(errs...)
}

// CheckToken returns what is wrong with a token; setting is where it comes from.
func CheckToken(setting, token string) error {
	if len(token) < minToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s: a token must have at least %d letters, digits or symbols, and no spaces; to generate one, run openssl rand -hex 32", setting, minToken)
	}
	return nil
}

// ReadToken returns the token, "" if there is none.
func (a Access) ReadToken() (string, error) {
	if a.TokenFile == "" {
		return a.Token, nil
	}
	b, err := watched.Read(a.TokenFile, maxFile)
	if err != nil {
		return "", fmt.Errorf("http-token-file: %w", err)
	}
	token := strings.TrimRight(string(b), "\r\n")
	return token, CheckToken("http-token-file: "+a.TokenFile, token)
}

// gate is Access at work.
type gate struct {
	cfg Access
	log *slog.Logger

	mu    sync.Mutex
	files *watched.Files
	cert  *tls.Certificate
	token [sha256.Size]byte // of the token
}

// load reads the files if they have changed. If they cannot be used, what was there stays.
func (g *gate) load() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if changed := g.files.Changed(); !changed && g.token != [sha256.Size]byte{} {
		return nil
	}
	token, err := g.cfg.ReadToken()
	if err != nil {
		g.files.Forget()
		return err
	}
	if g.cfg.CertFile != "" {
		cert, err := readPair(g.cfg.CertFile, g.cfg.KeyFile)
		if err != nil {
			g.files.Forget()
			return fmt.Errorf("http-tls-cert-file, http-tls-key-file: %w", err)
		}
		g.cert = &cert
	}
	g.token = sha256.Sum256([]byte(token))
	return nil
}

func readPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := watched.Read(certFile, maxFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := watched.Read(keyFile, maxFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// reload is load while the server runs.
func (g *gate) reload() {
	if err := g.load(); err != nil {
		g.log.Error("a TLS or token file of the HTTP server has changed but is unusable; continuing with its previous contents", "error", err)
	}
}

// Secure sets who may ask from now on. It reads the files once, so that a wrong one is an error at the start.
func (s *Server) Secure(a Access, log *slog.Logger) error {
	if err := a.Validate(); err != nil {
		return err
	}
	if a == (Access{}) {
		return nil
	}
	g := &gate{cfg: a, log: log, files: watched.New(a.CertFile, a.KeyFile, a.TokenFile)}
	if err := g.load(); err != nil {
		return err
	}
	s.gate = g
	return nil
}

// TLS returns what the handshakes of another server need; nil without a certificate.
func (a Access) TLS(log *slog.Logger) (*tls.Config, error) {
	if err := a.Validate(); err != nil || a.CertFile == "" {
		return nil, err
	}
	g := &gate{cfg: a, log: log, files: watched.New(a.CertFile, a.KeyFile, a.TokenFile)}
	if err := g.load(); err != nil {
		return nil, err
	}
	return g.config(), nil
}

// TLS reports whether the server speaks TLS.
func (s *Server) TLS() bool { return s.gate != nil && s.gate.cfg.CertFile != "" }

// URL is where the server is.
func (s *Server) URL() string {
	if s.TLS() {
		return "https://" + s.Addr()
	}
	return "http://" + s.Addr()
}

// guard lets those pass who have the token. Nothing but /healthz is open.
func (g *gate) guard(next http.Handler) http.Handler {
	if g.cfg.Token == "" && g.cfg.TokenFile == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		g.reload()
		g.mu.Lock()
		want := g.token
		g.mu.Unlock()
		token, ok := bearer(r.Header.Get("Authorization"))
		if key := r.Header.Get("X-Api-Key"); key != "" && !ok { // as CrowdSec's bouncers send it
			token, ok = key, true
		}
		if got := sha256.Sum256([]byte(token)); !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="spate"`)
			why := "a token is required: Authorization: Bearer ..., or X-Api-Key: ..., with the value of SPATE_HTTP_TOKEN"
			if ok {
				why = "the token is wrong: it does not match SPATE_HTTP_TOKEN or the content of the token file"
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]string{"message": why}) // an error here is the client's going away
			return
		}
		next.ServeHTTP(w, r)
	})
}

func bearer(header string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(header, " ")
	return token, ok && strings.EqualFold(scheme, "Bearer")
}

// config is what the server's handshakes need.
func (g *gate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		g.reload()
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.cert, nil
	}}
}

// Asker is how a command asks a server of another process.
type Asker struct {
	// CAFile are the authorities (PEM) that the server's certificate is checked against; the system's if empty.
	CAFile string
	// CertFile, if set, is the certificate itself (PEM), whatever name it is for: a process that asks its own server knows it.
	CertFile string
	Access   Access // its token
}

// Client returns a client that asks a server itself: it takes no proxy and follows no redirect.
func (a Asker) Client() (*http.Client, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CAFile != "" {
		text, err := watched.Read(a.CAFile, maxFile)
		if err != nil {
			return nil, fmt.Errorf("http-tls-ca-file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("http-tls-ca-file: %s contains no PEM certificate", a.CAFile)
		}
	}
	if a.CertFile != "" {
		ours, err := readLeaf(a.CertFile)
		if err != nil {
			return nil, fmt.Errorf("http-tls-cert-file: %w", err)
		}
		cfg.InsecureSkipVerify = true // it is compared below
		cfg.VerifyConnection = func(s tls.ConnectionState) error {
			if !s.PeerCertificates[0].Equal(ours) {
				return fmt.Errorf("the server's certificate is not the one in %s", a.CertFile)
			}
			return nil
		}
	}
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader, TLSClientConfig: cfg},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// Sign adds the token to a request. With authorities of its own, the asker asks nobody without TLS. Unencrypted, it goes to this machine only: elsewhere, others could read it.
func (a Asker) Sign(r *http.Request) error {
	if a.CAFile != "" && r.URL.Scheme != "https" {
		return fmt.Errorf("%s does not use TLS, but http-tls-ca-file is set, so its identity cannot be verified", r.URL.Host)
	}
	token, err := a.Access.ReadToken()
	if err != nil || token == "" {
		return err
	}
	if r.URL.Scheme != "https" {
		if ip := net.ParseIP(r.URL.Hostname()); r.URL.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("refusing to send the token to %s unencrypted; enable TLS for the service (SPATE_HTTP_TLS_CERT_FILE, SPATE_HTTP_TLS_KEY_FILE)", r.URL.Host)
		}
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return nil
}

func readLeaf(file string) (*x509.Certificate, error) {
	text, err := watched.Read(file, maxFile)
	if err != nil {
		return nil, err
	}
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == "CERTIFICATE" {
			return x509.ParseCertificate(b.Bytes)
		}
	}
	return nil, fmt.Errorf("%s contains no PEM certificate", file)
}
