package activity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// sample is an event as the original's simulator sends it.
const sample = `{"event_time": "2019-11-01 00:00:00 UTC", "event_type": "view", "product_id": 1003461, ` +
	`"category_id": 2053013555631882655, "category_code": "electronics.smartphone", "brand": "xiaomi", "price": 489.07, ` +
	`"user_id": 520088904, "user_session": "4d3b30da-a5e4-49df-b1a8-ba5943f1dd33", "txn_timestamp": "2019-11-01T00:00:00.123"}`

func newScanner(t testing.TB, f Fields) *Scanner {
	t.Helper()
	s, err := NewScanner(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func defaultScanner(t testing.TB) *Scanner {
	t.Helper()
	return newScanner(t, DefaultFields())
}

// shortFields is what the generated documents use: names of one byte, one of two and one that is not ASCII.
var shortFields = Fields{User: []string{"u", "n.u", "n.m.u"}, Time: []string{"t", "ab", "é", "n.t", `d\.t`}}

// oracle is Scan by way of encoding/json.
func oracle(f Fields, value []byte) (user string, ms int64, reason Reason) {
	if len(bytes.Trim(value, " \t\r\n")) == 0 {
		return "", 0, ReasonEmpty
	}
	if !json.Valid(value) {
		return "", 0, ReasonNotJSON
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil || members == nil {
		return "", 0, ReasonNotObject
	}

	var token json.RawMessage
	for _, path := range f.User {
		if token = oracleFind(value, path); len(token) > 0 && string(token) != "null" && string(token) != `""` {
			break
		}
	}
	var text string
	var ok bool
	switch {
	case len(token) == 0 || string(token) == "null" || string(token) == `""`:
		return "", 0, ReasonNoUser
	case token[0] == '"':
		if text, ok = oracleUnquote(token); !ok {
			return "", 0, ReasonBadUser
		}
		var canonical bytes.Buffer
		encoder := json.NewEncoder(&canonical)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(text); err != nil {
			panic(err)
		}
		user = strings.TrimSuffix(canonical.String(), "\n")
	case strings.IndexByte("-0123456789", token[0]) >= 0:
		user = string(token)
	default:
		return "", 0, ReasonBadUser
	}
	if len(user) > 256 {
		return "", 0, ReasonBadUser
	}

	for _, path := range f.Time {
		token := oracleFind(value, path)
		if len(token) == 0 || string(token) == "null" {
			continue
		}
		text := string(token)
		if token[0] == '"' {
			text, _ = oracleUnquote(token)
		}
		ms, ok := oracleTime(text)
		if ok = ok && token[0] == '"'; !ok {
			if ms, ok = oracleNumber(text); !ok || ms >= 0 && ms < 100_000_000_000 {
				return "", 0, ReasonBadTime
			}
		}
		if ms < 0 || ms > 253402300799999 {
			return "", 0, ReasonTimeRange
		}
		return user, ms, ReasonNone
	}
	return "", 0, ReasonNoTime
}

// oracleFind returns what is at the end of a path, nothing if there is none.
func oracleFind(value []byte, path string) json.RawMessage {
	for _, name := range regexp.MustCompile(`(?:[^.\\]|\\.)+`).FindAllString(path, -1) {
		var members map[string]json.RawMessage
		if json.Unmarshal(value, &members) != nil {
			return nil
		}
		value = members[strings.NewReplacer(`\.`, ".", `\\`, `\`).Replace(name)]
	}
	return value
}

// oracleNumber returns the whole of a JSON number, or one that is out of range.
func oracleNumber(text string) (int64, bool) {
	if text == "" || !json.Valid([]byte(text)) || strings.TrimLeft(text[:1], "-0123456789") != "" || strings.TrimRight(text, " \t\r\n") != text {
		return 0, false
	}
	if m := regexp.MustCompile(`^(-?)([0-9.]+)[eE]([+-]?)0*[1-9][0-9]{3,}$`).FindStringSubmatch(text); m != nil { // too much for big.Rat
		text = m[1] + m[2] + "e" + m[3] + "999"
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, false
	}
	n := new(big.Int).Div(r.Num(), r.Denom()) // Euclid's: floored, as the denominator is positive
	if n.IsInt64() {
		return n.Int64(), true
	}
	return int64(n.Sign()) * 1 << 62, true
}

var escape = regexp.MustCompile(`\\(u[0-9a-fA-F]{4}|.)`)

// oracleUnquote decodes a JSON string; exact is false if encoding/json replaced something, which shows in more U+FFFD
// than were written.
func oracleUnquote(token []byte) (text string, exact bool) {
	if err := json.Unmarshal(token, &text); err != nil {
		panic(err)
	}
	written := strings.Count(string(token), "\ufffd")
	for _, e := range escape.FindAllString(string(token), -1) {
		if strings.EqualFold(e, `\ufffd`) {
			written++
		}
	}
	return text, strings.Count(text, "\ufffd") == written
}

// checkScan compares Scan with the oracle and returns the reason.
func checkScan(t testing.TB, s *Scanner, f Fields, value []byte) Reason {
	t.Helper()
	before := bytes.Clone(value)
	user, ms, reason := oracle(f, value)
	mark, got := s.Scan(value)
	if string(mark.User) != user || mark.TimeMS != ms || got != reason {
		t.Errorf("%q\n got %q %d %q\nwant %q %d %q", clip(value), mark.User, mark.TimeMS, got, user, ms, reason)
	}
	if !bytes.Equal(before, value) {
		t.Errorf("%q was changed to %q", clip(before), clip(value))
	}
	if got == ReasonNone {
		// The canonical form is a fixed point, and a person can name every user.
		again, reason := s.Scan(fmt.Appendf(nil, `{%q:%s,%q:1572566400123}`, f.User[0], mark.User, f.Time[0]))
		if reason != ReasonNone || !bytes.Equal(again.User, mark.User) {
			t.Errorf("user %s scans as %s %q", mark.User, again.User, reason)
		}
		if tokens := UserToken(UserText(mark.User)); string(mark.User) != tokens[0] && string(mark.User) != tokens[len(tokens)-1] {
			t.Errorf("user %s is not among %q", mark.User, tokens)
		}
	}
	return got
}

func clip(value []byte) []byte {
	return value[:min(len(value), 2000)]
}

func TestScan(t *testing.T) {
	type want struct {
		User   string
		TimeMS int64
		Reason Reason
	}
	long := strings.Repeat("7", 256)
	for _, test := range []struct {
		name  string
		value string
		want  want
	}{
		{"sample", sample, want{"520088904", 1572566400123, ""}},

		{"empty", "", want{Reason: ReasonEmpty}},
		{"white space", " \t\r\n", want{Reason: ReasonEmpty}},

		{"form feed is not white space", "\f", want{Reason: ReasonNotJSON}},
		{"byte order mark", "\ufeff" + sample, want{Reason: ReasonNotJSON}},
		{"NUL", "\x00", want{Reason: ReasonNotJSON}},
		{"NUL behind", sample + "\x00", want{Reason: ReasonNotJSON}},
		{"NUL in string", "{\"user_id\":\"a\x00\"}", want{Reason: ReasonNotJSON}},
		{"line feed in string", "{\"user_id\":\"a\n\"}", want{Reason: ReasonNotJSON}},
		{"cut", sample[:len(sample)-1], want{Reason: ReasonNotJSON}},
		{"trailing garbage", sample + "x", want{Reason: ReasonNotJSON}},
		{"two documents", sample + sample, want{Reason: ReasonNotJSON}},
		{"text", "hello", want{Reason: ReasonNotJSON}},
		{"bad literal", `{"a":nul}`, want{Reason: ReasonNotJSON}},
		{"long literal", `{"a":nulll}`, want{Reason: ReasonNotJSON}},
		{"trailing comma", `{"a":1,}`, want{Reason: ReasonNotJSON}},
		{"no comma", `{"a":1 "b":2}`, want{Reason: ReasonNotJSON}},
		{"no colon", `{"a" 1}`, want{Reason: ReasonNotJSON}},
		{"no value", `{"a":}`, want{Reason: ReasonNotJSON}},
		{"name without quotes", `{a:1}`, want{Reason: ReasonNotJSON}},
		{"wrong bracket", `{"a":[1}}`, want{Reason: ReasonNotJSON}},
		{"wrong brace", `{"a":{"b":1]}`, want{Reason: ReasonNotJSON}},
		{"nested trailing comma", `{"a":[1,]}`, want{Reason: ReasonNotJSON}},
		{"bad escape", `{"a":"\x"}`, want{Reason: ReasonNotJSON}},
		{"bad unicode escape", `{"a":"\u00g0"}`, want{Reason: ReasonNotJSON}},
		{"short unicode escape", `{"a":"\u00"}`, want{Reason: ReasonNotJSON}},
		{"number 01", `{"a":01}`, want{Reason: ReasonNotJSON}},
		{"number -01", `{"a":-01}`, want{Reason: ReasonNotJSON}},
		{"number 1.", `{"a":1.}`, want{Reason: ReasonNotJSON}},
		{"number .5", `{"a":.5}`, want{Reason: ReasonNotJSON}},
		{"number +1", `{"a":+1}`, want{Reason: ReasonNotJSON}},
		{"number -", `{"a":-}`, want{Reason: ReasonNotJSON}},
		{"number 1e", `{"a":1e}`, want{Reason: ReasonNotJSON}},
		{"number 1e+", `{"a":1e+}`, want{Reason: ReasonNotJSON}},
		{"NaN", `{"a":NaN}`, want{Reason: ReasonNotJSON}},
		{"hexadecimal", `{"a":0x1}`, want{Reason: ReasonNotJSON}},
		{"not JSON precedes bad user", `{"user_id":true,"a":01}`, want{Reason: ReasonNotJSON}},

		{"array", `[` + sample + `]`, want{Reason: ReasonNotObject}},
		{"empty array", ` [ ] `, want{Reason: ReasonNotObject}},
		{"null", `null`, want{Reason: ReasonNotObject}},
		{"string", `"{}"`, want{Reason: ReasonNotObject}},
		{"number", `-0.5e-7`, want{Reason: ReasonNotObject}},

		{"no user", `{"event_time":1572566400001}`, want{Reason: ReasonNoUser}},
		{"no members", ` { } `, want{Reason: ReasonNoUser}},
		{"user null", `{"user_id":null,"event_time":1572566400001}`, want{Reason: ReasonNoUser}},
		{"user empty", `{"user_id":"","event_time":1572566400001}`, want{Reason: ReasonNoUser}},
		{"no user precedes bad time", `{"event_time":"x"}`, want{Reason: ReasonNoUser}},
		{"user in other case", `{"User_ID":1,"event_time":1572566400001}`, want{Reason: ReasonNoUser}},
		{"user nested", `{"a":{"user_id":1},"event_time":1572566400001}`, want{Reason: ReasonNoUser}},

		{"user true", `{"user_id":true,"event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user object", `{"user_id":{},"event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user array", `{"user_id":[1],"event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user invalid UTF-8", "{\"user_id\":\"a\xff\",\"event_time\":1572566400001}", want{Reason: ReasonBadUser}},
		{"user lone high surrogate", `{"user_id":"\ud83d","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user lone low surrogate", `{"user_id":"\ude00","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user surrogates swapped", `{"user_id":"\ude00\ud83d","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user high surrogate, letter", `{"user_id":"\ud83d\u0041","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user encoded surrogate", "{\"user_id\":\"\xed\xa0\x80\",\"event_time\":1572566400001}", want{Reason: ReasonBadUser}},
		{"user number too long", `{"user_id":` + long + `7,"event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user string too long", `{"user_id":"` + long[1:] + `","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user escaped too long", `{"user_id":"` + strings.Repeat(`\u0041`, 255) + `","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user escaped far too long", `{"user_id":"` + strings.Repeat(`\u0041`, 2550) + `","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"user longer in canonical form", `{"user_id":"` + strings.Repeat("\u2028", 43) + `","event_time":1572566400001}`, want{Reason: ReasonBadUser}},
		{"bad user precedes no time", `{"user_id":[]}`, want{Reason: ReasonBadUser}},

		{"user longest number", `{"user_id":` + long + `,"event_time":1572566400001}`, want{long, 1572566400001, ""}},
		{"user longest string", `{"user_id":"` + long[2:] + `","event_time":1572566400001}`, want{`"` + long[2:] + `"`, 1572566400001, ""}},
		{"user longest escaped", `{"user_id":"` + strings.Repeat(`\u0041`, 254) + `","event_time":1572566400001}`,
			want{`"` + strings.Repeat("A", 254) + `"`, 1572566400001, ""}},
		{"user number as written", `{"user_id":-0.10E+2,"event_time":1572566400001}`, want{"-0.10E+2", 1572566400001, ""}},
		{"user string", `{"user_id":"520088904","event_time":1572566400001}`, want{`"520088904"`, 1572566400001, ""}},
		{"user string with HTML", `{"user_id":"<&>/\u003c\/` + "\x7f" + `","event_time":1572566400001}`, want{"\"<&>/</\x7f\"", 1572566400001, ""}},
		{"user escaped", `{"user_id":"\u0061\"\\\b\f\n\r\t\u0000\u001F","event_time":1572566400001}`, want{`"a\"\\\b\f\n\r\t\u0000\u001f"`, 1572566400001, ""}},
		{"user not ASCII", `{"user_id":"é","event_time":1572566400001}`, want{`"é"`, 1572566400001, ""}},
		{"user not ASCII, escaped", `{"user_id":"\u00E9","event_time":1572566400001}`, want{`"é"`, 1572566400001, ""}},
		{"user surrogate pair", `{"user_id":"\uD83D\ude00","event_time":1572566400001}`, want{`"😀"`, 1572566400001, ""}},
		{"user line separators", "{\"user_id\":\"\u2028\u2029\",\"event_time\":1572566400001}", want{`"\u2028\u2029"`, 1572566400001, ""}},
		{"user is U+FFFD", "{\"user_id\":\"\ufffd\\uFFFD\",\"event_time\":1572566400001}", want{"\"\ufffd\ufffd\"", 1572566400001, ""}},
		{"user twice", `{"user_id":1,"user_id":2,"event_time":1572566400001}`, want{"2", 1572566400001, ""}},
		{"user twice, then null", `{"user_id":1,"user_id":null,"event_time":1572566400001}`, want{Reason: ReasonNoUser}},
		{"bad user, then good", `{"user_id":[],"user_id":2,"event_time":1572566400001}`, want{"2", 1572566400001, ""}},
		{"name escaped", `{"user\u005fid":1,"\u0065vent_time":1572566400002}`, want{"1", 1572566400002, ""}},
		{"name escaped, last", `{"user_id":1,"user\u005Fid":2,"event_time":1572566400001}`, want{"2", 1572566400001, ""}},
		{"name with invalid UTF-8", "{\"user_id\":1,\"user_id\xff\":2,\"event_time\":1572566400001}", want{"1", 1572566400001, ""}},
		{"spaced", " {\n\t\"user_id\" :\r1 , \"event_time\" : 1572566400002 } ", want{"1", 1572566400002, ""}},
		{"nested", `{"a":[[],{},{"b":[{"user_id":3}],"c":{}},[1,"]}"]],"user_id":1,"event_time":1572566400002}`, want{"1", 1572566400002, ""}},

		{"no time", `{"user_id":1}`, want{Reason: ReasonNoTime}},
		{"times null", `{"user_id":1,"event_time":null,"txn_timestamp":null}`, want{Reason: ReasonNoTime}},
		{"first time counts", `{"user_id":1,"event_time":1572566400002,"txn_timestamp":1572566400003}`, want{"1", 1572566400003, ""}},
		{"first time null", `{"user_id":1,"event_time":1572566400002,"txn_timestamp":null}`, want{"1", 1572566400002, ""}},
		{"bad time does not fall back", `{"user_id":1,"event_time":1572566400002,"txn_timestamp":""}`, want{Reason: ReasonBadTime}},
		{"bad time behind the one that counts", `{"user_id":1,"event_time":"x","txn_timestamp":1572566400003}`, want{"1", 1572566400003, ""}},
		{"time true", `{"user_id":1,"event_time":true}`, want{Reason: ReasonBadTime}},
		{"time object", `{"user_id":1,"event_time":{}}`, want{Reason: ReasonBadTime}},
		{"time fraction", `{"user_id":1,"event_time":1572566400123.0}`, want{"1", 1572566400123, ""}},
		{"time fraction is cut", `{"user_id":1,"event_time":1572566400123.999}`, want{"1", 1572566400123, ""}},
		{"time exponent", `{"user_id":1,"event_time":1.5725664e12}`, want{"1", 1572566400000, ""}},
		{"time in seconds", `{"user_id":1,"event_time":1572566400}`, want{Reason: ReasonBadTime}},
		{"time in microseconds", `{"user_id":1,"event_time":1572566400123000}`, want{Reason: ReasonTimeRange}},
		{"time zero", `{"user_id":1,"event_time":0}`, want{Reason: ReasonBadTime}},
		{"time first", `{"user_id":1,"event_time":100000000000}`, want{"1", 100000000000, ""}},
		{"time before the first", `{"user_id":1,"event_time":99999999999}`, want{Reason: ReasonBadTime}},
		{"time as text of a number", `{"user_id":1,"event_time":"1572566400000"}`, want{"1", 1572566400000, ""}},
		{"time as text of seconds", `{"user_id":1,"event_time":"1572566400"}`, want{Reason: ReasonBadTime}},
		{"time as text of a number and more", `{"user_id":1,"event_time":"1572566400000 "}`, want{Reason: ReasonBadTime}},
		{"time beyond int64", `{"user_id":1,"event_time":9223372036854775808}`, want{Reason: ReasonTimeRange}},
		{"time far beyond int64", `{"user_id":1,"event_time":` + long + `}`, want{Reason: ReasonTimeRange}},
		{"time max int64", `{"user_id":1,"event_time":9223372036854775807}`, want{Reason: ReasonTimeRange}},
		{"time min int64", `{"user_id":1,"event_time":-9223372036854775808}`, want{Reason: ReasonTimeRange}},
		{"time minus zero", `{"user_id":1,"event_time":-0}`, want{Reason: ReasonBadTime}},
		{"time negative", `{"user_id":1,"event_time":-1}`, want{Reason: ReasonTimeRange}},
		{"time before 1970", `{"user_id":1,"event_time":"1969-12-31T23:59:59.999"}`, want{Reason: ReasonTimeRange}},
		{"time last", `{"user_id":1,"event_time":253402300799999}`, want{"1", 253402300799999, ""}},
		{"time after 9999", `{"user_id":1,"event_time":253402300800000}`, want{Reason: ReasonTimeRange}},
		{"time after 9999 by its zone", `{"user_id":1,"event_time":"9999-12-31T23:59:59-00:01"}`, want{Reason: ReasonTimeRange}},
		{"time escaped", `{"user_id":1,"event_time":"2019-11-01\u002000:00:00\u005a"}`, want{"1", 1572566400000, ""}},
		{"time escaped, long", `{"user_id":1,"event_time":"` + strings.Repeat(`\u0020`, 100) + `"}`, want{Reason: ReasonBadTime}},
	} {
		mark, reason := defaultScanner(t).Scan([]byte(test.value))
		got := want{string(mark.User), mark.TimeMS, reason}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		checkScan(t, defaultScanner(t), DefaultFields(), []byte(test.value))
	}
	if _, reason := defaultScanner(t).Scan(nil); reason != ReasonEmpty {
		t.Errorf("nil: %q", reason)
	}
}

// TestScanDepth pins the nesting limit of encoding/json from both sides, at the top level and within a member.
func TestScanDepth(t *testing.T) {
	s := defaultScanner(t)
	for _, depth := range []int{1, 63, 64, 65, 128, 9999, 10000, 10001, 20000} {
		array := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		object := strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
		mixed := strings.Repeat(`[{"a":`, depth/2) + "1" + strings.Repeat("}]", depth/2)
		for _, nested := range []string{array, object, mixed, array[1:], object + "}", "[" + object[1:], strings.Repeat("[", depth)} {
			checkScan(t, s, DefaultFields(), []byte(nested))
			checkScan(t, s, DefaultFields(), []byte(`{"user_id":1,"event_time":2,"a":`+nested+`}`))
		}
	}
}

// TestScanStringOffsets puts every byte at every offset of the eight that the string loop looks at together.
func TestScanStringOffsets(t *testing.T) {
	s := defaultScanner(t)
	for c := range 256 {
		for before := range 17 {
			for _, filling := range []string{"a", "!", "\x7f", "#", "]", "é", "\xff"} {
				value := `{"user_id":"` + strings.Repeat(filling, before) + string([]byte{byte(c)}) +
					strings.Repeat(filling, (before+c)%9) + `","event_time":1}`
				checkScan(t, s, DefaultFields(), []byte(value))
				if t.Failed() {
					return
				}
			}
		}
	}
}

// TestScanRandom compares Scan with the oracle on random documents and random damage to them.
func TestScanRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newScanner(t, shortFields)
	reasons := map[Reason]int{}
	for range 30000 {
		value := randomDocument(rnd)
		reasons[checkScan(t, s, shortFields, value)]++
		for range 2 {
			reasons[checkScan(t, s, shortFields, mutate(rnd, value, "{}[]\",:\\u0123456789.eE+-tfn \n\x1f\xff"))]++
		}
		if t.Failed() {
			break
		}
	}
	t.Log(reasons)
	for _, reason := range []Reason{ReasonNone, ReasonEmpty, ReasonNotJSON, ReasonNotObject, ReasonNoUser, ReasonBadUser,
		ReasonNoTime, ReasonBadTime, ReasonTimeRange} {
		if reasons[reason] < 10 {
			t.Errorf("reason %q came up %d times only", reason, reasons[reason])
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, value := range []string{
		sample, "", " ", "null", "[]", `{}`, `{"u":1,"t":1572566400123}`, `{"u":"a","t":null,"ab":"2019-11-01 00:00:00 UTC"}`,
		`{"\u0075":"\ud83d\ude00\ud83d","t":-1}`, `{"u":"é` + "\u2028\xff" + `","é":"2019-11-01T00:00:00Z"}`,
		`{"u":"\b\f\n\r\t\/\\\"<&>","t":"2019-11-01\u0054"}`, `{"u":-0.5e+7,"t":253402300800000}`, `{"u":1,"u":2,"t":9223372036854775808}`,
		`{"a":[[{"b":{}},[]],true,false,null,"x"],"u":7,"\u00e9":0}`, `{"a":01}`, `{"a":[1,]}`, `{"u":"\ufffd","t":1}`, `{"":0,"u":"x"}`,
	} {
		f.Add([]byte(value))
	}
	short, standard := newScanner(f, shortFields), defaultScanner(f)
	f.Fuzz(func(t *testing.T, value []byte) {
		checkScan(t, short, shortFields, value)
		checkScan(t, standard, DefaultFields(), value)
	})
}

// randomDocument returns a JSON document, most often an object with the members of shortFields.
func randomDocument(rnd *rand.Rand) []byte {
	g := generator{rnd: rnd}
	g.space()
	switch rnd.IntN(40) {
	case 0:
		return g.b
	case 1:
		g.value(4)
	default:
		g.list('{', '}', rnd.IntN(8), func() {
			name := []string{"u", "u", "u", "t", "t", "ab", "é", "T", "ab ", "\ufffd", "", "other", "n", "n", "n", "d.t", "n.u"}[rnd.IntN(17)]
			g.text(name)
			g.space()
			g.b = append(g.b, ':')
			g.space()
			if rnd.IntN(8) == 0 {
				g.value(4)
				return
			}
			switch name {
			case "u":
				g.user()
			case "t", "ab", "é", "d.t":
				g.time()
			case "n":
				g.nested()
			default:
				g.value(2)
			}
		})
	}
	g.space()
	return g.b
}

type generator struct {
	rnd *rand.Rand
	b   []byte
}

func (g *generator) raw(of ...string) {
	g.b = append(g.b, of[g.rnd.IntN(len(of))]...)
}

func (g *generator) space() {
	if g.rnd.IntN(3) == 0 {
		g.raw(" ", " ", "\t", "\r\n", "\n  ")
	}
}

func (g *generator) list(opening, closing byte, n int, element func()) {
	g.b = append(g.b, opening)
	g.space()
	for i := range n {
		if i > 0 {
			g.b = append(g.b, ',')
			g.space()
		}
		element()
		g.space()
	}
	g.b = append(g.b, closing)
}

// nested appends an object with members of shortFields, which may come twice.
func (g *generator) nested() {
	g.list('{', '}', g.rnd.IntN(5), func() {
		name := []string{"u", "u", "t", "t", "m", "m", "x"}[g.rnd.IntN(7)]
		g.text(name)
		g.space()
		g.b = append(g.b, ':')
		g.space()
		switch {
		case g.rnd.IntN(8) == 0:
			g.value(2)
		case name == "u":
			g.user()
		case name == "t":
			g.time()
		default:
			g.list('{', '}', g.rnd.IntN(3), func() {
				g.text("u")
				g.b = append(g.b, ':')
				g.user()
			})
		}
	})
}

func (g *generator) value(depth int) {
	switch n := g.rnd.IntN(9); {
	case n < 2 && depth > 0:
		g.list('[', ']', g.rnd.IntN(4), func() { g.value(depth - 1) })
	case n < 4 && depth > 0:
		g.list('{', '}', g.rnd.IntN(4), func() {
			g.text([]string{"u", "t", "a b", "é", ""}[g.rnd.IntN(5)])
			g.space()
			g.b = append(g.b, ':')
			g.space()
			g.value(depth - 1)
		})
	case n < 6:
		g.raw("true", "false", "null")
	case n < 7:
		g.number()
	default:
		g.user()
	}
}

func (g *generator) number() {
	g.raw("0", "-0", "7", "-12", "1572566400123", "253402300799999", "253402300800000", "9223372036854775807",
		"9223372036854775808", "-9223372036854775808", "123456789012345678901234567890")
	if g.rnd.IntN(4) == 0 {
		g.raw(".0", ".125", ".00", ".9")
	}
	if g.rnd.IntN(4) == 0 {
		g.raw("e1", "E1", "e+01", "E-7")
	}
}

// user appends a number or a string, which may contain anything that a JSON string may contain.
func (g *generator) user() {
	if g.rnd.IntN(2) == 0 {
		g.number()
		return
	}
	g.b = append(g.b, '"')
	n := g.rnd.IntN(6)
	if g.rnd.IntN(20) == 0 {
		n = 40 + g.rnd.IntN(60)
	}
	for range n {
		if g.rnd.IntN(2) == 0 {
			g.raw("a", "user", "0123456789", "<", "&", "/", "\x7f", "{", "]", ",", ":")
			continue
		}
		g.raw(`\"`, `\\`, `\/`, `\b`, `\n`, `\u0000`, `\u0061`, `\u00E9`, `\ud83d\ude00`, `\uFFFD`, `\u2028`, "é", "😀",
			"\u2028", "\u2029", "\ufffd", []string{`\ud83d`, `\ude00`, "\xff", "\xc3", "\xed\xa0\x80"}[g.rnd.IntN(5)])
	}
	g.b = append(g.b, '"')
}

func (g *generator) time() {
	switch g.rnd.IntN(5) {
	case 0:
		g.number()
	case 1:
		g.raw("null")
	case 2:
		g.text(string(mutate(g.rnd, []byte(randomTime(g.rnd)), "0123456789-+:.TtZz UTC")))
	default:
		g.text(randomTime(g.rnd))
	}
}

// text appends a JSON string that stands for text, some of its characters escaped.
func (g *generator) text(text string) {
	rate := []int{3, 1000, 1000, 1000}[g.rnd.IntN(4)]
	g.b = append(g.b, '"')
	for _, r := range text {
		switch {
		case r < ' ' || r == '"' || r == '\\' || r < 0x10000 && g.rnd.IntN(rate) == 0:
			g.b = fmt.Appendf(g.b, []string{`\u%04x`, `\u%04X`}[g.rnd.IntN(2)], r)
		default:
			g.b = append(g.b, string(r)...)
		}
	}
	g.b = append(g.b, '"')
}

func TestScanDoesNotAllocate(t *testing.T) {
	s := defaultScanner(t)
	for name, value := range map[string]string{
		"sample":             sample,
		"string user":        strings.Replace(sample, "520088904", `"a user of some length"`, 1),
		"number time":        `{"user_id":1,"event_time":1572566400123}`,
		"nested":             `{"user_id":1,"event_time":1572566400123,"a":[{"b":[]}]}`,
		"escaped name, time": `{"user\u005fid":1,"event_time":"2019-11-01\u002000:00:00"}`,
		"not JSON":           sample[:100],
		"no user":            `{}`,
		"bad user":           `{"user_id":[]}`,
		"bad time":           `{"user_id":1,"event_time":1234567890123456789012345678901234567890}`,
	} {
		b := []byte(value)
		if n := testing.AllocsPerRun(100, func() { s.Scan(b) }); n != 0 {
			t.Errorf("%s: allocates %v times", name, n)
		}
	}
}

func TestScanUserAliasesValue(t *testing.T) {
	for _, value := range []string{sample, `{"user_id":"plain","event_time":1572566400123}`} {
		b := []byte(value)
		mark, _ := defaultScanner(t).Scan(b)
		at := bytes.Index(b, mark.User)
		if at < 0 || unsafe.SliceData(mark.User) != &b[at] {
			t.Errorf("%s is a copy", mark.User)
		}
	}
}

// TestAppendQuotedIsWhatEncoderWrites pins the canonical form of user strings, which is an identity across versions.
func TestAppendQuotedIsWhatEncoderWrites(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	check := func(text string) {
		t.Helper()
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(text); err != nil {
			t.Fatal(err)
		}
		if got := string(appendQuoted(nil, text)) + "\n"; got != want.String() {
			t.Fatalf("%q: got %s, want %s", text, got, want.String())
		}
		if got := UserText(appendQuoted(nil, text)); got != strings.ToValidUTF8(text, "\ufffd") && !strings.Contains(got, "\ufffd") {
			t.Fatalf("%q comes back as %q", text, got)
		}
	}
	for r := range rune(0x11000) {
		check("a" + string(r))
	}
	for range 20000 {
		b := make([]byte, rnd.IntN(12))
		for i := range b {
			b[i] = byte(rnd.IntN(256))
		}
		check(string(b))
	}
}

func TestUserTextAndToken(t *testing.T) {
	for _, test := range []struct {
		text   string
		tokens []string
	}{
		{"520088904", []string{"520088904", `"520088904"`}},
		{"-1.50E+3", []string{"-1.50E+3", `"-1.50E+3"`}},
		{"007", []string{`"007"`}},
		{" 7", []string{`" 7"`}},
		{"null", []string{`"null"`}},
		{`"7"`, []string{`"\"7\""`}},
		{"é<\n\u2028", []string{`"é<\n\u2028"`}},
		{"", []string{`""`}},
	} {
		tokens := UserToken(test.text)
		if diff := cmp.Diff(test.tokens, tokens); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.text, diff)
		}
		for _, token := range tokens {
			if got := UserText([]byte(token)); got != test.text {
				t.Errorf("token %s: got %q, want %q", token, got, test.text)
			}
		}
	}
	// Not canonical, as only a foreign writer of the topic makes them: shown as they are, no panic.
	for _, token := range []string{"", `"`, `"a`, `"\"`, `"a"b"`, `"\u00"`} {
		if got := UserText([]byte(token)); got != token {
			t.Errorf("token %s: got %q", token, got)
		}
	}
}

func TestFieldsValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		fields Fields
		want   string
	}{
		{"default", DefaultFields(), ""},
		{"eight", Fields{User: []string{"u"}, Time: strings.Split("abcdefgh", "")}, ""},
		{"zero", Fields{}, "user field: 0 names given, expected 1 to 8\ntime field: 0 names given, expected 1 to 8"},
		{"nine", Fields{User: []string{"u"}, Time: strings.Split("abcdefghi", "")}, "time field: 9 names given, expected 1 to 8"},
		{"paths", Fields{User: []string{"a.b", `c\.d`, `e\\`}, Time: []string{"a"}}, ""},
		{"bad paths", Fields{User: []string{".a", "a..b", "a.", `a\b`}, Time: []string{strings.Repeat("a.", 8) + "a"}},
			`user field 1 ".a": a name is empty; write \. for a dot in a name` + "\n" +
				`user field 2 "a..b": a name is empty; write \. for a dot in a name` + "\n" +
				`user field 3 "a.": a name is empty; write \. for a dot in a name` + "\n" +
				`user field 4 "a\\b": a backslash must be followed by a dot or a backslash` + "\n" +
				`time field 1 "a.a.a.a.a.a.a.a.a" has 9 levels, but the maximum is 8`},
		{"all wrong", Fields{User: []string{"u\xff"}, Time: []string{"", "a", "a", "u\xff", "\ufffd"}},
			`user field 1 "u\xff" is not valid UTF-8 or contains U+FFFD` + "\n" +
				`time field 1 is empty` + "\n" +
				`time field 3 "a" is a duplicate` + "\n" +
				`time field 4 "u\xff" is not valid UTF-8 or contains U+FFFD` + "\n" +
				`time field 5 "` + "\ufffd" + `" is not valid UTF-8 or contains U+FFFD` + "\n" +
				`time field 4 "u\xff" is also a user field`},
	} {
		got := ""
		if err := test.fields.Validate(); err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if _, err := NewScanner(test.fields); (err != nil) != (test.want != "") {
			t.Errorf("%s: NewScanner: %v", test.name, err)
		}
	}
}

func TestScannerKeepsItsFields(t *testing.T) {
	f := DefaultFields()
	s := newScanner(t, f)
	f.Time[0], f.Time[1] = "a", "b"
	checkScan(t, s, DefaultFields(), []byte(sample))
}

func TestScanLongNames(t *testing.T) {
	f := Fields{User: []string{strings.Repeat("u", 63)}, Time: []string{strings.Repeat("t", 64), strings.Repeat("u", 200)}}
	s := newScanner(t, f)
	for _, value := range []string{
		fmt.Sprintf(`{%q:1,%q:2}`, f.User[0], f.Time[0]), fmt.Sprintf(`{%q:1,%q:2}`, f.User[0], f.Time[1]),
		fmt.Sprintf(`{%q:1,"%s":2}`, f.User[0], strings.Repeat(`\u0075`, 200)), fmt.Sprintf(`{%q:1,"%s":2}`, f.User[0], strings.Repeat(`\u0075`, 201)),
	} {
		checkScan(t, s, f, []byte(value))
	}
}

func BenchmarkScan(b *testing.B) {
	for _, bench := range []struct{ name, value string }{
		{"sample", sample},
		{"compact", string(sampleEvent.AppendJSON(nil))},
		{"nested", `{"user_id":1,"event_time":1572566400123,"context":{"page":{"url":"https://example.org/","tags":["a","b"]}}}`},
		{"escaped user", `{"user_id":"a\u00e9","event_time":1572566400123}`},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := defaultScanner(b)
			value := []byte(bench.value)
			b.ReportAllocs()
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				if _, reason := s.Scan(value); reason != ReasonNone {
					b.Fatal(reason)
				}
			}
		})
	}
}

// BenchmarkEncodingJSON is what BenchmarkScan saves: decoding the same two members with the standard library.
func BenchmarkEncodingJSON(b *testing.B) {
	value := []byte(sample)
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		var event struct {
			User json.RawMessage `json:"user_id"`
			Time string          `json:"txn_timestamp"`
		}
		if err := json.Unmarshal(value, &event); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTexts: a record is what it consists of, unless that is too much.
func TestTexts(t *testing.T) {
	most := strings.Repeat("1 ", MaxTexts-1)
	for value, want := range map[string][]string{
		``:                   {``},
		" \n":                {" \n"},
		`{"a":1}`:            {`{"a":1}`},
		` {"a":1}` + "\n":    {`{"a":1}`},
		`{"a":1}{"b":2}`:     {`{"a":1}`, `{"b":2}`},
		"{}\n[1]\r\n\"x\"\n": {`{}`, `[1]`, `"x"`},
		`{} {"cut`:           {`{}`, `{"cut`},
		`{} x {}`:            {`{}`, `x {}`},
		`x {}`:               {`x {}`},
		"\x00\x00":           {"\x00\x00"},
		most + "1":           {most + "1"},
	} {
		var got []string
		for _, text := range Texts([]byte(value)) {
			got = append(got, string(text))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%.20q: %s", value, diff)
		}
	}
	if n := len(Texts([]byte(most))); n != MaxTexts-1 {
		t.Errorf("%d texts", n)
	}
}

// TestPathText: it is the path that Path reads.
func TestPathText(t *testing.T) {
	for text, names := range map[string][]string{"a": {"a"}, "a.b": {"a", "b"}, `a\.b.c`: {"a.b", "c"}, `\\\..\\`: {`\.`, `\`}} {
		if got := PathText(names); got != text {
			t.Errorf("%q: %s, want %s", names, got, text)
		}
		if got, err := Path(text); err != nil || !slices.Equal(got, names) {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}
