package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"spate/services/receiver"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
)

// receiving runs the command with output to two pipes, and returns where it listens and what it prints.
func receiving(t *testing.T, c receiveCommand) (url string, stdout *io.PipeReader, stop func() error) {
	t.Helper()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); outR.Close(); errR.Close() })
	done := make(chan error, 1)
	go func() {
		done <- c.Run(&env{ctx: ctx, stdout: outW, stderr: errW})
		outW.Close()
		errW.Close()
	}()
	var banner []byte
	b := make([]byte, 1024)
	for !bytes.Contains(banner, []byte("\n")) {
		n, err := errR.Read(b)
		if err != nil {
			t.Fatalf("%v: %v", err, <-done)
		}
		banner = append(banner, b[:n]...)
	}
	go func() { _, _ = io.Copy(io.Discard, errR) }()
	url = regexp.MustCompile(`http://\S+`).FindString(string(banner))
	return url, outR, func() error { cancel(); return <-done }
}

func TestReceive(t *testing.T) {
	secret := webhook.NewSecret()
	keys, err := webhook.ParseSecrets(secret)
	if err != nil {
		t.Fatal(err)
	}
	m := notify.Message{ID: "cafe_opened", Type: notify.TypeOpened, At: time.Now(), Data: json.RawMessage(`{"user_id":"<é>","num_actions_per_watermark":7,"severity":"warning"}`)}
	for _, asJSON := range []bool{false, true} {
		url, stdout, stop := receiving(t, receiveCommand{Listen: "127.0.0.1:0", Secret: secretText(webhook.NewSecret() + " " + secret), JSON: asJSON})
		s, err := webhook.New(webhook.Config{URL: url, Secrets: keys, AllowPrivate: true})
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string, 10)
		go func() {
			b, _ := io.ReadAll(stdout) // ends with the command
			for l := range strings.Lines(string(b)) {
				lines <- strings.TrimSuffix(l, "\n")
			}
			close(lines)
		}()
		for range 2 {
			if r := s.Notify(t.Context(), m); r.Outcome != notify.Delivered {
				t.Fatalf("%+v", r)
			}
		}
		s.Close()
		resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("status %d", resp.StatusCode)
		}
		if err := stop(); err != nil {
			t.Errorf("the command ended with %v", err)
		}
		var got []string
		for l := range lines {
			got = append(got, l)
		}
		want := []string{
			`^\d\d:\d\d:\d\d  alert.opened  cafe.opened  user <é>  7 or more events  warning$`,
			`^\d\d:\d\d:\d\d  alert.opened  cafe.opened  user <é>  7 or more events  warning  \(again\)$`,
			`^\d\d:\d\d:\d\d  refused       headers are missing or invalid: webhook-id is missing  from 127\.0\.0\.1:\d+$`,
		}
		if asJSON {
			want = []string{
				`^{"at":"[^"]+Z","webhook_id":"cafe_opened","type":"alert.opened","verified":true,"repeat":false,"data":` + regexp.QuoteMeta(string(m.Data)) + `}$`,
				`^{"at":"[^"]+Z","webhook_id":"cafe_opened","type":"alert.opened","verified":true,"repeat":true,"data":` + regexp.QuoteMeta(string(m.Data)) + `}$`,
				`^{"at":"[^"]+Z","verified":false,"reason":"headers are missing or invalid: webhook-id is missing","remote":"127\.0\.0\.1:\d+"}$`,
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d lines: %q", len(got), got)
		}
		for i := range want {
			if !regexp.MustCompile(want[i]).MatchString(got[i]) {
				t.Errorf("line %d: %s\nwant %s", i, got[i], want[i])
			}
		}
	}
}

func TestReceiveRefusesBadSettings(t *testing.T) {
	for name, c := range map[string]receiveCommand{
		"no secret":  {Listen: "127.0.0.1:0"},
		"bad secret": {Listen: "127.0.0.1:0", Secret: secretText(webhook.NewSecret() + " whsec_s3cret")},
	} {
		err := c.Run(&env{ctx: t.Context(), stdout: io.Discard, stderr: io.Discard})
		if !errors.Is(err, errUsage) || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "SPATE_WEBHOOK_SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := (&receiveCommand{Listen: "256.0.0.1:0", Secret: secretText(webhook.NewSecret())}).Run(&env{ctx: t.Context(), stdout: io.Discard, stderr: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "SPATE_RECEIVE_LISTEN") {
		t.Errorf("%v", err)
	}
}

// The command line is read, and help shows no secret that the environment has.
func TestReceiveCommandLine(t *testing.T) {
	secret := webhook.NewSecret()
	t.Setenv("SPATE_WEBHOOK_SECRET", secret)
	os.Unsetenv("SPATE_RECEIVE_LISTEN")
	var p struct {
		Receive receiveCommand `cmd:""`
	}
	var out bytes.Buffer
	k, err := kong.New(&p, kong.Writers(&out, &out), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse([]string{"receive", "--json"}); err != nil {
		t.Fatal(err)
	}
	if string(p.Receive.Secret) != secret || p.Receive.Listen != "127.0.0.1:8080" || !p.Receive.JSON {
		t.Error("the settings are not read")
	}
	_, _ = k.Parse([]string{"receive", "--help"}) // prints, then goes on
	if !strings.Contains(out.String(), "SPATE_WEBHOOK_SECRET") || strings.Contains(out.String(), secret) {
		t.Errorf("help: %s", &out)
	}
}

func TestReceivedText(t *testing.T) {
	at := time.Date(2026, 9, 1, 12, 30, 15, 0, time.UTC)
	for _, tt := range []struct {
		call receiver.Call
		want string
	}{
		{receiver.Call{Verified: true, WebhookID: "a", Type: notify.TypeClosed, Data: json.RawMessage(`{"user_id":5,"num_actions_per_watermark":12,"severity":"critical"}`)},
			"12:30:15  alert.closed  a  user 5  12 events  critical"},
		{receiver.Call{Verified: true, WebhookID: "a", Type: notify.TypeRaised,
			Data: json.RawMessage(`{"rule":"card-testing","key":{"ip":"10.0.0.1","b":null},"user_id":[],"num_actions_per_watermark":"1.5","event_count":12,"severity":"critical"}`)},
			`12:30:15  alert.raised  a  card-testing ip=10.0.0.1 b=null  12 or more events  critical`},
		{receiver.Call{Verified: true, WebhookID: "d", Type: notify.TypeDigest, Data: json.RawMessage(`{"messages":900,"users":300,"events":12345}`)},
			"12:30:15  alert.digest  d  digest of 900 messages  300 users  12345 events"},
		{receiver.Call{Verified: true, WebhookID: "t", Type: notify.TypeTest}, "12:30:15  endpoint.test  t"},
		{receiver.Call{Verified: true, WebhookID: "x", Type: notify.TypeOpened, Data: json.RawMessage(`[]`)}, "12:30:15  alert.opened  x"},
		{receiver.Call{Verified: true, WebhookID: "x", Type: notify.TypeClosed, Data: json.RawMessage(`{"user_id":"\u001b[2J"}`)},
			"12:30:15  alert.closed  x  user \\x1b[2J  0 events  "},
		{receiver.Call{Reason: "no signature matches", Remote: "192.0.2.1:5"}, "12:30:15  refused       no signature matches  from 192.0.2.1:5"},
	} {
		tt.call.At = at
		if got := string(callText(tt.call)); got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}
