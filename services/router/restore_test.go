package router

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/window"
)

// TestSilenceIsNotInherited: a partition was idle, its router went away, and events came before the next one took over. If that one
// took the silence over with the offset, it would promise past events that it has not read, and call them late.
func TestSilenceIsNotInherited(t *testing.T) {
	was := window.Source{MaxTS: 1000, Floor: 5000, Idle: true}
	resp := kmsg.NewPtrOffsetFetchResponse()
	topic := kmsg.NewOffsetFetchResponseTopic()
	p := kmsg.NewOffsetFetchResponseTopicPartition()
	p.Partition, p.Offset, p.Metadata = 3, 17, kmsg.StringPtr(was.Metadata())
	topic.Partitions = append(topic.Partitions, p)
	resp.Topics = append(resp.Topics, topic)

	s := newSources(4, func() int64 { return 42 })
	if err := s.fetched(resp); err != nil {
		t.Fatal(err)
	}
	src := s.get(3)
	if src == nil || src.now.Idle || src.now.MaxTS != 1000 || src.now.Floor != 5000 || src.position != 17 || src.heard != 42 {
		t.Fatalf("restored as %+v", src)
	}
	if src.committed != was {
		t.Errorf("what is committed is %+v", src.committed)
	}
	src.now.Idle = true
	s.rollback()
	if src.now.Idle {
		t.Error("an aborted transaction leaves the partition idle unseen")
	}
}
