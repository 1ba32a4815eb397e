package cli

import (
	"bytes"
	"testing"

	"spate/services/embedded"
)

func TestDemoSummary(t *testing.T) {
	for _, c := range []struct {
		result embedded.DemoResult
		want   []string
	}{
		{
			embedded.DemoResult{Recall: map[string]float64{"burst": 1, "bulk_order": 1, "flood": 1, "giant": 1}, Precision: 1, Within: []string{"slow", "straddler"}},
			[]string{"attackers   found: bulk_order (one large order), burst (a bot, again and again),\n            flood (many accounts at once), giant (half of all traffic)\n",
				"not flagged shoppers; slow, straddler (attackers who stay within the rule)\n"},
		},
		{
			embedded.DemoResult{Recall: map[string]float64{"giant": 1, "flood": 0.5}, Precision: 0.9, Within: []string{"slow"}},
			[]string{"found: giant (half of all traffic)\n            partly missed: flood (50% found)\n            10.0% of the alerts are about shoppers\nnot flagged slow (attackers"},
		},
	} {
		var b bytes.Buffer
		if err := summary(&b, c.result); err != nil {
			t.Error(err)
		}
		says(t, b.String(), c.want...)
	}
}
