package console

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"spate/shared/activity"
	"spate/shared/flinksql"
	"spate/shared/kafka"
)

type rulesCommand struct {
	Export rulesExportCommand `cmd:"" help:"Write the rule in the language of another engine."`
}

type rulesExportCommand struct {
	ruleFlags
	kafkaFlags
	FlinkSQL    bool   `name:"flink-sql" help:"Write Flink SQL: source table, sink table, and the INSERT that counts. The only language there is."`
	Connector   string `name:"connector" default:"" placeholder:"NAME" help:"kafka, kinesis (connector 5.0 and later, Managed Flink) or kinesis-4 (4.x, Studio notebooks). Default: kinesis if the mode is aws, else kafka."`
	UserType    string `name:"user-type" default:"bigint" help:"Type of the user: bigint, or string."`
	TimeType    string `name:"time-type" default:"timestamp" help:"Type of the time: timestamp, for text without a zone, or timestamp_ltz, for text that ends in Z, as simulate writes it."`
	AlertsTopic string `name:"alerts-topic" placeholder:"TOPIC" help:"Topic that Flink writes to; not the one of spate's alerts, whose records have more. Default: that one's name and .flink."`

	Stream       string `env:"SPATE_STREAM" default:"e-commerce-raw-user-activity-stream-1" help:"Stream of events, by name or ARN."`
	AlertsStream string `name:"alerts-stream" env:"SPATE_ALERTS_STREAM" default:"e-commerce-raw-user-activity-stream-2" help:"Stream that Flink writes to, by name or ARN."`
	Region       string `name:"region" env:"AWS_REGION,AWS_DEFAULT_REGION" default:"$${region}" help:"Region of the streams."`
	Account      string `name:"account" default:"$${account}" help:"Account of streams that are given by name."`
}

// Help is shown below the usage.
func (rulesExportCommand) Help() string {
	return `Comments at the top say what spate does and the statements cannot. Region and account that are not given stand there as ${region} and
${account}; deploy/aws/flink/main.py fills them in where it runs.

  spate rules export --flink-sql                                        for Kafka
  spate rules export --flink-sql --connector kinesis >burst.sql         for Managed Flink (docs/aws.md)
  spate rules export --flink-sql --window 1m --threshold 20             another rule`
}

func (c *rulesExportCommand) Run(e *env) error {
	if !c.FlinkSQL {
		return usage(errors.New("flink-sql: say which language; --flink-sql is the one there is"))
	}
	r, connector := c.rule(), flinksql.Connector(c.Connector)
	if connector == "" {
		connector = flinksql.Kafka
		if e.mode == "aws" {
			connector = flinksql.Kinesis
		}
	}
	user, times, err := columns(r.Events.Fields)
	if err := usage(errors.Join(r.Events.Validate(), err)); err != nil {
		return err
	}
	cfg := flinksql.Config{
		Connector: connector, Window: r.Window, Lateness: r.Lateness, Threshold: r.Threshold,
		UserField: user, UserType: flinksql.UserType(strings.ToUpper(c.UserType)), TimeFields: times,
		TimeType: flinksql.TimeType(strings.ToUpper(c.TimeType)),
	}
	if connector == flinksql.Kafka {
		k, err := c.config(e.logger(slog.LevelWarn))
		if err != nil {
			return usage(err)
		}
		cfg.Source, cfg.Sink, cfg.Brokers = c.Topic, c.AlertsTopic, k.Brokers
		if cfg.Sink == "" {
			cfg.Sink = kafka.NamesFor(c.Topic).Alerts + ".flink"
		}
	} else {
		cfg.Source, cfg.Sink, cfg.Region, cfg.Account = c.Stream, c.AlertsStream, c.Region, c.Account
	}
	if err := usage(cfg.Validate()); err != nil {
		return err
	}
	_, err = io.WriteString(e.stdout, cfg.SQL())
	return err
}

// columns returns the names of the user's column and of those of the time. Flink's statement has one user, and columns of the top level.
func columns(f activity.Fields) (user string, times []string, err error) {
	var errs []error
	name := func(setting, path string) string {
		n, ok := activity.TopLevel(path)
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %q leads into an object, which the statement does not do", setting, path))
		}
		return n
	}
	if len(f.User) > 1 {
		errs = append(errs, errors.New("user-field: the statement has one user; give one"))
	}
	for _, p := range f.User {
		user = name("user-field", p)
	}
	for _, p := range f.Time {
		times = append(times, name("time-field", p))
	}
	if t := f.TimeFormat; t != "" && t != activity.TimeAuto && t != activity.TimeRFC3339 {
		errs = append(errs, fmt.Errorf("time-format: the statement reads texts, and not %q", t))
	}
	return user, times, errors.Join(errs...)
}
