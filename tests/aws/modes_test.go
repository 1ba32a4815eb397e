package aws

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/shared/store/postgres"
	"spate/shared/store/postgres/postgrestest"
	"spate/tests/harness"
)

// mode is a deployment of spate, with everything that it needs.
type mode interface {
	// feed sends a file to its end, and runs the pipeline over it until every window is closed.
	feed(t *testing.T, file string)
	// stored are the alerts that it keeps, and their incidents; told the ids of the incidents of whose opening somebody was told.
	stored(t *testing.T) ([]store.Alert, []incident.Incident)
	told(t *testing.T) map[string]bool
}

// TestModesAgree runs the same input through Kafka, PostgreSQL and a webhook, and through Kinesis, DynamoDB and SNS: the same alerts come out,
// and they are those of the reference.
func TestModesAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes a minute")
	}
	inputs := []struct {
		name string
		file func(t *testing.T) string
		// partitions: which events are late depends on it, so an input with late ones has one.
		partitions int
		threshold  int64
	}{
		{"cosmetics-2019-10", shared("data/cosmetics-2019-10-head-9col.csv"), 1, 5},
		{"cosmetics-2019-12", shared("data/cosmetics-2019-12-head-9col.csv"), 1, 5},
		{"rees46", shared("data/rees46-2019-oct-head.csv"), 4, 2}, // nobody in it does more than 5 things in 10 s
		{"nasa", nasa, 1, 5},
		{"in-order", golden("in-order.csv.gz"), 4, 5},
		{"late", golden("late.csv.gz"), 1, 5},
		{"generated", generated, 4, 5},
	}
	server := postgrestest.Start(t)
	for _, in := range inputs {
		t.Run(in.name, func(t *testing.T) {
			t.Parallel()
			file := in.file(t)
			ref, err := verifier.File(file, "category_id", int32(in.partitions), verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: in.threshold})
			if err != nil {
				t.Fatal(err)
			}
			if len(ref.Result()) == 0 {
				t.Fatal("there is nothing to find: the test proves nothing")
			}
			threshold := fmt.Sprintf("SPATE_THRESHOLD=%d", in.threshold)
			modes := map[string]mode{"kafka": onKafka(t, in.partitions, fewConnections(t, server.Database(t)), threshold), "aws": onKinesis(t, in.partitions, threshold)}
			found, runs := map[string][]string{}, map[string][]string{}
			for name, m := range modes {
				m.feed(t, file)
				var records []alert.Record
				told := m.told(t)
				list, incidents := m.stored(t)
				var events int64
				for _, a := range list {
					events += a.Count
					if a.State != alert.Closed {
						t.Errorf("%s: alert %s is %s", name, a.ID, a.State)
					}
					if !told[a.Incident] {
						t.Errorf("%s: nobody was notified of the incident of alert %s", name, a.ID)
					}
					records = append(records, a.Record)
					found[name] = append(found[name], line(a.Record))
				}
				if d := verifier.Compare(ref.Result(), records); !d.Exact() || len(records) != len(ref.Result()) || len(told) != len(incidents) {
					t.Errorf("%s: %d alerts, %d incidents, %d told, %+v", name, len(records), len(incidents), len(told), d)
				}
				for _, i := range incidents {
					events -= i.Events
					runs[name] = append(runs[name], fmt.Sprint(string(i.Key), i.Severity, i.FirstWindowStart, i.LastWindowEnd, i.Windows, i.Events, i.Peak))
				}
				if events != 0 {
					t.Errorf("%s: the incidents have %d events less than their alerts", name, events)
				}
			}
			// With several partitions, which windows are found first depends on how fast each is read, and two incidents that a later window connects stay apart.
			slices.Sort(runs["kafka"])
			slices.Sort(runs["aws"])
			if in.partitions == 1 && !slices.Equal(runs["kafka"], runs["aws"]) {
				t.Errorf("the incidents differ: %s", cmp.Diff(runs["kafka"], runs["aws"]))
			}
			slices.Sort(found["kafka"])
			slices.Sort(found["aws"])
			if !slices.Equal(found["kafka"], found["aws"]) {
				t.Errorf("the modes differ: kafka %d alerts, aws %d", len(found["kafka"]), len(found["aws"]))
			}
			t.Logf("%d events, %d late, %d alerts in each", ref.In, ref.Late, len(found["aws"]))
		})
	}
}

// fewConnections lets everybody have a few of the server's connections.
func fewConnections(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("pool_max_conns", "4")
	u.RawQuery = q.Encode()
	return u.String()
}

// line is what must be the same of an alert in every mode: everything but where the events are in which log.
func line(r alert.Record) string {
	return fmt.Sprint(r.ID, r.Rule, r.State, r.Severity, string(r.UserID), r.Count, r.Threshold, r.WindowStart.UTC(), r.WindowEnd.UTC(), r.FirstEventAt.UTC(), r.LastEventAt.UTC())
}

func shared(name string) func(*testing.T) string {
	return func(t *testing.T) string { return harness.SharedFile(t, name) }
}

// goldenEvents is how many events of a golden input are taken: the stand-in for SNS is slow, and what Flink says of all of them is held against
// the engine elsewhere.
const goldenEvents = 10_000

func golden(name string) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		in, err := os.Open(filepath.Join("../../testdata/golden", name))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		z, err := gzip.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), strings.TrimSuffix(name, ".gz"))
		var out bytes.Buffer
		lines := bufio.NewScanner(z)
		for n := 0; n <= goldenEvents && lines.Scan(); n++ {
			fmt.Fprintln(&out, lines.Text())
		}
		if err := errors.Join(lines.Err(), os.WriteFile(path, out.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// nasa is the head of a web server's log of 1995: hosts, which are names and numbers, as users.
func nasa(t *testing.T) string {
	t.Helper()
	log, err := os.ReadFile(harness.SharedFile(t, "data/nasa-1995-07-01-head.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	csv := []byte("event_time,user_id\n")
	for _, line := range strings.Split(string(log), "\n")[1:] {
		f := strings.Split(line, "\t")
		if len(f) < 3 {
			continue
		}
		seconds, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		csv = fmt.Appendf(csv, "%s,%s\n", time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05 UTC"), f[0])
	}
	path := filepath.Join(t.TempDir(), "nasa.csv")
	if err := os.WriteFile(path, csv, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// generated is traffic with attackers, as a file.
func generated(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "generated.csv")
	p := harness.Spate(t, "generate", nil, "simulate", "--out", path, "--speed", "0", "--event-rate", "300", "--users", "4000", "--duration", "2m", "--disorder", "8s", "--quiet").Start()
	if err := p.Wait(patience); err != nil {
		t.Fatal(err)
	}
	return path
}

// onKafka is mode kafka: an in-process broker, PostgreSQL, a webhook.
func onKafka(t *testing.T, partitions int, database string, env ...string) mode {
	t.Helper()
	m := &kafkaMode{env: env, broker: harness.OwnKfake(t), partitions: partitions, url: database, ids: openings{}, secret: webhook.NewSecret()}
	m.broker.Up()
	t.Cleanup(m.broker.Down)
	secrets, err := webhook.ParseSecrets(m.secret)
	if err != nil {
		t.Fatal(err)
	}
	m.hook = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || webhook.Verify(secrets, r.Header, body, time.Now()) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.ids.take(t, body)
	}))
	t.Cleanup(m.hook.Close)
	m.endpoints = filepath.Join(t.TempDir(), "endpoints.yaml")
	text := fmt.Sprintf("endpoints: [{name: machine, url: %q, secret: %q, allow_private: true}]", m.hook.URL, m.secret)
	if err := os.WriteFile(m.endpoints, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

type kafkaMode struct {
	env        []string
	broker     harness.Broker
	partitions int
	url        string
	secret     string
	endpoints  string // the file
	hook       *httptest.Server

	mu  sync.Mutex
	ids openings
}

// openings are the ids of incidents that were told to be opened.
type openings map[string]bool

// take takes a message, in the form that webhooks and SNS have in common.
func (o openings) take(t *testing.T, body []byte) {
	var m struct {
		Type string
		Data incident.Incident
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	if m.Type == notify.TypeIncidentOpened {
		o[m.Data.ID] = true
	}
}

func (m *kafkaMode) feed(t *testing.T, file string) {
	t.Helper()
	env := append(m.env, "SPATE_BROKERS="+m.broker.Addr, fmt.Sprintf("SPATE_PARTITIONS=%d", m.partitions), "SPATE_IDLE_TIMEOUT=2s", "SPATE_DATABASE_URL="+m.url,
		"SPATE_ENDPOINTS="+m.endpoints)
	// The topic is made by the router, and filled before the router may read it: what is silent, and for how long, is not for this test.
	harness.Spate(t, "router", env, "route").Start()
	cl := harness.Connect(t, m.broker.Addr)
	harness.Eventually(t, patience, "the topic is there", func() bool { return harness.TopicExists(t, cl, "activity") })
	p := harness.Spate(t, "feed", env, "simulate", file, "--speed", "0", "--quiet").Start()
	if err := p.Wait(patience); err != nil {
		t.Fatal(err)
	}
	harness.Spate(t, "detector", env, "detect").Start()
	harness.Spate(t, "alerter", env, "alert").Start()
	harness.Eventually(t, patience, "every window is closed, stored and told", func() bool {
		alerts, _ := m.stored(t)
		return len(alerts) > 0 && !slices.ContainsFunc(alerts, func(a store.Alert) bool { return a.State != alert.Closed || a.Delivery.State != store.Delivered })
	})
}

func (m *kafkaMode) stored(t *testing.T) ([]store.Alert, []incident.Incident) {
	t.Helper()
	st, err := postgres.Open(t.Context(), m.url)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	return collect(t, st)
}

// keeper is what both modes keep alerts and incidents in.
type keeper interface {
	Alerts(context.Context, store.Filter) iter.Seq2[store.Alert, error]
	Incidents(context.Context, store.IncidentFilter) iter.Seq2[incident.Incident, error]
}

func collect(t *testing.T, k keeper) (alerts []store.Alert, incidents []incident.Incident) {
	t.Helper()
	for a, err := range k.Alerts(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		alerts = append(alerts, a)
	}
	for i, err := range k.Incidents(t.Context(), store.IncidentFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		incidents = append(incidents, i)
	}
	return alerts, incidents
}

func (m *kafkaMode) told(*testing.T) map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids
}

// onKinesis is mode aws: kinesalite, dynalite, moto's SNS.
func onKinesis(t *testing.T, partitions int, env ...string) mode {
	t.Helper()
	a := harness.OnAWS(t, partitions, append(env, "SPATE_IDLE_TIMEOUT=0")...)
	return &awsMode{AWS: a, queue: subscribe(t, a.TopicARN), ids: openings{}}
}

type awsMode struct {
	*harness.AWS
	queue queue
	ids   openings
}

func (m *awsMode) feed(t *testing.T, file string) {
	t.Helper()
	for _, args := range [][]string{{"simulate", file, "--speed", "0", "--quiet"}, {"work", "--drain"}} {
		p := harness.Spate(t, args[0], m.Env, args...).Start()
		if err := p.Wait(patience); err != nil {
			t.Fatalf("spate %v: %v", args, err)
		}
	}
	closed, _ := alerts(t, m.AWS)
	p := harness.Spate(t, "alerter", m.Env, "alert").Start()
	harness.Eventually(t, patience, "every alert is stored, closed and told", func() bool {
		m.told(t) // moto gets slower with every message that nobody takes
		left := len(closed)
		list, _ := m.stored(t)
		for _, a := range list {
			if a.State == alert.Closed && a.Delivery.State == store.Delivered {
				left--
			}
		}
		return left <= 0
	})
	if err := p.Stop(20 * time.Second); err != nil {
		t.Errorf("the alerter does not end well on SIGTERM: %v", err)
	}
}

func (m *awsMode) stored(t *testing.T) ([]store.Alert, []incident.Incident) {
	t.Helper()
	table, err := dynamodb.New(m.DynamoDB, dynamodb.Config{Table: m.Table})
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, table)
}

// told reads on in the queue behind the topic.
func (m *awsMode) told(t *testing.T) map[string]bool {
	t.Helper()
	for _, body := range m.queue.receive(t) {
		m.ids.take(t, []byte(body))
	}
	return m.ids
}

// queue is subscribed to a topic.
type queue struct {
	api *sqs.Client
	url string
}

func subscribe(t *testing.T, topic string) queue {
	t.Helper()
	cfg := awstest.Config(awstest.Moto(t))
	q := queue{api: sqs.NewFromConfig(cfg)}
	made, err := q.api.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(topic[strings.LastIndex(topic, ":")+1:])})
	if err != nil {
		t.Fatal(err)
	}
	q.url = *made.QueueUrl
	got, err := q.api.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q.url, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = sns.NewFromConfig(cfg).Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(got.Attributes["QueueArn"]),
		Attributes: map[string]string{"RawMessageDelivery": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// receive takes what is there.
func (q queue) receive(t *testing.T) (bodies []string) {
	t.Helper()
	for {
		out, err := q.api.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: &q.url, MaxNumberOfMessages: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return bodies
		}
		var done []sqstypes.DeleteMessageBatchRequestEntry
		for _, m := range out.Messages {
			bodies = append(bodies, *m.Body)
			done = append(done, sqstypes.DeleteMessageBatchRequestEntry{Id: m.MessageId, ReceiptHandle: m.ReceiptHandle})
		}
		if _, err := q.api.DeleteMessageBatch(context.Background(), &sqs.DeleteMessageBatchInput{QueueUrl: &q.url, Entries: done}); err != nil {
			t.Fatal(err)
		}
	}
}
