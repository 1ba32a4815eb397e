package flinksql

import (
	"fmt"
	"strings"
)

// remarks are what stands above the statements: what they say, and what spate does that they cannot say.
func (c Config) remarks() []string {
	lines := []string{
		fmt.Sprintf("spate's rule: more than %d events of one user in a window of %v of event time. Written by spate rules export.", c.Threshold, c.Window),
		"It gives one row a window, when that has closed. What spate does and this cannot say:",
		"* no alert as soon as a window passes the threshold (opened), no severity, id, evidence, first and last event time;",
		"* what is late is dropped unseen, and a record that is not an event ends the job: there is no dead-letter stream;",
	}
	if c.Connector == Kafka {
		lines = append(lines, "* a partition that falls silent holds all windows open; the table option scan.watermark.idle-timeout is near to SPATE_IDLE_TIMEOUT;")
	} else {
		lines = append(lines,
			"* the watermark is that of each source task over all its shards, so events of a shard that lags may be late;",
			"* a source task that gets no events holds all windows open: the parallelism must not exceed the number of shards, and the setting",
			"  table.exec.source.idle-timeout is near to SPATE_IDLE_TIMEOUT;",
		)
	}
	lines = append(lines, "* no limit on how far in the future an event may be (SPATE_MAX_AHEAD);")
	first := comment(c.TimeFields[0])
	if len(c.TimeFields) > 1 {
		lines = append(lines, fmt.Sprintf("* the time is in %s alone; others (%s) are not looked at;", first, comment(strings.Join(c.TimeFields[1:], ", "))))
	}
	like := "2019-11-01T00:00:00.000, without a zone, in UTC"
	if c.TimeType == TimestampLTZ {
		like = "2019-11-01T00:00:00.000Z, and Flink's table.local-time-zone UTC"
	}
	lines = append(lines, fmt.Sprintf("* %s must be text like %s; numbers are not read;", first, like))
	if c.UserType == BigInt {
		lines = append(lines, "* users are whole numbers; 7 and \"7\" are one.")
	} else {
		lines = append(lines, "* users are text; 7 and \"7\" are one.")
	}
	switch c.Connector {
	case Kinesis:
		lines = append(lines, "For the Kinesis connector 5.0 and later (Managed Flink FLINK-1_20). For 4.x and Studio notebooks: --connector kinesis-4.")
	case Kinesis4:
		lines = append(lines, "For the Kinesis connector up to 4.x (Studio notebooks). For 5.0 and later, as Managed Flink FLINK-1_20 has it: --connector kinesis.")
	}
	return lines
}

// comment keeps a name from ending the statement that a reader of the file takes the comment for: some split at semicolons first.
func comment(s string) string { return strings.ReplaceAll(s, ";", ",") }
