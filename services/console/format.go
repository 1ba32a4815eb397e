package console

import (
	"log/slog"
	"os"

	"spate/shared/format"
	"spate/shared/kafka/security"
)

// formatFlags say how events are written, and where their schemas are.
type formatFlags struct {
	Format string `name:"format" env:"SPATE_FORMAT" default:"auto" enum:"auto,json,avro,protobuf,cloudevents,debezium" help:"How events are written: json, avro, protobuf, cloudevents or debezium; auto tells CloudEvents by their headers, and Avro, Protobuf and JSON Schema by the schema's id at their beginning."`

	SchemaRegistryURL          string `name:"schema-registry-url" env:"SPATE_SCHEMA_REGISTRY_URL" placeholder:"URL" help:"Confluent's schema registry, or one that speaks as it does."`
	SchemaRegistryUsername     string `name:"schema-registry-username" env:"SPATE_SCHEMA_REGISTRY_USERNAME" placeholder:"NAME" help:"User of the registry; an API key of Confluent Cloud."`
	SchemaRegistryPasswordFile string `name:"schema-registry-password-file" env:"SPATE_SCHEMA_REGISTRY_PASSWORD_FILE" placeholder:"FILE" help:"File with the password; or set SPATE_SCHEMA_REGISTRY_PASSWORD."`

	SchemaRegistryTLSCAFile             string `name:"schema-registry-tls-ca-file" env:"SPATE_SCHEMA_REGISTRY_TLS_CA_FILE" group:"security" placeholder:"FILE" help:"Authorities (PEM) that the registry's certificate is checked against. Default: the system's."`
	SchemaRegistryTLSCertFile           string `name:"schema-registry-tls-cert-file" env:"SPATE_SCHEMA_REGISTRY_TLS_CERT_FILE" group:"security" placeholder:"FILE" help:"Certificate of this client (PEM), for registries that ask for one."`
	SchemaRegistryTLSKeyFile            string `name:"schema-registry-tls-key-file" env:"SPATE_SCHEMA_REGISTRY_TLS_KEY_FILE" group:"security" placeholder:"FILE" help:"Key of that certificate (PEM)."`
	SchemaRegistryTLSServerName         string `name:"schema-registry-tls-server-name" env:"SPATE_SCHEMA_REGISTRY_TLS_SERVER_NAME" group:"security" placeholder:"NAME" help:"Name that the registry's certificate must have. Default: the name in its address."`
	SchemaRegistryTLSInsecureSkipVerify bool   `name:"schema-registry-tls-insecure-skip-verify" env:"SPATE_SCHEMA_REGISTRY_TLS_INSECURE_SKIP_VERIFY" group:"security" help:"Accept any certificate of the registry."`
}

// dedupeFlags say which events are the same one.
type dedupeFlags struct {
	DedupeField string `name:"dedupe-field" env:"SPATE_DEDUPE_FIELD" placeholder:"FIELD" help:"Member that is the same for an event that was sent twice, as event_id of spate simulate: it counts once in the window of its user. Without it all count."`
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
