package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store/dynamodb"
)

// awsBench is a table and the command line that works on it.
type awsBench struct {
	t     *testing.T
	name  string
	table *dynamodb.Table
}

func newAWSBench(t *testing.T) *awsBench {
	t.Helper()
	url := awstest.DynamoDB(t)
	bare(t)
	for name, value := range map[string]string{
		"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": url, "SPATE_MODE": "aws",
	} {
		t.Setenv(name, value)
	}
	b := &awsBench{t: t, name: fmt.Sprintf("incidents%d", time.Now().UnixNano())}
	t.Setenv("SPATE_TABLE", b.name)
	var err error
	if b.table, err = dynamodb.New(dynamodbsdk.NewFromConfig(awstest.Config(url)), dynamodb.Config{Table: b.name}); err != nil {
		t.Fatal(err)
	}
	if err := b.table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// apply stores records, and tells what is to be told.
func (b *awsBench) apply(now time.Time, to notify.Endpoint, records ...alert.Record) {
	b.t.Helper()
	for _, r := range records {
		it, err := b.table.Config().Item(r)
		if err != nil {
			b.t.Fatal(err)
		}
		out, err := b.table.Apply(b.t.Context(), now, it, to)
		if err == nil {
			err = b.table.Told(b.t.Context(), now, out.Untold...)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *awsBench) run(want int, args ...string) (out, errs string) {
	b.t.Helper()
	code, out, errs := spate(args...)
	if code != want {
		b.t.Fatalf("spate %s: exit code %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out, errs
}

// TestIncidentsReadAlike: the same records are the same incidents in both modes, as the lists and the marks show them.
func TestIncidentsReadAlike(t *testing.T) {
	plain := newBench(t)
	grave := record(`7`, 0, alert.Raised)
	grave.Count, grave.Severity = 11, alert.Critical
	records := []alert.Record{record(`7`, 0, alert.Opened), grave, record(`7`, 0, alert.Closed), record(`7`, 3, alert.Closed), record(`"7"`, 1, alert.Closed), record(`9`, 20, alert.Opened)}
	to := notify.Endpoint{Name: "sns"}
	plain.apply(heard, records, to)
	over := record(`7`, 15, alert.Closed).WindowStart
	if _, err := plain.st.Resolve(t.Context(), heard.Add(time.Minute), over, 10, to); err != nil {
		t.Fatal(err)
	}
	id := incidentID(grave)
	commands := [][]string{
		{"incidents", "ls"}, {"incidents", "ls", "--json"}, {"incidents", "ls", "--only", "open"}, {"incidents", "ls", "--user", "7", "--severity", "critical"}, {"incidents", "ls", "--limit", "1"},
		{"incidents", "ls", "--key", "user_id=7"}, {"incidents", "mark", id[:8], "benign", "--note", "load test", "--by", "ana"}, {"incidents", "ls", "--mark", "benign"},
		{"incidents", "stats"}, {"incidents", "stats", "--json"},
	}
	var want []string
	for _, c := range commands {
		out, errs := plain.run(ExitOK, c...)
		want = append(want, out+errs)
	}
	b := newAWSBench(t)
	_, errs := b.run(ExitOK, "incidents", "ls")
	says(t, errs, "no incidents yet")
	b.apply(heard, to, records...)
	if _, err := b.table.Resolve(t.Context(), dynamodb.Ending{Now: heard.Add(time.Minute), UpTo: over, To: []notify.Endpoint{to}}); err != nil {
		t.Fatal(err)
	}
	for i, c := range commands {
		out, errs := b.run(ExitOK, c...)
		if diff := cmp.Diff(want[i], out+errs); diff != "" {
			t.Errorf("%v, in mode kafka and in mode aws: %s", c, diff)
		}
	}
	out, _ := b.run(ExitOK, "incidents", "show", id[:8])
	says(t, out, "incident  "+id, "severity  critical", "counted   18 events in 2 windows, 11 in the busiest", "resolved at", id+"_escalated_1", id+"_resolved", grave.ID, "marked    benign by ana at ")
	out, _ = b.run(ExitOK, "incidents", "show", id+"_escalated_1", "--json")
	story := objects(t, out)[0]
	if n, m := len(story["alerts"].([]any)), len(story["deliveries"].([]any)); n != 2 || m != 3 || story["id"] != id {
		t.Errorf("%d alerts, %d deliveries: %s", n, m, out)
	}
	out, _ = b.run(ExitOK, "alerts", "show", grave.ID, "--no-events")
	says(t, out, "incident  "+id, id+"_opened")
	out, _ = b.run(ExitOK, "alerts", "ls", "--json")
	for _, a := range objects(t, out) {
		if a["incident"] == "" || a["incident"] == nil {
			t.Errorf("%v", a)
		}
	}
	_, errs = b.run(ExitFailed, "incidents", "show", "0000")
	says(t, errs, "no incident has the ID 0000")
}

func TestSilenceInModeAWS(t *testing.T) {
	b := newAWSBench(t)
	now := time.Now()
	b.apply(now, notify.Endpoint{Name: "sns"}, record(`7`, 0, alert.Closed))
	out, _ := b.run(ExitOK, "silence", "add", "--rule", "burst", "--key", "user_id=7", "--why", "load test", "--by", "ana", "--json")
	var added struct {
		Silence incident.Silence
		Preview struct {
			Incidents, Messages int
			ByEndpoint          map[string]int `json:"by_endpoint"`
		}
	}
	if err := json.Unmarshal([]byte(out), &added); err != nil || added.Preview.Incidents != 1 || added.Preview.Messages != 1 || added.Preview.ByEndpoint["sns"] != 1 {
		t.Fatalf("%s, %v", out, err)
	}
	b.apply(time.Now(), notify.Endpoint{Name: "sns"}, record(`7`, 100, alert.Closed))
	out, _ = b.run(ExitOK, "silence", "ls", "--json")
	if l := objects(t, out); len(l) != 1 || l[0]["id"] != added.Silence.ID || l[0]["incidents"] != 1.0 {
		t.Errorf("%s", out)
	}
	out, _ = b.run(ExitOK, "incidents", "show", incidentID(record(`7`, 100, alert.Closed)))
	says(t, out, "silenced  by ana, silence "+added.Silence.ID+": load test", "no notifications")
	b.run(ExitOK, "silence", "expire", added.Silence.ID[:4])
	_, errs := b.run(ExitOK, "silence", "ls")
	says(t, errs, "no active silences")
	out, _ = b.run(ExitOK, "silence", "ls", "--all")
	says(t, out, added.Silence.ID)
}

func TestDecisionsInModeAWS(t *testing.T) {
	b := newAWSBench(t)
	_, errs := b.run(ExitOK, "decisions", "ls")
	says(t, errs, "no decisions are in force")
	_, errs = b.run(ExitFailed, "decisions", "rm", "--scope", "ip", "--value", "10.0.0.1")
	says(t, errs, "no decision about ip 10.0.0.1 is in force")
	out, _ := b.run(ExitOK, "decisions", "add", "--scope", "username", "--value", "42", "--level", "block", "--for", "2h", "--why", "fraud \x1b[31m", "--by", "ana")
	says(t, out, "username 42: block until ")
	b.run(ExitOK, "decisions", "add", "--scope", "ip", "--value", "10.0.0.1", "--level", "ban")
	b.run(ExitOK, "decisions", "add", "--scope", "ip", "--value", "10.0.0.1", "--level", "captcha", "--json") // in place of the other
	out, _ = b.run(ExitOK, "decisions", "ls")
	says(t, out, "SCOPE", "username", "42", "block", "by ana", `fraud \x1b[31m`, "10.0.0.1", "captcha")
	out, _ = b.run(ExitOK, "decisions", "ls", "--json")
	if list := objects(t, out); len(list) != 2 || list[0]["value"] != "10.0.0.1" || list[0]["level"] != "captcha" {
		t.Errorf("%s", out)
	}
	out, _ = b.run(ExitOK, "decisions", "rm", "--scope", "username", "--value", "42")
	says(t, out, "1 decision ended")
	out, _ = b.run(ExitOK, "decisions", "ls", "--json", "--scope", "username")
	if out != "" {
		t.Errorf("%s", out)
	}
	b.run(ExitOK, "decisions", "add", "--scope", "username", "--value", "42", "--level", "block") // again
	out, _ = b.run(ExitOK, "decisions", "ls", "--json", "--scope", "username")
	if len(objects(t, out)) != 1 {
		t.Errorf("%s", out)
	}
	_, errs = b.run(ExitUsage, "decisions", "add", "--scope", "ip", "--value", "x", "--level", "No")
	says(t, errs, `level: "No" is not a valid level`)
}
