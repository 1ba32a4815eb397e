package cli

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"

	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/store/dynamodb"
)

// TestAlertsShowOfATable: in mode aws, alerts are read from the table, and their events from the stream.
func TestAlertsShowOfATable(t *testing.T) {
	tables, streams := awstest.DynamoDB(t), awstest.Kinesis(t)
	bare(t)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_DYNAMODB": tables, "AWS_ENDPOINT_URL_KINESIS": streams, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	name := fmt.Sprintf("show%d", time.Now().UnixNano())
	client := kinesissdk.NewFromConfig(awstest.Config(streams))
	if _, err := client.CreateStream(t.Context(), &kinesissdk.CreateStreamInput{StreamName: &name, ShardCount: aws.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	there := kinesissdk.NewStreamExistsWaiter(client, func(o *kinesissdk.StreamExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	})
	if err := there.Wait(t.Context(), &kinesissdk.DescribeStreamInput{StreamName: &name}, time.Minute); err != nil {
		t.Fatal(err)
	}
	var places []*kinesissdk.PutRecordOutput
	for i := range 3 { // the last one is behind the evidence
		out, err := client.PutRecord(t.Context(), &kinesissdk.PutRecordInput{StreamName: &name, PartitionKey: aws.String("k"), Data: fmt.Appendf(nil, `{"user_id":7,"event_time":"2019-11-01T00:00:0%dZ"}`, i)})
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, out)
	}
	shard := *places[0].ShardId
	r := record(`7`, 0, alert.Closed)
	r.Evidence = alert.Evidence{Stream: name, Shards: map[string]alert.SequenceRange{shard: {First: *places[0].SequenceNumber, Last: *places[1].SequenceNumber}}}
	table, err := dynamodb.New(dynamodbsdk.NewFromConfig(awstest.Config(tables)), dynamodb.Config{Table: name})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	item, err := table.Config().Item(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Apply(t.Context(), heard, item); err != nil {
		t.Fatal(err)
	}

	code, out, errs := spate("--mode", "aws", "alerts", "show", r.ID[:8], "--table", name)
	if code != ExitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	says(t, out, "alert     "+r.ID, "evidence  stream "+name+", "+shard, "2 events are in the log; the alert counted 9", "00:00:01.000  "+shard+" "+*places[1].SequenceNumber)
	code, _, errs = spate("--mode", "aws", "alerts", "show", "0000", "--table", name)
	if code != ExitFailed {
		t.Errorf("exit code %d", code)
	}
	says(t, errs, "no alert has the ID 0000")
}
