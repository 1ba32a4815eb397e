package dynamodb

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/aws/cloud"
)

// activeEvery is how often Create looks whether the table is there.
const activeEvery = 500 * time.Millisecond

// Create creates the table, billed on demand, and waits until it is active. It leaves an existing table unchanged except for the time to live,
// which decisions need; if an existing table has other keys, the error wraps ErrSchema.
func (t *Table) Create(ctx context.Context) error {
	if err := t.create(ctx); err != nil {
		return fmt.Errorf("create table %s: %w", t.cfg.Table, err)
	}
	return nil
}

func (t *Table) create(ctx context.Context) error {
	_, err := t.api.CreateTable(ctx, &sdk.CreateTableInput{
		TableName:   &t.cfg.Table,
		BillingMode: types.BillingModePayPerRequest,
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(partitionKey), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(sortKey), KeyType: types.KeyTypeRange},
		},
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(partitionKey), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(sortKey), AttributeType: types.ScalarAttributeTypeN},
		},
	})
	if err != nil && !cloud.IsCode(err, "ResourceInUseException") { // there already, or on its way
		return err
	}
	for {
		res, err := t.api.DescribeTable(ctx, &sdk.DescribeTableInput{TableName: &t.cfg.Table})
		if err != nil && !cloud.IsCode(err, "ResourceNotFoundException") { // a table that was just made may not be seen yet
			return err
		}
		if err == nil && res.Table != nil {
			switch res.Table.TableStatus {
			case types.TableStatusActive, types.TableStatusUpdating:
				if !ours(res.Table) {
					return ErrSchema
				}
				return t.expire(ctx)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until it is active: %w", ctx.Err())
		case <-time.After(activeEvery):
		}
	}
}

func ours(d *types.TableDescription) bool {
	kinds := make(map[string]types.ScalarAttributeType)
	for _, a := range d.AttributeDefinitions {
		kinds[aws.ToString(a.AttributeName)] = a.AttributeType
	}
	keys := make(map[types.KeyType]string)
	for _, k := range d.KeySchema {
		keys[k.KeyType] = aws.ToString(k.AttributeName)
	}
	return keys[types.KeyTypeHash] == partitionKey && kinds[partitionKey] == types.ScalarAttributeTypeS &&
		keys[types.KeyTypeRange] == sortKey && kinds[sortKey] == types.ScalarAttributeTypeN
}

// expire turns the time to live on. A stand-in for DynamoDB may have none; then decisions stay in the table.
func (t *Table) expire(ctx context.Context) error {
	is, err := t.api.DescribeTimeToLive(ctx, &sdk.DescribeTimeToLiveInput{TableName: &t.cfg.Table})
	if cloud.IsCode(err, "UnknownOperationException") && t.cfg.Retain <= 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("time to live: %w", err)
	}
	if d := is.TimeToLiveDescription; d != nil {
		switch d.TimeToLiveStatus {
		case types.TimeToLiveStatusEnabled, types.TimeToLiveStatusEnabling:
			return nil
		}
	}
	_, err = t.api.UpdateTimeToLive(ctx, &sdk.UpdateTimeToLiveInput{TableName: &t.cfg.Table,
		TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(attrExpires), Enabled: aws.Bool(true)}})
	if err != nil {
		return fmt.Errorf("time to live: %w", err)
	}
	return nil
}
