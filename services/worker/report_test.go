package worker

import (
	"testing"
	"time"
)

// TestReport: while everything is silent, the worker goes on to save what people are shown; and a shard that was not read is not said to be up to date.
func TestReport(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	cfg.IdleTimeout = 200 * time.Millisecond
	r.put(burst(6, 1, 1000, 0)...)
	stop := r.start(cfg)
	var got Report
	read := func() bool {
		st, ok := r.state()
		if !ok {
			return false
		}
		b, err := st.encode()
		if err == nil {
			got, err = ReadReport(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	r.eventually("both shards are silent", func() bool {
		return read() && len(got.Shards) == 2 && !got.Shards[0].Silent.IsZero() && !got.Shards[1].Silent.IsZero()
	})
	last := got.Saved
	r.eventually("it saves again", func() bool { return read() && got.Saved.After(last) })
	stop()
	if got.In != 6 || got.Late != 0 || got.Invalid != 0 || got.Alerts < 1 {
		t.Errorf("%+v", got)
	}
	if shard, seq := got.Newest(); shard == "" || seq == "" {
		t.Errorf("no newest alert: %+v", got.Written)
	}
	for _, s := range got.Shards {
		if !s.Known || s.Behind != 0 || (s.After == "") != (s.Newest < 1000) {
			t.Errorf("%+v", s)
		}
	}

	st := state{Shards: map[string]place{"b": {Cut: "9"}, "a": {Waits: true}, "c": {Ended: true}}}
	b, err := st.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err = ReadReport(b); err != nil || len(got.Shards) != 1 || got.Shards[0] != (ShardReport{ID: "b", After: "9"}) || !got.Saved.IsZero() {
		t.Errorf("a shard that was not read: %+v, %v", got, err)
	}

	var now clock
	cfg.Now = now.now
	s := shards{cfg: &cfg}
	sh := &shard{looked: now.now().UnixMilli()}
	now.advance(time.Minute)
	if seen := s.seen(sh); seen.BehindMS < time.Minute.Milliseconds() {
		t.Errorf("a shard that was not read for a minute is %d ms behind", seen.BehindMS)
	}
}
