package flinksql

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

func compile(t *testing.T, sql string) *rule.Set {
	t.Helper()
	set, errs := rule.Compile(sql, rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs[0].Format("r.sql", sql))
	}
	return set
}

func script(t *testing.T, sql string) Script {
	t.Helper()
	to := Connection{Connector: Kafka, Source: "activity", Sink: "alerts.flink", Brokers: []string{"localhost:9092"}}
	s := Script{Connection: to, Rules: compile(t, sql), Lateness: 10 * time.Second, TimeType: Timestamp}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScript: what is exported says the same as the rules file, to spate, too.
func TestScript(t *testing.T) {
	for _, c := range ruletest.Cases(t) {
		s := script(t, c.SQL)
		again := script(t, s.SQL())
		a, b := s.Rules.Rules[0], again.Rules.Rules[0]
		if a.FeedKey() != b.FeedKey() || a.Window != b.Window || a.Table.LatenessMS != b.Table.LatenessMS {
			t.Errorf("%s is another rule:\n%s", c.Rule, s.SQL())
		}
		for i, col := range a.Columns {
			if b.Columns[i].Name != col.Name || !cmp.Equal(b.Columns[i].Type, col.Type) {
				t.Errorf("%s: column %d is %s %s, want %s %s", c.Rule, i, b.Columns[i].Name, b.Columns[i].Type, col.Name, col.Type)
			}
		}
		if diff := cmp.Diff(s.SQL(), again.SQL()); diff != "" {
			t.Errorf("%s: exported twice (- once, + twice):\n%s", c.Rule, diff)
		}
	}
}

const count = "FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;\n"

// TestScriptSinks: rules that write the same columns to a table share it; others have tables of their own, and what the script declares stays.
func TestScriptSinks(t *testing.T) {
	sql := script(t, `CREATE TABLE declared (who BIGINT, label VARCHAR(9), n BIGINT);
-- rule: first
INSERT INTO alerts SELECT user_id, COUNT(*) AS n `+count+`
-- rule: second-one
-- param: kind = 'it''s'
-- summary: {user_id}; {kind}
INSERT INTO alerts SELECT user_id, ${kind} AS kind `+count+`
-- rule: third
INSERT INTO alerts SELECT user_id, COUNT(*) AS n `+count+`
-- rule: fourth
-- mode: off
INSERT INTO elsewhere SELECT user_id, COUNT(*) AS n `+count+`
-- rule: fifth
INSERT INTO declared SELECT user_id, 'x', COUNT(*) `+count).SQL()
	var got []string
	for line := range strings.Lines(sql[strings.Index(sql, "CREATE TABLE alerts"):]) {
		if line = strings.TrimSpace(line); strings.Contains(line, "CREATE") || strings.HasPrefix(line, "`") || strings.HasPrefix(line, "INSERT") || strings.HasPrefix(line, "-- ") {
			got = append(got, line)
		}
	}
	want := []string{
		"CREATE TABLE alerts (", "`user_id` BIGINT,", "`n` BIGINT",
		"CREATE TABLE alerts_second_one (", "`user_id` BIGINT,", "`kind` STRING",
		"CREATE TABLE declared (", "`who` BIGINT,", "`label` VARCHAR(9),", "`n` BIGINT",
		"-- rule: first", "INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;",
		"-- rule: second-one", "-- summary: {user_id}; {kind}", "INSERT INTO alerts_second_one",
		"-- rule: third", "INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;",
		"-- rule: fifth", "INSERT INTO declared SELECT user_id, 'x', COUNT(*) FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(- want, + got):\n%s", diff)
	}
	if !strings.Contains(sql, "'it''s' AS kind") {
		t.Errorf("the parameter is not in place:\n%s", sql)
	}
}

// TestScriptOffset: Flink loses rows of windows with an offset, and it is said.
func TestScriptOffset(t *testing.T) {
	s := script(t, `INSERT INTO alerts SELECT user_id, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND, INTERVAL '3' SECOND)) GROUP BY window_start, window_end, user_id`)
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "rule r") || !strings.Contains(w[0], "FLINK-36664") || !strings.Contains(s.SQL(), "-- WARNING: "+w[0]+"\n") {
		t.Errorf("%q", w)
	}
}

// TestScriptConnections: tables have the WITH clause of the connection, whatever the script says.
func TestScriptConnections(t *testing.T) {
	s := script(t, `CREATE TABLE a (u BIGINT, happened TIMESTAMP(3), WATERMARK FOR happened AS happened - INTERVAL '1:30' MINUTE TO SECOND) WITH ('connector' = 'kafka', 'topic' = 'x');
INSERT INTO alerts SELECT u, COUNT(*) AS n FROM a GROUP BY TUMBLE(happened, INTERVAL '10' SECOND), u`)
	s.Connection, s.TimeType = onKinesis(Kinesis).Connection, TimestampLTZ
	sql := s.SQL()
	for _, want := range []string{
		"`happened` TIMESTAMP_LTZ(3),\n  WATERMARK FOR `happened` AS `happened` - INTERVAL '90' SECOND\n) WITH (\n'connector' = 'kinesis',\n'stream.arn' = 'arn:aws:kinesis:",
		"'source.init.position' = 'TRIM_HORIZON'", "-- * happened must be text such as 2019-11-01T00:00:00.000Z", "-- This script is for version 5.0 and later of the Kinesis connector",
	} {
		if !strings.Contains(sql, want) {
			t.Errorf("no %q in\n%s", want, sql)
		}
	}
	if strings.Contains(sql, "kafka") {
		t.Error(sql)
	}
}

func TestScriptValidate(t *testing.T) {
	s := Script{Connection: standard().Connection, Rules: compile(t, "-- rule: r\n-- mode: off\nINSERT INTO a SELECT user_id "+count), Lateness: -1, TimeType: "DATE"}
	s.Brokers = nil
	err := s.Validate()
	for _, want := range []string{"lateness: -1ns", "time-type: ", "brokers: missing", "no rule to export"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	s = Script{Connection: standard().Connection, Rules: compile(t, "INSERT INTO activity SELECT user_id "+count), TimeType: Timestamp}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "rule r: activity is also an events table") {
		t.Error(err)
	}
}
