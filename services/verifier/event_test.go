package verifier

import (
	"strings"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	base := time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	for in, want := range map[string]int64{
		"2019-11-01 00:00:00 UTC":               base,
		"2019-11-01 00:00:00":                   base,
		"2019-11-01T00:00:00":                   base,
		"2019-11-01t00:00:00z":                  base,
		"2019-11-01T00:00:00Z":                  base,
		"2019-11-01T00:00:00.5Z":                base + 500,
		"2019-11-01T00:00":                      base,
		"2019-11-01T00:00Z":                     base,
		"2019-11-01 00:00:00,5":                 base + 500,
		"2019-11-01T00:00:00.000+0000":          base,
		"2019-11-01 00:00:00+01":                base - 60*60_000,
		"2019-11-01T01:00+01:00[Europe/Berlin]": base,
		"2019-11-01T00:00:00Z[UTC]":             base,
		"2019-11-01 00:00:00 +0000 UTC":         base,
		"2019-11-01 01:00:00.5 +0100 CET":       base + 500,
		"2019-11-01 00:00:00.1239 UTC":          base + 123,
		"2019-11-01T00:00:00.999999999":         base + 999,
		"2019-11-01T00:00:00.007+05:30":         base + 7 - 330*60_000,
		"2019-11-01T00:00:00-23:59":             base + (23*60+59)*60_000,
		"1970-01-01T00:00:00Z":                  0,
		"1969-12-31T23:30:00-01:00":             30 * 60_000,
		"2020-02-29 00:00:00":                   time.Date(2020, 2, 29, 0, 0, 0, 0, time.UTC).UnixMilli(),
		"9999-12-31T23:59:59.999Z":              time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli(),
	} {
		if got, ok := parseTime(in); !ok || got != want {
			t.Errorf("parseTime(%q) = %d, %v; want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{
		"", "2019-11-01", "2019-11-01 0:00:00", "2019-02-29 00:00:00", "2019-11-01T24:00:00Z", "2019-11-01T00:00:60Z",
		"2019-11-01_00:00:00", "2019-11-01T00:00:00.Z", "2019-11-01T00:00:00.1234567890Z", "2019-11-01T00:00:00+24:00",
		"2019-11-01T00:00:00+00:60", "2019-11-01T00:00:00 utc", "2019-11-01T00:00:00ZZ", " 2019-11-01T00:00:00Z",
		"2019/11/01 00:00:00", "2019-11-01 00.00.00", "1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00Z",
	} {
		if got, ok := parseTime(in); ok {
			t.Errorf("parseTime(%q) = %d, want a refusal", in, got)
		}
	}
}

func TestUserOfText(t *testing.T) {
	for in, want := range map[string]string{
		"520088904": "520088904", "0": "0", "-1.5e+3": "-1.5e+3", "9007199254740993": "9007199254740993",
		"007": `"007"`, "1.": `"1."`, " 1": `" 1"`, "1 ": `"1 "`, "+1": `"+1"`, "0x1": `"0x1"`, "Inf": `"Inf"`, "1_0": `"1_0"`, "-": `"-"`, "1\n": `"1\n"`,
		"a\"b": `"a\"b"`, "<&>": `"<&>"`, "ü": `"ü"`, "a\xff\xfeb": "\"a\ufffd\ufffdb\"", "null": `"null"`, "{}": `"{}"`,
		strings.Repeat("1", 256): strings.Repeat("1", 256), strings.Repeat("a", 254): `"` + strings.Repeat("a", 254) + `"`,
	} {
		if got, ok := userOfText(in); !ok || got != want {
			t.Errorf("userOfText(%q) = %s, %v; want %s", in, got, ok, want)
		}
	}
	for _, in := range []string{"", strings.Repeat("1", 257), strings.Repeat("a", 255)} {
		if got, ok := userOfText(in); ok {
			t.Errorf("userOfText(%q) = %s, want a refusal", in, got)
		}
	}
}

func TestAddJSON(t *testing.T) {
	const ms = 1572566400000
	valid := map[string]string{ // value -> user, at ms
		`{"user_id":5,"event_time":"2019-11-01 00:00:00 UTC"}`:                                             "5",
		`{"user_id":"5","event_time":"2019-11-01 00:00:00 UTC"}`:                                           `"5"`,
		`{"user_id":9007199254740993,"event_time":"2019-11-01 00:00:00 UTC"}`:                              "9007199254740993",
		`{"user_id":5.0,"event_time":"2018-01-01 00:00:00 UTC","txn_timestamp":"2019-11-01T00:00:00.000"}`: "5.0",
		`{"user_id":"\u0061<","event_time":"2019-11-01 00:00:00 UTC","txn_timestamp":null}`:                `"a<"`,
		`{"user_id":"\ud83d\ude00","event_time":1572566400000}`:                                            `"😀"`,
		`{"user_id":"\\ud83d","event_time":1572566400000}`:                                                 `"\\ud83d"`,
		`{"user_id":1,"user_id":2,"event_time":1572566400000}`:                                             "2",
		` {"x":{"user_id":7},"user_id":1,"event_time":1572566400000} `:                                     "1",
		`{"user_id":1,"txn_timestamp":1572566400000,"event_time":"nonsense"}`:                              "1",
		`{"user_id":1,"event_time":"2019-11-01\u002000:00:00"}`:                                            "1",
	}
	for value, user := range valid {
		r := NewReference(Rule{Window: time.Millisecond})
		r.AddJSON(0, []byte(value), now)
		rows := r.Result()
		if len(rows) != 1 || rows[0] != (Row{user, ms, 1}) {
			t.Errorf("%s: %v, invalid %d; want user %s", value, rows, r.Invalid, user)
		}
	}
	for _, value := range []string{
		``, ` `, `{`, `null`, `5`, `"x"`, `[]`, `{}`, `{"user_id":5}`, `{"event_time":1572566400000}`,
		`{"user_id":null,"event_time":1572566400000}`, `{"user_id":"","event_time":1572566400000}`, `{"user_id":true,"event_time":1572566400000}`,
		`{"user_id":{},"event_time":1572566400000}`, `{"user_id":[1],"event_time":1572566400000}`, "{\"user_id\":\"\xff\",\"event_time\":1572566400000}",
		`{"user_id":"\ud83d","event_time":1572566400000}`, `{"user_id":"\ud83dx","event_time":1572566400000}`, `{"user_id":"\ude00\ud83d","event_time":1572566400000}`,
		`{"user_id":5,"event_time":null}`, `{"user_id":5,"event_time":"soon"}`, `{"user_id":5,"event_time":-1}`, `{"user_id":5,"event_time":1.5}`,
		`{"user_id":5,"event_time":99999999999999999999}`, `{"user_id":5,"event_time":253402300800000}`, `{"user_id":5,"event_time":true}`,
		`{"user_id":5,"txn_timestamp":"","event_time":1572566400000}`, `{"user_id":5,"event_time":1572566400000}x`, `{"User_ID":5,"event_time":1572566400000}`,
		`{"user_id":"` + strings.Repeat("a", 255) + `","event_time":1572566400000}`,
	} {
		r := NewReference(Rule{Window: time.Millisecond})
		if r.AddJSON(0, []byte(value), now); r.Invalid != 1 || r.In != 1 {
			t.Errorf("%s: accepted", value)
		}
	}
}

// TestAddIdleJSON: an event that is late for a promise is not counted, and moves the watermark as any other does.
func TestAddIdleJSON(t *testing.T) {
	r := NewReference(Rule{Window: 10 * time.Millisecond, Lateness: 5 * time.Millisecond})
	r.AddIdleJSON(0, []byte(`{"user_id":1,"event_time":1572566400024}`), now)
	if !r.AddJSON(0, []byte(`{"user_id":1,"event_time":1572566400009}`), now) {
		t.Error("24 - 5 has passed the window of 9, and 9 is counted")
	}
	if r.AddJSON(1, []byte(`{"user_id":1,"event_time":1572566400009}`), now) || r.AddJSON(0, []byte(`{"user_id":1,"event_time":1572566400020}`), now) {
		t.Error("late, without a watermark that has passed")
	}
	r.AddIdleJSON(0, []byte(`{"user_id":1}`), now)
	if r.In != 5 || r.Counted != 2 || r.Late != 2 || r.Invalid != 1 || len(r.Result()) != 2 {
		t.Errorf("%+v", r)
	}
}

// now is when the log took the events of these tests, all of which are older.
var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// TestClockAhead: an event whose clock is ahead is counted at its own time, and makes no other event late.
func TestClockAhead(t *testing.T) {
	r := NewReference(Rule{Window: 10 * time.Millisecond, Lateness: 5 * time.Millisecond})
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	r.AddJSON(0, []byte(`{"user_id":1,"event_time":1572566400100}`), at(1572566400100))
	if r.AddJSON(0, []byte(`{"user_id":1,"event_time":1572566401000}`), at(1572566400101)) || r.AddJSON(0, []byte(`{"user_id":1,"event_time":1572566400090}`), at(1572566400102)) {
		t.Error("late")
	}
	r.AddIdleJSON(0, []byte(`{"user_id":1,"event_time":1572566401000}`), at(1572566400103))
	if r.AddJSON(0, []byte(`{"user_id":1,"event_time":1572566400091}`), at(1572566400103)) || !r.AddJSON(0, []byte(`{"user_id":1,"event_time":1572566400089}`), at(1572566400104)) {
		t.Error("not by the time of the log")
	}
}
