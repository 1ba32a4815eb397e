package aws

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/services/web"
	"spate/shared/notify/webhook"
	"spate/tests/harness"
)

var serving = regexp.MustCompile(`"serving the console","service":"console","address":"(http://[^"]+)"`)

// TestConsole: the console shows incidents, why they were flagged, and the figures that the worker saves; and says that a worker has gone.
func TestConsole(t *testing.T) {
	t.Parallel()
	a := harness.OnAWS(t, 2, append(slices.Clone(ruleEnv), "SPATE_IDLE_TIMEOUT=2s")...)
	console := harness.Spate(t, "console", a.Env, "console", "--listen", "127.0.0.1:0").Start()
	var address string
	harness.Eventually(t, patience, "the console is there", func() bool {
		if m := serving.FindSubmatch(console.Output()); m != nil {
			address = string(m[1])
		}
		return address != ""
	})
	get := func(path string) string {
		t.Helper()
		resp, err := http.Get(address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %v: %.500s", path, resp.StatusCode, err, b)
		}
		return string(b)
	}
	var health web.Health
	healthy := func(what string, ok func() bool) {
		t.Helper()
		if !harness.Within(patience, func() bool {
			health = web.Health{}
			return json.Unmarshal([]byte(get("/api/health")), &health) == nil && ok()
		}) {
			t.Fatalf("%s: %+v", what, health)
		}
	}
	says := func(what string) func() bool {
		return func() bool {
			return slices.ContainsFunc(health.Troubles, func(t string) bool { return strings.Contains(t, what) })
		}
	}
	healthy("no worker has begun", says("is spate work running?"))

	worker := harness.Spate(t, "worker", named(a, "one"), "work").Start()
	secret := webhook.NewSecret()
	secrets, err := webhook.ParseSecrets(secret)
	if err != nil {
		t.Fatal(err)
	}
	var tests atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(secrets, r.Header, body, time.Now())
		}
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(body), `"type":"endpoint.test"`) {
			tests.Add(1)
		}
	}))
	defer hook.Close()
	harness.Spate(t, "alerter", append(slices.Clone(a.Env), "SPATE_WEBHOOK_URL="+hook.URL, "SPATE_WEBHOOK_SECRET="+secret, "SPATE_WEBHOOK_ALLOW_PRIVATE=true"), "alert").Start()
	const user = "9007199254740993" // beyond 2^53
	now := time.Now().UTC()
	var events []types.PutRecordsRequestEntry
	for i := range 12 {
		event := fmt.Sprintf(`{"user_id":%s,"event_type":"view","product_id":%d,"txn_timestamp":%q}`, user, i, now.Add(time.Duration(i)*time.Millisecond).Format(time.RFC3339Nano))
		events = append(events, types.PutRecordsRequestEntry{PartitionKey: aws.String("one"), Data: []byte(event)})
	}
	if _, err := a.Kinesis.PutRecords(t.Context(), &kinesis.PutRecordsInput{StreamName: aws.String(a.Stream), Records: events}); err != nil {
		t.Fatal(err)
	}
	var id string
	harness.Eventually(t, patience, "an incident is listed", func() bool {
		var page struct{ Items []struct{ ID string } }
		if err := json.Unmarshal([]byte(get("/api/incidents")), &page); err != nil || len(page.Items) == 0 {
			return false
		}
		id = page.Items[0].ID
		return true
	})
	healthy("the worker has saved how far it is", func() bool {
		return health.Rate != nil && health.ClosedTo != nil && health.Behind != nil && len(health.Partitions) == 2
	})
	if !health.OK || health.Lag != nil || len(health.Findings) == 0 || *health.Behind < 0 || *health.Rate < 0 {
		t.Errorf("health: %+v", health)
	}
	for _, line := range health.Troubles {
		if !strings.Contains(line, "silent") { // by now, it is
			t.Errorf("trouble: %s", line)
		}
	}

	doc, err := harness.ParseOpenAPI(get("/assets/openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for path, asked := range map[string]string{
		"/api/incidents": "/api/incidents", "/api/alerts": "/api/alerts?user=" + user, "/api/why": "/api/why?id=" + id, "/api/rules": "/api/rules", "/api/health": "/api/health",
		"/api/keys/{column}/{value}": "/api/keys/user_id/" + user,
	} {
		body := get(asked)
		for _, fault := range doc.Faults(http.MethodGet, path, body) {
			t.Errorf("%s: %s", asked, fault)
		}
		if path == "/api/why" && (!strings.Contains(body, `"verdict":"flagged"`) || !strings.Contains(body, user)) {
			t.Errorf("why: %s", body)
		}
	}
	for page, shows := range map[string]string{
		"/": "Reading is behind", "/incidents": id, "/incidents/" + id: "with the same result", "/alerts": user, "/rules": "burst", "/deliveries": "sns", "/health": "shardId-000000000000",
		"/keys?" + url.Values{"key": {"user_id=" + user}}.Encode(): id,
	} {
		if body := get(page); !strings.Contains(body, shows) || strings.Contains(body, `class="failed"`) || strings.Contains(body, "not counted yet") {
			t.Errorf("%s: want %q and no error in %s", page, shows, body)
		}
	}
	resp, err := http.Post(address+"/endpoints/webhook/test", "application/x-www-form-urlencoded", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // its status is what counts
	if resp.StatusCode != http.StatusOK || !strings.HasSuffix(resp.Request.URL.RequestURI(), "/deliveries?done=tested") {
		t.Errorf("send a test: %d %s", resp.StatusCode, resp.Request.URL)
	}
	harness.Eventually(t, patience, "the test is delivered", func() bool {
		return tests.Load() == 1 && regexp.MustCompile(`delivered</span></td>\s*<td data-label="Message">endpoint\.test`).MatchString(get("/deliveries?state=delivered"))
	})

	worker.Kill()
	healthy("the worker is gone", says("The worker one has not renewed its lease"))
	if body := get("/"); !strings.Contains(body, "is spate work running?") || !strings.Contains(body, id) {
		t.Errorf("the page of a pipeline without a worker: %s", body)
	}
}
