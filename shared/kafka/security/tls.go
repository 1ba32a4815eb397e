package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"spate/shared/watched"
)

// maxPEM is the size of a file of certificates: those of all public authorities have a quarter of it.
const maxPEM = 1 << 20

// material is what handshakes need, from files that may be replaced while the process runs.
type material struct {
	cfg TLS
	log *slog.Logger
	of  peer

	mu    sync.Mutex
	files *watched.Files
	roots *x509.CertPool   // nil is the system's
	cert  *tls.Certificate // nil is none
}

// peer is the kind of server that is connected to, and what the names of its settings begin with.
type peer struct{ name, prefix string }

var (
	brokers  = peer{name: "broker"}
	registry = peer{name: "schema registry", prefix: "schema-registry-"}
)

// flag is how people know a setting.
func (p peer) flag(name string) string { return p.prefix + name }

// set says how a setting is given: as a flag, or as a variable.
func (p peer) set(name string) string {
	return fmt.Sprintf("--%s (SPATE_%s)", p.flag(name), strings.ToUpper(strings.ReplaceAll(p.flag(name), "-", "_")))
}

func newMaterial(of peer, cfg TLS, log *slog.Logger) *material {
	return &material{of: of, cfg: cfg, log: log, files: watched.New(cfg.CAFile, cfg.CertFile, cfg.KeyFile)}
}

// load reads the files if they have changed. If they cannot be used, what was there stays.
func (m *material) load() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.files.Changed() {
		return nil
	}
	roots, err := readRoots(m.of, m.cfg.CAFile)
	cert, cerr := readPair(m.of, m.cfg.CertFile, m.cfg.KeyFile)
	if err := errors.Join(err, cerr); err != nil {
		m.files.Forget()
		return err
	}
	m.roots, m.cert = roots, cert
	return nil
}

// readRoots returns the authorities of a file.
func readRoots(of peer, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := watched.Read(file, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", of.flag("tls-ca-file"), err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s contains no PEM certificate%s", of.flag("tls-ca-file"), file, hint(text))
	}
	return pool, nil
}

// readPair returns the certificate of a client and its key.
func readPair(of peer, certFile, keyFile string) (*tls.Certificate, error) {
	if certFile == "" {
		return nil, nil
	}
	certText, err := watched.Read(certFile, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", of.flag("tls-cert-file"), err)
	}
	keyText, err := watched.Read(keyFile, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", of.flag("tls-key-file"), err)
	}
	if b, _ := pem.Decode(keyText); b != nil && (b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "") {
		return nil, fmt.Errorf("%s: %s is encrypted with a password; decrypt it with: openssl pkey -in %[2]s -out key.pem", of.flag("tls-key-file"), keyFile)
	}
	cert, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %s and %s do not match: %w%s", of.flag("tls-cert-file"), of.flag("tls-key-file"), certFile, keyFile, err, hint(certText))
	}
	return &cert, nil
}

// hint says what a file that is not PEM seems to be, and how it becomes one.
func hint(text []byte) string {
	switch {
	case len(text) > 4 && text[0] == 0xfe && text[1] == 0xed && text[2] == 0xfe && text[3] == 0xed:
		return "; it appears to be a Java keystore (JKS); convert it with: keytool -importkeystore -srckeystore FILE -destkeystore out.p12 -deststoretype PKCS12, then openssl pkcs12 -in out.p12 -nokeys -out ca.pem"
	case len(text) > 2 && text[0] == 0x30:
		return "; it appears to be DER or PKCS#12; convert it with: openssl x509 -inform DER -in FILE -out ca.pem, or openssl pkcs12 -in FILE -nokeys -out ca.pem"
	}
	return ""
}

// dial connects and shakes hands. It is called by clients for each new connection.
func (m *material) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := m.load(); err != nil {
		m.log.Error("a TLS file has changed but is unusable; continuing with its previous contents", "error", err)
	}
	m.mu.Lock()
	cfg := &tls.Config{RootCAs: m.roots, MinVersion: tls.VersionTLS12, ServerName: m.cfg.ServerName, InsecureSkipVerify: m.cfg.InsecureSkipVerify}
	cert := m.cert
	m.mu.Unlock()
	if cert != nil {
		// Not Certificates, which leaves one out silently that is of none of the authorities that the broker names.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	shake, cancel := context.WithTimeout(ctx, shakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(shake); err != nil {
		_ = raw.Close()
		err = m.explain(err, cfg.ServerName, cert)
		if errors.Is(err, io.EOF) {
			err = errors.New(err.Error()) // the client takes an end of file for something that it knows better
		}
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return &explained{Conn: conn, explain: func(err error) error { return m.explain(err, cfg.ServerName, cert) }}, nil
}

// explained adds what to do when a broker refuses the client's certificate. With TLS 1.3, that shows only at the first read.
type explained struct {
	net.Conn
	explain func(error) error
}

// Read implements net.Conn.
func (c *explained) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && strings.Contains(err.Error(), "remote error: tls:") {
		err = c.explain(err)
	}
	return n, err
}

// explain adds what to do to an error of a handshake.
func (m *material) explain(err error, name string, cert *tls.Certificate) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	peer, set := m.of.name, m.of.set
	plain := "disable TLS (SPATE_TLS, --tls)"
	if m.of != brokers {
		plain = "use an http URL"
	}
	switch {
	case errors.As(err, &unknown):
		if m.cfg.CAFile == "" {
			return fmt.Errorf("%w; the %s's certificate was issued by a CA that this system does not trust: set %s", err, peer, set("tls-ca-file"))
		}
		return fmt.Errorf("%w; the %s's certificate was not issued by any of the CAs in %s (%s)", err, peer, m.cfg.CAFile, m.of.flag("tls-ca-file"))
	case errors.As(err, &host):
		return fmt.Errorf("%w; connect to a host name in the certificate, or set the expected name with %s", err, set("tls-server-name"))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w; the %s needs a new certificate, or this machine's clock is wrong", err, peer)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no response to the TLS handshake within %v: does the %s use TLS on this port? Use the TLS port, or %s: %w", shakeTimeout, peer, plain, err)
	case errors.As(err, &record), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w; the %s does not use TLS on this port: use the TLS port, or %s", err, peer, plain)
	case strings.Contains(err.Error(), "remote error: tls:"):
		if cert == nil {
			return fmt.Errorf("%w; the %s requires a client certificate: set %s and %s", err, peer, set("tls-cert-file"), set("tls-key-file"))
		}
		if leaf := cert.Leaf; leaf != nil && time.Now().After(leaf.NotAfter) {
			return fmt.Errorf("%w; the client certificate in %s expired at %s", err, m.cfg.CertFile, leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		return fmt.Errorf("%w; the %s rejected the client certificate in %s (server name: %s)", err, peer, m.cfg.CertFile, name)
	}
	return err
}

// systemAnd returns the system's authorities and those of a file.
func systemAnd(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	text, err := watched.Read(file, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("tls-ca-file: %w", err)
	}
	pool.AppendCertsFromPEM(text) // that it has one is checked where brokers are
	return pool, nil
}
