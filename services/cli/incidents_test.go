package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
)

func incidentID(r alert.Record) string {
	return incident.ID(r.Rule, incident.KeyOf(&r), r.WindowStart, r.WindowEnd)
}

// shadowRecord is one of a rule in shadow.
func shadowRecord(user string, n int) alert.Record {
	r := record(user, n, alert.Opened)
	r.Mode = alert.Shadow
	return r
}

func TestIncidents(t *testing.T) {
	b := newBench(t)
	_, errs := b.run(ExitOK, "incidents", "ls")
	says(t, errs, "no incidents yet")

	grave := record(`7`, 0, alert.Raised)
	grave.Count, grave.Severity = 11, alert.Critical
	hostile := record(`"<b>\u001b[31m\u202e"`, 20, alert.Opened)
	b.apply(heard, []alert.Record{record(`7`, 0, alert.Opened), grave, record(`7`, 0, alert.Closed), record(`7`, 3, alert.Closed), record(`"7"`, 1, alert.Closed), hostile}, notify.Endpoint{Name: "pager"})
	if _, err := b.st.Resolve(t.Context(), heard.Add(time.Minute), record(`7`, 15, alert.Closed).WindowStart, 10, notify.Endpoint{Name: "pager"}); err != nil {
		t.Fatal(err)
	}
	id, other := incidentID(grave), incidentID(record(`"7"`, 1, alert.Closed))

	type line struct {
		ID, Rule, State, Severity string
		Key                       map[string]any
		Windows, Events, Peak     int
	}
	list := func(args ...string) (out []line) {
		text, _ := b.run(ExitOK, append([]string{"incidents", "ls", "--json"}, args...)...)
		for l := range strings.Lines(text) {
			var x line
			if err := json.Unmarshal([]byte(l), &x); err != nil {
				t.Fatal(err)
			}
			out = append(out, x)
		}
		return out
	}
	hid := list("--only", "open")[0].ID // the store has another form of the same user
	seven := line{ID: id, Rule: alert.Burst, State: "resolved", Severity: "critical", Key: map[string]any{"user_id": 7.0}, Windows: 2, Events: 18, Peak: 11}
	if diff := cmp.Diff([]line{seven}, list("--user", "7")); diff != "" {
		t.Error(diff)
	}
	for args, want := range map[string][]string{
		"":                             {id, other, hid},
		"--key user_id=7":              {id, other},
		"--key user_id=7 --limit 1":    {other}, // the newest
		"--key ip=7":                   nil,
		"--only open":                  {hid},
		"--only resolved":              {id, other},
		"--severity critical":          {id},
		"--rule other":                 nil,
		"--mark benign":                nil,
		"--until 2019-11-01T00:00:05Z": {id},
		"--since 2019-11-01T00:03:00Z": {hid},
	} {
		var got []string
		for _, l := range list(strings.Fields(args)...) {
			got = append(got, l.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", args, diff)
		}
	}
	out, _ := b.run(ExitOK, "incidents", "ls")
	says(t, out, "SEVERITY", "PEAK", "INCIDENT", "resolved", "40s", id)
	if strings.ContainsAny(out, "\x1b\u202e") {
		t.Errorf("text of events is not escaped: %q", out)
	}
	_, errs = b.run(ExitOK, "incidents", "ls", "--mark", "benign")
	says(t, errs, "no incidents match")

	out, _ = b.run(ExitOK, "incidents", "show", id[:8])
	says(t, out, "incident  "+id, "rule      burst\n", "severity  critical", "counted   18 events in 2 windows, 11 in the busiest", "resolved at", id+"_escalated_1", id+"_resolved", grave.ID)
	out, _ = b.run(ExitOK, "incidents", "show", id+"_escalated_1", "--json")
	story := objects(t, out)[0]
	if n, m := len(story["alerts"].([]any)), len(story["deliveries"].([]any)); n != 2 || m != 3 || story["id"] != id {
		t.Errorf("%d alerts, %d deliveries: %s", n, m, out)
	}
	out, _ = b.run(ExitOK, "deliveries", "show", id[:8]+"_escalated_1", "--json")
	if m := objects(t, out); len(m) != 1 || m[0]["webhook_id"] != id+"_escalated_1" || m[0]["incident_id"] != id {
		t.Errorf("%s", out)
	}
	out, _ = b.run(ExitOK, "deliveries", "show", id[:8], "--json")
	if m := objects(t, out); len(m) != 3 {
		t.Errorf("%s", out)
	}
	out, _ = b.run(ExitOK, "alerts", "show", grave.ID, "--no-events")
	says(t, out, "incident  "+id)

	out, _ = b.run(ExitOK, "incidents", "mark", id[:8], "benign", "--note", "load test \x1b[31m", "--by", "ana")
	says(t, out, id+" is marked benign\n")
	out, _ = b.run(ExitOK, "incidents", "show", id)
	says(t, out, "marked    benign by ana at ", `load test \x1b[31m`)
	if got := list("--mark", "benign"); len(got) != 1 || got[0].ID != id {
		t.Errorf("%+v", got)
	}
	_, errs = b.run(ExitFailed, "alerts", "show", id[:12])
	says(t, errs, "is the ID of an incident, not of an alert; run spate incidents show "+id[:12])
	b.run(ExitOK, "incidents", "mark", other, "attack")
	b.run(ExitOK, "incidents", "mark", hid, "unsure")
	b.apply(heard, []alert.Record{shadowRecord(`7`, 90)})
	out, _ = b.run(ExitOK, "incidents", "stats")
	says(t, out, "RULE ", "PRECISION", "burst ", "burst (shadow) ", "50.0 %")
	out, _ = b.run(ExitOK, "incidents", "stats", "--json")
	want := []map[string]any{
		{"rule": "burst", "incidents": 3.0, "open": 1.0, "critical": 1.0, "silenced": 0.0, "attack": 1.0, "benign": 1.0, "unsure": 1.0, "precision": 0.5},
		{"rule": "burst", "mode": "shadow", "incidents": 1.0, "open": 1.0, "critical": 0.0, "silenced": 0.0, "attack": 0.0, "benign": 0.0, "unsure": 0.0, "precision": nil},
	}
	if diff := cmp.Diff(want, objects(t, out)); diff != "" {
		t.Error(diff)
	}
	_, errs = b.run(ExitOK, "incidents", "stats", "--rule", "none")
	says(t, errs, "no incidents")
	_, errs = b.run(ExitUsage, "incidents", "stats", "--since", "2019-11-02", "--until", "2019-11-01")
	says(t, errs, "since, until:")
	out, _ = b.run(ExitOK, "incidents", "mark", id[:8], "none", "--json")
	if m := objects(t, out)[0]; m["mark"] != nil || m["id"] != id {
		t.Errorf("%s", out)
	}
	for args, c := range map[string]struct {
		code int
		why  string
	}{
		"ls --only half":                      {ExitUsage, `only: "half" is neither open nor resolved`},
		"ls --mark good":                      {ExitUsage, "mark: is not one of attack, benign, unsure"},
		"mark " + id + " bad":                 {ExitUsage, `mark: "bad" is not one of attack, benign, unsure, none`},
		"mark 0000 attack":                    {ExitFailed, "no incident has the ID 0000; to list incidents, run spate incidents ls"},
		"show " + id[:3]:                      {ExitUsage, "is too short"},
		"show xyz":                            {ExitFailed, "no incident has the ID xyz"},
		fmt.Sprintf("show %s", grave.ID[:12]): {ExitFailed, "is the ID of an alert, not of an incident; to find its incident, run spate alerts show"},
	} {
		_, errs := b.run(c.code, append([]string{"incidents"}, strings.Fields(args)...)...)
		says(t, errs, c.why)
	}
}

func TestSilence(t *testing.T) {
	b := newBench(t)
	_, none := b.run(ExitOK, "silence", "ls")
	says(t, none, "no active silences")
	pager := notify.Endpoint{Name: "pager"}
	now := time.Now()
	b.apply(now, []alert.Record{record(`7`, 0, alert.Opened), record(`8`, 0, alert.Opened), record(`7`, 50, alert.Opened)}, pager)

	out, errs := b.run(ExitOK, "silence", "add", "--key", "user=7", "--rule", "brust", "--preview")
	says(t, errs, "no alert has a key with the column user; the columns are user_id", "there are no alerts from a rule named brust; did you mean burst?")
	says(t, out, "No incidents from the last 24 hours match.")
	out, _ = b.run(ExitOK, "silence", "add", "--key", "user_id=9", "--from", "10m", "--why", "later")
	says(t, out, "is active from ", "(in 10m) to ")
	later := strings.Fields(out[strings.Index(out, "silence "):])[1]
	b.run(ExitOK, "silence", "expire", later)

	// What it would have kept is what it then keeps.
	out, _ = b.run(ExitOK, "silence", "add", "--key", "user_id=7", "--preview")
	says(t, out, "This silence would have suppressed 2 incidents and 2 messages (pager 2) in the last 24 hours:", "INCIDENT")
	out, _ = b.run(ExitOK, "silence", "add", "--key", "user_id=7", "--for", "2h", "--why", "load test \x1b[31m", "--by", "ana", "--json")
	added := objects(t, out)[0]
	id := added["silence"].(map[string]any)["id"].(string)
	if p := added["preview"].(map[string]any); p["incidents"] != 2.0 || p["messages"] != 2.0 {
		t.Errorf("%s", out)
	}
	b.apply(time.Now().Add(time.Second), []alert.Record{record(`7`, 100, alert.Opened), record(`8`, 100, alert.Opened), record(`7`, 150, alert.Opened)}, pager)
	out, _ = b.run(ExitOK, "silence", "ls", "--json")
	if s := objects(t, out); len(s) != 1 || s[0]["incidents"] != 2.0 || s[0]["id"] != id {
		t.Errorf("%s", out)
	}
	out, _ = b.run(ExitOK, "silence", "ls")
	says(t, out, id, "user_id=7", "ana", `load test \x1b[31m`)
	out, _ = b.run(ExitOK, "incidents", "show", incidentID(record(`7`, 100, alert.Opened)))
	says(t, out, "silenced  by ana, silence "+id+": load test", "no notifications")
	if messages, _ := b.run(ExitOK, "deliveries", "ls", "--pending", "--json"); len(objects(t, messages)) != 4 {
		t.Errorf("%s", messages)
	}

	out, _ = b.run(ExitOK, "silence", "expire", id[:6])
	says(t, out, "silence "+id+" has ended\n")
	_, errs = b.run(ExitOK, "silence", "ls")
	says(t, errs, "no active silences")
	out, _ = b.run(ExitOK, "silence", "ls", "--all")
	says(t, out, id)
	for args, c := range map[string]struct {
		code int
		why  string
	}{
		"add --why x":                                {ExitUsage, "rule, key: both are missing"},
		"add --rule burst":                           {ExitUsage, "why: missing"},
		"add --rule No --why x":                      {ExitUsage, `rule: "No" is not a valid rule name`},
		"add --rule burst --why x --for 0s":          {ExitUsage, "for: 0s is shorter than 1s"},
		"add --rule burst --why x --for 9999h":       {ExitUsage, "to exclude something permanently"},
		"add --key user_id --why x":                  {ExitUsage, "key: user_id is not COLUMN=VALUE"},
		"add --rule burst --why x --from 2026-01-01": {ExitUsage, "would have ended at"},
		"add --rule burst --why x --from soon":       {ExitUsage, "a duration from now"},
		"expire " + id:                               {ExitFailed, "no active silence has the ID " + id},
	} {
		_, errs := b.run(c.code, append([]string{"silence"}, strings.Fields(args)...)...)
		says(t, errs, c.why)
	}
}
