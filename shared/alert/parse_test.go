package alert

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/activity"
	"spate/shared/rule"
)

// fromStream is an alert as the one of mode aws writes it.
func fromStream() Record {
	r := closed()
	r.Evidence = Evidence{Stream: "activity", Shards: map[string]SequenceRange{"shardId-000000000000": {"99", "49590338271490256608559692538361571095921575989136588898"}}}
	return r
}

// of returns the closed record of another user and window.
func of(user string, startMS, sizeMS int64) Record {
	r := closed()
	r.ID, r.UserID = ID(Burst, user, startMS, sizeMS), json.RawMessage(user)
	r.WindowStart, r.WindowEnd = time.UnixMilli(startMS).UTC(), time.UnixMilli(startMS+sizeMS).UTC()
	r.FirstEventAt, r.LastEventAt = r.WindowStart, r.WindowEnd.Add(-time.Millisecond)
	return r
}

func encode(t *testing.T, r Record) []byte {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseAccepts(t *testing.T) {
	opened := closed()
	opened.State, opened.Severity, opened.Count = Opened, Warning, 6
	for name, r := range map[string]Record{
		"closed": closed(), "opened": opened, "stream": fromStream(),
		"text user": of(`"<a&b> \"\\ \u2028 ä"`, 0, 10_000), "fraction": of("-1.50e+3", 0, 10_000), "long user": of(`"`+strings.Repeat("a", maxUser-2)+`"`, 0, 10_000),
		"before 1970": of("5", -20_000, 10_000), "across 1970": of("5", -7, 7), "one millisecond": of("5", 1_572_566_400_001, 1), "a week": of("5", 2600*maxWindow, maxWindow),
		"end of year 9999": of("5", 253_402_300_799_998, 1),
	} {
		got, err := Parse(encode(t, r))
		if diff := cmp.Diff(r, got); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", name, err, diff)
		}
	}
	// What is in another form but the same, or that a later version adds.
	want := closed()
	for _, change := range [][2]string{
		{`"rule":`, ` "more": {"id": "x"}, "rule" : `},
		{`"window_start":"2019-11-01T00:00:00Z"`, `"window_start":"2019-11-01T05:30:00.000+05:30"`},
	} {
		got, err := Parse([]byte(replace(t, string(encode(t, want)), change[0], change[1])))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", change[1], err, diff)
		}
	}
}

func replace(t *testing.T, in, from, to string) string {
	t.Helper()
	out := strings.Replace(in, from, to, 1)
	if out == in {
		t.Fatalf("%q is not in %s", from, in)
	}
	return out
}

// TestParseRefuses: each case is a record that is right but for one member, which the error names.
func TestParseRefuses(t *testing.T) {
	const at = 1_572_566_400_000
	// signed is the closed record after a change, under the id that it has then: so nothing but the change is wrong.
	signed := func(change func(*Record)) string {
		r := closed()
		change(&r)
		r.ID = ID(r.Rule, string(r.UserID), r.WindowStart.UnixMilli(), r.WindowEnd.UnixMilli()-r.WindowStart.UnixMilli())
		return string(encode(t, r))
	}
	text := func(from, to string) string { return replace(t, string(encode(t, closed())), from, to) }
	user := func(token string) string {
		s := replace(t, string(encode(t, closed())), `"user_id":520088904`, `"user_id":`+token)
		return replace(t, s, closed().ID, ID(Burst, token, at, 10_000))
	}
	evidence := func(e Evidence) string { return signed(func(r *Record) { r.Evidence = e }) }
	partitions := func(p string, first, last int64) string {
		return evidence(Evidence{Topic: "activity", Partitions: map[string]OffsetRange{p: {first, last}}})
	}
	shards := func(shard, first, last string) string {
		return evidence(Evidence{Stream: "activity", Shards: map[string]SequenceRange{shard: {first, last}}})
	}
	ms := func(ms int64) time.Time { return time.UnixMilli(at + ms).UTC() }
	for _, c := range []struct{ name, in, want string }{
		{"no JSON", `{`, "decode alert: unexpected end"},
		{"empty", ``, "decode alert: unexpected end"},
		{"no object", `[]`, "decode alert: json: cannot unmarshal array"},
		{"text after it", text(`}}}}`, `}}}} x`), "decode alert: invalid character"},
		{"too large", text(`{`, `{"more":"`+strings.Repeat("x", maxRecord)+`",`), "decode alert: record is"},
		{"time that is none", text(`"2019-11-01T00:00:00Z"`, `"`+strings.Repeat("x", 5000)+`"`), "decode alert: parsing time"},

		{"no id", text(closed().ID, ``), "id:"},
		{"another id", text(closed().ID, "po ison"), "id:"},
		{"upper case", text(closed().ID, strings.ToUpper(closed().ID)), "id:"},
		{"another user's id", text(closed().ID, ID(Burst, "5", at, 10_000)), "id:"},
		{"another window's id", text(closed().ID, ID(Burst, "520088904", at+10_000, 10_000)), "id:"},
		{"another size's id", text(closed().ID, ID(Burst, "520088904", at, 5_000)), "id:"},
		{"later user", text(`}}}}`, `}}},"user_id":"innocent"}`), "id:"},
		{"later user in capitals", text(`}}}}`, `}}},"USER_ID":"innocent"}`), "id:"},

		{"no rule", signed(func(r *Record) { r.Rule = "" }), "rule:"},
		{"another rule", signed(func(r *Record) { r.Rule = "scan" }), "rule:"},
		{"no state", signed(func(r *Record) { r.State = "" }), "state:"},
		{"columns without a key", signed(func(r *Record) { r.AtLeast = true }), "key:"},
		{"another mode", signed(func(r *Record) { r.Mode = "live" }), "mode:"},
		{"another state", signed(func(r *Record) { r.State = "half" }), "state:"},
		{"no severity", signed(func(r *Record) { r.Severity = "" }), "severity:"},
		{"another severity", signed(func(r *Record) { r.Severity = "bad" }), "severity:"},

		{"no user", text(`"user_id":520088904,`, ``), "user_id:"},
		{"null user", user(`null`), "user_id:"},
		{"empty user", user(`""`), "user_id:"},
		{"object", user(`{"a":1}`), "user_id:"},
		{"array", user(`[5]`), "user_id:"},
		{"truth", user(`true`), "user_id:"},
		{"escapes that need not be", user(`"\u0061"`), "user_id:"},
		{"HTML escapes", user(`"\u003ca\u003e"`), "user_id:"},
		{"lone surrogate", user(`"\ud800"`), "user_id:"},
		{"no UTF-8", user("\"\xff\""), "user_id:"},
		{"long user", user(`"` + strings.Repeat("a", maxUser-1) + `"`), "user_id:"},
		{"long number", user(strings.Repeat("1", maxUser+1)), "user_id:"},

		{"another user as text", text(`"user":"520088904"`, `"user":"520088905"`), "user:"},

		{"no threshold", signed(func(r *Record) { r.Threshold = 0 }), "threshold:"},
		{"negative threshold", signed(func(r *Record) { r.Threshold = -1 }), "threshold:"},
		{"no count", signed(func(r *Record) { r.Count = 0 }), "num_actions_per_watermark:"},
		{"count at the threshold", signed(func(r *Record) { r.Count = r.Threshold }), "num_actions_per_watermark:"},
		{"count below 0", signed(func(r *Record) { r.Count = math.MinInt64 }), "num_actions_per_watermark:"},

		{"no start", text(`"window_start":"2019-11-01T00:00:00Z",`, ``), "window_end:"},
		{"no end", text(`"window_end":"2019-11-01T00:00:10Z",`, ``), "window_end:"},
		{"empty window", text(`"window_end":"2019-11-01T00:00:10Z"`, `"window_end":"2019-11-01T00:00:00Z"`), "window_end:"},
		{"more than a week", signed(func(r *Record) { r.WindowStart = time.UnixMilli(0); r.WindowEnd = time.UnixMilli(maxWindow + 1) }), "window_end:"},
		{"all of time", signed(func(r *Record) {
			r.WindowStart = time.UnixMilli(-62_167_219_200_000)
			r.WindowEnd = time.UnixMilli(253_402_300_799_999)
		}), "window_end:"},
		{"not aligned", signed(func(r *Record) { r.WindowStart, r.WindowEnd = ms(1), ms(10_001) }), "window_start:"},
		{"not aligned before 1970", signed(func(r *Record) { r.WindowStart, r.WindowEnd = time.UnixMilli(-15_000), time.UnixMilli(-5_000) }), "window_start:"},
		{"microseconds", signed(func(r *Record) { r.WindowStart = ms(0).Add(time.Microsecond) }), "window_start:"},
		{"year -1", text(`"2019-11-01T00:00:00Z"`, `"0000-01-01T00:00:00+01:00"`), "window_start:"},
		{"year 10000", text(`"2019-11-01T00:00:10Z"`, `"9999-12-31T23:59:59-01:00"`), "window_end:"},

		{"no first event", text(`"first_event_at":"2019-11-01T00:00:00.012Z",`, ``), "first_event_at:"},
		{"first before the window", signed(func(r *Record) { r.FirstEventAt = ms(-1) }), "first_event_at:"},
		{"first after the window", signed(func(r *Record) { r.FirstEventAt, r.LastEventAt = ms(10_000), ms(10_000) }), "first_event_at:"},
		{"first with nanoseconds", signed(func(r *Record) { r.FirstEventAt = ms(1).Add(1) }), "first_event_at:"},
		{"no last event", text(`"last_event_at":"2019-11-01T00:00:09.871Z",`, ``), "last_event_at:"},
		{"last before first", signed(func(r *Record) { r.LastEventAt = r.FirstEventAt.Add(-time.Millisecond) }), "last_event_at:"},
		{"last after the window", signed(func(r *Record) { r.LastEventAt = ms(10_000) }), "last_event_at:"},

		{"no evidence", evidence(Evidence{}), "evidence: must name either"},
		{"topic and stream", evidence(Evidence{Topic: "a", Stream: "b", Partitions: closed().Evidence.Partitions}), "evidence: must name either"},
		{"topic and then a stream", text(`}}}}`, `}}},"evidence":{"stream":"b"}}`), "evidence: must name either"},
		{"topic without partitions", evidence(Evidence{Topic: "a"}), "evidence: a topic must have"},
		{"topic with shards", evidence(Evidence{Topic: "a", Partitions: closed().Evidence.Partitions, Shards: fromStream().Evidence.Shards}), "evidence: a topic must have"},
		{"stream without shards", evidence(Evidence{Stream: "a"}), "evidence: a topic must have"},
		{"stream with partitions", evidence(Evidence{Stream: "a", Partitions: closed().Evidence.Partitions, Shards: fromStream().Evidence.Shards}), "evidence: a topic must have"},
		{"topic that is not a name", evidence(Evidence{Topic: "a\x1b[2J", Partitions: closed().Evidence.Partitions}), "evidence: \"a\\x1b"},
		{"long topic", evidence(Evidence{Topic: strings.Repeat("a", maxName+1), Partitions: closed().Evidence.Partitions}), "evidence: \"aaa"},
		{"partition that is not a number", partitions("x", 1, 2), "evidence: partitions: \"x\""},
		{"partition with a sign", partitions("+1", 1, 2), "evidence: partitions: \"+1\""},
		{"partition with a zero before it", partitions("01", 1, 2), "evidence: partitions: \"01\""},
		{"negative partition", partitions("-1", 1, 2), "evidence: partitions: \"-1\""},
		{"partition beyond 32 bits", partitions("2147483648", 1, 2), "evidence: partitions: \"2147483648\""},
		{"negative offset", partitions("0", -1, 2), "evidence: partitions: 0:"},
		{"offsets out of order", partitions("0", 3, 2), "evidence: partitions: 0:"},
		{"shard that is not a name", shards("a b", "1", "2"), "evidence: shards: \"a b\""},
		{"no sequence number", shards("a", "", "2"), "evidence: shards: a:"},
		{"sequence number that is none", shards("a", "1", "x"), "evidence: shards: a:"},
		{"long sequence number", shards("a", "1", strings.Repeat("2", maxSequence+1)), "evidence: shards: a:"},
		{"sequence numbers out of order", shards("a", "10", "9"), "evidence: shards: a:"},
	} {
		_, err := Parse([]byte(c.in))
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		got := err.Error()
		if !strings.HasPrefix(c.want, "decode alert: ") { // after the id, which is quoted
			if _, got, _ = strings.Cut(got, `": `); !strings.HasPrefix(err.Error(), "check alert ") {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q is not about %s", c.name, err, c.want)
		}
		if len(got) > 600 {
			t.Errorf("%s: the error has %d bytes", c.name, len(got))
		}
	}
}

// TestBoundsAreThoseOfOthers: of the packages that this one does not import.
func TestBoundsAreThoseOfOthers(t *testing.T) {
	if maxWindow < rule.MaxWindowMS { // longer ones are of the time when they were allowed
		t.Errorf("a window has up to %d ms here and %d in package rule", int64(maxWindow), int64(rule.MaxWindowMS))
	}
	for _, name := range append(slices.Clone(reserved), "Rule", "WINDOW_END", "events", "user_id", "num_actions_per_watermark", "rules") {
		if Reserved(name) != rule.ReservedColumn(name) {
			t.Errorf("column %s: reserved %v here, %v in package rule", name, Reserved(name), rule.ReservedColumn(name))
		}
	}
	for n, want := range map[int]bool{maxUser: true, maxUser + 1: false} {
		token := strings.Repeat("1", n)
		if scanned(t, token) == token != want || canonical(json.RawMessage(token)) != want {
			t.Errorf("a user of %d bytes: %q, %v", n, scanned(t, token), canonical(json.RawMessage(token)))
		}
	}
}

// scanned is the user that events with a token count for; empty if they are none.
func scanned(t *testing.T, token string) string {
	t.Helper()
	s, err := activity.NewScanner(activity.DefaultFields())
	if err != nil {
		t.Fatal(err)
	}
	m, _ := s.Scan([]byte(`{"event_time":"2019-11-01 00:00:00 UTC","user_id":` + token + `}`))
	return string(m.User)
}

// FuzzCanonical: a token is a user here if package activity makes it, of itself.
func FuzzCanonical(f *testing.F) {
	for _, token := range []string{`5`, `-0`, `1e9`, `"5"`, `"\u0061"`, `"a\n\u001f\u007f"`, `"\u2028"`, "\"\u2028\"", `"<&>"`, `"\u003c"`, `"\ud800"`, "\"\xff\"", "\"\ufffd\"", `""`, `null`, `[]`} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if !json.Valid([]byte(token)) || token != strings.TrimSpace(token) {
			return // what a RawMessage holds after decoding is valid and has no space around it
		}
		want := scanned(t, token) == token
		if got := canonical(json.RawMessage(token)); got != want {
			t.Errorf("%q: canonical %v, activity %q", token, got, scanned(t, token))
		}
	})
}

// FuzzParse: what is accepted has the id of its content, and stays what it is.
func FuzzParse(f *testing.F) {
	for _, r := range []Record{closed(), fromStream(), of(`"<a&b>"`, -20_000, 10_000), row(), userRow()} {
		b, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(bytes.Replace(b, []byte(`00Z`), []byte(`00.0+00:00`), 1))
		f.Add(bytes.Replace(b, []byte(`}}}}`), []byte(`}}},"evidence":null,"more":[]}`), 1))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := Parse(value)
		if err != nil {
			return
		}
		if want := ID(r.Rule, string(r.UserID), r.WindowStart.UnixMilli(), r.WindowEnd.UnixMilli()-r.WindowStart.UnixMilli()); r.ID != want {
			t.Errorf("%s has the id %s, not %s", value, r.ID, want)
		}
		again, err := Parse(encode(t, r))
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", value, err, diff)
		}
	})
}

// TestCheckIsWhatParseSays: a record that its writer has checked is read by everybody, and one that it would not write is read by nobody.
func TestCheckIsWhatParseSays(t *testing.T) {
	far := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	// What has a key has no user of its own, and what has none has no columns.
	user := func(token json.RawMessage) func(*Record) {
		return func(r *Record) {
			if r.Key == nil {
				r.UserID = token
			}
		}
	}
	columns := func(object json.RawMessage) func(*Record) {
		return func(r *Record) {
			if r.Key != nil {
				r.Columns = object
			}
		}
	}
	edges := []func(r *Record){
		func(*Record) {},
		func(r *Record) { r.Rule = "flood" },
		func(r *Record) { r.State = "open" },
		func(r *Record) { r.Severity = "" },
		user(json.RawMessage(`""`)),
		user(json.RawMessage(`"\u0061"`)),
		user(json.RawMessage(`7`)),
		user(json.RawMessage(`"` + strings.Repeat("x", maxUser) + `"`)),
		func(r *Record) { r.Threshold = 0 },
		func(r *Record) { r.Count = r.Threshold },
		func(r *Record) { r.WindowEnd = far },
		func(r *Record) { r.WindowStart = r.WindowStart.Add(time.Microsecond) },
		func(r *Record) { r.WindowStart = r.WindowEnd },
		func(r *Record) { r.FirstEventAt = r.WindowEnd },
		func(r *Record) { r.LastEventAt = r.FirstEventAt.Add(-time.Millisecond) },
		func(r *Record) { r.ID = strings.Repeat("0", 32) },
		func(r *Record) { r.Evidence = Evidence{} },
		func(r *Record) { r.Evidence.Partitions = map[string]OffsetRange{"0": {2, 1}} },
		func(r *Record) { r.Evidence.Partitions = map[string]OffsetRange{"01": {1, 2}} },
		func(r *Record) { r.Evidence.Stream = "s" },
		func(r *Record) { r.State = Raised },
		func(r *Record) { r.Mode = Shadow },
		func(r *Record) { r.RuleRevision = -1 },
		func(r *Record) { r.AtLeast = true },
		func(r *Record) { r.Key = json.RawMessage(`{"user_id":7}`) },
		func(r *Record) { r.Key = json.RawMessage(`{"user_id": 7}`) },
		func(r *Record) { r.Key = json.RawMessage(`[7]`) },
		columns(json.RawMessage(`{"Rule":7}`)),
		columns(json.RawMessage(`{"user_id":7}`)),
		columns(json.RawMessage(`{"a":1,"a":2}`)),
	}
	read := 0
	for i, first := range edges {
		for j, second := range edges {
			for _, r := range []Record{closed(), fromStream(), of(`"<a&b>"`, -20_000, 10_000), row(), userRow()} {
				first(&r)
				second(&r)
				b, err := r.Encode()
				if err != nil {
					continue // it cannot be written
				}
				_, refused := Parse(b)
				if checked := r.Check(); (checked == nil) != (refused == nil) {
					t.Errorf("changes %d and %d: Check says %v, Parse %v", i, j, checked, refused)
				}
				if refused == nil {
					read++
				}
			}
		}
	}
	if read < 3 {
		t.Errorf("%d records can be read", read)
	}
}
