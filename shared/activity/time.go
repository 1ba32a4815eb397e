package activity

// ParseTime returns the epoch milliseconds (UTC) of a time that is written as in RFC 3339, or in one of the forms
// that the data set and its relatives use:
//
//	date       2006-01-02, year 0000 to 9999, the day must exist
//	separator  T, t or one space
//	time       15:04:05, no leap second, seconds required
//	fraction   none, or a dot and 1 to 9 digits; what is finer than a millisecond is cut off (floored)
//	zone       none (means UTC), Z, z, +hh:mm, -hh:mm with hh to 23 and mm to 59, or " UTC"
//
// It is stricter than time.Parse, which also takes one-digit hours, a comma before the fraction, more than 9 digits
// in it and offsets of 24 hours or 60 minutes. A zone can move the result out of the years 0 to 9999. It does not
// allocate.
func ParseTime(s []byte) (ms int64, ok bool) {
	const form = len("2006-01-02T15:04:05")
	if len(s) < form ||
		s[4] != '-' || s[7] != '-' || (s[10] != 'T' && s[10] != ' ' && s[10] != 't') || s[13] != ':' || s[16] != ':' {
		return 0, false
	}
	year := digits2(s[0], s[1])*100 + digits2(s[2], s[3])
	month, day := digits2(s[5], s[6]), digits2(s[8], s[9])
	hour, minute, second := digits2(s[11], s[12]), digits2(s[14], s[15]), digits2(s[17], s[18])
	if year > 9999 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}

	s = s[form:]
	milli := 0
	if len(s) > 0 && s[0] == '.' {
		n := 1
		for unit := 100; n < len(s) && s[n]-'0' <= 9; n++ {
			milli += unit * int(s[n]-'0')
			unit /= 10
		}
		if n < 2 || n > 10 {
			return 0, false
		}
		s = s[n:]
	}

	offset := 0 // minutes east of UTC
	switch {
	case len(s) == 0, len(s) == 1 && (s[0] == 'Z' || s[0] == 'z'), string(s) == " UTC":
	case len(s) == len("+00:00") && (s[0] == '+' || s[0] == '-') && s[3] == ':':
		hh, mm := digits2(s[1], s[2]), digits2(s[4], s[5])
		if hh > 23 || mm > 59 {
			return 0, false
		}
		offset = hh*60 + mm
		if s[0] == '-' {
			offset = -offset
		}
	default:
		return 0, false
	}
	minutes := (int64(epochDay(year, month, day))*24+int64(hour))*60 + int64(minute-offset)
	return (minutes*60+int64(second))*1000 + int64(milli), true
}

// digits2 returns the number of two decimal digits; if one is no digit, one that is too large for any field.
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
