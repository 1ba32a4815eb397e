package kinesis

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// QueueAPI is the part of *sqs.Client that DeadLetters uses.
type QueueAPI interface {
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
}

// DeadLetters is an SQS queue for records that no further try can process.
type DeadLetters struct {
	API QueueAPI
	URL string
}

// maxLetter is how much of a record a message has: base64 takes a third more, and SQS takes 256 KiB.
const maxLetter = 160 << 10

// letter is a message of the queue.
type letter struct {
	Reason         string `json:"reason"`
	ShardID        string `json:"shard_id"`
	SequenceNumber string `json:"sequence_number"`
	Data           []byte `json:"data"`                // base64
	Truncated      int    `json:"truncated,omitempty"` // the length of a record that was too long to be kept whole
}

func (d *DeadLetters) put(ctx context.Context, r Record, reason error) error {
	l := letter{Reason: reason.Error(), ShardID: r.ShardID, SequenceNumber: r.SequenceNumber, Data: r.Data}
	if len(l.Data) > maxLetter {
		l.Truncated, l.Data = len(l.Data), l.Data[:maxLetter]
	}
	if len(l.Reason) > 1000 {
		l.Reason = l.Reason[:1000]
	}
	body, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := d.API.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: aws.String(d.URL), MessageBody: aws.String(string(body))}); err != nil {
		return fmt.Errorf("send record to dead-letter queue %s: %w", d.URL, err)
	}
	return nil
}
