package activity

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sampleEvent is a row of the data set with the txn_timestamp that the original's simulator adds.
var sampleEvent = Event{
	EventTime: "2019-11-01 00:00:00 UTC", EventType: "view", ProductID: "1003461",
	CategoryID: "2053013555631882655", CategoryCode: "electronics.smartphone", Brand: "xiaomi", Price: "489.07",
	UserID: "520088904", UserSession: "4d3b30da-a5e4-49df-b1a8-ba5943f1dd33", TxnTimestamp: "2019-11-01T00:00:00.123",
}

func TestEventAppendJSON(t *testing.T) {
	for _, test := range []struct {
		name  string
		event Event
		want  string
	}{
		{"full", sampleEvent, `{"event_time":"2019-11-01 00:00:00 UTC","event_type":"view","product_id":1003461,` +
			`"category_id":2053013555631882655,"category_code":"electronics.smartphone","brand":"xiaomi","price":489.07,` +
			`"user_id":520088904,"user_session":"4d3b30da-a5e4-49df-b1a8-ba5943f1dd33","txn_timestamp":"2019-11-01T00:00:00.123"}`},
		{"absent", Event{}, `{"event_time":"","event_type":"","product_id":null,"category_id":null,"category_code":"",` +
			`"brand":"","price":null,"user_id":"","user_session":""}`},
		{"no numbers", Event{ProductID: "01", CategoryID: "+1", Price: "1.", UserID: "a\"<\n\xff"},
			`{"event_time":"","event_type":"","product_id":"01","category_id":"+1","category_code":"",` +
				`"brand":"","price":"1.","user_id":"a\"<\n\ufffd","user_session":""}`},
		{"sent where it may come twice", Event{TxnTimestamp: "2019-11-01T00:00:00.123", EventID: "ABCDEFGHIJ-7\""},
			`{"event_time":"","event_type":"","product_id":null,"category_id":null,"category_code":"","brand":"","price":null,` +
				`"user_id":"","user_session":"","txn_timestamp":"2019-11-01T00:00:00.123","event_id":"ABCDEFGHIJ-7\""}`},
		{"numbers", Event{ProductID: "-0", CategoryID: "1e+2", Price: "0.50", UserID: "1.5E3"},
			`{"event_time":"","event_type":"","product_id":-0,"category_id":1e+2,"category_code":"",` +
				`"brand":"","price":0.50,"user_id":1.5E3,"user_session":""}`},
	} {
		got := test.event.AppendJSON([]byte("x"))
		if diff := cmp.Diff("x"+test.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if !json.Valid(got[1:]) {
			t.Errorf("%s: not JSON: %s", test.name, got)
		}
	}
}

func TestEventAppendCSV(t *testing.T) {
	want := "2019-11-01 00:00:00 UTC,view,1003461,2053013555631882655,electronics.smartphone,xiaomi,489.07," +
		"520088904,4d3b30da-a5e4-49df-b1a8-ba5943f1dd33,2019-11-01T00:00:00.123\n"
	if diff := cmp.Diff(want, string(sampleEvent.AppendCSV(nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	column := func() string {
		var text strings.Builder
		for range rnd.IntN(5) {
			text.WriteString([]string{`"`, ",", "\n", "a", " ", "é", "\xff", "'"}[rnd.IntN(8)])
		}
		return text.String()
	}
	for range 2000 {
		e := Event{column(), column(), column(), column(), column(), column(), column(), column(), column(), column(), "no column"}
		line := e.AppendCSV(nil)
		got, err := csv.NewReader(bytes.NewReader(line)).Read()
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want := []string{e.EventTime, e.EventType, e.ProductID, e.CategoryID, e.CategoryCode, e.Brand, e.Price,
			e.UserID, e.UserSession, e.TxnTimestamp}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", line, diff)
		}
	}
}

func TestEventScans(t *testing.T) {
	value := sampleEvent.AppendJSON(nil)
	mark, reason := defaultScanner(t).Scan(value)
	if string(mark.User) != "520088904" || mark.TimeMS != 1572566400123 || reason != ReasonNone {
		t.Errorf("got %s %d %q", mark.User, mark.TimeMS, reason)
	}
}

func TestCSVHeaderNamesJSONMembers(t *testing.T) {
	var members map[string]any
	if err := json.Unmarshal(sampleEvent.AppendJSON(nil), &members); err != nil {
		t.Fatal(err)
	}
	columns := strings.Split(CSVHeader, ",")
	for _, column := range columns {
		if _, ok := members[column]; !ok {
			t.Errorf("no member %s", column)
		}
	}
	if len(members) != len(columns) {
		t.Errorf("%d members, %d columns", len(members), len(columns))
	}
}

func TestAppendTime(t *testing.T) {
	const layout = "2006-01-02T15:04:05.000Z"
	check := func(ms int64) {
		t.Helper()
		want := "x" + time.UnixMilli(ms).UTC().Format(layout)
		if got := string(AppendTime([]byte("x"), ms)); got != want {
			t.Fatalf("%d: got %s, want %s", ms, got, want)
		}
	}
	for _, ms := range []int64{0, -1, 1, 999, 1000, 1572566400123, maxTimeMS, maxTimeMS + 1, -62167219200000, -62167219200001, 1 << 60} {
		check(ms)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		ms := randomMS(rnd)
		check(ms)
		if got, ok := ParseTime(AppendTime(nil, ms)); !ok || got != ms {
			t.Fatalf("%d comes back as %d, %v", ms, got, ok)
		}
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	odd := sampleEvent
	odd.Brand, odd.UserID, odd.CategoryCode = "a\"\n\u2028é\xff", "u,1", ""
	room := make([]byte, 0, 1024)
	for name, f := range map[string]func(){
		"AppendJSON": func() { sampleEvent.AppendJSON(room); odd.AppendJSON(room) },
		"AppendCSV":  func() { sampleEvent.AppendCSV(room); odd.AppendCSV(room) },
		"AppendTime": func() { AppendTime(room, 1572566400123) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	b.ReportAllocs()
	room := make([]byte, 0, 1024)
	for b.Loop() {
		sampleEvent.AppendJSON(room)
	}
}

func BenchmarkAppendCSV(b *testing.B) {
	b.ReportAllocs()
	room := make([]byte, 0, 1024)
	for b.Loop() {
		sampleEvent.AppendCSV(room)
	}
}

func BenchmarkAppendTime(b *testing.B) {
	b.ReportAllocs()
	room := make([]byte, 0, 64)
	for b.Loop() {
		AppendTime(room, 1572566400123)
	}
}
