package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func startTestBroker(t *testing.T, dir string, log *slog.Logger) *Broker {
	t.Helper()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b, err := Start("127.0.0.1:0", dir, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func dial(t *testing.T, b *Broker) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// serves checks that the broker serves an honest client.
func serves(t *testing.T, b *Broker, topic string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.DefaultProduceTopic(topic), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, kgo.StringRecord("honest")).FirstErr(); err != nil {
		t.Fatalf("an honest client is not served: %v", err)
	}
}

func createTopic(t *testing.T, b *Broker, topic string, partitions int32) {
	t.Helper()
	if err := b.cluster.CreateTopic(topic, partitions, nil); err != nil {
		t.Fatal(err)
	}
}

// ended waits until the other side ends the connection.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && os.IsTimeout(err) {
		t.Fatal("the connection is still there")
	}
}

// stranger sends requests whose fields are random, or taken from answers: such ids reach further than random ones.
type stranger struct {
	r     *rand.Rand
	addr  string
	conn  net.Conn
	texts []string
	ids   [][16]byte
	nums  []int64
	heard map[string][]reflect.Value // by the name of the field
	keys  []int16

	patience time.Duration
}

func (s *stranger) fill(v reflect.Value) {
	r := s.r
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			s.fill(v.Elem())
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			return
		}
		if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
		for i := range v.NumField() {
			if f := v.Field(i); v.Type().Field(i).Name != "Version" && v.Type().Field(i).Name != "ReplicaState" && r.IntN(8) > 0 {
				s.fill(f)
				if known := s.heard[v.Type().Field(i).Name]; len(known) > 0 && r.IntN(3) > 0 {
					if k := known[r.IntN(len(known))]; k.Type() == f.Type() {
						f.Set(k)
					} else if f.Kind() == reflect.Pointer && f.Type().Elem() == k.Type() && !f.IsNil() {
						f.Elem().Set(k)
					}
				}
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(s.bytes())
			return
		}
		n := r.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			s.fill(v.Index(i))
		}
	case reflect.Array:
		if id, ok := v.Addr().Interface().(*[16]byte); ok && len(s.ids) > 0 && r.IntN(4) > 0 {
			*id = s.ids[r.IntN(len(s.ids))]
			return
		}
		for i := range v.Len() {
			s.fill(v.Index(i))
		}
	case reflect.String:
		if len(s.texts) > 0 && r.IntN(3) > 0 {
			v.SetString(s.texts[r.IntN(len(s.texts))])
			return
		}
		v.SetString([]string{"", "range", "consumer", "t0", "t1", "g", "x", "cooperative-sticky", "uniform", "cleanup.policy", "compact", "delete", "segment.bytes", "retention.ms", "retention.bytes", "max.message.bytes", "0", "-1", "1", "9223372036854775807", "(", "../../x", "\x00", "transaction.max.timeout.ms", "segment.ms", "offsets.retention.minutes", "group.consumer.session.timeout.ms", "message.timestamp.type", "state.log.compact.bytes"}[r.IntN(29)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := []int64{-1, 0, 1, 2, 10, 1000, 10000, -2, int64(r.Uint64()), 1<<63 - 1, -1 << 63, 1<<31 - 1, -1 << 31, 1<<15 - 1}[r.IntN(14)]
		if len(s.nums) > 0 && r.IntN(2) == 0 {
			n = s.nums[r.IntN(len(s.nums))]
		}
		if r.IntN(2) == 0 {
			n = int64(r.IntN(3))
		}
		for v.OverflowInt(n) {
			n >>= 8
		}
		v.SetInt(n)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(r.IntN(256)))
	case reflect.Float64:
		v.SetFloat(r.NormFloat64())
	}
}

// bytes is a batch, whole or with a wrong bit, or rubbish, or an assignment.
func (s *stranger) bytes() []byte {
	r := s.r
	if r.IntN(5) == 0 {
		b := make([]byte, r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	if r.IntN(8) == 0 {
		m := kmsg.NewConsumerMemberMetadata()
		m.Topics = []string{"t0", "t1"}
		return m.AppendTo(nil)
	}
	rec := kmsg.Record{Key: []byte("k"), Value: []byte(`{"user_id":"u","event_time":1}`)}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1)
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: int16([]int{0, 0, 0x10, 0x08, 0x18, 0x20, 0x30, 4, r.IntN(1 << 16)}[r.IntN(9)]), NumRecords: 1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, Records: rec.AppendTo(nil)}
	if r.IntN(2) == 0 {
		fields := kmsg.RecordBatch{}
		s.fill(reflect.ValueOf(&fields).Elem())
		b.ProducerID, b.ProducerEpoch, b.FirstSequence, b.FirstTimestamp, b.MaxTimestamp = fields.ProducerID, fields.ProducerEpoch, fields.FirstSequence, fields.FirstTimestamp, fields.MaxTimestamp
		if r.IntN(2) == 0 {
			b.NumRecords = fields.NumRecords
		}
	}
	b.LastOffsetDelta = b.NumRecords - 1
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	if r.IntN(10) == 0 {
		raw[r.IntN(len(raw))] ^= 1 << r.IntN(8)
	}
	if r.IntN(10) > 0 {
		binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	}
	return raw
}

// learn keeps what an answer says, to say it again.
func (s *stranger) learn(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			s.learn(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				s.learn(v.Field(i))
				switch f := v.Field(i); f.Kind() {
				case reflect.String, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Array:
					name := v.Type().Field(i).Name
					s.heard[name] = keep(s, s.heard[name], f)
				}
			}
		}
	case reflect.Slice:
		for i := range min(v.Len(), 8) {
			s.learn(v.Index(i))
		}
	case reflect.Array:
		if id, ok := v.Interface().([16]byte); ok {
			s.ids = keep(s, s.ids, id)
		}
	case reflect.String:
		s.texts = keep(s, s.texts, v.String())
	case reflect.Int64, reflect.Int32, reflect.Int16:
		s.nums = keep(s, s.nums, v.Int())
	}
}

func keep[T any](s *stranger, all []T, x T) []T {
	if len(all) < 64 {
		return append(all, x)
	}
	all[s.r.IntN(len(all))] = x
	return all
}

// say sends one request, sometimes damaged, and hears the answer if there is one soon.
func (s *stranger) say() error {
	r := s.r
	key := s.keys[r.IntN(len(s.keys))]
	req := kmsg.RequestForKey(key)
	req.SetVersion(int16(r.IntN(int(req.MaxVersion()) + 1)))
	if a, ok := apis[key]; ok && r.IntN(20) > 0 {
		req.SetVersion(min(req.GetVersion(), a.max))
	}
	s.fill(reflect.ValueOf(req).Elem())
	if p, ok := req.(*kmsg.ProduceRequest); ok && r.IntN(2) == 0 {
		p.Acks = 1
	}
	if f, ok := req.(*kmsg.FetchRequest); ok {
		f.MaxWaitMillis = int32(r.IntN(3))
	}
	if c, ok := req.(*kmsg.CreateTopicsRequest); ok && r.IntN(3) > 0 {
		for i := range c.Topics {
			c.Topics[i].Topic, c.Topics[i].NumPartitions, c.Topics[i].ReplicationFactor = "t"+strconv.Itoa(r.IntN(4)), int32(1+r.IntN(4)), 1
		}
	}
	frame := frameOf(req)
	switch r.IntN(12) {
	case 0:
		for range 1 + r.IntN(3) {
			frame[r.IntN(len(frame))] ^= 1 << r.IntN(8)
		}
	case 1:
		frame = frame[:8+r.IntN(len(frame)-7)]
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	case 2:
		frame[r.IntN(len(frame))] = byte(r.Uint32())
	}
	if s.conn == nil {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			return err
		}
		s.conn = c
	}
	answer, err := s.ask(frame)
	if err != nil {
		s.conn.Close()
		s.conn = nil
		return nil
	}
	resp := req.ResponseKind()
	rd := kbin.Reader{Src: answer[4:]}
	if resp.IsFlexible() && key != 18 {
		kmsg.SkipTags(&rd)
	}
	if resp.ReadFrom(rd.Src) == nil {
		s.learn(reflect.ValueOf(resp).Elem())
	}
	return nil
}

func (s *stranger) ask(frame []byte) ([]byte, error) {
	if err := s.conn.SetDeadline(time.Now().Add(s.patience)); err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(frame); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(s.conn, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(s.conn, answer)
	if err == nil && len(answer) < 4 {
		err = io.ErrUnexpectedEOF
	}
	return answer, err
}

// TestGuardTakesAnything: strangers send all requests there are, of every version, with every field at random or as heard before, damaged or
// not. A panic of kfake ends this test with the process. Afterwards, an honest client is served. STRANGERS is a duration to go on for.
func TestGuardTakesAnything(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("STRANGERS"))
	if err != nil {
		d = 2 * time.Second
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := startTestBroker(t, t.TempDir(), nil)
	createTopic(t, b, "t0", 2)
	var keys []int16
	for k := range int16(100) {
		if kmsg.RequestForKey(k) == nil {
			continue
		}
		keys = append(keys, k)
		if _, ok := apis[k]; ok {
			keys = append(keys, k, k, k, k, k)
		}
	}
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for i := range 4 {
		s := &stranger{r: rand.New(rand.NewPCG(seed, uint64(i))), addr: b.Addr, keys: keys, heard: make(map[string][]reflect.Value), patience: 20 * time.Millisecond}
		wg.Go(func() {
			n := 0
			for time.Now().Before(end) {
				if err := s.say(); err != nil {
					t.Error(err)
					return
				}
				n++
			}
			t.Logf("%d requests", n)
			if s.conn != nil {
				s.conn.Close()
			}
		})
	}
	wg.Wait()
	createTopic(t, b, "after", 1)
	serves(t, b, "after")
}

// TestGuardRefuses: what is not a request ends its connection at once, and nothing else.
func TestGuardRefuses(t *testing.T) {
	var out bytes.Buffer
	b := startTestBroker(t, "", slog.New(slog.NewTextHandler(&out, nil)))
	createTopic(t, b, "t", 1)
	for name, c := range map[string]struct{ send, reason string }{
		"seven bytes":         {"\x00\x00\x00\x03abc", "length"},
		"unknown key":         {"\x00\x00\x00\x08\x7f\xff\x00\x00\x00\x00\x00\x01", "key"},
		"version":             {"\x00\x00\x00\x08\x00\x03\x7f\xff\x00\x00\x00\x01", "version"},
		"HTTP":                {"GET / HTTP/1.1\r\n\r\n", "length"},
		"four gigabytes":      {"\xff\xff\xff\xff\x00\x00\x00\x09\x00\x00\x00\x01", "length"},
		"large, no records":   {"\x05\x00\x00\x00\x00\x03\x00\x09\x00\x00\x00\x01", "length"},
		"a billion elements":  {"\x00\x00\x00\x0e\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff\x3f\xff\xff\xff", "body"},
		"a billion tags":      {"\x00\x00\x00\x0f\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\x0f", "body"},
		"a billion tags late": {"\x00\x00\x00\x11\x00\x10\x00\x03\x00\x00\x00\x01\xff\xff\x00\xff\xff\xff\xff\xff\x0f", "body"},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := dial(t, b)
			if _, err := c2.Write([]byte(c.send)); err != nil {
				t.Fatal(err)
			}
			ended(t, c2)
		})
	}
	serves(t, b, "t")
}
