package security

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadFile(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want File
	}{
		"Confluent Cloud, Java": {
			`# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers=SASL_SSL://pkc-1.eu-central-1.aws.confluent.cloud:9092
security.protocol=SASL_SSL
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username='KEY' password='s\\'e=cret;';
sasl.mechanism=PLAIN
# Required for correctness in Apache Kafka clients prior to 2.6
client.dns.lookup=use_all_dns_ips
session.timeout.ms=45000
acks=all
`,
			File{Brokers: []string{"pkc-1.eu-central-1.aws.confluent.cloud:9092"},
				Login: true, Config: Config{TLS: TLS{Enabled: true}, SASL: SASL{Mechanism: "PLAIN", Username: "KEY", Password: "s'e=cret;"}},
				Ignored: []string{"client.dns.lookup", "session.timeout.ms", "acks"}},
		},
		"librdkafka": {
			"bootstrap.servers=a:1,b:2\r\nsecurity.protocol=sasl_ssl\r\nsasl.mechanisms=SCRAM-SHA-512\r\nsasl.username = u\r\nsasl.password = p w\r\nssl.ca.location=/ca.pem\r\nclient.rack=eu-1a\r\n",
			File{Brokers: []string{"a:1", "b:2"}, RackID: "eu-1a",
				Login: true, Config: Config{TLS: TLS{Enabled: true, CAFile: "/ca.pem"}, SASL: SASL{Mechanism: "SCRAM-SHA-512", Username: "u", Password: "p w"}}},
		},
		"mutual TLS": {
			"bootstrap.servers=a:1\nsecurity.protocol=SSL\nssl.ca.location=ca.pem\nssl.certificate.location=c.pem\nssl.key.location=k.pem\n",
			File{Brokers: []string{"a:1"}, Config: Config{TLS: TLS{Enabled: true, CAFile: "ca.pem", CertFile: "c.pem", KeyFile: "k.pem"}}},
		},
		"PEM stores of Java": {
			"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=ca.pem\nssl.keystore.type=PEM\nssl.keystore.location=both.pem\n",
			File{Config: Config{TLS: TLS{Enabled: true, CAFile: "ca.pem", CertFile: "both.pem", KeyFile: "both.pem"}}},
		},
		"tokens": {
			`security.protocol=SASL_SSL
sasl.mechanism=OAUTHBEARER
sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler
sasl.oauthbearer.token.endpoint.url=https://id.example/token
sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
    clientId="id" \
    clientSecret="secret" \
    scope="kafka more" \
    extension_logicalCluster="lkc-1" \
    extension_identityPoolId="pool-1";
`,
			File{Login: true, Config: Config{TLS: TLS{Enabled: true}, SASL: SASL{Mechanism: "OAUTHBEARER", OAuth: OAuth{TokenURL: "https://id.example/token", ClientID: "id", ClientSecret: "secret",
				Scopes: []string{"kafka", "more"}, Extensions: []string{"identityPoolId=pool-1", "logicalCluster=lkc-1"}}}}},
		},
		"MSK": {
			"security.protocol=SASL_SSL\nsasl.mechanism=AWS_MSK_IAM\nsasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule required;\nsasl.client.callback.handler.class=software.amazon.msk.auth.iam.IAMClientCallbackHandler\n",
			File{Login: true, Config: Config{TLS: TLS{Enabled: true}, SASL: SASL{Mechanism: "AWS_MSK_IAM"}}},
		},
		"no security, and the password of a comment": {
			"! sasl.password=x\nbootstrap.servers: a:1\nsecurity.protocol PLAINTEXT\n",
			File{Brokers: []string{"a:1"}},
		},
		"blanks, surrogates, the last one counts": {
			"bootstrap.servers=old:1\nbootstrap.servers=a:1\nsecurity.protocol=SASL_SSL\nsasl.jaas.config=o.ScramLoginModule\trequired username = \"u\" password= 'p\\uD83D\\uDE00\\ ';  \n",
			File{Brokers: []string{"a:1"}, Login: true, Config: Config{TLS: TLS{Enabled: true}, SASL: SASL{Username: "u", Password: "p😀 "}}},
		},
		"escapes": {
			"\ufeffbootstrap.servers=a\\:1\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=\\u0075\nsasl.password=a\\\\b\n",
			File{Brokers: []string{"a:1"}, Login: true, Config: Config{SASL: SASL{Mechanism: "PLAIN", Username: "u", Password: `a\b`}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "client.properties")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What spate cannot do is refused by line and name; no value is shown, for it may be a secret.
func TestReadFileRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"security.protocol=SASL_SSL\nssl.truststore.type=JKS\n":                           "line 2: ssl.truststore.type: spate reads only PEM",
		"ssl.key.password=geheim\n":                                                       "line 1: ssl.key.password: spate reads only files without a password",
		"ssl.endpoint.identification.algorithm=\n":                                        "line 1: ssl.endpoint.identification.algorithm",
		"security.protocol=geheim\n":                                                      "line 1: security.protocol: not one of",
		"sasl.kerberos.service.name=geheim\n":                                             "line 1: sasl.kerberos.service.name: unknown security setting",
		"sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required;\n":       "login module",
		"sasl.jaas.config=o.PlainLoginModule required username=\"u\" password=\"geheim\n": "a quote is not closed",
		"sasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=geheim\n":                   "security.protocol is missing",
		"-----BEGIN PRIVATE KEY-----\n":                                                   "line 1: does not begin with a setting name",
		"geheim\n":                                                                        "line 1: does not begin",
		"GEHEIM=geheim\n":                                                                 "line 1: does not begin",
		"bootstrap.servers=\\uZZZZ\n":                                                     "four hexadecimal digits",
		"sasl.jaas.config=s.IAMLoginModule required awsProfileName=\"geheim\";\nsecurity.protocol=SASL_SSL\n": "AWS_PROFILE",
		"\xff\xfe": "not UTF-8",
	} {
		if _, err := parseFile(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "kafka-config: ") {
		t.Error(err)
	}
}

// No file of settings makes the reader panic, and its errors show no value.
func FuzzParseFile(f *testing.F) {
	f.Add("sasl.jaas.config=o.PlainLoginModule required username=\"u\" password='p\\'';\\\n  x=1")
	f.Add("a\\=b : c\\u0041 \\\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseFile(text) })
}
