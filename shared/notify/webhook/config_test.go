package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestConfigReportsEveryProblemAtOnce(t *testing.T) {
	err := Config{URL: "ftp://h/p4th", Secrets: []Secret{{}}, Timeout: -1}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"url: ", "secrets: number 1", "timeout: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "url: ") || !strings.Contains(err.Error(), "secrets: ") {
		t.Errorf("New: %v", err)
	}
}

func TestConfigURL(t *testing.T) {
	secrets := secretsOf(t, NewSecret())
	for _, good := range []string{
		"https://example.com", "http://example.com:8080/hooks?token=x", "https://[2001:db8::1]:443/", "HTTPS://EXAMPLE.COM/%23", "https://10.0.0.1/",
	} {
		if err := (Config{URL: good, Secrets: secrets}).Validate(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "h0st.example/s3cret", "/s3cret", "//h0st/s3cret", "ftp://h0st/s3cret", "https:s3cret", "https:///s3cret", "https://:443/s3cret",
		"https://us3r:s3cret@h0st/", "https://s3cret@h0st/", "https://h0st/?t=s3cret#", "https://h0st/#s3cret", "https://h0st:0/s3cret",
		"https://h0st:99999/s3cret", "https://h0st:/s3cret", "https://h0st:s3cret/", "https://h0st/%s3cret", "https://s3cret s/", "https://h0st/s3cret\n",
	} {
		err := Config{URL: bad, Secrets: secrets}.Validate()
		switch {
		case err == nil:
			t.Errorf("%q is accepted", bad)
		case !strings.HasPrefix(err.Error(), "url: "):
			t.Errorf("%q: %v does not name the field", bad, err)
		case strings.Contains(err.Error(), "s3c") || strings.Contains(err.Error(), "us3r"):
			t.Errorf("%q: %v tells the secret", bad, err)
		}
	}
}

func TestParseSecrets(t *testing.T) {
	of := func(n int) string {
		return SecretPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xa5}, n))
	}
	for _, tt := range []struct {
		text string
		want int
	}{
		{"", 0}, {" \n", 0}, {of(24), 1}, {of(64), 1}, {of(32) + " " + of(40), 2}, {"\t" + of(25) + "\n" + of(26) + "  " + of(27) + " ", 3}, {exampleSecret, 1},
	} {
		got, err := ParseSecrets(tt.text)
		if err != nil || len(got) != tt.want {
			t.Errorf("%q: %d secrets, %v; want %d", tt.text, len(got), err, tt.want)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{of(23), "secret 1: is 23 bytes"},
		{of(65), "secret 1: is 65 bytes"},
		{of(32) + " " + of(0), "secret 2: is 0 bytes"},
		{of(32)[len(SecretPrefix):], "secret 1: does not begin with whsec_"},
		{of(32) + " whsk_" + of(32), "secret 2: does not begin"},
		{of(32) + "," + of(32), "secret 1: the part after"},
		{strings.TrimRight(of(32), "="), "secret 1: the part after"},
		{SecretPrefix + strings.Repeat("_-_-", 8), "secret 1: the part after"}, // base64 for URLs
		{"nonsense " + of(32) + " " + of(1), "secret 3: is 1 bytes"},
	} {
		got, err := ParseSecrets(tt.text)
		if err == nil || got != nil || !strings.Contains(err.Error(), tt.want) || !strings.HasSuffix(err.Error(), `run: echo "whsec_$(openssl rand -base64 32)"`) {
			t.Errorf("%q: %v, %v; want %q and how to make one", tt.text, got, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "paWl") || strings.Contains(err.Error(), "nonsense") || strings.Contains(err.Error(), "whsk")) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	a, b := NewSecret(), NewSecret()
	if a == b {
		t.Error("two fresh secrets are the same")
	}
	if got := secretsOf(t, a, b); len(got) != 2 {
		t.Errorf("%d secrets", len(got))
	}
}

// Whoever logs or prints anything of a webhook, on purpose or with a struct that has it somewhere, tells no secret.
func TestNothingPrintsSecrets(t *testing.T) {
	text := NewSecret()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, SecretPrefix))
	if err != nil {
		t.Fatal(err)
	}
	c := Config{URL: "https://h0st.example:8443/p4th/t0ken?key=qu3ry", Secrets: secretsOf(t, text), Now: time.Now}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Host(); got != "https://h0st.example:8443" {
		t.Errorf("Host is %s", got)
	}
	secret := c.Secrets[0]
	type inside struct {
		Config  Config
		secret  Secret
		secrets []Secret
		sender  *Sender
	}
	wrapped := inside{Config: c, secret: secret, secrets: c.Secrets, sender: s}

	var printed []string
	for _, v := range []any{c, &c, s, *s, secret, &secret, c.Secrets, wrapped, &wrapped, map[string]any{"x": c, "y": secret}, []any{s, secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%c"} {
			printed = append(printed, fmt.Sprintf(verb, v))
		}
		b, err := json.Marshal(v)
		if err != nil {
			b = []byte(err.Error()) // functions in a struct
		}
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("m", "v", v)
		printed = append(printed, string(b), text.String(), js.String(), fmt.Sprint(v), fmt.Errorf("x: %v", v).Error())
	}
	decimal := strings.Trim(fmt.Sprintf("%d", key[:8]), "[]")
	goSyntax := strings.TrimSuffix(fmt.Sprintf("%#v", key[:8]), "}")
	goSyntax = goSyntax[strings.Index(goSyntax, "{")+1:]
	for _, p := range printed {
		for what, never := range map[string]string{
			"secret": text[len(SecretPrefix):], "bytes": string(key), "hex": hex.EncodeToString(key[:8]), "HEX": strings.ToUpper(hex.EncodeToString(key[:8])),
			"decimal": decimal, "Go": goSyntax, "path": "p4th", "token": "t0ken", "query": "qu3ry", "hex path": hex.EncodeToString([]byte("t0ken")),
		} {
			if strings.Contains(p, never) {
				t.Errorf("%s is in %s", what, p)
			}
		}
	}
	for _, got := range []string{secret.String(), fmt.Sprintf("%#v", secret), fmt.Sprintf("%d", secret), secret.LogValue().String()} {
		if got != redacted {
			t.Errorf("%q", got)
		}
	}
	if b, err := json.Marshal(secret); err != nil || string(b) != `"[secret]"` {
		t.Errorf("%s, %v", b, err)
	}
}
