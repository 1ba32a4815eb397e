package activity

import "time"

// Event is one row of the data set, every column as the text that the file has, and what a sender adds. An empty string means absent.
type Event struct {
	EventTime    string // "2019-11-01 00:00:00 UTC"
	EventType    string // view, cart, remove_from_cart or purchase
	ProductID    string // a decimal number
	CategoryID   string // a decimal number, beyond 2^53: never a float
	CategoryCode string // often absent
	Brand        string // often absent
	Price        string
	UserID       string
	UserSession  string
	TxnTimestamp string // RFC 3339 with milliseconds, the zone may be missing; not a column of the original files
	EventID      string // unique to the event, for those who may be sent it twice; in JSON only, no column of any file
}

// CSVHeader is the first line of a file of AppendCSV lines, without its line end.
const CSVHeader = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session,txn_timestamp"

// AppendJSON appends e as one compact JSON object, members in the order of CSVHeader. The ids and the price are JSON
// numbers if their text is a JSON number, digit by digit as it stands, else JSON strings. An absent product_id,
// category_id or price is null, an absent txn_timestamp or event_id (the last member) is left out, any other absent
// column is "". Invalid UTF-8 is written as U+FFFD. It allocates nothing if b has room.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"event_time":`...)
	b = appendQuoted(b, e.EventTime)
	b = append(b, `,"event_type":`...)
	b = appendQuoted(b, e.EventType)
	b = append(b, `,"product_id":`...)
	b = appendNumber(b, e.ProductID, "null")
	b = append(b, `,"category_id":`...)
	b = appendNumber(b, e.CategoryID, "null")
	b = append(b, `,"category_code":`...)
	b = appendQuoted(b, e.CategoryCode)
	b = append(b, `,"brand":`...)
	b = appendQuoted(b, e.Brand)
	b = append(b, `,"price":`...)
	b = appendNumber(b, e.Price, "null")
	b = append(b, `,"user_id":`...)
	b = appendNumber(b, e.UserID, `""`)
	b = append(b, `,"user_session":`...)
	b = appendQuoted(b, e.UserSession)
	if e.TxnTimestamp != "" {
		b = append(b, `,"txn_timestamp":`...)
		b = appendQuoted(b, e.TxnTimestamp)
	}
	if e.EventID != "" {
		b = append(b, `,"event_id":`...)
		b = appendQuoted(b, e.EventID)
	}
	return append(b, '}')
}

// AppendString appends text as a JSON string.
func AppendString[T []byte | string](b []byte, text T) []byte { return appendQuoted(b, text) }

// AppendValue appends text as a JSON number if it is one, else as a JSON string.
func AppendValue(b []byte, text string) []byte { return appendNumber(b, text, `""`) }

// appendNumber appends text as a JSON number if it is one, else as a JSON string; absent stands for no text.
func appendNumber(b []byte, text, absent string) []byte {
	switch {
	case text == "":
		return append(b, absent...)
	case isNumber(text):
		return append(b, text...)
	}
	return appendQuoted(b, text)
}

// AppendCSV appends e as one CSV line (RFC 4180 quoting, where needed) that ends in a line feed, columns in the order
// of CSVHeader. It allocates nothing if b has room.
func (e *Event) AppendCSV(b []byte) []byte {
	for i, column := range [...]string{
		e.EventTime, e.EventType, e.ProductID, e.CategoryID, e.CategoryCode,
		e.Brand, e.Price, e.UserID, e.UserSession, e.TxnTimestamp,
	} {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendColumn(b, column)
	}
	return append(b, '\n')
}

func appendColumn(b []byte, text string) []byte {
	plain := true
	for i := range len(text) {
		switch text[i] {
		case '"', ',', '\r', '\n':
			plain = false
		}
	}
	if plain {
		return append(b, text...)
	}
	b = append(b, '"')
	for i := range len(text) {
		if text[i] == '"' {
			b = append(b, '"')
		}
		b = append(b, text[i])
	}
	return append(b, '"')
}

// AppendTime appends the time that is ms epoch milliseconds as UTC in the form "2006-01-02T15:04:05.000Z". It
// allocates nothing if b has room. Years outside 0 to 9999 come out as package time writes them.
func AppendTime(b []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, "2006-01-02T15:04:05.000Z")
	}
	hour, minute, second := t.Clock()
	milli := t.Nanosecond() / 1e6
	b = append2(append2(b, year/100), year%100)
	b = append2(append(b, '-'), int(month))
	b = append2(append(b, '-'), day)
	b = append2(append(b, 'T'), hour)
	b = append2(append(b, ':'), minute)
	b = append2(append(b, ':'), second)
	b = append(b, '.', byte('0'+milli/100))
	return append(append2(b, milli%100), 'Z')
}

// append2 appends n, which is 0 to 99, as two digits.
func append2(b []byte, n int) []byte {
	return append(b, byte('0'+n/10), byte('0'+n%10))
}
