package rule

import (
	"fmt"
	"strings"
	"time"
)

// Burst is the rule without a rules file: more than threshold events of a user in one tumbling window.
func Burst(window time.Duration, threshold, critical int64) (*Set, error) {
	if window < time.Millisecond || window > MaxWindowMS*time.Millisecond || window%time.Millisecond != 0 {
		return nil, fmt.Errorf("window: %v is not a whole number of milliseconds between 1ms and %v", window, MaxWindowMS*time.Millisecond)
	}
	text, params := BurstFile(window, threshold, critical)
	set, errs := Compile(text, Options{Tables: []*Table{Activity()}, Set: params})
	if len(errs) > 0 {
		return nil, fmt.Errorf("rule burst: %s", errs[0].Message)
	}
	return set, nil
}

// BurstFile is that rule as a rules file, with the values of its parameters.
func BurstFile(window time.Duration, threshold, critical int64) (text string, params map[string]string) {
	return burst, map[string]string{
		"burst.window":    seconds(window.Milliseconds()),
		"burst.threshold": fmt.Sprint(threshold),
		"burst.critical":  fmt.Sprint(critical),
	}
}

// seconds writes milliseconds as the seconds of an interval.
func seconds(ms int64) string {
	return strings.TrimSuffix(fmt.Sprintf("%d.%03d", ms/1000, ms%1000), ".000")
}

const burst = `-- rule: burst
-- summary: {user_id} did {num_actions_per_watermark} things in ${window} seconds
-- critical: COUNT(*) > ${critical}
-- param: window = 10
-- param: threshold = 5
-- param: critical = 10
INSERT INTO alerts
SELECT user_id, COUNT(*) AS num_actions_per_watermark
FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '${window}' SECOND(10)), user_id
HAVING COUNT(*) > ${threshold}
`
