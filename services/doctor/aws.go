package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"spate/shared/aws/cloud"
)

// Cloud says what to check in mode aws.
type Cloud struct {
	Stream, AlertsStream string
	Table, StateTable    string
	TopicARN             string // may be empty
	Endpoints            bool   // endpoints are notified, too
}

// AWS checks what mode aws needs, and passes each finding to tell at once. The error is one of settings.
func AWS(ctx context.Context, c Cloud, tell func(Finding)) error {
	t := teller(tell)
	cfg, err := cloud.Load(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 6*askTimeout)
	defer cancel()
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		t.say(Failed, "identity", "set credentials in the environment, an AWS profile or the instance role", "%v", err)
		if code := codeOf(err); code == "" {
			return nil // without credentials, or without AWS, there is nothing to look at
		}
	} else {
		t.ok("identity", "%s, region %s", aws.ToString(who.Arn), cfg.Region)
	}
	streams := kinesis.NewFromConfig(cfg)
	for _, s := range []struct{ name, what, right string }{{c.Stream, "events", "kinesis:DescribeStreamSummary"}, {c.AlertsStream, "alerts", "kinesis:DescribeStreamSummary"}} {
		d, err := streams.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(s.name)})
		if err != nil {
			t.trouble("streams", s.name, s.right, err)
			continue
		}
		sum := d.StreamDescriptionSummary
		text := fmt.Sprintf("%s (%s): %d shards, retention %d h", s.name, s.what, aws.ToInt32(sum.OpenShardCount), aws.ToInt32(sum.RetentionPeriodHours))
		if sum.StreamStatus != kinesistypes.StreamStatusActive && sum.StreamStatus != kinesistypes.StreamStatusUpdating {
			t.say(Failed, "streams", "wait until it is active", "%s, but its state is %s", text, sum.StreamStatus)
			continue
		}
		t.ok("streams", "%s", text)
	}
	db := dynamodb.NewFromConfig(cfg)
	for _, name := range []string{c.Table, c.StateTable} {
		d, err := db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(name)})
		if err != nil {
			t.trouble("tables", name, "dynamodb:DescribeTable", err)
			continue
		}
		if d.Table.TableStatus != dynamodbtypes.TableStatusActive && d.Table.TableStatus != dynamodbtypes.TableStatusUpdating {
			t.say(Failed, "tables", "wait until it is active", "%s: its state is %s", name, d.Table.TableStatus)
			continue
		}
		t.ok("tables", "%s exists", name)
		if name == c.Table {
			t.expiry(ctx, db, name)
		}
	}
	if c.TopicARN == "" && c.Endpoints {
		t.ok("topic", "none; endpoints are notified of incidents")
	} else if c.TopicARN == "" {
		t.say(Warning, "topic", "set SPATE_TOPIC_ARN to the SNS topic to which incidents are published, or SPATE_ENDPOINTS to an endpoints file", "no topic receives incident notifications")
	} else if _, err := sns.NewFromConfig(cfg).GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: aws.String(c.TopicARN)}); err != nil {
		t.trouble("topic", c.TopicARN, "sns:GetTopicAttributes", err)
	} else {
		t.ok("topic", "incidents are published to %s", c.TopicARN)
	}
	return nil
}

// expiry checks that expired items are deleted.
func (t teller) expiry(ctx context.Context, db *dynamodb.Client, table string) {
	d, err := db.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: aws.String(table)})
	if err != nil {
		t.trouble("tables", "the time to live of "+table, "dynamodb:DescribeTimeToLive", err)
		return
	}
	if s := d.TimeToLiveDescription; s != nil && aws.ToString(s.AttributeName) == expiresAt &&
		(s.TimeToLiveStatus == dynamodbtypes.TimeToLiveStatusEnabled || s.TimeToLiveStatus == dynamodbtypes.TimeToLiveStatusEnabling) {
		return
	}
	t.say(Warning, "tables", "run spate aws setup, or enable time to live on the attribute "+expiresAt, "%s keeps expired decisions, because time to live is not enabled for it", table)
}

// expiresAt is the attribute of the time to live.
const expiresAt = "expires_at"

// trouble reports why something cannot be checked.
func (t teller) trouble(check, name, right string, err error) {
	switch codeOf(err) {
	case "ResourceNotFoundException", "NotFound", "NotFoundException":
		t.say(Failed, check, "create it with spate aws setup (for trials) or deploy/aws/template.yaml (for production)", "%s does not exist", name)
	case "AccessDeniedException", "AccessDenied", "AuthorizationError", "UnauthorizedOperation":
		t.say(Unknown, check, "allow "+right+"; the permissions that the services need are in deploy/aws/template.yaml", "no permission to check %s", name)
	default:
		t.say(Failed, check, "", "%s: %v", name, err)
	}
}

// codeOf is the code of an answer of AWS, "" if there was none.
func codeOf(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}
