package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/testport"
	"spate/shared/testskip"
)

func TestMurmur2IsKafkas(t *testing.T) {
	// From Apache Kafka's UtilsTest.
	for in, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829, "abc": 479470107} {
		if got := int32(murmur2([]byte(in))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", in, got, want)
		}
	}
}

// TestPartitionersAgree: router, simulator, goka and Kafka's own clients must put a key into the same partition.
func TestPartitionersAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	topic := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for range 50_000 {
		key := make([]byte, 1+rng.IntN(40))
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		n := int32(1 + rng.IntN(64))
		got := PartitionFor(key, n)
		if want := topic.Partition(&kgo.Record{Key: key}, int(n)); got != int32(want) {
			t.Fatalf("%x of %d: %d, franz-go has %d", key, n, got, want)
		}
		h := NewHasher() // as goka's Processor.hash does it
		if _, err := h.Write(key); err != nil {
			t.Fatal(err)
		}
		sum := int32(h.Sum32())
		if sum < 0 {
			sum = -sum
		}
		if want := sum % n; got != want {
			t.Fatalf("%x of %d: %d, goka has %d", key, n, got, want)
		}
	}
}

func TestConfigIsExplained(t *testing.T) {
	err := Config{Brokers: []string{"a:1", "b", ":9092"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), `":9092"`) || strings.Contains(err.Error(), `"a:1"`) {
		t.Errorf("%v", err)
	}
	if err := (Config{}).Validate(); err == nil || !strings.Contains(err.Error(), "SPATE_BROKERS") {
		t.Errorf("%v", err)
	}
	if got := ParseBrokers(" a:1, ,b:2,"); len(got) != 2 || got[1] != "b:2" {
		t.Errorf("%q", got)
	}
}

func admin(t *testing.T, opts ...kfake.Opt) *kadm.Client {
	t.Helper()
	adm, _ := broker(t, opts...)
	return adm
}

func broker(t *testing.T, opts ...kfake.Opt) (adm *kadm.Client, addr string) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(Config{Brokers: c.ListenAddrs()}.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl), c.ListenAddrs()[0]
}

func TestEnsureMakesTopics(t *testing.T) {
	adm := admin(t)
	l := Layout{Names: NamesFor("clicks"), Partitions: 3}
	var wg sync.WaitGroup
	for range 4 { // services start together
		wg.Go(func() {
			topics, err := l.Ensure(t.Context(), adm)
			if err != nil || topics.Sources != 3 || topics.Keyed != 3 || topics.ClaimedTime || topics.Incarnation("clicks") == 0 {
				t.Errorf("%+v %v", topics, err)
			}
		})
	}
	wg.Wait()
	configs, err := adm.DescribeTopicConfigs(t.Context(), l.Names.Activity, l.Names.Keyed, l.Names.Table())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if kv.Value != nil {
				got[c.Name+" "+kv.Key] = *kv.Value
			}
		}
	}
	for key, want := range map[string]string{
		"clicks message.timestamp.type":              "LogAppendTime",
		"clicks.keyed cleanup.policy":                "delete",
		"clicks.keyed max.message.bytes":             strconv.Itoa(maxBatchBytes),
		"spate-detector.clicks-table cleanup.policy": "compact,delete",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
}

func TestEnsureRefuses(t *testing.T) {
	names := NamesFor(DefaultTopic)
	for _, c := range []struct {
		name       string
		partitions int32
		topic      string
		has        int32
		config     map[string]string
		says       string // empty: it fits
	}{
		{"another count than asked for", 4, names.Activity, 8, nil, "the number of partitions of activity is 8, but must be 4"},
		{"a keyed topic of its own count", 4, names.Keyed, 2, nil, "the number of partitions of activity.keyed is 2, but must be 4"},
		{"a table that does not match", 0, names.Table(), 7, nil, "the number of partitions of spate-detector-table is 7, but must be 4"},
		{"a log that is compacted", 4, names.Keyed, 4, map[string]string{"cleanup.policy": "compact", "max.message.bytes": "9000000"}, "cleanup.policy=compact, but it must be delete"},
		{"a log that takes no batch", 4, names.Keyed, 4, map[string]string{"max.message.bytes": "1000"}, "max.message.bytes=1000, but it must be at least"},
		{"a topic of events with too many partitions", 0, names.Activity, 901, nil, "the maximum is 900"},
		{"too many partitions", 901, names.Activity, 8, nil, "the maximum is 900"},
		{"a topic of events as its producers made it", 0, names.Activity, 8, map[string]string{"max.message.bytes": "1000"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			adm := admin(t)
			config := map[string]*string{}
			for k, v := range c.config {
				config[k] = kadm.StringPtr(v)
			}
			if c.topic == names.Table() && c.config == nil {
				config["cleanup.policy"] = kadm.StringPtr("compact")
			}
			if _, err := adm.CreateTopic(t.Context(), c.has, 1, config, c.topic); err != nil {
				t.Fatal(err)
			}
			_, err := Layout{Names: names, Partitions: c.partitions}.Ensure(t.Context(), adm)
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says != "" && (!errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), c.says)):
				t.Errorf("%v, want one that says %q", err, c.says)
			}
		})
	}
}

func TestEnsureWaitsForTheBroker(t *testing.T) {
	port, release, err := testport.Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	cl, err := kgo.NewClient(Config{Brokers: []string{addr}}.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var log logged
	l := Layout{Names: NamesFor(DefaultTopic)}

	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	_, err = l.EnsureWhenReady(ctx, cl, []string{addr}, slog.New(slog.NewTextHandler(&log, nil)), func(string) {})
	cancel()
	if err == nil {
		t.Fatal("topics without a broker")
	}
	done := make(chan error, 1)
	go func() {
		_, err := l.EnsureWhenReady(t.Context(), cl, []string{addr}, slog.New(slog.NewTextHandler(&log, nil)), func(string) {})
		done <- err
	}()
	log.wait(t, "broker is not responding")
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it does not see that the broker is there")
	}
}

// logged collects log lines.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) wait(t *testing.T, what string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		l.mu.Lock()
		ok := strings.Contains(l.b.String(), what)
		l.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log never says %q", what)
		}
	}
}

func TestInstance(t *testing.T) {
	service := fmt.Sprintf("test-%d", time.Now().UnixNano())
	one, release, err := Instance(service)
	if err != nil {
		t.Fatal(err)
	}
	two, release2, err := Instance(service)
	if err != nil {
		t.Fatal(err)
	}
	defer release2()
	if one == two {
		t.Errorf("two processes are called %s", one)
	}
	release()
	again, release3, err := Instance(service)
	if err != nil || again != one {
		t.Errorf("the next life is called %s, not %s: %v", again, one, err)
	}
	release3()
}

// A directory that another user could have prepared is not used; the name comes from the next one.
func TestInstanceInASquattedFolder(t *testing.T) {
	for name, squat := range map[string]func(t *testing.T, path string) error{
		"symbolic link": func(t *testing.T, path string) error { return os.Symlink(t.TempDir(), path) },
		"dangling link": func(t *testing.T, path string) error { return os.Symlink("/nowhere/spate", path) },
		"file":          func(t *testing.T, path string) error { return os.WriteFile(path, nil, 0o600) },
		"others can write": func(t *testing.T, path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777))
		},
		"another user's": func(t *testing.T, path string) error {
			if os.Getuid() != 0 {
				testskip.Missing(t, "only root can give a directory away")
			}
			return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 65534, 65534))
		},
	} {
		t.Run(name, func(t *testing.T) {
			tmp, cache := t.TempDir(), t.TempDir()
			t.Setenv("TMPDIR", tmp)
			t.Setenv("XDG_CACHE_HOME", cache)
			squatted := filepath.Join(tmp, fmt.Sprintf("spate-%d", os.Getuid()))
			if err := squat(t, squatted); err != nil {
				t.Fatal(err)
			}
			one, release, err := Instance("test")
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			two, release, err := Instance("test")
			if err != nil || one == two {
				t.Fatalf("two processes are called %s and %s, %v", one, two, err)
			}
			defer release()
			if files, err := os.ReadDir(filepath.Join(cache, "spate")); err != nil || len(files) != 2 {
				t.Errorf("locks: %v, %v", files, err)
			}
			if files, err := os.ReadDir(squatted); err == nil && len(files) > 0 {
				t.Errorf("there are locks in the squatted directory: %v", files)
			}
		})
	}
	t.Run("link for a lock", func(t *testing.T) {
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		dir, precious := filepath.Join(tmp, fmt.Sprintf("spate-%d", os.Getuid())), filepath.Join(tmp, "precious")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink(precious, filepath.Join(dir, "test-0.lock"))); err != nil {
			t.Fatal(err)
		}
		if name, release, err := Instance("test"); err == nil {
			release()
			t.Errorf("%s has its lock behind a symbolic link", name)
		}
		if _, err := os.Lstat(precious); err == nil {
			t.Error("the link was followed")
		}
	})
}
