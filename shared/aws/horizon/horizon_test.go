package horizon_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"spate/shared/aws/horizon"
	"spate/shared/aws/stream"
	"spate/shared/window"
)

func TestWrote(t *testing.T) {
	var h horizon.Horizon
	h.Wrote([]stream.Place{{ShardID: "a", SequenceNumber: "9"}, {ShardID: "b", SequenceNumber: "7"}, {ShardID: "a", SequenceNumber: "10"}, {ShardID: "a", SequenceNumber: "8"}, {}})
	h.Wrote(nil)
	if len(h.Written) != 2 || h.Written["a"] != "10" || h.Written["b"] != "7" {
		t.Errorf("%v", h.Written)
	}
	for i := range 1100 {
		h.Wrote([]stream.Place{{ShardID: fmt.Sprint(i), SequenceNumber: fmt.Sprint(1000 + i)}})
	}
	if len(h.Written) != 1000 || h.Written["a"] != "" || h.Written["99"] != "" || h.Written["100"] == "" {
		t.Errorf("%d shards", len(h.Written))
	}
}

func TestParse(t *testing.T) {
	at := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	ms := at.UnixMilli()
	for name, c := range map[string]struct {
		h    horizon.Horizon
		ok   bool
		upTo time.Time
	}{
		"closed":          {horizon.Horizon{Closed: ms - 1, Written: map[string]string{}}, true, at},
		"walked on":       {horizon.Horizon{Closed: ms - 1, Over: ms + 999, Written: map[string]string{"a": "1"}}, true, at.Add(time.Second)},
		"went on":         {horizon.Horizon{Closed: ms - 1, Over: ms - 999, Written: map[string]string{}}, true, at},
		"before 1970":     {horizon.Horizon{Closed: -1001, Written: map[string]string{}}, true, time.UnixMilli(-1000).UTC()},
		"nothing":         {horizon.Horizon{Closed: window.NoTime, Written: map[string]string{}}, false, time.Time{}},
		"earlier version": {horizon.Horizon{Closed: ms}, false, time.Time{}},
		"end of time":     {horizon.Horizon{Closed: window.EndOfTime, Written: map[string]string{}}, true, time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		b, err := json.Marshal(c.h)
		if err != nil {
			t.Fatal(err)
		}
		got, ok, err := horizon.Parse(b)
		if err != nil || ok != c.ok || ok && !got.UpTo().Equal(c.upTo) {
			t.Errorf("%s: %v, %v, %v", name, got.UpTo(), ok, err)
		}
	}
	if _, ok, err := horizon.Parse(nil); ok || err != nil {
		t.Errorf("no state: %v, %v", ok, err)
	}
	if _, _, err := horizon.Parse([]byte("{")); err == nil {
		t.Error("broken: no error")
	}
}
