package tests

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"spate/shared/kafka"
	"spate/tests/harness"
)

// TestForgottenTransaction: a Kafka that was killed can keep what a router wrote in a transaction, and its offsets, and know nothing of the transaction. Nobody would
// ever end it, and no router could go on. The router of the same name ends it when it starts.
func TestForgottenTransaction(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Kafka; -short is set")
	}
	t.Parallel()
	broker := harness.OwnKafka(t, "transaction.partition.verification.enable=false") // so that it can be made
	broker.Up()
	names := kafka.NamesFor("activity")
	const instance = "router-1"
	start := func() *harness.Process {
		p := harness.Spate(t, "route", []string{"SPATE_BROKERS=" + broker.Addr, "SPATE_INSTANCE=" + instance, "SPATE_IDLE_TIMEOUT=0"}, "route")
		p.Start()
		return p
	}
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.Produce.Int16(), 11) // those behind begin a transaction
	versions.SetMaxKeyVersion(kmsg.TxnOffsetCommit.Int16(), 4)
	cl := harness.Connect(t, broker.Addr, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(instance))
	plain := harness.Connect(t, broker.Addr, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxVersions(versions))
	adm := kadm.NewClient(plain)
	stable := func(p int32) (stable, end int64) {
		t.Helper()
		bounds, err := kafka.ListBounds(t.Context(), adm, names.Keyed)
		if err != nil {
			return -1, -1
		}
		return bounds[p].Stable, bounds[p].End
	}
	send := func() {
		t.Helper()
		if err := plain.ProduceSync(t.Context(), &kgo.Record{Topic: names.Activity, Value: event("1", time.Now())}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	routed := func(beyond int64) func() bool {
		return func() bool {
			at, end := stable(0)
			return at > beyond && at == end
		}
	}
	p := start()
	harness.Eventually(t, time.Minute, "the topics are there", func() bool { _, end := stable(0); return end >= 0 })
	send()
	harness.Eventually(t, time.Minute, "an event is routed", routed(0))
	p.Kill()

	// What a router writes in a transaction, without the transaction.
	id, epoch, err := cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wire := harness.Batch{Records: 1, Size: 10}.Encode(t)
	binary.BigEndian.PutUint16(wire[21:], 0x10) // it is part of a transaction
	binary.BigEndian.PutUint64(wire[43:], uint64(id))
	binary.BigEndian.PutUint16(wire[51:], uint16(epoch))
	binary.BigEndian.PutUint32(wire[53:], 0)
	if _, err := harness.SendTransactional(t, plain, instance, names.Keyed, 0, harness.Sealed(wire)); err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = instance, names.RouterGroup, id, epoch
	to, part := kmsg.NewTxnOffsetCommitRequestTopic(), kmsg.NewTxnOffsetCommitRequestTopicPartition()
	to.Topic, part.Offset = names.Activity, 1
	to.Partitions = append(to.Partitions, part)
	req.Topics = append(req.Topics, to)
	resp, err := req.RequestWith(t.Context(), plain)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("commit an offset: %v", err)
	}
	// It does not end with the producer's next life, as others do.
	if _, _, err := harness.Connect(t, broker.Addr, kgo.TransactionalID(instance)).ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	at, end := stable(0)
	if at >= end {
		t.Fatalf("the keyed log can be read up to %d of %d: there is no forgotten transaction", at, end)
	}

	p = start()
	send()
	harness.Eventually(t, time.Minute, "events are routed again", routed(end))
	if err := p.Stop(time.Minute); err != nil {
		t.Errorf("stop: %v\n%s", err, p.Output())
	}
}
