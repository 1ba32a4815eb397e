package ops_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/shared/kafka/kafkatest"
	"spate/shared/ops"
)

const token = "0123456789abcdef0123456789abcdef"

// secured starts a server with one service that is ready.
func secured(t *testing.T, a ops.Access) *ops.Server {
	t.Helper()
	s, err := ops.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Secure(a, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	s.Service("x").Ready()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// get asks for a page and returns the status, or the error.
func get(t *testing.T, a ops.Asker, url string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := a.Client()
	if err == nil {
		err = a.Sign(req)
	}
	if err != nil {
		return 0, err
	}
	resp, err := cl.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

// Without the token nobody gets in; what asks whether the process lives needs none.
func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	kafkatest.Write(t, file, []byte(token+"\n"))
	for name, a := range map[string]ops.Access{"text": {Token: token}, "file": {TokenFile: file}} {
		t.Run(name, func(t *testing.T) {
			s := secured(t, a)
			for _, page := range []string{"/metrics", "/readyz", "/users/1", "/", "//healthz", "/healthz/", "/debug/pprof/"} {
				for what, asker := range map[string]ops.Asker{"none": {}, "another": {Access: ops.Access{Token: strings.Repeat("x", 32)}}} {
					if code, err := get(t, asker, s.URL()+page); err != nil || code != http.StatusUnauthorized {
						t.Errorf("%s with %s: %d, %v", page, what, code, err)
					}
				}
			}
			for header, want := range map[string]string{"": "a token is required", "Bearer " + strings.Repeat("x", 32): "the token is wrong"} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/readyz", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", header)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				var body struct{ Message string }
				if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || !strings.HasPrefix(body.Message, want) || resp.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%q: %v, %v, want %s", header, body, err, want)
				}
				_ = resp.Body.Close()
			}
			if code, err := get(t, ops.Asker{}, s.URL()+"/healthz"); err != nil || code != http.StatusOK {
				t.Errorf("/healthz: %d, %v", code, err)
			}
			for _, page := range []string{"/metrics", "/readyz"} {
				if code, err := get(t, ops.Asker{Access: ops.Access{Token: token}}, s.URL()+page); err != nil || code != http.StatusOK {
					t.Errorf("%s: %d, %v", page, code, err)
				}
			}
		})
	}
}

// A token in a file is replaced while the server runs. One that is not a token changes nothing.
func TestTokenIsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	kafkatest.Write(t, file, []byte(token))
	s := secured(t, ops.Access{TokenFile: file})
	other := strings.Repeat("b", 40)
	for _, step := range []struct{ text, valid string }{{token, token}, {other, other}, {"", other}, {"short", other}, {token, token}} {
		kafkatest.Write(t, file, []byte(step.text))
		for _, x := range []string{token, other} {
			want := http.StatusUnauthorized
			if x == step.valid {
				want = http.StatusOK
			}
			if code, err := get(t, ops.Asker{Access: ops.Access{Token: x}}, s.URL()+"/readyz"); err != nil || code != want {
				t.Errorf("after %q, %q: %d, %v", step.text, x, code, err)
			}
		}
	}
}

func TestServerTLS(t *testing.T) {
	authority, other := kafkatest.NewAuthority(t, "authority"), kafkatest.NewAuthority(t, "other")
	cert, key := authority.Sign(t, kafkatest.Leaf{Name: "spate", Hosts: []string{"127.0.0.1"}}).Files(t)
	s := secured(t, ops.Access{CertFile: cert, KeyFile: key, Token: token})
	own := ops.Access{Token: token}
	if code, err := get(t, ops.Asker{CAFile: authority.File, Access: own}, s.URL()+"/readyz"); err != nil || code != http.StatusOK {
		t.Errorf("%d, %v", code, err)
	}
	if code, err := get(t, ops.Asker{CertFile: cert, Access: own}, s.URL()+"/readyz"); err != nil || code != http.StatusOK {
		t.Errorf("by its certificate: %d, %v", code, err)
	}
	for name, a := range map[string]ops.Asker{"the system's authorities": {}, "another authority": {CAFile: other.File}} {
		if code, err := get(t, a, s.URL()+"/readyz"); err == nil {
			t.Errorf("%s: %d", name, code)
		}
	}
	// Another certificate takes its place.
	p := other.Sign(t, kafkatest.Leaf{Name: "spate", Hosts: []string{"127.0.0.1"}})
	kafkatest.Write(t, cert, p.Cert)
	if code, err := get(t, ops.Asker{CAFile: authority.File, Access: own}, s.URL()+"/readyz"); err != nil || code != http.StatusOK {
		t.Errorf("with half of the pair replaced: %d, %v", code, err)
	}
	kafkatest.Write(t, key, p.Key)
	if code, err := get(t, ops.Asker{CAFile: other.File, Access: own}, s.URL()+"/readyz"); err != nil || code != http.StatusOK {
		t.Errorf("after it was replaced: %d, %v", code, err)
	}
}

// A token goes over TLS, or to this machine.
func TestTokenIsKept(t *testing.T) {
	for url, want := range map[string]string{
		"http://10.0.0.1:80/": "refusing to send the token to", "http://detector:80/": "refusing to send the token to", "http://127.0.0.1:80/": "", "http://[::1]:80/": "", "http://localhost/": "", "https://detector/": "",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		err = ops.Asker{Access: ops.Access{Token: token}}.Sign(req)
		sent := req.Header.Get("Authorization") != ""
		if want == "" && (err != nil || !sent) || want != "" && (err == nil || !strings.Contains(err.Error(), want) || sent) {
			t.Errorf("%s: %v, sent: %v", url, err, sent)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if err := (ops.Asker{CAFile: "ca.pem"}).Sign(req); err == nil {
		t.Error("an asker with authorities asks without TLS")
	}
}

func TestAccessValidate(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		a    ops.Access
		want string
	}{
		"nothing":     {ops.Access{}, ""},
		"no key":      {ops.Access{CertFile: "c"}, "http-tls-key-file: missing"},
		"no cert":     {ops.Access{KeyFile: "k"}, "http-tls-cert-file: missing"},
		"two tokens":  {ops.Access{Token: token, TokenFile: "f"}, "only one of them"},
		"short":       {ops.Access{Token: "abc"}, "openssl rand"},
		"space":       {ops.Access{Token: "0123456789 abcdef 0123456789"}, "openssl rand"},
		"short file":  {ops.Access{TokenFile: short}, "openssl rand"},
		"no file":     {ops.Access{TokenFile: filepath.Join(dir, "none")}, "http-token-file"},
		"no pem":      {ops.Access{CertFile: short, KeyFile: short}, "http-tls-cert-file"},
		"good":        {ops.Access{Token: token}, ""},
		"short by \n": {ops.Access{Token: "0123456789abcde"}, "openssl rand"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ops.Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			err = s.Secure(test.a, slog.New(slog.DiscardHandler))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
			defer cancel()
			_ = s.Run(ctx) // closes the listener
		})
	}
}
