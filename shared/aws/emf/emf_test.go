package emf

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 123_000_000, time.UTC)

func TestLine(t *testing.T) {
	var b bytes.Buffer
	s := New(&b, "shop", "alerter")
	records, alerts := s.Counter("records"), s.Counter("alerts")
	age := s.Values("age", Milliseconds)
	records.Add(3)
	records.Add(4)
	alerts.Add(0)
	age.Observe(12)
	age.Observe(7.5)
	if err := s.Flush(noon); err != nil {
		t.Fatal(err)
	}
	want := `{"_aws":{"Timestamp":1795521600123,"CloudWatchMetrics":[{"Namespace":"shop","Dimensions":[["service"]],"Metrics":[` +
		`{"Name":"records","Unit":"Count"},{"Name":"alerts","Unit":"Count"},{"Name":"age","Unit":"Milliseconds"}]}]},` +
		`"age":[12,7.5],"alerts":0,"records":7,"service":"alerter"}` + "\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}

	// What was written is not written again; a metric of values that has none is left out.
	b.Reset()
	if err := s.Flush(noon); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, `"records":0`) || strings.Contains(got, "age") {
		t.Errorf("second flush: %s", got)
	}
}

func TestNothingDeclaredWritesNothing(t *testing.T) {
	var b bytes.Buffer
	if err := New(&b, "n", "s").Flush(noon); err != nil || b.Len() != 0 {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// TestValuesAreSplit: the format allows 100 values of a metric in a line.
func TestValuesAreSplit(t *testing.T) {
	var b bytes.Buffer
	s := New(&b, "n", "s")
	c, v := s.Counter("c"), s.Values("v", Milliseconds)
	c.Add(1)
	for i := range 5000 {
		v.Observe(float64(i))
	}
	if err := s.Flush(noon); err != nil {
		t.Fatal(err)
	}
	var values, counters int
	for line := range strings.Lines(b.String()) {
		var got struct {
			V []float64 `json:"v"`
			C *int      `json:"c"`
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.V) > 100 {
			t.Errorf("%d values in a line", len(got.V))
		}
		for _, x := range got.V {
			if x != float64(values) {
				t.Errorf("value %v at %d", x, values)
			}
			values++
		}
		if got.C != nil {
			counters += *got.C
		}
	}
	if values != maxKept || counters != 1 {
		t.Errorf("%d values, counted %d", values, counters)
	}
}

func TestConcurrentUse(t *testing.T) {
	var b bytes.Buffer
	s := New(&b, "n", "s")
	c, v := s.Counter("c"), s.Values("v", Count)
	const n, each = 8, 100
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for range each {
				c.Add(1)
				v.Observe(1)
				if err := s.Flush(noon); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var counted, observed int
	for line := range strings.Lines(b.String()) {
		var got struct {
			C int       `json:"c"`
			V []float64 `json:"v"`
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		counted += got.C
		observed += len(got.V)
	}
	if counted != n*each || observed != n*each {
		t.Errorf("counted %d, observed %d, want %d", counted, observed, n*each)
	}
}

func TestValidName(t *testing.T) {
	for name, ok := range map[string]bool{
		"alerts": true, "Kinesis-UserActivity/x": true, "": false, " ": false, "service": false, "_aws": false, "ä": false, "a\nb": false,
		"AWS/Lambda": false, ":x": false, strings.Repeat("x", 256): false,
	} {
		if err := ValidName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
