package verifier

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// maxUser is the longest user token of an event, bytes.
const maxUser = 256

// AddJSON takes the next event of a source partition as its record's value has it: an object with user_id, a number or a string, and a
// time, which is txn_timestamp unless that is absent or null, then event_time; a string, or epoch milliseconds from 1973 on. It reports whether
// the event is late; what is not an event is counted as invalid. appended is the time of its record.
func (r *Reference) AddJSON(partition int32, value []byte, appended time.Time) (late bool) {
	user, ms, ok := r.rule.parseJSON(value)
	if ahead := r.rule.MaxAhead.Milliseconds(); !ok || ahead > 0 && ms > appended.UnixMilli()+ahead {
		r.AddInvalid()
		return false
	}
	return r.AddOnce(partition, user, r.rule.idOfJSON(value), ms, appended.UnixMilli())
}

// AddIdleJSON takes the next event of a source partition, of which the log says that it came too late for a promise made while the
// partition was silent. It cannot be told from the events, for it depends on the wall clock. What is not an event is counted as invalid.
func (r *Reference) AddIdleJSON(partition int32, value []byte, appended time.Time) {
	_, ms, ok := r.rule.parseJSON(value)
	if !ok {
		r.AddInvalid()
		return
	}
	r.In++
	r.Late++
	r.advance(partition, ms, appended.UnixMilli())
}

// idOfJSON returns the id of an event, "" if it has none.
func (r Rule) idOfJSON(value []byte) string {
	if r.ID == "" {
		return ""
	}
	id, ok := userOfJSON(find(value, r.ID)) // written as users are
	if !ok {
		return ""
	}
	return id
}

func (r Rule) parseJSON(value []byte) (user string, ms int64, ok bool) {
	if user = r.userIn(value); user == "" {
		return "", 0, false
	}
	ms, ok = r.timeIn(value)
	return user, ms, ok
}

// timeIn returns the time of an event.
func (r Rule) timeIn(value []byte) (ms int64, ok bool) {
	times := r.Time
	if len(times) == 0 {
		times = []string{"txn_timestamp", "event_time"}
	}
	for _, path := range times {
		if token := find(value, path); len(token) > 0 && string(token) != "null" {
			return r.timeOfJSON(token)
		}
	}
	return 0, false
}

var (
	segments  = regexp.MustCompile(`(?:[^.\\]|\\.)+`)
	unescaped = strings.NewReplacer(`\.`, ".", `\\`, `\`)
)

// find returns what is at the end of a path, nothing if there is none.
func find(value []byte, path string) json.RawMessage {
	for _, name := range segments.FindAllString(path, -1) {
		var members map[string]json.RawMessage
		if json.Unmarshal(value, &members) != nil {
			return nil
		}
		value = members[unescaped.Replace(name)]
	}
	return value
}

// timeOfJSON reads a time that is written as the rule says.
func (r Rule) timeOfJSON(token json.RawMessage) (int64, bool) {
	var text string
	quoted := json.Unmarshal(token, &text) == nil && token[0] == '"'
	if !quoted {
		text = string(token)
	}
	perSecond := map[string]int64{"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[r.TimeFormat]
	switch {
	case r.TimeFormat == "" || r.TimeFormat == "auto":
		return timeOfJSON(token)
	case perSecond > 0:
		n, ok := new(big.Rat).SetString(text)
		if !ok || !isNumber(text) || len(text) > 64 {
			return 0, false
		}
		n.Mul(n, big.NewRat(1000, perSecond))
		ms := new(big.Int).Div(n.Num(), n.Denom())
		return ms.Int64(), ms.IsInt64() && inRange(ms.Int64())
	case !quoted:
		return 0, false
	case r.TimeFormat == "rfc3339":
		return parseTime(text)
	}
	t, err := time.Parse(r.TimeFormat, text)
	return t.UnixMilli(), err == nil && inRange(t.UnixMilli())
}

// addText takes an event whose columns are text. An empty txn is absent.
func (r *Reference) addText(partition int32, user, txn, event string, appendedMS int64) {
	token, ok := userOfText(user)
	if txn == "" {
		txn = event
	}
	ms, timed := parseTime(txn)
	if !timed {
		ms, timed = parseMillis(txn)
	}
	if !ok || !timed {
		r.AddInvalid()
		return
	}
	r.Add(partition, token, ms, appendedMS)
}

// userOfText returns the token that a producer writes for the text of a column: a number if it is one in JSON.
func userOfText(text string) (token string, ok bool) {
	if text == "" {
		return "", false
	}
	token = text
	if !isNumber(text) {
		token = quote(string([]rune(text))) // each byte that is not UTF-8 becomes U+FFFD, as on its way through JSON
	}
	return token, len(token) <= maxUser
}

func userOfJSON(token json.RawMessage) (string, bool) {
	if isNumber(string(token)) {
		return string(token), len(token) <= maxUser
	}
	if len(token) < 3 || token[0] != '"' || !utf8.Valid(token) || loneSurrogate(token) {
		return "", false
	}
	var text string
	if json.Unmarshal(token, &text) != nil {
		return "", false
	}
	quoted := quote(text)
	return quoted, len(quoted) <= maxUser
}

// isNumber reports whether s is a JSON number and nothing else.
func isNumber(s string) bool {
	if s == "" || s[0] != '-' && !isDigits(s[:1]) || !isDigits(s[len(s)-1:]) {
		return false
	}
	return json.Valid([]byte(s))
}

// quote returns text as a JSON string.
func quote(text string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// loneSurrogate reports whether a JSON string has an escaped half of a character. Decoding replaces it, so two users could become one.
func loneSurrogate(token []byte) bool {
	unit := func(s []byte) (rune, bool) { // decodes the escape, backslash u and four digits, that s begins with
		if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
		return rune(n), err == nil
	}
	for i := 0; i < len(token); i++ {
		if token[i] != '\\' {
			continue
		}
		if one, ok := unit(token[i:]); ok && utf16.IsSurrogate(one) {
			two, ok := unit(token[i+6:])
			if !ok || utf16.DecodeRune(one, two) == utf8.RuneError {
				return true
			}
			i += 6
		}
		i++ // what is escaped, a backslash too
	}
	return false
}

func timeOfJSON(token json.RawMessage) (int64, bool) {
	text := string(token)
	if token[0] == '"' {
		if json.Unmarshal(token, &text) != nil {
			return 0, false
		}
		if ms, ok := parseTime(text); ok {
			return ms, true
		}
	}
	return parseMillis(text)
}

// parseMillis reads a number of milliseconds since 1970, without its fraction. It refuses small numbers, which may be seconds.
func parseMillis(text string) (int64, bool) {
	if !isNumber(text) {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(text, 64) // exact for whole numbers up to 2^53, which is beyond the year 9999
		if err != nil || math.Abs(f) > 1<<53 {
			return 0, false
		}
		n = int64(math.Floor(f))
	}
	return n, n >= 100_000_000_000 && inRange(n)
}

// forms of times, but for their zones.
var forms = []string{"2006-01-02 15:04:05", "2006-01-02 15:04"}

// zones are where a time's zone begins: UTC or a distance from it, and a name that means nothing.
var zones = regexp.MustCompile(`^( UTC|[Zz]|)$|^(?:[Zz]| ?([+-])(\d\d)(?::?(\d\d))?)(\[[A-Za-z0-9/_+:-]{1,38}\]| [A-Z]{3,5})?$`)

// parseTime returns the epoch milliseconds of RFC 3339, of the data set's "2006-01-02 15:04:05 UTC", and of what Java, Go and databases write. The zone
// may be missing, which is UTC; date and time are set apart by T or a space. Fractions of up to 9 digits are cut off after the millisecond.
func parseTime(s string) (int64, bool) {
	form := forms[1]
	if len(s) >= len(forms[0]) && s[len(form)] == ':' {
		form = forms[0]
	}
	if len(s) < len(form) || !strings.ContainsRune("Tt ", rune(s[10])) {
		return 0, false
	}
	// All digits in their places: time.Parse would take "1:02:03" too.
	for i, c := range []byte(s[:len(form)]) {
		if isDigits(form[i:i+1]) != isDigits(string(rune(c))) {
			return 0, false
		}
	}
	t, err := time.Parse(form, s[:10]+" "+s[11:len(form)])
	if err != nil {
		return 0, false
	}
	ms := t.UnixMilli()
	zone := s[len(form):]
	if form == forms[0] && (strings.HasPrefix(zone, ".") || strings.HasPrefix(zone, ",")) {
		n := 1
		for n < len(zone) && isDigits(zone[n:n+1]) {
			n++
		}
		if n < 2 || n > 10 {
			return 0, false
		}
		milli, _ := strconv.Atoi((zone[1:n] + "00")[:3])
		ms += int64(milli)
		zone = zone[n:]
	}
	if zone == "" || zone == " UTC" || zone == "Z" { // nearly all
		return ms, inRange(ms)
	}
	m := zones.FindStringSubmatch(zone)
	if m == nil {
		return 0, false
	}
	if m[3] != "" {
		hours, _ := strconv.Atoi(m[3])
		minutes, _ := strconv.Atoi(m[4])
		if hours > 23 || minutes > 59 {
			return 0, false
		}
		east := int64(hours*60+minutes) * 60_000
		if m[2] == "-" {
			east = -east
		}
		ms -= east
	}
	return ms, inRange(ms)
}

// inRange refuses times before 1970 and after the year 9999.
func inRange(ms int64) bool {
	return ms >= 0 && ms < time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
}
