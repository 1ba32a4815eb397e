// Package sns publishes messages about incidents, and alerts that are not part of an incident, to an Amazon SNS topic. Subscribers get each at least once; they can
// detect duplicates by the message attribute id, which is the id of the message or the alert. The alerter and its table decide when to publish, and make sure that
// nothing is lost.
package sns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/notify/brief"
)

// API is the part of *sns.Client that a Publisher uses.
type API interface {
	Publish(ctx context.Context, in *sdk.PublishInput, opts ...func(*sdk.Options)) (*sdk.PublishOutput, error)
}

// Publisher publishes messages to a topic. It is safe for concurrent use.
type Publisher struct {
	api   API
	topic string
}

var topicForm = regexp.MustCompile(`^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$`)

// ValidTopic returns an error if a text is not the ARN of a topic.
func ValidTopic(arn string) error {
	if !topicForm.MatchString(arn) {
		return fmt.Errorf("%q is not a topic ARN; use a form such as arn:aws:sns:us-east-1:123456789012:name", arn)
	}
	return nil
}

// New returns a publisher to the topic with this ARN.
func New(api API, topicARN string) (*Publisher, error) {
	if api == nil {
		return nil, errors.New("api: missing")
	}
	if err := ValidTopic(topicARN); err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	return &Publisher{api: api, topic: topicARN}, nil
}

// Tell publishes a message about an incident. After an error, the message may have been published and only the answer lost. An error that wraps
// notify.ErrUnsendable means that the message is at fault: it was not published, and no further try helps.
func (p *Publisher) Tell(ctx context.Context, m notify.Message) error {
	in, err := p.tell(m)
	if err != nil {
		return fmt.Errorf("publish message %s: %w", m.ID, err)
	}
	if _, err := p.api.Publish(ctx, in); err != nil {
		return fmt.Errorf("publish message %s: %w", m.ID, err)
	}
	return nil
}

// envelope is the body of a message about an incident: that of a webhook, with the id, which a webhook has in a header.
type envelope struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Timestamp string          `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

func (p *Publisher) tell(m notify.Message) (*sdk.PublishInput, error) {
	b, err := brief.Of(m, "")
	if err != nil {
		return nil, err
	}
	var i incident.Incident
	if err := json.Unmarshal(m.Data, &i); err != nil {
		return nil, fmt.Errorf("%w: %w", notify.ErrUnsendable, err)
	}
	body, err := encode(envelope{ID: m.ID, Type: m.Type, Timestamp: m.At.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Data: m.Data})
	if err != nil {
		return nil, err
	}
	if len(body) > maxMessage {
		return nil, fmt.Errorf("%w: it is %d bytes long; the maximum is %d", notify.ErrUnsendable, len(body), maxMessage)
	}
	in := &sdk.PublishInput{
		TopicArn: &p.topic, Subject: aws.String(subjectOf(b)), Message: &body,
		MessageAttributes: map[string]types.MessageAttributeValue{
			"id": attribute(m.ID), "type": attribute(m.Type), "incident": attribute(i.ID), "rule": attribute(i.Rule), "state": attribute(string(i.State)), "severity": attribute(string(i.Severity)),
		},
	}
	if p.fifo() {
		in.MessageGroupId, in.MessageDeduplicationId = &i.ID, &m.ID // messages about an incident stay in order
	}
	return in, nil
}

func (p *Publisher) fifo() bool { return strings.HasSuffix(p.topic, ".fifo") }

func attribute(s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(s)}
}

// subjectOf is what became of an incident, and which one it is, as far as there is room.
func subjectOf(b brief.Brief) string {
	s := strings.Map(printable, "spate: "+b.Status+": "+b.Title)
	if len(s) > maxSubject {
		const cut = "..."
		s = s[:maxSubject-len(cut)] + cut
	}
	return s
}

// printable makes a question mark of what SNS does not allow in a subject.
func printable(c rune) rune {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}

// Publish publishes an alert that is not part of an incident. After an error, the alert may have been published and only the answer lost. An error that wraps
// notify.ErrUnsendable means that the alert is at fault: it was not published, and no further try helps.
func (p *Publisher) Publish(ctx context.Context, r alert.Record) error {
	message, err := Message(r)
	if err != nil {
		return fmt.Errorf("publish alert %s: %w", r.ID, err)
	}
	in := &sdk.PublishInput{
		TopicArn: &p.topic, Subject: aws.String(Subject(r)), Message: &message,
		MessageAttributes: map[string]types.MessageAttributeValue{
			"id": attribute(r.ID), "rule": attribute(r.Rule), "state": attribute(string(r.State)), "severity": attribute(string(r.Severity)),
		},
	}
	if p.fifo() {
		// Alerts are independent of each other, so each is a group of its own; SNS then leaves repetitions out for five minutes.
		in.MessageGroupId, in.MessageDeduplicationId = &r.ID, &r.ID
	}
	if _, err := p.api.Publish(ctx, in); err != nil {
		return fmt.Errorf("publish alert %s: %w", r.ID, err)
	}
	return nil
}

const (
	// maxSubject: the API's reference says "less than 100 characters", in ASCII.
	maxSubject = 99
	// maxMessage is below SNS' 256 KiB, which count the attributes as well.
	maxMessage = 250 << 10
)

// Subject returns the subject of the original's emails or, for a rule in a rules file, a subject that names the rule. In the user or key, characters that SNS does not allow become
// question marks, and the end is truncated if it does not fit: an alert is never withheld because of the user's name.
func Subject(r alert.Record) string {
	before, between, after := "Possible DDoS detected, by user_id ", " with a number of attempts of : ", "/window"
	key := r.KeyText()
	if r.Key != nil {
		before, between, after = "spate: "+r.Rule+" ", " with ", " events/window"
		if label, err := alert.KeyLabel(r.Key); err == nil {
			key = label
		}
	}
	count := strconv.FormatInt(r.Count, 10)
	user := strings.Map(printable, key)
	if room := maxSubject - len(before) - len(between) - len(count) - len(after); len(user) > room {
		const cut = "..."
		user = user[:max(0, room-len(cut))] + cut
	}
	return before + user + between + count + after
}

// told is an alert.Record without what is not known of alerts that others found.
type told struct {
	ID           string          `json:"id"`
	Rule         string          `json:"rule"`
	State        alert.State     `json:"state"`
	Severity     alert.Severity  `json:"severity"`
	UserID       json.RawMessage `json:"user_id"`
	User         string          `json:"user"`
	Count        int64           `json:"num_actions_per_watermark"`
	Threshold    int64           `json:"threshold"`
	WindowStart  time.Time       `json:"window_start,omitzero"`
	WindowEnd    time.Time       `json:"window_end,omitzero"`
	FirstEventAt time.Time       `json:"first_event_at,omitzero"`
	LastEventAt  time.Time       `json:"last_event_at,omitzero"`
	Evidence     *alert.Evidence `json:"evidence,omitempty"`
}

// Message returns the body: the alert's JSON, indented for emails. Times that are zero are omitted, as is evidence if there is none or if it
// would make the message larger than SNS accepts.
func Message(r alert.Record) (string, error) {
	if r.Key != nil {
		return row(r)
	}
	t := told{
		ID: r.ID, Rule: r.Rule, State: r.State, Severity: r.Severity, UserID: r.UserID, User: activity.UserText(r.UserID), Count: r.Count, Threshold: r.Threshold,
		WindowStart: r.WindowStart, WindowEnd: r.WindowEnd, FirstEventAt: r.FirstEventAt, LastEventAt: r.LastEventAt,
	}
	if len(r.Evidence.Partitions)+len(r.Evidence.Shards) > 0 {
		t.Evidence = &r.Evidence
	}
	message, err := encode(t)
	if err == nil && len(message) > maxMessage {
		t.Evidence = nil
		message, err = encode(t)
	}
	return message, err
}

// row is the body of an alert of a rule of a rules file, of which everything is known.
func row(r alert.Record) (string, error) {
	message, err := encode(r.Written())
	if err == nil && len(message) > maxMessage {
		r.Evidence = alert.Evidence{}
		message, err = encode(r.Written())
	}
	return message, err
}

func encode(t any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // keeps users unchanged
	enc.SetIndent("", "  ")
	if err := enc.Encode(t); err != nil {
		return "", fmt.Errorf("%w: %w", notify.ErrUnsendable, err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
