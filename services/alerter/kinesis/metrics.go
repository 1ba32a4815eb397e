package kinesis

import (
	"io"

	"spate/shared/aws/emf"
)

// The names of the metrics, other than the one that has its name from the settings.
const (
	metricRecords        = "records"         // that came
	metricMoved          = "closed"          // alerts that were open and are closed now
	metricRepeated       = "repeated"        // records of what was known already
	metricMalformed      = "malformed"       // records that are not an alert
	metricConflicts      = "conflicts"       // records that contradict what is stored
	metricNotified       = "notified"        // messages published
	metricNotifyFailures = "notify_failures" // messages that the topic did not take
	metricStoreErrors    = "store_errors"    // records that the table did not take
	metricNotTried       = "not_tried"       // records left for the next try of the batch
	metricAge            = "record_age"      // of a batch's newest record, from its arrival in the stream to its end here
)

var otherMetrics = []string{
	metricRecords, metricMoved, metricRepeated, metricMalformed, metricConflicts, metricNotified, metricNotifyFailures, metricStoreErrors,
	metricNotTried, metricAge,
}

type metrics struct {
	sink *emf.Sink

	records, made, moved, repeated, malformed, conflicts, notified, notifyFailures, storeErrors, notTried *emf.Counter
	age                                                                                                   *emf.Values
}

// newMetrics declares all: the names are the whole of what is billed.
func newMetrics(w io.Writer, namespace, alerts string) *metrics {
	if w == nil {
		w = io.Discard
	}
	s := emf.New(w, namespace, "alerter")
	return &metrics{
		sink: s, records: s.Counter(metricRecords), made: s.Counter(alerts), moved: s.Counter(metricMoved), repeated: s.Counter(metricRepeated),
		malformed: s.Counter(metricMalformed), conflicts: s.Counter(metricConflicts), notified: s.Counter(metricNotified),
		notifyFailures: s.Counter(metricNotifyFailures), storeErrors: s.Counter(metricStoreErrors), notTried: s.Counter(metricNotTried),
		age: s.Values(metricAge, emf.Milliseconds),
	}
}
