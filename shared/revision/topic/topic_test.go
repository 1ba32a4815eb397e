package topic

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/revision/revisiontest"
	"spate/shared/rule"
)

type bed struct {
	t      *testing.T
	broker *kfake.Cluster
	cfg    kafka.Config
	names  kafka.Names
	adm    *kadm.Client
	cl     *kgo.Client
}

func newBed(t *testing.T) *bed {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &bed{t: t, broker: c, cfg: kafka.Config{Brokers: c.ListenAddrs()}, names: kafka.NamesFor(kafka.DefaultTopic)}
	b.connect()
	return b
}

func (b *bed) connect() {
	b.t.Helper()
	cl, err := kgo.NewClient(b.cfg.Options()...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	b.cl, b.adm = cl, kadm.NewClient(cl)
}

func (b *bed) topics() {
	b.t.Helper()
	if _, err := (kafka.Layout{Names: b.names, Partitions: 2}).Ensure(b.t.Context(), b.adm); err != nil {
		b.t.Fatal(err)
	}
}

// reader has read what there is.
func (b *bed) reader() *Reader {
	b.t.Helper()
	initial, err := rule.Burst(10*time.Second, 5, 10)
	if err != nil {
		b.t.Fatal(err)
	}
	r := NewReader(b.cfg, b.adm, b.names, initial)
	if _, err := r.Look(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return r
}

func TestAppendAndLook(t *testing.T) {
	b := newBed(t)
	if _, err := NewReader(b.cfg, b.adm, b.names, &rule.Set{}).Look(t.Context()); !errors.Is(err, ErrNoTopic) {
		t.Error(err)
	}
	b.connect() // a client remembers for a while what it was told
	b.topics()
	one, two := b.reader(), b.reader()
	e, err := one.Append(t.Context(), revision.Record{Source: revisiontest.Source(1), Beginning: true, Author: "ann"})
	if err != nil || e.Revision != 1 || e.BoundaryMS != 0 || e.AtMS < time.Now().Add(-time.Minute).UnixMilli() {
		t.Fatalf("%+v, %v", e, err)
	}
	if changed, err := two.Look(t.Context()); !changed || err != nil || two.Revision() != 1 {
		t.Errorf("%v, %v", changed, err)
	}
	if changed, err := two.Look(t.Context()); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	// What is no revision has no effect, and nobody trips over it.
	if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: b.names.Rules, Value: []byte("garbage")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if e, err := two.Append(t.Context(), revision.Record{Source: revisiontest.Source(2)}); err != nil || e.Revision != 2 || len(two.Ignored()) != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	// Who has not read the second one cannot write a second one.
	if _, err := one.Append(t.Context(), revision.Record{Source: revisiontest.Source(3)}); !errors.Is(err, revision.ErrOvertaken) || one.Revision() != 2 {
		t.Errorf("revision %d, %v", one.Revision(), err)
	}
	// Rules that nobody can evaluate are not written.
	bad := revision.Source{Name: "a", Text: "SELECT 1"}
	if _, err := one.Append(t.Context(), revision.Record{Source: bad}); err == nil || b.reader().Revision() != 2 {
		t.Error(err)
	}
	// An aborted transaction has written nothing.
	cl, err := kgo.NewClient(b.cfg.Options(kgo.TransactionalID("t"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	value, err := revision.Record{Revision: 3, Source: revisiontest.Source(4)}.Encode()
	if err == nil {
		err = cl.BeginTransaction()
	}
	if err == nil {
		err = cl.ProduceSync(t.Context(), &kgo.Record{Topic: b.names.Rules, Value: value}).FirstErr()
	}
	// While it is open, a revision could not be read. It is not written, because it would be in force nevertheless.
	if _, err := two.Append(t.Context(), revision.Record{Source: revisiontest.Source(5)}); !errors.Is(err, ErrHeldBack) {
		t.Error(err)
	}
	if err == nil {
		err = cl.EndTransaction(t.Context(), kgo.TryAbort)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := b.reader(); r.Revision() != 2 {
		t.Errorf("revision %d", r.Revision())
	}
}

// TestAppendAtOnce: of several that are applied at the same time, one is the next revision. The others are told, and can try again.
func TestAppendAtOnce(t *testing.T) {
	b := newBed(t)
	b.topics()
	if writers, ignored := revisiontest.AtOnce(t, b.reader); ignored != writers-1 {
		t.Errorf("%d of %d records are ignored", ignored, writers)
	}
}

// TestBrokerIsAway: the rules are applied or not, and who applied them is told which.
func TestBrokerIsAway(t *testing.T) {
	b := newBed(t)
	b.topics()
	r := b.reader()
	b.broker.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := r.Append(ctx, revision.Record{Source: revisiontest.Source(1)}); err == nil || !strings.Contains(err.Error(), "write revision 1 to topic activity.rules") || !strings.Contains(err.Error(), "it is unknown whether revision 1 is in force") {
		t.Error(err)
	}
	if _, err := r.Look(ctx); err == nil || !strings.Contains(err.Error(), "read the rules from topic activity.rules") {
		t.Error(err)
	}
}

// TestTopicIsRemade: a log that has become shorter is not taken for the one that was read.
func TestTopicIsRemade(t *testing.T) {
	b := newBed(t)
	b.topics()
	r := b.reader()
	if _, err := r.Append(t.Context(), revision.Record{Source: revisiontest.Source(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.adm.DeleteTopics(t.Context(), b.names.Rules); err != nil {
		t.Fatal(err)
	}
	b.connect()
	b.topics()
	if _, err := r.Look(t.Context()); err == nil || !strings.Contains(err.Error(), "deleted and recreated") {
		t.Error(err)
	}
}

func TestBegun(t *testing.T) {
	b := newBed(t)
	begun := func(want bool) {
		t.Helper()
		if got, err := NewReader(b.cfg, b.adm, b.names, &rule.Set{}).Begun(t.Context()); got != want || err != nil {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	begun(false)
	b.topics()
	begun(false)
	cl, err := kgo.NewClient(b.cfg.Options(kgo.ConsumerGroup(b.names.RouterGroup), kgo.ConsumeTopics(b.names.Activity))...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		if _, generation := cl.GroupMetadata(); generation > 0 {
			break
		}
	}
	begun(true)
	cl.Close()
	begun(false)
	if err := b.cl.ProduceSync(t.Context(), &kgo.Record{Topic: b.names.Keyed, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	begun(true)
}

// TestNoAnswer: a revision that was sent to a broker that does not answer is not waited for, and is not in force.
func TestNoAnswer(t *testing.T) {
	was := writeTime
	writeTime = time.Second
	defer func() { writeTime = was }()
	b := newBed(t)
	b.topics()
	r := b.reader()
	b.broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.broker.KeepControl()
		return nil, errors.New("no answer"), true
	})
	_, err := r.Append(t.Context(), revision.Record{Source: revisiontest.Source(1)})
	if err == nil || !strings.Contains(err.Error(), "write revision 1 to topic activity.rules") || !strings.Contains(err.Error(), "spate rules history") || r.Revision() != 0 {
		t.Error(err)
	}
}
