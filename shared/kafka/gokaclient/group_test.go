package gokaclient

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"spate/shared/kafka"
)

// bed is a broker with a topic.
type bed struct {
	t   *testing.T
	cfg kafka.Config
	cl  *kgo.Client
	adm *kadm.Client
}

func newBed(t *testing.T, partitions int32) *bed {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "in", "table"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &bed{t: t, cfg: kafka.Config{Brokers: c.ListenAddrs()}}
	if b.cl, err = kgo.NewClient(b.cfg.Options(kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	b.adm = kadm.NewClient(b.cl)
	return b
}

func (b *bed) produce(partition int32, n int) {
	b.t.Helper()
	for i := range n {
		r := &kgo.Record{Topic: "in", Partition: partition, Value: fmt.Appendf(nil, "%d/%d", partition, i)}
		if err := b.cl.ProduceSync(b.t.Context(), r).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) committed(partition int32) (int64, string) {
	o, err := b.adm.FetchOffsets(b.t.Context(), "g")
	if err != nil {
		return -1, ""
	}
	r, _ := o.Lookup("in", partition)
	return r.At, r.Metadata
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// state is a Positions and a goka at once: it remembers what it was asked, and holds back what it is told to.
type state struct {
	mu      sync.Mutex
	from    map[int32]int64 // answer of Resume; the committed offset if absent
	resumed map[int32]Commit
	owned   map[int32]bool
	got     map[int32][]int64
	hold    func(offset int64) bool
	held    []*sarama.ConsumerMessage
	sess    sarama.ConsumerGroupSession
	setups  int
}

func newState() *state {
	return &state{from: map[int32]int64{}, resumed: map[int32]Commit{}, owned: map[int32]bool{}, got: map[int32][]int64{}}
}

func (s *state) Resume(p int32, c Commit, _, _ int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumed[p], s.owned[p] = c, true
	if from, ok := s.from[p]; ok {
		return from, nil
	}
	return c.Offset, nil
}

func (s *state) Position(p int32, next int64) (Commit, error) {
	return Commit{Offset: next, Metadata: fmt.Sprintf("state of %d at %d", p, next)}, nil
}
func (s *state) Committed(int32, Commit) {}
func (s *state) Revoked(p int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.owned, p)
}

func (s *state) Setup(sess sarama.ConsumerGroupSession) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sess = sess
	s.setups++
	return nil
}
func (s *state) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (s *state) ConsumeClaim(sess sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m := <-c.Messages():
			s.mu.Lock()
			s.got[c.Partition()] = append(s.got[c.Partition()], m.Offset)
			hold := s.hold != nil && s.hold(m.Offset)
			if hold {
				s.held = append(s.held, m)
			}
			s.mu.Unlock()
			if !hold {
				sess.MarkMessage(m, "")
			}
		case <-sess.Context().Done():
			return nil
		}
	}
}

func (s *state) count(p int32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got[p])
}

func (s *state) partitions() []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.owned))
}

// join runs a member of the group until the returned function is called.
func (b *bed) join(s *state) (leave func()) {
	b.t.Helper()
	g, err := GroupBuilder(GroupConfig{Kafka: b.cfg, Topic: "in", Positions: s, Every: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})(nil, "g", "")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Consume(ctx, []string{"in"}, s) }()
	return func() {
		b.t.Helper()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				b.t.Error(err)
			}
		case <-time.After(10 * time.Second):
			b.t.Error("the member does not end")
		}
	}
}

func TestGroupCommitsTheContiguousPrefix(t *testing.T) {
	b := newBed(t, 1)
	b.produce(0, 30)
	s := newState()
	s.hold = func(o int64) bool { return o == 10 }
	leave := b.join(s)
	eventually(t, "30 messages", func() bool { return s.count(0) == 30 })
	eventually(t, "a commit up to 10", func() bool { o, _ := b.committed(0); return o == 10 })
	s.mu.Lock()
	s.sess.MarkMessage(s.held[0], "")
	s.mu.Unlock()
	eventually(t, "a commit of all, with its state", func() bool {
		o, md := b.committed(0)
		return o == 30 && md == "state of 0 at 30"
	})
	leave()

	// What the next member is told is what was committed, and it reads on from there.
	b.produce(0, 5)
	s = newState()
	leave = b.join(s)
	eventually(t, "5 messages", func() bool { return s.count(0) == 5 })
	leave()
	if want := (Commit{30, "state of 0 at 30"}); s.resumed[0] != want || s.got[0][0] != 30 {
		t.Errorf("resumed with %+v, read from %d", s.resumed[0], s.got[0][0])
	}
}

// TestEndOfTransactionIsPassed: the log of a transactional producer ends with a marker, which is no message. Whoever waits for the end that the
// broker tells would wait for the next message.
func TestEndOfTransactionIsPassed(t *testing.T) {
	b := newBed(t, 1)
	cl, err := kgo.NewClient(b.cfg.Options(kgo.TransactionalID("t"), kgo.DefaultProduceTopic("in"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("message")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	s := newState()
	s.hold = func(int64) bool { return true }
	leave := b.join(s)
	defer leave()
	eventually(t, "one message", func() bool { return s.count(0) == 1 })
	s.mu.Lock()
	s.sess.MarkMessage(s.held[0], "")
	s.mu.Unlock()
	eventually(t, "a commit of both transactions", func() bool { o, _ := b.committed(0); return o == 4 })
}

// TestGroupCommitsAtTheEnd: what was done after the last commit interval is not done again.
func TestGroupCommitsAtTheEnd(t *testing.T) {
	b := newBed(t, 1)
	b.produce(0, 3)
	s := newState()
	leave := b.join(s)
	eventually(t, "3 messages", func() bool { return s.count(0) == 3 })
	leave()
	if o, _ := b.committed(0); o != 3 {
		t.Errorf("committed %d, want 3", o)
	}
}

func TestResumeHasTheLastWord(t *testing.T) {
	b := newBed(t, 2)
	b.produce(0, 10)
	b.produce(1, 10)
	s := newState()
	leave := b.join(s)
	eventually(t, "20 messages", func() bool { return s.count(0)+s.count(1) == 20 })
	leave()
	s = newState()
	s.from = map[int32]int64{0: 4, 1: -1}
	leave = b.join(s)
	eventually(t, "6 and 10 again", func() bool { return s.count(0) == 6 && s.count(1) == 10 })
	leave()
}

func TestMembersShareAndTakeOver(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*Cluster).run"))
	t.Run("group", func(t *testing.T) {
		b := newBed(t, 4)
		one, two := newState(), newState()
		leaveOne := b.join(one)
		eventually(t, "one has all", func() bool { return len(one.partitions()) == 4 })
		leaveTwo := b.join(two)
		eventually(t, "they share", func() bool { return len(one.partitions()) == 2 && len(two.partitions()) == 2 })
		for p := range int32(4) {
			b.produce(p, 10)
		}
		eventually(t, "each message once", func() bool {
			n := 0
			for p := range int32(4) {
				n += one.count(p) + two.count(p)
			}
			return n == 40
		})
		leaveOne()
		eventually(t, "two takes over", func() bool { return len(two.partitions()) == 4 })
		for p := range int32(4) {
			b.produce(p, 1)
		}
		eventually(t, "nothing is read twice or left out", func() bool {
			n := 0
			for p := range int32(4) {
				n += one.count(p) + two.count(p)
			}
			return n == 44
		})
		leaveTwo()
		if len(two.partitions()) != 0 {
			t.Error("partitions that are not given back")
		}
	})
}

func TestGroupEndsWhenGokaFails(t *testing.T) {
	b := newBed(t, 1)
	b.produce(0, 1)
	g, err := GroupBuilder(GroupConfig{Kafka: b.cfg, Topic: "in", Positions: newState(), Every: time.Second, Log: slog.New(slog.DiscardHandler)})(nil, "g", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := g.Consume(ctx, []string{"in"}, failing{newState()}); err == nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}

type failing struct{ *state }

func (failing) ConsumeClaim(sarama.ConsumerGroupSession, sarama.ConsumerGroupClaim) error {
	return fmt.Errorf("callback failed")
}

func TestProducer(t *testing.T) {
	b := newBed(t, 4)
	log := slog.New(slog.DiscardHandler)
	p, err := NewProducer(b.cfg, 4, log)
	if err != nil {
		t.Fatal(err)
	}
	acked := make(chan error, 1)
	p.Emit("in", "user", []byte("x")).Then(func(err error) { acked <- err })
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	p.Write("table", 0, "k", []byte("v"))
	p.Write("table", 3, "k", []byte("v"))
	p.Write("table", 3, "k", nil)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	tm, err := TopicManagerBuilder(b.cfg)(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tm.Close()
	home := kafka.PartitionFor([]byte("user"), 4)
	for _, c := range []struct {
		topic     string
		partition int32
		want      int64
	}{{"in", home, 1}, {"in", (home + 1) % 4, 0}, {"table", 0, 1}, {"table", 3, 2}} {
		// goka finds that there is nothing between the two.
		for _, which := range []int64{sarama.OffsetNewest, sarama.OffsetOldest} {
			if end, err := tm.GetOffset(c.topic, c.partition, which); err != nil || end != c.want {
				t.Errorf("%s/%d ends at %d, want %d: %v", c.topic, c.partition, end, c.want, err)
			}
		}
	}
	if err := tm.EnsureTableExists("table", 4); err != nil {
		t.Error(err)
	}
	if err := tm.EnsureTableExists("table", 5); err == nil {
		t.Error("another number of partitions is accepted")
	}
	var _ goka.TopicManager = tm
}

// TestConsumerIsAsked: goka asks for high-water marks every few seconds, when most tests are over.
func TestConsumerIsAsked(t *testing.T) {
	c, err := ConsumerBuilder()(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if marks := c.HighWaterMarks(); len(marks) != 0 {
		t.Errorf("%v", marks)
	}
	if _, err := c.ConsumePartition("table", 0, 0); err == nil {
		t.Error("a changelog can be read")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
