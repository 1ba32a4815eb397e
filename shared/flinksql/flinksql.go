// Package flinksql exports spate's rule as Flink SQL: a source table, a sink table, and the INSERT that counts users in tumbling windows.
// It is for traffic that outgrows one worker, and for users who already run Flink. For Kafka and the default rule, the statements are those of
// the AWS walkthrough that spate was measured against. The package only writes text; it depends on neither Flink nor AWS.
package flinksql

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Connector is what Flink reads events from and writes results to.
type Connector string

const (
	// Kafka reads and writes topics.
	Kafka Connector = "kafka"
	// Kinesis is the connector for streams from version 5.0 on, which Flink 1.20 and later have, and with them Managed Flink's runtimes FLINK-1_20
	// and FLINK-2_2: streams by their ARN.
	Kinesis Connector = "kinesis"
	// Kinesis4 is the connector for streams up to version 4.x, as the original has it in a Studio notebook: streams by their name.
	Kinesis4 Connector = "kinesis-4"
)

// Connectors are all there are.
var Connectors = []Connector{Kafka, Kinesis, Kinesis4}

// The names of the two tables within Flink; nobody else sees them.
const (
	sourceTable = "ecomm_user_activity_stream_1"
	sinkTable   = "ecomm_user_activity_stream_2"
)

// maxDuration is the longest window and lateness, as the engine has it.
const maxDuration = 7 * 24 * time.Hour

// UserType is the SQL type of the member that holds the user.
type UserType string

const (
	// BigInt is for users that are whole numbers. Flink reads the string "7" as the number 7, so the two are one user.
	BigInt UserType = "BIGINT"
	// String is for all others. Flink reads the number 7 as the string "7", so the two are one user.
	String UserType = "STRING"
)

// TimeType is the SQL type of the member that holds the time.
type TimeType string

const (
	// Timestamp is for text without a zone, 2019-11-01T00:00:00.000, as the original's producer writes it. It is taken for UTC.
	Timestamp TimeType = "TIMESTAMP"
	// TimestampLTZ is for text that ends in Z, as spate simulate writes it. Flink reads no other zone.
	TimestampLTZ TimeType = "TIMESTAMP_LTZ"
)

// Connection says what Flink is connected to.
type Connection struct {
	Connector Connector

	// Source and Sink are topics for Kafka, names of streams for Kinesis4, names or ARNs of streams for Kinesis.
	Source, Sink string
	// Brokers of Kafka, host:port.
	Brokers []string
	// Region and Account of the streams. Account is for streams of Kinesis that are given by name.
	Region, Account string
}

// Config says what to look for, and where.
type Config struct {
	Connection

	// Window is the size of the tumbling windows, Lateness how far the watermark stays behind the newest event. Whole milliseconds up to a week.
	Window, Lateness time.Duration
	// Threshold is the count that a window must exceed.
	Threshold int64
	// UserField is the member that holds the user, UserType its type.
	UserField string
	UserType  UserType
	// TimeFields are the members that may hold the time. A table of Flink has one, the first, of TimeType.
	TimeFields []string
	TimeType   TimeType
}

// problems are what is wrong with a configuration, each with the name of the flag that sets the field in front.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// text adds a problem if a value is not a single line of text.
func (p *problems) text(flag, value string) {
	switch {
	case value == "":
		p.add("%s: must not be empty", flag)
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		p.add("%s: %q is not a single line of text", flag, value)
	}
}

func (p *problems) lateness(d time.Duration) {
	if d < 0 || d > maxDuration || d%time.Millisecond != 0 {
		p.add("lateness: %v cannot be expressed in Flink SQL; use whole milliseconds between 0s and %v", d, maxDuration)
	}
}

func (p *problems) timeType(t TimeType) {
	if t != Timestamp && t != TimestampLTZ {
		p.add("time-type: %q is not one of %s, %s", t, Timestamp, TimestampLTZ)
	}
}

// Validate reports every problem at once, by the name of the flag that sets the field.
func (c Config) Validate() error {
	var p problems
	if c.Window < time.Millisecond || c.Window > maxDuration || c.Window%time.Millisecond != 0 {
		p.add("window: %v cannot be expressed in Flink SQL; use whole milliseconds between 1ms and %v", c.Window, maxDuration)
	}
	p.lateness(c.Lateness)
	if c.Threshold < 1 {
		p.add("threshold: %d is below 1", c.Threshold)
	}
	p.text("user-field", c.UserField)
	if c.UserType != BigInt && c.UserType != String {
		p.add("user-type: %q is not one of %s, %s", c.UserType, BigInt, String)
	}
	p.timeType(c.TimeType)
	if len(c.TimeFields) == 0 {
		p.add("time-field: missing")
	}
	for _, f := range c.TimeFields {
		p.text("time-field", f)
	}
	if len(c.TimeFields) > 0 && c.TimeFields[0] == c.UserField {
		p.add("time-field: %q is also the user field", c.UserField)
	}
	c.validate(&p)
	return errors.Join(p...)
}

func (c Connection) validate(p *problems) {
	source, sink := "stream", "alerts-stream"
	switch c.Connector {
	case Kafka:
		source, sink = "topic", "alerts-topic"
		if len(c.Brokers) == 0 {
			p.add("brokers: missing")
		}
		for _, b := range c.Brokers {
			p.text("brokers", b)
		}
	case Kinesis, Kinesis4:
		p.text("region", c.Region)
		byName := !isARN(c.Source) || !isARN(c.Sink)
		if c.Connector == Kinesis && byName {
			p.text("account", c.Account)
		}
		if c.Connector == Kinesis4 && (isARN(c.Source) || isARN(c.Sink)) {
			p.add("stream, alerts-stream: %s requires stream names, not ARNs", Kinesis4)
		}
	default:
		p.add("connector: %q is not one of %s, %s, %s", c.Connector, Kafka, Kinesis, Kinesis4)
	}
	p.text(source, c.Source)
	p.text(sink, c.Sink)
	if c.Source != "" && c.Source == c.Sink {
		p.add("%s: %q is also the source of the events; choose a different destination for the results", sink, c.Sink)
	}
}

// column of a table.
type column struct{ name, typ string }

// original are the columns that the original declares. Only two of them are used.
var original = []column{
	{"event_time", "VARCHAR(30)"}, {"event_type", "VARCHAR(30)"}, {"product_id", "BIGINT"}, {"category_id", "BIGINT"},
	{"category_code", "VARCHAR(30)"}, {"brand", "VARCHAR(30)"}, {"price", "DOUBLE"}, {"user_id", "BIGINT"},
	{"user_session", "VARCHAR(30)"}, {"txn_timestamp", "TIMESTAMP(3)"},
}

// columns of the source table: the original's, if user and time are where it has them. Of other events no more is known than user and time.
func (c Config) columns() []column {
	user, at := column{c.UserField, string(c.UserType)}, column{c.TimeFields[0], string(c.TimeType) + "(3)"}
	if user.name != "user_id" || at.name != "txn_timestamp" {
		return []column{user, at}
	}
	columns := slices.Clone(original)
	for i, col := range columns {
		switch col.name {
		case user.name:
			columns[i] = user
		case at.name:
			columns[i] = at
		}
	}
	return columns
}

// SQL returns the statements, each ended by a semicolon at the end of a line, with comments above them. c must be valid.
func (c Config) SQL() string {
	var b strings.Builder
	writeRemarks(&b, c.remarks())
	user, at, size := bare(c.UserField), bare(c.TimeFields[0]), interval(c.Window)

	fmt.Fprintf(&b, "CREATE TABLE %s (\n", sourceTable)
	columns := c.columns()
	for _, col := range columns {
		fmt.Fprintf(&b, "%s %s,\n", quoted(col.name), col.typ)
	}
	fmt.Fprintf(&b, "  WATERMARK FOR %s as %s - %s\n)\n", at, at, interval(c.Lateness))
	if c.Connector != Kafka && len(columns) == len(original) {
		b.WriteString("PARTITIONED BY (category_id)\n")
	}
	b.WriteString(with(c.source()))

	fmt.Fprintf(&b, "\nCREATE TABLE %s (\n", sinkTable)
	// Whatever the events call the user: these are the names that alerters know.
	fmt.Fprintf(&b, "`user_id` %s,\n`window_start` TIMESTAMP(3),\n`window_end` TIMESTAMP(3),\n`num_actions_per_watermark` BIGINT\n)\n", c.UserType)
	if c.Connector != Kafka {
		b.WriteString("PARTITIONED BY (user_id)\n") // the records of a user in one shard
	}
	b.WriteString(with(c.sink()))

	fmt.Fprintf(&b, "\ninsert into %s\n", sinkTable)
	fmt.Fprintf(&b, "select %s, tumble_start(%s, %s), tumble_end(%s, %s), count(1) as num_actions_per_watermark\n", user, at, size, at, size)
	fmt.Fprintf(&b, "from %s\n", sourceTable)
	fmt.Fprintf(&b, "group by tumble(%s, %s), %s\n", at, size, user)
	fmt.Fprintf(&b, "having count(1) > %d;\n", c.Threshold)
	return b.String()
}

// option of a table.
type option struct{ key, value string }

func (c Connection) source() []option {
	switch c.Connector {
	case Kafka:
		return append(c.topic(c.Source), option{"properties.group.id", "flink"}, option{"scan.startup.mode", "earliest-offset"})
	case Kinesis:
		return append(c.stream(c.Source), option{"source.init.position", "TRIM_HORIZON"})
	}
	return append(c.stream(c.Source), option{"scan.stream.initpos", "TRIM_HORIZON"})
}

func (c Connection) sink() []option {
	if c.Connector == Kafka {
		return c.topic(c.Sink)
	}
	return c.stream(c.Sink)
}

func (c Connection) topic(name string) []option {
	return []option{{"connector", "kafka"}, {"topic", name}, {"properties.bootstrap.servers", strings.Join(c.Brokers, ",")}}
}

func (c Connection) stream(name string) []option {
	key := "stream"
	if c.Connector == Kinesis {
		key, name = "stream.arn", c.arn(name)
	}
	return []option{{"connector", "kinesis"}, {key, name}, {"aws.region", c.Region}}
}

// arn of a stream that is given by name.
func (c Connection) arn(name string) string {
	if isARN(name) {
		return name
	}
	partition := "aws"
	switch {
	case strings.HasPrefix(c.Region, "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(c.Region, "us-gov-"):
		partition = "aws-us-gov"
	}
	return "arn:" + partition + ":kinesis:" + c.Region + ":" + c.Account + ":stream/" + name
}

func isARN(s string) bool { return strings.HasPrefix(s, "arn:") }

// with is the end of a CREATE TABLE. The format's options are on lines of their own, between which the original has room for others.
func with(options []option) string {
	var b strings.Builder
	b.WriteString("WITH (\n")
	for i, o := range options {
		if i > 0 {
			b.WriteString(",\n")
		}
		b.WriteString(literal(o.key) + " = " + literal(o.value))
	}
	b.WriteString("\n,'format' = 'json',\n'json.timestamp-format.standard' = 'ISO-8601'\n);\n")
	return b.String()
}

// literal is a string of SQL.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// quoted is a name of SQL in backticks, which any name may be in.
func quoted(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// bare is a name without backticks if that is sure to be no keyword: the names that the original uses. All others are in backticks.
func bare(name string) string {
	for _, c := range original {
		if name == c.name {
			return name
		}
	}
	return quoted(name)
}

// interval is a duration of whole milliseconds. Without a precision Flink takes two digits before the point.
func interval(d time.Duration) string {
	seconds, ms := int64(d/time.Second), int64(d%time.Second/time.Millisecond)
	whole := strconv.FormatInt(seconds, 10)
	text, precision := whole, ""
	if ms > 0 {
		text += fmt.Sprintf(".%03d", ms)
	}
	if len(whole) > 2 {
		precision = "(" + strconv.Itoa(len(whole)) + ")"
	}
	return "INTERVAL '" + text + "' SECOND" + precision
}
