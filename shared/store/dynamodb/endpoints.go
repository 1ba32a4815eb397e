package dynamodb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/store"
)

func isNoDelivery(err error) bool { return errors.Is(err, store.ErrNoDelivery) }

// isHex reports whether a text can be the id of an incident.
func isHex(id string) bool { return id != "" && strings.Trim(id, "0123456789abcdef") == "" }

func (c Config) endpointPartition() string { return c.partitionOf("endpoints", "") }

func (c Config) endpointKey(name string) Key {
	return Key{Partition: c.endpointPartition(), Sort: hashSort(name)}
}

// endpointUpdate begins an update of what is known of an endpoint. Such items do not expire.
func (t *Table) endpointUpdate(name string) *expression {
	e := newExpression()
	e.set(attrKind, text(kindEndpoint))
	e.set(attrEndpoint, text(name))
	return e
}

// AddTest implements store.Deliveries. The endpoint has the id of its newest test, and nobody adds one who does not know which that is.
func (t *Table) AddTest(ctx context.Context, now time.Time, endpoint string) (d store.Delivery, err error) {
	err = again(ctx, func() (bool, error) {
		a, err := t.attributesAt(ctx, t.cfg.endpointKey(endpoint))
		if err != nil {
			return false, err
		}
		r := &reader{attributes: a}
		e := store.EndpointState{Name: endpoint, ConfiguredAt: r.instant(attrConfigured), DisabledAt: r.instant(attrDisabled)}
		last := r.text(attrTest)
		if r.err != nil {
			return false, r.err
		}
		x := t.endpointUpdate(endpoint)
		condition := "attribute_not_exists(#" + attrTest + ")"
		var pending *store.Delivery
		if last != "" {
			x.values[":before"] = text(last)
			condition = "#" + attrTest + " = :before"
			if p, err := t.deliveryAt(ctx, last, endpoint); err == nil && p.State == store.Pending {
				pending = &p.Delivery
			} else if err != nil && !isNoDelivery(err) {
				return false, err
			}
		}
		if d, err = store.NewTest(now, e, pending); err != nil {
			return false, err
		}
		x.set(attrTest, text(d.WebhookID))
		k := &delivery{Delivery: d}
		put := t.putDelivery(now, k)
		put.Put.Item[attrData] = text(string(d.Data)) // it is nobody else's, unlike the message about an incident
		return t.transact(ctx, []types.TransactWriteItem{t.writeOf(t.cfg.endpointKey(endpoint), x, condition), put, t.putDue(now, k, 0, "")})
	})
	if errors.Is(err, store.ErrNoTest) {
		return store.Delivery{}, err
	} else if err != nil {
		return store.Delivery{}, fmt.Errorf("test endpoint %s: %w", endpoint, err)
	}
	ring(t.bells.of(endpoint))
	return d, nil
}

// Configure implements store.Deliveries.
func (t *Table) Configure(ctx context.Context, now time.Time, endpoints map[string]store.EndpointConfig) error {
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		config, err := endpoints[name].Text()
		if err == nil {
			e := t.endpointUpdate(name)
			e.set(attrConfig, text(config))
			e.set(attrConfigured, instant(milli(now)))
			err = t.touch(ctx, t.updateOf(t.cfg.endpointKey(name), e, ""))
		}
		if err != nil {
			return fmt.Errorf("record configuration of endpoint %s: %w", name, t.translate(err))
		}
	}
	return nil
}

// knownEndpoint is what is known of an endpoint, without numbers.
type knownEndpoint struct {
	store.EndpointState
	listed bool // whatever the numbers are
}

// knownEndpoints returns all, by name.
func (t *Table) knownEndpoints(ctx context.Context) (out []knownEndpoint, err error) {
	err = t.query(ctx, &sdk.QueryInput{
		KeyConditionExpression: aws.String("#pk = :pk"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey},
		ExpressionAttributeValues: attributes{":pk": text(t.cfg.endpointPartition())},
	}, func(a attributes) error {
		r := &reader{attributes: a}
		k := knownEndpoint{EndpointState: store.EndpointState{Name: r.text(attrEndpoint), DisabledAt: r.instant(attrDisabled), Reason: r.text(attrReason), ConfiguredAt: r.instant(attrConfigured)}}
		if config := r.text(attrConfig); config != "" {
			var err error
			if k.Config, err = store.ParseEndpointConfig(config); err != nil {
				r.wrong(attrConfig, err)
			}
		}
		k.listed = k.Config != nil || !k.DisabledAt.IsZero() || r.truth(attrOnce)
		out = append(out, k)
		return r.err
	})
	slices.SortFunc(out, func(a, b knownEndpoint) int { return cmp.Compare(a.Name, b.Name) })
	return out, err
}

// Endpoints implements store.Deliveries. The topic is none of them.
func (t *Table) Endpoints(ctx context.Context) ([]store.EndpointState, error) {
	known, err := t.knownEndpoints(ctx)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	var out []store.EndpointState
	for _, k := range known {
		s := k.EndpointState
		for part := range dueParts {
			n, err := t.count(ctx, t.cfg.duePartition(s.Name, part), "")
			if err != nil {
				return nil, fmt.Errorf("list endpoints: %w", err)
			}
			s.Pending += n
		}
		for state, n := range map[store.DeliveryState]*int64{store.Exhausted: &s.Exhausted, store.Disabled: &s.Dropped} {
			if *n, err = t.count(ctx, t.cfg.undeliveredPartition(s.Name), state); err != nil {
				return nil, fmt.Errorf("list endpoints: %w", err)
			}
		}
		if k.listed || s.Pending+s.Exhausted+s.Dropped > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}

// count returns how many items a partition has, of those in a state if one is given.
func (t *Table) count(ctx context.Context, partition string, state store.DeliveryState) (n int64, err error) {
	in := &sdk.QueryInput{
		TableName: &t.cfg.Table, Select: types.SelectCount, KeyConditionExpression: aws.String("#pk = :pk"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey},
		ExpressionAttributeValues: attributes{":pk": text(partition)},
	}
	if state != "" {
		in.FilterExpression = aws.String("#state = :state")
		in.ExpressionAttributeNames["#state"], in.ExpressionAttributeValues[":state"] = attrState, text(string(state))
	}
	for {
		res, err := t.api.Query(ctx, in)
		if err != nil {
			return 0, t.translate(err)
		}
		n += int64(res.Count)
		if len(res.LastEvaluatedKey) == 0 {
			return n, nil
		}
		in.ExclusiveStartKey = res.LastEvaluatedKey
	}
}

// SetEnabled implements store.Deliveries.
func (t *Table) SetEnabled(ctx context.Context, now time.Time, endpoint string, enabled bool, reason string) error {
	e := t.endpointUpdate(endpoint)
	condition := "attribute_exists(#" + attrDisabled + ")"
	if enabled {
		e.remove(attrDisabled)
		e.remove(attrReason)
		e.set(attrOnce, &types.AttributeValueMemberBOOL{Value: true})
	} else {
		e.set(attrDisabled, instant(milli(now)))
		if reason != "" {
			e.set(attrReason, text(reason))
		}
		condition = "attribute_not_exists(#" + attrDisabled + ")"
	}
	if err := t.touch(ctx, t.updateOf(t.cfg.endpointKey(endpoint), e, condition)); err != nil && !conditionFailed(err) {
		return fmt.Errorf("change endpoint %s: %w", endpoint, t.translate(err))
	}
	return nil
}

// DisabledAt implements store.Deliveries.
func (t *Table) DisabledAt(ctx context.Context, endpoint string) (time.Time, error) {
	a, err := t.attributesAt(ctx, t.cfg.endpointKey(endpoint))
	if err != nil {
		return time.Time{}, fmt.Errorf("read endpoint %s: %w", endpoint, err)
	}
	r := &reader{attributes: a}
	return r.instant(attrDisabled), r.err
}
