package broker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// frameOf frames a request as clients do.
func frameOf(req kmsg.Request) []byte {
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, 7)
	return f
}

// randomize fills every field of a request, to a depth, with what a client might send: small arrays, short strings.
func randomize(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			randomize(r, v.Elem())
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			return
		}
		if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
		for i := range v.NumField() {
			switch v.Type().Field(i).Name {
			case "Version":
			case "ClusterID", "ReplicaState", "ReplicaDirectoryID", "HighWatermark": // of followers
			default:
				randomize(r, v.Field(i))
			}
		}
	case reflect.Slice:
		n := r.IntN(3)
		if v.Type().Elem().Kind() == reflect.Uint8 {
			n = r.IntN(60) // shorter than a batch
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			randomize(r, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			randomize(r, v.Index(i))
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("t%d", r.IntN(5)))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := []int64{-1, 0, 1, 2, int64(r.IntN(100)), int64(r.Uint64())}[r.IntN(6)]
		v.SetInt(n)
		if v.OverflowInt(n) {
			v.SetInt(1)
		}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(r.IntN(256)))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	}
}

// TestLayouts: the layouts are those of kmsg. Whatever a client can say is walked to its last byte, and no frame that is cut off passes.
func TestLayouts(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for key, a := range apis {
		for version := range a.max + 1 {
			for range 20 {
				req := kmsg.RequestForKey(key)
				req.SetVersion(version)
				randomize(r, reflect.ValueOf(req).Elem())
				if c, ok := req.(*kmsg.CreateTopicsRequest); ok {
					for i := range c.Topics {
						c.Topics[i].NumPartitions = 3
					}
				}
				if c, ok := req.(*kmsg.CreatePartitionsRequest); ok {
					for i := range c.Topics {
						c.Topics[i].Count = 3
					}
				}
				if j, ok := req.(*kmsg.JoinGroupRequest); ok {
					j.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "x", Metadata: []byte("y")}}
				}
				frame := frameOf(req)
				name := fmt.Sprintf("%s version %d", kmsg.NameForKey(key), version)
				if _, _, _, err := checkHeader(frame); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if _, _, _, err := admit(bytes.Clone(frame)); err != nil {
					t.Fatalf("%s: %v\n%+v\n%x", name, err, req, frame)
				}
				cut := frame[:12+r.IntN(len(frame)-12)]
				if _, _, _, err := admit(bytes.Clone(cut)); err == nil {
					t.Fatalf("%s: %d of %d bytes pass\n%+v\n%x", name, len(cut), len(frame), req, frame)
				}
			}
		}
	}
}

// FuzzFrame: whatever passes is what kmsg can read, in a time and with memory that its length bounds.
func FuzzFrame(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for key, a := range apis {
		req := kmsg.RequestForKey(key)
		req.SetVersion(a.max)
		randomize(r, reflect.ValueOf(req).Elem())
		f.Add(frameOf(req))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x00\x00\x00\x03abc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 12 || checkLength(b) != nil {
			return
		}
		if _, _, _, err := checkHeader(b); err != nil {
			return
		}
		out, _, _, err := admit(b)
		if err != nil {
			return
		}
		req := kmsg.RequestForKey(int16(binary.BigEndian.Uint16(out[4:])))
		req.SetVersion(int16(binary.BigEndian.Uint16(out[6:])))
		w := walker{flexible: req.IsFlexible()}
		w.r.Src = out[12:]
		w.span(int(w.r.Int16()), true)
		w.tags()
		if err := req.ReadFrom(w.r.Src); err != nil {
			t.Errorf("kmsg does not read what passed: %v", err)
		}
	})
}
