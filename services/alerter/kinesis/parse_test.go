package kinesis

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/store/dynamodb"
)

func parser(t *testing.T) Config {
	t.Helper()
	table, err := dynamodb.New(&gate{}, dynamodb.Config{Table: "alerts"})
	if err != nil {
		t.Fatal(err)
	}
	return testConfig(t, table, &topic{})
}

func TestParseOwnRecord(t *testing.T) {
	r := closed("5", 0, 23)
	it, err := parser(t).parse(records(t, r)[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, it.Record); diff != "" || !it.ArrivedAt.IsZero() {
		t.Errorf("%s, %v", diff, it.ArrivedAt)
	}
}

// TestParseRowsOfFlink: with the bounds of the window, in whatever form, a row is the alert that spate would have written.
func TestParseRowsOfFlink(t *testing.T) {
	want := closed("5", 0, 23)
	want.FirstEventAt, want.LastEventAt, want.Evidence = time.Time{}, time.Time{}, alert.Evidence{}
	for _, row := range []string{
		`{"user_id":5,"num_actions_per_watermark":23,"window_start":"2023-11-14T22:13:10","window_end":"2023-11-14T22:13:20"}`,
		`{"user_id":5,"num_actions_per_watermark":23,"window_start":"2023-11-14 22:13:10","window_end":"2023-11-14 22:13:20.000"}`,
		`{"user_id":5,"num_actions_per_watermark":23,"window_start":"2023-11-14T22:13:10Z","window_end":"2023-11-14T23:13:20.000+01:00"}`,
		`{"window_end":"2023-11-14 22:13:20","window_start":"2023-11-14 22:13:10.000","num_actions_per_watermark":"23","user_id":5,"more":[1]}`,
		`{"user_id":5,"num_actions_per_watermark":23,"window_start":"2023-11-14T22:13:10"}`,
		`{"user_id":5,"num_actions_per_watermark":23,"window_end":"2023-11-14T22:13:20"}` + "\n",
	} {
		it, err := parser(t).parse(records(t, row)[0])
		if err != nil {
			t.Errorf("%s: %v", row, err)
			continue
		}
		if diff := cmp.Diff(want, it.Record); diff != "" || it.Sort != "1700000000" && it.Sort != "1699999990" {
			t.Errorf("%s: %s, %s", row, it.Sort, diff)
		}
	}
}

// TestParseRowsWithoutWindow: their identity is their place in the stream, and they claim no window.
func TestParseRowsWithoutWindow(t *testing.T) {
	c := parser(t)
	row := records(t, `{"user_id":"x","num_actions_per_watermark":11}`)[0]
	it, err := c.parse(row)
	if err != nil {
		t.Fatal(err)
	}
	if !it.WindowStart.IsZero() || !it.WindowEnd.IsZero() || it.Severity != alert.Critical || it.State != alert.Closed || it.Threshold != 5 {
		t.Errorf("%+v", it)
	}
	if it.Sort != "1699999990.0000000000000000000000001" || len(it.ID) != 32 {
		t.Errorf("id %s, sort key %s", it.ID, it.Sort)
	}
	again, err := c.parse(row)
	if err != nil || again.ID != it.ID || again.Key != it.Key {
		t.Errorf("the same record is another alert: %+v, %v", again, err)
	}
	for _, change := range []func(*Record){
		func(r *Record) { r.SequenceNumber += "1" },
		func(r *Record) { r.ShardID += "1" },
	} {
		other := row
		change(&other)
		if o, err := c.parse(other); err != nil || o.ID == it.ID {
			t.Errorf("another record is the same alert: %+v, %v", o, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	c := parser(t)
	own := func(from, to string) string {
		b, err := closed("5", 0, 23).Encode()
		if err != nil {
			t.Fatal(err)
		}
		s := strings.Replace(string(b), from, to, 1)
		if s == string(b) {
			t.Fatalf("%q is not in %s", from, s)
		}
		return s
	}
	for name, data := range map[string]string{
		"empty": "", "no JSON": "{", "array": "[]", "null": "null", "number": "5", "text after it": `{"user_id":5,"num_actions_per_watermark":6} x`,
		"no user": `{"num_actions_per_watermark":6}`, "null user": `{"user_id":null,"num_actions_per_watermark":6}`, "empty user": `{"user_id":"","num_actions_per_watermark":6}`,
		"object user": `{"user_id":{},"num_actions_per_watermark":6}`,
		"no count":    `{"user_id":5}`, "count 0": `{"user_id":5,"num_actions_per_watermark":0}`, "negative count": `{"user_id":5,"num_actions_per_watermark":-1}`,
		"fraction": `{"user_id":5,"num_actions_per_watermark":6.5}`, "text count": `{"user_id":5,"num_actions_per_watermark":"six"}`,
		"null count": `{"user_id":5,"num_actions_per_watermark":null}`, "true count": `{"user_id":5,"num_actions_per_watermark":true}`,
		"no time":      `{"user_id":5,"num_actions_per_watermark":6,"window_start":"yesterday"}`,
		"year 10000":   `{"user_id":5,"num_actions_per_watermark":6,"window_start":"9999-12-31T23:59:55"}`,
		"year -1":      `{"user_id":5,"num_actions_per_watermark":6,"window_end":"0000-01-01T00:00:05"}`,
		"empty window": `{"user_id":5,"num_actions_per_watermark":6,"window_start":"2023-11-14T22:13:20","window_end":"2023-11-14T22:13:20"}`,
		"own state":    own(`"closed"`, `"half"`), "own count": own(`:23`, `:0`), "own severity": own(`"critical"`, `"bad"`), "own user": own(`"user_id":5`, `"user_id":[5]`),
		"own without rule": own(`"rule":"burst",`, ``), "own without id": own(closed("5", 0, 23).ID, ""),
		"own with another's id": own(closed("5", 0, 23).ID, closed("6", 0, 23).ID), "own, not aligned": own("22:13:10Z", "22:13:11Z"),
	} {
		if it, err := c.parse(records(t, data)[0]); !errors.Is(err, ErrMalformed) || !Permanent(err) {
			t.Errorf("%s: %+v, %v", name, it, err)
		}
	}
	noPlace := records(t, `{"user_id":5,"num_actions_per_watermark":6}`)[0]
	noPlace.SequenceNumber = ""
	if _, err := c.parse(noPlace); !errors.Is(err, ErrMalformed) {
		t.Errorf("no place: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"user_id":5,"num_actions_per_watermark":23,"window_start":"2023-11-14T22:13:10","window_end":"2023-11-14T22:13:20"}`))
	f.Add([]byte(`{"id":"x","state":"closed","user_id":"\ud800"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := Record{Data: data, ShardID: "s", SequenceNumber: "1", ArrivedAt: start}
		it, err := parser(t).parse(r)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		if it.ID == "" || it.Count < 1 || it.Partition == "" || it.Sort == "" || it.State.Rank() == 0 {
			t.Errorf("%+v", it)
		}
	})
}

// TestOriginalReadsOurRecords: the steps of the original's function, on what spate writes: base64, a JSON object, two members at its top
// that are whole numbers once they are text.
func TestOriginalReadsOurRecords(t *testing.T) {
	for _, r := range []alert.Record{opened("520088904", 0), closed("520088904", 0, 23)} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		event, err := json.Marshal(map[string]any{"Records": []any{map[string]any{"kinesis": map[string]any{"data": base64.StdEncoding.EncodeToString(b)}}}})
		if err != nil {
			t.Fatal(err)
		}
		var in struct {
			Records []struct{ Kinesis struct{ Data string } }
		}
		if err := json.Unmarshal(event, &in); err != nil {
			t.Fatal(err)
		}
		data, err := base64.StdEncoding.DecodeString(in.Records[0].Kinesis.Data)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(data, &members); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int{"user_id": 520088904, "num_actions_per_watermark": int(r.Count)} {
			if n, err := strconv.Atoi(string(members[name])); err != nil || n != want {
				t.Errorf("%s: %s, %v", name, members[name], err)
			}
		}
	}
}
