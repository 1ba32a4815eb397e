package format

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/rule"
)

// TestColumns: what rules read is found in every envelope, with the types that they declare; what is absent or of another type is NULL.
func TestColumns(t *testing.T) {
	inputs := []rule.Input{
		{Path: []string{"user_id"}, Type: rule.Type{Kind: rule.Token}},
		{Path: []string{"txn_timestamp"}, Type: rule.Type{Kind: rule.Timestamp}, Time: true},
		{Path: []string{"brand"}, Type: rule.Type{Kind: rule.String}},
		{Path: []string{"price"}, Type: rule.Type{Kind: rule.Double}},
		{Path: []string{"a", "b"}, Type: rule.Type{Kind: rule.BigInt}},
		{Path: []string{"ok"}, Type: rule.Type{Kind: rule.Boolean}},
	}
	const event = `{"user_id":7,"txn_timestamp":"2024-01-01T00:00:01Z","brand":"a\"\u65e5","price":1.5,"a":{"b":"12"},"ok":true}`
	full := []string{"7", `"2024-01-01T00:00:01.000"`, `"a\"日"`, "1.5", "12", "true"}
	ce := []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("1.0")}}
	for name, test := range map[string]struct {
		format  Name
		id      string
		value   string
		headers []kgo.RecordHeader
		want    []string
	}{
		"JSON":                      {Auto, "", event, nil, full},
		"with an id":                {Auto, "ok", event, nil, full},
		"CloudEvents, binary":       {Auto, "", event, ce, full},
		"CloudEvents, structured":   {CloudEvents, "", `{"specversion":"1.0","data":` + event + `}`, nil, full},
		"Debezium":                  {Debezium, "", `{"op":"c","ts_ms":1700000000000,"after":` + event + `}`, nil, full},
		"a time to the microsecond": {Auto, "", `{"user_id":7,"txn_timestamp":"2024-01-01 00:00:01.000001"}`, nil, []string{"7", `"2024-01-01T00:00:01.000001"`, "null", "null", "null", "null"}},
		"a time in another zone":    {Auto, "", `{"user_id":7,"txn_timestamp":"2024-01-01T02:00:01.000001+02:00"}`, nil, []string{"7", full[1], "null", "null", "null", "null"}},
		"absent":                    {Auto, "", `{"user_id":7,"txn_timestamp":"2024-01-01T00:00:01Z","brand":null}`, nil, []string{"7", full[1], "null", "null", "null", "null"}},
		"of other types":            {Auto, "", `{"user_id":"x","txn_timestamp":"2024-01-01T00:00:01Z","brand":12.50,"price":"many","a":{"b":{}},"ok":"no"}`, nil, []string{`"x"`, full[1], `"12.50"`, "null", "null", "false"}},
		"an object where text is":   {Auto, "", `{"user_id":7,"txn_timestamp":"2024-01-01T00:00:01Z","brand":{"x":[1]},"a":5}`, nil, []string{"7", full[1], `"{\"x\":[1]}"`, "null", "null", "null"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := New(Config{Format: test.format, Fields: activity.DefaultFields(), ID: test.id, Columns: inputs})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // nothing of the first is left in the second
				mark, reason, err := r.Mark(context.Background(), []byte(test.value), test.headers)
				if err != nil || reason != activity.ReasonNone {
					t.Fatal(reason, err)
				}
				var got []string
				for i, v := range r.Columns(mark, test.headers) {
					got = append(got, string(v.JSON(inputs[i].Type)))
				}
				if d := cmp.Diff(test.want, got); d != "" {
					t.Error(d)
				}
			}
		})
	}
}
