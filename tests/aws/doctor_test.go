package aws

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"spate/services/doctor"
	"spate/tests/harness"
)

// TestDoctor: it finds that all is there after spate aws setup, and says what is missing and what to do when it is not.
func TestDoctor(t *testing.T) {
	t.Parallel()
	a := harness.OnAWS(t, 2)
	look := func(env ...string) (found map[string][]doctor.Finding, failed bool) {
		t.Helper()
		p := harness.Spate(t, "doctor", append(a.Env, env...), "doctor", "--json").Start()
		failed = p.Wait(patience) != nil
		found = make(map[string][]doctor.Finding)
		for line := range strings.Lines(string(p.Output())) {
			var f doctor.Finding
			if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &f) == nil && f.Check != "" {
				found[f.Check] = append(found[f.Check], f)
			}
		}
		return found, failed
	}
	found, failed := look()
	for check, n := range map[string]int{"identity": 1, "streams": 2, "tables": 2, "topic": 1} {
		if len(found[check]) != n {
			t.Errorf("%s: %+v", check, found[check])
		}
		for _, f := range found[check] {
			if f.Level != doctor.OK {
				t.Errorf("%+v", f)
			}
		}
	}
	if failed {
		t.Errorf("it failed: %+v", found)
	}
	found, failed = look("SPATE_TABLE=" + a.StateTable) // its items do not expire
	if f := found["tables"]; failed || !slices.ContainsFunc(f, func(f doctor.Finding) bool {
		return f.Level == doctor.Warning && strings.Contains(f.Text, "time to live is not enabled for it")
	}) {
		t.Errorf("a table without a time to live: %+v", f)
	}

	if _, err := a.Kinesis.DeleteStream(t.Context(), &kinesis.DeleteStreamInput{StreamName: aws.String(a.AlertsStream)}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, "the stream is gone", func() bool {
		_, err := a.Kinesis.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(a.AlertsStream)})
		return err != nil
	})
	found, failed = look("SPATE_STATE_TABLE=not-there", "SPATE_TOPIC_ARN=")
	if !failed {
		t.Error("it does not fail")
	}
	for check, want := range map[string]string{"streams": a.AlertsStream + " does not exist", "tables": "not-there does not exist", "topic": "no topic receives incident notifications"} {
		ok := false
		for _, f := range found[check] {
			ok = ok || f.Level != doctor.OK && strings.Contains(f.Text, want) && f.Fix != ""
		}
		if !ok {
			t.Errorf("%s: %+v, want one that says %q and what to do", check, found[check], want)
		}
	}
}
