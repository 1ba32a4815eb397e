package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

// TestDeliveriesInModeAWS: the ledger in the table is looked at and changed with the commands of mode kafka; messages to the topic are listed beside it.
func TestDeliveriesInModeAWS(t *testing.T) {
	b := newAWSBench(t)
	out, errs := b.run(ExitOK, "endpoints", "ls")
	says(t, out+errs, "no endpoints are configured")
	r, other := record(`7`, 0, alert.Closed), record(`8`, 0, alert.Closed)
	now := time.Now()
	for _, r := range []alert.Record{r, other} {
		it, err := b.table.Config().Item(r)
		if err == nil {
			_, err = b.table.Apply(t.Context(), now, it, notify.Endpoint{Name: "pager"}, notify.Endpoint{Name: dynamodb.Endpoint})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	id := incidentID(r) + "_opened"
	try := store.Try{WebhookID: id, Endpoint: "pager", At: now, Status: 503, Outcome: notify.Exhausted, Reason: "status 503"}
	if _, err := b.table.Record(t.Context(), try, true); err != nil {
		t.Fatal(err)
	}
	out, _ = b.run(ExitOK, "deliveries", "ls", "--pending", "--json")
	if got := objects(t, out); len(got) != 3 {
		t.Errorf("pending: %s", out)
	}
	out, _ = b.run(ExitOK, "deliveries", "ls", "--json")
	if got := objects(t, out); len(got) != 1 || got[0]["outcome"] != "exhausted" || got[0]["status"] != 503.0 {
		t.Errorf("tries: %s", out)
	}
	out, _ = b.run(ExitOK, "deliveries", "show", incidentID(r)[:8], "--endpoint", "pager")
	says(t, out, "message   "+id, "state     exhausted, 1 attempt", "exhausted: status 503", `data      {"id":"`+incidentID(r))
	out, _ = b.run(ExitOK, "alerts", "show", r.ID, "--no-events")
	says(t, out, "pager", "exhausted")
	out, _ = b.run(ExitOK, "incidents", "show", incidentID(r))
	says(t, out, "pager", "exhausted", "sns")

	out, _ = b.run(ExitOK, "endpoints", "ls", "--json")
	if got := objects(t, out); len(got) != 1 || got[0]["name"] != "pager" || got[0]["pending"] != 1.0 || got[0]["exhausted"] != 1.0 {
		t.Errorf("endpoints: %s", out)
	}
	_, errs = b.run(ExitFailed, "endpoints", "disable", "unknown")
	says(t, errs, "endpoint unknown is neither configured nor in the database")
	out, _ = b.run(ExitOK, "endpoints", "disable", "pager", "--reason", "maintenance")
	says(t, out, "pager is disabled")
	out, errs = b.run(ExitOK, "deliveries", "recover", "--since", "1h")
	says(t, out+errs, "1 delivery is due now", "endpoint pager has been disabled since")
	out, _ = b.run(ExitOK, "endpoints", "enable", "pager")
	says(t, out, "pager is enabled; it had been disabled since", "maintenance")
	if d, err := b.table.Delivery(t.Context(), id, "pager"); err != nil || d.State != store.Pending || d.Tries != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	_, errs = b.run(ExitFailed, "deliveries", "resend", id, "--endpoint", "sns")
	says(t, errs, "spate retries each message until the SNS topic accepts it")
	_, errs = b.run(ExitFailed, "deliveries", "resend", "0000")
	says(t, errs, "message 0000 not found")

	// More than a transaction can tell, and a name that is taken.
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	const form = "  - {name: %s, url: http://127.0.0.1:1, allow_private: true, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}\n"
	text := "endpoints:\n" + fmt.Sprintf(form, "sns")
	for n := range dynamodb.MaxEndpoints {
		text += fmt.Sprintf(form, fmt.Sprintf("e%d", n))
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs = b.run(ExitUsage, "alert", "--endpoints", path)
	says(t, errs, "endpoints: 41 are configured, but mode aws notifies at most 40", `endpoint "sns": name: is reserved for the SNS topic`)
}
