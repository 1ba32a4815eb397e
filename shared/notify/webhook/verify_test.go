package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The example of the libraries of Standard Webhooks: id, timestamp, payload and signature.
const (
	exampleSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleAt        = 1614265330
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func header(id, at, signature string) http.Header {
	h := http.Header{}
	for name, value := range map[string]string{HeaderID: id, HeaderTimestamp: at, HeaderSignature: signature} {
		if value != "" {
			h.Set(name, value)
		}
	}
	return h
}

func secretsOf(t testing.TB, texts ...string) []Secret {
	t.Helper()
	s, err := ParseSecrets(strings.Join(texts, " "))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerify(t *testing.T) {
	now := time.Unix(exampleAt, 0)
	at := strconv.Itoa(exampleAt)
	other := NewSecret()
	for _, tt := range []struct {
		name    string
		secrets []string
		header  http.Header
		body    string
		now     time.Time
		want    error
	}{
		{name: "good"},
		{name: "the second secret", secrets: []string{other, exampleSecret}},
		{name: "the second signature", header: header(exampleID, at, "v1,AAAA v1a,BBBB "+exampleSignature)},
		{name: "at the edge of the past", now: now.Add(Tolerance)},
		{name: "at the edge of the future", now: now.Add(-Tolerance)},

		{name: "too old", now: now.Add(Tolerance + time.Second), want: ErrTimestamp},
		{name: "too new", now: now.Add(-Tolerance - time.Second), want: ErrTimestamp},
		{name: "no id", header: header("", at, exampleSignature), want: ErrHeaders},
		{name: "no timestamp", header: header(exampleID, "", exampleSignature), want: ErrHeaders},
		{name: "no signature", header: header(exampleID, at, ""), want: ErrHeaders},
		{name: "timestamp is a word", header: header(exampleID, "today", exampleSignature), want: ErrHeaders},
		{name: "timestamp with a sign", header: header(exampleID, "+"+at, exampleSignature), want: ErrHeaders},
		{name: "negative timestamp", header: header(exampleID, "-"+at, exampleSignature), want: ErrHeaders},
		{name: "fraction", header: header(exampleID, at+".5", exampleSignature), want: ErrHeaders},
		{name: "absurd timestamp", header: header(exampleID, "99999999999999999999", exampleSignature), want: ErrHeaders},
		{name: "far future", header: header(exampleID, "99999999999", exampleSignature), want: ErrTimestamp},
		{name: "another timestamp", header: header(exampleID, strconv.Itoa(exampleAt+1), exampleSignature), want: ErrSignature},
		{name: "another id", header: header(exampleID+"x", at, exampleSignature), want: ErrSignature},
		{name: "another body", body: `{"test": 2432232315}`, want: ErrSignature},
		{name: "another secret", secrets: []string{other}, want: ErrSignature},
		{name: "another version", header: header(exampleID, at, "v2"+exampleSignature[2:]), want: ErrSignature},
		{name: "no version", header: header(exampleID, at, exampleSignature[3:]), want: ErrSignature},
		{name: "nothing but the version", header: header(exampleID, at, "v1,"), want: ErrSignature},
		{name: "half a signature", header: header(exampleID, at, exampleSignature[:20]), want: ErrSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.secrets == nil {
				tt.secrets = []string{exampleSecret}
			}
			if tt.header == nil {
				tt.header = header(exampleID, at, exampleSignature)
			}
			if tt.body == "" {
				tt.body = exampleBody
			}
			if tt.now.IsZero() {
				tt.now = now
			}
			if err := Verify(secretsOf(t, tt.secrets...), tt.header, []byte(tt.body), tt.now); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("no secret accepts nothing", func(t *testing.T) {
		for _, secrets := range [][]Secret{nil, {{}}} {
			if err := Verify(secrets, header(exampleID, at, exampleSignature), []byte(exampleBody), now); !errors.Is(err, ErrSignature) {
				t.Errorf("%v: %v", secrets, err)
			}
		}
	})
}

// FuzzVerify holds Verify against the definition: what it accepts was signed, and what it refuses it refuses with one of its errors.
func FuzzVerify(f *testing.F) {
	at := strconv.Itoa(exampleAt)
	f.Add(exampleID, at, exampleSignature, []byte(exampleBody))
	f.Add(exampleID, at, "v1,x "+exampleSignature+" v1a,y", []byte(exampleBody))
	f.Add("", "", "", []byte(nil))
	f.Add("a.b", "-1", "v1,,v1", []byte("\x00"))
	f.Add(exampleID, "00"+at, exampleSignature, []byte(exampleBody))
	secrets := secretsOf(f, exampleSecret)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(exampleSecret, SecretPrefix))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, at, signature string, body []byte) {
		err := Verify(secrets, header(id, at, signature), body, time.Unix(exampleAt, 0))
		if err != nil {
			if !errors.Is(err, ErrHeaders) && !errors.Is(err, ErrTimestamp) && !errors.Is(err, ErrSignature) {
				t.Errorf("no sentinel: %v", err)
			}
			return
		}
		seconds, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			t.Fatalf("accepted the timestamp %q", at)
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%d.%s", id, seconds, body)
		want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if !slices.ContainsFunc(strings.Split(signature, " "), func(s string) bool { return s == "v1,"+want || strings.HasPrefix(s, "v1,"+want+",") }) {
			t.Errorf("accepted %q for id %q, timestamp %q, body %q", signature, id, at, body)
		}
	})
}
