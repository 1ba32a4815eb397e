package detector

import (
	"fmt"
	"slices"
	"strconv"

	"spate/shared/alert"
	"spate/shared/verdict"
	"spate/shared/window"
)

// maxAlertBytes is what brokers take by default, less a frame. That of the widest topic of events, with evidence in each of its partitions, has a
// tenth of it.
const maxAlertBytes = 1<<20 - 64<<10

// record turns a verdict into the alert that is written.
func (d *Detector) record(t verdict.Teller, v window.Verdict) alert.Record {
	r := t.Record(v)
	r.Evidence = alert.Evidence{Topic: d.cfg.Layout.Names.Activity, Partitions: make(map[string]alert.OffsetRange)}
	for _, e := range v.Pane.Evidence() {
		r.Evidence.Partitions[strconv.Itoa(int(e.Partition))] = alert.OffsetRange{First: e.First, Last: e.Last}
	}
	return r
}

// message returns the key and the value of an alert in the topic; key and value are empty if the state is not to be written.
func (d *Detector) message(t verdict.Teller, v window.Verdict) (key string, value []byte, state alert.State, err error) {
	r := d.record(t, v)
	if !slices.Contains(d.cfg.Transitions, r.State) {
		return "", nil, r.State, nil
	}
	value, err = r.Encode()
	if err == nil {
		err = r.Check() // what nobody would take
	}
	if err == nil && len(value) > maxAlertBytes {
		err = fmt.Errorf("alert record is %d bytes long, but the maximum is %d", len(value), maxAlertBytes)
	}
	if err != nil {
		return "", nil, r.State, err
	}
	return r.KeyText(), value, r.State, nil
}
