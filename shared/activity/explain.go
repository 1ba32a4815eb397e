package activity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxNames   = 12 // that an explanation names
	maxExample = 160
)

// Explain says in a few words why value is not an event for a reason, and which setting makes it one, if there is any. It is for people: it decodes the
// value, and cuts what it shows of it.
func (s *Scanner) Explain(value []byte, reason Reason) string {
	switch reason {
	case ReasonEmpty:
		return "the record has no value"
	case ReasonNotJSON:
		return "it is not valid JSON: " + why(value)
	case ReasonNotObject:
		return "it is JSON, but not an object"
	case ReasonNoUser:
		if s.has(value, 0, s.users) {
			return fmt.Sprintf("the user in %s is null or empty", or(s.paths[:s.users]))
		}
		return fmt.Sprintf("the event has no field %s; it has %s: set SPATE_USER_FIELD (--user-field) to the field that contains the user", or(s.paths[:s.users]), Members(value))
	case ReasonBadUser:
		return fmt.Sprintf("the user in %s is neither a number nor a string of up to %d bytes (including quotes and escapes)", or(s.paths[:s.users]), maxUser)
	case ReasonNoTime:
		if s.has(value, s.users, s.fields) {
			return fmt.Sprintf("the time in %s is null", or(s.paths[s.users:]))
		}
		return fmt.Sprintf("the event has no field %s; it has %s: set SPATE_TIME_FIELD (--time-field) to the field that contains the event time", or(s.paths[s.users:]), Members(value))
	case ReasonBadTime, ReasonTimeRange:
		return s.explainTime(value)
	case ReasonTimeAhead:
		return "the event time is further in the future than SPATE_MAX_AHEAD allows"
	}
	return string(reason)
}

// explainTime says what is wrong with the time that counts.
func (s *Scanner) explainTime(value []byte) string {
	token := s.timeToken(value)
	shown := Example(token)
	text := strings.Trim(string(token), `"`)
	set := "set SPATE_TIME_FORMAT (--time-format) to "
	if n, ok := digits([]byte(text)); ok && (s.format == "" || s.format == TimeAuto) {
		switch len(text) {
		case 9, 10:
			return fmt.Sprintf("the time %s looks like seconds since 1970: %ss", shown, set)
		case 15, 16, 17:
			return fmt.Sprintf("the time %s looks like microseconds since 1970: %sus", shown, set)
		case 18:
			return fmt.Sprintf("the time %s looks like nanoseconds since 1970: %sns", shown, set)
		}
		if n < minAutoMS {
			return fmt.Sprintf("the time %s is a number in an unknown unit: %ss, ms, us or ns", shown, set)
		}
	}
	if len(text) == 19 && skipNumber(text, 0) == len(text) && (s.format == "" || s.format == TimeAuto) {
		return fmt.Sprintf("the time %s looks like nanoseconds since 1970: %sns", shown, set)
	}
	switch {
	case s.format.numeric():
		return fmt.Sprintf("the time %s is not a number of %s since 1970, as set by SPATE_TIME_FORMAT, or is not between 1970 and 9999", shown, s.format)
	case s.format == "" || s.format == TimeAuto || s.format == TimeRFC3339:
		return fmt.Sprintf("the time %s is not between 1970 and 9999, or its format is unknown or ambiguous: %sa Go layout, such as 02.01.2006 15:04:05", shown, set)
	}
	return fmt.Sprintf("the time %s does not match %q (SPATE_TIME_FORMAT), or is not between 1970 and 9999", shown, string(s.format))
}

// timeToken returns the first time that is there.
func (s *Scanner) timeToken(value []byte) []byte {
	var found places
	if s.find.Find(value, found[:s.fields]) == ReasonNone {
		for _, at := range found[s.users:s.fields] {
			if token := value[at.Start:at.End]; !Absent(token) {
				return token
			}
		}
	}
	return nil
}

// has reports whether value has one of the fields, null or not.
func (s *Scanner) has(value []byte, from, to int) bool {
	var found places
	return s.find.Find(value, found[:s.fields]) == ReasonNone && slices.ContainsFunc(found[from:to], func(p Place) bool { return p.End > 0 })
}

// or joins paths for a person.
func or(paths []string) string {
	quoted := make([]string, len(paths))
	for i, p := range paths {
		quoted[i] = fmt.Sprintf("%q", p)
	}
	return strings.Join(quoted, " or ")
}

// Members names the members of an object, those of objects in it by their paths.
func Members(value []byte) string {
	var object map[string]any
	if json.Unmarshal(value, &object) != nil {
		return "none"
	}
	var paths []string
	var walk func(above []string, m map[string]any)
	walk = func(above []string, m map[string]any) {
		for name, v := range m {
			path := append(slices.Clip(above), name)
			if below, ok := v.(map[string]any); ok && len(path) < maxSegments {
				walk(path, below)
			} else {
				paths = append(paths, Example([]byte(PathText(path))))
			}
		}
	}
	walk(nil, object)
	slices.Sort(paths)
	if n := len(paths); n > maxNames {
		paths = append(paths[:maxNames], fmt.Sprintf("and %d more", n-maxNames))
	}
	if len(paths) == 0 {
		return "none"
	}
	return strings.Join(paths, ", ")
}

// why says where a text stops being JSON.
func why(value []byte) string {
	var whole json.RawMessage
	if err := json.Unmarshal(value, &whole); err != nil {
		return err.Error()
	}
	return "unexpected data after the JSON value"
}

// Example returns value cut to what people can take in, in a valid encoding.
func Example(value []byte) string {
	if len(value) <= maxExample {
		return strings.ToValidUTF8(string(value), string(utf8.RuneError))
	}
	return strings.ToValidUTF8(string(value[:maxExample]), string(utf8.RuneError)) + "..."
}
