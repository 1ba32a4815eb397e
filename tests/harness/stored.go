package harness

import (
	"testing"
	"time"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/store"
)

// CheckStored waits until no alert is open and as many are closed as there are rows, compares what is stored with the rows, and returns it.
// Without rows there is nothing to compare, and the test fails.
func CheckStored(t *testing.T, st store.Store, want []verifier.Row, within time.Duration) (stored []store.Alert) {
	t.Helper()
	if len(want) == 0 {
		t.Fatal("no user breaks the rule: there is nothing to compare")
	}
	Eventually(t, within, "all windows are closed and stored", func() bool {
		n, err := st.Count(t.Context())
		return err == nil && n.Opened == 0 && n.Closed >= int64(len(want))
	})
	var got []alert.Record
	for a, err := range st.Alerts(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, a)
		got = append(got, a.Record)
	}
	if d := verifier.Compare(want, got); !d.Exact() || len(got) != len(want) {
		t.Errorf("%d alerts are stored, %d rows expected: %+v", len(got), len(want), d)
	}
	return stored
}
