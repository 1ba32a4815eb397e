package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/activity"
)

// sent runs cfg and returns the events that it wrote.
func sent(t testing.TB, cfg Config) []activity.Event {
	t.Helper()
	var got []activity.Event
	cfg.OnSent = func(r Row, partition int32, offset int64) {
		if partition != -1 || offset != int64(len(got)) {
			t.Errorf("row %d is said to be at %d/%d", len(got), partition, offset)
		}
		got = append(got, r.Event)
	}
	mustRun(t, cfg)
	return got
}

func TestTimeModes(t *testing.T) {
	const text = header9 + lineA + lineB + "soon,view,,,,,,7,\n"
	at := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   [3]string
	}{
		{"original", func(*Config) {}, [3]string{}},
		{"now", func(c *Config) { c.TimeMode = TimeNow },
			[3]string{"2024-01-02T03:04:06.000Z", "2024-01-02T03:04:07.000Z", "2024-01-02T03:04:08.000Z"}},
		{"shift", func(c *Config) { c.TimeMode = TimeShift; c.Now = (&clock{at: at}).now },
			[3]string{"2024-01-02T03:04:05.000Z", "2024-01-02T03:04:08.000Z"}},
		{"shift at a rate", func(c *Config) { c.TimeMode, c.Rate = TimeShift, 1e6; c.Now = (&clock{at: at}).now },
			[3]string{"2024-01-02T03:04:05.000Z", "2024-01-02T03:04:08.000Z"}},
		{"shift at speed 1000", func(c *Config) { c.TimeMode, c.Speed = TimeShift, 1000; c.Now = (&clock{at: at}).now },
			[3]string{"2024-01-02T03:04:05.000Z", "2024-01-02T03:04:05.003Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := fast(io.Discard)
			cfg.File, cfg.Stdin = "-", strings.NewReader(text)
			cfg.Now = (&clock{at: at, step: time.Second}).now
			c.change(&cfg)
			var got [3]string
			for i, e := range sent(t, cfg) {
				got[i] = e.TxnTimestamp
				if want := []string{eventA.EventTime, eventB.EventTime, "soon"}[i]; e.EventTime != want {
					t.Errorf("event_time %q, want %q", e.EventTime, want)
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestGeneratedNow: in the time modes that move times, the attackers keep their place within the windows.
func TestGeneratedNow(t *testing.T) {
	now := time.Date(2024, 1, 2, 3, 4, 5, 678e6, time.UTC)
	for _, start := range []time.Time{{}, time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)} {
		cfg := fast(io.Discard)
		cfg.TimeMode, cfg.Duration, cfg.Start = TimeShift, 30*time.Second, start
		cfg.Now = (&clock{at: now}).now
		res := mustRun(t, cfg)
		if ahead := res.FirstEventMS - now.UnixMilli(); ahead < -10_000 || ahead > 100 {
			t.Errorf("start %v: the first event is %d ms from now", start, ahead)
		}
		for _, e := range res.Truth {
			if (e.Kind == KindSlow || e.Kind == KindStraddler) && e.Events != 5 {
				t.Errorf("start %v: %+v", start, e)
			}
		}
	}
}

func TestPace(t *testing.T) {
	const text = header9 + lineA + lineB + lineB // at 0, 3 and 3 s
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   time.Duration
	}{
		{"real time", func(c *Config) { c.Speed = 1 }, 3 * time.Second},
		{"twice as fast", func(c *Config) { c.Speed = 2 }, 1500 * time.Millisecond},
		{"as fast as possible", func(c *Config) { c.Speed = 0 }, 0},
		{"rate", func(c *Config) { c.Rate = 4 }, 500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := fast(io.Discard)
				c.change(&cfg)
				csv, err := ReadCSV(strings.NewReader(text), "test")
				if err != nil {
					t.Fatal(err)
				}
				cfg.Source = csv
				if res := mustRun(t, cfg); res.Elapsed < c.want || res.Elapsed > c.want+2*paceTick || res.Sent != 3 {
					t.Errorf("sent %d in %v, want %v", res.Sent, res.Elapsed, c.want)
				}
			})
		})
	}
}

// TestPaceOfManyEvents: 50000 events per second, in real time.
func TestPaceOfManyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fast(io.Discard)
		cfg.Rate, cfg.Events = 50_000, 100_000
		if res := mustRun(t, cfg); res.Elapsed < 1990*time.Millisecond || res.Elapsed > 2010*time.Millisecond {
			t.Errorf("took %v, want 2s", res.Elapsed)
		}
		cfg = fast(io.Discard)
		cfg.Speed, cfg.Duration, cfg.TimeMode = 1, time.Minute, TimeNow
		if res := mustRun(t, cfg); res.Elapsed < 59*time.Second || res.Elapsed > 61*time.Second {
			t.Errorf("took %v, want a minute", res.Elapsed)
		}
	})
}

// TestShoppersKeepTheRuleNow: the jitter of the pace does not make shoppers break the rule, nor slow attackers.
func TestShoppersKeepTheRuleNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fast(io.Discard)
		cfg.Speed, cfg.Duration, cfg.TimeMode = 1, time.Minute, TimeNow
		counts := make(map[visit]int)
		cfg.OnSent = func(r Row, _ int32, _ int64) { counts[visit{r.Kind, r.Event.UserID, floorTo(r.TimeMS, 10_000)}]++ }
		mustRun(t, cfg)
		for v, n := range counts {
			if n > 5 && (v.kind == "" || v.kind == KindSlow) {
				t.Errorf("%+v has %d events", v, n)
			}
		}
	})
}

func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var out bytes.Buffer
		cfg := fast(&out)
		cfg.Speed = 1 // endless
		cfg.TruthPath = filepath.Join(t.TempDir(), "truth.jsonl")
		res, err := Run(ctx, cfg)
		if err != nil || !res.Interrupted {
			t.Fatalf("interrupted: %v, error %v", res.Interrupted, err)
		}
		if n := int64(strings.Count(out.String(), "\n")); n != res.Sent || n == 0 {
			t.Errorf("%d lines, %d sent", n, res.Sent)
		}
		if res.Elapsed != 30*time.Second || len(res.Truth) == 0 {
			t.Errorf("took %v, %d truths", res.Elapsed, len(res.Truth))
		}
	})
}

func TestInterruptedBeforeTheStart(t *testing.T) {
	cfg := fast(io.Discard)
	cfg.Events = 1000
	if res, err := Run(canceled(t), cfg); err != nil || !res.Interrupted || res.Sent != 0 {
		t.Errorf("got %+v, error %v", res, err)
	}
}

// TestInterruptedRead: standard input that has nothing more to say does not keep an interrupted run.
func TestInterruptedRead(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = io.WriteString(w, header9+lineA) }()
	cfg := fast(io.Discard)
	cfg.File, cfg.Stdin = "-", r
	cfg.OnSent = func(Row, int32, int64) { cancel() }
	if res, err := Run(ctx, cfg); err != nil || !res.Interrupted || res.Sent != 1 {
		t.Errorf("got %+v, error %v", res, err)
	}
}

func TestSourceErrorKeepsTheResult(t *testing.T) {
	cfg := fast(io.Discard)
	cfg.Source = &failingSource{rows: make([]Row, 3), err: errors.New("disk on fire")}
	res, err := Run(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "disk on fire") || res.Sent != 3 {
		t.Errorf("got %+v, error %v", res, err)
	}
}

func TestEventsBoundAFile(t *testing.T) {
	out, res := output(t, func(c *Config) {
		c.File, c.Stdin, c.Events = "-", strings.NewReader(header9+lineA+lineB), 1
	})
	if strings.Count(out, "\n") != 1 || res.Sent != 1 {
		t.Errorf("sent %d: %q", res.Sent, out)
	}
}

func TestTruth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "truth.jsonl")
	cfg := fast(io.Discard)
	cfg.Duration, cfg.TruthPath, cfg.Disorder = time.Minute, path, 5*time.Second
	counts := make(map[visit]int)
	cfg.OnSent = func(r Row, _ int32, _ int64) {
		if r.Kind != "" {
			counts[visit{r.Kind, r.Event.UserID, floorTo(r.TimeMS, 10_000)}]++
		}
	}
	res := mustRun(t, cfg)
	got := make(map[visit]int)
	for i, e := range res.Truth {
		got[visit{e.Kind, e.UserID, e.WindowStartMS}] = e.Events
		if e.BreaksRule != (e.Events > 5) || e.WindowStart != time.UnixMilli(e.WindowStartMS).UTC().Format("2006-01-02T15:04:05Z") {
			t.Errorf("%+v", e)
		}
		if i > 0 && e.WindowStartMS < res.Truth[i-1].WindowStartMS {
			t.Error("not in the order of the windows")
		}
	}
	if d := cmp.Diff(counts, got, cmp.AllowUnexported(visit{})); d != "" {
		t.Error(d)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var written []Truth
	for line := range strings.Lines(string(text)) {
		var e Truth
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		written = append(written, e)
	}
	if d := cmp.Diff(res.Truth, written); d != "" {
		t.Error(d)
	}
}

func TestPathsThatCannotBeWritten(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.TruthPath = "/no/such/dir/x.jsonl" },
		func(c *Config) { c.Out = "/no/such/dir/x.jsonl" },
	} {
		cfg := fast(io.Discard)
		cfg.Events = 10
		change(&cfg)
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "/no/such/dir/x.jsonl") {
			t.Errorf("error %v does not name the file", err)
		}
	}
}

func TestBadLinesAreLogged(t *testing.T) {
	var log strings.Builder
	_, res := output(t, func(c *Config) {
		c.File, c.Stdin = "-", strings.NewReader(header9+lineA+strings.Repeat("?\n", 7)+lineB+"2019-10")
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	want := Result{Sent: 2, Skipped: 7, Cut: 1, CutLine: 11, BadLines: res.BadLines, FirstEventMS: 1569888000000, LastEventMS: 1569888003000, Elapsed: res.Elapsed, Truth: res.Truth}
	if d := cmp.Diff(want, res); d != "" || len(res.BadLines) != 5 {
		t.Errorf("%s\n%+v", d, res.BadLines)
	}
	if s := log.String(); !strings.Contains(s, `line=3 reason="has 1 field, expected 9"`) || !strings.Contains(s, "lines=3") {
		t.Error(s)
	}
}

func TestProgress(t *testing.T) {
	at := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	var count counters
	var log strings.Builder
	cfg := Default()
	cfg.Now = (&clock{at: at, step: time.Second}).now
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	p := newProgress(&cfg, &count)
	count.sent.Store(1234)
	if got := p.line(); got != "1,234 events  1,234/s" {
		t.Errorf("bar %q", got)
	}
	count.sent.Store(2468)
	count.done.Store(25)
	count.total.Store(100)
	if got, want := p.line(), "[======                  ]  25%  2,468 events  1,234/s  6s left"; string(got) != want {
		t.Errorf("bar %q, want %q", got, want)
	}
	p = newProgress(&cfg, &count)
	p.report()
	if s := log.String(); !strings.Contains(s, `msg="sending events" sent=2468 rate=2468 percent=25 left=3s`) {
		t.Error(s)
	}
	count.done.Store(100)
	log.Reset()
	p.report()
	if s := log.String(); strings.Contains(s, "percent") {
		t.Errorf("a file that is read, and not sent: %s", s)
	}
}

func TestProgressOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := fast(io.Discard)
		cfg.Speed, cfg.Duration, cfg.Progress = 1, 21*time.Second, &log
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		mustRun(t, cfg)
		if n := strings.Count(log.String(), "sending events"); n != 4 {
			t.Errorf("%d lines of progress in 21 s, want 4:\n%s", n, log.String())
		}
	})
}

// TestRowsThatAreNoEvents: who sends a file of which a pipeline will refuse rows is told how many, and why.
func TestRowsThatAreNoEvents(t *testing.T) {
	for _, c := range []struct {
		text, why string
		invalid   int64
	}{
		{`{"a":1}` + "\n" + `{"user_id":5,"event_time":"2019-11-01 00:00:00"}` + "\n" + `{"b":1}` + "\n", `no_user - the event has no field "user_id"; it has a`, 2},
		{"event_time,user_id\n2019-11-01 00:00:00,\n2019-11-01 00:00:00,5\n", `no_user - the user in "user_id" is null or empty`, 1},
		{"event_time,user_id\n1572566400,7\n", `bad_time - the time "1572566400" looks like seconds`, 1},
		{header9 + lineA, "", 0},
	} {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, res := output(t, func(cfg *Config) { cfg.File = path })
		if res.Invalid != c.invalid || !strings.HasPrefix(res.Why, c.why) || c.why == "" && res.Why != "" {
			t.Errorf("%q: %d invalid, %s", c.text, res.Invalid, res.Why)
		}
	}
}

// TestWordsThatMeanNoUser: which words were taken for no user is said, with their rows, as it is a guess.
func TestWordsThatMeanNoUser(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.csv")
	text := "user_id,event_time\nNULL,2019-11-01 00:00:00\n,2019-11-01 00:00:01\nnan,2019-11-01 00:00:02\nNULL,2019-11-01 00:00:03\nnull7,2019-11-01 00:00:04\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		nulls   []string
		invalid int64
		says    string
	}{
		{NullWords, 4, `rows="2 NULL, 1 nan"`},
		{[]string{"-"}, 1, ""},
	} {
		var log bytes.Buffer
		_, res := output(t, func(cfg *Config) {
			cfg.File, cfg.Speed, cfg.NullValues, cfg.Log = file, 0, c.nulls, slog.New(slog.NewTextHandler(&log, nil))
		})
		if said := strings.Contains(log.String(), "some values in the user column are treated as a missing user"); res.Invalid != c.invalid || said != (c.says != "") || !strings.Contains(log.String(), c.says) {
			t.Errorf("%s: %d invalid\n%s", c.nulls, res.Invalid, &log)
		}
	}
}
