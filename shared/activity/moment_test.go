package activity

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.Date(2020, 11, 24, 9, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2020-11-24T09:30:00Z":      "2020-11-24T09:30:00Z",
		"2020-11-24 10:30:00+01:00": "2020-11-24T09:30:00Z",
		"2020-11-24 08:15":          "2020-11-24T08:15:00Z",
		"2020-11-24":                "2020-11-24T00:00:00Z",
		"1h30m":                     "2020-11-24T08:00:00Z",
		"0s":                        "2020-11-24T09:30:00Z",
		"2d":                        "2020-11-22T09:30:00Z",
		"":                          "", "2026-02-30": "", "-1h": "", "-2d": "", "1": "", "99999999d": "", "yesterday": "",
	} {
		got, ok := Moment(text, now)
		if ok != (want != "") || ok && got.Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
}
