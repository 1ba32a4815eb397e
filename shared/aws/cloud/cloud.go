// Package cloud loads the AWS configuration: the SDK's default chain for credentials, region and endpoints, with the few settings that all
// clients of this program share. AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_<SERVICE> can point to servers other than Amazon's; the rest of the
// program does not depend on this.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go"
)

const (
	// attempts of one call, the first one included. What lasts longer is the caller's to try again, who knows whether it is still wanted.
	attempts   = 3
	maxBackoff = 2 * time.Second
)

// ErrNoRegion: no region is set anywhere.
var ErrNoRegion = errors.New("region: missing; set AWS_REGION, or region in the AWS profile")

// Load reads the configuration of the environment and the AWS profile. It asks nobody for credentials yet.
func Load(ctx context.Context) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRetryer(func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff })
	}))
	if err != nil {
		return aws.Config{}, fmt.Errorf("load AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return aws.Config{}, ErrNoRegion
	}
	return cfg, nil
}

// IsCode reports whether err is an answer of AWS with one of these error codes.
func IsCode(err error, codes ...string) bool {
	var e smithy.APIError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.ErrorCode() == c {
			return true
		}
	}
	return false
}
