// Package sns publishes alerts to an Amazon SNS topic. Subscribers get a message per alert at least once; they can detect duplicates by the
// message attribute id, which is the alert's id. Deciding when to publish, and making sure that no alert is lost, is left to the alerter
// and its table.
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
	"spate/shared/notify"
)

// API is what a Publisher needs of *sns.Client.
type API interface {
	Publish(ctx context.Context, in *sdk.PublishInput, opts ...func(*sdk.Options)) (*sdk.PublishOutput, error)
}

// Publisher publishes alerts to a topic. It is safe for concurrent use.
type Publisher struct {
	api   API
	topic string
}

var topicForm = regexp.MustCompile(`^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$`)

// ValidTopic tells why a text is not the ARN of a topic; nil if it is one.
func ValidTopic(arn string) error {
	if !topicForm.MatchString(arn) {
		return fmt.Errorf("%q is not a topic ARN, such as arn:aws:sns:us-east-1:123456789012:name", arn)
	}
	return nil
}

// New returns a publisher to the topic with the ARN.
func New(api API, topicARN string) (*Publisher, error) {
	if api == nil {
		return nil, errors.New("api: missing")
	}
	if err := ValidTopic(topicARN); err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	return &Publisher{api: api, topic: topicARN}, nil
}

// Publish tells the topic of an alert. With an error, subscribers may have been told: only the answer was lost. An error that wraps
// notify.ErrUnsendable is the alert's: nobody was told, and no further try helps.
func (p *Publisher) Publish(ctx context.Context, r alert.Record) error {
	message, err := Message(r)
	if err != nil {
		return fmt.Errorf("publish alert %s: %w", r.ID, err)
	}
	text := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(s)}
	}
	in := &sdk.PublishInput{
		TopicArn: &p.topic, Subject: aws.String(Subject(r)), Message: &message,
		MessageAttributes: map[string]types.MessageAttributeValue{
			"id": text(r.ID), "rule": text(r.Rule), "state": text(string(r.State)), "severity": text(string(r.Severity)),
		},
	}
	if strings.HasSuffix(p.topic, ".fifo") {
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

// Subject is that of the original's mails, or, for a rule of a rules file, names the rule. Of the user or key, what SNS does not allow becomes a question mark, and what does not fit is left
// out at the end: an alert is never kept back because of the user's name.
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
	user := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, key)
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

// Message is the body: the alert's JSON, indented for those who get it by mail. Times that are zero are left out, as is evidence that
// there is none of, or that would make the message larger than SNS takes.
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
	enc.SetEscapeHTML(false) // a user stays what it was
	enc.SetIndent("", "  ")
	if err := enc.Encode(t); err != nil {
		return "", fmt.Errorf("%w: %w", notify.ErrUnsendable, err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
