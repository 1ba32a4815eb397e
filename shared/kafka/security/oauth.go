package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	msk "github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// extension is the form of RFC 7628 (3.1): a name of letters, and text in one line. The name auth is the token's.
var extension = regexp.MustCompile(`^([A-Za-z]+)=([ -~]*)$`)

// validate returns every problem.
func (o OAuth) validate() []error {
	var errs []error
	problem := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	client := o.ClientID != "" || o.ClientSecret != "" || o.ClientSecretFile != "" || len(o.Scopes) > 0
	switch {
	case o.TokenFile != "" && (o.TokenURL != "" || client):
		problem("sasl-oauth-token-file: cannot be combined with the settings for a token server (sasl-oauth-token-url, sasl-oauth-client-id and others); use one or the other")
	case o.TokenFile != "":
	case o.TokenURL == "":
		problem("sasl-oauth-token-url: missing; OAUTHBEARER needs a token server (SPATE_SASL_OAUTH_TOKEN_URL) or a token file (SPATE_SASL_OAUTH_TOKEN_FILE)")
	default:
		// The address may hold a password by mistake, so it is not shown.
		if u, err := url.Parse(o.TokenURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			problem("sasl-oauth-token-url: not of the form https://host/path (not shown, as it may hold a secret)")
		}
		if o.ClientID == "" {
			problem("sasl-oauth-client-id: missing; the token server requires it (SPATE_SASL_OAUTH_CLIENT_ID)")
		}
		if o.ClientSecret == "" && o.ClientSecretFile == "" {
			problem("sasl-oauth-client-secret-file: missing; give the client secret in a file, or in SPATE_SASL_OAUTH_CLIENT_SECRET")
		}
	}
	for _, e := range o.Extensions {
		if m := extension.FindStringSubmatch(e); m == nil || strings.EqualFold(m[1], "auth") {
			problem("sasl-oauth-extensions: %.80q is not valid; use name=value, such as logicalCluster=lkc-1, with a name that consists of letters and is not auth", e)
		}
	}
	return errs
}

// bearerToken is the form of a token (RFC 6750, 2.1).
var bearerToken = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

const (
	tokenTimeout = 10 * time.Second
	// retryTokens is how long a token that still works is kept after its renewal has failed, before the next try.
	retryTokens = 10 * time.Second
)

// tokens are those of OAUTHBEARER, for all connections of a process.
type tokens struct {
	cfg        OAuth
	file       secret
	secret     secret
	extensions map[string]string
	client     *http.Client
	log        *slog.Logger
	now        func() time.Time

	mu     sync.Mutex
	token  *oauth2.Token
	renew  time.Time     // when to ask for the next one
	asking chan struct{} // closed when the request that is under way has ended; nil if there is none
	failed error         // the last request
}

func newTokens(cfg OAuth, caFile string, log *slog.Logger) (*tokens, error) {
	t := &tokens{
		cfg: cfg, log: log, now: time.Now, extensions: make(map[string]string),
		file:   secret{setting: "sasl-oauth-token-file", file: cfg.TokenFile},
		secret: secret{setting: "sasl-oauth-client-secret-file", text: cfg.ClientSecret, file: cfg.ClientSecretFile},
	}
	for _, e := range cfg.Extensions {
		name, value, _ := strings.Cut(e, "=")
		t.extensions[name] = value
	}
	if cfg.TokenFile != "" {
		return t, t.file.check()
	}
	if u, err := url.Parse(cfg.TokenURL); err == nil && u.Scheme == "http" && !here(u.Hostname()) {
		log.Warn("the client secret is sent to the token server unencrypted; use an https URL (sasl-oauth-token-url)")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		// Whoever has authorities of their own for brokers has them for the token server as well; they are read again at each handshake.
		transport.TLSClientConfig.InsecureSkipVerify = true // it is verified below
		transport.TLSClientConfig.VerifyConnection = func(state tls.ConnectionState) error {
			roots, err := systemAnd(caFile)
			if err != nil {
				return err
			}
			others := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				others.AddCert(c)
			}
			_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: state.ServerName})
			return err
		}
	}
	t.client = &http.Client{
		Timeout: tokenTimeout, Transport: transport,
		// A redirect would carry the secret elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return t, t.secret.check()
}

// here reports whether a host is this machine.
func here(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// auth returns the token for a login. One that still works is kept when a new one cannot be had.
func (t *tokens) auth(ctx context.Context) (oauth.Auth, error) {
	if t.cfg.TokenFile != "" {
		text, err := t.file.read()
		token := strings.TrimSpace(text)
		if err == nil && !bearerToken.MatchString(token) {
			err = fmt.Errorf("sasl-oauth-token-file: %s does not contain a valid token (RFC 6750)", t.cfg.TokenFile)
		}
		return oauth.Auth{Token: token, Extensions: t.extensions}, err
	}
	for {
		t.mu.Lock()
		now := t.now()
		works := t.token != nil && (t.token.Expiry.IsZero() || now.Before(t.token.Expiry))
		due := !works || !now.Before(t.renew)
		if due && t.asking == nil {
			t.asking = make(chan struct{})
			go t.ask()
		}
		token, asking := t.token, t.asking
		t.mu.Unlock()
		if works && (!due || !token.Expiry.IsZero()) {
			return oauth.Auth{Token: token.AccessToken, Extensions: t.extensions}, nil // whoever logs in does not wait for a renewal
		}
		select {
		case <-ctx.Done():
			return oauth.Auth{}, ctx.Err()
		case <-asking:
		}
		t.mu.Lock()
		token, failed := t.token, t.failed
		t.mu.Unlock()
		switch {
		case failed == nil, token != nil && token.Expiry.IsZero():
			return oauth.Auth{Token: token.AccessToken, Extensions: t.extensions}, nil
		case token == nil || !t.now().Before(token.Expiry):
			return oauth.Auth{}, failed
		}
	}
}

// ask gets the next token, for all who wait for it.
func (t *tokens) ask() {
	fresh, err := t.fetch(context.Background())
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	switch {
	case err == nil:
		if t.failed != nil {
			t.log.Info("the token server is issuing tokens again")
		}
		t.token, t.renew = fresh, now // one without a lifetime is asked for at each login
		if !fresh.Expiry.IsZero() {
			t.renew = now.Add(fresh.Expiry.Sub(now) * 4 / 5)
		}
	case t.token != nil && (t.token.Expiry.IsZero() || now.Before(t.token.Expiry)):
		t.renew = now.Add(retryTokens)
		t.log.Warn("cannot get a new token; continuing with the current one", "valid_until", t.token.Expiry, "error", err)
	}
	t.failed = err
	close(t.asking)
	t.asking = nil
}

// fetch asks the token server. Its errors hold nothing of what was sent.
func (t *tokens) fetch(ctx context.Context) (*oauth2.Token, error) {
	pass, err := t.secret.read()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, t.client), tokenTimeout)
	defer cancel()
	cfg := clientcredentials.Config{ClientID: t.cfg.ClientID, ClientSecret: pass, TokenURL: t.cfg.TokenURL, Scopes: t.cfg.Scopes}
	token, err := cfg.Token(ctx)
	var refused *oauth2.RetrieveError
	var failed *url.Error
	host := ""
	if u, err := url.Parse(t.cfg.TokenURL); err == nil { // it was checked
		host = u.Host
	}
	switch {
	case errors.As(err, &refused):
		// The answer's body is not shown: some servers send back what they were sent.
		return nil, fmt.Errorf("sasl-oauth-token-url: %s refused to issue a token: %s %.80s; check sasl-oauth-client-id, sasl-oauth-client-secret-file and sasl-oauth-scopes", host, refused.Response.Status, refused.ErrorCode)
	case errors.As(err, &failed):
		return nil, fmt.Errorf("sasl-oauth-token-url: %s is not responding: %w", host, failed.Err) // without the URL, which may hold a secret in its query
	case err != nil:
		return nil, fmt.Errorf("sasl-oauth-token-url: the response from %s is not a token: %w", host, err)
	case !bearerToken.MatchString(token.AccessToken):
		return nil, fmt.Errorf("sasl-oauth-token-url: the token from %s contains invalid characters (RFC 6750)", host)
	}
	return token, nil
}

// iam are the credentials of AWS_MSK_IAM: those of the SDK's own chain, looked for at the first login.
type iam struct {
	mu  sync.Mutex
	cfg *aws.Config
}

func (i *iam) auth(ctx context.Context) (msk.Auth, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cfg == nil {
		cfg, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return msk.Auth{}, fmt.Errorf("load AWS configuration for AWS_MSK_IAM: %w", err)
		}
		i.cfg = &cfg
	}
	c, err := i.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return msk.Auth{}, fmt.Errorf("credentials for AWS_MSK_IAM: %w", err)
	}
	return msk.Auth{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey, SessionToken: c.SessionToken, UserAgent: "spate"}, nil
}
