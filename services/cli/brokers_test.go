package cli

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
	"spate/shared/kafka/security"
)

// parsed returns the settings of a command line.
func parsed(t *testing.T, args ...string) (kafka.Config, error) {
	t.Helper()
	var f struct{ brokerFlags }
	parser, err := kong.New(&f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f.secured(slog.New(slog.DiscardHandler))
}

func tempFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Flags and variables win over a vendor's file, also where they log in another way.
func TestFlagsWinOverTheFile(t *testing.T) {
	const scram = "bootstrap.servers=file:1\nsecurity.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nsasl.username=u\nsasl.password=p\nclient.rack=r1\n"
	const tokens = "bootstrap.servers=file:1\nsecurity.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://id.example/t\n" +
		"sasl.oauthbearer.client.id=id\nsasl.oauthbearer.client.secret=s\nsasl.oauthbearer.extensions=logicalCluster=l\n"
	password, token := tempFile(t, "password", "other"), tempFile(t, "token", "abc")
	for name, test := range map[string]struct {
		file string
		args []string
		env  string // SPATE_SASL_PASSWORD
		want func(kafka.Config, security.SASL) bool
	}{
		"the file alone": {scram, nil, "", func(k kafka.Config, s security.SASL) bool {
			return k.Brokers[0] == "file:1" && k.RackID == "r1" && s.Username == "u" && s.Password == "p"
		}},
		"brokers and rack": {scram, []string{"--brokers", "flag:1", "--rack-id", "r2"}, "", func(k kafka.Config, _ security.SASL) bool { return k.Brokers[0] == "flag:1" && k.RackID == "r2" }},
		"a password file":  {scram, []string{"--sasl-password-file", password}, "", func(_ kafka.Config, s security.SASL) bool { return s.Password == "" && s.PasswordFile == password }},
		"a password":       {scram, nil, "env", func(_ kafka.Config, s security.SASL) bool { return s.Password == "env" }},
		"another mechanism": {tokens, []string{"--sasl-mechanism", "PLAIN", "--sasl-username", "u"}, "env", func(_ kafka.Config, s security.SASL) bool {
			return s.Mechanism == security.Plain && s.OAuth.TokenURL == ""
		}},
		"another source of tokens": {tokens, []string{"--sasl-oauth-token-file", token}, "", func(_ kafka.Config, s security.SASL) bool {
			return s.OAuth.TokenFile == token && s.OAuth.TokenURL == "" && s.OAuth.Extensions[0] == "logicalCluster=l"
		}},
		"a mechanism that the file lacks": {"security.protocol=SASL_SSL\nbootstrap.servers=file:1\n", []string{"--sasl-mechanism", "PLAIN", "--sasl-username", "u"}, "env", func(_ kafka.Config, s security.SASL) bool {
			return s.Mechanism == security.Plain
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SPATE_SASL_PASSWORD", test.env)
			k, err := parsed(t, append(test.args, "--kafka-config", tempFile(t, "client.properties", test.file))...)
			if err != nil {
				t.Fatal(err)
			}
			if c := k.Security.Config(); !test.want(k, c.SASL) {
				t.Errorf("%+v, %+v", k.Brokers, c)
			}
		})
	}
}

// A file that is none of settings is refused without a word of what is in it, and a secret in the wrong place is not shown.
func TestSecretsInTheWrongPlace(t *testing.T) {
	key := tempFile(t, "key.pem", "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgeheim\n-----END PRIVATE KEY-----\n")
	word := tempFile(t, "word", "geheim\n")
	for _, args := range [][]string{
		{"doctor", "--kafka-config", key},
		{"route", "--kafka-config", word},
		{"doctor", "--kafka-config", tempFile(t, "p", "security.protocol=SASL_SSL\nsasl.password=geheim\n")},
		{"doctor", "--brokers", "SASL_SSL://u:geheim@h:1"},
		{"health", "http://u:geheim@127.0.0.1:1/readyz"},
		{"doctor", "--sasl-mechanism", "PLAIN", "--sasl-username", "u", "--sasl-password-file", filepath.Join(t.TempDir(), "none")},
	} {
		code, out, errs := spate(args...)
		if code != ExitUsage {
			t.Errorf("%v: exit code %d", args, code)
		}
		if strings.Contains(out+errs, "geheim") || strings.Contains(out+errs, "BEGIN") || strings.Contains(errs, "brokers: missing") {
			t.Errorf("%v: %s%s", args, out, errs)
		}
	}
}

// docker compose passes what is not set as an empty text.
func TestEmptyVariables(t *testing.T) {
	for _, name := range []string{"SPATE_TLS", "SPATE_TLS_INSECURE_SKIP_VERIFY", "SPATE_SASL_MECHANISM", "SPATE_PPROF", "SPATE_WINDOW", "SPATE_PARTITIONS", "SPATE_TOPIC"} {
		t.Setenv(name, "")
	}
	if code, _, errs := spate("doctor", "--acls"); code != ExitOK {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// What is printed for a shell is what it says there, whatever the names.
func TestACLsAreQuoted(t *testing.T) {
	code, out, errs := spate("doctor", "--acls", "--service", "simulate", "--topic", "a$(touch b)'c", "--principal", "User:x y", "--kafka-config",
		tempFile(t, "client.properties", "bootstrap.servers=real.example:9093\n"))
	if code != ExitOK || !strings.Contains(out, `--bootstrap-server real.example:9093 `) || !strings.Contains(out, `--allow-principal 'User:x y'`) || !strings.Contains(out, `--topic 'a$(touch b)'\''c'`) {
		t.Errorf("%d: %s%s", code, out, errs)
	}
}

// The doctor says of a fresh cluster that nothing is missing that can be seen, and of one that names no broker that it is not well.
func TestDoctorOnFreshBrokers(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	doctor := func(args ...string) (int, string) {
		code, out, errs := spate(append([]string{"doctor", "--brokers", cluster.ListenAddrs()[0], "--database-url", filepath.Join(t.TempDir(), "none.db")}, args...)...)
		return code, out + errs
	}
	if code, out := doctor(); code != ExitOK || strings.Contains(out, "failed ") || !strings.Contains(out, "topics that do not exist yet: activity") ||
		!strings.Contains(out, "unknown  rights        route, detect: cannot check this permission: Read on topic activity.rules\n") || strings.Count(out, "check again after the services have run once") != 1 {
		t.Errorf("fresh: %d\n%s", code, out)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := (kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic), Partitions: 2}).Ensure(t.Context(), kadm.NewClient(cl)); err != nil {
		t.Fatal(err)
	}
	if code, out := doctor("--partitions", "8"); code != ExitFailed || !strings.Contains(out, "activity has 2 partitions, but 8 are configured") || !strings.Contains(out, "the broker has not stamped any record yet") {
		t.Errorf("other partitions, no records: %d\n%s", code, out)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "activity.dlq", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if code, out := doctor(); code != ExitOK || !strings.Contains(out, "events were set aside as invalid") {
		t.Errorf("dead letters: %d\n%s", code, out)
	}
	if code, out := doctor("--user-field", "a", "--time-field", "a"); code != ExitUsage || !strings.Contains(out, "is also a user field") {
		t.Errorf("fields: %d\n%s", code, out)
	}
	send := func(values ...string) {
		t.Helper()
		for _, v := range values {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "activity", Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(`{"user":"a","at":1767225600}`, `{"user":"b","at":1767225601}`, "no JSON")
	if code, out := doctor(); code != ExitFailed || !strings.Contains(out, "failed   events        0 of the newest 3 records in activity are valid events under these settings\n") ||
		!strings.Contains(out, `2 of them are invalid: no_user - the event has no field "user_id"; it has at, user: set SPATE_USER_FIELD (--user-field)`) || !strings.Contains(out, "1 of them are invalid: not_json - ") {
		t.Errorf("other fields: %d\n%s", code, out)
	}
	if code, out := doctor("--user-field", "user", "--time-field", "at", "--time-format", "s"); code != ExitOK || !strings.Contains(out, "warning  events        2 of the newest 3 records in activity are valid events") {
		t.Errorf("the right fields: %d\n%s", code, out)
	}
	if code, out := doctor("--service", "alert"); code != ExitOK || strings.Contains(out, "newest 3") {
		t.Errorf("of a service that reads no events: %d\n%s", code, out)
	}
	// One seed broker that answers is enough to work with, and not enough to rely on.
	if code, out := doctor("--brokers", cluster.ListenAddrs()[0]+",127.0.0.1:1", "--service", "alert"); code != ExitOK || !strings.Contains(out, "warning  brokers       seed broker 127.0.0.1:1 does not respond: ") {
		t.Errorf("a seed broker that is away: %d\n%s", code, out)
	}
	// One that has just stamped a record shows whether the clocks agree; and who works is counted, wherever the connection comes from.
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "activity.keyed", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	member, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumerGroup(kafka.NamesFor("activity").RouterGroup), kgo.ConsumeTopics("activity"))
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	if member.PollRecords(t.Context(), 1).NumRecords() == 0 {
		t.Fatal("nothing is consumed")
	}
	if _, out := doctor("--service", "alert"); !strings.Contains(out, "ok       clock         the broker's clock agrees with this machine's: its newest timestamp is ") ||
		!strings.Contains(out, "route: group spate-router is stable, with 1 member, on 127.0.0.1\n") {
		t.Errorf("a member, and a new record:\n%s", out)
	}
	cluster.ControlKey(int16(kmsg.DescribeGroups), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := r.ResponseKind().(*kmsg.DescribeGroupsResponse)
		for _, g := range r.(*kmsg.DescribeGroupsRequest).Groups {
			d := kmsg.NewDescribeGroupsResponseGroup()
			d.Group, d.ErrorCode = g, kerr.GroupAuthorizationFailed.Code
			resp.Groups = append(resp.Groups, d)
		}
		return resp, nil, true
	})
	if code, out := doctor(); code != ExitFailed || !strings.Contains(out, "lacks Read on group spate-router") {
		t.Errorf("groups denied: %d\n%s", code, out)
	}
	cluster.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return r.ResponseKind(), nil, true
	})
	if code, out := doctor(); code != ExitFailed || !strings.Contains(out, "lists no brokers") {
		t.Errorf("no brokers: %d\n%s", code, out)
	}
}

func TestAddressToListenOnIsCheckedOnce(t *testing.T) {
	bare(t)
	code, _, errs := spate("up", "--listen", "127.0.0.1:99999")
	if code != ExitUsage || strings.Count(errs, "99999") != 1 {
		t.Errorf("%d: %s", code, errs)
	}
}
