package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"spate/services/doctor"
	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/notify/endpoints"
)

type doctorCommand struct {
	kafkaFlags
	formatFlags
	migrateFlags
	webhookFlags
	streamFlags
	UserField  []string      `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Fields that may hold the user; use the router's value."`
	TimeField  []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Fields that may hold the event time; use the router's value."`
	TimeFormat string        `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format; use the router's value."`
	Window     time.Duration `env:"SPATE_WINDOW" default:"10s" help:"Window size; the retention of the keyed log must be longer."`
	Lateness   time.Duration `env:"SPATE_LATENESS" default:"10s" help:"Lateness; use the router's value."`
	Instance   string        `env:"SPATE_INSTANCE" placeholder:"NAME" help:"Instance name of the router, if one is set; the router's transactions use this name."`
	Table      string        `env:"SPATE_TABLE,dynamodb_control_table" group:"aws" default:"ddb-ecommerce-tab-1" help:"DynamoDB table that stores the alerts."`
	StateTable string        `name:"state-table" env:"SPATE_STATE_TABLE" group:"aws" default:"spate-state" help:"DynamoDB table that stores the worker's lease and state, and the rules."`
	TopicARN   string        `name:"topic-arn" env:"SPATE_TOPIC_ARN,topic_arn" group:"aws" placeholder:"ARN" help:"SNS topic to which incidents are published."`

	Services  []string `name:"service" placeholder:"NAME" help:"Check the permissions of these services: ${services}. Default: route, detect and alert. Each service can have its own principal."`
	ACLs      bool     `name:"acls" help:"Check nothing; print the commands that grant each service the minimum permissions it needs."`
	Principal string   `placeholder:"TYPE:NAME" help:"With --acls: the principal to grant the permissions to. Default: the SASL user, or User:spate."`
	JSON      bool     `name:"json" help:"Print one JSON line per finding: check, level (ok, warning, failed, unknown), text, fix."`
}

// Help is shown below the usage.
func (doctorCommand) Help() string {
	return `Checks the brokers, TLS and certificates, the login, permissions, topics and their settings, broker limits, clocks, open transactions,
running services, the database and its schema, and the endpoints. It also checks whether the newest records are valid events under the user,
time and format settings. In mode aws, it checks the identity, streams, tables, the SNS topic and the endpoints. It modifies none of your
data and sends no messages, but a broker that has never had a consumer group may create its internal topics. The exit code is 1 if something will not work.

  spate doctor                                          with the services' settings
  spate doctor --service route                          as the router's principal
  spate doctor --acls --principal User:spate | sh       for Apache Kafka, with an admin.properties file; other brokers have their own commands`
}

func (c *doctorCommand) Run(e *env) error {
	services := c.Services
	if len(services) == 0 {
		services = []string{kafka.Router, kafka.Detector, kafka.Alerter}
	}
	for _, s := range services {
		if !slices.Contains(kafka.Services, s) {
			return usage(fmt.Errorf("service: %q is not one of %s", s, strings.Join(kafka.Services, ", ")))
		}
	}
	if c.ACLs {
		if len(c.Services) == 0 {
			services = kafka.Services
		}
		return c.printACLs(e, services)
	}
	var found []doctor.Finding
	o := newOut(e.stdout)
	tell := func(f doctor.Finding) {
		found = append(found, f)
		if c.JSON {
			_ = o.json(f) // o.end returns its error
			return
		}
		o.printf("%-8s %-13s %s\n", f.Level, f.Check, f.Text)
		if f.Fix != "" {
			o.printf("%-8s %-13s -> %s\n", "", "", f.Fix)
		}
	}
	log := e.logger(slog.LevelError)
	if e.mode == "aws" {
		others := c.Endpoints != "" || c.WebhookURL != ""
		if err := doctor.AWS(e.ctx, doctor.Cloud{Stream: c.Stream, AlertsStream: c.AlertsStream, Table: c.Table, StateTable: c.StateTable, TopicARN: c.TopicARN, Endpoints: others}, tell); err != nil {
			return usage(err)
		}
		if others {
			c.told(e, log, tell)
		}
	} else {
		k, err := c.settings(e, e.logger(slog.LevelWarn)) // which settings of a file do not count is worth a line here
		fields := activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}
		if err := usage(errors.Join(err, k.Validate(), fields.Validate())); err != nil {
			return err
		}
		events := &format.Config{Fields: fields}
		if c.formatFlags.events(events, log) != nil || events.Validate() != nil {
			events = nil // schemas reports it
		}
		layout := c.layout("", "")
		layout.Replays = c.Window + c.Lateness
		doctor.Kafka(e.ctx, doctor.Config{Kafka: k, Layout: layout, Services: services, Instance: c.Instance, Events: events, Log: log}, tell)
		c.database(e.ctx, tell)
		c.told(e, log, tell)
	}
	c.schemas(e.ctx, e.logger(slog.LevelWarn), tell)
	if err := e.ctx.Err(); err != nil {
		return o.end(err)
	}
	failed := 0
	for _, f := range found {
		if f.Level == doctor.Failed {
			failed++
		}
	}
	if failed > 0 {
		return o.end(fmt.Errorf("%d of %d checks failed", failed, len(found)))
	}
	return o.end(nil)
}

// schemas checks the schema registry, if there is one.
func (c *doctorCommand) schemas(ctx context.Context, log *slog.Logger, tell func(doctor.Finding)) {
	registry, err := c.registry(log)
	switch {
	case err != nil:
	case registry == nil && (c.Format == string(format.Avro) || c.Format == string(format.Protobuf)):
		err = format.Config{Format: format.Name(c.Format), Fields: activity.DefaultFields()}.Validate()
	case registry == nil:
		return
	default:
		err = registry.Check(ctx)
	}
	if err != nil {
		for _, err := range endpoints.Problems(err) {
			tell(doctor.Finding{Check: "schemas", Level: doctor.Failed, Text: err.Error()})
		}
		return
	}
	tell(doctor.Finding{Check: "schemas", Level: doctor.OK, Text: "the schema registry " + c.SchemaRegistryURL + " responds"})
}

// databaseTimeout is how long the database may take to report its schema.
const databaseTimeout = 10 * time.Second

// database checks the database of alerts.
func (c *doctorCommand) database(ctx context.Context, tell func(doctor.Finding)) {
	say := func(level doctor.Level, fix, format string, args ...any) {
		tell(doctor.Finding{Check: "database", Level: level, Fix: fix, Text: fmt.Sprintf(format, args...)})
	}
	db, err := c.target()
	if err != nil {
		say(doctor.Failed, "", "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	migrations, err := db.status(ctx)
	if err != nil {
		say(doctor.Failed, "", "%s: %v", db.name, err)
		return
	}
	states := make(map[string]int)
	for _, m := range migrations {
		states[stateOf(m)]++
	}
	switch {
	case states["unknown"] > 0:
		say(doctor.Warning, "use a separate database for this version of spate, or run the newer version", "%s has the schema of a newer version of spate", db.name)
	case states["pending"] > 0:
		say(doctor.Warning, "run spate migrate up; spate alert and spate up also apply migrations when they start", "%s: %d of %d migrations are pending", db.name, states["pending"], len(migrations))
	default:
		say(doctor.OK, "", "%s has the current schema", db.name)
	}
}

// told checks the endpoints.
func (c *doctorCommand) told(e *env, log *slog.Logger, tell func(doctor.Finding)) {
	notified, stop, err := c.endpoints(log)
	defer stop()
	if err != nil {
		for _, err := range endpoints.Problems(err) {
			tell(doctor.Finding{Check: "endpoints", Level: doctor.Failed, Text: err.Error()})
		}
		return
	}
	rules := alertsRulesFlags{c.brokerFlags, rulesTableFlags{Stream: c.Stream, StateTable: c.StateTable}, c.Topic}
	for _, line := range rules.strangeRules(e, notified) {
		tell(doctor.Finding{Check: "endpoints", Level: doctor.Warning, Text: line, Fix: "correct the name in the endpoints file, or apply the rule (spate rules apply)"})
	}
	if len(notified) == 0 {
		tell(doctor.Finding{Check: "endpoints", Level: doctor.Warning, Text: "no endpoints are configured, so no notifications are sent", Fix: "set SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET, or SPATE_ENDPOINTS (spate endpoints --help)"})
	}
	for _, ep := range notified {
		tell(doctor.Finding{Check: "endpoints", Level: doctor.OK, Text: fmt.Sprintf("%s is notified at %s; to send it a test message, run spate endpoints test %s", ep.Name, ep.Config().Host, ep.Name)})
	}
}

// printACLs prints the commands of Apache Kafka that grant the minimum permissions.
func (c *doctorCommand) printACLs(e *env, services []string) error {
	names := kafka.NamesFor(c.Topic)
	k, err := c.config(e.logger(slog.LevelError))
	if err := usage(err); err != nil {
		return err
	}
	if c.Principal == "" {
		if c.Principal = "User:" + k.Security.Config().SASL.Username; c.Principal == "User:" {
			c.Principal = "User:spate"
		}
	}
	o := newOut(e.stdout)
	brokers := brokers(k)
	if !c.JSON {
		o.printf("# For Apache Kafka; the command may be named kafka-acls.sh. admin.properties is the client configuration of an administrator.\n")
	}
	show := func(r kafka.Right) {
		if c.JSON {
			_ = o.json(r) // o.end returns its error
			return
		}
		flag := "--" + r.Resource
		pattern := ""
		if r.Prefix {
			pattern = " --resource-pattern-type prefixed"
		}
		why := r.Why
		if r.If != "" {
			why += "; only if " + r.If
		}
		o.printf("kafka-acls --bootstrap-server %s --command-config admin.properties --add --allow-principal %s --operation %s %s %s%s # %s\n",
			shellWord(brokers), shellWord(c.Principal), r.Operation, flag, shellWord(r.Name), pattern, why)
	}
	for _, s := range services {
		if !c.JSON {
			o.printf("# spate %s\n", s)
		}
		for _, r := range names.Rights(s, c.Instance) {
			show(r)
		}
	}
	if !c.JSON {
		o.printf("# needed at the first start to create missing topics; DescribeConfigs is optional: without it, spate cannot detect settings that cause data loss\n")
	}
	for _, r := range names.MakeRights() {
		show(r)
	}
	return o.end(nil)
}

// shellWord is a word for a shell.
func shellWord(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:,/=+-@", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
