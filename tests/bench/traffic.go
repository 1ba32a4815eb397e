package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
)

// traffic sends events with the shape of the reference's, whose users and times are made to the measure of a section. Zero values are
// told with each field.
type traffic struct {
	topic string
	rate  float64 // events per second of wall clock; 0 is as fast as the broker takes them
	// pick tells the user and the event time of event i; now is the wall clock, milliseconds.
	pick func(i, now int64) (user, ts int64)
	// until ends it after so many events; 0 is when ctx ends.
	until int64
}

// Users of different kinds never have the same number.
const (
	firstShopper  = 512_000_000
	firstAttacker = 900_000_000
	firstVictim   = 2_000_000_000 // of the recovery: users whose alerts are waited for
)

// burst is how many events an attacker sends in a window: more than any threshold that is measured with.
const burst = 10

// crowd is live traffic: shoppers, of whom hardly any has more than a few events in a window, and attackers, who send attacks events
// per second in all, each a burst in a window of 10 s. Events come up to half a second late.
func crowd(rate, attacks float64) func(i, now int64) (user, ts int64) {
	rng := rand.New(rand.NewPCG(1, uint64(rate)))
	shoppers, share := int64(max(rate*20, 1000)), attacks/rate
	each := int64(max(attacks*10/burst, 1)) // attackers in a window
	return func(_, now int64) (user, ts int64) {
		ts = now - rng.Int64N(500)
		if rng.Float64() < share {
			return firstAttacker + ts/10_000%1_000_000*each + rng.Int64N(each), ts
		}
		return firstShopper + rng.Int64N(shoppers), ts
	}
}

// flood is of users who come once, as many a second of event time as rate says, from a time on.
func flood(rate float64, fromMS int64) func(i, now int64) (user, ts int64) {
	return func(i, _ int64) (user, ts int64) {
		return firstShopper + i, fromMS + int64(float64(i)*1000/rate)
	}
}

// send sends until it is done or ctx ends, which is not an error, and tells how many events there were. sent follows, if it is not nil.
func (b *bench) send(ctx context.Context, t traffic, sent *atomic.Int64) (int64, error) {
	cl, err := kgo.NewClient(b.kafka.Options(kgo.DefaultProduceTopic(t.topic), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(2*time.Millisecond),
		kgo.ProducerBatchMaxBytes(900_000), kgo.MaxBufferedRecords(50_000), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))...)
	if err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	defer cl.Close()
	var failed atomic.Pointer[error]
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	}
	through := context.WithoutCancel(ctx) // what was begun is sent, whatever ends the traffic
	body, began := newBody(), time.Now()
	var i int64
	for ctx.Err() == nil && failed.Load() == nil && (t.until == 0 || i < t.until) {
		now := time.Now()
		due := i + 1000
		if t.rate > 0 {
			if due = int64(now.Sub(began).Seconds() * t.rate); due <= i {
				wait(ctx, time.Millisecond)
				continue
			}
		}
		if t.until > 0 {
			due = min(due, t.until)
		}
		for ; i < due; i++ {
			user, ts := t.pick(i, now.UnixMilli())
			key, value := body.event(user, ts)
			cl.Produce(through, &kgo.Record{Key: key, Value: value}, promise)
		}
		if sent != nil {
			sent.Store(i)
		}
	}
	flush, cancel := context.WithTimeout(through, 5*time.Minute)
	defer cancel()
	if err := cl.Flush(flush); err != nil {
		return i, fmt.Errorf("send: %w", err)
	}
	if err := failed.Load(); err != nil {
		return i, fmt.Errorf("send to %s: %w", t.topic, *err)
	}
	return i, nil
}

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// body makes the events' JSON.
type body struct {
	rng        *rand.Rand
	zipf       *rand.Zipf
	categories [200][]byte
	slab       []byte
}

func newBody() *body {
	rng := rand.New(rand.NewPCG(2, 3))
	w := &body{rng: rng, zipf: rand.NewZipf(rng, 1.3, 5, 199)} // of categories, as the reference has it
	for i := range w.categories {
		w.categories[i] = strconv.AppendInt(nil, 2053013555631882655+int64(i)*7919, 10)
	}
	return w
}

// event returns the key, which is the category, and the value.
func (w *body) event(user, tsMS int64) (key, value []byte) {
	const room = 384
	if cap(w.slab)-len(w.slab) < room {
		w.slab = make([]byte, 0, 256<<10) // one allocation for hundreds of events
	}
	begin := len(w.slab)
	b, at, r := w.slab, time.UnixMilli(tsMS).UTC(), w.rng.Uint64()
	key = w.categories[w.zipf.Uint64()]
	b = append(b, `{"event_time": "`...)
	b = at.AppendFormat(b, "2006-01-02 15:04:05 UTC")
	b = append(b, `", "event_type": "view", "product_id": `...)
	b = strconv.AppendUint(b, 10_000_000+r%50_000_000, 10)
	b = append(b, `, "category_id": `...)
	b = append(b, key...)
	b = append(b, `, "category_code": "electronics.smartphone", "brand": "samsung", "price": `...)
	b = strconv.AppendUint(b, 100+r>>32%900, 10)
	b = append(b, `.99, "user_id": `...)
	b = strconv.AppendInt(b, user, 10)
	b = append(b, `, "user_session": "`...)
	b = strconv.AppendUint(b, 1<<63|r, 16)
	b = append(b, `-4f0c-8a51-3f2b7c9d", "txn_timestamp": "`...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000")
	b = append(b, `"}`...)
	w.slab = b
	return key, b[begin:len(b):len(b)]
}

// end closes all windows: an event in every partition, far ahead of all others.
func (b *bench) end(ctx context.Context, topic string, partitions int, tsMS int64) error {
	cl, err := kgo.NewClient(b.kafka.Options(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return fmt.Errorf("end of %s: %w", topic, err)
	}
	defer cl.Close()
	w := newBody()
	for p := range partitions {
		_, value := w.event(firstVictim-1-int64(p), tsMS)
		if err := cl.ProduceSync(ctx, &kgo.Record{Partition: int32(p), Value: value}).FirstErr(); err != nil {
			return fmt.Errorf("end of %s: %w", topic, err)
		}
	}
	return nil
}

// usersOf returns a source of new users whose state lies in the partitions of the keyed log in turn.
func usersOf(partitions int32) func() int64 {
	next, turn := int64(firstVictim), int32(0)
	return func() int64 {
		for {
			user := next
			next++
			if kafka.PartitionFor(strconv.AppendInt(nil, user, 10), partitions) == turn {
				turn = (turn + 1) % partitions
				return user
			}
		}
	}
}
