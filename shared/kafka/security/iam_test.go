package security

import (
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"spate/shared/kafka/kafkatest"
)

// mskBroker is one that asks for AWS_MSK_IAM and checks what is signed.
func mskBroker(t *testing.T, authority *kafkatest.Authority, c aws.Credentials) string {
	t.Helper()
	server := authority.Sign(t, kafkatest.Leaf{Name: "broker", Hosts: []string{"127.0.0.1"}}).TLS(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "activity"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{server}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kafkatest.MSK(cluster, c, "eu-central-1")
	return cluster.ListenAddrs()[0]
}

// AWS_MSK_IAM signs with the credentials of the environment, session tokens included, and implies TLS.
func TestMSK(t *testing.T) {
	authority := kafkatest.NewAuthority(t, "authority")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for name, c := range map[string]aws.Credentials{
		"keys":    {AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"},
		"session": {AccessKeyID: "ASIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI", SessionToken: "to+ken/with=signs=="},
	} {
		t.Run(name, func(t *testing.T) {
			address := mskBroker(t, authority, c)
			t.Setenv("AWS_ACCESS_KEY_ID", c.AccessKeyID)
			t.Setenv("AWS_SECRET_ACCESS_KEY", c.SecretAccessKey)
			t.Setenv("AWS_SESSION_TOKEN", c.SessionToken)
			t.Setenv("AWS_REGION", "eu-central-1")
			cfg := Config{TLS: TLS{CAFile: authority.File}, SASL: SASL{Mechanism: "aws_msk_iam"}}
			if err := ask(t, cfg, address); err != nil {
				t.Error(err)
			}
			t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
			err := ask(t, cfg, address)
			if err == nil || !strings.Contains(err.Error(), kerr.SaslAuthenticationFailed.Message) {
				t.Errorf("what is signed by another key is accepted: %v", err)
			}
		})
	}
	t.Run("no credentials", func(t *testing.T) {
		for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"} {
			t.Setenv(v, "")
		}
		t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
		t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
		if err := ask(t, Config{TLS: TLS{CAFile: authority.File}, SASL: SASL{Mechanism: AWSMSKIAM}}, mskBroker(t, authority, aws.Credentials{})); err == nil || !strings.Contains(err.Error(), "credentials for AWS_MSK_IAM") {
			t.Error(err)
		}
	})
	if s, err := New(Config{SASL: SASL{Mechanism: AWSMSKIAM}}, slog.New(slog.DiscardHandler)); err != nil || !s.Config().TLS.Enabled {
		t.Errorf("it does not imply TLS: %v", err)
	}
}
