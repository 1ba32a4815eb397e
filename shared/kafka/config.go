// Package kafka connects spate to a Kafka-compatible broker. It has the connection settings, the topics and the partitioner that all
// services share. Processing of records is left to the services; the integration with goka is in gokaclient.
package kafka

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka/security"
)

// Config says where the broker is. The zero value is not usable: at least one seed broker is needed.
type Config struct {
	// Brokers are the seed brokers, each "host:port".
	Brokers []string
	// Security is how connections are encrypted and who logs in; nil is neither.
	Security *security.Client
	// RackID is where this process runs: records are fetched from a replica there, if there is one.
	RackID string
	// ClientID is what the broker's logs and group descriptions show for this process.
	ClientID string
	// MaxBatchBytes is what a batch of records may take when it is decompressed; a larger one is left out. 0 is DefaultMaxBatchBytes.
	MaxBatchBytes int
}

// Validate reports every problem of c at once; it does no I/O.
func (c Config) Validate() error {
	if len(c.Brokers) == 0 {
		return errors.New("brokers: missing; set SPATE_BROKERS or --brokers to host:port[,host:port...]")
	}
	var errs []error
	if c.MaxBatchBytes < 0 || c.MaxBatchBytes > 0 && (c.MaxBatchBytes < 1<<20 || c.MaxBatchBytes > 1<<30) {
		errs = append(errs, fmt.Errorf("max-batch-bytes: %d is not between 1048576 (1 MiB) and 1073741824 (1 GiB); set SPATE_MAX_BATCH_BYTES", c.MaxBatchBytes))
	}
	for _, b := range c.Brokers {
		if strings.Contains(b, "@") {
			errs = append(errs, errors.New("brokers: an address contains @ and is not host:port (not shown, as it may hold a password); set user names and passwords with SPATE_SASL_USERNAME and SPATE_SASL_PASSWORD"))
			continue
		}
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("brokers: %q is not host:port", b))
		}
	}
	return errors.Join(errs...)
}

// Options returns the client options that every client of the program starts from.
func (c Config) Options(extra ...kgo.Opt) []kgo.Opt {
	id := c.ClientID
	if id == "" {
		id = "spate"
	}
	opts := append([]kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.ClientID(id), kgo.MaxDecompressBatchBytes(c.maxBatchBytes())}, c.Security.Options()...)
	if c.RackID != "" {
		opts = append(opts, kgo.Rack(c.RackID))
	}
	return append(opts, extra...)
}

func (c Config) maxBatchBytes() int {
	if c.MaxBatchBytes == 0 {
		return DefaultMaxBatchBytes
	}
	return c.MaxBatchBytes
}

// ParseBrokers splits a comma-separated list of brokers and drops empty entries.
func ParseBrokers(s string) []string {
	var out []string
	for b := range strings.SplitSeq(s, ",") {
		if b = strings.TrimSpace(b); b != "" {
			out = append(out, b)
		}
	}
	return out
}
