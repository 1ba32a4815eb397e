package harness

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Gathered returns the sum of the series of a metric; 0 if there is none.
func Gathered(t *testing.T, from prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
