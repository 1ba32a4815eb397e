package rule

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"spate/shared/activity"
)

// appendKey appends the key of a group: the JSON of its value, or a JSON array if there is not exactly one. Two groups have the same key only if
// all their values are the same to the bit: -0.0 and 0.0 are two.
func appendKey(b []byte, keys []Key, values []Value) []byte {
	if len(keys) == 1 {
		return AppendJSON(b, keys[0].Type, values[0])
	}
	b = append(b, '[')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendJSON(b, k.Type, values[i])
	}
	return append(b, ']')
}

// parseKey reads a key back into values, and reports whether it is one.
func parseKey(key []byte, keys []Key, values []Value) bool {
	if len(keys) == 1 {
		v, ok := parseJSON(keys[0].Type, key)
		values[0] = v
		return ok
	}
	var parts []json.RawMessage
	if json.Unmarshal(key, &parts) != nil || len(parts) != len(keys) {
		return false
	}
	for i, k := range keys {
		v, ok := parseJSON(k.Type, parts[i])
		if !ok {
			return false
		}
		values[i] = v
	}
	return true
}

// HasKey reports whether the key has these columns, which are sorted.
func (r *Rule) HasKey(columns []string) bool {
	names := make([]string, 0, len(r.Keys))
	for _, k := range r.Keys {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return slices.Equal(names, columns)
}

// IsColumn reports whether the key is a column of the event as it is, not an expression.
func (k Key) IsColumn() bool { return k.node != nil && k.node.op == opInput }

// KeyTokens returns the keys that a person may mean by the text of each column, nil for NULL: there are several if a number and a string are two users.
func (r *Rule) KeyTokens(values map[string]*string) ([]string, error) {
	lists := make([][]string, len(r.Keys))
	for i, k := range r.Keys {
		text := values[k.Name]
		switch {
		case text == nil:
			lists[i] = []string{"null"}
			continue
		case k.Type.Kind == Token:
			lists[i] = activity.UserToken(*text)
			continue
		}
		v, ok := Parse(k.Type, []byte(*text))
		if f, special := notFinite[*text]; special && k.Type.floating() { // as a quotient can be
			v, ok = DoubleValue(f), true
		}
		if _, err := strconv.ParseInt(*text, 10, 64); k.Type.whole() && err != nil {
			ok = false // 1.5 would be 1
		}
		if !ok || k.Type.Kind == Decimal && !exactDecimal(*text, k.Type.Scale) {
			return nil, fmt.Errorf("column %s: %q is not a value of type %v", k.Name, *text, k.Type)
		}
		lists[i] = []string{string(AppendJSON(nil, k.Type, v))}
	}
	if len(lists) == 1 {
		return lists[0], nil
	}
	out := []string{"["}
	for i, list := range lists {
		var longer []string
		for _, before := range out {
			for _, token := range list {
				if i > 0 {
					token = "," + token
				}
				longer = append(longer, before+token)
			}
		}
		out = longer
	}
	for i := range out {
		out[i] += "]"
	}
	return out, nil
}

// notFinite are the floating-point numbers that AppendJSON writes as text.
var notFinite = map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}

// parseJSON reads what AppendJSON writes.
func parseJSON(t Type, token []byte) (Value, bool) {
	if string(token) == "null" {
		return Value{}, true
	}
	if t.Kind == Token {
		return TokenValue(token), len(token) > 0
	}
	if len(token) > 0 && token[0] == '"' {
		var text string
		if json.Unmarshal(token, &text) != nil {
			return Value{}, false
		}
		switch {
		case t.Kind == String:
			return StringValue([]byte(text)), true
		case t.floating():
			f, ok := notFinite[text]
			return DoubleValue(f), ok
		case t.Kind == Decimal, t.Kind == Timestamp:
			return Parse(t, []byte(text))
		}
		return Value{}, false
	}
	switch {
	case t.Kind == Boolean:
		b, err := strconv.ParseBool(string(token))
		return BoolValue(b), err == nil
	case t.floating():
		f, err := strconv.ParseFloat(string(token), 64)
		return DoubleValue(f), err == nil
	case t.whole():
		n, err := strconv.ParseInt(string(token), 10, 64)
		return IntValue(n), err == nil
	}
	return Value{}, false
}
