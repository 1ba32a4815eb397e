package cli

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// go test ./services/cli -run TestSettingsPage -update writes docs/settings.md anew.
var update = flag.Bool("update", false, "write the pages that are made of the program")

const settingsPage = "../../docs/settings.md"

// settingsSections are those of docs/settings.md, with the variables in each, in this order.
var settingsSections = []struct{ title, text, variables string }{
	{"The rule", "All routers and detectors in a pipeline need the same settings. `replay` and `verify` do not use the idle timeout, because none of their partitions falls silent.",
		"SPATE_RULES SPATE_WINDOW SPATE_THRESHOLD SPATE_CRITICAL SPATE_TRANSITIONS SPATE_LATENESS SPATE_IDLE_TIMEOUT SPATE_MAX_AHEAD SPATE_OPEN_TRANSACTION_TIMEOUT"},
	{"Events", "[contract.md](contract.md#events) explains these terms.",
		"SPATE_USER_FIELD SPATE_TIME_FIELD SPATE_TIME_FORMAT SPATE_NULL_VALUES SPATE_DEDUPE_FIELD SPATE_FORMAT SPATE_SCHEMA_REGISTRY_URL SPATE_SCHEMA_REGISTRY_USERNAME " +
			"SPATE_SCHEMA_REGISTRY_PASSWORD SPATE_SCHEMA_REGISTRY_PASSWORD_FILE SPATE_SCHEMA_REGISTRY_TLS_CA_FILE SPATE_SCHEMA_REGISTRY_TLS_CERT_FILE " +
			"SPATE_SCHEMA_REGISTRY_TLS_KEY_FILE SPATE_SCHEMA_REGISTRY_TLS_SERVER_NAME SPATE_SCHEMA_REGISTRY_TLS_INSECURE_SKIP_VERIFY"},
	{"Kafka", "", "SPATE_BROKERS SPATE_MODE SPATE_TOPIC SPATE_PARTITIONS SPATE_REPLICATION SPATE_MAX_BATCH_BYTES"},
	{"Connections to a secured Kafka", "[kafka.md](kafka.md) explains how to combine these settings. Passwords, secrets and tokens have no flag, because all users of a machine can read command lines.",
		"SPATE_KAFKA_CONFIG SPATE_TLS SPATE_TLS_CA_FILE SPATE_TLS_CERT_FILE SPATE_TLS_KEY_FILE SPATE_TLS_SERVER_NAME SPATE_TLS_INSECURE_SKIP_VERIFY SPATE_SASL_MECHANISM " +
			"SPATE_SASL_USERNAME SPATE_SASL_PASSWORD SPATE_SASL_PASSWORD_FILE SPATE_SASL_OAUTH_TOKEN_URL SPATE_SASL_OAUTH_CLIENT_ID SPATE_SASL_OAUTH_CLIENT_SECRET " +
			"SPATE_SASL_OAUTH_CLIENT_SECRET_FILE SPATE_SASL_OAUTH_SCOPES SPATE_SASL_OAUTH_TOKEN_FILE SPATE_SASL_OAUTH_EXTENSIONS SPATE_RACK_ID"},
	{"Alerts and notifications", "[webhooks.md](webhooks.md#several-endpoints) describes the endpoints file.",
		"SPATE_DATABASE_URL SPATE_WEBHOOK_URL SPATE_WEBHOOK_SECRET SPATE_WEBHOOK_ALLOW_PRIVATE SPATE_ENDPOINTS SPATE_RECEIVE_LISTEN"},
	{"Processes", "", "SPATE_LOG_LEVEL SPATE_HTTP SPATE_PPROF SPATE_HTTP_TLS_CERT_FILE SPATE_HTTP_TLS_KEY_FILE SPATE_HTTP_TOKEN SPATE_HTTP_TOKEN_FILE SPATE_HTTP_TLS_CA_FILE " +
		"SPATE_ADVERTISE SPATE_MAX_OPEN_WINDOWS SPATE_DECIDE_MAX_AGE SPATE_INSTANCE SPATE_STATE SPATE_LISTEN NO_COLOR"},
	{"The console", "[console.md](console.md) describes the console.",
		"SPATE_CONSOLE_LISTEN SPATE_CONSOLE_TOKEN SPATE_CONSOLE_TOKEN_FILE SPATE_CONSOLE_TRUSTED_HEADER SPATE_CONSOLE_PUBLIC_HOSTS"},
	{"AWS", "Credentials, region and endpoints are configured as for any AWS SDK. If a variable has a second name, the AWS walkthrough's Lambda function uses that name.",
		"SPATE_STREAM SPATE_ALERTS_STREAM SPATE_ASIDE_STREAM SPATE_STATE_TABLE SPATE_LEASE SPATE_POLL SPATE_FROM SPATE_TABLE SPATE_RETAIN SPATE_TOPIC_ARN SPATE_MIN_SEVERITY " +
			"SPATE_DEAD_LETTERS SPATE_METRICS_NAMESPACE SPATE_ALERTS_METRIC SPATE_SHARDS SPATE_SNS_TOPIC SPATE_BUCKET"},
	{"Traffic", "", "SPATE_TO SPATE_OUT SPATE_PUT SPATE_KEY SPATE_SPREAD_BY_USER SPATE_BATCH_MAX_BYTES SPATE_TIME SPATE_SPEED SPATE_RATE SPATE_DISORDER SPATE_EVENTS SPATE_DURATION SPATE_SEED " +
		"SPATE_EVENT_RATE SPATE_USERS SPATE_ATTACKERS SPATE_INNOCENTS SPATE_START SPATE_TRUTH"},
}

// withoutFlag are the variables that no flag stands for.
var withoutFlag = map[string]string{
	"SPATE_SASL_PASSWORD":            "The password.",
	"SPATE_SASL_OAUTH_CLIENT_SECRET": "The client's secret.",
	"SPATE_SCHEMA_REGISTRY_PASSWORD": "The password.",
	"SPATE_HTTP_TOKEN":               "The token, at least 16 characters.",
	"SPATE_CONSOLE_TOKEN":            "The token that visitors to the console need, at least 16 characters.",
	"NO_COLOR":                       "If set, the output has no colors.",
}

// setting is one variable, as the command line has it.
type setting struct {
	flag     *kong.Flag
	commands []string
	others   []string // other flags for it, with the command
}

// settings returns those of the command line by their first variable.
func settings(t *testing.T) map[string]*setting {
	t.Helper()
	var p program
	parser, err := kong.New(&p, kong.Vars{"services": "route, detect, alert", "version": ""})
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*setting)
	var walk func(n *kong.Node, path string)
	walk = func(n *kong.Node, path string) {
		for _, f := range n.Flags {
			if len(f.Envs) == 0 {
				continue
			}
			s := out[f.Envs[0]]
			if s == nil {
				s = &setting{flag: f}
				out[f.Envs[0]] = s
			}
			if !slices.Contains(s.commands, path) {
				s.commands = append(s.commands, path)
			}
			if f.Name != s.flag.Name {
				s.others = append(s.others, fmt.Sprintf("`--%s` of %s", f.Name, path))
			}
		}
		for _, child := range n.Children {
			walk(child, strings.TrimSpace(path+" "+child.Name))
		}
	}
	walk(parser.Model.Node, "")
	return out
}

// TestSettingsPage: docs/settings.md is what the command line says of its settings.
func TestSettingsPage(t *testing.T) {
	known := settings(t)
	for _, name := range secretVariables {
		if withoutFlag[name] == "" {
			t.Errorf("%s has no text", name)
		}
	}
	var b strings.Builder
	b.WriteString("# Settings\n\nA flag overrides its environment variable. Durations need a unit, as in `500ms`, `10s` and `1m`. [contract.md](contract.md#exit-codes) lists the exit codes.\n\n" +
		"This page is generated from the command line: `go test ./services/cli -run TestSettingsPage -update`.\n")
	for _, section := range settingsSections {
		fmt.Fprintf(&b, "\n## %s\n\n", section.title)
		if section.text != "" {
			b.WriteString(section.text + "\n\n")
		}
		b.WriteString("| environment | flag | commands | default | meaning |\n| --- | --- | --- | --- | --- |\n")
		for _, name := range strings.Fields(section.variables) {
			s := known[name]
			delete(known, name)
			switch {
			case s != nil:
				b.WriteString(row(s))
			case withoutFlag[name] != "":
				fmt.Fprintf(&b, "| `%s` | | | | %s |\n", name, withoutFlag[name])
			default:
				t.Errorf("%s is not a setting", name)
			}
		}
	}
	for name := range known {
		if !strings.HasPrefix(name, "AWS_") {
			t.Errorf("%s is in no section of the page", name)
		}
	}
	if *update {
		if err := os.WriteFile(settingsPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(b.String(), read(t, settingsPage)); diff != "" {
		t.Errorf("docs/settings.md is not what the command line says; run go test ./services/cli -run TestSettingsPage -update\n%s", diff)
	}
}

func row(s *setting) string {
	f := s.flag
	variables := make([]string, len(f.Envs))
	for i, name := range f.Envs {
		variables[i] = "`" + name + "`"
	}
	commands := strings.Join(s.commands, ", ")
	if slices.Contains(s.commands, "") {
		commands = "all"
	}
	fallback := ""
	if f.HasDefault && f.Default != "" {
		fallback = "`" + strings.ReplaceAll(f.Default, `\\`, `\`) + "`"
	}
	help := strings.NewReplacer("|", `\|`, "<", `\<`).Replace(f.Help)
	flags := strings.Join(append([]string{"`--" + f.Name + "`"}, s.others...), ", ")
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", strings.Join(variables, ", "), flags, commands, fallback, help)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
