package format_test

import (
	"context"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/format/formattest"
	"spate/shared/kafka/security"
)

func newRegistry(t testing.TB, url string) *format.Registry {
	t.Helper()
	r, err := format.NewRegistry(format.RegistryConfig{URL: url}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newReader(t testing.TB, c format.Config) *format.Reader {
	t.Helper()
	if c.Fields.User == nil {
		c.Fields = activity.DefaultFields()
	}
	r, err := format.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSameEvents: an event has one user and one time, whatever format it is written in.
func TestSameEvents(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	reg := newRegistry(t, formattest.Registry(t).URL())
	readers := make(map[string]*format.Reader)
	users := []string{"1", "520088904", "-7", "9007199254740993", "anna", "a\"b", "zoë", "007", "9223372036854775807"}
	for range 500 {
		e := formattest.Event{User: users[rnd.IntN(len(users))], TimeMS: 100_000_000_000 + rnd.Int64N(4_000_000_000_000), Kind: "view", Brand: "b", Price: 3.5}
		for _, f := range formattest.Formats() {
			r := readers[f.Name]
			if r == nil {
				r = newReader(t, format.Config{Format: f.Format, Fields: f.Fields, Registry: reg})
				readers[f.Name] = r
			}
			value, headers := f.Write(e)
			mark, reason, err := r.Mark(t.Context(), value, headers)
			if err != nil || reason != activity.ReasonNone {
				t.Fatalf("%s: %q, %v: %s", f.Name, reason, err, r.Explain(value, headers, reason))
			}
			if got := activity.UserText(mark.User); got != e.User || mark.TimeMS != e.TimeMS {
				t.Fatalf("%s: %s at %d, want %s at %d", f.Name, got, mark.TimeMS, e.User, e.TimeMS)
			}
			if number := mark.User[0] != '"'; number != (e.User != "007" && strings.Trim(e.User, "-0123456789") == "") {
				t.Fatalf("%s: user %s", f.Name, mark.User)
			}
		}
	}
}

// TestNotEvents: what is no event says why, and what to do.
func TestNotEvents(t *testing.T) {
	reg := formattest.Registry(t)
	reg.SeedSchema("broken-value", 1, 20, sr.Schema{Schema: `{"type":"record"}`, Type: sr.TypeAvro})
	registry := newRegistry(t, reg.URL())
	good := formattest.Event{User: "7", TimeMS: 1_572_566_400_000, Kind: "view"}
	written := make(map[string][]byte)
	for _, f := range formattest.Formats() {
		written[f.Name], _ = f.Write(good)
	}
	cloud := []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("1.0")}}
	for _, test := range []struct {
		name     string
		format   format.Name
		registry *format.Registry
		value    string
		headers  []kgo.RecordHeader
		reason   activity.Reason
		explain  string
	}{
		{"no registry", format.Auto, nil, string(written["avro"]), nil, activity.ReasonNoSchema, "schema 1 of a schema registry: set SPATE_SCHEMA_REGISTRY_URL"},
		{"unknown id", format.Auto, registry, "\x00\x00\x00\x00\x63abc", nil, activity.ReasonNoSchema, "has no schema 99"},
		{"broken schema", format.Auto, registry, "\x00\x00\x00\x00\x14abc", nil, activity.ReasonNoSchema, "schema 20 is unusable"},
		{"cut header", format.Auto, registry, "\x00\x00\x00", nil, activity.ReasonBadEncoding, "ends within its five-byte"},
		{"cut value", format.Auto, registry, string(written["avro"][:12]), nil, activity.ReasonBadEncoding, "does not match schema 1"},
		{"a byte too many", format.Auto, registry, string(written["avro"]) + "x", nil, activity.ReasonBadEncoding, "does not match schema 1"},
		{"no such message", format.Auto, registry, "\x00\x00\x00\x00\x02\x04\x00\x0ea", nil, activity.ReasonBadEncoding, "does not match schema 2"},
		{"JSON, not Avro", format.Avro, registry, string(written["json"]), nil, activity.ReasonBadEncoding, "SPATE_FORMAT is avro"},
		{"Protobuf, not Avro", format.Avro, registry, string(written["protobuf"]), nil, activity.ReasonBadEncoding, "not of the type that SPATE_FORMAT specifies"},
		{"empty", format.Auto, registry, "", nil, activity.ReasonEmpty, "no value"},
		{"no user in Avro", format.Auto, registry, string(formattest.Avro(avro.MustParse(formattest.AvroSchema), formattest.AvroID, map[string]any{"event_type": "view", "product_id": nil, "brand": nil,
			"price": 1.0, "tags": []any{}, "user_id": nil, "event_time": time.UnixMilli(1), "user_session": ""})), nil, activity.ReasonNoUser, `the user in "user_id" is null or empty`},
		{"no data in a CloudEvent", format.CloudEvents, nil, `{"specversion":"1.0","type":"x","time":"2019-11-01T00:00:00Z"}`, nil, activity.ReasonNoUser, "no field"},
		{"no time in a CloudEvent", format.Auto, nil, `{"user_id":1}`, cloud, activity.ReasonNoTime, "no field"},
		{"bad time in a CloudEvent", format.Auto, nil, `{"user_id":1}`, append(cloud, kgo.RecordHeader{Key: "ce_time", Value: []byte("today")}), activity.ReasonBadTime, ""},
		{"another row", format.Debezium, nil, `{"before":null,"after":{"uid":1,"at":5},"op":"c","ts_ms":1572566400000}`, nil, activity.ReasonNoUser, `it has at, uid`},
		{"a plain event among changes", format.Debezium, nil, `{"user":1,"event_time":5}`, nil, activity.ReasonNoUser, "not a change in the Debezium format: it has none of op, before and after; if it is a plain event, or a row whose envelope the connector has removed, set SPATE_FORMAT (--format) to auto"},
		{"a plain event that is one by its fields", format.Debezium, nil, `{"user_id":1,"event_time":5}`, nil, activity.ReasonNoUser, "not a change in the Debezium format"},
		{"a change without its row", format.Debezium, nil, `{"op":"c","ts_ms":1572566400000}`, nil, activity.ReasonNoUser, "no field"},
		{"a plain event among CloudEvents", format.CloudEvents, nil, `{"user_id":1,"event_time":5}`, nil, activity.ReasonNoUser, "not a CloudEvent: it has neither specversion nor data, and no ce_specversion header; if it is a plain event, set SPATE_FORMAT (--format) to auto"},
		{"a plain event that claims to be a CloudEvent", format.Auto, nil, `{"user_id":1,"event_time":5}`, []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}, activity.ReasonNoUser, "although its content-type header says that it is one"},
		{"changes that are JSON of another kind", format.Debezium, nil, `[1]`, nil, activity.ReasonNotObject, ""},
	} {
		r := newReader(t, format.Config{Format: test.format, Registry: test.registry})
		_, reason, err := r.Mark(t.Context(), []byte(test.value), test.headers)
		if err != nil || reason != test.reason {
			t.Errorf("%s: %q, %v, want %q", test.name, reason, err, test.reason)
			continue
		}
		if got := r.Explain([]byte(test.value), test.headers, reason); !strings.Contains(got, test.explain) {
			t.Errorf("%s: explained as %q, want %q in it", test.name, got, test.explain)
		}
	}
}

// TestChanges: every change of a row is an event, with the time of the row or else of the change; what is no change of a row is skipped.
func TestChanges(t *testing.T) {
	const at = 1572566400000
	for _, test := range []struct {
		name, value string
		reason      activity.Reason
		user        string
		ms          int64
	}{
		{"insert", `{"before":null,"after":{"user_id":1,"event_time":"2019-11-01 00:00:01"},"op":"c","ts_ms":1}`, "", "1", at + 1000},
		{"insert, time of the change", `{"after":{"user_id":1},"source":{"ts_ms":1572566400002},"op":"c","ts_ms":1572566400003}`, "", "1", at + 2},
		{"insert, time that it was seen", `{"after":{"user_id":1},"source":{},"op":"c","ts_ms":1572566400003}`, "", "1", at + 3},
		{"update", `{"before":{"user_id":1},"after":{"user_id":2,"event_time":"2019-11-01"},"op":"u","ts_ms":1}`, activity.ReasonBadTime, "", 0},
		{"delete", `{"before":{"user_id":3,"event_time":1572566400000},"after":null,"op":"d","ts_ms":1}`, "", "3", at},
		{"delete of which only the key is known", `{"before":{"id":3},"after":null,"op":"d","ts_ms":1572566400000}`, activity.ReasonNoUser, "", 0},
		{"snapshot", `{"before":null,"after":{"user_id":4,"event_time":1572566400000},"op":"r","ts_ms":1}`, "", "4", at},
		{"snapshot without a time", `{"before":null,"after":{"user_id":4},"op":"r","ts_ms":1572566400000}`, activity.ReasonSnapshot, "", 0},
		{"tombstone", ``, activity.ReasonTombstone, "", 0},
		{"truncate", `{"op":"t","source":{"ts_ms":1},"ts_ms":1}`, activity.ReasonNoChange, "", 0},
		{"message", `{"op":"m","ts_ms":1,"message":{"prefix":"a"}}`, activity.ReasonNoChange, "", 0},
		{"heartbeat", `{"ts_ms":1572566400000}`, activity.ReasonNoChange, "", 0},
		{"transaction", `{"status":"BEGIN","id":"5","event_count":null,"ts_ms":1572566400000}`, activity.ReasonNoChange, "", 0},
		{"wrapped heartbeat", `{"schema":{},"payload":{"ts_ms":1572566400000}}`, activity.ReasonNoChange, "", 0},
		{"update that clears the user", `{"before":{"user_id":1},"after":{"user_id":null,"event_time":1572566400000},"op":"u","ts_ms":1}`, activity.ReasonNoUser, "", 0},
		{"row without a kind of change", `{"after":{"user_id":1,"event_time":1572566400000}}`, "", "1", at},
		{"row without a kind of change, and another below", `{"after":{"user_id":1,"event_time":1572566400000},"payload":{"after":{"user_id":2,"event_time":1572566400000}}}`, "", "1", at},
		{"wrapped insert", `{"schema":{"fields":[]},"payload":{"after":{"user_id":1},"source":{"ts_ms":1572566400002},"op":"c","ts_ms":1}}`, "", "1", at + 2},
	} {
		r := newReader(t, format.Config{Format: format.Debezium})
		mark, reason, err := r.Mark(t.Context(), []byte(test.value), nil)
		if err != nil || reason != test.reason || string(mark.User) != test.user || mark.TimeMS != test.ms {
			t.Errorf("%s: %s at %d, %q, %v; want %s at %d, %q", test.name, mark.User, mark.TimeMS, reason, err, test.user, test.ms, test.reason)
		}
		if skips := test.reason == activity.ReasonTombstone || test.reason == activity.ReasonNoChange || test.reason == activity.ReasonSnapshot; reason.Skipped() != skips {
			t.Errorf("%s: skipped %v", test.name, reason.Skipped())
		}
	}
	// One reader takes them in any order, and no record decides over another.
	r := newReader(t, format.Config{Format: format.Debezium})
	for _, value := range []string{
		`{"after":{"user_id":1},"op":"c","ts_ms":1572566400003}`, `{"payload":{"after":{"user_id":1},"op":"c","ts_ms":1572566400003}}`,
		`{"payload":{"after":{"user_id":1},"op":"c","ts_ms":1572566400003}}`, `{"after":{"user_id":1},"op":"c","ts_ms":1572566400003}`,
		`{"after":{"user_id":1,"event_time":1572566400003}}`, `{"after":{"user_id":1,"event_time":1572566400003}}`,
	} {
		if mark, reason, _ := r.Mark(t.Context(), []byte(value), nil); reason != "" || mark.TimeMS != at+3 {
			t.Errorf("%s: %d %q", value, mark.TimeMS, reason)
		}
	}
}

// TestAttributes: attributes of CloudEvents are fields, by the names that they have as headers.
func TestAttributes(t *testing.T) {
	fields := activity.Fields{User: []string{"ce_subject"}, Time: []string{"ce_recordedtime", "at"}, TimeFormat: activity.TimeS}
	r := newReader(t, format.Config{Fields: fields})
	for _, test := range []struct {
		value   string
		headers []kgo.RecordHeader
		ms      int64
	}{
		{`{"at":1572566400}`, []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_subject", Value: []byte("u-1")}}, 1572566400000},
		{``, []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_subject", Value: []byte("u-1")}, {Key: "ce_time", Value: []byte("2019-11-01T00:00:00.5Z")}}, -1},
		{`{}`, []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_subject", Value: []byte("u-1")}, {Key: "ce_time", Value: []byte("2019-11-01T00:00:00.5Z")}}, 1572566400500},
		{`{"specversion":"1.0","subject":"u-1","time":"2019-11-01T00:00:00.25Z"}`, []kgo.RecordHeader{{Key: "Content-Type", Value: []byte("application/CloudEvents+json")}}, 1572566400250},
		{`{"specversion":"1.0","subject":"u-1","recordedtime":1572566401,"time":"2019-11-01T00:00:00Z"}`, []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}, 1572566401000},
	} {
		mark, reason, err := r.Mark(t.Context(), []byte(test.value), test.headers)
		if test.ms < 0 {
			if reason != activity.ReasonEmpty {
				t.Errorf("%s: %q", test.value, reason)
			}
			continue
		}
		if err != nil || reason != "" || string(mark.User) != `"u-1"` || mark.TimeMS != test.ms {
			t.Errorf("%s: %s at %d, %q, %v, want %d", test.value, mark.User, mark.TimeMS, reason, err, test.ms)
		}
	}
}

// TestRegistryAway: a registry that does not answer is an error, not a verdict; what it said before still counts, and what it learns later does.
func TestRegistryAway(t *testing.T) {
	reg := formattest.Registry(t)
	var status int
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != 0 {
			w.WriteHeader(status)
			return
		}
		resp, err := http.Get(reg.URL() + r.URL.Path)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		buf := make([]byte, 1<<20)
		for {
			n, err := resp.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}))
	defer proxy.Close()
	r := newReader(t, format.Config{Registry: newRegistry(t, proxy.URL)})
	e := formattest.Event{User: "7", TimeMS: 1_572_566_400_000, Kind: "view"}
	value := formattest.Avro(avro.MustParse(formattest.AvroSchema), formattest.AvroID, map[string]any{"event_type": "view", "product_id": nil, "brand": nil, "price": 1.0, "tags": []any{},
		"user_id": map[string]any{"long": int64(7)}, "event_time": time.UnixMilli(e.TimeMS), "user_session": ""})
	for _, test := range []struct {
		status int
		want   string
	}{
		{http.StatusServiceUnavailable, "returned status 503"}, {http.StatusUnauthorized, "SPATE_SCHEMA_REGISTRY_USERNAME"},
		{http.StatusForbidden, "403"}, {http.StatusNotFound, "has no schema registry at that path"},
	} {
		status = test.status
		if _, _, err := r.Mark(t.Context(), value, nil); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "schema 1") {
			t.Errorf("%d: %v, want %q", test.status, err, test.want)
		}
	}
	status = 0
	if mark, reason, err := r.Mark(t.Context(), value, nil); err != nil || reason != "" || mark.TimeMS != e.TimeMS {
		t.Errorf("when it is back: %d %q %v", mark.TimeMS, reason, err)
	}
	status = http.StatusServiceUnavailable
	if _, reason, err := r.Mark(t.Context(), value, nil); err != nil || reason != "" {
		t.Errorf("away, with a schema that is known: %q %v", reason, err)
	}
	if _, _, err := r.Mark(t.Context(), formattest.Protobuf(e), nil); err == nil {
		t.Error("away, with a schema that is not known: no error")
	}
	proxy.Close()
	if _, _, err := r.Mark(t.Context(), formattest.Protobuf(e), nil); err == nil || !strings.Contains(err.Error(), "schema-registry-url") {
		t.Errorf("gone: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.Mark(canceled, formattest.Protobuf(e), nil); err == nil {
		t.Error("canceled: no error")
	}
}

// TestReferences: schemas that refer to others, and to themselves.
func TestReferences(t *testing.T) {
	reg := formattest.Registry(t)
	reg.SeedSchema("person", 1, 30, sr.Schema{Schema: `{"type":"record","name":"Person","namespace":"a.b","fields":[{"name":"id","type":"string"},{"name":"boss","type":["null","Person"],"default":null}]}`, Type: sr.TypeAvro})
	reg.SeedSchema("login-value", 1, 31, sr.Schema{Schema: `{"type":"record","name":"Login","namespace":"c","fields":[
		{"name":"by","type":"a.b.Person"},{"name":"for","type":["null","a.b.Person"]},{"name":"at","type":"long"}]}`, Type: sr.TypeAvro, References: []sr.SchemaReference{{Name: "a.b.Person", Subject: "person", Version: 1}}})
	reg.SeedSchema("id.proto", 1, 32, sr.Schema{Schema: `syntax = "proto3"; package ids; message ID { uint64 number = 1; }`, Type: sr.TypeProtobuf})
	reg.SeedSchema("login-proto", 1, 33, sr.Schema{Schema: `syntax = "proto3"; import "ids/id.proto"; import "google/protobuf/wrappers.proto";
		message Login { ids.ID by = 1; google.protobuf.StringValue name = 2; sfixed64 at = 3; }`, Type: sr.TypeProtobuf, References: []sr.SchemaReference{{Name: "ids/id.proto", Subject: "id.proto", Version: 1}}})
	reg.SeedSchema("gone", 1, 35, sr.Schema{Schema: `{"type":"record","name":"Y","fields":[]}`, Type: sr.TypeAvro})
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/subjects/gone/") {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error_code":40401,"message":"Subject 'gone' not found."}`))
		return true
	})
	reg.SeedSchema("dangling", 1, 34, sr.Schema{Schema: `{"type":"record","name":"X","fields":[{"name":"y","type":"Y"}]}`, Type: sr.TypeAvro, References: []sr.SchemaReference{{Name: "Y", Subject: "gone", Version: 1}}})
	registry := newRegistry(t, reg.URL())
	r := newReader(t, format.Config{Registry: registry, Fields: activity.Fields{User: []string{"by.id", "by.number", "name"}, Time: []string{"at"}, TimeFormat: activity.TimeMS}})

	str := func(b []byte, s string) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }
	b := str(formattest.Header(31), "ann")
	b = str(binary.AppendVarint(b, 1), "bob") // her boss
	b = binary.AppendVarint(b, 0)             // who has none
	b = binary.AppendVarint(b, 0)             // for: null
	b = binary.AppendVarint(b, 1572566400000)
	if mark, reason, err := r.Mark(t.Context(), b, nil); err != nil || reason != "" || string(mark.User) != `"ann"` || mark.TimeMS != 1572566400000 {
		t.Errorf("avro: %s %d %q %v", mark.User, mark.TimeMS, reason, err)
	}
	// A list of hundreds is a value like others. One that is deeper in itself than any is ends the reading, not the process.
	list := str(formattest.Header(31), "ann")
	for range 300 {
		list = str(binary.AppendVarint(list, 1), "x")
	}
	list = binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(list, 0), 0), 1572566400000)
	if mark, reason, err := r.Mark(t.Context(), list, nil); err != nil || reason != "" || string(mark.User) != `"ann"` {
		t.Errorf("a list: %s %q %v", mark.User, reason, err)
	}
	deep := str(formattest.Header(31), "ann")
	for range 100_000 {
		deep = str(binary.AppendVarint(deep, 1), "x")
	}
	if _, reason, err := r.Mark(t.Context(), deep, nil); err != nil || reason != activity.ReasonBadEncoding {
		t.Errorf("deep: %q %v", reason, err)
	}
	for _, test := range []struct{ name, user string }{{"", "18446744073709551615"}, {"ann", `"ann"`}} {
		p := append(formattest.Header(33), 0)
		if test.name == "" {
			p = protowire.AppendBytes(protowire.AppendTag(p, 1, protowire.BytesType), protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), math.MaxUint64))
		} else {
			p = protowire.AppendBytes(protowire.AppendTag(p, 2, protowire.BytesType), protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), test.name))
		}
		p = protowire.AppendFixed64(protowire.AppendTag(p, 3, protowire.Fixed64Type), 1572566400000)
		if mark, reason, err := r.Mark(t.Context(), p, nil); err != nil || reason != "" || string(mark.User) != test.user || mark.TimeMS != 1572566400000 {
			t.Errorf("protobuf: %s %d %q %v: %s", mark.User, mark.TimeMS, reason, err, r.Explain(p, nil, reason))
		}
	}
	reg.SeedSchema("schema.proto", 1, 36, sr.Schema{Schema: `syntax = "proto3"; message Other { string session = 1; string by = 3; }`, Type: sr.TypeProtobuf})
	reg.SeedSchema("same-name", 1, 37, sr.Schema{Schema: `syntax = "proto3"; import "schema.proto"; import "confluent/meta.proto"; import "google/type/money.proto";
		message Click { string name = 1 [(confluent.field_meta).doc = "who"]; int64 at = 2; string session = 3; Other other = 4; google.type.Money paid = 5; }`,
		Type: sr.TypeProtobuf, References: []sr.SchemaReference{{Name: "schema.proto", Subject: "schema.proto", Version: 1}}})
	p := append(formattest.Header(37), 0)
	p = protowire.AppendString(protowire.AppendTag(p, 3, protowire.BytesType), "session")
	p = protowire.AppendString(protowire.AppendTag(p, 1, protowire.BytesType), "ann")
	p = protowire.AppendVarint(protowire.AppendTag(p, 2, protowire.VarintType), 1572566400000)
	p = protowire.AppendVarint(protowire.AppendTag(p, 1, protowire.VarintType), 7) // of another type, as no writer of the schema has it
	if mark, reason, err := r.Mark(t.Context(), p, nil); err != nil || reason != "" || string(mark.User) != `"ann"` {
		t.Errorf("imports that are known, and one of the name of the file: %s %q %v: %s", mark.User, reason, err, r.Explain(p, nil, reason))
	}
	// A name without a dot is of the namespace around it, even if one without a namespace is there.
	reg.SeedSchema("names", 1, 38, sr.Schema{Schema: `{"type":"record","name":"Top","fields":[{"name":"x","type":{"type":"record","name":"Actor","fields":[{"name":"session","type":"string"},{"name":"id","type":"string"}]}},
		{"name":"by","type":{"type":"record","name":"a.B","fields":[{"name":"y","type":{"type":"record","name":"Actor","fields":[{"name":"id","type":"string"},{"name":"session","type":"string"}]}},{"name":"who","type":"Actor"},{"name":"none","type":["null",".Actor"]}]}},
		{"name":"at","type":"long"}]}`, Type: sr.TypeAvro})
	named := newReader(t, format.Config{Registry: registry, Fields: activity.Fields{User: []string{"by.who.id"}, Time: []string{"at"}, TimeFormat: activity.TimeMS}})
	b = formattest.Header(38)
	for _, s := range []string{"s", "i", "i", "s", "right", "wrong"} {
		b = str(b, s)
	}
	b = binary.AppendVarint(binary.AppendVarint(b, 0), 1572566400000)
	if mark, reason, err := named.Mark(t.Context(), b, nil); err != nil || reason != "" || string(mark.User) != `"right"` {
		t.Errorf("namespaces: %s %q %v: %s", mark.User, reason, err, named.Explain(b, nil, reason))
	}
	dangling := formattest.Header(34)
	if _, reason, err := r.Mark(t.Context(), dangling, nil); err != nil || reason != activity.ReasonNoSchema || !strings.Contains(r.Explain(dangling, nil, reason), "references a schema") {
		t.Errorf("dangling: %q %v: %s", reason, err, r.Explain(dangling, nil, reason))
	}
}

// TestRegistryIsBounded: what comes in does not decide how often the registry is asked, and what it answers is bounded.
func TestRegistryIsBounded(t *testing.T) {
	var asked atomic.Int64
	large := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch {
		case strings.HasSuffix(r.URL.Path, "/1"):
			_, _ = w.Write([]byte(`{"schema":"` + strings.Repeat("x", 9<<20) + `"}`))
		case strings.HasSuffix(r.URL.Path, "/2"):
			_, _ = w.Write([]byte(`{"schema":"struct X {}","schemaType":"THRIFT"}`))
		case strings.HasSuffix(r.URL.Path, "/3"):
			_, _ = w.Write([]byte(`<html>log in</html>`))
		case strings.HasSuffix(r.URL.Path, "/4"):
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprintf(w, `{"error_code":500,"message":"you sent %s"}`, r.Header.Get("Authorization"))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error_code":40403,"message":"Schema not found"}`))
		}
	}))
	defer large.Close()
	registry, err := format.NewRegistry(format.RegistryConfig{URL: large.URL, Registry: security.Registry{Username: "u", Password: "secret"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t, format.Config{Registry: registry})
	for id, want := range map[int]string{1: "larger than", 2: "unknown schema type"} {
		v := append(formattest.Header(id), 'x')
		if _, reason, err := r.Mark(t.Context(), v, nil); err != nil || reason != activity.ReasonNoSchema || !strings.Contains(r.Explain(v, nil, reason), want) {
			t.Errorf("schema %d: %q %v: %s", id, reason, err, r.Explain(v, nil, reason))
		}
	}
	for _, id := range []int{3, 4} {
		if _, _, err := r.Mark(t.Context(), append(formattest.Header(id), 'x'), nil); err == nil || strings.Contains(err.Error(), "dTpzZWNyZXQ") {
			t.Errorf("schema %d: %v", id, err)
		}
	}
	asked.Store(0)
	for id := range 5000 {
		if _, reason, err := r.Mark(t.Context(), append(formattest.Header(100+id), 'x'), nil); err != nil || reason != activity.ReasonNoSchema {
			t.Fatalf("schema %d: %q %v", id, reason, err)
		}
	}
	if n := asked.Load(); n > 100 {
		t.Errorf("the registry was asked %d times for 5000 ids that it does not have", n)
	}
}

// TestAvroAsTheLibrary: values of random schemas have what the library decodes.
func TestAvroAsTheLibrary(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	reg := formattest.Registry(t)
	registry := newRegistry(t, reg.URL())
	for i := range 300 {
		names := 0
		text := fmt.Sprintf(`{"type":"record","name":"R","fields":[%s{"name":"w","type":%s},{"name":"u","type":["null","long"]},{"name":"v","type":%s},{"name":"t","type":"long"}]}`,
			"", randomType(rnd, 3, &names), randomType(rnd, 3, &names))
		schema, err := avro.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		id := 1000 + i
		reg.SeedSchema(fmt.Sprint("s", i), 1, id, sr.Schema{Schema: text, Type: sr.TypeAvro})
		r := newReader(t, format.Config{Registry: registry, Fields: activity.Fields{User: []string{"u"}, Time: []string{"t"}, TimeFormat: activity.TimeMS}})
		for range 20 {
			var b []byte
			user, at := rnd.Int64(), rnd.Int64N(1e12)
			b = randomValue(rnd, schema.Root().ExpandReferences(), b, user, at, 0)
			damaged := rnd.IntN(3) == 0
			if damaged {
				switch i := rnd.IntN(len(b)); rnd.IntN(3) {
				case 0:
					b = b[:i]
				case 1:
					b[i] ^= 1 << rnd.IntN(8)
				default:
					b = append(b, byte(rnd.Int()))
				}
			}
			var v map[string]any
			rest, err := schema.Decode(b, &v)
			mark, reason, merr := r.Mark(t.Context(), append(formattest.Header(id), b...), nil)
			if merr != nil {
				t.Fatal(merr)
			}
			blocks := strings.Contains(text, `"array"`) || strings.Contains(text, `"map"`)
			if damaged && (blocks || err != nil || len(rest) > 0 || reason == activity.ReasonBadEncoding) {
				// The library looks into what is skipped here, and not at the lengths of blocks, by which they are skipped. Where the damage can have
				// made or changed such a length, or one of them finds a fault, both are right.
				continue
			} else if err != nil || len(rest) > 0 {
				t.Fatalf("%s\n%x: the library leaves %d bytes: %v", text, b, len(rest), err)
			}
			want := activity.ReasonNone
			switch ms, _ := v["t"].(int64); {
			case v["u"] == nil:
				want = activity.ReasonNoUser
			case ms < 0 || ms > 253402300799999:
				want = activity.ReasonTimeRange
			}
			if reason != want || want == activity.ReasonNone && (string(mark.User) != fmt.Sprint(v["u"]) || mark.TimeMS != v["t"].(int64)) {
				t.Fatalf("%s\n%x: %s at %d, %q; the library has %v, %q", text, b, mark.User, mark.TimeMS, reason, v, want)
			}
		}
	}
}

func randomType(rnd *rand.Rand, depth int, names *int) string {
	simple := []string{`"null"`, `"boolean"`, `"int"`, `"long"`, `"float"`, `"double"`, `"bytes"`, `"string"`}
	n := rnd.IntN(14)
	if depth == 0 || n < len(simple) {
		return simple[n%len(simple)]
	}
	*names++
	name := fmt.Sprint("N", *names)
	switch n {
	case 8:
		return fmt.Sprintf(`{"type":"enum","name":%q,"symbols":["a","b","c"]}`, name)
	case 9:
		return fmt.Sprintf(`{"type":"fixed","name":%q,"size":%d}`, name, rnd.IntN(9))
	case 10:
		return fmt.Sprintf(`{"type":"array","items":%s}`, randomType(rnd, depth-1, names))
	case 11:
		return fmt.Sprintf(`{"type":"map","values":%s}`, randomType(rnd, depth-1, names))
	case 12:
		return fmt.Sprintf(`["null",{"type":"array","items":%s},"string"]`, randomType(rnd, depth-1, names))
	}
	return fmt.Sprintf(`{"type":"record","name":%q,"fields":[{"name":"a","type":%s},{"name":"u","type":%s}]}`, name, randomType(rnd, depth-1, names), randomType(rnd, depth-1, names))
}

// randomValue writes a value by hand, so that blocks have every form that the specification allows.
func randomValue(rnd *rand.Rand, n *avro.SchemaNode, b []byte, user, at int64, depth int) []byte {
	items := func(write func([]byte) []byte) []byte {
		for range rnd.IntN(3) {
			count := 1 + rnd.IntN(3)
			var block []byte
			for range count {
				block = write(block)
			}
			if rnd.IntN(2) == 0 {
				b = binary.AppendVarint(b, int64(-count))
				b = binary.AppendVarint(b, int64(len(block)))
			} else {
				b = binary.AppendVarint(b, int64(count))
			}
			b = append(b, block...)
		}
		return binary.AppendVarint(b, 0)
	}
	switch n.Type {
	case "null":
		return b
	case "boolean":
		return append(b, byte(rnd.IntN(2)))
	case "int":
		return binary.AppendVarint(b, int64(int32(rnd.Uint32())))
	case "long":
		return binary.AppendVarint(b, rnd.Int64()-rnd.Int64())
	case "float":
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(rnd.Float32()))
	case "double":
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(rnd.Float64()))
	case "bytes", "string":
		text := strings.Repeat("x", rnd.IntN(5))
		return append(binary.AppendVarint(b, int64(len(text))), text...)
	case "enum":
		return binary.AppendVarint(b, int64(rnd.IntN(len(n.Symbols))))
	case "fixed":
		return append(b, make([]byte, n.Size)...)
	case "array":
		return items(func(b []byte) []byte { return randomValue(rnd, n.Items, b, user, at, depth+1) })
	case "map":
		return items(func(b []byte) []byte {
			return randomValue(rnd, n.Values, append(binary.AppendVarint(b, 1), 'k'), user, at, depth+1)
		})
	case "union":
		i := rnd.IntN(len(n.Branches))
		return randomValue(rnd, &n.Branches[i], binary.AppendVarint(b, int64(i)), user, at, depth+1)
	}
	for i := range n.Fields {
		f := &n.Fields[i]
		switch {
		case depth == 0 && f.Name == "u":
			b = binary.AppendVarint(binary.AppendVarint(b, 1), user)
		case depth == 0 && f.Name == "t":
			b = binary.AppendVarint(b, at)
		default:
			b = randomValue(rnd, &f.Type, b, user, at, depth+1)
		}
	}
	return b
}

// FuzzMark: no value makes a reader panic, hang or allocate without bound.
func FuzzMark(f *testing.F) {
	reg := formattest.Registry(f)
	reg.SeedSchema("nasty", 1, 40, sr.Schema{Schema: `{"type":"record","name":"T","fields":[{"name":"kids","type":{"type":"array","items":"T"}},{"name":"none","type":{"type":"array","items":"null"}},
		{"name":"m","type":{"type":"map","values":["null","T","long"]}},{"name":"user_id","type":["null","string","double","T"]},{"name":"event_time","type":["null","long","T"]}]}`, Type: sr.TypeAvro})
	registry := newRegistry(f, reg.URL())
	var readers []*format.Reader
	for _, name := range []format.Name{format.Auto, format.JSON, format.Avro, format.Protobuf, format.CloudEvents, format.Debezium} {
		readers = append(readers, newReader(f, format.Config{Format: name, Registry: registry, Fields: activity.Fields{User: []string{"user_id", "m.user_id", "kids.user_id"}, Time: []string{"event_time", "m.at"}}}))
	}
	e := formattest.Event{User: "7", TimeMS: 1_572_566_400_000, Kind: "view"}
	for _, x := range formattest.Formats() {
		value, headers := x.Write(e)
		text := ""
		for _, h := range headers {
			text += h.Key + "=" + string(h.Value) + "\n"
		}
		f.Add(value, text)
	}
	f.Add(append(formattest.Header(40), 0, 0, 0, 2, 2, '7', 2, 0), "")
	f.Add(append(formattest.Header(40), 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "")
	f.Fuzz(func(t *testing.T, value []byte, text string) {
		var headers []kgo.RecordHeader
		for line := range strings.Lines(text) {
			key, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(v)})
		}
		for _, r := range readers {
			mark, reason, err := r.Mark(t.Context(), value, headers)
			if err != nil {
				t.Fatal(err)
			}
			if reason == activity.ReasonNone {
				if user, again := activity.CanonicalUser(mark.User); again != "" || string(user) != string(mark.User) {
					t.Errorf("user %q is not canonical", mark.User)
				}
			}
			_ = r.Explain(value, headers, reason)
			_ = r.Text(value)
		}
	})
}

func BenchmarkMark(b *testing.B) {
	registry := newRegistry(b, formattest.Registry(b).URL())
	for _, f := range formattest.Formats() {
		b.Run(strings.ReplaceAll(f.Name, " ", "_"), func(b *testing.B) {
			r := newReader(b, format.Config{Format: f.Format, Fields: f.Fields, Registry: registry})
			value, headers := f.Write(formattest.Event{User: "520088904", TimeMS: 1_572_566_400_123, Kind: "view", Brand: "xiaomi", Price: 489.07})
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if _, reason, err := r.Mark(b.Context(), value, headers); reason != "" || err != nil {
					b.Fatal(reason, err)
				}
			}
		})
	}
}

// TestRegistryIsSecured: the registry is asked with TLS and a login; what is wrong with either names its setting, and a password that is replaced in its file
// counts without a restart.
func TestRegistryIsSecured(t *testing.T) {
	password := "first"
	reg := formattest.Registry(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, got, ok := r.BasicAuth(); !ok || user != "key" || got != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reg.Handler().ServeHTTP(w, r)
	}))
	defer server.Close()
	dir := t.TempDir()
	ca, file := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "password")
	write := func(path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	write(file, []byte("first\n"))
	value := func(id int) []byte { return append(formattest.Header(id), 'x') }
	mark := func(c security.Registry, id int) error {
		t.Helper()
		registry, err := format.NewRegistry(format.RegistryConfig{URL: server.URL, Registry: c}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		_, _, err = newReader(t, format.Config{Registry: registry}).Mark(t.Context(), value(id), nil)
		return err
	}
	for _, c := range []struct {
		registry security.Registry
		want     string
	}{
		{security.Registry{}, "--schema-registry-tls-ca-file (SPATE_SCHEMA_REGISTRY_TLS_CA_FILE)"},
		{security.Registry{TLS: security.TLS{CAFile: ca}}, "SPATE_SCHEMA_REGISTRY_USERNAME"},
		{security.Registry{TLS: security.TLS{CAFile: ca}, Username: "key", Password: "wrong"}, "rejected the login"},
		{security.Registry{TLS: security.TLS{CAFile: file}}, "schema-registry-tls-ca-file: "},
		{security.Registry{TLS: security.TLS{CertFile: ca}}, "schema-registry-tls-key-file: missing"},
		{security.Registry{TLS: security.TLS{CAFile: ca}, Username: "key", PasswordFile: filepath.Join(dir, "none")}, "schema-registry-password-file: "},
	} {
		if err := mark(c.registry, 1); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	registry, err := format.NewRegistry(format.RegistryConfig{URL: server.URL, Registry: security.Registry{TLS: security.TLS{CAFile: ca}, Username: "key", PasswordFile: file}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t, format.Config{Registry: registry})
	if _, _, err := r.Mark(t.Context(), value(formattest.AvroID), nil); err != nil {
		t.Error(err)
	}
	password = "second"
	if _, _, err := r.Mark(t.Context(), value(formattest.ProtobufID), nil); err == nil {
		t.Error("it is asked with the old password, and answers")
	}
	write(file, []byte("second\n"))
	if _, _, err := r.Mark(t.Context(), value(formattest.ProtobufID), nil); err != nil {
		t.Error(err)
	}
}

// TestProtobufKinds: a user of every kind of number, a text or an enum is what the library reads.
func TestProtobufKinds(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	kinds := []string{"int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64", "float", "double", "string", "Kind"}
	text := "syntax = \"proto2\";\nenum Kind { A = 0; B = -1; C = 70000; }\nmessage M { required int64 at = 100;\n"
	for i, k := range kinds {
		text += fmt.Sprintf("optional %s u%d = %d;\n", k, i, i+1)
	}
	text += "optional bool flag = 50; optional bytes raw = 51; }"
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{"m.proto": text})}}
	files, err := compiler.Compile(t.Context(), "m.proto")
	if err != nil {
		t.Fatal(err)
	}
	d := files[0].Messages().Get(0)
	reg := formattest.Registry(t)
	reg.SeedSchema("kinds", 1, 60, sr.Schema{Schema: text, Type: sr.TypeProtobuf})
	registry := newRegistry(t, reg.URL())
	for i, k := range append(kinds, "bool", "bytes") {
		name := fmt.Sprint("u", i)
		if k == "bool" {
			name = "flag"
		} else if k == "bytes" {
			name = "raw"
		}
		f := d.Fields().ByName(protoreflect.Name(name))
		r := newReader(t, format.Config{Registry: registry, Fields: activity.Fields{User: []string{name}, Time: []string{"at"}, TimeFormat: activity.TimeMS}})
		for range 50 {
			x := rnd.Uint64()
			if rnd.IntN(2) == 0 {
				x >>= rnd.IntN(64)
			}
			var v protoreflect.Value
			var want string
			switch f.Kind() {
			case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
				v, want = protoreflect.ValueOfInt32(int32(x)), fmt.Sprint(int32(x))
			case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
				v, want = protoreflect.ValueOfInt64(int64(x)), fmt.Sprint(int64(x))
			case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
				v, want = protoreflect.ValueOfUint32(uint32(x)), fmt.Sprint(uint32(x))
			case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
				v, want = protoreflect.ValueOfUint64(x), fmt.Sprint(x)
			case protoreflect.FloatKind:
				v, want = protoreflect.ValueOfFloat32(float32(x%100_000)/4), strconv.FormatFloat(float64(float32(x%100_000)/4), 'f', -1, 32)
			case protoreflect.DoubleKind:
				v, want = protoreflect.ValueOfFloat64(float64(x%1_000_000)/8), strconv.FormatFloat(float64(x%1_000_000)/8, 'f', -1, 64)
			case protoreflect.StringKind:
				v, want = protoreflect.ValueOfString(fmt.Sprintf("u\"%d", x)), fmt.Sprintf(`"u\"%d"`, x)
			case protoreflect.EnumKind:
				e := f.Enum().Values().Get(int(x % 3))
				v, want = protoreflect.ValueOfEnum(e.Number()), fmt.Sprintf("%q", e.Name())
			case protoreflect.BoolKind:
				v = protoreflect.ValueOfBool(x%2 == 0)
			default:
				v = protoreflect.ValueOfBytes([]byte{1, byte(x)})
			}
			m := dynamicpb.NewMessage(d)
			m.Set(f, v)
			m.Set(d.Fields().ByName("at"), protoreflect.ValueOfInt64(1572566400000))
			body, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			mark, reason, err := r.Mark(t.Context(), append(append(formattest.Header(60), 0), body...), nil)
			if want == "" {
				if reason != activity.ReasonBadUser {
					t.Fatalf("%s: %q %v", k, reason, err)
				}
			} else if err != nil || reason != "" || string(mark.User) != want || mark.TimeMS != 1572566400000 {
				t.Fatalf("%s: %s, want %s; %q %v", k, mark.User, want, reason, err)
			}
		}
	}
}

// TestReaderKeepsNothing: what is written of one record's headers is not kept for the next.
func TestReaderKeepsNothing(t *testing.T) {
	r, err := format.New(format.Config{Format: format.CloudEvents, ID: "ce_id", Fields: activity.DefaultFields()})
	if err != nil {
		t.Fatal(err)
	}
	headers := []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte(strings.Repeat("x", 200))}, {Key: "ce_time", Value: []byte("2019-11-01T00:00:00Z")}}
	value := append([]byte{0, 0, 0, 0, 1}, `{"user_id":7}`...)
	read := func() {
		if _, reason, err := r.Mark(t.Context(), value, headers); reason != activity.ReasonNone || err != nil {
			t.Fatal(reason, err)
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	read()
	before := heap()
	const events = 100_000
	for range events {
		read()
	}
	if grown := heap() - before; grown > events*20 {
		t.Errorf("%d events leave %d bytes", events, grown)
	}
	runtime.KeepAlive(r)
}
