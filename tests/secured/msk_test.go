package secured

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/kafka/intake"
	"spate/shared/kafka/kafkatest"
	"spate/tests/harness"
)

// TestMSK runs the pipeline with AWS_MSK_IAM on a broker that checks what is signed. Apache Kafka does not have the mechanism, so it is an in-process
// one.
func TestMSK(t *testing.T) {
	if testing.Short() {
		t.Skip("starts brokers and services; -short is set")
	}
	t.Parallel()
	authority := kafkatest.NewAuthority(t, "authority")
	server := authority.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"127.0.0.1"}}).TLS(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{server}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	intake.Mend(cluster)
	c := aws.Credentials{AccessKeyID: "ASIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", SessionToken: "to+ken=="}
	kafkatest.MSK(cluster, c, "eu-central-1")
	db := filepath.Join(t.TempDir(), "alerts.db")
	env := []string{"SPATE_BROKERS=" + cluster.ListenAddrs()[0], "SPATE_TLS_CA_FILE=" + authority.File, "SPATE_SASL_MECHANISM=AWS_MSK_IAM", "AWS_REGION=eu-central-1",
		"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey, "AWS_SESSION_TOKEN=" + c.SessionToken, "SPATE_DATABASE_URL=" + db, "SPATE_IDLE_TIMEOUT=2s"}
	p := &pipeline{names: kafka.NamesFor(kafka.DefaultTopic), db: db, env: map[string][]string{kafka.Simulator: env}}
	for _, s := range []string{kafka.Router, kafka.Detector, kafka.Alerter} {
		p.services = append(p.services, harness.Spate(t, s, env, s))
	}
	p.start()
	for _, s := range p.services {
		ready(t, s)
	}
	p.simulate(t, 5_000)

	ref := verifier.NewReference(rule)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DialTLSConfig(&tls.Config{RootCAs: authority.Pool()}), kgo.ConsumeTopics(p.names.Activity))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ref.In < 5_000 && ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { ref.AddJSON(r.Partition, r.Value, r.Timestamp) })
	}
	want := ref.Result()
	p.stored(t, want)
	p.noSecrets(t)
	p.stop(t)
}
