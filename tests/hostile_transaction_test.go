package tests

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/tests/harness"
)

// transaction is one of a producer of events.
type transaction struct {
	s  *site
	id string
	cl *kgo.Client
}

// begunTransaction begins one.
func begunTransaction(s *site) *transaction {
	s.t.Helper()
	x := &transaction{s: s, id: "producer-of-" + s.names.Activity}
	x.cl = s.connect(kgo.TransactionalID(x.id))
	x.begin()
	return x
}

func (x *transaction) begin() {
	x.s.t.Helper()
	if err := x.cl.BeginTransaction(); err != nil {
		x.s.t.Fatal(err)
	}
}

// write writes n events of a user.
func (x *transaction) write(user string, n int, partition int32, at time.Time) {
	x.s.t.Helper()
	var records []*kgo.Record
	for range n {
		records = append(records, &kgo.Record{Topic: x.s.names.Activity, Partition: partition, Value: event(user, at)})
	}
	if err := x.cl.ProduceSync(x.s.t.Context(), records...).FirstErr(); err != nil {
		x.s.t.Fatal(err)
	}
}

func (x *transaction) end(how kgo.TransactionEndTry) {
	x.s.t.Helper()
	if err := x.cl.EndTransaction(x.s.t.Context(), how); err != nil {
		x.s.t.Fatal(err)
	}
}

// names fails the test if a page of /readyz does not say who holds partition 0 back.
func (x *transaction) named(page string) bool {
	return regexp.MustCompile(`partition 0 of `+regexp.QuoteMeta(x.s.names.Activity)+` has been held back at offset \d+.*producer \d+`).MatchString(page) && strings.Contains(page, x.id)
}

// around writes events of a user, 20 into each partition: in partition 0, the same again behind an open transaction with 10.
func around(s *site) *transaction {
	s.t.Helper()
	now := time.Now()
	s.send("user", 20, now, 0)
	x := begunTransaction(s)
	x.write("user", 10, 0, now)
	s.send("user", 20, now, 0, 1, 2, 3)
	s.awaitMetric(counted, 80)
	return x
}

// TestOpenTransaction: what is in an open transaction, and behind it, counts when it ends. Windows wait for it, and /readyz tells whose it is.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		x := around(s)
		// Without it, the windows would be closed by now: after window, lateness and idle timeout, which are 5 s.
		harness.Eventually(t, 30*time.Second, "it is held for a while", func() bool { return s.metric("spate_router_held_seconds") > 9 })
		if code, page := s.Get("/readyz"); code != http.StatusOK || !x.named(page) {
			t.Errorf("/readyz %d %s", code, page)
		}
		if n, lag := s.metric("spate_router_held_partitions"), s.metric("spate_router_lag_events"); n != 1 || lag != 30 {
			t.Errorf("%v partitions are held, lag %v", n, lag)
		}
		if got, _ := s.closed(); len(got) != 0 {
			t.Errorf("closed while it is open: %v", got)
		}
		x.end(kgo.TryCommit)
		s.awaitClosed(map[string]int64{"user": 110})
		if got, open := s.closed(); got["user"].Alerts != 1 || open != 0 {
			t.Errorf("closed are %v, open %d", got, open)
		}
		s.awaitMetric("spate_router_held_partitions", 0)
		s.awaitMetric("spate_router_lag_events", 0)
		harness.Eventually(t, 20*time.Second, "/readyz forgets it", func() bool { _, page := s.Get("/readyz"); return !strings.Contains(page, "held back") })
		s.sound()
	})
}

// TestOpenTransactionForTooLong: after the time that is set, windows do not wait any more. The service is not ready then, and what comes late is
// told as late.
func TestOpenTransactionForTooLong(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers, "SPATE_OPEN_TRANSACTION_TIMEOUT=3s").begin()
		x := around(s)
		s.awaitClosed(map[string]int64{"user": 80})
		var page string
		harness.Eventually(t, 30*time.Second, "/readyz tells of it", func() bool {
			var code int
			code, page = s.Get("/readyz")
			return code == http.StatusServiceUnavailable && x.named(page) && strings.Contains(page, "SPATE_OPEN_TRANSACTION_TIMEOUT")
		})
		s.said("ERROR", "open transaction.*"+x.id)
		x.end(kgo.TryCommit)
		s.awaitMetric(`spate_router_events_total{fate="late",reason="idle"}`, 30)
		s.awaitReady()
		s.send("after", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"user": 80, "after": 80})
		if n := s.metric(late); n != 30 {
			t.Errorf("%v events are late", n)
		}
		s.quiet()
	})
}

// TestAbortedTransaction: nothing of it counts, and it does not hold windows open.
func TestAbortedTransaction(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		x := around(s)
		x.end(kgo.TryAbort)
		s.awaitClosed(map[string]int64{"user": 100})
		s.awaitMetric(counted, 100)
		x.begin()
		x.write("nobody", 20, 0, time.Now())
		x.end(kgo.TryAbort) // it is the last thing in its partition
		s.send("after", 20, time.Now(), 1, 2, 3)
		s.awaitClosed(map[string]int64{"user": 100, "after": 60})
		if got, _ := s.closed(); len(got) != 2 {
			t.Errorf("closed are %v", got)
		}
		s.sound()
	})
}

// TestTransactionsInARow: a producer that has a transaction open all the time, for longer than the idle timeout each, gets what it sent.
func TestTransactionsInARow(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		want := make(map[string]int64)
		x := begunTransaction(s)
		for i := range 5 {
			if i > 0 {
				x.begin()
			}
			user := "user" + string('a'+rune(i))
			x.write(user, 20, 0, time.Now())
			s.send(user, 20, time.Now(), 1)
			want[user] = 40
			<-time.After(2 * time.Second) // the pace of the producer
			x.write(user, 20, 0, time.Now())
			want[user] += 20
			x.end(kgo.TryCommit)
		}
		s.awaitClosed(want)
		s.sound()
	})
}
