package rule

import (
	"bytes"
	"unicode/utf8"

	"spate/shared/activity"
)

// FromJSON converts a JSON value to type t, as Flink's JSON format does with ignore-parse-errors: what does not convert is NULL. Text with escapes is
// appended to room, which is returned; other text is part of token.
func FromJSON(t Type, token, room []byte) (Value, []byte) {
	text := token
	if token[0] == '"' {
		text = token[1 : len(token)-1]
		if bytes.IndexByte(text, '\\') >= 0 || !utf8.Valid(text) {
			from := len(room)
			room = activity.AppendUnquoted(room, text)
			text = room[from:]
		}
	}
	switch {
	case t.Kind == String:
		return StringValue(text), room
	case token[0] == '{' || token[0] == '[':
		return Value{}, room
	case t.Kind == Boolean:
		return fromJSONBool(text), room
	}
	if t.whole() {
		if n, ok := digits(token); ok && inRange(t.Kind, n) {
			return Value{set: true, n: n, text: token}, room
		}
	}
	v, ok := Parse(t, bytes.TrimSpace(text))
	if !ok {
		return Value{}, room
	}
	return v, room
}

// digits reads a whole number that is written as AppendJSON writes it, and is not negative.
func digits(token []byte) (n int64, ok bool) {
	if len(token) > 18 || token[0] == '0' && len(token) > 1 {
		return 0, false
	}
	for _, c := range token {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// fromJSONBool is TRUE for true, in any case, and FALSE for all other text.
func fromJSONBool(text []byte) Value {
	return BoolValue(bytes.EqualFold(bytes.TrimSpace(text), []byte("true")))
}

// ParseTime reads a JSON string that is a time in UTC, with up to nine digits behind the second.
func ParseTime(token []byte) (Value, bool) {
	if len(token) < 2 || token[0] != '"' {
		return Value{}, false
	}
	return parseTime(token[1 : len(token)-1])
}
