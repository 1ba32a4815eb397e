package flinksql

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// standard is the default rule on Kafka, with the names left open as the measured file has them.
func standard() Config {
	return Config{
		Connection: Connection{Connector: Kafka, Source: "${in}", Sink: "${out}", Brokers: []string{"${brokers}"}},
		Window:     10 * time.Second, Lateness: 10 * time.Second, Threshold: 5,
		UserField: "user_id", UserType: BigInt, TimeFields: []string{"txn_timestamp", "event_time"}, TimeType: Timestamp,
	}
}

func onKinesis(connector Connector) Config {
	c := standard()
	c.Connector, c.Brokers = connector, nil
	c.Source, c.Sink, c.Region, c.Account = "e-commerce-raw-user-activity-stream-1", "e-commerce-raw-user-activity-stream-2", "eu-west-1", "123456789012"
	return c
}

// statements are the lines without comments, blank lines and the places for the benchmark's own options.
func statements(sql string) []string {
	var lines []string
	for line := range strings.Lines(sql) {
		line = strings.Join(strings.Fields(line), " ")
		if line == "" || strings.HasPrefix(line, "--") || line == "${source}" || line == "${sink}" {
			continue
		}
		lines = append(lines, line)
	}
	return lines
}

// TestMeasured holds the default rule against the file that was run in Flink: what was found out about its meaning and its cost holds for
// what is exported.
func TestMeasured(t *testing.T) {
	want, err := os.ReadFile("../../testdata/golden/flink.sql")
	if err != nil {
		t.Fatal(err)
	}
	c := standard()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(statements(string(want)), statements(c.SQL())); diff != "" {
		t.Errorf("not what was measured (- measured, + exported):\n%s", diff)
	}
}

// TestKinesis: the table options that changed their names with connector 5.0, and the original's PARTITIONED BY.
func TestKinesis(t *testing.T) {
	for connector, want := range map[Connector][]string{
		Kinesis: {
			"PARTITIONED BY (category_id) WITH ( 'connector' = 'kinesis', " +
				"'stream.arn' = 'arn:aws:kinesis:eu-west-1:123456789012:stream/e-commerce-raw-user-activity-stream-1', 'aws.region' = 'eu-west-1', " +
				"'source.init.position' = 'TRIM_HORIZON' ,'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601' );",
			"PARTITIONED BY (user_id) WITH ( 'connector' = 'kinesis', " +
				"'stream.arn' = 'arn:aws:kinesis:eu-west-1:123456789012:stream/e-commerce-raw-user-activity-stream-2', 'aws.region' = 'eu-west-1' ,'format' = 'json',",
		},
		Kinesis4: {
			"'connector' = 'kinesis', 'stream' = 'e-commerce-raw-user-activity-stream-1', 'aws.region' = 'eu-west-1', 'scan.stream.initpos' = 'TRIM_HORIZON' ,'format'",
			"'connector' = 'kinesis', 'stream' = 'e-commerce-raw-user-activity-stream-2', 'aws.region' = 'eu-west-1' ,'format'",
		},
	} {
		c := onKinesis(connector)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		all := strings.Join(statements(c.SQL()), " ")
		for _, w := range want {
			if !strings.Contains(all, w) {
				t.Errorf("%s: no\n%s\nin\n%s", connector, w, c.SQL())
			}
		}
	}

	c := onKinesis(Kinesis)
	c.Source, c.Account, c.Region = "arn:aws-cn:kinesis:cn-north-1:1:stream/a", "2", "cn-north-1"
	sql := c.SQL()
	for _, w := range []string{"'arn:aws-cn:kinesis:cn-north-1:1:stream/a'", "'arn:aws-cn:kinesis:cn-north-1:2:stream/e-commerce-raw-user-activity-stream-2'"} {
		if !strings.Contains(sql, w) {
			t.Errorf("no %s in\n%s", w, sql)
		}
	}
}

func TestInterval(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                         "INTERVAL '0' SECOND",
		time.Millisecond:          "INTERVAL '0.001' SECOND",
		500 * time.Millisecond:    "INTERVAL '0.500' SECOND",
		10 * time.Second:          "INTERVAL '10' SECOND",
		99500 * time.Millisecond:  "INTERVAL '99.500' SECOND",
		100 * time.Second:         "INTERVAL '100' SECOND(3)",
		90*time.Minute + 50*1e6:   "INTERVAL '5400.050' SECOND(4)",
		7 * 24 * time.Hour:        "INTERVAL '604800' SECOND(6)",
		time.Minute + time.Second: "INTERVAL '61' SECOND",
	} {
		if got := interval(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}

// TestOddNames: what people call their members and topics does not get out of the place it stands in.
func TestOddNames(t *testing.T) {
	c := standard()
	c.UserField, c.UserType, c.TimeFields = "who`s; -- \\", String, []string{"order", "-- DROP;"}
	c.Source, c.Sink = "it's", "'); DROP TABLE x; --"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"CREATE TABLE ecomm_user_activity_stream_1 (",
		"`who``s; -- \\` STRING,",
		"`order` TIMESTAMP(3),",
		"WATERMARK FOR `order` as `order` - INTERVAL '10' SECOND",
		")",
		"WITH (",
		"'connector' = 'kafka',",
		"'topic' = 'it''s',",
		"'properties.bootstrap.servers' = '${brokers}',",
		"'properties.group.id' = 'flink',",
		"'scan.startup.mode' = 'earliest-offset'",
		",'format' = 'json',",
		"'json.timestamp-format.standard' = 'ISO-8601'",
		");",
		"CREATE TABLE ecomm_user_activity_stream_2 (",
		"`user_id` STRING,",
		"`window_start` TIMESTAMP(3),",
		"`window_end` TIMESTAMP(3),",
		"`num_actions_per_watermark` BIGINT",
		")",
		"WITH (",
		"'connector' = 'kafka',",
		"'topic' = '''); DROP TABLE x; --',",
		"'properties.bootstrap.servers' = '${brokers}'",
		",'format' = 'json',",
		"'json.timestamp-format.standard' = 'ISO-8601'",
		");",
		"insert into ecomm_user_activity_stream_2",
		"select `who``s; -- \\`, tumble_start(`order`, INTERVAL '10' SECOND), tumble_end(`order`, INTERVAL '10' SECOND), count(1) as num_actions_per_watermark",
		"from ecomm_user_activity_stream_1",
		"group by tumble(`order`, INTERVAL '10' SECOND), `who``s; -- \\`",
		"having count(1) > 5;",
	}
	if diff := cmp.Diff(want, statements(c.SQL())); diff != "" {
		t.Errorf("(- want, + got):\n%s", diff)
	}
	for _, line := range c.remarks() {
		if strings.Contains(line, "DROP;") || strings.ContainsAny(line, "\n\r") {
			t.Errorf("a comment that can end a statement: %q", line)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   []string // in the error, each at the start of a line
	}{
		"fine":           {func(*Config) {}, nil},
		"all at once":    {func(c *Config) { c.Window, c.Lateness, c.Threshold = 0, -1, 0 }, []string{"window: 0s", "lateness: -1ns", "threshold: 0"}},
		"too fine":       {func(c *Config) { c.Window = 1500 * time.Microsecond }, []string{"window: 1.5ms cannot be expressed in Flink SQL"}},
		"no names":       {func(c *Config) { c.UserField, c.TimeFields, c.Source = "", nil, "" }, []string{"user-field: ", "time-field: ", "topic: "}},
		"two lines":      {func(c *Config) { c.Sink = "a\nDROP" }, []string{`alerts-topic: "a\nDROP"`}},
		"one field":      {func(c *Config) { c.UserField = "txn_timestamp" }, []string{`time-field: "txn_timestamp" is also the user field`}},
		"a type":         {func(c *Config) { c.UserType = "INT" }, []string{"user-type: "}},
		"a type of time": {func(c *Config) { c.TimeType = "DATE" }, []string{"time-type: "}},
		"a circle":       {func(c *Config) { c.Sink = c.Source }, []string{`alerts-topic: "${in}" is also the source`}},
		"no connector":   {func(c *Config) { c.Connector = "jdbc" }, []string{`connector: "jdbc"`}},
		"no brokers":     {func(c *Config) { c.Brokers = nil }, []string{"brokers: missing"}},
		"no region":      {func(c *Config) { *c = onKinesis(Kinesis); c.Region, c.Account = "", "" }, []string{"region: ", "account: "}},
		"account or ARN": {func(c *Config) { *c = onKinesis(Kinesis); c.Account, c.Source, c.Sink = "", "arn:a", "arn:b" }, nil},
		"4 has no ARN":   {func(c *Config) { *c = onKinesis(Kinesis4); c.Sink = "arn:b" }, []string{"stream, alerts-stream: kinesis-4"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := standard()
			tc.change(&c)
			err := c.Validate()
			if err == nil {
				if len(tc.want) > 0 {
					t.Fatalf("no error, want %q", tc.want)
				}
				return
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Fatalf("%q, want %q", lines, tc.want)
			}
			for i, w := range tc.want {
				if !strings.HasPrefix(lines[i], w) {
					t.Errorf("%q, want %q", lines[i], w)
				}
			}
		})
	}
}
