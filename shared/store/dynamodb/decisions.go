package dynamodb

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/decision"
)

// The attributes of a decision: its JSON, and whether it is the end of one.
const (
	attrDecision = "decision"
	attrEnded    = "ended"
)

const kindDecision = "decision"

// endKept is how long after what it ends the end of a decision is kept: what it ends may be deleted later than its time.
const endKept = 72 * time.Hour

func (c Config) decisionPartition() string { return "decisions#appserver#" + c.server() }

// putDecision appends a decision. Items never change, so a reader can continue from the time up to which it has read.
func (t *Table) putDecision(now time.Time, d decision.Decision, ended bool) (*types.Put, error) {
	b, err := d.Encode()
	if err != nil {
		return nil, err
	}
	kept := d.Until
	if ended {
		kept = kept.Add(endKept)
	}
	item := Key{Partition: t.cfg.decisionPartition(), Sort: seconds(now, idDigits(fmt.Sprint(ended)+string(b)))}.attributes()
	item[attrKind], item[attrDecision], item[attrExpires] = text(kindDecision), text(string(b)), number(kept.Unix()+1)
	if ended {
		item[attrEnded] = &types.AttributeValueMemberBOOL{Value: true}
	}
	return &types.Put{TableName: &t.cfg.Table, Item: item}, nil
}

// PutDecision writes a decision.
func (t *Table) PutDecision(ctx context.Context, now time.Time, d decision.Decision) error {
	return t.append(ctx, now, d, false)
}

// EndDecision writes the end of a decision.
func (t *Table) EndDecision(ctx context.Context, now time.Time, d decision.Decision) error {
	// It ends what was made before it, even if the clock of the maker is ahead.
	if at := milli(now); at.After(d.Since) {
		d.Since = at
	} else {
		d.Since = d.Since.Add(time.Millisecond)
	}
	return t.append(ctx, now, d, true)
}

func (t *Table) append(ctx context.Context, now time.Time, d decision.Decision, ended bool) error {
	put, err := t.putDecision(now, d, ended)
	if err == nil {
		_, err = t.api.PutItem(ctx, &sdk.PutItemInput{TableName: put.TableName, Item: put.Item})
	}
	if err != nil {
		return fmt.Errorf("write decision: %w", t.translate(err))
	}
	return nil
}

// decide is the write of the decision that a record makes, if it makes one that still holds.
func (t *Table) decide(now time.Time, it *Item) ([]types.TransactWriteItem, error) {
	if it.DecidedAt.IsZero() {
		return nil, nil
	}
	d, ok := decision.Of(&it.Record, it.DecidedAt, it.Incident)
	if !ok || !d.Active(now) || d.Validate() != nil {
		return nil, nil
	}
	put, err := t.putDecision(now, d, false)
	return []types.TransactWriteItem{{Put: put}}, err
}

// Decisions returns the decisions and ends that were written at or after a time, by the writers' clocks, in the order of writing. malformed, if not nil, is called for each item
// that is not a decision; the item is left out.
func (t *Table) Decisions(ctx context.Context, from time.Time, malformed func(error)) (out []decision.Written, err error) {
	after := decimal("0")
	if !from.IsZero() {
		after = decimal(seconds(from, ""))
	}
	err = t.query(ctx, &sdk.QueryInput{
		KeyConditionExpression:    aws.String("#pk = :pk AND #sort >= :from"),
		ExpressionAttributeNames:  map[string]string{"#pk": partitionKey, "#sort": sortKey},
		ExpressionAttributeValues: attributes{":pk": text(t.cfg.decisionPartition()), ":from": after},
	}, func(a attributes) error {
		r := &reader{attributes: a}
		d := decision.Written{Ended: r.truth(attrEnded), Sort: r.decimal(sortKey)}
		if err := json.Unmarshal([]byte(r.text(attrDecision)), &d.Decision); err != nil {
			r.wrong(attrDecision, err)
		} else if err := d.Validate(); err != nil && !d.Ended {
			r.wrong(attrDecision, err)
		}
		d.WrittenAt = Key{Sort: d.Sort}.time()
		if r.err == nil {
			out = append(out, d)
		} else if malformed != nil {
			malformed(fmt.Errorf("decision at %s: %w", d.Sort, r.err))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read decisions: %w", err)
	}
	return out, nil
}
