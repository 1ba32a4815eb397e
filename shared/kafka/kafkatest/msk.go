package kafkatest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// MSK makes a cluster check logins as Amazon MSK does with AWS_MSK_IAM: what a client sends is a request to connect, signed with the credentials.
// The SDK's own signer makes the signature that it must have. A client that does not log in is let in all the same.
func MSK(c *kfake.Cluster, credentials aws.Credentials, region string) {
	c.ControlKey(int16(kmsg.SASLHandshake), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := r.(*kmsg.SASLHandshakeRequest)
		resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		resp.SupportedMechanisms = []string{"AWS_MSK_IAM"}
		if req.Mechanism != "AWS_MSK_IAM" {
			resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		}
		return resp, nil, true
	})
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := r.(*kmsg.SASLAuthenticateRequest)
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if err := checkSigned(req.SASLAuthBytes, credentials, region); err != nil {
			resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, kmsg.StringPtr(err.Error())
		} else {
			resp.SASLAuthBytes = []byte(`{"version":"2020_10_22","request-id":"1"}`)
		}
		return resp, nil, true
	})
}

// checkSigned reports what is wrong with what a client sends.
func checkSigned(payload []byte, c aws.Credentials, region string) error {
	var p map[string]string
	if err := json.Unmarshal(payload, &p); err != nil {
		return err
	}
	if p["version"] != "2020_10_22" || p["host"] == "" || p["action"] != "kafka-cluster:Connect" {
		return fmt.Errorf("version %q, host %q, action %q", p["version"], p["host"], p["action"])
	}
	at, err := time.Parse("20060102T150405Z", p["x-amz-date"])
	if err != nil || time.Since(at).Abs() > 5*time.Minute {
		return fmt.Errorf("signed at %q", p["x-amz-date"])
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+p["host"]+"/?Action=kafka-cluster%3AConnect&X-Amz-Expires="+p["x-amz-expires"], http.NoBody)
	if err != nil {
		return err
	}
	nothing := sha256.Sum256(nil)
	uri, _, err := v4.NewSigner().PresignHTTP(context.Background(), c, req, hex.EncodeToString(nothing[:]), "kafka-cluster", region, at)
	if err != nil {
		return err
	}
	u, err := url.Parse(uri)
	if err != nil {
		return err
	}
	if want := u.Query().Get("X-Amz-Signature"); want != p["x-amz-signature"] {
		return fmt.Errorf("signature %q, want %q", p["x-amz-signature"], want)
	}
	if p["x-amz-security-token"] != c.SessionToken {
		return fmt.Errorf("session token %q", p["x-amz-security-token"])
	}
	return nil
}
