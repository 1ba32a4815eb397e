package activity

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"
)

// timeForm is the grammar of ParseTime, without the bounds of date and time of day.
var timeForm = regexp.MustCompile(
	`^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?` +
		`(?:()| UTC|[Zz](?:\[[A-Za-z0-9/_+:-]{1,38}\]| [A-Z]{3,5})?| ?([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?(?:\[[A-Za-z0-9/_+:-]{1,38}\]| [A-Z]{3,5})?)$`)

// oracleTime is ParseTime by way of package time, which reads the form that a regular expression makes of it.
func oracleTime(s string) (int64, bool) {
	m := timeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	date, clock, second, fraction, sign, hh, mm := m[1], m[2], m[3], m[4], m[6], m[7], m[8]
	text := date + "T" + clock + ":" + (second + "00")[:2] + "." + (fraction + "000000000")[:9]
	if sign != "" {
		text += sign + hh + ":" + (mm + "00")[:2]
	} else {
		text += "Z"
	}
	t, err := time.Parse("2006-01-02T15:04:05.000000000Z07:00", text)
	if err != nil {
		return 0, false
	}
	return t.UnixMilli(), true
}

func checkTime(t *testing.T, s string) {
	t.Helper()
	want, wantOK := oracleTime(s)
	got, ok := ParseTime([]byte(s))
	if got != want || ok != wantOK {
		t.Errorf("%q: got %d %v, want %d %v", s, got, ok, want, wantOK)
	}
}

var timeSeeds = []string{
	"2019-11-01 00:00:00 UTC", "2019-11-01T00:00:00.123", "2019-11-01T00:00:00Z", "2019-11-01t23:59:59.999999999z",
	"2019-11-01T00:00:00+05:30", "2019-11-01 00:00:00-23:59", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
	"0000-02-29T00:00:00", "1900-02-29T00:00:00", "2000-02-29T00:00:00", "2024-02-29T00:00:00", "2023-02-29T00:00:00",
	"1969-12-31T23:59:59.9999Z", "2019-11-01T00:00:00-00:00", "0000-02-28T00:00:00", "0000-03-01T00:00:00",

	// As databases and languages write them.
	"2019-11-01T00:00:00.000+0000", "2019-11-01 00:00:00+00", "2019-11-01 00:00:00,000", "2019-11-01T00:00Z", "2019-11-01T00:00", "2019-11-01T00:00:00Z[UTC]",
	"2019-11-01T01:00+01:00[Europe/Berlin]", "2019-11-01 00:00:00 +0000 UTC", "2019-11-01 00:00:00.5 +0100 CET", "2019-11-01T00:00:00+0530", "2019-11-01T00:00:00-05",
	"2019-11-01 00:00:00 +00:00",

	"2019-11-01T00:00:00+053", "2019-11-01T00:00:00+05300", "2019-11-01T00:00:00+5", "2019-11-01T00:00:00Z[]", "2019-11-01T00:00:00Z[Europe/Berlin", "2019-11-01T00:00:00[UTC]",
	"2019-11-01T00:00:00 +0000 utc", "2019-11-01T00:00:00 +0000 UT", "2019-11-01T00:00:00 +0000 UTC+1", "2019-11-01T00:00.5", "2019-11-01T00:00:", "2019-11-01T00:00:0",
	"2019-11-01 00:00:00 CET", "01.11.2019 00:00:00", "11/01/2019 00:00:00", "2019-11-01T00:00:00 Z", "2019-11-01T00:00:00Z UTC", "2019-11-01T00:00:00, Z",

	// Accepted by time.Parse or other readers of RFC 3339, not by ParseTime.
	"2019-11-01T0:00:00Z", "2019-11-01T00:00:00.1234567891Z", "2019-11-01T00:00:00+24:00",
	"2019-11-01T00:00:00+00:60", "2019-11-01T23:59:60Z", "2019-11-01T24:00:00Z", "20191101T000000Z",
	"+2019-11-01T00:00:00Z", "2019-11-01T00:00:00 GMT",
	"2019-11-01T00:00:00 utc", "2019-11-01T00:00:00  UTC", "2019-11-01T00:00:00 Z", "2019-11-01T00:00:00.Z", "2019-11-01",

	"", "T", "2019-11-01T00:00:00.", "2019-11-01T00:00:00UTC", "2019-00-01T00:00:00", "2019-13-01T00:00:00",
	"2019-04-31T00:00:00", "2019-04-00T00:00:00", "2019-11-01T00:60:00", "201x-11-01T00:00:00", "2019-11-01T00:00:0x",
	"2019/11/01T00:00:00", "2019-11-01_00:00:00", "2019-11-01T00.00.00", " 2019-11-01T00:00:00", "2019-11-01T00:00:00 ",
	"2019-11-01T00:00:00\x00", "2019-11-01T-1:00:00", "2019-11-01T00:00:00+-1:00",
}

func TestParseTime(t *testing.T) {
	for s, want := range map[string]int64{
		"2019-11-01 00:00:00 UTC":        1572566400000,
		"2019-11-01T00:00:00.123":        1572566400123,
		"2019-11-01T00:00:00.1239+01:00": 1572562800123,
		"1969-12-31T23:59:59.9999Z":      -1,
		"0000-01-01T00:00:00z":           -62167219200000,
		"9999-12-31T23:59:59.999":        maxTimeMS,
	} {
		if got, ok := ParseTime([]byte(s)); !ok || got != want {
			t.Errorf("%q: got %d %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range timeSeeds {
		checkTime(t, s)
	}
}

// TestParseTimeEveryDay goes through the whole calendar, non-existing days included.
func TestParseTimeEveryDay(t *testing.T) {
	for year := range 10000 {
		for month := 1; month <= 12; month++ {
			first := time.Date(year, time.Month(month), 1, 0, 0, 0, 0, time.UTC)
			for day := 28; day <= 32; day++ {
				s := fmt.Appendf(nil, "%04d-%02d-%02dT00:00:00", year, month, day)
				want := first.AddDate(0, 0, day-1)
				got, ok := ParseTime(s)
				if ok != (want.Month() == first.Month()) || ok && got != want.UnixMilli() {
					t.Fatalf("%s: got %d %v, want %d", s, got, ok, want.UnixMilli())
				}
			}
		}
	}
}

func TestParseTimeRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	accepted := 0
	for range 20000 {
		s := randomTime(rnd)
		if rnd.IntN(4) == 0 {
			s = string(mutate(rnd, []byte(s), "0123456789-+:.TtZz UTC\xff"))
		}
		checkTime(t, s)
		if _, ok := ParseTime([]byte(s)); ok {
			accepted++
		}
	}
	if accepted < 10000 {
		t.Errorf("only %d of 20000 times were accepted", accepted)
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range timeSeeds {
		f.Add(s)
	}
	f.Fuzz(checkTime)
}

func TestParseTimeDoesNotAllocate(t *testing.T) {
	s := []byte("2019-11-01 00:00:00 UTC")
	if n := testing.AllocsPerRun(100, func() { ParseTime(s) }); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}

func BenchmarkParseTime(b *testing.B) {
	b.ReportAllocs()
	s := []byte("2019-11-01T00:00:00.123")
	for b.Loop() {
		ParseTime(s)
	}
}

// randomMS returns a time of the years 0 to 9999.
func randomMS(rnd *rand.Rand) int64 {
	const first = -62167219200000
	return first + rnd.Int64N(maxTimeMS-first+1)
}

// randomTime returns a random time in a random one of ParseTime's forms.
func randomTime(rnd *rand.Rand) string {
	t := time.UnixMilli(randomMS(rnd)).UTC().Add(time.Duration(rnd.IntN(1e6)))
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	clock := "15:04"
	if rnd.IntN(8) > 0 {
		clock = "15:04:05" + pick("", ".0", ".00", ".000", ".000", ".0000", ".000000", ".00000000", ".000000000", ",000", ",000000")
	}
	offset := fmt.Sprintf("%s%s%02d%s", pick("", "", " "), pick("+", "-"), rnd.IntN(24), pick("", fmt.Sprintf("%02d", rnd.IntN(60)), fmt.Sprintf(":%02d", rnd.IntN(60))))
	return t.Format("2006-01-02"+pick("T", "T", "t", " ")+clock) + pick("", "Z", "z", " UTC", offset, offset, offset+pick("[UTC]", "[Europe/Berlin]", " UTC", " CET", " x"), "Z[UTC]")
}

// mutate changes up to three places of b: a byte replaced, inserted (mostly one of likely) or removed, or a cut.
func mutate(rnd *rand.Rand, b []byte, likely string) []byte {
	b = append([]byte(nil), b...)
	for range 1 + rnd.IntN(3) {
		if len(b) == 0 {
			return b
		}
		c := byte(rnd.IntN(256))
		if rnd.IntN(4) > 0 {
			c = likely[rnd.IntN(len(likely))]
		}
		switch i := rnd.IntN(len(b)); rnd.IntN(8) {
		case 0:
			b = b[:i]
		case 1, 2:
			b = append(b[:i], b[i+1:]...)
		case 3, 4:
			b = append(b[:i], append([]byte{c}, b[i:]...)...)
		default:
			b[i] = c
		}
	}
	return b
}
