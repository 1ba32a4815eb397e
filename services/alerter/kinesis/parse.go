package kinesis

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

// ErrMalformed means that a record is not an alert. Another try cannot help.
var ErrMalformed = errors.New("record is not an alert")

// row is what a record may have, of spate's or of others'.
type row struct {
	ID          json.RawMessage `json:"id"`
	State       json.RawMessage `json:"state"`
	UserID      json.RawMessage `json:"user_id"`
	Count       json.RawMessage `json:"num_actions_per_watermark"`
	WindowStart *string         `json:"window_start"`
	WindowEnd   *string         `json:"window_end"`
}

// parse returns the item that a record is about, or an error that wraps ErrMalformed.
func (c Config) parse(r Record) (dynamodb.Item, error) {
	it, err := c.item(r)
	if err != nil {
		return it, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return it, nil
}

func (c Config) item(r Record) (dynamodb.Item, error) {
	var w row
	if err := json.Unmarshal(r.Data, &w); err != nil {
		return dynamodb.Item{}, fmt.Errorf("decode record: %w", err)
	}
	if len(w.ID) > 0 || len(w.State) > 0 {
		a, err := alert.Parse(r.Data)
		if err != nil {
			return dynamodb.Item{}, err
		}
		return c.Table.Config().Item(a)
	}
	user, err := store.User(w.UserID)
	if err != nil {
		return dynamodb.Item{}, err
	}
	count, err := count(w.Count)
	if err != nil {
		return dynamodb.Item{}, fmt.Errorf("num_actions_per_watermark: %w", err)
	}
	// A row of the original's job comes when its window is over: its count is final.
	a := alert.Record{
		Rule: alert.Burst, State: alert.Closed, Severity: alert.SeverityOf(count, c.Critical), UserID: json.RawMessage(user), Count: count, Threshold: c.Threshold,
	}
	start, end, known, err := c.bounds(w)
	switch {
	case err != nil:
		return dynamodb.Item{}, err
	case known:
		a.ID = alert.ID(alert.Burst, user, start, end-start)
		a.WindowStart, a.WindowEnd = time.UnixMilli(start).UTC(), time.UnixMilli(end).UTC()
		return c.Table.Config().Item(a)
	}
	a.ID = placeID(r.ShardID, r.SequenceNumber)
	return c.Table.Config().Arrived(a, r.ArrivedAt, r.SequenceNumber)
}

// count reads a whole number above 0, as JSON or within a string: who reads these rows makes a number of the text.
func count(token json.RawMessage) (int64, error) {
	if len(token) == 0 {
		return 0, errors.New("is missing")
	}
	n, err := strconv.ParseInt(activity.UserText(token), 10, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%.100s is not a whole number", token)
	case n < 1:
		return 0, fmt.Errorf("%d is below 1", n)
	}
	return n, nil
}

// bounds returns the window in epoch milliseconds, if the row tells it. Flink writes times without a zone, which are UTC.
func (c Config) bounds(w row) (start, end int64, known bool, err error) {
	if w.WindowStart == nil && w.WindowEnd == nil {
		return 0, 0, false, nil
	}
	size := c.Window.Milliseconds()
	if w.WindowStart != nil {
		if start, err = moment("window_start", *w.WindowStart); err != nil {
			return 0, 0, false, err
		}
		end = start + size
	}
	if w.WindowEnd != nil {
		if end, err = moment("window_end", *w.WindowEnd); err != nil {
			return 0, 0, false, err
		}
		if w.WindowStart == nil {
			start = end - size
		}
	}
	for _, ms := range [...]int64{start, end} {
		// A zone or the window's size can move it there, and no JSON of it could be told.
		if y := time.UnixMilli(ms).UTC().Year(); y < 0 || y > 9999 {
			return 0, 0, false, errors.New("window_start, window_end: the window is outside the years 0 to 9999")
		}
	}
	return start, end, true, nil // that the window is not empty is looked at with the rest of the alert
}

func moment(name, text string) (int64, error) {
	ms, ok := activity.ParseTime([]byte(text))
	if !ok {
		return 0, fmt.Errorf("%s: %.100q is not a time", name, text)
	}
	return ms, nil
}

// placeID identifies an alert by the place of its record in the stream, in the form of alert.ID.
func placeID(shard, sequence string) string {
	sum := sha256.Sum256([]byte("spate/1\x00place\x00" + shard + "\x00" + sequence))
	return hex.EncodeToString(sum[:16])
}
