package secured

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/tests/harness"
)

// testRights takes every right that is documented away, one at a time: the service that needs it names it. With all of them, [testLogins] shows
// that it works.
func testRights(t *testing.T, w *world) {
	cl := harness.Connect(t, w.Addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, service := range kafka.Services {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			names := kafka.NamesFor(harness.UniqueTopic(t))
			w.makeTopics(t, names)
			// Something of everything: events that are counted, a burst, one that is late, one that is none.
			var events []string
			for i := range 8 {
				events = append(events, event(7, i))
			}
			events = append(events, event(1, 600), event(7, 3), "no event")
			produce(t, cl, names.Activity, 0, events...)
			produce(t, cl, names.Activity, 1, event(2, 600))
			instance := "rights-" + names.Activity
			db := filepath.Join(t.TempDir(), "alerts.db")
			// What it reads has to be there.
			for _, before := range before[service] {
				p := w.service(t, before, names, "all-"+before+instance, instance, db, -1).Start()
				ready(t, p)
				harness.Eventually(t, 30*time.Second, before+" has done its work", func() bool {
					switch before {
					case kafka.Router:
						return w.written(t, names.Keyed)
					case kafka.Detector: // and read all: only then it matters whether the router's partitions are silent
						return w.written(t, names.Alerts) && caughtUp(p)
					}
					return stored(t, db) != ""
				})
				if service != kafka.Asker || before != kafka.Detector { // who asks needs one that runs
					if err := p.Stop(20 * time.Second); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i, right := range names.Rights(service, instance) {
				if right.If != "" { // nothing of this test's needs it
					continue
				}
				if service == kafka.Router {
					// Each has something to do; and what somebody else wrote to the keyed log has to be looked at.
					produce(t, cl, names.Activity, 0, events...)
					produce(t, cl, names.Keyed, 0, "no batch")
				}
				p := w.service(t, service, names, fmt.Sprintf("without-%d-%s", i, instance), instance, db, i).Start()
				want := "lacks " + right.String()
				if !harness.Within(30*time.Second, func() bool { return strings.Contains(string(p.Output()), want) }) {
					t.Errorf("without %v: it is not named:\n%s", right, harness.Tail(p.Output(), 8))
				}
				p.Kill()
			}
		})
	}
}

// before are the services whose work another needs.
var before = map[string][]string{
	kafka.Detector: {kafka.Router}, kafka.Alerter: {kafka.Router, kafka.Detector}, kafka.Asker: {kafka.Router, kafka.Detector}, kafka.Teller: {kafka.Router, kafka.Detector, kafka.Alerter},
	kafka.Explainer: {kafka.Router},
}

// service is one with the rights that are documented for it, but for one (-1 is none).
func (w *world) service(t *testing.T, service string, names kafka.Names, principal, instance, db string, without int) *harness.Process {
	t.Helper()
	for i, r := range names.Rights(service, instance) {
		if i != without {
			w.allow(t, principal, r)
		}
	}
	w.user(t, principal, kadm.ScramSha256, password)
	env := []string{"SPATE_BROKERS=" + w.login, "SPATE_TLS_CA_FILE=" + w.authority.File, "SPATE_SASL_MECHANISM=SCRAM-SHA-256", "SPATE_SASL_USERNAME=" + principal, "SPATE_SASL_PASSWORD=" + password,
		"SPATE_TOPIC=" + names.Activity, "SPATE_INSTANCE=" + instance, "SPATE_DATABASE_URL=" + db, "SPATE_IDLE_TIMEOUT=1s"}
	args := []string{service}
	switch service {
	case kafka.Simulator:
		args = append(args, "--events", "10", "--speed", "0", "--quiet")
	case kafka.Asker:
		args = append(args, "7")
	case kafka.Teller:
		args = []string{"alerts", "show", stored(t, db)}
	case kafka.Explainer:
		args = []string{"why", "--key", "user_id=7"}
	case kafka.Ruler:
		args = []string{"rules", "apply", "../../rules/scraper.sql"}
	}
	return harness.Spate(t, principal, env, args...)
}

// caughtUp reports whether a detector has read all there is.
func caughtUp(p *harness.Process) bool {
	_, metrics := p.Get("/metrics")
	all := false
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "spate_detector_lag_batches{") {
			if all = strings.HasSuffix(line, " 0\n"); !all {
				return false
			}
		}
	}
	return all
}

// written reports whether a topic has records.
func (w *world) written(t *testing.T, topic string) bool {
	t.Helper()
	ends, err := w.adm.ListCommittedOffsets(w.ctx(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n > 0
}
