// Package formattest encodes test events in every format that package format reads, and provides a schema registry for them.
package formattest

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/encoding/protowire"

	"spate/shared/activity"
	"spate/shared/format"
)

// Schemas of the registry, by their ids.
const (
	AvroID = 1 + iota
	ProtobufID
	JSONID
	DebeziumID
	// AvroNextID is a later version of AvroID: fields were added, moved and left out.
	AvroNextID
)

// AvroSchema is that of AvroID.
const AvroSchema = `{"type":"record","name":"Click","namespace":"shop","fields":[
	{"name":"event_type","type":{"type":"enum","name":"Kind","symbols":["view","cart","remove_from_cart","purchase","other"]}},
	{"name":"product_id","type":["null","long"]},
	{"name":"brand","type":["null","string"]},
	{"name":"price","type":"double"},
	{"name":"tags","type":{"type":"array","items":"string"}},
	{"name":"user_id","type":["null","long","string"]},
	{"name":"event_time","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"user_session","type":"string"}]}`

// AvroNextSchema is that of AvroNextID.
const AvroNextSchema = `{"type":"record","name":"Click","namespace":"shop","fields":[
	{"name":"event_time","type":{"type":"long","logicalType":"timestamp-micros"}},
	{"name":"attributes","type":{"type":"map","values":"string"}},
	{"name":"user_id","type":["null","long","string"]}]}`

// ProtobufSchema is that of ProtobufID; the message is the second one within the first.
const ProtobufSchema = `syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
message Envelope {
	message Other { int32 x = 1; }
	message Click {
		enum Kind { UNKNOWN = 0; VIEW = 1; }
		string brand = 1;
		double price = 2;
		repeated string tags = 3;
		map<string, string> attributes = 4;
		oneof user { int64 user_id = 7; string user_name = 8; }
		google.protobuf.Timestamp event_time = 20;
		Kind kind = 21;
	}
}`

const jsonSchema = `{"type":"object","properties":{"user_id":{},"event_time":{"type":"string"}}}`

const debeziumSchema = `{"type":"record","name":"Envelope","namespace":"db.shop.clicks","fields":[
	{"name":"before","type":["null",{"type":"record","name":"Value","fields":[
		{"name":"id","type":"long"},
		{"name":"user_id","type":["null","long","string"]},
		{"name":"event_time","type":{"type":"long","connect.version":1,"connect.name":"io.debezium.time.MicroTimestamp"}}],
		"connect.name":"db.shop.clicks.Value"}],"default":null},
	{"name":"after","type":["null","Value"],"default":null},
	{"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"ts_ms","type":"long"},{"name":"table","type":"string"}]}},
	{"name":"op","type":"string"},
	{"name":"ts_ms","type":["null","long"],"default":null}]}`

// Event is what all formats can say of an event.
type Event struct {
	User   string // digits are a number, all else a text
	TimeMS int64
	Kind   string
	Brand  string
	Price  float64
}

// Format writes events in a format.
type Format struct {
	Name   string
	Format format.Name
	Fields activity.Fields
	Write  func(Event) (value []byte, headers []kgo.RecordHeader)
}

// Registry starts a schema registry that has the schemas.
func Registry(t testing.TB) *srfake.Registry {
	t.Helper()
	reg := srfake.New()
	t.Cleanup(reg.Close)
	reg.SeedSchema("clicks-value", 1, AvroID, sr.Schema{Schema: AvroSchema, Type: sr.TypeAvro})
	reg.SeedSchema("clicks-value", 2, AvroNextID, sr.Schema{Schema: AvroNextSchema, Type: sr.TypeAvro})
	reg.SeedSchema("proto-value", 1, ProtobufID, sr.Schema{Schema: ProtobufSchema, Type: sr.TypeProtobuf})
	reg.SeedSchema("json-value", 1, JSONID, sr.Schema{Schema: jsonSchema, Type: sr.TypeJSON})
	reg.SeedSchema("db.shop.clicks-value", 1, DebeziumID, sr.Schema{Schema: debeziumSchema, Type: sr.TypeAvro})
	return reg
}

// Formats are all there are.
func Formats() []Format {
	plain := activity.Fields{User: []string{"user_id"}, Time: []string{"event_time"}}
	either := activity.Fields{User: []string{"user_id", "user_name"}, Time: []string{"event_time"}}
	click, next, change := avro.MustParse(AvroSchema), avro.MustParse(AvroNextSchema), avro.MustParse(debeziumSchema)
	return []Format{
		{"json", format.Auto, plain, func(e Event) ([]byte, []kgo.RecordHeader) { return JSON(e), nil }},
		{"nested json", format.Auto, activity.Fields{User: []string{"actor.id"}, Time: []string{"meta.at"}}, func(e Event) ([]byte, []kgo.RecordHeader) {
			return encode(map[string]any{"type": e.Kind, "actor": map[string]any{"id": user(e), "roles": []string{"a"}}, "meta": map[string]any{"at": text(e)}, "brand": e.Brand, "price": e.Price}), nil
		}},
		{"json schema", format.Auto, plain, func(e Event) ([]byte, []kgo.RecordHeader) { return append(Header(JSONID), JSON(e)...), nil }},
		{"avro", format.Auto, plain, func(e Event) ([]byte, []kgo.RecordHeader) { return Avro(click, AvroID, AvroRow(e)), nil }},
		{"avro, next version", format.Avro, plain, func(e Event) ([]byte, []kgo.RecordHeader) {
			return Avro(next, AvroNextID, map[string]any{"event_time": time.UnixMilli(e.TimeMS), "attributes": map[string]any{"user_id": "not this", "brand": e.Brand}, "user_id": avroUser(e)}), nil
		}},
		{"protobuf", format.Auto, either, func(e Event) ([]byte, []kgo.RecordHeader) { return Protobuf(e), nil }},
		{"cloudevents, binary", format.Auto, plain, func(e Event) ([]byte, []kgo.RecordHeader) {
			return encode(map[string]any{"user_id": user(e), "brand": e.Brand, "price": e.Price}), []kgo.RecordHeader{
				{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_type", Value: []byte("shop.click")}, {Key: "ce_source", Value: []byte("/web")}, {Key: "ce_id", Value: []byte("1")},
				{Key: "ce_time", Value: []byte(text(e))}, {Key: "content-type", Value: []byte("application/json")}}
		}},
		{"cloudevents, structured", format.Auto, plain, func(e Event) ([]byte, []kgo.RecordHeader) {
			return encode(map[string]any{"specversion": "1.0", "type": "shop.click", "source": "/web", "id": "1", "time": text(e), "datacontenttype": "application/json",
					"data": map[string]any{"user_id": user(e), "brand": e.Brand, "price": e.Price}}),
				[]kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")}}
		}},
		{"debezium", format.Debezium, plain, func(e Event) ([]byte, []kgo.RecordHeader) { return encode(row(e)), nil }},
		{"debezium, with schema", format.Debezium, plain, func(e Event) ([]byte, []kgo.RecordHeader) {
			return encode(map[string]any{"schema": map[string]any{"type": "struct", "fields": []any{map[string]any{"type": "struct", "field": "after"}}}, "payload": row(e)}), nil
		}},
		{"debezium, avro", format.Debezium, plain, func(e Event) ([]byte, []kgo.RecordHeader) {
			return Avro(change, DebeziumID, map[string]any{"before": nil, "op": "c", "ts_ms": e.TimeMS + 5000, "source": map[string]any{"ts_ms": e.TimeMS + 3000, "table": "clicks"},
				"after": map[string]any{"id": int64(1), "user_id": avroUser(e), "event_time": e.TimeMS * 1000}}), nil
		}},
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func user(e Event) any {
	if n, err := strconv.ParseInt(e.User, 10, 64); err == nil && strconv.FormatInt(n, 10) == e.User {
		return n
	}
	return e.User
}

func text(e Event) string { return time.UnixMilli(e.TimeMS).UTC().Format(time.RFC3339Nano) }

// JSON is an event as the other formats say it.
func JSON(e Event) []byte {
	return encode(map[string]any{"event_time": text(e), "event_type": e.Kind, "brand": e.Brand, "price": e.Price, "user_id": user(e)})
}

func row(e Event) map[string]any {
	return map[string]any{"before": nil, "after": map[string]any{"id": 1, "user_id": user(e), "event_time": e.TimeMS, "brand": e.Brand}, "op": "c", "ts_ms": e.TimeMS + 5000,
		"source": map[string]any{"connector": "postgresql", "ts_ms": e.TimeMS + 3000, "table": "clicks"}}
}

// Header is what Confluent's wire format begins with.
func Header(id int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(id)) }

func avroUser(e Event) any {
	if n, ok := user(e).(int64); ok {
		return map[string]any{"long": n}
	}
	return map[string]any{"string": e.User}
}

// AvroRow is an event as AvroSchema has it.
func AvroRow(e Event) map[string]any {
	return map[string]any{"event_type": e.Kind, "product_id": map[string]any{"long": int64(1003461)}, "brand": map[string]any{"string": e.Brand}, "price": e.Price,
		"tags": []any{"a", "b"}, "user_id": avroUser(e), "event_time": time.UnixMilli(e.TimeMS), "user_session": "4d3b30da-a5e4-49df-b1a8-ba5943f1dd33"}
}

// Avro writes a value with a schema and its id.
func Avro(s *avro.Schema, id int, v any) []byte {
	b, err := s.AppendEncode(Header(id), v)
	if err != nil {
		panic(err)
	}
	return b
}

// Protobuf writes an event as a Click of ProtobufSchema.
func Protobuf(e Event) []byte {
	b := append(Header(ProtobufID), 4, 0, 2) // two indexes, zigzag: 0, 1
	b = append(protowire.AppendTag(b, 1, protowire.BytesType), protowire.AppendString(nil, e.Brand)...)
	for _, tag := range []string{"a", "b"} {
		b = append(protowire.AppendTag(b, 3, protowire.BytesType), protowire.AppendString(nil, tag)...)
	}
	if n, ok := user(e).(int64); ok {
		b = protowire.AppendVarint(protowire.AppendTag(b, 7, protowire.VarintType), uint64(n))
	} else {
		b = protowire.AppendString(protowire.AppendTag(b, 8, protowire.BytesType), e.User)
	}
	at := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(e.TimeMS/1000))
	at = protowire.AppendVarint(protowire.AppendTag(at, 2, protowire.VarintType), uint64(e.TimeMS%1000*1_000_000))
	b = protowire.AppendBytes(protowire.AppendTag(b, 20, protowire.BytesType), at)
	b = protowire.AppendVarint(protowire.AppendTag(b, 21, protowire.VarintType), 1)
	return protowire.AppendVarint(protowire.AppendTag(b, 99, protowire.VarintType), 7) // of a later version
}
