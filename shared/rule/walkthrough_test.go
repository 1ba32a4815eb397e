package rule_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

// TestWalkthrough: the script of the AWS walkthrough is a rules file as it is.
func TestWalkthrough(t *testing.T) {
	text, err := os.ReadFile("testdata/walkthrough.sql")
	if err != nil {
		t.Fatal(err)
	}
	r := compile(t, "burst", string(text)).Rules[0]
	type summary struct {
		Name, Window, Key, Topic, Critical string
		Lateness                           int64
		Columns                            []string
		Early                              bool
	}
	early, _ := r.Early()
	got := summary{r.Name, r.Window.String(), r.Keys[0].Name, r.Table.Topic, r.CriticalSQL(), r.Table.LatenessMS, nil, early}
	for _, c := range r.Columns {
		got.Columns = append(got.Columns, c.Name)
	}
	want := summary{"burst", "TUMBLE 10 s", "user_id", "e-commerce-raw-user-activity-stream-1", "", 10_000, []string{"user_id", "num_actions_per_watermark"}, true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// It is the rule that spate has without a rules file, but for the type of the user: a table's columns can be NULL.
	if w := r.Warnings(); len(w) > 0 || r.LeastEvents() != 6 || len(r.Aggregates) != 1 || r.Window != (rule.Window{Kind: rule.Tumble, Size: 10_000, Step: 10_000}) {
		t.Errorf("%q, %d events, %d aggregates", w, r.LeastEvents(), len(r.Aggregates))
	}
}
