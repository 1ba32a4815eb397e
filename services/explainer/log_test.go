package explainer

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/evidence"
	"spate/shared/format"
	"spate/shared/rule"
)

const keyed = `CREATE TABLE t (name STRING, code VARCHAR(3), n BIGINT, amount DECIMAL(10, 2), price DOUBLE, since_day TIMESTAMP(3), at_time TIMESTAMP(3), WATERMARK FOR at_time AS at_time);
-- rule: r
INSERT INTO a SELECT COUNT(*) AS c FROM t GROUP BY TUMBLE(at_time, INTERVAL '10' SECOND), `

// TestAbout: a record that has the key in any way in which the pipeline reads it is not left out.
func TestAbout(t *testing.T) {
	for _, c := range []struct {
		column, key, text, header string
		want                      bool
	}{
		{"name", `"ann"`, `{"name":"ann"}`, "", true},
		{"name", `"ann"`, `{"name":"anna"}`, "", false},
		{"name", `"ann"`, `{"name":"\\u0061nn"}`, "", true},
		{"name", `"ann"`, `{}`, "ann", true}, // an attribute of a CloudEvent
		{"name", `"[1,2]"`, `{"name":[1, 2]}`, "", true},
		{"code", `"abc"`, `{"code":"abcdef"}`, "", true},
		{"n", `7`, `{"n":"007"}`, "", true},
		{"n", `7`, `{"n":7.0}`, "", true},
		{"n", `-7`, `{"n":"-07"}`, "", true},
		{"n", `7`, `{"n":17}`, "", false},
		{"n", `1`, `{"n":10101}`, "", false},
		{"amount", `"1.50"`, `{"amount":1.5}`, "", true},
		{"price", `100.0`, `{"price":1e2}`, "", true},
		{"since_day", `"2019-11-02T00:00:00.000"`, `{"since_day":"2019-11-02 00:00:00"}`, "", true},
		{"UPPER(name)", `"ANN"`, `{"name":"ann"}`, "", true},
	} {
		set, errs := rule.Compile(keyed+c.column+" HAVING COUNT(*) > 1;", rule.Options{})
		if errs != nil {
			t.Fatal(c.column, errs)
		}
		a := RuleKey{Rule{Rule: set.Rules[0]}, []json.RawMessage{json.RawMessage(c.key)}}.about()
		if got := a.maybe([]byte(c.text), []kgo.RecordHeader{{Key: "ce_subject", Value: []byte(c.header)}}); got != c.want {
			t.Errorf("%s = %s in %s: %v, want %v", c.column, c.key, c.text, got, c.want)
		}
	}
}

// TestTakeInside: the fields of a rule are those in the envelope.
func TestTakeInside(t *testing.T) {
	const data = `{"user_id":7,"txn_timestamp":"2019-11-01 00:00:00","brand":"ab"}`
	for _, c := range []struct{ format, value, content string }{
		{"auto", data, ""}, {"auto", `{"specversion":"1.0","data":` + data + `}`, "application/cloudevents+json"}, {"cloudevents", `{"specversion":"1.0","data":` + data + `}`, ""},
		{"debezium", `{"op":"c","before":null,"after":` + data + `}`, ""}, {"debezium", `{"payload":{"op":"d","before":` + data + `,"after":null}}`, ""},
	} {
		events, err := format.New(format.Config{Format: format.Name(c.format), Fields: activity.Fields{User: []string{"user_id"}, Time: []string{"txn_timestamp"}}})
		if err != nil {
			t.Fatal(err)
		}
		var headers []kgo.RecordHeader
		if c.content != "" {
			headers = append(headers, kgo.RecordHeader{Key: "content-type", Value: []byte(c.content)})
		}
		p := picker{events: events, facts: &Facts{}}
		if err := p.take(t.Context(), evidence.Place{}, []byte(c.value), headers); err != nil {
			t.Fatal(err)
		}
		if len(p.facts.Events) != 1 || p.facts.Events[0].Fate != Counted || string(p.facts.Events[0].fields) != data || string(p.facts.Events[0].text) != c.value {
			t.Errorf("%s: %+v", c.value, p.facts.Events)
		}
	}
}

// TestFactsBetween: a part of what was read is what reading that part would have found.
func TestFactsBetween(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	all := &Facts{Read: 6, Events: []Event{
		{At: at(9), Fate: Counted}, {At: at(9), Fate: Invalid}, {At: at(10), Fate: Counted}, {At: at(19), Fate: Late}, {At: at(20), Fate: Counted},
		{At: at(20), Fate: Invalid}, // ahead: it is a dead letter
		{Fate: Invalid},             // it has no time
	}}
	got := all.between(at(10), at(20))
	if want := slices.Concat(all.Events[2:4], all.Events[5:]); !reflect.DeepEqual(got.Events, want) || got.Read != all.Read || len(all.Events) != 7 {
		t.Errorf("%v, want %v", got.Events, want)
	}
}
