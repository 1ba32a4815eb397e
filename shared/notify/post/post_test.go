package post

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"spate/shared/notify"
)

func TestNothingPrintsSecrets(t *testing.T) {
	const text = "t0ken-0f-s0mebody"
	secret, target := NewSecret(text), Target{URL: "https://h.example/" + text + "?k=" + text, AllowPrivate: true}
	client, err := New(target, "test", text)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, v := range []any{secret, &secret, []Secret{secret}, struct{ s Secret }{secret}, target, &target, struct{ Target }{target}, client, *client, struct{ c *Client }{client}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, text) || strings.Contains(got, fmt.Sprintf("%x", text)) {
				t.Errorf("%T %s: %s", v, verb, got)
			}
		}
		if b, err := json.Marshal(v); err == nil && strings.Contains(string(b), text) {
			t.Errorf("%T: %s", v, b)
		}
	}
	if secret.Reveal() != text || secret.IsZero() || !NewSecret("").IsZero() || NewSecret("").Reveal() != "" {
		t.Error("a secret is not what it was")
	}
	if client.Host() != "https://h.example" || target.Host() != client.Host() || (Target{}).Host() != "[no URL]" {
		t.Errorf("%s, %s", client.Host(), target.Host())
	}
}

func TestQuotes(t *testing.T) {
	u, err := url.Parse("https://h.example/services/T0LONGTOKEN?x=%41BCDEFG1")
	if err != nil {
		t.Fatal(err)
	}
	q := NewQuotes(u, "p-4-5-w", "", "correct horse")
	for text, kept := range map[string]bool{
		"no such services": true, "T0LONG": false, "abcdefg1": false, "password P-4-5-W is wrong": false, "p-4-5": true, "CORRECT%20HORSE": false, "correc": false, "horse": true, "": true,
	} {
		if got := q.Said([]byte(text)); (got == text) != kept {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestThrottle(t *testing.T) {
	for _, c := range []struct{ r, want notify.Result }{
		{notify.Result{Outcome: notify.Failed, Status: 429}, notify.Result{Outcome: notify.Throttled, Status: 429, After: time.Minute}},
		{notify.Result{Outcome: notify.Throttled, Status: 429, After: time.Second}, notify.Result{Outcome: notify.Throttled, Status: 429, After: time.Second}},
		{notify.Result{Outcome: notify.Failed, Status: 503}, notify.Result{Outcome: notify.Failed, Status: 503}},
		{notify.Result{Outcome: notify.Delivered, Status: 200}, notify.Result{Outcome: notify.Delivered, Status: 200}},
	} {
		if got := Throttle(c.r, time.Minute); got != c.want {
			t.Errorf("%+v: %+v", c.r, got)
		}
	}
}

func TestTimeouts(t *testing.T) {
	for d, ok := range map[time.Duration]bool{0: true, MaxTimeout: true, MaxTimeout + 1: false, -1: false} {
		if err := CheckTimeout(d); (err == nil) != ok {
			t.Errorf("%v: %v", d, err)
		}
	}
}
