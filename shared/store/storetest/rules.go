package storetest

import (
	"encoding/json"
	"errors"
	"iter"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

// Row returns an alert of a rule whose keys are names, in the n-th window. Its columns differ from state to state.
func Row(rule string, names []string, token string, n int, state alert.State) alert.Record {
	r := Record("1", n, state)
	r.Rule, r.Threshold, r.AtLeast, r.RuleRevision = rule, 0, state == alert.Closed, 3
	r.Summary, r.Runbook = "it did <things> & "+string(state), "https://runbooks.example/"+rule
	r.SetRow(names, token, []byte(`"z <&>":`+map[alert.State]string{alert.Opened: "6", alert.Raised: "11", alert.Closed: "-0.0"}[state]+`,"a":"1.50 \u0000  ","EXPR$2":null`))
	r.ID = alert.ID(rule, token, r.WindowStart.UnixMilli(), size.Milliseconds())
	return r
}

func testAnyRule(t *testing.T, s store.Store) {
	names, token := []string{"ip", "product"}, `["10.0.0.1",5]`
	all3 := []alert.Record{}
	for _, state := range alert.States() {
		all3 = append(all3, Row("card-testing", names, token, 0, state))
	}
	to := notify.Endpoint{Name: "all", Filter: notify.Alerts()}
	id := all3[0].ID
	for i, r := range all3 {
		at := noon.Add(time.Duration(i) * time.Second)
		got, err := s.Apply(t.Context(), at, []alert.Record{r}, to, notify.Endpoint{Name: "burst", Filter: notify.Filter{Rules: []string{alert.Burst}, Transitions: alert.States()}})
		if err != nil || len(got.Rejected) > 0 || !got.Changed[0] {
			t.Fatalf("%s: %v, %+v", r.State, err, got)
		}
		equal(t, string(r.State), get(t, s, id).Record, r)
		// The endpoint is told what the topic had.
		want, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "message", string(delivery(t, s, notify.IDOf(r), "all").Data), string(want))
		if _, err := s.Delivery(t.Context(), notify.IDOf(r), "burst"); !errors.Is(err, store.ErrNoDelivery) {
			t.Errorf("an endpoint for other rules is told: %v", err)
		}
		equal(t, "again, and before it", apply(t, s, at, all3[:i+1]...), make([]bool, i+1))
	}
	counts(t, s, 0, 1)
	other := all3[2]
	other.Columns = json.RawMessage(`{"a":1}`)
	if got, err := s.Apply(t.Context(), noon, []alert.Record{other}); err != nil || len(got.Rejected) != 1 || !errors.Is(got.Rejected[0].Err, store.ErrConflict) {
		t.Errorf("other columns under the same id: %v, %+v", err, got)
	}

	// A batch may have them all, or leave some out.
	equal(t, "all in one", apply(t, s, noon, Row("a", names, token, 0, alert.Opened), Row("a", names, token, 0, alert.Raised), Row("a", names, token, 0, alert.Closed)), []bool{true, true, true})
	equal(t, "no opened", apply(t, s, noon, Row("b", nil, "[]", 0, alert.Raised), Row("b", nil, "[]", 0, alert.Opened)), []bool{true, false})
	equal(t, "no raised", apply(t, s, noon, Row("c", nil, "[]", 0, alert.Opened), Row("c", nil, "[]", 0, alert.Closed), Row("c", nil, "[]", 0, alert.Raised)), []bool{true, true, false})
	counts(t, s, 1, 3)

	// A user's alerts are those of rules about users, and not of another key that looks the same.
	shadow := Row("scraper", []string{"user_id"}, "5", 1, alert.Opened)
	shadow.Mode = alert.Shadow
	got, err := s.Apply(t.Context(), noon, []alert.Record{shadow, Row("other", []string{"product"}, "5", 1, alert.Opened), Record("5", 1, alert.Opened)}, to)
	if err != nil || len(got.Rejected) > 0 {
		t.Fatalf("Apply: %v, %+v", err, got)
	}
	if _, err := s.Delivery(t.Context(), notify.IDOf(shadow), "all"); !errors.Is(err, store.ErrNoDelivery) {
		t.Errorf("an alert in shadow is told: %v", err)
	}
	for _, c := range []struct {
		f    store.Filter
		want int
	}{
		{store.Filter{Rule: "card-testing"}, 1}, {store.Filter{Rule: alert.Burst}, 1}, {store.Filter{User: "5"}, 2}, {store.Filter{User: "5", Rule: "scraper"}, 1},
		{store.Filter{User: token}, 0}, {store.Filter{State: alert.Raised}, 1}, {store.Filter{}, 7},
	} {
		list := all(t, s, c.f)
		if len(list) != c.want {
			t.Errorf("%+v: %d alerts, not %d", c.f, len(list), c.want)
		}
		for _, a := range list {
			if a.Rule == "scraper" {
				equal(t, "listed", a.Record, shadow)
			}
		}
	}
}

func testAnyRuleFlood(t *testing.T, s store.Store) {
	to := notify.Endpoint{Name: "few", Filter: notify.Alerts(), DigestAbove: 1}
	first, held := Row("a", nil, "[]", 0, alert.Opened), Row("a", []string{"ip"}, `"x"`, 1, alert.Raised)
	held.Severity = alert.Warning // what is critical is told at once
	if _, err := s.Apply(t.Context(), noon, []alert.Record{first, held}, to); err != nil {
		t.Fatal(err)
	}
	var got []alert.Record
	if _, err := s.Seal(t.Context(), delivery(t, s, notify.IDOf(held), "few").Digest, "few", func(records iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
		for r, err := range records {
			if err != nil {
				return nil, err
			}
			got = append(got, *r.Alert)
		}
		return json.RawMessage("{}"), nil
	}); err != nil {
		t.Fatal(err)
	}
	equal(t, "held", got, []alert.Record{held})
}

func testAnyRuleInvalid(t *testing.T, s store.Store) {
	for name, spoil := range map[string]func(*alert.Record){
		"rule":               func(r *alert.Record) { r.Rule = "A" },
		"key":                func(r *alert.Record) { r.Key = json.RawMessage(`[]`) },
		"another key":        func(r *alert.Record) { r.Key = json.RawMessage(`{"ip":2}`) },
		"no columns":         func(r *alert.Record) { r.Columns = nil },
		"reserved column":    func(r *alert.Record) { r.Columns = json.RawMessage(`{"id":1}`) },
		"columns, no object": func(r *alert.Record) { r.Columns = json.RawMessage(`1`) },
		"mode":               func(r *alert.Record) { r.Mode = "half" },
		"revision":           func(r *alert.Record) { r.RuleRevision = -1 },
	} {
		r := Row("a", []string{"ip"}, "1", 0, alert.Closed)
		spoil(&r)
		got, err := s.Apply(t.Context(), noon, []alert.Record{r})
		if err != nil || len(got.Rejected) != 1 || !errors.Is(got.Rejected[0].Err, store.ErrInvalid) {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
	}
	counts(t, s, 0, 0)
}
