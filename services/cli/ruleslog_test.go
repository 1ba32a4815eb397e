package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
	"spate/shared/revision"
)

// ruled is a broker with the log of the rules of a pipeline.
type ruled struct {
	t      *testing.T
	broker *kfake.Cluster
	addr   string
	cl     *kgo.Client
}

func newRuled(t *testing.T) *ruled {
	t.Helper()
	bare(t)
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &ruled{t, c, c.ListenAddrs()[0], cl}
}

// run runs a command of spate rules, and returns what it prints.
func (r *ruled) run(want int, args ...string) (stdout, stderr string) {
	r.t.Helper()
	code, stdout, stderr := spate(append(append([]string{"rules"}, args...), "--brokers", r.addr)...)
	if code != want {
		r.t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	harmless(r.t, fmt.Sprint(args), stderr)
	return stdout, stderr
}

// write appends a record to a topic.
func (r *ruled) write(topic string, value []byte) {
	r.t.Helper()
	if err := r.cl.ProduceSync(r.t.Context(), &kgo.Record{Topic: topic, Value: value}).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// count makes the pipeline one that has counted something.
func (r *ruled) count() { r.write("activity.keyed", []byte("x")) }

// revision appends one that spate rules apply would not.
func (r *ruled) revision(rec revision.Record) {
	r.t.Helper()
	value, err := rec.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("activity.rules", value)
}

// topics are those that the broker has.
func (r *ruled) topics() []string {
	r.t.Helper()
	list, err := kadm.NewClient(r.cl).ListTopics(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return list.Names()
}

// changes are the rules of an object, with their changes.
func changes(object map[string]any) (out []string) {
	for _, r := range object["rules"].([]any) {
		m := r.(map[string]any)
		out = append(out, fmt.Sprint(m["name"], " ", m["change"]))
	}
	return out
}

func rulesText(more int) string {
	return fmt.Sprintf("-- rule: a\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > %d;\n", more)
}

// TestRulesApply: rules are applied, seen, changed and rolled back; to apply them twice is to apply them once.
func TestRulesApply(t *testing.T) {
	r := newRuled(t)
	path := rulesFileOf(t, "rules.sql", twoRules)

	// Of a pipeline that has none yet, nothing is written by looking.
	for _, args := range [][]string{{"ls"}, {"history"}} {
		out, errs := r.run(ExitOK, args...)
		if out != "" || !strings.Contains(errs, "topic activity.rules has no revision, so the rule from the settings applies") {
			t.Errorf("%q: %q, %q", args, out, errs)
		}
	}
	_, errs := r.run(ExitFailed, "show")
	says(t, errs, "no rules have been applied")
	out, _ := r.run(ExitOK, "diff", path)
	says(t, out, path+", compared with the rule from the settings:\n", "changed    burst", "added      scraper", "1 added, 1 changed\n")
	out, _ = r.run(ExitOK, "apply", path, "--dry-run")
	says(t, out, "revision 1, compared with the rule from the settings", "dry run: as revision 1, these rules would be in force for all windows; nothing was written\n")
	if names := r.topics(); len(names) != 0 {
		t.Errorf("topics: %q", names)
	}

	// Before anything is counted, the first revision is in force from the beginning.
	out, _ = r.run(ExitOK, "apply", path, "-m", "first", "--lateness", "7s", "--max-ahead", "2m")
	says(t, out, "1 added, 1 changed; 1 feed begins, 1 ends, 0 continue\n", "lateness 7s and max-ahead 2m are recorded with this revision\n", "revision 1 is in force for all windows\n")
	out, _ = r.run(ExitOK, "apply", path)
	says(t, out, path+" is revision 1, which is in force for all windows; nothing was written\n")
	copied := rulesFileOf(t, "copy.sql", twoRules)
	out, _ = r.run(ExitOK, "apply", copied)
	says(t, out, copied+" is revision 1, which is in force for all windows; nothing was written\n")
	out, _ = r.run(ExitOK, "ls")
	says(t, out, "NAME     MODE    WINDOW", "burst    live    TUMBLE 10 s", "scraper  shadow  HOP 10 s, 1 min")
	out, _ = r.run(ExitOK, "apply", path, "--json")
	if o := objects(t, out)[0]; o["applied"] != false || o["revision"] != 1.0 || o["boundary"] != nil || cmp.Diff([]string{"burst unchanged", "scraper unchanged"}, changes(o)) != "" {
		t.Errorf("the same as JSON: %s", out)
	}

	// A change begins at its boundary; what did not change continues. Lateness and max-ahead stay what they were.
	r.count()
	before := time.Now()
	out, _ = r.run(ExitOK, "apply", path, "--set", "scraper.products=40", "--json")
	o := objects(t, out)[0]
	if o["applied"] != true || o["revision"] != 2.0 || o["lateness_ms"] != 7000.0 || o["max_ahead_ms"] != 120000.0 || cmp.Diff([]string{"burst unchanged", "scraper changed"}, changes(o)) != "" {
		t.Errorf("changed: %s", out)
	}
	boundary, err := time.Parse(time.RFC3339, fmt.Sprint(o["boundary"]))
	if least := before.Add(revision.Margin + 2*time.Minute - time.Millisecond); err != nil || boundary.Before(least) || boundary.After(least.Add(time.Minute)) {
		t.Errorf("boundary %v, want %v or a little later: %v", boundary, least, err)
	}
	var since []string
	out, _ = r.run(ExitOK, "ls", "--json")
	for _, m := range objects(t, out) {
		since = append(since, fmt.Sprint(m["name"], m["since"], m["from"] == nil))
	}
	if d := cmp.Diff([]string{"burst1 true", "scraper2 false", "scraper1 true"}, since); d != "" {
		t.Error(d)
	}

	// What was applied can be had back, to the byte.
	out, errs = r.run(ExitOK, "show", "1")
	if out != twoRules {
		t.Errorf("show: %q", out)
	}
	says(t, errs, "revision 1, applied at ", "in force for all windows\n", "message: first\n")
	out, errs = r.run(ExitOK, "show")
	says(t, errs, "revision 2, ", "parameters: scraper.products = 40\n")
	if out != twoRules {
		t.Errorf("show: %q", out)
	}
	_, errs = r.run(ExitFailed, "show", "9")
	says(t, errs, "revision 9 does not exist; the newest one is 2")
	_, errs = r.run(ExitUsage, "show", "none")
	says(t, errs, "is not the number of a revision")

	// Back, and back again.
	out, _ = r.run(ExitOK, "rollback", "0", "--dry-run")
	if strings.Contains(out, "no longer raise alerts") { // it is in shadow
		t.Error(out)
	}
	says(t, out, "removed    scraper", "dry run: as revision 3, these rules would be in force for windows that begin at ")
	out, _ = r.run(ExitOK, "rollback", "--dry-run")
	says(t, out, "changed    scraper", "nothing was written\n")
	out, _ = r.run(ExitOK, "rollback")
	says(t, out, "from ", "revision 3 is in force for windows that begin at ", " UTC or later; rules that did not change continue\n")
	out, _ = r.run(ExitOK, "rollback", "1")
	says(t, out, "the file of revision 1 is revision 3, which is in force for windows that begin at ")
	_, errs = r.run(ExitFailed, "rollback", "7")
	says(t, errs, "revision 7 does not exist")

	out, _ = r.run(ExitOK, "history", "--json")
	var history []string
	for _, m := range objects(t, out) {
		history = append(history, fmt.Sprint(m["revision"], " ", m["state"], " ", m["message"], " +", m["added"], " ~", m["changed"], " =", m["unchanged"], " ", m["rules"]))
	}
	if d := cmp.Diff([]string{"3 applied roll back to revision 1 +0 ~1 =1 [burst scraper]", "2 applied <nil> +0 ~1 =1 [burst scraper]", "1 applied first +1 ~1 =0 [burst scraper]"}, history); d != "" {
		t.Error(d)
	}
	out, _ = r.run(ExitOK, "history")
	says(t, out, "REVISION", "roll back to revision 1", "1 changed, 1 unchanged", "the beginning")
}

// TestRulesLsBounds: rules that end later are listed beside those that begin then, with the times.
func TestRulesLsBounds(t *testing.T) {
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "one.sql", rulesText(1)))
	if out, _ := r.run(ExitOK, "ls"); strings.Contains(out, "IN FORCE") {
		t.Errorf("nothing begins or ends, but: %s", out)
	}
	r.count()
	boundary := time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second)
	r.run(ExitOK, "apply", rulesFileOf(t, "two.sql", strings.Replace(rulesText(1), "rule: a", "rule: b", 1)), "--from", boundary.Format(time.RFC3339))
	out, _ := r.run(ExitOK, "ls", "--wide")
	says(t, out, "NAME  MODE  IN FORCE (UTC)", "b     live  begins "+boundary.Format(time.DateTime), "a     live  ends "+boundary.Format(time.DateTime))
	out, _ = r.run(ExitOK, "ls", "--json")
	list := objects(t, out)
	if at := boundary.Format(time.RFC3339); len(list) != 2 || list[0]["from"] != at || list[0]["until"] != nil || list[1]["from"] != nil || list[1]["until"] != at {
		t.Error(out)
	}
	// A rule that is never in force neither begins nor ends.
	r.run(ExitOK, "rollback", "1", "--from", boundary.Add(-time.Hour).Format(time.RFC3339))
	if out, _ = r.run(ExitOK, "ls", "--wide"); strings.Contains(out, "\nb ") || strings.Contains(out, "IN FORCE") {
		t.Error(out)
	}
}

// TestRulesDiff: rules are compared by what they do, texts by their lines.
func TestRulesDiff(t *testing.T) {
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "a.sql", twoRules))
	r.run(ExitOK, "apply", rulesFileOf(t, "a.sql", strings.Replace(twoRules, "COUNT(*) > 5", "COUNT(*) > 6", 1)))
	out, _ := r.run(ExitOK, "diff", "1")
	says(t, out, "revision 2, compared with revision 1:\n", "changed    burst", "HAVING: COUNT(*) > 5 -> COUNT(*) > 6\n", "1 changed, 1 unchanged\n")
	out, _ = r.run(ExitOK, "diff", "2", "1", "--text")
	says(t, out, "--- revision 2\n+++ revision 1\n@@ -3,7 +3,7 @@\n", "\n-GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 6;\n+GROUP BY")
	r.run(ExitFailed, "diff", "1", "2", "--exit-code")
	r.run(ExitFailed, "diff", "1", "2", "--text", "--exit-code")
	r.run(ExitOK, "diff", "2", "2", "--exit-code")

	spaced := rulesFileOf(t, "spaced.sql", "\n\n"+strings.Replace(twoRules, "COUNT(*) > 5", "COUNT(*)   > 6", 1))
	out, _ = r.run(ExitOK, "diff", spaced, "--exit-code")
	says(t, out, "2 unchanged\nonly the text differs; to show the differences, add --text\n")
	out, _ = r.run(ExitOK, "diff", spaced, "--json")
	if list := objects(t, out); len(list) != 2 || list[0]["change"] != "unchanged" {
		t.Error(out)
	}
	out, _ = r.run(ExitOK, "apply", spaced)
	says(t, out, "; no rule has changed, so all of them continue\n")
	// A rule that is switched off is not evaluated, and not gone.
	out, _ = r.run(ExitOK, "apply", rulesFileOf(t, "off.sql", strings.Replace(twoRules, "mode: shadow", "mode: off", 1)))
	says(t, out, "mode: shadow -> off\n")
	if out, _ = r.run(ExitOK, "ls"); strings.Contains(out, "scraper") {
		t.Error(out)
	}
	for _, args := range [][]string{{"1", "--set", "a.b=1"}, {spaced, "1"}, {"1", "--text", "--json"}, {"1", "none"}} {
		r.run(ExitUsage, append([]string{"diff"}, args...)...)
	}
	_, errs := r.run(ExitFailed, "diff", "1", "9")
	says(t, errs, "revision 9 does not exist")
}

// TestRulesApplyRefuses: what cannot be applied is not, and the log stays as it is.
func TestRulesApplyRefuses(t *testing.T) {
	r := newRuled(t)
	good := rulesFileOf(t, "good.sql", rulesText(5))
	r.run(ExitOK, "apply", good)
	r.count()

	bad := rulesFileOf(t, "bad.sql", "SELECT 1;\nSELECT 2;\n")
	_, errs := r.run(ExitUsage, "apply", bad)
	says(t, errs, bad+":1:1: a rule must be an INSERT statement", bad+":2:1: ", "2 errors\n")
	_, errs = r.run(ExitUsage, "diff", bad)
	says(t, errs, bad+":1:1: ")

	cased := rulesFileOf(t, "cased.sql", rulesText(5))
	cases := strings.TrimSuffix(cased, ".sql") + "_test.yaml"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(cases, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cases:\n  - name: one event\n    events:\n      - {user_id: 1, txn_timestamp: \"2024-01-01 00:00:00\"}\n    expect:\n      a: [{n: 1}]\n")
	out, errs := r.run(ExitFailed, "apply", cased)
	says(t, out, "--- FAIL: one event", "missing alert", "FAIL\n")
	says(t, errs, "spate: nothing was applied, because test cases failed\n")
	out, _ = r.run(ExitFailed, "apply", cased, "--json")
	if list := objects(t, out); len(list) != 1 || list[0]["result"] != "fail" {
		t.Error(out)
	}
	write("cases: none\n")
	_, errs = r.run(ExitUsage, "apply", cased)
	says(t, errs, "cased_test.yaml:1:", "spate: nothing was applied, because the test cases have errors\n")

	const table = "CREATE TABLE e (user_id BIGINT, %[1]s TIMESTAMP(3), WATERMARK FOR %[1]s AS %[1]s - INTERVAL '%[2]d' SECOND);\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM e GROUP BY TUMBLE(%[1]s, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 1"
	for _, test := range []struct {
		text string
		args []string
		want string
	}{
		{fmt.Sprintf(table, "txn_timestamp", 10), nil, ""},
		{fmt.Sprintf(table, "txn_timestamp", 5), nil, "its lateness is 5s, but that of the rules in force is 10s"},
		{fmt.Sprintf(table, "happened_at", 10), nil, "it expects the event time in happened_at, but the rules in force read the built-in table; name the time column txn_timestamp"},
		{strings.ReplaceAll(rulesText(5), "TUMBLE(", "SESSION("), nil, "SESSION windows are not evaluated yet"},
		{rulesText(6), []string{"--from", "beginning"}, "so the rules cannot be in force from the beginning"},
		{rulesText(6), []string{"--from", "2024-01-01T00:00:00Z"}, "is too early: routers may judge events of windows that begin at this time before they receive the rules; the earliest possible time is "},
		{rulesText(6), []string{"--from", "tomorrow"}, `from: "tomorrow" is neither beginning nor a time`},
		{rulesText(6), []string{"--max-ahead", "1500us"}, "max-ahead: 1.5ms is not a whole number of milliseconds"},
		{rulesText(6), []string{"--lateness=-1s"}, "lateness: -1s is not"},
		{rulesText(6), []string{"--set", "a.b=1"}, "has no parameter a.b"},
		{rulesText(6), []string{"--partitions", "9"}, ""},
	} {
		want := ExitUsage
		if test.want == "" {
			want = ExitOK
		}
		if slices.Contains(test.args, "--partitions") {
			want = ExitFailed
		} else {
			test.args = append(test.args, "--dry-run") // which does not look at the topics
		}
		_, errs := r.run(want, append([]string{"apply", rulesFileOf(t, "r.sql", test.text)}, test.args...)...)
		says(t, errs, test.want)
	}
	_, errs = r.run(ExitFailed, "rollback")
	says(t, errs, "revision 1 is the only one")
	out, _ = r.run(ExitOK, "history", "--json")
	if n := len(objects(t, out)); n != 1 {
		t.Errorf("%d records", n)
	}
}

// TestRulesApplyFrom: a revision can be in force from a later time on.
func TestRulesApplyFrom(t *testing.T) {
	r := newRuled(t)
	one := rulesFileOf(t, "one.sql", rulesText(1))
	soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	out, _ := r.run(ExitOK, "apply", one, "--from", soon.Format(time.RFC3339), "--json")
	if o := objects(t, out)[0]; o["boundary"] != soon.Format(time.RFC3339) {
		t.Errorf("%s, want %v", out, soon)
	}
	// One that is in force earlier takes its place: a year that was mistyped is no end of all changes.
	two := rulesFileOf(t, "two.sql", rulesText(2))
	out, _ = r.run(ExitOK, "apply", two, "--from", "9999-12-31T23:59:59Z")
	says(t, out, "revision 2 is in force for windows that begin at 9999-12-31 23:59:59 UTC or later")
	r.run(ExitOK, "apply", two) // is a revision already
	out, _ = r.run(ExitOK, "apply", two, "--from", soon.Add(time.Minute).Format(time.RFC3339))
	says(t, out, "revision 2 will never be in force, because revision 3 takes effect at the same time or earlier\n", "revision 3 is in force for windows that begin at ")
	out, _ = r.run(ExitOK, "rollback", "1", "--from", soon.Add(-time.Minute).Format(time.RFC3339))
	says(t, out, "revision 1, revision 3 will never be in force, because revision 4 takes effect at the same time or earlier\n")
	out, _ = r.run(ExitOK, "history")
	says(t, out, "never: see 4", "never: see 3")
	// So does one that is in force from the same time on: what was to begin then is corrected before it does.
	out, _ = r.run(ExitOK, "apply", two, "--from", soon.Add(-time.Minute).Format(time.RFC3339))
	says(t, out, "revision 4 will never be in force, because revision 5 takes effect at the same time or earlier\n")
	out, _ = r.run(ExitOK, "history")
	says(t, out, "never: see 5")
	_, errs := r.run(ExitUsage, "apply", two, "--from", time.Now().Format(time.RFC3339))
	says(t, errs, "is too early", "the earliest possible time is ")
	_, errs = r.run(ExitUsage, "apply", two, "--from", "9999-12-31T23:59:59.9999Z") // rounded up, it could not be written as JSON
	says(t, errs, "is neither beginning nor a time such as ")

	begun := newRuled(t)
	begun.run(ExitOK, "apply", one, "--from", "beginning", "--dry-run")
	begun.run(ExitOK, "apply", one, "--from", "beginning")
	counted := newRuled(t)
	if _, err := (kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic)}).Ensure(t.Context(), kadm.NewClient(counted.cl)); err != nil {
		t.Fatal(err)
	}
	counted.count()
	_, errs = counted.run(ExitUsage, "apply", one, "--from", "beginning")
	says(t, errs, "events have been counted already, or a router is running", "the earliest possible time is ")
	watermark := rulesFileOf(t, "w.sql", "CREATE TABLE e (user_id BIGINT, txn_timestamp TIMESTAMP(3), WATERMARK FOR txn_timestamp AS txn_timestamp - INTERVAL '5' SECOND);\n"+
		strings.Replace(rulesText(1), "FROM activity", "FROM e", 1))
	_, errs = counted.run(ExitUsage, "apply", watermark)
	says(t, errs, "lateness: WATERMARK in "+watermark+" sets it to 5s, but SPATE_LATENESS (--lateness) is 10s, and the lateness cannot change while the pipeline runs")
	_, errs = counted.run(ExitUsage, "apply", watermark, "--lateness", "5s", "--time-field", "created_at,at") // whoever judges events would stop
	says(t, errs, "time-field: in "+watermark+", the event time is txn_timestamp, but SPATE_TIME_FIELD (--time-field) is created_at,at; if the pipeline reads the time from txn_timestamp, set SPATE_TIME_FIELD to the same value as for the router; otherwise, write WATERMARK FOR created_at\n")
	counted.run(ExitOK, "apply", one, "--time-field", "created_at", "--dry-run")           // the built-in table has the time that the pipeline reads
	newRuled(t).run(ExitOK, "apply", watermark, "--time-field", "created_at", "--dry-run") // nothing was judged: routers take the field of the rules
	counted.run(ExitOK, "apply", watermark, "--lateness", "5s", "--dry-run")
	out, _ = newRuled(t).run(ExitOK, "apply", watermark)
	says(t, out, "lateness 5s and max-ahead 1m are recorded with this revision\n")
	out, _ = counted.run(ExitOK, "apply", one)
	says(t, out, "a router with a different --lateness or --max-ahead stops and reports the difference\n", "revision 1 is in force for windows that begin at ")
}

// TestRulesAppliedAtOnce: of several that are applied at the same time, each is applied or says that it is not.
func TestRulesAppliedAtOnce(t *testing.T) {
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "r.sql", rulesText(1)))
	const n = 6
	codes, errs := make([]int, n), make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		path := rulesFileOf(t, "r.sql", rulesText(10+i))
		wg.Go(func() { codes[i], _, errs[i] = spate("rules", "apply", path, "--brokers", r.addr) })
	}
	wg.Wait()
	applied := 0
	for i, code := range codes {
		switch {
		case code == ExitOK:
			applied++
		case code != ExitFailed || !strings.Contains(errs[i], "another revision was applied at the same time"):
			t.Errorf("exit code %d: %s", code, errs[i])
		}
	}
	states := map[string]int{}
	out, _ := r.run(ExitOK, "history", "--json")
	for _, m := range objects(t, out) {
		states[fmt.Sprint(m["state"])]++
	}
	if states["applied"] != 1+applied || states["ignored"] != n-applied || applied == 0 {
		t.Errorf("%d applied, but the log has %v", applied, states)
	}
	if applied < n {
		_, errs := r.run(ExitOK, "ls")
		says(t, errs, "no effect; spate rules history shows why\n")
	}
}

// TestRulesWithoutBroker: rules are applied or not, never half, and the command says which.
func TestRulesWithoutBroker(t *testing.T) {
	r := newRuled(t)
	path := rulesFileOf(t, "r.sql", rulesText(1))
	r.run(ExitOK, "apply", path)
	other := rulesFileOf(t, "r.sql", rulesText(2))
	r.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range req.(*kmsg.ProduceRequest).Topics {
			st := kmsg.NewProduceResponseTopic()
			st.Topic, st.TopicID = topic.Topic, topic.TopicID
			p := kmsg.NewProduceResponseTopicPartition()
			p.ErrorCode = kerr.TopicAuthorizationFailed.Code
			st.Partitions = append(st.Partitions, p)
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
	_, errs := r.run(ExitFailed, "apply", other)
	says(t, errs, "write revision 2 to topic activity.rules", "lacks Write on topic activity.rules")
	out, _ := r.run(ExitOK, "history", "--json")
	if n := len(objects(t, out)); n != 1 {
		t.Errorf("%d records", n)
	}
	r.run(ExitOK, "apply", other)

	was := brokerWait
	brokerWait = time.Second
	defer func() { brokerWait = was }()
	r.broker.Close()
	_, errs = r.run(ExitFailed, "apply", path)
	says(t, errs, "the rules were not applied: broker is not responding")
}

// TestRulesOfOthers: what others wrote into the log is shown, and steers nothing.
func TestRulesOfOthers(t *testing.T) {
	r := newRuled(t)
	path := rulesFileOf(t, "r.sql", rulesText(1))
	r.run(ExitOK, "apply", path)
	text := strings.ToValidUTF8(evil, "")
	r.write("activity.rules", []byte("garbage "+evil))
	r.revision(revision.Record{Revision: 2, LatenessMS: 10_000, MaxAheadMS: 60_000, Author: text, Message: text, Program: text,
		Source: revision.Source{Text: "-- " + strings.ReplaceAll(text, "\n", "") + "\n" + strings.Replace(rulesText(1), "AS n", "AS n, MAX(event_type) FILTER (WHERE event_type = '"+text+"') AS `m"+strings.ReplaceAll(text, "\n", "")+"`", 1), Set: map[string]string{text: text}}})
	out, _ := r.run(ExitOK, "history", "--json")
	list := objects(t, out)
	if len(list) != 3 {
		t.Fatal(out)
	}
	for _, args := range [][]string{{"ls"}, {"ls", "--json"}, {"history"}, {"history", "--json"}, {"show", "--json"}, {"diff", "1"}, {"diff", "1", "--json"}, {"diff", "1", "--text"}, {"diff", path}, {"rollback", "--dry-run"}} {
		out, errs := r.run(ExitOK, args...)
		harmless(t, fmt.Sprint(args), out)
		oneLine(t, fmt.Sprint(args), out)
		oneLine(t, fmt.Sprint(args), errs)
	}
	_, errs := r.run(ExitOK, "show")
	oneLine(t, "show", errs)
	// A newer version's rules are in force, and this one does not know which they are.
	r.write("activity.rules", []byte(`{"version":99,"revision":3}`))
	for _, args := range [][]string{{"ls"}, {"show"}, {"show", "3"}, {"diff", path}, {"apply", path}, {"rollback"}} {
		_, errs := r.run(ExitFailed, args...)
		says(t, errs, "revision 3 of the rules cannot be evaluated by this version of spate; upgrade spate, or replace the revision")
	}
	out, _ = r.run(ExitOK, "history")
	says(t, out, "unreadable", "its record has version 99")
	r.run(ExitOK, "show", "1")
	r.run(ExitOK, "diff", "1", "2")
	r.count()
	// If nobody can evaluate them, others are put in their place.
	_, errs = r.run(ExitUsage, "apply", path, "--replace-unreadable", "--from", "2035-01-01T00:00:00Z")
	says(t, errs, "omit --from")
	out, _ = r.run(ExitOK, "rollback", "--replace-unreadable", "--dry-run")
	says(t, out, "compared with revision 2:", "revision 4 replaces revision 3, which cannot be evaluated, and all later revisions", "1 unchanged", "nothing was written")
	_, errs = r.run(ExitFailed, "ls")
	says(t, errs, "revision 3 of the rules cannot be evaluated")
	out, _ = r.run(ExitOK, "apply", path, "--replace-unreadable", "-m", "a mistake")
	says(t, out, "revision 4 is in force for windows that begin at ")
	out, _ = r.run(ExitOK, "history")
	says(t, out, "a mistake", "it was revision 3, which is never in force: revision 4 was applied instead")
	_, errs = r.run(ExitOK, "ls")
	if strings.Contains(errs, "no effect") {
		t.Error(errs)
	}
	_, errs = r.run(ExitFailed, "show", "3")
	says(t, errs, "revision 3 is never in force: revision 4 was applied in its place")
	_, errs = r.run(ExitUsage, "rollback", "--replace-unreadable")
	says(t, errs, "this version of spate can evaluate every revision")
}

// TestRulesApplyHostile: what the command line says steers nothing.
func TestRulesApplyHostile(t *testing.T) {
	r := newRuled(t)
	dir := filepath.Join(t.TempDir(), strings.ToValidUTF8(evil, ""))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "r.sql")
	if err := os.WriteFile(path, []byte(rulesText(1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		args []string
	}{
		{ExitOK, []string{"apply", path, "-m", evil}}, {ExitOK, []string{"apply", path}}, {ExitOK, []string{"diff", path}}, {ExitOK, []string{"diff", path, "--text"}}, {ExitOK, []string{"history"}},
		{ExitUsage, []string{"apply", path, "--from", evil}}, {ExitUsage, []string{"apply", evil}}, {ExitUsage, []string{"show", evil}}, {ExitUsage, []string{"ls", "--topic", evil + "/"}},
		{ExitUsage, []string{"diff", path, evil}}, {ExitUsage, []string{"apply", path, "--set", evil + "=" + evil}},
	} {
		out, errs := r.run(c.code, c.args...)
		harmless(t, fmt.Sprintf("%q", c.args), out)
		harmless(t, fmt.Sprintf("%q", c.args), errs)
		oneLine(t, fmt.Sprintf("%q", c.args), out)
	}
}

// TestRulesApplyTells: when the first window of a new rule begins, and which live rules end with the file that lacks them.
func TestRulesApplyTells(t *testing.T) {
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "a.sql", rulesText(5)))
	r.count()
	other := rulesFileOf(t, "b.sql", strings.NewReplacer("-- rule: a\n", "-- rule: b\n", "'10' SECOND", "'1' HOUR").Replace(rulesText(5)))
	first := regexp.MustCompile(`(?m)^first window of b: (?:\d{4}-\d\d-\d\d )?\d\d:00:00 UTC$`)
	out, _ := r.run(ExitOK, "apply", other, "--dry-run")
	says(t, out, "\na is live and will no longer raise alerts; to keep it, add it to the file\n")
	if !first.MatchString(out) || strings.Count(out, "first window") != 1 {
		t.Error(out)
	}
	if out, _ = r.run(ExitOK, "apply", other); !first.MatchString(out) || strings.Count(out, "first window") != 1 {
		t.Error(out)
	}
}
