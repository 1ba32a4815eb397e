package dynamodb

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// attrStored is a sequence number with zeros before it, so that texts are in the order of numbers: numbers of DynamoDB have too few digits.
const attrStored = "stored"

// sequenceWidth has room for more than the 56 digits of Kinesis.
const sequenceWidth = 80

func (c Config) progressKey(stream, shard string) Key {
	return Key{Partition: "alerter#" + stream + "#" + shard + "#appserver#" + c.server(), Sort: "0"}
}

// NoteStored records that the alerts of a shard up to a sequence number are stored. It does nothing if a later one is recorded already.
func (t *Table) NoteStored(ctx context.Context, stream, shard, sequence string) error {
	if len(sequence) > sequenceWidth {
		return fmt.Errorf("record the stored position of shard %s: sequence number %.100s has more than %d digits", shard, sequence, sequenceWidth)
	}
	padded := text(strings.Repeat("0", sequenceWidth-len(sequence)) + sequence)
	err := t.touch(ctx, &sdk.UpdateItemInput{
		TableName: &t.cfg.Table, Key: t.cfg.progressKey(stream, shard).attributes(), UpdateExpression: aws.String("SET #stored = :stored, #kind = :kind"),
		ConditionExpression:       aws.String("attribute_not_exists(#stored) OR #stored < :stored"),
		ExpressionAttributeNames:  map[string]string{"#stored": attrStored, "#kind": attrKind},
		ExpressionAttributeValues: attributes{":stored": padded, ":kind": text(kindProgress)},
	})
	if err != nil && !conditionFailed(err) {
		return fmt.Errorf("record the stored position of shard %s: %w", shard, t.translate(err))
	}
	return nil
}

// Stored returns the sequence number up to which the alerts of a shard are recorded as stored; empty if there is none.
func (t *Table) Stored(ctx context.Context, stream, shard string) (string, error) {
	a, err := t.attributesAt(ctx, t.cfg.progressKey(stream, shard))
	if err != nil {
		return "", fmt.Errorf("read the stored position of shard %s: %w", shard, err)
	}
	r := &reader{attributes: a}
	return strings.TrimLeft(r.text(attrStored), "0"), r.err
}
