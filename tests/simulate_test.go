package tests

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"spate/shared/aws/awstest"
	"spate/tests/harness"
)

// TestFileThroughS3 goes the walkthrough's first steps: a file is stored in a bucket, and what comes out of there, into a file or a stream,
// is what comes of the local one.
func TestFileThroughS3(t *testing.T) {
	t.Parallel()
	env := append(awstest.Env(t), "SPATE_BROKERS=", "SPATE_SPEED=0")
	dir := t.TempDir()
	file, url := filepath.Join(dir, "clicks.csv.gz"), "s3://through-s3/2019/clicks.csv.gz"
	simulate := func(wants string, args ...string) []byte {
		t.Helper()
		p := harness.Spate(t, "simulate", env, append([]string{"simulate", "-q"}, args...)...).Start()
		err := p.Wait(time.Minute)
		if out := string(p.Output()); !strings.Contains(out, wants) || (err != nil) != strings.HasPrefix(wants, "spate: ") {
			t.Fatalf("simulate %v: %v; it does not say %q: %s", args, err, wants, out)
		}
		return p.Output()
	}
	simulate("wrote 3,000 events to "+file, "-n", "3000", "-o", file)

	// The bucket is not there yet.
	simulate("spate: put object "+url+": no such bucket: through-s3 does not exist; create it with `aws s3 mb s3://through-s3`", file, "--put", url)
	buckets := s3.NewFromConfig(awstest.Config(awstest.Moto(t)), func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := buckets.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("through-s3")}); err != nil {
		t.Fatal(err)
	}
	simulate("spate: open events file: get object "+url+": no such object in bucket through-s3", url, "-o", "-")

	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	var stored struct {
		Bucket, Key, ETag string
		Bytes             int64
	}
	if err := json.Unmarshal(simulate("", file, "--put", url, "--json"), &stored); err != nil {
		t.Fatal(err)
	}
	if stored.Bucket != "through-s3" || stored.Key != "2019/clicks.csv.gz" || stored.Bytes != info.Size() || len(stored.ETag) != 32 {
		t.Errorf("stored %+v", stored)
	}
	simulate("stored "+file+" as "+url+": ", file, "--put", url)

	local, remote := filepath.Join(dir, "local.jsonl"), filepath.Join(dir, "remote.jsonl")
	simulate("wrote 3,000 events", file, "-o", local)
	simulate("wrote 3,000 events", url, "-o", remote)
	want, err := os.ReadFile(local)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(remote)
	if err != nil || !bytes.Equal(want, got) {
		t.Errorf("%d bytes come out of S3, %d of the file: %v", len(got), len(want), err)
	}

	// Into a stream: by the flag, and by the mode.
	streams := kinesis.NewFromConfig(awstest.Config(awstest.Kinesis(t)))
	if _, err := streams.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String("through-s3"), ShardCount: aws.Int32(2)}); err != nil {
		t.Fatal(err)
	}
	simulate("sent 3,000 events to stream through-s3 in ", url, "--to", "kinesis", "--stream", "through-s3")
	simulate("sent 100 events to stream through-s3 in ", url, "--mode", "aws", "--stream", "through-s3", "-n", "100")
	simulate("spate: stream does not exist: stream e-commerce-raw-user-activity-stream-1 does not exist in us-east-1", url, "--mode", "aws")
	rows := make(map[string]int)
	for line := range bytes.Lines(want) {
		rows[string(bytes.TrimSuffix(line, []byte("}\n")))]++
	}
	ids, n := make(map[string]bool), 0
	for _, r := range recordsOf(t, streams, "through-s3") {
		row, id, ok := strings.Cut(string(r.Data), `,"event_id":"`)
		if rows[row] == 0 || !ok || ids[id] {
			t.Fatalf("a record that no row of the file became: %s", r.Data)
		}
		ids[id] = true
		n++
	}
	if n != 3100 {
		t.Errorf("%d records in the stream, want 3100", n)
	}
}

// recordsOf returns all records of a stream.
func recordsOf(t *testing.T, client *kinesis.Client, name string) []types.Record {
	t.Helper()
	list, err := client.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &name})
	if err != nil {
		t.Fatal(err)
	}
	var got []types.Record
	for _, shard := range list.Shards {
		it, err := client.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: &name, ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			t.Fatal(err)
		}
		for next := it.ShardIterator; next != nil; {
			out, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, out.Records...)
			if next = out.NextShardIterator; len(out.Records) == 0 {
				break
			}
		}
	}
	return got
}
