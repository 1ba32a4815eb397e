package activity

// ParseTime returns the epoch milliseconds (UTC) of a time that is written as in RFC 3339, in one of the forms that the data set and its relatives use,
// or as databases and languages write times by themselves, if that can mean one time only:
//
//	date       2006-01-02, year 0000 to 9999, the day must exist
//	separator  T, t or one space
//	time       15:04:05, no leap second; or 15:04, as Java leaves out the seconds of a full minute
//	fraction   none, or a dot or comma and 1 to 9 digits; what is finer than a millisecond is cut off (floored)
//	zone       none (means UTC), Z, z, " UTC", or +hh:mm, +hhmm or +hh (or with -), perhaps after a space, with hh to 23 and mm to 59
//	name       none, or after a zone the name of one, which does not count: [Europe/Berlin] as Java has it, " UTC" or " CET" as Go has it
//
// A zone can move the result out of the years 0 to 9999. It does not allocate.
func ParseTime(s []byte) (ms int64, ok bool) {
	const minute = len("2006-01-02T15:04")
	if len(s) < minute || s[4] != '-' || s[7] != '-' || (s[10] != 'T' && s[10] != ' ' && s[10] != 't') || s[13] != ':' {
		return 0, false
	}
	year := digits2(s[0], s[1])*100 + digits2(s[2], s[3])
	month, day := digits2(s[5], s[6]), digits2(s[8], s[9])
	hour, minutes, second := digits2(s[11], s[12]), digits2(s[14], s[15]), 0
	milli := 0
	if s = s[minute:]; len(s) > 2 && s[0] == ':' {
		second = digits2(s[1], s[2])
		if milli, s, ok = fraction(s[3:]); !ok {
			return 0, false
		}
	}
	if year > 9999 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minutes > 59 || second > 59 {
		return 0, false
	}
	offset, ok := zone(s)
	if !ok {
		return 0, false
	}
	all := (int64(epochDay(year, month, day))*24+int64(hour))*60 + int64(minutes-offset)
	return (all*60+int64(second))*1000 + int64(milli), true
}

// fraction returns the milliseconds of a fraction that s may begin with, and what follows it.
func fraction(s []byte) (milli int, rest []byte, ok bool) {
	if len(s) == 0 || s[0] != '.' && s[0] != ',' {
		return 0, s, true
	}
	n := 1
	for unit := 100; n < len(s) && s[n]-'0' <= 9; n++ {
		milli += unit * int(s[n]-'0')
		unit /= 10
	}
	return milli, s[n:], n >= 2 && n <= 10
}

// zone returns the minutes that a zone is east of UTC.
func zone(s []byte) (offset int, ok bool) {
	if len(s) == 0 || string(s) == " UTC" {
		return 0, true
	}
	if s[0] == 'Z' || s[0] == 'z' {
		return 0, len(s) == 1 || zoneName(s[1:])
	}
	if s[0] == ' ' {
		s = s[1:]
	}
	if len(s) < 3 || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	west := s[0] == '-'
	hh, mm := digits2(s[1], s[2]), 0
	switch s = s[3:]; {
	case len(s) >= 3 && s[0] == ':':
		mm, s = digits2(s[1], s[2]), s[3:]
	case len(s) >= 2 && s[0]-'0' <= 9:
		mm, s = digits2(s[0], s[1]), s[2:]
	}
	if hh > 23 || mm > 59 || len(s) > 0 && !zoneName(s) {
		return 0, false
	}
	if offset = hh*60 + mm; west {
		offset = -offset
	}
	return offset, true
}

// zoneName reports whether s is the name of a zone that follows one: [Europe/Berlin], or a space and 3 to 5 capital letters.
func zoneName(s []byte) bool {
	if n := len(s); n > 2 && n <= 40 && s[0] == '[' && s[n-1] == ']' {
		for _, c := range s[1 : n-1] {
			if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '/' || c == '_' || c == '-' || c == '+' || c == ':') {
				return false
			}
		}
		return true
	}
	if n := len(s); n < 4 || n > 6 || s[0] != ' ' {
		return false
	}
	for _, c := range s[1:] {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

// digits2 returns the number of two decimal digits; if one is not a digit, one that is too large for any field.
func digits2(tens, ones byte) int {
	tens -= '0'
	ones -= '0'
	if tens > 9 || ones > 9 {
		return 1 << 20
	}
	return int(tens)*10 + int(ones)
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// epochDay returns the days from 1970-01-01 to a date of the proleptic Gregorian calendar, year 0 or later. The year
// is taken to begin in March, so that the leap day is its last one.
func epochDay(year, month, day int) int {
	const (
		epoch  = 719468 // days from 0000-03-01 to 1970-01-01
		era    = 400    // years after which the calendar repeats
		eraDay = 146097
	)
	year += era // keeps January and February of year 0 positive
	if month <= 2 {
		year--
		month += 12
	}
	// (153*m+2)/5 is the day of the year on which month m, counted from March, begins.
	return year*365 + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - epoch - eraDay
}
