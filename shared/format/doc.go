// Package format reads events in the formats that producers write: JSON, Avro, Protobuf and JSON Schema with Confluent's wire format,
// CloudEvents, and Debezium change events.
//
//	record ──► envelope ──────────────► encoding ──────────────────► user and time
//	           none, CloudEvents,       JSON, or as the schema
//	           Debezium: where the      says, whose id is in the
//	           fields lie               first five bytes
//
// An envelope is a [layout]: the paths that lead to the user and the time in it. An encoding looks for paths in a value: [activity.Finder] in JSON,
// and a program that is compiled from a schema once (skip n bytes, read this field) in Avro and Protobuf. So no event becomes a map, and every
// envelope can be combined with every encoding.
//
// A schema never changes once it has an id, so the verdict on a record stays a function of the log. A registry that does not answer is an
// error, and the record is read again. An id that the registry does not know makes the record invalid (no_schema): otherwise, a stray
// record would stop its partition.
package format
