package tests

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"spate/shared/aws/awstest"
	"spate/shared/aws/cloud"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// cfnLint is the program, beside the Python that has moto, or in the PATH.
func cfnLint(t *testing.T) string {
	t.Helper()
	if python := os.Getenv("SPATE_TEST_PYTHON"); python != "" {
		if path := filepath.Join(filepath.Dir(python), "cfn-lint"); exec.Command(path, "--version").Run() == nil {
			return path
		}
	}
	path, err := exec.LookPath("cfn-lint")
	if err != nil {
		testskip.Missing(t, "cfn-lint is not there; install tests/emulators/requirements.txt and set SPATE_TEST_PYTHON")
	}
	return path
}

func TestTemplateLint(t *testing.T) {
	t.Parallel()
	lint := cfnLint(t)
	if out, err := exec.Command(lint, templatePath()).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("%v\n%s", err, out)
	}

	// And it does look.
	_, source := readTemplate(t)
	for _, seed := range []struct{ old, new, code string }{
		{"BatchSize: 100", "BatchSize: many", "E3012"},
		{"SqsManagedSseEnabled: true", "SqsManagedEncryption: true", "E3002"},
		{"!GetAtt AlertsTable.Arn", "!GetAtt AlertTable.Arn", "E1010"},
	} {
		if !strings.Contains(source, seed.old) {
			t.Errorf("the template has no %q to break", seed.old)
			continue
		}
		file := filepath.Join(t.TempDir(), "template.yaml")
		if err := os.WriteFile(file, []byte(strings.Replace(source, seed.old, seed.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(lint, file).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(string(out), seed.code) {
			t.Errorf("%q is no %s: %v\n%s", seed.new, seed.code, err, out)
		}
	}
}

// TestTemplateShape: what the alerter's guarantees rest on, and what the image and the program must have.
func TestTemplateShape(t *testing.T) {
	tpl, _ := readTemplate(t)

	mapping, _ := tpl.property("AlerterSource").(map[string]any)
	delete(mapping, "EventSourceArn")
	delete(mapping, "FunctionName")
	if diff := cmp.Diff(map[string]any{
		"StartingPosition": "TRIM_HORIZON", "BatchSize": "100", "MaximumBatchingWindowInSeconds": "1", "ParallelizationFactor": "1",
		"FunctionResponseTypes": []any{"ReportBatchItemFailures"}, "BisectBatchOnFunctionError": "true",
		"MaximumRetryAttempts": "50", "MaximumRecordAgeInSeconds": "3600",
		"DestinationConfig": map[string]any{"OnFailure": map[string]any{"Destination": map[string]any{"Fn::GetAtt": "AlerterDeadLetters.Arn"}}},
	}, mapping); diff != "" {
		t.Errorf("event source mapping (- want, + is):\n%s", diff)
	}
	if condition := at(tpl.resources()["AlerterSource"], "Condition"); condition != "MapsEvents" {
		t.Errorf("the event source mapping has the condition %v", condition)
	}
	for name, want := range map[string]any{"Runtime": "provided.al2023", "Handler": "bootstrap", "Architectures": []any{"arm64"}} {
		if diff := cmp.Diff(want, tpl.property("Alerter", name)); diff != "" {
			t.Errorf("alerter: %s (- want, + is):\n%s", name, diff)
		}
	}

	// The original's names and keys.
	for parameter, want := range map[string]string{
		"RawStreamName": "e-commerce-raw-user-activity-stream-1", "AlertsStreamName": "e-commerce-raw-user-activity-stream-2", "TableName": "ddb-ecommerce-tab-1",
	} {
		if got := at(tpl.root, "Parameters", parameter, "Default"); got != want {
			t.Errorf("%s is %v, want %s", parameter, got, want)
		}
	}
	if diff := cmp.Diff([]any{
		map[string]any{"AttributeName": "ddb_partition_key", "KeyType": "HASH"}, map[string]any{"AttributeName": "ddb_sort_key", "KeyType": "RANGE"},
	}, tpl.property("AlertsTable", "KeySchema")); diff != "" {
		t.Errorf("keys of the table (- want, + is):\n%s", diff)
	}

	// The image has the program, and nothing else that a health check could be.
	dockerfile, err := os.ReadFile(filepath.Join("..", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`ENTRYPOINT ["/spate"]`, "USER nonroot", "COPY --from=build /spate /spate"} {
		if !strings.Contains(string(dockerfile), line) {
			t.Errorf("the image has no %s, on which the task of the worker rests", line)
		}
	}
	container := tpl.property("WorkerTask", "ContainerDefinitions", 0)
	for name, want := range map[string]any{
		"Command": []any{"work"}, "ReadonlyRootFilesystem": "true", "User": "65532:65532",
		"LinuxParameters": map[string]any{"Capabilities": map[string]any{"Drop": []any{"ALL"}}},
	} {
		if diff := cmp.Diff(want, at(container, name)); diff != "" {
			t.Errorf("worker: %s (- want, + is):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff([]any{"CMD", "/spate", "health", "--live"}, at(container, "HealthCheck", "Command")); diff != "" {
		t.Errorf("health check (- want, + is):\n%s", diff)
	}
}

// TestTemplateSettings: the program knows every setting that the template makes.
func TestTemplateSettings(t *testing.T) {
	t.Parallel()
	tpl, _ := readTemplate(t)
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	lambda, _ := tpl.property("Alerter", "Environment", "Variables").(map[string]any)
	var worker []string
	container := tpl.property("WorkerTask", "ContainerDefinitions", 0)
	entries, _ := at(container, "Environment").([]any)
	for _, e := range entries {
		if v := at(e, "Fn::If", 1); v != nil {
			e = v
		}
		worker = append(worker, text(at(e, "Name")))
	}
	for command, names := range map[string][]string{"lambda": slices.Collect(maps.Keys(lambda)), "work": worker} {
		help, err := exec.Command(binary, command, "--help").CombinedOutput()
		if err != nil {
			t.Errorf("spate %s --help: %v: %s", command, err, help)
			continue
		}
		if len(names) < 8 {
			t.Errorf("%s has only %d settings", command, len(names))
		}
		for _, name := range names {
			if !regexp.MustCompile(`\$` + regexp.QuoteMeta(name) + `\b`).Match(help) {
				t.Errorf("spate %s does not know %s", command, name)
			}
		}
	}
}

// TestTemplateOnMoto makes the stack, changes it, and deletes it. moto knows no alarms, topic policies, subscriptions and no Managed Flink; it
// ignores time to live and encryption, checks no permission, and takes nothing away when a condition is no longer true. The event source
// mapping is left out: with it, moto would start a container for every record of stream 2.
func TestTemplateOnMoto(t *testing.T) {
	t.Parallel()
	cfg := awstest.Config(awstest.Moto(t))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, source := readTemplate(t)
	cfn, bucket := cloudformation.NewFromConfig(cfg), s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	tables, streams := dynamodb.NewFromConfig(cfg), kinesis.NewFromConfig(cfg)

	const code, name = "spate-test-code", "spate-infrastructure"
	if _, err := bucket.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(code)}); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	if _, err := z.Create("bootstrap"); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"lambda.zip", "flink.zip"} {
		if _, err := bucket.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(code), Key: aws.String(key), Body: bytes.NewReader(archive.Bytes())}); err != nil {
			t.Fatal(err)
		}
	}

	parameters := func(changes map[string]string) []cfntypes.Parameter {
		all := map[string]string{
			"CodeBucket": code, "MapEvents": "false", "RunOn": "none", "RawStreamName": "infrastructure-1", "AlertsStreamName": "infrastructure-2",
			"TableName": "infrastructure-alerts", "StateTableName": "infrastructure-state", "BucketName": "infrastructure-data", "TopicName": "infrastructure-alerts", "Prefix": "infrastructure",
			"WorkerImage": "spate:test", "Subnets": "subnet-00000001,subnet-00000002", "VpcId": "vpc-00000001", "OperatorEmail": "operators@example.com",
		}
		maps.Copy(all, changes)
		var out []cfntypes.Parameter
		for k, v := range all {
			out = append(out, cfntypes.Parameter{ParameterKey: aws.String(k), ParameterValue: aws.String(v)})
		}
		return out
	}
	stack := func() (s cfntypes.Stack, there bool) {
		t.Helper()
		out, err := cfn.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: aws.String(name)})
		if cloud.IsCode(err, "ValidationError") {
			return s, false
		}
		if err != nil {
			t.Fatal(err)
		}
		return out.Stacks[0], out.Stacks[0].StackStatus != cfntypes.StackStatusDeleteComplete
	}
	reaches := func(want cfntypes.StackStatus) cfntypes.Stack {
		t.Helper()
		harness.Eventually(t, time.Minute, fmt.Sprintf("the stack is %s", want), func() bool {
			s, _ := stack()
			if s.StackStatus != want && !strings.HasSuffix(string(s.StackStatus), "_IN_PROGRESS") {
				t.Fatalf("the stack is %s: %s", s.StackStatus, aws.ToString(s.StackStatusReason))
			}
			return s.StackStatus == want
		})
		s, _ := stack()
		return s
	}
	resources := func() map[string]string {
		t.Helper()
		out, err := cfn.DescribeStackResources(ctx, &cloudformation.DescribeStackResourcesInput{StackName: aws.String(name)})
		if err != nil {
			t.Fatal(err)
		}
		ids := make(map[string]string)
		for _, r := range out.StackResources {
			ids[aws.ToString(r.LogicalResourceId)] = aws.ToString(r.PhysicalResourceId)
		}
		return ids
	}
	update := func(changes map[string]string) {
		t.Helper()
		if _, err := cfn.UpdateStack(ctx, &cloudformation.UpdateStackInput{
			StackName: aws.String(name), TemplateBody: aws.String(source), Parameters: parameters(changes), Capabilities: []cfntypes.Capability{cfntypes.CapabilityCapabilityIam},
		}); err != nil {
			t.Fatal(err)
		}
		reaches(cfntypes.StackStatusUpdateComplete)
	}
	there := func(when string, want, not []string) map[string]string {
		t.Helper()
		is := resources()
		for _, id := range want {
			if is[id] == "" {
				t.Errorf("%s: %s is not there", when, id)
			}
		}
		for _, id := range not {
			if is[id] != "" {
				t.Errorf("%s: %s is there", when, id)
			}
		}
		return is
	}
	common := []string{"RawStream", "AlertsStream", "AlertsTable", "StateTable", "DataBucket", "AlertsTopic", "OperatorsTopic", "TopicKey", "AlerterDeadLetters", "Alerter", "AlerterRole", "AlerterLogs"}
	worker := []string{"Cluster", "WorkerTask", "WorkerService", "WorkerRole", "WorkerExecutionRole", "WorkerLogs"}
	flink := []string{"FlinkRole", "FlinkLogs"} // moto knows no applications

	if _, err := cfn.CreateStack(ctx, &cloudformation.CreateStackInput{
		StackName: aws.String(name), TemplateBody: aws.String(source), Parameters: parameters(nil), Capabilities: []cfntypes.Capability{cfntypes.CapabilityCapabilityIam},
	}); err != nil {
		t.Fatal(err)
	}
	outputs := make(map[string]string)
	for _, o := range reaches(cfntypes.StackStatusCreateComplete).Outputs {
		outputs[aws.ToString(o.OutputKey)] = aws.ToString(o.OutputValue)
	}
	created := there("created", common, slices.Concat(worker, flink, []string{"AlerterSource", "AsideStream"}))
	for output, want := range map[string]string{"RawStream": "infrastructure-1", "AlertsTable": "infrastructure-alerts", "Bucket": "infrastructure-data", "TopicArn": created["AlertsTopic"], "WorkerService": ""} {
		if outputs[output] != want {
			t.Errorf("output %s is %q, want %q", output, outputs[output], want)
		}
	}
	alerts, err := tables.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("infrastructure-alerts")})
	if err != nil {
		t.Fatal(err)
	}
	if key := aws.ToString(alerts.Table.KeySchema[1].AttributeName); key != "ddb_sort_key" {
		t.Errorf("the table of alerts has the sort key %s", key)
	}

	// Detectors come, and streams, tables and alerter stay the very same.
	update(map[string]string{"RunOn": "worker", "AsideStreamName": "infrastructure-aside", "RetentionHours": "48"})
	there("with a worker", slices.Concat(common, worker, []string{"AsideStream"}), flink)
	update(map[string]string{"RunOn": "both", "AsideStreamName": "infrastructure-aside", "RetentionHours": "48"})
	changed := there("with Flink", slices.Concat(common, worker, flink), nil)
	for _, id := range common {
		if created[id] != changed[id] {
			t.Errorf("the changes made another %s: %s, was %s", id, changed[id], created[id])
		}
	}
	raw, err := streams.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("infrastructure-1")})
	if err != nil {
		t.Fatal(err)
	}
	if h := aws.ToInt32(raw.StreamDescriptionSummary.RetentionPeriodHours); h != 48 {
		t.Errorf("the stream keeps %d hours, want 48", h)
	}

	if _, err := cfn.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: aws.String(name)}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "the stack is gone", func() bool { _, there := stack(); return !there })
	if _, err := streams.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("infrastructure-1")}); !cloud.IsCode(err, "ResourceNotFoundException") {
		t.Errorf("the stream of events outlives the stack: %v", err)
	}
	if _, err := tables.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("infrastructure-alerts")}); err != nil {
		t.Errorf("the alerts are gone with the stack: %v", err)
	}
	if _, err := bucket.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String("infrastructure-data")}); err != nil {
		t.Errorf("the data set is gone with the stack: %v", err)
	}
}
