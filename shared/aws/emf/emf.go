// Package emf writes metrics in CloudWatch's Embedded Metric Format: JSON lines in the log, which CloudWatch Logs turns into metrics. This
// needs no client, no permissions and no calls in the data path.
//
// CloudWatch bills per metric and combination of dimension values, so there is one dimension, the service, and the metrics are
// those that the program declares: nothing in the data, least of all a user, creates another one. What to measure is left to
// the callers.
package emf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Unit of a metric, as CloudWatch names it.
type Unit string

// The units in use.
const (
	Count        Unit = "Count"
	Milliseconds Unit = "Milliseconds"
)

const (
	// maxValues of a metric in one line, by the format's specification.
	maxValues = 100
	// maxKept values of a metric between two flushes; more are not kept, for nobody may have flushed for long.
	maxKept = 10 * maxValues
	// maxName bounds namespaces and names of metrics, in bytes.
	maxName = 255
	// dimension is the only one.
	dimension = "service"
)

// ValidName tells why a namespace or the name of a metric is none that CloudWatch takes; nil if it is one.
func ValidName(name string) error {
	switch {
	case name == "" || strings.TrimSpace(name) == "":
		return errors.New("empty")
	case len(name) > maxName:
		return fmt.Errorf("is %d bytes long, but the maximum is %d", len(name), maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }):
		return fmt.Errorf("%q contains characters other than printable ASCII", name)
	case name[0] == ':' || strings.HasPrefix(name, "AWS/"):
		return fmt.Errorf("%q is reserved by CloudWatch", name)
	case name == dimension || name == "_aws":
		return fmt.Errorf("%q is reserved for other fields of the log line", name)
	}
	return nil
}

// Sink collects metrics and writes them when it is flushed. It is safe for concurrent use, as is what it makes.
type Sink struct {
	w         io.Writer
	namespace string
	service   string

	mu       sync.Mutex
	counters []*Counter
	values   []*Values
}

// New makes a sink. The namespace is one that ValidName accepts.
func New(w io.Writer, namespace, service string) *Sink {
	return &Sink{w: w, namespace: namespace, service: service}
}

// Counter is a number of things that happened. Every flush writes how many since the one before, also if there were none: an alarm can
// tell 0 from silence.
type Counter struct {
	s    *Sink
	name string
	n    int64
}

// Counter declares a counter. Its name is one that ValidName accepts, and no other metric of the sink has it.
func (s *Sink) Counter(name string) *Counter {
	c := &Counter{s: s, name: name}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters = append(s.counters, c)
	return c
}

// Add counts n more.
func (c *Counter) Add(n int) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.n += int64(n)
}

// Values is a metric of which every value counts; CloudWatch makes percentiles of them.
type Values struct {
	s    *Sink
	name string
	unit Unit
	kept []float64
}

// Values declares a metric of values. For its name see Counter.
func (s *Sink) Values(name string, unit Unit) *Values {
	v := &Values{s: s, name: name, unit: unit}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = append(s.values, v)
	return v
}

// Observe adds a value. Of more than 1000 between two flushes the first are kept.
func (v *Values) Observe(value float64) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if len(v.kept) < maxKept {
		v.kept = append(v.kept, value)
	}
}

type metric struct {
	Name string
	Unit Unit
}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []metric
}

type metadata struct {
	Timestamp         int64 // epoch milliseconds
	CloudWatchMetrics []directive
}

// Flush writes what was collected since the last flush as of now, and begins anew. It is one line; values above 100 follow in others.
// With an error, what was collected is lost.
func (s *Sink) Flush(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var metrics []metric
	members := make(map[string]any, len(s.counters)+len(s.values))
	for _, c := range s.counters {
		metrics = append(metrics, metric{c.name, Count})
		members[c.name], c.n = c.n, 0
	}
	for first := true; ; first = false {
		for _, v := range s.values {
			if n := min(len(v.kept), maxValues); n > 0 {
				metrics = append(metrics, metric{v.name, v.unit})
				members[v.name] = slices.Clone(v.kept[:n])
				v.kept = slices.Delete(v.kept, 0, n)
			}
		}
		if len(metrics) == 0 {
			return nil
		}
		if err := s.write(now, metrics, members); err != nil {
			return fmt.Errorf("write metrics: %w", err)
		}
		if metrics = metrics[:0]; first {
			members = make(map[string]any, len(s.values))
		} else {
			clear(members)
		}
	}
}

// write writes a line in one call, so that it stays one where others write as well.
func (s *Sink) write(now time.Time, metrics []metric, members map[string]any) error {
	line := maps.Clone(members)
	line[dimension] = s.service
	line["_aws"] = metadata{Timestamp: now.UnixMilli(), CloudWatchMetrics: []directive{
		{Namespace: s.namespace, Dimensions: [][]string{{dimension}}, Metrics: metrics}}}
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	_, err = s.w.Write(append(b, '\n'))
	return err
}
