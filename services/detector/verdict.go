package detector

import (
	"fmt"
	"slices"
	"strconv"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/verdict"
	"spate/shared/window"
)

// maxAlertBytes is what brokers take by default, less a frame. That of the widest topic of events, with evidence in each of its partitions, has a
// tenth of it.
const maxAlertBytes = 1<<20 - 64<<10

// record turns a verdict into the alert that is written.
func (c Config) record(v window.Verdict) alert.Record {
	r := verdict.Terms{Threshold: c.Threshold, Critical: c.Critical}.Record(v)
	r.Evidence = alert.Evidence{Topic: c.Layout.Names.Activity, Partitions: make(map[string]alert.OffsetRange)}
	for _, e := range v.Pane.Evidence() {
		r.Evidence.Partitions[strconv.Itoa(int(e.Partition))] = alert.OffsetRange{First: e.First, Last: e.Last}
	}
	return r
}

// message returns the key and the value of an alert in the topic; key and value are empty if the state is not to be written.
func (c Config) message(v window.Verdict) (key string, value []byte, state alert.State, err error) {
	r := c.record(v)
	if !slices.Contains(c.Transitions, r.State) {
		return "", nil, r.State, nil
	}
	value, err = r.Encode()
	if err == nil {
		_, err = alert.Parse(value) // what nobody would take
	}
	if err == nil && len(value) > maxAlertBytes {
		err = fmt.Errorf("%d bytes, of which %d are possible", len(value), maxAlertBytes)
	}
	if err != nil {
		return "", nil, r.State, err
	}
	return activity.UserText([]byte(v.User)), value, r.State, nil
}
