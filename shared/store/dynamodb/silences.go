package dynamodb

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/incident"
	"spate/shared/store"
)

// attrSilence is a silence as JSON. Its sort key is when it ends, and digits of its id, so that those that have ended are not read with each alert.
const attrSilence = "silence"

func (c Config) silencePartition() string { return "silences#appserver#" + c.server() }

func (c Config) silenceKey(s incident.Silence) Key {
	return Key{Partition: c.silencePartition(), Sort: seconds(s.Until, idDigits(s.ID))}
}

func (t *Table) putSilence(s incident.Silence) (*types.Put, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode silence: %w", err)
	}
	item := t.cfg.silenceKey(s).attributes()
	item[attrKind], item[attrSilence] = text(kindSilence), text(string(b))
	return &types.Put{TableName: &t.cfg.Table, Item: item}, nil
}

// AddSilence implements store.Silences.
func (t *Table) AddSilence(ctx context.Context, s incident.Silence) error {
	put, err := t.putSilence(s)
	if err == nil {
		_, err = t.api.PutItem(ctx, &sdk.PutItemInput{TableName: put.TableName, Item: put.Item})
	}
	if err != nil {
		return fmt.Errorf("add silence: %w", t.translate(err))
	}
	return nil
}

// Silences implements store.Silences.
func (t *Table) Silences(ctx context.Context, endAfter time.Time) ([]incident.Silence, error) {
	list, err := t.silencesAfter(ctx, endAfter)
	if err != nil {
		return nil, fmt.Errorf("list silences: %w", err)
	}
	return list, nil
}

func (t *Table) silencesAfter(ctx context.Context, endAfter time.Time) (out []incident.Silence, err error) {
	from := decimal("0")
	if !endAfter.IsZero() {
		from = decimal(seconds(endAfter, ""))
	}
	err = t.query(ctx, &sdk.QueryInput{
		KeyConditionExpression:    aws.String("#pk = :pk AND #sort >= :from"),
		ExpressionAttributeNames:  map[string]string{"#pk": partitionKey, "#sort": sortKey},
		ExpressionAttributeValues: attributes{":pk": text(t.cfg.silencePartition()), ":from": from},
	}, func(a attributes) error {
		r := &reader{attributes: a}
		var s incident.Silence
		if err := json.Unmarshal([]byte(r.text(attrSilence)), &s); err != nil {
			r.wrong(attrSilence, err)
		}
		if s.Until.After(endAfter) {
			out = append(out, s)
		}
		return r.err
	})
	slices.SortFunc(out, func(a, b incident.Silence) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.ID, b.ID)) })
	return out, err
}

// EndSilence implements store.Silences.
func (t *Table) EndSilence(ctx context.Context, id string, at time.Time) error {
	err := again(ctx, func() (bool, error) {
		list, err := t.silencesAfter(ctx, time.Time{})
		if err != nil {
			return false, err
		}
		n := slices.IndexFunc(list, func(s incident.Silence) bool { return s.ID == id })
		if n < 0 {
			return false, fmt.Errorf("%w: id %q", store.ErrNoSilence, id)
		}
		was, is := list[n], list[n]
		if at = milli(at); !at.Before(was.Until) {
			return true, nil
		}
		is.Until = at
		if at.Before(is.From) {
			is.From = at
		}
		put, err := t.putSilence(is)
		if err != nil {
			return false, err
		}
		return t.transact(ctx, []types.TransactWriteItem{{Put: put}, {Delete: &types.Delete{
			TableName: &t.cfg.Table, Key: t.cfg.silenceKey(was).attributes(), ConditionExpression: aws.String("attribute_exists(#pk)"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey},
		}}})
	})
	if err != nil {
		return fmt.Errorf("end silence %q: %w", id, err)
	}
	return nil
}
