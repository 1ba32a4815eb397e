package dynamodb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/aws/cloud"
	"spate/shared/store"
)

var (
	// ErrNoTable: the table does not exist.
	ErrNoTable = errors.New("table does not exist")
	// ErrSchema: the table has other keys.
	ErrSchema = errors.New("table does not have the keys " + partitionKey + " (S) and " + sortKey + " (N)")
)

func conditionFailed(err error) bool {
	var e *types.ConditionalCheckFailedException
	return errors.As(err, &e)
}

// translate says what an error of the driver means. ErrInvalid is the item's; everything else, such as throttling, a server that does not
// answer, or lacking rights, is not, and the same call may succeed later.
func (t *Table) translate(err error) error {
	switch {
	case cloud.IsCode(err, "ResourceNotFoundException"):
		return fmt.Errorf("%s: %w: %w", t.cfg.Table, ErrNoTable, err)
	case cloud.IsCode(err, "ValidationException", "SerializationException", "ItemCollectionSizeLimitExceededException"):
		// A wrong table must not look like wrong items, or all of them would be given up.
		if s := strings.ToLower(err.Error()); strings.Contains(s, "does not match the schema") || strings.Contains(s, "type mismatch for key") ||
			strings.Contains(s, "missing the key") {
			return fmt.Errorf("%s: %w: %w", t.cfg.Table, ErrSchema, err)
		}
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return err
}
