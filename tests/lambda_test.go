package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	snssdk "github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/aws/horizon"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/shared/testport"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// lambda is the program as a Lambda function, with a table and a topic of its own, each behind a door that can be shut.
type lambda struct {
	t        *testing.T
	api      *harness.RuntimeAPI
	process  *harness.Process
	table    *dynamodb.Table
	topic    string
	queue    string // subscribed to the topic
	queues   *sqs.Client
	database *door
	sns      *door
}

// newLambda starts it as Lambda does: a program named bootstrap, without arguments. settings come after those that name table and topic.
func newLambda(t *testing.T, settings func(table, topic string) []string) *lambda {
	t.Helper()
	env := awstest.Env(t)
	l := &lambda{t: t, api: harness.NewRuntimeAPI(t), database: newDoor(t, awstest.DynamoDB(t)), sns: newDoor(t, awstest.Moto(t))}
	name := fmt.Sprintf("alerts-%d", time.Now().UnixNano())
	var err error
	if l.table, err = dynamodb.New(sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t))), dynamodb.Config{Table: name}); err != nil {
		t.Fatal(err)
	}
	if err := l.table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	moto := awstest.Config(awstest.Moto(t))
	l.queues = sqs.NewFromConfig(moto)
	topics := snssdk.NewFromConfig(moto)
	topic, err := topics.CreateTopic(t.Context(), &snssdk.CreateTopicInput{Name: &name})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := l.queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topics.Subscribe(t.Context(), &snssdk.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("sqs"),
		Endpoint: aws.String("arn:aws:sqs:us-east-1:123456789012:" + name)}); err != nil {
		t.Fatal(err)
	}
	l.topic, l.queue = *topic.TopicArn, *queue.QueueUrl

	path, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	bootstrap := filepath.Join(t.TempDir(), "bootstrap")
	if err := os.Symlink(path, bootstrap); err != nil {
		t.Fatal(err)
	}
	if settings == nil {
		settings = func(table, topic string) []string {
			return []string{"SPATE_TABLE=" + table, "SPATE_TOPIC_ARN=" + topic}
		}
	}
	env = append(env, l.api.Env()...)
	env = append(env, "AWS_ENDPOINT_URL_DYNAMODB="+l.database.url(), "AWS_ENDPOINT_URL_SNS="+l.sns.url())
	l.process = harness.Spate(t, "bootstrap", append(env, settings(name, l.topic)...))
	l.process.Path = bootstrap
	l.process.Start()
	return l
}

// invoke hands records to the function; what it has not done begins at the sequence number.
func (l *lambda) invoke(records ...kinesisRecord) string {
	l.t.Helper()
	failed, err := invoke(l.t, l.api, kinesisEvent(l.t, records))
	if err != nil {
		l.t.Fatal(err)
	}
	return failed
}

// invokeAndKill kills the process when the table gets the n-th call of an invocation, and starts it again. The invocation may come to its
// end before that.
func (l *lambda) invokeAndKill(n int, records []kinesisRecord) (failed string, err error) {
	l.t.Helper()
	hit, done, event := l.database.await(n), make(chan struct{}), kinesisEvent(l.t, records)
	go func() {
		defer close(done)
		failed, err = invoke(l.t, l.api, event)
	}()
	select {
	case <-hit:
		l.process.Kill()
		l.process.Start()
		<-done
	case <-done:
	}
	return failed, err
}

// alerts returns the alerts of the table by id.
func (l *lambda) alerts() map[string]store.Alert {
	l.t.Helper()
	out := make(map[string]store.Alert)
	for a, err := range l.table.Alerts(l.t.Context(), store.Filter{}) {
		if err != nil {
			l.t.Fatal(err)
		}
		out[a.ID] = a
	}
	return out
}

// messages takes what the topic was told out of the queue: how often of each alert, and the subjects.
func (l *lambda) messages() (of map[string]int, subjects []string) {
	l.t.Helper()
	of = make(map[string]int)
	for {
		res, err := l.queues.ReceiveMessage(l.t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &l.queue, MaxNumberOfMessages: 10, VisibilityTimeout: 600})
		if err != nil {
			l.t.Fatal(err)
		}
		if len(res.Messages) == 0 {
			return of, subjects
		}
		for _, m := range res.Messages {
			var e struct {
				Subject           string
				MessageAttributes map[string]struct{ Value string }
			}
			if err := json.Unmarshal([]byte(*m.Body), &e); err != nil {
				l.t.Fatal(err)
			}
			of[e.MessageAttributes["id"].Value]++
			subjects = append(subjects, e.Subject)
		}
	}
}

// door is a way to a server that can be shut: connections are refused then.
type door struct {
	t      *testing.T
	addr   string
	proxy  http.Handler
	server *http.Server
	ln     net.Listener

	mu   sync.Mutex
	left int           // calls until hit is closed
	hit  chan struct{} // nil: nobody waits for it
}

func newDoor(t *testing.T, target string) *door {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // a killed client is what the tests are about
	d := &door{t: t, addr: testport.Reserve(t), proxy: proxy}
	d.open()
	t.Cleanup(d.shut)
	return d
}

// await returns a channel that is closed when the n-th call from now comes, before it is passed on.
func (d *door) await(n int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.hit = n, make(chan struct{})
	return d.hit
}

// ServeHTTP passes calls on.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	if d.left--; d.left == 0 && d.hit != nil {
		close(d.hit)
	}
	d.mu.Unlock()
	d.proxy.ServeHTTP(w, r)
}

func (d *door) url() string { return "http://" + d.addr }

func (d *door) open() {
	d.t.Helper()
	if d.server != nil {
		return
	}
	ln, err := net.Listen("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.server, d.ln = &http.Server{Handler: d}, ln
	go func(s *http.Server) { _ = s.Serve(ln) }(d.server) // until shut
}

func (d *door) shut() {
	if d.server != nil {
		syscall.ForkLock.RLock() // a process that another test starts has a copy of the listener between fork and exec
		_ = d.server.Close()     // the listener is closed in any case
		_ = d.ln.Close()         // by its own hand: a server that has not come to Serve yet does not know it
		syscall.ForkLock.RUnlock()
		d.server = nil
	}
}

var windows = time.Date(2023, 11, 14, 22, 13, 10, 0, time.UTC)

// alertOf is an alert of a window that has ended.
func alertOf(user string, window int, count int64) alert.Record {
	at := windows.Add(time.Duration(window) * 10 * time.Second)
	return alert.Record{
		ID: alert.ID(alert.Burst, user, at.UnixMilli(), 10_000), Rule: alert.Burst, State: alert.Closed, Severity: alert.SeverityOf(count, 10),
		UserID: json.RawMessage(user), Count: count, Threshold: 5, WindowStart: at, WindowEnd: at.Add(10 * time.Second),
		FirstEventAt: at.Add(time.Millisecond), LastEventAt: at.Add(time.Second),
		Evidence: alert.Evidence{Stream: "activity", Shards: map[string]alert.SequenceRange{"shardId-000000000000": {First: "1", Last: "2"}}},
	}
}

// openedOf is what came before it.
func openedOf(r alert.Record) alert.Record {
	r.State, r.Count, r.Severity = alert.Opened, 6, alert.Warning
	return r
}

// shardOf makes records of a shard of alerts, or of texts as they are.
func shardOf(t *testing.T, shard string, data ...any) []kinesisRecord {
	t.Helper()
	out := make([]kinesisRecord, len(data))
	for i, d := range data {
		out[i] = kinesisRecord{shard: shard, sequence: fmt.Sprintf("495903382714902566085596925383615710959215759891365888%02d", i), arrived: windows.Add(time.Minute + time.Duration(i)*time.Millisecond)}
		switch d := d.(type) {
		case string:
			out[i].data = []byte(d)
		case alert.Record:
			b, err := d.Encode()
			if err != nil {
				t.Fatal(err)
			}
			out[i].data = b
		}
	}
	return out
}

// TestLambdaBadRecord: a bad record in the middle of a batch is what is reported, and all others are stored.
func TestLambdaBadRecord(t *testing.T) {
	t.Parallel()
	l := newLambda(t, nil)
	first, second := alertOf("1", 0, 23), alertOf("2", 0, 7)
	batch := shardOf(t, "shardId-000000000000", openedOf(first), first, `{"user_id":`, second)
	if got := l.invoke(batch...); got != batch[2].sequence {
		t.Errorf("reported %q, want %q", got, batch[2].sequence)
	}
	if got := l.alerts(); len(got) != 2 || got[first.ID].Count != 23 || got[second.ID].Count != 7 {
		t.Errorf("%+v", got)
	}
	if got := l.invoke(batch[2:]...); got != batch[2].sequence {
		t.Errorf("reported %q, want %q", got, batch[2].sequence)
	}
	if got := l.invoke(batch[3:]...); got != "" {
		t.Errorf("reported %q", got)
	}
	if got := l.invoke(); got != "" {
		t.Errorf("reported %q of an empty batch", got)
	}
	told, subjects := l.messages()
	if diff := cmp.Diff(map[string]int{strings.TrimSuffix(openingOf(first), "_opened") + "_escalated_1": 1}, told); diff != "" {
		t.Error(diff)
	}
	if len(subjects) != 1 || !strings.HasPrefix(subjects[0], "spate: escalated: critical: ") {
		t.Errorf("subjects: %q", subjects)
	}
}

// TestLambdaSetsAside: with a queue for them, records that no further try can work off are put there with their reasons, and hold nothing up; while the
// queue cannot be reached they are reported.
func TestLambdaSetsAside(t *testing.T) {
	t.Parallel()
	queues := sqs.NewFromConfig(awstest.Config(awstest.Moto(t)))
	dead, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(fmt.Sprintf("dead-%d", time.Now().UnixNano()))})
	if err != nil {
		t.Fatal(err)
	}
	way := newDoor(t, awstest.Moto(t))
	l := newLambda(t, func(table, topic string) []string {
		return []string{"SPATE_TABLE=" + table, "SPATE_TOPIC_ARN=" + topic, "SPATE_DEAD_LETTERS=" + *dead.QueueUrl, "AWS_ENDPOINT_URL_SQS=" + way.url()}
	})
	first, second := alertOf("1", 0, 23), alertOf("2", 0, 7)
	other := first
	other.Count++
	batch := shardOf(t, "shardId-000000000000", first, `{"user_id":`, other, second)
	way.shut()
	if got := l.invoke(batch...); got != batch[1].sequence {
		t.Errorf("without the queue, reported %q, want %q", got, batch[1].sequence)
	}
	way.open()
	if got := l.invoke(batch[1:]...); got != "" {
		t.Errorf("reported %q", got)
	}
	if got := l.alerts(); len(got) != 2 || got[first.ID].Count != 23 || got[second.ID].Count != 7 {
		t.Errorf("%+v", got)
	}
	letters := make(map[string]string)
	for len(letters) < 2 && t.Context().Err() == nil {
		res, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: dead.QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range res.Messages {
			var letter struct {
				Reason         string
				SequenceNumber string `json:"sequence_number"`
				Data           []byte
			}
			if err := json.Unmarshal([]byte(*m.Body), &letter); err != nil {
				t.Fatal(err)
			}
			letters[letter.SequenceNumber] = letter.Reason
			if string(letter.Data) != string(batch[1].data) && string(letter.Data) != string(batch[2].data) {
				t.Errorf("data %s", letter.Data)
			}
		}
	}
	if !strings.Contains(letters[batch[1].sequence], "not an alert") || !strings.Contains(letters[batch[2].sequence], "conflicts") {
		t.Errorf("letters: %q", letters)
	}
}

func TestLambdaWithoutDynamoDB(t *testing.T) {
	t.Parallel()
	l := newLambda(t, nil)
	first, second := alertOf("1", 0, 23), alertOf("2", 0, 7)
	batch := shardOf(t, "shardId-000000000000", first, second)
	l.database.shut()
	if got := l.invoke(batch...); got != batch[0].sequence {
		t.Errorf("reported %q, want %q", got, batch[0].sequence)
	}
	l.database.open()
	if got := l.invoke(batch...); got != "" {
		t.Errorf("reported %q", got)
	}
	if got := l.alerts(); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	told, _ := l.messages()
	if diff := cmp.Diff(map[string]int{openingOf(first): 1}, told); diff != "" {
		t.Error(diff)
	}
}

// TestLambdaEndsIncidents: when its schedule calls it, it ends what is over by the worker's state, once all up to there is stored, also after a kill -9.
func TestLambdaEndsIncidents(t *testing.T) {
	t.Parallel()
	db := sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t)))
	states := awstest.StateTable(t, db)
	l := newLambda(t, func(table, topic string) []string {
		return []string{"SPATE_TABLE=" + table, "SPATE_TOPIC_ARN=" + topic, "SPATE_STATE_TABLE=" + states, "SPATE_STREAM=events", "SPATE_ALERTS_STREAM=alerts"}
	})
	first, last := alertOf("1", 0, 23), alertOf("2", 0, 7)
	batch := shardOf(t, "shardId-000000000000", first, last)
	state, err := json.Marshal(horizon.Horizon{Closed: first.WindowEnd.Add(80*time.Second).UnixMilli() - 1, Written: map[string]string{"shardId-000000000000": batch[1].sequence}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.PutItem(t.Context(), &sdk.PutItemInput{TableName: &states, Item: map[string]types.AttributeValue{
		"pk": &types.AttributeValueMemberS{Value: "worker#events"}, "state": &types.AttributeValueMemberB{Value: state},
	}}); err != nil {
		t.Fatal(err)
	}
	schedule := func() string {
		t.Helper()
		answer, err := l.api.Invoke([]byte(`{"version":"0","id":"53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa","detail-type":"Scheduled Event","source":"aws.events","time":"2026-11-30T00:00:00Z","detail":{}}`), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	if got := l.invoke(batch[0]); got != "" {
		t.Errorf("reported %q", got)
	}
	// The stream does not exist here, so a shard that is not stored yet cannot be looked for: nothing ends.
	if answer, err := l.api.Invoke([]byte(`{"source":"aws.events"}`), time.Minute); err == nil && string(answer) != `{"resolved":0}` {
		t.Errorf("before the last alert is stored: %s", answer)
	}
	if got := l.invoke(batch[1]); got != "" {
		t.Errorf("reported %q", got)
	}
	l.process.Kill()
	l.process.Start()
	if got := schedule(); got != `{"resolved":2}` {
		t.Errorf("%s", got)
	}
	if got := schedule(); got != `{"resolved":0}` {
		t.Errorf("%s", got)
	}
	told, _ := l.messages()
	id := strings.TrimSuffix(openingOf(first), "_opened")
	if diff := cmp.Diff(map[string]int{id + "_opened": 1, id + "_resolved": 1}, told); diff != "" {
		t.Error(diff)
	}
}

func TestLambdaWithoutSNS(t *testing.T) {
	t.Parallel()
	l := newLambda(t, nil)
	warned, critical := alertOf("1", 0, 7), alertOf("2", 0, 23)
	batch := shardOf(t, "shardId-000000000000", warned, critical, alertOf("3", 0, 7))
	l.sns.shut()
	if got := l.invoke(batch...); got != batch[1].sequence {
		t.Errorf("reported %q, want %q", got, batch[1].sequence)
	}
	if got := l.alerts()[critical.ID]; got.Delivery.State != store.Pending {
		t.Errorf("%+v", got)
	}
	l.sns.open()
	for range 2 {
		if got := l.invoke(batch[1:]...); got != "" {
			t.Errorf("reported %q", got)
		}
	}
	if got := l.alerts(); len(got) != 3 || got[critical.ID].Delivery.State != store.Delivered {
		t.Errorf("%+v", got)
	}
	told, _ := l.messages()
	if diff := cmp.Diff(map[string]int{openingOf(critical): 1}, told); diff != "" {
		t.Error(diff)
	}
}

// TestLambdaBehindEventSource: bad records, rows of others, a table and a topic that go away, and a process that is killed. In the end all
// alerts are in the table, each once; the topic was told of all that are critical; and the bad records, and only they, are put aside.
func TestLambdaBehindEventSource(t *testing.T) {
	t.Parallel()
	l := newLambda(t, nil)
	const alerts = 40
	want, critical, bad := make(map[string]int64), make(map[string]bool), make(map[string]bool)
	var data []any
	for i := range alerts {
		r := alertOf(fmt.Sprint(i%9), i/9, int64(6+i%8))
		want[r.ID], critical[r.ID] = r.Count, r.Severity == alert.Critical
		data = append(data, openedOf(r))
		if i%13 == 5 {
			bad[fmt.Sprint(len(data))] = true
			data = append(data, "bad")
		}
		if i%7 == 3 { // as Flink writes it
			data = append(data, fmt.Sprintf(`{"user_id":%s,"num_actions_per_watermark":%d,"window_start":%q,"window_end":%q}`, r.UserID, r.Count,
				r.WindowStart.Format("2006-01-02T15:04:05"), r.WindowEnd.Format("2006-01-02T15:04:05")))
			continue
		}
		data = append(data, r)
	}
	batch := shardOf(t, "shardId-000000000000", data...)
	source, kills := &eventSource{batch: 25, retries: 5}, 0
	source.invoke = func(records []kinesisRecord) (string, error) {
		switch source.calls % 9 {
		case 2:
			l.database.shut()
		case 5:
			l.sns.shut()
		case 1, 4, 8:
			kills++
			return l.invokeAndKill(1+kills%6, records)
		}
		defer l.database.open()
		defer l.sns.open()
		return invoke(t, l.api, kinesisEvent(t, records))
	}
	source.deliver(t, batch)
	t.Logf("%d records, %d invocations, %d of them with a kill", len(batch), source.calls, kills)

	got := make(map[string]int64)
	told, _ := l.messages()
	grave := make(map[string]bool) // by incident
	for id, a := range l.alerts() {
		got[id] = a.Count
		if a.State != alert.Closed {
			t.Errorf("%s: %s", id, a.State)
		}
		grave[a.Incident] = grave[a.Incident] || critical[id]
		if (a.Delivery.State == store.Delivered) != (told[a.Incident+"_opened"]+told[a.Incident+"_escalated_1"] > 0) {
			t.Errorf("%s: %s, but the topic was told %v", id, a.Delivery.State, told)
		}
	}
	for id, yes := range grave {
		if (told[id+"_opened"]+told[id+"_escalated_1"] > 0) != yes {
			t.Errorf("incident %s: critical %v, told %d and %d times", id, yes, told[id+"_opened"], told[id+"_escalated_1"])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(source.deadLetters) != len(bad) {
		t.Errorf("%d records put aside, want %d", len(source.deadLetters), len(bad))
	}
	for _, r := range source.deadLetters {
		if string(r.data) != "bad" {
			t.Errorf("put aside: %s", r.data)
		}
	}
}

// openingOf is the id of the message about the incident that an alert opens.
func openingOf(r alert.Record) string {
	return incident.ID(r.Rule, incident.KeyOf(&r), r.WindowStart, r.WindowEnd) + "_opened"
}

// TestLambdaIsADropIn: with the settings and the rows of the original, it fills the original's table under the original's keys.
func TestLambdaIsADropIn(t *testing.T) {
	t.Parallel()
	l := newLambda(t, func(table, topic string) []string {
		return []string{"dynamodb_control_table=" + table, "topic_arn=" + topic, "cloudwatch_namespace=shop", "cloudwatch_metric=ddos"}
	})
	batch := shardOf(t, "shardId-000000000003",
		`{"user_id":520088904,"num_actions_per_watermark":23}`, `{"user_id":"guest","num_actions_per_watermark":6}`,
		`{"user_id":520088904,"num_actions_per_watermark":12,"window_start":"2023-11-14T22:13:10","window_end":"2023-11-14T22:13:20"}`)
	for range 2 {
		if got := l.invoke(batch...); got != "" {
			t.Errorf("reported %q", got)
		}
	}
	got := make(map[string]string)
	res, err := sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t))).Scan(t.Context(), &sdk.ScanInput{TableName: aws.String(l.table.Config().Table)})
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range res.Items {
		if it["kind"] != nil {
			continue // spate's own
		}
		key := it["ddb_partition_key"].(*types.AttributeValueMemberS).Value + " " + it["ddb_sort_key"].(*types.AttributeValueMemberN).Value
		got[key] = it["num_actions_per_watermark"].(*types.AttributeValueMemberN).Value
	}
	arrived := func(r kinesisRecord) string {
		return " 1700000050." + strings.TrimRight(r.sequence[len(r.sequence)-27:], "0")
	}
	want := map[string]string{
		"userid#520088904#appserver#app-server-tomcat-123" + arrived(batch[0]): "23",
		"userid#guest#appserver#app-server-tomcat-123" + arrived(batch[1]):     "6",
		"userid#520088904#appserver#app-server-tomcat-123 1699999990":          "12",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	told, subjects := l.messages()
	if len(told) != 2 || len(subjects) != 2 {
		t.Errorf("told %v: %q", told, subjects)
	}
	harness.Eventually(t, 10*time.Second, "metrics in the log", func() bool {
		return strings.Contains(string(l.process.Output()), `"Namespace":"shop"`) && strings.Contains(string(l.process.Output()), `"ddos":3`)
	})
}

// TestLambdaSettings: what is wrong is told, all at once, and the process ends with the code of wrong settings.
func TestLambdaSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  []string
		says []string
	}{
		"not in Lambda": {[]string{"AWS_LAMBDA_RUNTIME_API=", "AWS_REGION=us-east-1"}, []string{"AWS_LAMBDA_RUNTIME_API"}},
		"endpoints": {[]string{"AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "AWS_REGION=us-east-1", "SPATE_ENDPOINTS=endpoints.yaml"},
			[]string{"SPATE_ENDPOINTS", "run spate alert instead"}},
		"no region": {[]string{"AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "AWS_REGION=", "AWS_DEFAULT_REGION="}, []string{"region: missing"}},
		"wrong settings": {[]string{"AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "AWS_REGION=us-east-1", "SPATE_TABLE=a b", "topic_arn=x"},
			[]string{`table: "a b"`, `topic arn: "x"`}},
		"wrong rule": {[]string{"AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "AWS_REGION=us-east-1", "SPATE_MIN_SEVERITY=high", "SPATE_THRESHOLD=0", "SPATE_METRICS_NAMESPACE=AWS/x"},
			[]string{`min severity: "high"`, "threshold: 0", "metrics namespace"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := append([]string{"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "AWS_PROFILE="}, c.env...)
			p := harness.Spate(t, "lambda", env, "lambda").Start()
			var e *exec.ExitError
			if err := p.Wait(20 * time.Second); !errors.As(err, &e) || e.ExitCode() != 2 {
				t.Errorf("exit: %v, want 2", err)
			}
			for _, s := range c.says {
				if !bytes.Contains(p.Output(), []byte(s)) {
					t.Errorf("%q is not told: %s", s, p.Output())
				}
			}
		})
	}
}

// original reads an event as the original's function does, and stores what it finds in the table.
const original = `
import base64, json, sys, time
import boto3

endpoint, table = sys.argv[1:]
event = json.load(sys.stdin)
dynamodb = boto3.resource("dynamodb", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
with dynamodb.Table(table).batch_writer() as batch:
    for n, record in enumerate(event["Records"]):
        found = json.loads(base64.b64decode(record["kinesis"]["data"]))
        count = int(str(found["num_actions_per_watermark"]))
        batch.put_item(Item={
            "ddb_partition_key": "userid#" + str(found["user_id"]) + "#appserver#app-server-tomcat-123",
            "ddb_sort_key": int(time.time()) + n,
            "num_actions_per_watermark": count,
        })
`

// TestOriginalReadsOurStream: the original's way of reading the stream works on what spate writes there.
func TestOriginalReadsOurStream(t *testing.T) {
	t.Parallel()
	python := os.Getenv("SPATE_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import boto3").CombinedOutput(); err != nil {
		testskip.Missing(t, "boto3 is not there; set SPATE_TEST_PYTHON: %v: %s", err, out)
	}
	client := sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t)))
	table, err := dynamodb.New(client, dynamodb.Config{Table: fmt.Sprintf("original-%d", time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	event := kinesisEvent(t, shardOf(t, "shardId-000000000000", openedOf(alertOf("520088904", 0, 23)), alertOf("520088904", 0, 23), alertOf(`"guest"`, 0, 7)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", original, awstest.DynamoDB(t), table.Config().Table)
	cmd.Stdin = bytes.NewReader(event)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	res, err := client.Scan(t.Context(), &sdk.ScanInput{TableName: aws.String(table.Config().Table)})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, it := range res.Items {
		got[it["ddb_partition_key"].(*types.AttributeValueMemberS).Value+" "+it["num_actions_per_watermark"].(*types.AttributeValueMemberN).Value]++
	}
	want := map[string]int{
		"userid#520088904#appserver#app-server-tomcat-123 6": 1, "userid#520088904#appserver#app-server-tomcat-123 23": 1,
		"userid#guest#appserver#app-server-tomcat-123 7": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// spate leaves the original's items alone, in a table that both write to.
	for a, err := range table.Alerts(t.Context(), store.Filter{}) {
		t.Errorf("%+v, %v", a, err)
	}
}
