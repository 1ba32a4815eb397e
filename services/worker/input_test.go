package worker

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/aws/stream"
)

// asides returns what was set aside, each once, by reason.
func (r *rig) asides() map[string][]aside {
	r.t.Helper()
	out, there := map[string][]aside{}, map[string]bool{}
	r.read(r.aside, func(_ stream.Shard, rec types.Record) {
		var a aside
		if err := json.Unmarshal(rec.Data, &a); err != nil {
			r.t.Fatal(err)
		}
		if id := fmt.Sprint(a.ShardID, a.SequenceNumber, a.Event); !there[id] {
			there[id], out[a.Reason] = true, append(out[a.Reason], a)
		}
	})
	return out
}

// TestWhatIsNoEvent: one of every kind, between events. All are accounted and set aside with reason and place, and none stops anything.
func TestWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.config()
	cfg.AsideStream, cfg.MaxAhead = r.aside, time.Hour
	broken := seal([]byte{3<<3 | 2, 200, 1, 'x'})
	bad := map[string][]byte{
		string(activity.ReasonEmpty):     []byte(" \n"),
		string(activity.ReasonNotJSON):   []byte(`{"user_id":1,`),
		string(activity.ReasonNotObject): []byte(`[1]`),
		string(activity.ReasonNoUser):    []byte(`{"txn_timestamp":"2023-11-14T22:13:20Z"}`),
		string(activity.ReasonBadUser):   []byte(`{"user_id":{},"txn_timestamp":"2023-11-14T22:13:20Z"}`),
		string(activity.ReasonNoTime):    []byte(`{"user_id":1}`),
		string(activity.ReasonBadTime):   []byte(`{"user_id":1,"txn_timestamp":"yesterday"}`),
		string(activity.ReasonTimeRange): []byte(`{"user_id":1,"txn_timestamp":-1}`),
		string(activity.ReasonTimeAhead): []byte(`{"user_id":1,"txn_timestamp":"2999-01-01T00:00:00Z"}`),
		string(reasonAggregate):          broken,
		string(reasonGzip):               []byte("\x1f\x8b\x08\x00cut"),
	}
	for i, reason := range sortedKeys(bad) {
		r.put(row{at: 1000 + int64(i), user: 1}, row{raw: bad[reason]})
	}
	r.put(row{at: 20_000, user: 2}, row{at: 1500, user: 1}) // the last is late
	r.drain(cfg)

	compare(t, r.closed(), counted{"1@0": int64(len(bad))})
	st, _ := r.state()
	want := tally{In: 2*int64(len(bad)) + 2, Counted: int64(len(bad)) + 1, Invalid: int64(len(bad)), Late: 1}
	if st.Tally != want {
		t.Errorf("accounted %+v, want %+v", st.Tally, want)
	}
	got := r.asides()
	if late := got["watermark"]; len(late) != 1 || late[0].WindowStartMS == nil || *late[0].WindowStartMS != base || late[0].LateByMS == nil || *late[0].LateByMS != 14_001 {
		t.Errorf("late: %+v", late)
	}
	id := *r.open()[0].ShardId
	var numbers []string
	r.read(r.events, func(_ stream.Shard, rec types.Record) { numbers = append(numbers, *rec.SequenceNumber) })
	for i, reason := range sortedKeys(bad) {
		if len(got[reason]) != 1 {
			t.Errorf("%s: set aside %d times", reason, len(got[reason]))
			continue
		}
		a := got[reason][0]
		if data := append([]byte(a.Event), a.Data...); !bytes.Equal(data, bad[reason]) {
			t.Errorf("%s: set aside %q, want %q", reason, data, bad[reason])
		}
		if a.Stream != r.events || a.ShardID != id || a.SequenceNumber != numbers[2*i+1] {
			t.Errorf("%s: its place is %s %s %s, want %s %s %s", reason, a.Stream, a.ShardID, a.SequenceNumber, r.events, id, numbers[2*i+1])
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// TestLargeRecordIsSetAside: what is not an event may be as long as Kinesis takes it, and longer yet as JSON. It stops nothing.
func TestLargeRecordIsSetAside(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.config()
	cfg.AsideStream = r.aside
	large := map[string][]byte{
		"quotes":  bytes.Repeat([]byte(`"`), 700_000),
		"control": bytes.Repeat([]byte{1}, 400_000), // six bytes each in JSON
		"markup":  []byte(strings.Repeat("<", 500_000)),
		"binary":  bytes.Repeat([]byte{0xff}, 1_000_000),
		"text":    []byte(strings.Repeat("é", 450_000)),
	}
	for _, name := range sortedKeys(large) {
		r.put(row{raw: large[name]})
	}
	r.put(burst(3, 1, 1000, 0)...)
	r.drain(cfg)
	compare(t, r.closed(), counted{"1@0": 3})
	kept := r.asides()[string(activity.ReasonNotJSON)]
	if len(kept) != len(large) {
		t.Fatalf("set aside %d records, want %d", len(kept), len(large))
	}
	for i, name := range sortedKeys(large) {
		data := append([]byte(kept[i].Event), kept[i].Data...)
		if !bytes.HasPrefix(large[name], data) || len(data) < 100_000 || (len(data) < len(large[name])) != (kept[i].Truncated == len(large[name])) {
			t.Errorf("%s: kept %d bytes of %d, truncated %d", name, len(data), len(large[name]), kept[i].Truncated)
		}
	}
}

// TestAggregates: what the Kinesis Producer Library has packed is counted event by event.
func TestAggregates(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.config()
	one := func(user int, at int64) []byte { return row{at: at, user: user}.data() }
	r.put(
		row{raw: aggregate(one(1, 1000), one(2, 1100), []byte("none"), one(1, 1200))},
		row{at: 1300, user: 1},
		row{raw: aggregate()},
		row{raw: aggregate(one(2, 1400), one(2, 1500))},
	)
	r.drain(cfg)
	r.check(cfg)
	compare(t, r.closed(), counted{"1@0": 3, "2@0": 3})
	numbers := []string{}
	r.read(r.events, func(_ stream.Shard, rec types.Record) { numbers = append(numbers, *rec.SequenceNumber) })
	for _, a := range r.told() {
		last := map[string]int{"1": 1, "2": 3}[string(a.UserID)]
		want := alert.SequenceRange{First: numbers[0], Last: numbers[last]}
		if got := a.Evidence.Shards[*r.open()[0].ShardId]; a.State == alert.Closed && got != want {
			t.Errorf("user %s: evidence %+v, want %+v", a.UserID, got, want)
		}
	}
}

// TestDedupe: an event that was written twice counts once with the setting, and twice without.
func TestDedupe(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	var rows []row
	for i := range 8 {
		rows = append(rows, row{at: 1000 + int64(i)*100, user: i % 2, id: fmt.Sprint(i), hash: float64(i%2) * 0.9})
	}
	r.put(rows...)
	r.put(rows...)
	r.put(row{at: 1000, user: 0}, row{at: 1000, user: 0}) // without an identity
	cfg := r.config()
	cfg.Events.ID = "event_id"
	r.drain(cfg)
	compare(t, r.closed(), counted{"0@0": 6, "1@0": 4})
	if st, _ := r.state(); st.Tally != (tally{In: 18, Counted: 10, Repeated: 8}) {
		t.Errorf("accounted %+v", st.Tally)
	}
	r.check(cfg)

	r.afresh()
	cfg.Events.ID = ""
	r.drain(cfg)
	compare(t, r.closed(), counted{"0@0": 10, "1@0": 8})
	if st, _ := r.state(); st.Tally != (tally{In: 18, Counted: 18}) {
		t.Errorf("accounted %+v", st.Tally)
	}
}

// TestWhatProducersPutTogether: several events in a record, as Firehose, gzip and CloudWatch Logs have them, count as so many; what is broken among them
// is invalid by itself.
func TestWhatProducersPutTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	event := func(user string, i int) string {
		return fmt.Sprintf(`{"user_id":%q,"txn_timestamp":"2023-11-14T22:13:20.%03dZ"}`, user, i)
	}
	many := func(user, between string) (text string) {
		for i := range 8 {
			text += event(user, i) + between
		}
		return text
	}
	var messages []map[string]any
	for i := range 8 {
		messages = append(messages, map[string]any{"id": fmt.Sprint(i), "timestamp": 1, "message": event("logs", i)})
	}
	subscription, err := json.Marshal(map[string]any{"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logEvents": messages})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range [][]byte{
		[]byte(many("lines", "\n")), []byte(many("nothing between", "")), zipped(t, []byte(many("gzip", "\n"))), zipped(t, subscription),
		zipped(t, []byte(`{"messageType":"CONTROL_MESSAGE","logEvents":[{"message":"CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."}]}`)),
		[]byte(many("broken end", " ") + "{"), []byte("x" + many("broken begin", "")), bytes.Repeat([]byte("1 "), activity.MaxTexts+1),
	} {
		r.put(row{raw: raw})
	}
	cfg := r.config()
	cfg.AsideStream = r.aside
	r.drain(cfg)
	want := counted{}
	for _, user := range []string{"lines", "nothing between", "gzip", "logs", "broken end"} {
		want[fmt.Sprintf("%q@0", user)] = 8
	}
	compare(t, r.closed(), want)
	if st, _ := r.state(); st.Tally != (tally{In: 43, Counted: 40, Invalid: 3}) {
		t.Errorf("accounted %+v", st.Tally)
	}
	if n := len(r.asides()[string(activity.ReasonNotJSON)]); n != 3 {
		t.Errorf("%d set aside", n)
	}
}

func zipped(t *testing.T, data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
