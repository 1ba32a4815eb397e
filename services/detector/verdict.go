package detector

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/window"
)

// record turns a verdict into the alert that is written.
func (c Config) record(v window.Verdict) alert.Record {
	p := v.Pane
	state := alert.Opened
	if v.Final {
		state = alert.Closed
	}
	r := alert.Record{
		ID:   alert.ID(alert.Burst, v.User, p.StartMS, p.SizeMS),
		Rule: alert.Burst, State: state, Severity: alert.SeverityOf(p.Count, c.Critical),
		UserID: json.RawMessage(v.User), Count: p.Count, Threshold: c.Threshold,
		WindowStart: at(p.StartMS), WindowEnd: at(p.EndMS()), FirstEventAt: at(p.FirstMS), LastEventAt: at(p.LastMS),
		Evidence: alert.Evidence{Topic: c.Layout.Names.Activity, Partitions: make(map[string]alert.OffsetRange)},
	}
	for _, e := range p.Evidence() {
		r.Evidence.Partitions[strconv.Itoa(int(e.Partition))] = alert.OffsetRange{First: e.First, Last: e.Last}
	}
	return r
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// message returns the key and the value of an alert in the topic; key and value are empty if the state is not to be written.
func (c Config) message(v window.Verdict) (key string, value []byte, state alert.State, err error) {
	r := c.record(v)
	if !slices.Contains(c.Transitions, r.State) {
		return "", nil, r.State, nil
	}
	value, err = r.Encode()
	if err != nil {
		return "", nil, r.State, err
	}
	return activity.UserText([]byte(v.User)), value, r.State, nil
}
