package cli

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"spate/services/worker"
	"spate/shared/aws/awstest"
	"spate/shared/aws/lease"
)

// ruledTable is a state table.
type ruledTable struct {
	t      *testing.T
	client *dynamodb.Client
	name   string
}

func newRuledTable(t *testing.T) *ruledTable {
	t.Helper()
	url := awstest.DynamoDB(t)
	bare(t)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_DYNAMODB": url, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	client := dynamodb.NewFromConfig(awstest.Config(url))
	return &ruledTable{t, client, awstest.StateTable(t, client)}
}

// run runs a command of spate rules in mode aws, and returns what it prints.
func (r *ruledTable) run(want int, args ...string) (stdout, stderr string) {
	r.t.Helper()
	code, stdout, stderr := spate(append(append([]string{"--mode", "aws", "rules"}, args...), "--stream", "clicks", "--state-table", r.name)...)
	if code != want {
		r.t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	harmless(r.t, fmt.Sprint(args), stderr)
	return stdout, stderr
}

// count makes the pipeline one that has counted something.
func (r *ruledTable) count() {
	r.t.Helper()
	l := lease.Lease{API: r.client, Table: r.name, Key: worker.LeaseKey("clicks"), Owner: "test", Duration: lease.MaxDuration, Log: slog.New(slog.DiscardHandler)}
	h, err := l.Acquire(r.t.Context())
	if err == nil {
		err = h.Save(r.t.Context(), []byte("{}"))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	h.Release(r.t.Context())
}

// TestRulesOnAWS: in mode aws, the commands do with the state table what they do with the topic.
func TestRulesOnAWS(t *testing.T) {
	r := newRuledTable(t)
	path := rulesFileOf(t, "rules.sql", twoRules)
	out, errs := r.run(ExitOK, "ls")
	if out != "" || !strings.Contains(errs, "table "+r.name+", for stream clicks, has no revision, so the rule from the settings applies") {
		t.Errorf("%q, %q", out, errs)
	}
	out, _ = r.run(ExitOK, "apply", path, "--dry-run")
	says(t, out, "dry run: as revision 1, these rules would be in force for all windows; nothing was written\n")
	out, _ = r.run(ExitOK, "apply", path, "--lateness", "2s", "-m", "first")
	says(t, out, "revision 1 is in force for all windows\n")
	out, _ = r.run(ExitOK, "apply", path)
	says(t, out, "is revision 1, which is in force for all windows; nothing was written\n")
	out, _ = r.run(ExitOK, "show")
	if out != twoRules {
		t.Errorf("%q", out)
	}

	r.count()
	_, errs = r.run(ExitUsage, "apply", rulesFileOf(t, "other.sql", rulesText(6)), "--from", "beginning")
	says(t, errs, "events have been counted already, or a worker is running, so the rules cannot be in force from the beginning")
	_, errs = r.run(ExitUsage, "apply", rulesFileOf(t, "other.sql", rulesText(6)), "--from", "2024-01-01T00:00:00Z")
	says(t, errs, "is too early: workers may judge events of windows that begin at this time")
	out, _ = r.run(ExitOK, "diff", rulesFileOf(t, "other.sql", rulesText(6)))
	says(t, out, "compared with revision 1")
	before := time.Now()
	out, _ = r.run(ExitOK, "apply", rulesFileOf(t, "other.sql", rulesText(6)), "--json")
	got := objects(t, out)[0]
	boundary, err := time.Parse(time.RFC3339, got["boundary"].(string))
	if ahead := boundary.Sub(before); err != nil || ahead < 85*time.Second || ahead > 120*time.Second || got["lateness_ms"] != 2000.0 || got["revision"] != 2.0 || got["applied"] != true {
		t.Errorf("%v, %v", got, err)
	}
	out, _ = r.run(ExitOK, "rollback")
	says(t, out, "revision 3 is in force for windows that begin at ")
	out, _ = r.run(ExitOK, "history", "--json")
	if list := objects(t, out); len(list) != 3 || list[0]["message"] != "roll back to revision 1" || list[2]["message"] != "first" || list[1]["state"] != "applied" {
		t.Error(out)
	}
	out, _ = r.run(ExitOK, "ls", "--json")
	// Revision 2 is in force for a second if revision 3 was applied in the next one, and never otherwise.
	count := map[float64]int{}
	for _, rule := range objects(t, out) {
		since := rule["since"].(float64)
		count[since]++
		if since == 1 && rule["until"] != got["boundary"] || since == 3 && rule["until"] != nil {
			t.Error(rule)
		}
	}
	if count[1] != 2 || count[3] != 2 {
		t.Error(out)
	}
}

// TestRulesOnAWSFirstWhileRunning: the lateness of the first revision is that of the workers, which cannot change it.
func TestRulesOnAWSFirstWhileRunning(t *testing.T) {
	r := newRuledTable(t)
	r.count()
	out, _ := r.run(ExitOK, "apply", rulesFileOf(t, "rules.sql", rulesText(1)))
	says(t, out, "a worker with a different --lateness or --max-ahead stops and reports the difference\n", "revision 1 is in force for windows that begin at ")
}

// TestRulesOnAWSAtOnce: of two that are applied at the same time, one is in force, and who applied the other is told.
func TestRulesOnAWSAtOnce(t *testing.T) {
	r := newRuledTable(t)
	r.count()
	const n = 4
	var codes [n]int
	var said [n]string
	var wg sync.WaitGroup
	for i := range n {
		path := rulesFileOf(t, "rules.sql", rulesText(i+1))
		wg.Go(func() {
			codes[i], _, said[i] = spate("--mode", "aws", "rules", "apply", path, "--stream", "clicks", "--state-table", r.name)
		})
	}
	wg.Wait()
	applied := 0
	for i, code := range codes {
		switch {
		case code == ExitOK:
			applied++
		case code != ExitFailed || !strings.Contains(said[i], "another revision was applied at the same time"):
			t.Errorf("exit code %d: %s", code, said[i])
		}
	}
	out, _ := r.run(ExitOK, "history", "--json")
	if list := objects(t, out); len(list) != applied || applied == 0 {
		t.Errorf("%d were applied: %s", applied, out)
	}
}

// TestRulesOnAWSWithoutTable says what to do.
func TestRulesOnAWSWithoutTable(t *testing.T) {
	r := newRuledTable(t)
	r.name += "-missing"
	_, errs := r.run(ExitFailed, "ls")
	says(t, errs, "table does not exist; create it with spate aws setup")
	t.Setenv("AWS_REGION", "")
	_, errs = r.run(ExitUsage, "apply", rulesFileOf(t, "rules.sql", rulesText(1)))
	says(t, errs, "region: missing")
}
