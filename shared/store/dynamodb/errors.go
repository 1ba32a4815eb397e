package dynamodb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/aws/cloud"
	"spate/shared/store"
)

var (
	// ErrNoTable means that the table does not exist.
	ErrNoTable = errors.New("table does not exist")
	// ErrSchema means that the table has other keys.
	ErrSchema = errors.New("table does not have the keys " + partitionKey + " (S) and " + sortKey + " (N)")
)

func conditionFailed(err error) bool {
	var e *types.ConditionalCheckFailedException
	return errors.As(err, &e)
}

// transactionConflict: a transaction has the item.
func transactionConflict(err error) bool {
	return cloud.IsCode(err, "TransactionConflictException")
}

// overtaken: a transaction was canceled because of other writers, and nothing else.
func overtaken(err error) bool {
	var e *types.TransactionCanceledException
	if !errors.As(err, &e) {
		return transactionConflict(err)
	}
	others := false
	for _, r := range e.CancellationReasons {
		switch aws.ToString(r.Code) {
		case "", "None":
		case "ConditionalCheckFailed", "TransactionConflict":
			others = true
		default:
			return false
		}
	}
	return others
}

// refused reports whether a transaction was canceled because an item cannot be written, whatever is there.
func refused(err error) bool {
	var e *types.TransactionCanceledException
	if errors.As(err, &e) {
		for _, r := range e.CancellationReasons {
			if code := aws.ToString(r.Code); code == "ValidationError" || code == "ItemCollectionSizeLimitExceeded" {
				return true
			}
		}
	}
	return false
}

// translate says what an error of the driver means. ErrInvalid is the item's; everything else, such as throttling, a server that does not
// answer, or lacking rights, is not, and the same call may succeed later.
func (t *Table) translate(err error) error {
	switch {
	case cloud.IsCode(err, "ResourceNotFoundException"):
		return fmt.Errorf("%s: %w: %w", t.cfg.Table, ErrNoTable, err)
	case refused(err), cloud.IsCode(err, "ValidationException", "SerializationException", "ItemCollectionSizeLimitExceededException"):
		// A wrong table must not look like wrong items, or all of them would be given up.
		if s := reasons(err); strings.Contains(s, "does not match the schema") || strings.Contains(s, "type mismatch for key") ||
			strings.Contains(s, "missing the key") {
			return fmt.Errorf("%s: %w: %w", t.cfg.Table, ErrSchema, err)
		}
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return err
}

// reasons is all that an error says, in lower case.
func reasons(err error) string {
	s := err.Error()
	var e *types.TransactionCanceledException
	if errors.As(err, &e) {
		for _, r := range e.CancellationReasons {
			s += " " + aws.ToString(r.Message)
		}
	}
	return strings.ToLower(s)
}
