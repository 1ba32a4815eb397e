package security

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"spate/shared/kafka/kafkatest"
)

// tokenServer gives numbered tokens to a client.
type tokenServer struct {
	*httptest.Server
	given    atomic.Int64
	away     atomic.Bool
	lifetime atomic.Int64 // seconds
	scopes   atomic.Value
}

func newTokenServer(t *testing.T) *tokenServer {
	s := &tokenServer{}
	s.lifetime.Store(3600)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, pass, ok := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case s.away.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case !ok || id != "client" || pass != "geheim":
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"wrong secret %s"}`, pass)
		case r.FormValue("grant_type") != "client_credentials":
			w.WriteHeader(http.StatusBadRequest)
		default:
			s.scopes.Store(r.FormValue("scope"))
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprint("token-", s.given.Add(1)), "token_type": "bearer", "expires_in": s.lifetime.Load()})
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// Tokens are asked for once, renewed before they expire, and kept as long as they work when the server is away.
func TestTokens(t *testing.T) {
	server := newTokenServer(t)
	var l logs
	tokens, err := newTokens(OAuth{TokenURL: server.URL, ClientID: "client", ClientSecret: "geheim", Scopes: []string{"a", "b"}, Extensions: []string{"logicalCluster=lkc-1"}}, "", l.log())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	now := began
	tokens.now = func() time.Time { return now }
	want := func(token string) {
		t.Helper()
		a, err := tokens.auth(t.Context())
		if err != nil || a.Token != token || a.Extensions["logicalCluster"] != "lkc-1" {
			t.Errorf("%+v, %v, want %s", a, err, token)
		}
	}
	want("token-1")
	want("token-1")
	if got := server.scopes.Load(); got != "a b" {
		t.Errorf("scopes %q", got)
	}
	now = began.Add(47 * time.Minute)
	want("token-1")
	now = began.Add(49 * time.Minute)
	server.lifetime.Store(110 * 60) // from began on, which is the server's clock
	want("token-1")                 // nobody waits for a renewal
	settled(tokens)
	want("token-2")
	server.away.Store(true)
	now = began.Add(99 * time.Minute)
	want("token-2") // its renewal fails, and it works for another 11 minutes
	settled(tokens)
	if text := l.String(); !strings.Contains(text, "continuing with the current one") || !strings.Contains(text, "503") {
		t.Error(text)
	}
	server.away.Store(false)
	want("token-2") // not asked for again at once
	now = now.Add(retryTokens)
	want("token-2")
	settled(tokens)
	want("token-3")
	if !strings.Contains(l.String(), "is issuing tokens again") {
		t.Error(l.String())
	}
	// A renewal that has just failed is not a reason to wait with a token that has expired meanwhile.
	server.away.Store(true)
	tokens.mu.Lock()
	now = tokens.token.Expiry.Add(-time.Second)
	tokens.mu.Unlock()
	want("token-3")
	settled(tokens)
	now = now.Add(2 * time.Second)
	if _, err := tokens.auth(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("an expired token is used: %v", err)
	}
	now = now.Add(2 * time.Hour)
	if _, err := tokens.auth(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("an expired token is used: %v", err)
	}
	server.Close()
	if _, err := tokens.auth(t.Context()); err == nil || !strings.Contains(err.Error(), "is not responding") {
		t.Error(err)
	}
	if strings.Contains(l.String(), "geheim") {
		t.Errorf("a secret is in the log: %s", l.String())
	}
}

// A server that refuses may send back what it was sent; nothing of that is shown.
func TestTokenRefused(t *testing.T) {
	server := newTokenServer(t)
	tokens, err := newTokens(OAuth{TokenURL: server.URL, ClientID: "client", ClientSecret: "falsch"}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, err = tokens.auth(t.Context())
	if err == nil || !strings.Contains(err.Error(), "invalid_client") || strings.Contains(err.Error(), "falsch") {
		t.Error(err)
	}
}

// A token without a lifetime is asked for at each login.
func TestTokenWithoutLifetime(t *testing.T) {
	server := newTokenServer(t)
	server.lifetime.Store(0)
	tokens, err := newTokens(OAuth{TokenURL: server.URL, ClientID: "client", ClientSecret: "geheim"}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if a, err := tokens.auth(t.Context()); err != nil || a.Token != fmt.Sprint("token-", i+1) {
			t.Errorf("%q, %v", a.Token, err)
		}
	}
	server.away.Store(true)
	if a, err := tokens.auth(t.Context()); err != nil || a.Token != "token-3" {
		t.Errorf("%q, %v", a.Token, err)
	}
}

func TestTokenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	kafkatest.Write(t, file, []byte("one\n"))
	tokens, err := newTokens(OAuth{TokenFile: file}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		kafkatest.Write(t, file, []byte(want+"\n"))
		if a, err := tokens.auth(t.Context()); err != nil || a.Token != want {
			t.Errorf("%q, %v", a.Token, err)
		}
	}
}

// A redirect of the token server is not followed: it would carry the secret elsewhere.
func TestTokenServerRedirects(t *testing.T) {
	var asked atomic.Bool
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer thief.Close()
	server := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	tokens, err := newTokens(OAuth{TokenURL: server.URL, ClientID: "client", ClientSecret: "geheim"}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.auth(t.Context()); err == nil || asked.Load() {
		t.Errorf("%v, the other server was asked: %v", err, asked.Load())
	}
}

// A server that never answers holds a login for ten seconds.
func TestTokenServerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := &tokens{cfg: OAuth{TokenURL: "https://token.example/", ClientID: "client"}, secret: secret{text: "geheim"}, now: time.Now, log: slog.New(slog.DiscardHandler),
			client: &http.Client{Transport: hangs{}}, token: &oauth2.Token{AccessToken: "old", Expiry: time.Now().Add(time.Minute)}}
		began := time.Now()
		if a, err := tokens.auth(t.Context()); err != nil || a.Token != "old" {
			t.Errorf("%q, %v", a.Token, err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("a login waits %v for a renewal, and the token works", took)
		}
		settled(tokens)
		// Without a token that works all who log in wait for the same request.
		time.Sleep(2 * time.Minute)
		var wg sync.WaitGroup
		began = time.Now()
		for range 4 {
			wg.Go(func() {
				if a, err := tokens.auth(t.Context()); err == nil {
					t.Errorf("an expired token is used: %q", a.Token)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 2*tokenTimeout {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := tokens.auth(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a login that has ended waits: %v", err)
		}
		settled(tokens)
	})
}

// settled waits for the request that is under way.
func settled(t *tokens) {
	t.mu.Lock()
	asking := t.asking
	t.mu.Unlock()
	if asking != nil {
		<-asking
	}
}

// What a server calls a token, and is none, does not get into a login.
func TestTokenOfOddCharacters(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"geheim\u0001auth=x","token_type":"bearer","expires_in":60}`))
	}))
	defer server.Close()
	tokens, err := newTokens(OAuth{TokenURL: server.URL, ClientID: "client", ClientSecret: "geheim"}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.auth(t.Context()); err == nil || !strings.Contains(err.Error(), "RFC 6750") || strings.Contains(err.Error(), "geheim") {
		t.Error(err)
	}
}

// The authorities of the token server are read again when they change.
func TestTokenServerOfAnotherAuthority(t *testing.T) {
	old, fresh := kafkatest.NewAuthority(t, "old"), kafkatest.NewAuthority(t, "fresh")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"one","token_type":"bearer"}`))
	}))
	pair := fresh.Sign(t, kafkatest.Leaf{Name: "tokens", Hosts: []string{"127.0.0.1"}}).TLS(t)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	defer server.Close()
	tokens, err := newTokens(OAuth{TokenURL: server.URL, ClientID: "client", ClientSecret: "geheim"}, old.File, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.auth(t.Context()); err == nil {
		t.Fatal("a server of an unknown authority is asked")
	}
	text, err := os.ReadFile(fresh.File)
	if err != nil {
		t.Fatal(err)
	}
	kafkatest.Write(t, old.File, text)
	if a, err := tokens.auth(t.Context()); err != nil || a.Token != "one" {
		t.Errorf("%q, %v", a.Token, err)
	}
}

// hangs answers nothing.
type hangs struct{}

func (hangs) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}
