package cli

import (
	"log/slog"
	"os"

	"spate/shared/format"
	"spate/shared/kafka/security"
)

// formatFlags say how events are written, and where their schemas are.
type formatFlags struct {
	Format string `name:"format" env:"SPATE_FORMAT" default:"auto" enum:"auto,json,avro,protobuf,cloudevents,debezium" help:"Event format: json, avro, protobuf, cloudevents or debezium; auto detects CloudEvents by their headers, and Avro, Protobuf and JSON Schema by their schema ID prefix."`

	SchemaRegistryURL          string `name:"schema-registry-url" env:"SPATE_SCHEMA_REGISTRY_URL" placeholder:"URL" help:"URL of a Confluent-compatible schema registry."`
	SchemaRegistryUsername     string `name:"schema-registry-username" env:"SPATE_SCHEMA_REGISTRY_USERNAME" placeholder:"NAME" help:"User name for the schema registry, such as a Confluent Cloud API key."`
	SchemaRegistryPasswordFile string `name:"schema-registry-password-file" env:"SPATE_SCHEMA_REGISTRY_PASSWORD_FILE" placeholder:"FILE" help:"File that contains the password. Alternatively, set SPATE_SCHEMA_REGISTRY_PASSWORD."`

	SchemaRegistryTLSCAFile             string `name:"schema-registry-tls-ca-file" env:"SPATE_SCHEMA_REGISTRY_TLS_CA_FILE" group:"security" placeholder:"FILE" help:"CA certificates (PEM) used to verify the registry's certificate. Default: the system's CA certificates."`
	SchemaRegistryTLSCertFile           string `name:"schema-registry-tls-cert-file" env:"SPATE_SCHEMA_REGISTRY_TLS_CERT_FILE" group:"security" placeholder:"FILE" help:"Client certificate (PEM), for registries that require one."`
	SchemaRegistryTLSKeyFile            string `name:"schema-registry-tls-key-file" env:"SPATE_SCHEMA_REGISTRY_TLS_KEY_FILE" group:"security" placeholder:"FILE" help:"Private key of the client certificate (PEM)."`
	SchemaRegistryTLSServerName         string `name:"schema-registry-tls-server-name" env:"SPATE_SCHEMA_REGISTRY_TLS_SERVER_NAME" group:"security" placeholder:"NAME" help:"Host name expected in the registry's certificate. Default: the host name in its URL."`
	SchemaRegistryTLSInsecureSkipVerify bool   `name:"schema-registry-tls-insecure-skip-verify" env:"SPATE_SCHEMA_REGISTRY_TLS_INSECURE_SKIP_VERIFY" group:"security" help:"Do not verify the registry's certificate. Insecure."`
}

// dedupeFlags say which events are the same one.
type dedupeFlags struct {
	DedupeField string `name:"dedupe-field" env:"SPATE_DEDUPE_FIELD" placeholder:"FIELD" help:"Field that holds a unique event ID, such as event_id in events from spate simulate. An event that is sent twice then counts only once in its user's window. Default: none; every event counts."`
}

// registry returns the schema registry, nil if none is set.
func (f formatFlags) registry(log *slog.Logger) (*format.Registry, error) {
	cfg := format.RegistryConfig{URL: f.SchemaRegistryURL, Registry: security.Registry{
		Username: f.SchemaRegistryUsername, Password: os.Getenv("SPATE_SCHEMA_REGISTRY_PASSWORD"), PasswordFile: f.SchemaRegistryPasswordFile,
		TLS: security.TLS{CAFile: f.SchemaRegistryTLSCAFile, CertFile: f.SchemaRegistryTLSCertFile, KeyFile: f.SchemaRegistryTLSKeyFile,
			ServerName: f.SchemaRegistryTLSServerName, InsecureSkipVerify: f.SchemaRegistryTLSInsecureSkipVerify},
	}}
	if cfg == (format.RegistryConfig{}) {
		return nil, nil
	}
	return format.NewRegistry(cfg, log)
}

// events completes how events are written, of which the rule has the fields.
func (f formatFlags) events(c *format.Config, log *slog.Logger) error {
	registry, err := f.registry(log)
	c.Format, c.Registry = format.Name(f.Format), registry
	if err != nil {
		c.Format = "" // what it needs is not there, for a reason that is told
	}
	return err
}
