package activity

import (
	"strings"
	"testing"
)

func TestTimeFormats(t *testing.T) {
	const ms = 1572566400123
	for _, c := range []struct {
		format TimeFormat
		token  string
		ms     int64
		reason Reason
	}{
		{TimeS, `1572566400`, 1572566400000, ""},
		{TimeS, `1572566400.123`, ms, ""},
		{TimeS, `1572566400.1239`, ms, ""},
		{TimeS, `1.572566400123e9`, ms, ""},
		{TimeS, `"1572566400.123"`, ms, ""},
		{TimeS, `0`, 0, ""},
		{TimeS, `-0.0001`, 0, ReasonTimeRange},
		{TimeS, `253402300799.999`, maxTimeMS, ""},
		{TimeS, `253402300800`, 0, ReasonTimeRange},
		{TimeS, `1e400`, 0, ReasonTimeRange},
		{TimeS, `0e99999999999999999999`, 0, ""},
		{TimeS, `1e-99999999999999999999`, 0, ""},
		{TimeS, `"2019-11-01 00:00:00"`, 0, ReasonBadTime},
		{TimeS, `"1572566400 "`, 0, ReasonBadTime},
		{TimeS, `""`, 0, ReasonBadTime},
		{TimeS, `true`, 0, ReasonBadTime},
		{TimeMS, `7`, 7, ""},
		{TimeMS, `1572566400123.9`, ms, ""},
		{TimeUS, `1572566400123456`, ms, ""},
		{TimeUS, `1572566400123456.7`, ms, ""},
		{TimeUS, `999`, 0, ""},
		{TimeUS, `-1`, 0, ReasonTimeRange},
		{TimeNS, `1572566400123456789`, ms, ""},
		{TimeNS, `"1572566400123456789"`, ms, ""},
		{TimeNS, `9223372036854775808`, 9223372036854, ""},
		{TimeNS, `1.572566400123456789e18`, ms, ""},
		{TimeRFC3339, `"2019-11-01T00:00:00.123Z"`, ms, ""},
		{TimeRFC3339, `1572566400123`, 0, ReasonBadTime},
		{TimeRFC3339, `"1572566400123"`, 0, ReasonBadTime},
		{TimeAuto, `1572566400123`, ms, ""},
		{TimeAuto, `1572566400`, 0, ReasonBadTime},
		{TimeAuto, `1572566400123456`, 0, ReasonTimeRange},
		{"", `"1572566400123"`, ms, ""},
		{"02.01.2006 15:04:05", `"01.11.2019 00:00:00"`, 1572566400000, ""},
		{"02.01.2006 15:04:05", `"11/01/2019 00:00:00"`, 0, ReasonBadTime},
		{"02.01.2006 15:04:05", `1572566400123`, 0, ReasonBadTime},
		{"Jan 2, 2006 3:04:05 PM -0700", `"Nov 1, 2019 1:00:00 AM +0100"`, 1572566400000, ""},
		{"2006-01-02 15:04:05", `"2019-11-01\u002000:00:00"`, 1572566400000, ""},
	} {
		if got, reason := c.format.Instant([]byte(c.token)); got != c.ms || reason != c.reason {
			t.Errorf("%s as %s: %d %q, want %d %q", c.token, c.format, got, reason, c.ms, c.reason)
		}
	}
}

func TestTimeFormatValidate(t *testing.T) {
	for format, ok := range map[TimeFormat]bool{
		"": true, TimeAuto: true, TimeS: true, TimeMS: true, TimeUS: true, TimeNS: true, TimeRFC3339: true,
		"02.01.2006 15:04:05": true, "2006-01-02T15:04:05Z07:00": true, "Mon Jan _2 15:04:05 2006": true, "2006-01-02 15:04:05.000": true,
		"02.01.2006": false, "15:04:05": false, "seconds": false, "S": false, "yyyy-MM-dd HH:mm:ss": false, "%Y-%m-%d": false, "2006-01-02 15:04": false,
	} {
		if err := format.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", format, err)
		}
	}
}

// Whoever reads why something is not an event knows which setting to change, and sees no more of it than fits a line.
func TestExplain(t *testing.T) {
	nested := Fields{User: []string{"actor.id"}, Time: []string{"at"}}
	for _, c := range []struct {
		fields Fields
		value  string
		want   []string
	}{
		{DefaultFields(), `{"user":{"id":7},"a.b":1,"event_time":1572566400123}`, []string{`no field "user_id"`, `a\.b, event_time, user.id`, "SPATE_USER_FIELD"}},
		{DefaultFields(), `{"a.":{"b..":{"c.....":{"d":{"e":1}}}}}`, []string{`a\..b\.\..c\.\.\.\.\..d.e: set`}}, // dots in names are no levels
		{nested, `{"actor":7,"at":1572566400123}`, []string{`no field "actor.id"`, "it has actor, at"}},
		{DefaultFields(), `{"user_id":7,"ts":1572566400123}`, []string{`no field "txn_timestamp" or "event_time"`, "SPATE_TIME_FIELD"}},
		{DefaultFields(), `{"user_id":7,"event_time":1572566400}`, []string{"1572566400 looks like seconds", "to s"}},
		{DefaultFields(), `{"user_id":7,"event_time":1572566400123456}`, []string{"looks like microseconds", "to us"}},
		{DefaultFields(), `{"user_id":7,"event_time":1572566400123456789}`, []string{"looks like nanoseconds", "to ns"}},
		{DefaultFields(), `{"user_id":7,"event_time":1572}`, []string{"a number in an unknown unit"}},
		{DefaultFields(), `{"user_id":7,"event_time":"01.11.2019 00:00:00"}`, []string{`"01.11.2019 00:00:00"`, "a Go layout, such as 02.01.2006 15:04:05"}},
		{Fields{User: []string{"u"}, Time: []string{"t"}, TimeFormat: TimeS}, `{"u":7,"t":"2019-11-01"}`, []string{"not a number of s since 1970"}},
		{Fields{User: []string{"u"}, Time: []string{"t"}, TimeFormat: "02.01.2006 15:04:05"}, `{"u":7,"t":"2019-11-01"}`, []string{`does not match "02.01.2006 15:04:05"`}},
		{DefaultFields(), `{"user_id":[7],"event_time":1572566400123}`, []string{"neither a number nor a string"}},
		{DefaultFields(), `{"user_id":7,`, []string{"not valid JSON: unexpected end"}},
		{DefaultFields(), `[]`, []string{"not an object"}},
		{DefaultFields(), ``, []string{"no value"}},
		{DefaultFields(), `{"user_id":7,"event_time":"` + strings.Repeat("x", 5000) + "\xff" + `"}`, []string{"xxx...", "SPATE_TIME_FORMAT"}},
		{DefaultFields(), `{` + strings.Repeat(`"a":1,`, 5000) + strings.Repeat(`"b\n":1,`, 10) + `"c":2}`, []string{"it has a, b\n, c"}},
	} {
		s := newScanner(t, c.fields)
		_, reason := s.Scan([]byte(c.value))
		if reason == ReasonNone {
			t.Errorf("%s is an event", clip([]byte(c.value)))
			continue
		}
		got := s.Explain([]byte(c.value), reason)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s, which lacks %q", clip([]byte(c.value)), got, want)
			}
		}
		if len(got) > 1000 {
			t.Errorf("%d bytes: %s", len(got), got)
		}
	}
}
