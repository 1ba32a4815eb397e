package simulator

import "spate/shared/activity"

// Row is one event on its way to the sink.
type Row struct {
	Event activity.Event
	// TimeMS is the event time in epoch milliseconds, if HasTime: that of txn_timestamp if there is one, else of event_time.
	TimeMS int64
	// HasTime is false if that time cannot be read. Such a row is sent where it stands, for the pipeline to refuse.
	HasTime bool
	// DelayMS is how much later than its time the event arrives; not 0 only with disorder.
	DelayMS int64
	// JSON is what is sent, if the file has other columns than the data set or has JSON itself; else it is made of Event.
	JSON   []byte
	TimeAt activity.Place // where JSON's time is
	// Kind says which attacker or innocent sent the event, and Attack what the event is part of; empty is a shopper, or a row of a file.
	Kind   Kind
	Attack *Attack
	// Together: the event has the time of the row before it, whatever the time mode. It is a line of the same order, or the same event again.
	Together bool
	// What the events of some kinds have besides the columns of the data set; empty is absent. Only JSON has it.
	IP, UserAgent, Coupon string
}

// AppendJSON appends what is sent.
func (r *Row) AppendJSON(b []byte) []byte {
	if r.JSON != nil {
		return append(b, r.JSON...)
	}
	b = r.Event.AppendJSON(b)
	if r.IP == "" && r.UserAgent == "" && r.Coupon == "" {
		return b
	}
	b = b[:len(b)-1]
	for _, m := range [...]struct{ name, value string }{{`,"ip":`, r.IP}, {`,"user_agent":`, r.UserAgent}, {`,"coupon":`, r.Coupon}} {
		if m.value != "" {
			b = activity.AppendString(append(b, m.name...), m.value)
		}
	}
	return append(b, '}')
}

// Source is where rows come from, in the order they happen.
type Source interface {
	// Next overwrites *r with the next row, or returns io.EOF after the last one. Any other error ends the run after the rows
	// that came before. Strings of r stay valid after further calls.
	Next(r *Row) error
}

// rowTime reads the event time, written as format says, out of r's text.
func (r *Row) rowTime(buf []byte, format activity.TimeFormat) []byte {
	text := r.Event.TxnTimestamp
	if text == "" {
		text = r.Event.EventTime
	}
	buf = append(buf[:0], text...)
	var reason activity.Reason
	r.TimeMS, reason = format.Parse(buf, true)
	r.HasTime = reason == activity.ReasonNone
	return buf
}
