package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"spate/shared/activity"
	"spate/shared/flinksql"
	"spate/shared/kafka"
	"spate/shared/rule"
	"spate/shared/terminal"
)

type rulesExportCommand struct {
	File string            `arg:"" optional:"" help:"Rules file, or - for standard input. Default: the rule that the settings describe."`
	Set  map[string]string `name:"set" mapsep:"none" placeholder:"RULE.PARAM=VALUE" help:"Value of a parameter in the rules file. Repeatable."`

	ruleFlags
	kafkaFlags
	FlinkSQL    bool   `name:"flink-sql" help:"Write Flink SQL: source tables, sink tables, and an INSERT statement for each rule. This is the default, as no other language is supported."`
	Connector   string `name:"connector" default:"" placeholder:"NAME" help:"Flink connector: kafka, kinesis (connector 5.0 and later, Managed Flink) or kinesis-4 (4.x, Studio notebooks). Default: kinesis in mode aws, otherwise kafka."`
	UserType    string `name:"user-type" default:"bigint" help:"SQL type of the user: bigint or string."`
	TimeType    string `name:"time-type" default:"timestamp" help:"SQL type of the time: timestamp, for text without a time zone, or timestamp_ltz, for text that ends in Z, as written by spate simulate."`
	AlertsTopic string `name:"alerts-topic" placeholder:"TOPIC" help:"Topic that Flink writes to. Do not use spate's alerts topic, whose records have more fields. Default: the name of the alerts topic with .flink appended."`

	Stream       string `env:"SPATE_STREAM" default:"e-commerce-raw-user-activity-stream-1" help:"Events stream, as a name or an ARN."`
	AlertsStream string `name:"alerts-stream" env:"SPATE_ALERTS_STREAM" default:"e-commerce-raw-user-activity-stream-2" help:"Stream that Flink writes to, as a name or an ARN."`
	Region       string `name:"region" env:"AWS_REGION,AWS_DEFAULT_REGION" default:"$${region}" help:"AWS region of the streams."`
	Account      string `name:"account" default:"$${account}" help:"AWS account that owns the streams given by name."`
}

// Help is shown below the usage.
func (rulesExportCommand) Help() string {
	return `Comments at the top list features of spate that the SQL lacks. A region or account that is not set is written as ${region} or ${account};
deploy/aws/flink/main.py replaces these at run time.

  spate rules export --flink-sql                                        for Kafka
  spate rules export --flink-sql --connector kinesis >burst.sql         for Managed Flink (docs/aws.md)
  spate rules export --flink-sql --window 1m --threshold 20             a different rule
  spate rules export rules.sql --flink-sql                              the rules in a file

The tables of a rules file keep their columns and get WITH clauses for the connection that the settings describe. Rules that write
different columns to one table get separate tables, which write to the same topic or stream. With a rules file, --window, --threshold,
--critical, --user-field, --user-type and --time-field have no effect; --lateness applies to tables without a watermark.`
}

func (c *rulesExportCommand) Run(e *env) error {
	to, err := c.connection(e)
	if err != nil {
		return err
	}
	if c.File != "" {
		return c.script(e, to)
	}
	r := c.rule()
	user, times, err := columns(r.Events.Fields)
	if err := usage(errors.Join(r.Events.Validate(), err)); err != nil {
		return err
	}
	cfg := flinksql.Config{
		Connection: to, Window: r.Window, Lateness: r.Lateness, Threshold: r.Threshold,
		UserField: user, UserType: flinksql.UserType(strings.ToUpper(c.UserType)), TimeFields: times,
		TimeType: flinksql.TimeType(strings.ToUpper(c.TimeType)),
	}
	if err := usage(cfg.Validate()); err != nil {
		return err
	}
	_, err = io.WriteString(e.stdout, cfg.SQL())
	return err
}

// connection is what Flink is to be connected to.
func (c *rulesExportCommand) connection(e *env) (flinksql.Connection, error) {
	to := flinksql.Connection{Connector: flinksql.Connector(c.Connector)}
	if to.Connector == "" {
		to.Connector = flinksql.Kafka
		if e.mode == "aws" {
			to.Connector = flinksql.Kinesis
		}
	}
	if to.Connector != flinksql.Kafka {
		to.Source, to.Sink, to.Region, to.Account = c.Stream, c.AlertsStream, c.Region, c.Account
		return to, nil
	}
	k, err := c.config(e.logger(slog.LevelWarn))
	if err != nil {
		return to, usage(err)
	}
	to.Source, to.Sink, to.Brokers = c.Topic, c.AlertsTopic, k.Brokers
	if to.Sink == "" {
		to.Sink = kafka.NamesFor(c.Topic).Alerts + ".flink"
	}
	return to, nil
}

// script exports a rules file.
func (c *rulesExportCommand) script(e *env, to flinksql.Connection) error {
	f, err := readRules(c.File, c.Set)
	if err != nil {
		return err
	}
	if err := f.printErrors(e.stderr); err != nil {
		return err
	}
	s := flinksql.Script{Connection: to, Rules: f.set, Lateness: c.Lateness, TimeType: flinksql.TimeType(strings.ToUpper(c.TimeType))}
	if err := usage(s.Validate()); err != nil {
		return err
	}
	for _, w := range s.Warnings() {
		terminal.Fprintln(e.stderr, "spate: warning:", w)
	}
	d := activity.DefaultFields()
	if (c.UserField[0] != d.User[0] || !slices.Contains(d.Time, c.TimeField[0])) && slices.ContainsFunc(f.set.Rules, func(r *rule.Rule) bool { return r.Table.BuiltIn }) {
		terminal.Fprintf(e.stderr, "spate: warning: the exported table activity has the columns user_id and txn_timestamp, but SPATE_USER_FIELD is %s and SPATE_TIME_FIELD is %s; change these columns in the exported statements\n",
			strings.Join(c.UserField, ","), strings.Join(c.TimeField, ","))
	}
	_, err = io.WriteString(e.stdout, s.SQL())
	return err
}

// columns returns the names of the user's column and of those of the time. Flink's statement has one user, and columns of the top level.
func columns(f activity.Fields) (user string, times []string, err error) {
	var errs []error
	name := func(setting, path string) string {
		n, ok := activity.TopLevel(path)
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %q is a nested field, which the exported SQL does not support; use a top-level field", setting, path))
		}
		return n
	}
	if len(f.User) > 1 {
		errs = append(errs, errors.New("user-field: the exported SQL supports only one user field; give one"))
	}
	for _, p := range f.User {
		user = name("user-field", p)
	}
	for _, p := range f.Time {
		times = append(times, name("time-field", p))
	}
	if t := f.TimeFormat; t != "" && t != activity.TimeAuto && t != activity.TimeRFC3339 {
		errs = append(errs, fmt.Errorf("time-format: the exported SQL supports only auto and rfc3339, not %q", t))
	}
	return user, times, errors.Join(errs...)
}
