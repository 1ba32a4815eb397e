package explainer

import (
	"strings"
	"testing"
	"time"
)

// TestProvisionalWaiting: the numbers of an alert whose window is open include events that the router has not judged, and the text says so.
func TestProvisionalWaiting(t *testing.T) {
	at := time.Unix(1000, 0).UTC()
	a := &Answer{Reason: Holds, Provisional: true, Start: at, End: at.Add(10 * time.Second), Watermark: at, Numbers: Numbers{Counted: 14, Waiting: 5}, group: &Group{}}
	if text := a.done().Text; !strings.Contains(text, " This includes 5 events that are in the log but not counted yet: the router is behind or is not running. The window closes when ") {
		t.Error(text)
	}
	a.Numbers.Waiting = 0
	if text := a.done().Text; strings.Contains(text, "includes") {
		t.Error(text)
	}
}
