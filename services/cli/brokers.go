package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"spate/shared/kafka"
	"spate/shared/kafka/security"
)

// localBroker is where spate up listens unless told otherwise.
const localBroker = "127.0.0.1:9092"

// brokerFlags say where the brokers are, and how connections to them are secured.
//
// Passwords and secrets have no flag: everyone on a machine can read command lines.
type brokerFlags struct {
	Brokers     []string `env:"SPATE_BROKERS" placeholder:"HOST:PORT" help:"Seed brokers of your Kafka cluster. Default: spate up's broker, 127.0.0.1:9092."`
	KafkaConfig string   `name:"kafka-config" env:"SPATE_KAFKA_CONFIG" group:"security" placeholder:"FILE" help:"Read brokers, TLS and SASL settings from a client.properties or librdkafka configuration file. Flags and other environment variables take precedence."`

	TLS                   bool   `name:"tls" env:"SPATE_TLS" group:"security" help:"Connect to the brokers with TLS. Implied by every other TLS flag."`
	TLSCAFile             string `name:"tls-ca-file" env:"SPATE_TLS_CA_FILE" group:"security" placeholder:"FILE" help:"CA certificates (PEM) used to verify the brokers' certificates. Default: the system's CA certificates. TLS files are reloaded when they change."`
	TLSCertFile           string `name:"tls-cert-file" env:"SPATE_TLS_CERT_FILE" group:"security" placeholder:"FILE" help:"Client certificate (PEM), for brokers that require one (mTLS)."`
	TLSKeyFile            string `name:"tls-key-file" env:"SPATE_TLS_KEY_FILE" group:"security" placeholder:"FILE" help:"Private key of the client certificate (PEM)."`
	TLSServerName         string `name:"tls-server-name" env:"SPATE_TLS_SERVER_NAME" group:"security" placeholder:"NAME" help:"Host name expected in the brokers' certificates. Default: the host name of the connection."`
	TLSInsecureSkipVerify bool   `name:"tls-insecure-skip-verify" env:"SPATE_TLS_INSECURE_SKIP_VERIFY" group:"security" help:"Do not verify the brokers' certificates. Insecure: anyone on the network path can read and change all data."`

	SASLMechanism    string `name:"sasl-mechanism" env:"SPATE_SASL_MECHANISM" group:"security" placeholder:"NAME" help:"SASL mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM (with credentials from the environment, the AWS profile or the instance role)."`
	SASLUsername     string `name:"sasl-username" env:"SPATE_SASL_USERNAME" group:"security" placeholder:"NAME" help:"User name for PLAIN and SCRAM, such as a Confluent Cloud API key."`
	SASLPasswordFile string `name:"sasl-password-file" env:"SPATE_SASL_PASSWORD_FILE" group:"security" placeholder:"FILE" help:"File that contains the password, read at each login. Alternatively, set SPATE_SASL_PASSWORD."`

	SASLOAuthTokenURL         string   `name:"sasl-oauth-token-url" env:"SPATE_SASL_OAUTH_TOKEN_URL" group:"security" placeholder:"URL" help:"OAUTHBEARER: token endpoint that issues tokens for client credentials."`
	SASLOAuthClientID         string   `name:"sasl-oauth-client-id" env:"SPATE_SASL_OAUTH_CLIENT_ID" group:"security" placeholder:"ID" help:"OAUTHBEARER: client ID for the token server."`
	SASLOAuthClientSecretFile string   `name:"sasl-oauth-client-secret-file" env:"SPATE_SASL_OAUTH_CLIENT_SECRET_FILE" group:"security" placeholder:"FILE" help:"OAUTHBEARER: file that contains the client secret. Alternatively, set SPATE_SASL_OAUTH_CLIENT_SECRET."`
	SASLOAuthScopes           []string `name:"sasl-oauth-scopes" env:"SPATE_SASL_OAUTH_SCOPES" group:"security" placeholder:"SCOPE" help:"OAUTHBEARER: scopes to request."`
	SASLOAuthTokenFile        string   `name:"sasl-oauth-token-file" env:"SPATE_SASL_OAUTH_TOKEN_FILE" group:"security" placeholder:"FILE" help:"OAUTHBEARER: file that contains a token, such as a projected service account token. The file replaces the token server and is read at each login."`
	SASLOAuthExtensions       []string `name:"sasl-oauth-extensions" env:"SPATE_SASL_OAUTH_EXTENSIONS" group:"security" placeholder:"NAME=VALUE" help:"OAUTHBEARER: extensions to send to the broker with the token, such as logicalCluster=lkc-1,identityPoolId=pool-1 for Confluent Cloud."`

	RackID string `name:"rack-id" env:"SPATE_RACK_ID" group:"security" placeholder:"ID" help:"Rack or availability zone of this process; records are fetched from a replica there, if one exists."`
}

// securityGroup is the group of these flags in the help.
const securityGroup = "Connections to a secured Kafka cluster (passwords and secrets come from files or the environment):"

// secured returns what is configured. Its brokers are those that were given, perhaps none.
func (f brokerFlags) secured(log *slog.Logger) (kafka.Config, error) {
	var file security.File
	if f.KafkaConfig != "" {
		var err error
		if file, err = security.ReadFile(f.KafkaConfig); err != nil {
			return kafka.Config{Brokers: []string{localBroker}}, err // of which nothing else is to be said
		}
		if len(file.Registry) > 0 {
			log.Warn("schema registry settings in the Kafka config file are ignored; set SPATE_SCHEMA_REGISTRY_URL, SPATE_SCHEMA_REGISTRY_USERNAME and SPATE_SCHEMA_REGISTRY_PASSWORD",
				"file", f.KafkaConfig, "settings", strings.Join(file.Registry, ","))
		}
		if len(file.Ignored) > 0 {
			log.Warn("some settings in the Kafka config file are ignored because spate sets them itself", "file", f.KafkaConfig, "settings", strings.Join(file.Ignored, ","))
		}
	}
	cfg := file.Config
	if f.SASLMechanism != "" && !strings.EqualFold(f.SASLMechanism, cfg.SASL.Mechanism) {
		cfg.SASL = security.SASL{Username: cfg.SASL.Username, Password: cfg.SASL.Password} // another login than the file's
	}
	if f.SASLOAuthTokenFile != "" || f.SASLOAuthTokenURL != "" {
		cfg.SASL.OAuth = security.OAuth{Extensions: cfg.SASL.OAuth.Extensions}
	}
	t, s, o := &cfg.TLS, &cfg.SASL, &cfg.SASL.OAuth
	t.Enabled = t.Enabled || f.TLS
	t.InsecureSkipVerify = t.InsecureSkipVerify || f.TLSInsecureSkipVerify
	over(&t.CAFile, f.TLSCAFile)
	over(&t.CertFile, f.TLSCertFile)
	over(&t.KeyFile, f.TLSKeyFile)
	over(&t.ServerName, f.TLSServerName)
	over(&s.Mechanism, f.SASLMechanism)
	over(&s.Username, f.SASLUsername)
	password, secret := os.Getenv("SPATE_SASL_PASSWORD"), os.Getenv("SPATE_SASL_OAUTH_CLIENT_SECRET")
	if password != "" || f.SASLPasswordFile != "" {
		s.Password, s.PasswordFile = password, f.SASLPasswordFile
	}
	over(&o.TokenURL, f.SASLOAuthTokenURL)
	over(&o.ClientID, f.SASLOAuthClientID)
	over(&o.TokenFile, f.SASLOAuthTokenFile)
	if secret != "" || f.SASLOAuthClientSecretFile != "" {
		o.ClientSecret, o.ClientSecretFile = secret, f.SASLOAuthClientSecretFile
	}
	if len(f.SASLOAuthScopes) > 0 {
		o.Scopes = f.SASLOAuthScopes
	}
	if len(f.SASLOAuthExtensions) > 0 {
		o.Extensions = f.SASLOAuthExtensions
	}
	out := kafka.Config{Brokers: f.Brokers, ClientID: file.ClientID, RackID: file.RackID}
	if len(out.Brokers) == 0 {
		out.Brokers = file.Brokers
	}
	over(&out.RackID, f.RackID)
	if file.Login && s.Mechanism == "" {
		return kafka.Config{Brokers: []string{localBroker}}, fmt.Errorf("kafka-config: %s: sasl.mechanism is missing, but security.protocol requires a login; add sasl.mechanism=PLAIN, or the mechanism that your brokers use", f.KafkaConfig)
	}
	var err error
	out.Security, err = security.New(cfg, log)
	if err == nil && len(out.Brokers) == 0 && out.Security != nil {
		err = errors.New("brokers: missing, but TLS or SASL is set, which spate up's broker does not support; set SPATE_BROKERS or --brokers to host:port[,host:port...]")
	}
	return out, err
}

// over sets what was given.
func over(to *string, given string) {
	if given != "" {
		*to = given
	}
}

// config is secured for commands that need a broker: without any, that of spate up is meant.
func (f brokerFlags) config(log *slog.Logger) (kafka.Config, error) {
	cfg, err := f.secured(log)
	if len(cfg.Brokers) == 0 { // also if there is an error: it says what there is to say
		cfg.Brokers = []string{localBroker}
	}
	return cfg, err
}
