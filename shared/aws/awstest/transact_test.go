package awstest_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"spate/shared/aws/awstest"
)

// TestTransactions holds what stands before dynalite against another's implementation: the same story comes to the same.
func TestTransactions(t *testing.T) {
	ours, theirs := transactionStory(t, awstest.DynamoDB(t)), transactionStory(t, awstest.Moto(t))
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("moto, and what stands before dynalite: %s", diff)
	}
	want := []string{
		"put two: done", "table: a=1 b=1",
		"update, put that fails: [None ConditionalCheckFailed] old b=1", "table: a=1 b=1",
		"check that fails, update, delete: [ConditionalCheckFailed None None] old a=1", "table: a=1 b=1",
		"check, update, delete: done", "table: a=1 c=7",
		"check of nothing, put: done", "table: a=1 c=7 d=1",
		"all fail: [ConditionalCheckFailed ConditionalCheckFailed] old a=1", "table: a=1 c=7 d=1",
		"one item twice: ValidationException", "table: a=1 c=7 d=1",
	}
	if diff := cmp.Diff(want, ours); diff != "" {
		t.Error(diff)
	}
}

func transactionStory(t *testing.T, url string) (said []string) {
	t.Helper()
	c := dynamodb.NewFromConfig(awstest.Config(url), func(o *dynamodb.Options) { o.Retryer = awstest.Retryer() })
	table := awstest.StateTable(t, c)
	key := func(pk string) map[string]types.AttributeValue {
		return map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}}
	}
	number := func(n int) map[string]types.AttributeValue {
		return map[string]types.AttributeValue{":n": &types.AttributeValueMemberN{Value: fmt.Sprint(n)}}
	}
	old := types.ReturnValuesOnConditionCheckFailureAllOld
	put := func(pk string) types.TransactWriteItem { // unless it is there
		item := key(pk)
		item["n"] = &types.AttributeValueMemberN{Value: "1"}
		return types.TransactWriteItem{Put: &types.Put{TableName: &table, Item: item, ConditionExpression: aws.String("attribute_not_exists(pk)"), ReturnValuesOnConditionCheckFailure: old}}
	}
	update := func(pk string, n int) types.TransactWriteItem {
		return types.TransactWriteItem{Update: &types.Update{TableName: &table, Key: key(pk), UpdateExpression: aws.String("SET n = :n"), ExpressionAttributeValues: number(n)}}
	}
	check := func(pk string, n int) types.TransactWriteItem {
		return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{TableName: &table, Key: key(pk), ConditionExpression: aws.String("n = :n"), ExpressionAttributeValues: number(n),
			ReturnValuesOnConditionCheckFailure: old}}
	}
	absent := func(pk string) types.TransactWriteItem {
		return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{TableName: &table, Key: key(pk), ConditionExpression: aws.String("attribute_not_exists(pk)")}}
	}
	remove := func(pk string) types.TransactWriteItem {
		return types.TransactWriteItem{Delete: &types.Delete{TableName: &table, Key: key(pk)}}
	}
	for _, step := range []struct {
		name  string
		items []types.TransactWriteItem
	}{
		{"put two", []types.TransactWriteItem{put("a"), put("b")}},
		{"update, put that fails", []types.TransactWriteItem{update("a", 9), put("b")}},
		{"check that fails, update, delete", []types.TransactWriteItem{check("a", 2), update("c", 7), remove("b")}},
		{"check, update, delete", []types.TransactWriteItem{check("a", 1), update("c", 7), remove("b")}},
		{"check of nothing, put", []types.TransactWriteItem{absent("b"), put("d")}},
		{"all fail", []types.TransactWriteItem{put("a"), check("none", 1)}},
		{"one item twice", []types.TransactWriteItem{update("a", 3), remove("a")}},
	} {
		_, err := c.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: step.items})
		said = append(said, step.name+": "+outcome(err))
		said = append(said, "table:"+content(t, c, table))
	}
	return said
}

// outcome is what an error of a transaction says, without its words.
func outcome(err error) string {
	var canceled *types.TransactionCanceledException
	switch {
	case err == nil:
		return "done"
	case !errors.As(err, &canceled):
		var api interface{ ErrorCode() string }
		if errors.As(err, &api) {
			return api.ErrorCode()
		}
		return err.Error()
	}
	var codes []string
	old := ""
	for _, r := range canceled.CancellationReasons {
		codes = append(codes, aws.ToString(r.Code))
		if len(r.Item) > 0 {
			old += " old " + r.Item["pk"].(*types.AttributeValueMemberS).Value + "=" + r.Item["n"].(*types.AttributeValueMemberN).Value
		}
	}
	return fmt.Sprint(codes) + old
}

func content(t *testing.T, c *dynamodb.Client, table string) (out string) {
	t.Helper()
	for _, pk := range []string{"a", "b", "c", "d", "none"} {
		res, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, ConsistentRead: aws.Bool(true), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}}})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Item) > 0 {
			out += " " + pk + "=" + res.Item["n"].(*types.AttributeValueMemberN).Value
		}
	}
	return out
}

// TestTransactionsAtOnce: of many that want the same two items, in either order, each that succeeds saw what the one before left.
func TestTransactionsAtOnce(t *testing.T) {
	c := dynamodb.NewFromConfig(awstest.Config(awstest.DynamoDB(t)), func(o *dynamodb.Options) { o.Retryer = awstest.Retryer() })
	table := awstest.StateTable(t, c)
	add := func(pk string) types.TransactWriteItem {
		return types.TransactWriteItem{Update: &types.Update{TableName: &table, Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}},
			UpdateExpression: aws.String("ADD n :n"), ExpressionAttributeValues: map[string]types.AttributeValue{":n": &types.AttributeValueMemberN{Value: "1"}}}}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			items := []types.TransactWriteItem{add("a"), add("b")}
			if i%2 == 1 {
				items[0], items[1] = items[1], items[0]
			}
			for range 10 {
				if _, err := c.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: items}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := content(t, c, table); got != " a=80 b=80" {
		t.Error(got)
	}
}
