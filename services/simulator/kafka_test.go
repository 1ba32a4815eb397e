package simulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
)

func broker(t testing.TB, opts ...kfake.Opt) []string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(4, "activity")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

// consume reads n records of the topic.
func consume(t testing.TB, brokers []string, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics("activity"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(out), n, err)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

func TestKafka(t *testing.T) {
	for _, key := range []string{KeyCategory, KeyUser, KeyNone} {
		t.Run(key, func(t *testing.T) {
			brokers := broker(t)
			rows := generated(t, func(c *Config) { c.Events = 3000 })
			for i := range rows {
				if i%10 == 0 {
					rows[i].Event.CategoryID, rows[i].Event.UserID = "", ""
				}
			}
			type place struct {
				partition int32
				key       string
				hasKey    bool
				value     string
			}
			want := make(map[place]int)
			for i := range rows {
				e := &rows[i].Event
				k := map[string]string{KeyCategory: e.CategoryID, KeyUser: e.UserID}[key]
				p := int32(i % 4)
				if k != "" {
					p = kafka.PartitionFor([]byte(k), 4)
				}
				want[place{p, k, k != "", string(e.AppendJSON(nil))}]++
			}
			cfg := Default()
			cfg.Speed, cfg.Key, cfg.Source = 0, key, &sliceSource{rows}
			cfg.Kafka.Brokers = brokers
			acked := make(map[string]Row)
			cfg.OnSent = func(r Row, partition int32, offset int64) { acked[fmt.Sprint(partition, "/", offset)] = r }
			res := mustRun(t, cfg)
			if res.Sent != 3000 || len(acked) != 3000 {
				t.Fatalf("sent %d, %d told", res.Sent, len(acked))
			}
			got := make(map[place]int)
			for _, rec := range consume(t, brokers, 3000) {
				got[place{rec.Partition, string(rec.Key), rec.Key != nil, string(rec.Value)}]++
				r := acked[fmt.Sprint(rec.Partition, "/", rec.Offset)]
				if string(r.Event.AppendJSON(nil)) != string(rec.Value) {
					t.Fatalf("another row was told to be at %d/%d", rec.Partition, rec.Offset)
				}
			}
			if d := cmp.Diff(want, got, cmp.AllowUnexported(place{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPartition(t *testing.T) {
	for row := range int64(9) {
		if p := Partition(nil, row, 4); p != int32(row%4) {
			t.Errorf("row %d without a key goes to %d", row, p)
		}
		if p := Partition([]byte("2053013555631882655"), row, 4); p != kafka.PartitionFor([]byte("2053013555631882655"), 4) {
			t.Errorf("row %d with a key goes to %d", row, p)
		}
	}
	if p := Partition(nil, 1<<40+3, 4); p != 3 {
		t.Errorf("a late row goes to %d", p)
	}
}

// TestKafkaBacklog: batches as large as they get are not refused, with a topic's default max.message.bytes.
func TestKafkaBacklog(t *testing.T) {
	brokers := broker(t, kfake.SeedTopics(1, "one"))
	cfg := Default()
	cfg.Speed, cfg.Events, cfg.Topic, cfg.Key = 0, 60_000, "one", KeyNone
	cfg.Kafka.Brokers = brokers
	if res := mustRun(t, cfg); res.Sent != 60_000 {
		t.Errorf("sent %d", res.Sent)
	}
}

func TestKafkaWithoutTheTopic(t *testing.T) {
	cfg := Default()
	cfg.Events, cfg.Topic = 10, "missing"
	cfg.Kafka.Brokers = broker(t)
	_, err := Run(t.Context(), cfg)
	if !errors.Is(err, ErrNoTopic) || !strings.Contains(err.Error(), "topic missing does not exist on "+cfg.Kafka.Brokers[0]+"; start `spate up`") {
		t.Errorf("error %v", err)
	}
}

// TestKafkaBrokerAway: a run waits for its broker, says so, and can be interrupted.
func TestKafkaBrokerAway(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := &syncBuffer{onWrite: func(s string) {
		if strings.Contains(s, "waiting for the broker") {
			cancel()
		}
	}}
	cfg := Default()
	cfg.Events = 10
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	if res, err := Run(ctx, cfg); err != nil || !res.Interrupted || res.Sent != 0 {
		t.Errorf("got %+v, error %v", res, err)
	}
}

// TestKafkaBrokerNeverComes: a run whose broker does not come within a minute fails, with the setting and the address.
func TestKafkaBrokerNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		cfg := Default()
		cfg.Events = 10
		cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		begin := time.Now()
		_, err := Run(t.Context(), cfg)
		if err == nil || !strings.HasPrefix(err.Error(), "brokers: waited 60 s for a broker at 127.0.0.1:1: ") || !strings.Contains(err.Error(), "is the broker running, and is this its port (SPATE_BROKERS, --brokers)?") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took != brokerWait {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(log.b.String(), "brokers=127.0.0.1:1 gives_up_in=57s") {
			t.Error(log.b.String())
		}
	})
}

// TestKafkaBehindAProxy puts a proxy in front of a broker that restarts. The proxy accepts connections and drops them, as load balancers
// and Docker's proxy do. Events that are sent in the meantime wait.
func TestKafkaBehindAProxy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds; -short is set")
	}
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var mu sync.Mutex
	var open []net.Conn
	var until time.Time // connections are dropped
	dropped := 0
	brokers := broker(t, kfake.ListenFn(func(network, address string) (net.Listener, error) {
		behind, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				if time.Now().Before(until) {
					dropped++
					conn.Close()
				} else if to, err := net.Dial(network, behind.Addr().String()); err == nil {
					open = append(open, conn)
					go io.Copy(to, conn) //nolint:errcheck // it ends with the connection
					go io.Copy(conn, to) //nolint:errcheck // likewise
				}
				mu.Unlock()
			}
		}()
		return advertised{behind, ln.Addr()}, nil
	}))
	cfg := Default()
	cfg.Speed, cfg.Rate, cfg.Events, cfg.Kafka = 0, 100, 500, kafka.Config{Brokers: brokers}
	cfg.Key = KeyNone // all partitions wait
	sent := 0
	cfg.OnSent = func(Row, int32, int64) {
		if sent++; sent == 50 {
			mu.Lock()
			defer mu.Unlock()
			until = time.Now().Add(8 * time.Second)
			for _, conn := range open {
				conn.Close()
			}
		}
	}
	if r, err := Run(t.Context(), cfg); err != nil || r.Sent != 500 {
		t.Errorf("%+v, %v", r, err)
	}
	if dropped == 0 {
		t.Error("no connection was dropped")
	}
}

// advertised is a listener that is reached at another address.
type advertised struct {
	net.Listener
	addr net.Addr
}

func (a advertised) Addr() net.Addr { return a.addr }

func TestKafkaInterrupted(t *testing.T) {
	brokers := broker(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := Default()
	cfg.Rate = 20_000 // endless
	cfg.Kafka.Brokers = brokers
	told := 0
	cfg.OnSent = func(Row, int32, int64) {
		if told++; told == 500 {
			cancel()
		}
	}
	res, err := Run(ctx, cfg)
	if err != nil || !res.Interrupted || res.Sent < 500 || res.Sent != int64(told) {
		t.Fatalf("sent %d, told %d, interrupted %v, error %v", res.Sent, told, res.Interrupted, err)
	}
	if n := len(consume(t, brokers, int(res.Sent))); n != int(res.Sent) {
		t.Errorf("%d records in the topic, %d sent", n, res.Sent)
	}
}

// TestKafkaRefusal: a record that the broker refuses ends the run with the reason.
func TestKafkaRefusal(t *testing.T) {
	cfg := Default()
	cfg.Speed = 0
	row := Row{}
	row.Event.Brand = strings.Repeat("x", 2<<20)
	cfg.Source = &sliceSource{[]Row{row}}
	cfg.Kafka.Brokers = broker(t)
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "send to Kafka: MESSAGE_TOO_LARGE") {
		t.Errorf("error %v", err)
	}
}

type syncBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	onWrite func(string)
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onWrite != nil {
		s.onWrite(string(p))
	}
	return s.b.Write(p)
}

var _ io.Writer = (*syncBuffer)(nil)
