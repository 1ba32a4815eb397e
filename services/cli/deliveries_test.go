package cli

import (
	"strings"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

// tried fills the database: an alert told to two endpoints, delivered to one, given up at the other, and one that is held for a digest.
func tried(t *testing.T) (b *bench, id string) {
	b = newBench(t)
	r := record(`7`, 0, alert.Opened)
	id = r.ID + "_opened"
	pager, chat := notify.Endpoint{Name: "pager", Filter: notify.Alerts()}, notify.Endpoint{Name: "chat", Filter: notify.Alerts(), DigestAbove: 1}
	b.apply(heard, []alert.Record{r, record(`8`, 0, alert.Opened)}, pager, chat)
	b.try(store.Try{WebhookID: id, Endpoint: "pager", At: heard, Took: 23 * time.Millisecond, Status: 500, Outcome: notify.Failed, Reason: "status 500", NextAt: heard.Add(5 * time.Second)})
	b.try(store.Try{WebhookID: id, Endpoint: "pager", At: heard.Add(5 * time.Second), Outcome: notify.Exhausted, Reason: "connection refused"})
	b.try(store.Try{WebhookID: id, Endpoint: "chat", At: heard.Add(time.Second), Took: time.Second, Status: 204, Outcome: notify.Delivered})
	return b, id
}

func TestDeliveriesLs(t *testing.T) {
	b, id := tried(t)
	for _, c := range []struct {
		args string
		n    int
	}{
		{"", 3}, {"--endpoint pager", 2}, {"--outcome exhausted", 1}, {"--outcome gone", 0}, {"--limit 1", 1}, {"--limit 0", 3},
		{"--since 2020-11-24T09:30:01Z", 2}, {"--pending", 2}, {"--pending --endpoint pager", 1}, {"--only held", 1},
		{"--only exhausted,delivered", 2}, {"--only disabled", 0}, {"--only held --since 2020-11-25", 0},
	} {
		out, _ := b.run(ExitOK, append([]string{"deliveries", "ls", "--json"}, strings.Fields(c.args)...)...)
		if got := objects(t, out); len(got) != c.n {
			t.Errorf("%s: %d lines: %s", c.args, len(got), out)
		}
		if out, _ = b.run(ExitOK, append([]string{"deliveries", "ls"}, strings.Fields(c.args)...)...); strings.Count(out, "\n") != c.n+min(c.n, 1) { // the head
			t.Errorf("%s: %s", c.args, out)
		}
	}
	out, _ := b.run(ExitOK, "deliveries", "ls", "--json")
	list := objects(t, out)
	if keys(list[0]) != "at endpoint n next_at outcome reason status took_ms webhook_id" {
		t.Errorf("keys %s", keys(list[0]))
	}
	says(t, out, `{"webhook_id":"`+id+`","endpoint":"pager","n":1,"at":"2020-11-24T09:30:00Z","status":500,"outcome":"failed","reason":"status 500","took_ms":23,"next_at":"2020-11-24T09:30:05Z"}`,
		`"n":2,"at":"2020-11-24T09:30:05Z","status":0,"outcome":"exhausted","reason":"connection refused","took_ms":0,"next_at":null}`)
	out, _ = b.run(ExitOK, "deliveries", "ls", "--json", "--only", "exhausted")
	if got := keys(objects(t, out)[0]); got != "alert_id attempts created_at endpoint state type webhook_id" {
		t.Errorf("keys %s", got)
	}
	out, errs := b.run(ExitOK, "deliveries", "ls", "--limit", "1")
	says(t, out, "TIME (UTC)           MESSAGE", "2020-11-24 09:30:05  "+id+"  pager       2  exhausted       -  connection refused")
	says(t, errs, "the newest 1")
	for _, c := range []struct{ args, says string }{
		{"--outcome fine", `outcome: "fine"`}, {"--only lost", `only: "lost"`}, {"--state held", "--only held"}, {"--pending --outcome failed", "use one or the other"},
		{"--since soon", `since: "soon"`}, {"--limit=-1", "limit: -1"},
	} {
		_, errs := b.run(ExitUsage, append([]string{"deliveries", "ls"}, strings.Fields(c.args)...)...)
		says(t, errs, c.says)
	}
}

func TestDeliveriesShow(t *testing.T) {
	b, id := tried(t)
	out, _ := b.run(ExitOK, "deliveries", "show", id)
	says(t, out, "message   "+id, "endpoint  chat\nstate     delivered, 1 attempt", "endpoint  pager\nstate     exhausted, 2 attempts", "try 2     2020-11-24T09:30:05.000Z  exhausted: connection refused (0 ms)", "type      alert.opened", `data      {"id":`)
	out, _ = b.run(ExitOK, "deliveries", "show", id, "--endpoint", "pager", "--json")
	list := objects(t, out)
	if len(list) != 1 || keys(list[0]) != "alert_id attempts created_at data endpoint state tries type webhook_id" || len(list[0]["tries"].([]any)) != 2 {
		t.Errorf("%s", out)
	}
	held := strings.Replace(id, id, record(`8`, 0, alert.Opened).ID+"_opened", 1)
	out, _ = b.run(ExitOK, "deliveries", "show", held, "--endpoint", "chat", "--json")
	via := objects(t, out)[0]["via"].(map[string]any)
	if via["type"] != notify.TypeDigest || via["state"] != "pending" {
		t.Errorf("%s", out)
	}
	_, errs := b.run(ExitFailed, "deliveries", "show", id, "--endpoint", "nobody")
	says(t, errs, "message "+id+" to nobody not found")
}

func TestDeliveriesResend(t *testing.T) {
	b, id := tried(t)
	out, _ := b.run(ExitOK, "deliveries", "resend", id)
	says(t, out, "2 deliveries are due now")
	_, errs := b.run(ExitFailed, "deliveries", "resend", id, "--endpoint", "pager")
	says(t, errs, "nothing to resend: for pager, the message is still pending, due at 2")
	held := record(`8`, 0, alert.Opened).ID + "_opened"
	_, errs = b.run(ExitFailed, "deliveries", "resend", held, "--endpoint", "chat")
	says(t, errs, "for chat, the message is part of digest digest_chat_")
	out, errs = b.run(ExitFailed, "deliveries", "resend", "none_opened", "--json")
	says(t, out, `{"resent":0}`)
	says(t, errs, "message none_opened not found")
}

func TestDeliveriesRecover(t *testing.T) {
	b, id := tried(t)
	out, _ := b.run(ExitOK, "deliveries", "recover", "--since", "2020-11-25")
	says(t, out, "nothing to resend")
	out, _ = b.run(ExitOK, "deliveries", "recover", "--since", "2020-11-24", "--endpoint", "chat", "--json")
	says(t, out, `{"resent":0}`)
	if err := b.st.SetEnabled(t.Context(), heard, "pager", false, "on holiday"); err != nil {
		t.Fatal(err)
	}
	out, errs := b.run(ExitOK, "deliveries", "recover", "--since", "2020-11-24")
	says(t, out, "1 delivery is due now")
	says(t, errs, "endpoint pager has been disabled since 2020-11-24T09:30:00.000Z")
	if d, err := b.st.Delivery(t.Context(), id, "pager"); err != nil || d.State != store.Pending {
		t.Errorf("%+v, %v", d, err)
	}
	_, errs = b.run(ExitUsage, "deliveries", "recover")
	says(t, errs, "--since")
	_, errs = b.run(ExitUsage, "deliveries", "recover", "--since", "")
	says(t, errs, "since: must not be empty")
}
