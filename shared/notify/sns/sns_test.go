package sns_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/notify/sns"
)

var (
	start = time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)
	names atomic.Int64
)

func record(user string, count int64) alert.Record {
	return alert.Record{
		ID: alert.ID(alert.Burst, user, start.UnixMilli(), 10_000), Rule: alert.Burst, State: alert.Closed, Severity: alert.SeverityOf(count, 10),
		UserID: json.RawMessage(user), Count: count, Threshold: 5, WindowStart: start, WindowEnd: start.Add(10 * time.Second),
		FirstEventAt: start.Add(time.Millisecond), LastEventAt: start.Add(time.Second),
		Evidence: alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1, Last: 2}}},
	}
}

// topic makes a topic and a queue that is subscribed to it, with what SNS wraps around a message.
func topic(t *testing.T, fifo bool, attributes map[string]string) (api *sdk.Client, arn string, receive func() envelope) {
	t.Helper()
	cfg := awstest.Config(awstest.Moto(t))
	queues := sqs.NewFromConfig(cfg)
	api = sdk.NewFromConfig(cfg)
	name, kind := fmt.Sprintf("alerts-%d", names.Add(1)), map[string]string{}
	if fifo {
		name += ".fifo"
		kind["FifoTopic"] = "true"
	}
	made, err := api.CreateTopic(t.Context(), &sdk.CreateTopicInput{Name: &name, Attributes: kind})
	if err != nil {
		t.Fatal(err)
	}
	if fifo {
		kind = map[string]string{"FifoQueue": "true"}
	}
	queue, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: kind})
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.Subscribe(t.Context(), &sdk.SubscribeInput{TopicArn: made.TopicArn, Protocol: aws.String("sqs"),
		Endpoint: aws.String("arn:aws:sqs:us-east-1:123456789012:" + name), Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	return api, *made.TopicArn, func() envelope {
		t.Helper()
		res, err := queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: queue.QueueUrl})
		if err != nil {
			t.Fatal(err)
		}
		var e envelope
		if len(res.Messages) > 0 {
			if err := json.Unmarshal([]byte(*res.Messages[0].Body), &e); err != nil {
				t.Fatal(err)
			}
			if _, err := queues.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: queue.QueueUrl, ReceiptHandle: res.Messages[0].ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
}

// envelope is what SNS makes of a message for a queue.
type envelope struct {
	Subject           string
	Message           string
	MessageAttributes map[string]struct{ Type, Value string }
}

func publisher(t *testing.T, api sns.API, arn string) *sns.Publisher {
	t.Helper()
	p, err := sns.New(api, arn)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMessage(t *testing.T) {
	api, arn, receive := topic(t, false, nil)
	r := record("520088904", 23)
	if err := publisher(t, api, arn).Publish(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got := receive()
	if want := "Possible DDoS detected, by user_id 520088904 with a number of attempts of : 23/window"; got.Subject != want {
		t.Errorf("subject: %q, want %q", got.Subject, want)
	}
	attributes := map[string]string{}
	for name, a := range got.MessageAttributes {
		attributes[name] = a.Type + " " + a.Value
	}
	want := map[string]string{"id": "String " + r.ID, "rule": "String burst", "state": "String closed", "severity": "String critical"}
	if diff := cmp.Diff(want, attributes); diff != "" {
		t.Error(diff)
	}
	// The body is the record, as every other consumer of alerts gets it.
	back, err := alert.Parse([]byte(got.Message))
	if err != nil {
		t.Fatalf("%s: %v", got.Message, err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Error(diff)
	}
}

// escalated is a message about an incident, of a user.
func escalated(t *testing.T, user string) notify.Message {
	t.Helper()
	i := incident.Incident{
		ID: "2fd88c03e85a4f2e76b1cb5b773698c4", Rule: alert.Burst, State: incident.StateOpen, Severity: alert.Critical, Key: json.RawMessage(`{"user_id":` + user + `}`), OpenedAt: start,
		EscalatedAt: start.Add(time.Second), FirstWindowStart: start, LastWindowEnd: start.Add(10 * time.Second), Windows: 1, Events: 12, Peak: 12, Escalations: 1, AlertID: "a",
	}
	data, err := i.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := incident.Event{Transition: incident.Escalated, Incident: i}
	return notify.Message{ID: e.ID(), Type: notify.TypeOfEvent(e), At: start.Add(time.Second), Data: data}
}

func TestIncident(t *testing.T) {
	for _, fifo := range []bool{false, true} {
		api, arn, receive := topic(t, fifo, nil)
		m := escalated(t, "520088904")
		for range 2 { // a repeated message has the same id; a FIFO topic keeps it back
			if err := publisher(t, api, arn).Tell(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		got := receive()
		if !strings.HasPrefix(got.Subject, "spate: escalated: critical: ") || !strings.Contains(got.Subject, "520088904") {
			t.Errorf("subject: %q", got.Subject)
		}
		attributes := map[string]string{}
		for name, a := range got.MessageAttributes {
			attributes[name] = a.Type + " " + a.Value
		}
		want := map[string]string{
			"id": "String 2fd88c03e85a4f2e76b1cb5b773698c4_escalated_1", "type": "String incident.escalated", "incident": "String 2fd88c03e85a4f2e76b1cb5b773698c4",
			"rule": "String burst", "state": "String open", "severity": "String critical",
		}
		if diff := cmp.Diff(want, attributes); diff != "" {
			t.Error(diff)
		}
		var body struct {
			ID, Type  string
			Timestamp time.Time
			Data      json.RawMessage
		}
		if err := json.Unmarshal([]byte(got.Message), &body); err != nil {
			t.Fatalf("%s: %v", got.Message, err)
		}
		var a, b any
		if json.Unmarshal(body.Data, &a) != nil || json.Unmarshal(m.Data, &b) != nil || !cmp.Equal(a, b) || body.ID != m.ID || body.Type != m.Type || !body.Timestamp.Equal(m.At) {
			t.Errorf("%s", got.Message)
		}
		if again := receive(); (again.Subject == "") != fifo {
			t.Errorf("fifo %v: %q", fifo, again.Subject)
		}
	}
}

// TestIncidentOfOddUsers: a user is no reason to keep a message back, and stays what it was.
func TestIncidentOfOddUsers(t *testing.T) {
	api, arn, receive := topic(t, false, nil)
	p := publisher(t, api, arn)
	for _, user := range odd {
		if err := p.Tell(t.Context(), escalated(t, user)); err != nil {
			t.Errorf("%s: %v", user, err)
			continue
		}
		got := receive()
		if s := got.Subject; len(s) >= 100 || len(s) < 20 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("%s: %q", user, s)
		}
		var body struct {
			Data struct {
				Key struct {
					User json.RawMessage `json:"user_id"`
				}
			}
		}
		if err := json.Unmarshal([]byte(got.Message), &body); err != nil || string(body.Data.Key.User) != user {
			t.Errorf("user %s came as %s: %v", user, body.Data.Key.User, err)
		}
	}
}

func TestUnsendableIncident(t *testing.T) {
	p := publisher(t, nowhere{}, "arn:aws:sns:us-east-1:123456789012:alerts")
	m := escalated(t, "1")
	if err := p.Tell(t.Context(), m); !errors.Is(err, errNowhere) || errors.Is(err, notify.ErrUnsendable) {
		t.Errorf("%v", err)
	}
	for _, bad := range []notify.Message{{ID: m.ID, Type: m.Type, Data: json.RawMessage("{")}, {ID: m.ID, Type: "incident.none", Data: m.Data}, {Type: m.Type, Data: m.Data}, escalated(t, `"`+strings.Repeat("x", 300<<10)+`"`)} {
		if err := p.Tell(t.Context(), bad); !errors.Is(err, notify.ErrUnsendable) {
			t.Errorf("%.100s: %v", bad.Data, err)
		}
	}
}

// TestUnsendable: what no JSON can be made of is not published, and no fault of the topic.
func TestUnsendable(t *testing.T) {
	r := record("520088904", 23)
	r.WindowEnd = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	p := publisher(t, nowhere{}, "arn:aws:sns:us-east-1:123456789012:alerts")
	if err := p.Publish(t.Context(), r); !errors.Is(err, notify.ErrUnsendable) {
		t.Errorf("%v", err)
	}
	if err := p.Publish(t.Context(), record("520088904", 23)); !errors.Is(err, errNowhere) || errors.Is(err, notify.ErrUnsendable) {
		t.Errorf("%v", err)
	}
}

// nowhere is a topic that does not answer.
type nowhere struct{}

var errNowhere = errors.New("no answer")

func (nowhere) Publish(context.Context, *sdk.PublishInput, ...func(*sdk.Options)) (*sdk.PublishOutput, error) {
	return nil, errNowhere
}

// TestSubscriptionsFilter: by the attributes.
func TestSubscriptionsFilter(t *testing.T) {
	api, arn, receive := topic(t, false, map[string]string{"FilterPolicy": `{"severity":["critical"]}`})
	p := publisher(t, api, arn)
	for _, count := range []int64{6, 11} {
		if err := p.Publish(t.Context(), record("1", count)); err != nil {
			t.Fatal(err)
		}
	}
	if got := receive(); !strings.Contains(got.Subject, ": 11/window") {
		t.Errorf("got %q", got.Subject)
	}
	if got := receive(); got.Subject != "" {
		t.Errorf("got %q", got.Subject)
	}
}

func TestFIFO(t *testing.T) {
	api, arn, receive := topic(t, true, nil)
	p := publisher(t, api, arn)
	for range 2 {
		if err := p.Publish(t.Context(), record("1", 11)); err != nil {
			t.Fatal(err)
		}
	}
	if got := receive(); got.Subject == "" {
		t.Error("nothing came")
	}
	if got := receive(); got.Subject != "" {
		t.Error("it came twice")
	}
}

// odd are users that SNS' rules for subjects do not fit.
var odd = []string{
	`"a\nb"`, `"\u0000\u001f\u007f"`, `"müller"`, `"日本語"`, `"` + strings.Repeat("x", 1000) + `"`, `"` + strings.Repeat("ü", 500) + `"`, `" "`, `"<&>"`,
	`"\"quoted\""`, `"\ud83d\ude00"`, `-1`, `12345678901234567890123456789012345678901234567890`,
}

func TestOddUsers(t *testing.T) {
	api, arn, receive := topic(t, false, nil)
	p := publisher(t, api, arn)
	for _, user := range odd {
		for _, count := range []int64{6, 9_223_372_036_854_775_807} {
			r := record(user, count)
			if s := sns.Subject(r); len(s) >= 100 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) ||
				!strings.HasPrefix(s, "Possible DDoS detected, by user_id ") || !strings.HasSuffix(s, fmt.Sprintf(" with a number of attempts of : %d/window", count)) {
				t.Errorf("%s: %d characters: %q", user, len(s), s)
			}
			if err := p.Publish(t.Context(), r); err != nil {
				t.Errorf("%s: %v", user, err)
				continue
			}
			got := receive()
			if got.Subject != sns.Subject(r) {
				t.Errorf("%s: %q", user, got.Subject)
			}
			var back struct {
				User json.RawMessage `json:"user_id"`
			}
			if err := json.Unmarshal([]byte(got.Message), &back); err != nil || string(back.User) != user {
				t.Errorf("user %s came as %s: %v", user, back.User, err)
			}
		}
	}
}

func FuzzSubject(f *testing.F) {
	for _, user := range odd {
		f.Add(user, int64(6))
	}
	f.Fuzz(func(t *testing.T, user string, count int64) {
		s := sns.Subject(alert.Record{UserID: json.RawMessage(user), Count: count})
		if len(s) >= 100 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("%d characters: %q", len(s), s)
		}
	})
}

// TestUnknownIsLeftOut: of alerts that others found, what is not known is not told.
func TestUnknownIsLeftOut(t *testing.T) {
	r := record("1", 11)
	r.WindowStart, r.WindowEnd, r.FirstEventAt, r.LastEventAt, r.Evidence = time.Time{}, time.Time{}, time.Time{}, time.Time{}, alert.Evidence{}
	got, err := sns.Message(r)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(got), &members); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"id": r.ID, "rule": "burst", "state": "closed", "severity": "critical", "user_id": 1.0, "user": "1", "num_actions_per_watermark": 11.0, "threshold": 5.0}
	if diff := cmp.Diff(want, members); diff != "" {
		t.Error(diff)
	}
}

func TestEvidenceThatIsTooLargeIsLeftOut(t *testing.T) {
	r := record("1", 11)
	for i := range 5000 {
		r.Evidence.Partitions[fmt.Sprint(i)] = alert.OffsetRange{First: 1 << 60, Last: 1 << 61}
	}
	got, err := sns.Message(r)
	if err != nil || len(got) > 256<<10 || strings.Contains(got, "evidence") || !strings.Contains(got, r.ID) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestErrorsHaveNoSecrets: what cannot be published is told without what signs the calls.
func TestErrorsHaveNoSecrets(t *testing.T) {
	refused := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error></ErrorResponse>`)
	}))
	defer refused.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()
	for _, url := range []string{refused.URL, cut.URL, "http://127.0.0.1:1"} {
		cfg := awstest.Config(url)
		cfg.Credentials = credentials.NewStaticCredentialsProvider("AKIASECRETID", "verysecretkey", "sessionsecret")
		api := sdk.NewFromConfig(cfg, func(o *sdk.Options) { o.Retryer = aws.NopRetryer{} })
		err := publisher(t, api, "arn:aws:sns:us-east-1:123456789012:alerts").Publish(t.Context(), record("1", 11))
		if err == nil {
			t.Fatalf("%s: published", url)
		}
		for _, secret := range []string{"SECRETID", "verysecretkey", "sessionsecret"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", url, err)
			}
		}
	}
}

type api func() error

func (f api) Publish(context.Context, *sdk.PublishInput, ...func(*sdk.Options)) (*sdk.PublishOutput, error) {
	return &sdk.PublishOutput{}, f()
}

func TestErrorIsWrapped(t *testing.T) {
	cause := errors.New("throttled")
	p := publisher(t, api(func() error { return cause }), "arn:aws:sns:eu-west-1:123456789012:alerts")
	if err := p.Publish(t.Context(), record("1", 11)); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, arn := range []string{"", "alerts", "arn:aws:sqs:us-east-1:123456789012:alerts", "arn:aws:sns:us-east-1:123456789012:"} {
		if _, err := sns.New(api(nil), arn); err == nil {
			t.Errorf("%q: accepted", arn)
		}
	}
	if _, err := sns.New(nil, "arn:aws-cn:sns:cn-north-1:123456789012:alerts"); err == nil {
		t.Error("no API: accepted")
	}
}

// TestAnyRule: an alert of a rule of a rules file is told as the topic of alerts has it.
func TestAnyRule(t *testing.T) {
	start := time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)
	r := alert.Record{Rule: "card-testing", State: alert.Raised, Severity: alert.Critical, Count: 12, WindowStart: start, WindowEnd: start.Add(time.Minute)}
	r.SetRow([]string{"ip", "product"}, `["10.0.0.1",5]`, []byte(`"z":"<1>","a":1.50`))
	if got, want := sns.Subject(r), `spate: card-testing ip=10.0.0.1 product=5 with 12 events/window`; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	got, err := sns.Message(r)
	for _, part := range []string{"\"rule\": \"card-testing\",\n", "\"key\": {\n    \"ip\": \"10.0.0.1\",\n    \"product\": 5\n  },\n  \"z\": \"<1>\",\n  \"a\": 1.50,\n  \"event_count\": 12,\n"} {
		if err != nil || !strings.Contains(got, part) {
			t.Errorf("%v, %s\nlacks %s", err, got, part)
		}
	}
}
