package ops_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spate/shared/ops"
)

func TestServer(t *testing.T) {
	s, err := ops.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Listen(s.Addr()); err == nil || !strings.Contains(err.Error(), "--http") {
		t.Errorf("a taken port: %v", err)
	}
	one, two := s.Service("one"), s.Service("two")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	get := func(page string) (int, string) {
		resp, err := http.Get("http://" + s.Addr() + page)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	ready := func(code int, wantOne, wantTwo string) {
		t.Helper()
		got, body := get("/readyz")
		var why map[string]string
		if err := json.Unmarshal([]byte(body), &why); err != nil || got != code || why["one"] != wantOne || why["two"] != wantTwo {
			t.Errorf("%d %s", got, body)
		}
	}
	ready(503, "starting", "starting")
	one.Ready()
	two.NotReady("recovering")
	ready(503, "ready", "recovering")
	two.Ready()
	ready(200, "ready", "ready")
	one.Hold("broker", "the broker is away")
	one.Ready() // what the service thinks of itself does not matter then
	ready(503, "the broker is away", "ready")
	one.Hold("lag", "partition 3 stands still")
	ready(503, "the broker is away; partition 3 stands still", "ready")
	one.Hold("broker", "")
	one.Hold("lag", "")
	two.Note("transaction", "held back")
	ready(200, "ready", "ready; held back")
	two.Note("transaction", "")
	ready(200, "ready", "ready")
	if code, body := get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz %d %s", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, "go_goroutines") || !strings.Contains(body, `spate_ready{service="two"} 1`) {
		t.Errorf("/metrics %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom, fatal := errors.New("boom"), errors.New("fatal")
		var log bytes.Buffer
		var at []time.Duration
		began := time.Now()
		var status ops.Status
		err := ops.Keep(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), &status, func(err error) bool { return errors.Is(err, fatal) }, func(ctx context.Context) error {
			at = append(at, time.Since(began))
			switch len(at) {
			case 9:
				time.Sleep(2 * time.Minute) // a long life, in the bubble's time
			case 11:
				return fatal
			}
			return boom
		})
		if !errors.Is(err, fatal) || len(at) != 11 {
			t.Fatalf("%v after %v", err, at)
		}
		if _, why := status.Get(); why != "boom" {
			t.Errorf("it waits for %q", why)
		}
		for i, want := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
			if got := at[i+1] - at[i]; got != want {
				t.Errorf("wait %d is %v, want %v", i, got, want)
			}
		}
		if got := at[9] - at[8] - 2*time.Minute; got != 250*time.Millisecond {
			t.Errorf("after a long life it waits %v", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := ops.Keep(ctx, slog.New(slog.DiscardHandler), &ops.Status{}, func(error) bool { return false }, func(context.Context) error { return errors.New("boom") })
		if err != nil {
			t.Errorf("the end of ctx is not an error: %v", err)
		}
	})
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	log := ops.Logger(&b, slog.LevelWarn)
	log.Info("not this")
	log.Warn("this", "a_key", 1)
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line["msg"] != "this" || line["a_key"] != 1.0 {
		t.Errorf("%s: %v", b.String(), err)
	}
}

// TestProfile: the profiles are there if asked for, and never the command line, which may hold secrets.
func TestProfile(t *testing.T) {
	for _, asked := range []bool{false, true} {
		s, err := ops.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if asked {
			s.Profile()
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		for page, want := range map[string]bool{"heap": asked, "goroutine": asked, "profile?seconds=1": asked, "cmdline": false, "": false} {
			resp, err := http.Get("http://" + s.Addr() + "/debug/pprof/" + page)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := resp.StatusCode == http.StatusOK; got != want {
				t.Errorf("asked for %v, %q: %s", asked, page, resp.Status)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
