// Package table keeps the revisions of a pipeline's rules in the DynamoDB table that has the worker's state.
//
// # The items
//
// The records have the keys rules#STREAM#1, rules#STREAM#2 and so on. They are written in this order, and never changed:
//
//	pk         rules#STREAM#NUMBER
//	revision   for people
//	at_ms      the append time
//	record     the record, compressed (zstd)
//
// A record is written on the condition that its item does not exist, by a writer that has read all before it, so only one of two records that are written at
// the same time is the next. Reads are consistent: whoever reads after a record was written finds it. The table has no sort key, so there is nothing to query: a reader asks for
// the next item until there is none.
//
// A record is one item, so it is there as a whole or not at all. An item has room for 400 KB; the largest rules file, 1 MiB, takes less unless most of it
// is random (lists of ids), and then it is refused.
//
// # The append time
//
// DynamoDB stamps no items. The append time is the time by the clock of the table's service shortly before the write, from the Date header of a response:
//
//	asked ──► Date: the append time ──► write sent ──► written ──► readable
//	│                                                  │
//	└───────────────── at most Margin/3 ───────────────┘
//
// The boundary is Margin after it. A worker covers at most Margin/2 of events with one look (see package revision), so a revision is known to all in time if
// it is written within Margin/2 of its append time. Of that, Margin/3 is for the write and the header's resolution of a second, and the rest (Margin/6, 5 s)
// for the clocks of DynamoDB and Kinesis, which differ by less. The writer measures the time with its own clock, from before it asks. A write that took longer
// is reported as late ([revision.ErrLate]) by the writer, and by a worker that has judged events without it.
//
// The clock of the writer's machine does not matter otherwise, but what a person is shown before the rules are applied is computed with it. If it is wrong
// by more than Margin/4, nothing is written.
package table

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/klauspost/compress/zstd"

	"spate/shared/aws/cloud"
	"spate/shared/aws/lease"
	"spate/shared/revision"
	"spate/shared/rule"
)

const (
	// lookTime bounds a look at the table.
	lookTime = 15 * time.Second
	// writeTime is how long after its append time a revision must be written. What takes longer is reported.
	writeTime = revision.Margin / 3
	// maxSkew is how far the clock of this machine may be off.
	maxSkew = revision.Margin / 4
	// resolution is that of the header Date.
	resolution = time.Second
	// maxItem bounds a compressed record, bytes: an item has room for 400 KB, its key included.
	maxItem = 380 << 10
	// maxRecord bounds a record once it is decompressed, well above what package revision writes.
	maxRecord = 16 << 20
)

// Reader reads the table as far as it is asked to. It is not safe for concurrent use.
type Reader struct {
	*revision.Log
	api    lease.API
	table  string
	stream string
	next   int64 // number of the next item
}

// NewReader returns a reader of the rules for a stream of events that has read nothing. The initial rules are in force until the first revision is.
func NewReader(api lease.API, table, stream string, initial *rule.Set) *Reader {
	return &Reader{Log: revision.NewLog(initial), api: api, table: table, stream: stream, next: 1}
}

// Look reads everything that the table has when it is called, and reports whether there is a new revision. After an error, part of it may have been
// read; to look again reads the rest.
func (r *Reader) Look(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	was := r.Revision()
	for {
		out, err := r.get(ctx)
		if err != nil {
			return false, fmt.Errorf("read the rules from table %s: %w", r.table, err)
		}
		if out.Item == nil {
			return r.Revision() != was, nil
		}
		atMS, value, err := decode(out.Item)
		if err != nil {
			return false, fmt.Errorf("read the rules from table %s: item %s: %w", r.table, r.key(), err)
		}
		r.Take(atMS, value)
		r.next++
	}
}

// get reads the next item.
func (r *Reader) get(ctx context.Context) (*dynamodb.GetItemOutput, error) {
	out, err := r.api.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String(r.table), ConsistentRead: aws.Bool(true), Key: r.keyed()})
	return out, tableError(err)
}

func (r *Reader) key() string { return fmt.Sprintf("rules#%s#%d", r.stream, r.next) }

func (r *Reader) keyed() map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: r.key()}}
}

// Append writes a revision after those that the reader has read, and returns it as it is in force. To write it a second time is an error, and so is
// to write one when somebody else was faster ([revision.ErrOvertaken]): the reader has read that one then. With [revision.ErrLate], it is in force, too.
func (r *Reader) Append(ctx context.Context, rec revision.Record) (revision.Entry, error) {
	rec.Revision = r.Revision() + 1
	if err := r.Check(rec); err != nil {
		return revision.Entry{}, err
	}
	value, err := rec.Encode()
	if err != nil {
		return revision.Entry{}, err
	}
	packed := pack(value)
	if len(packed) > maxItem {
		return revision.Entry{}, fmt.Errorf("the rules take %d bytes, compressed from %d, but an item of table %s has room for %d; shorten the file, especially its lists of values", len(packed), len(value), r.table, maxItem)
	}
	asked := time.Now()
	at, err := r.clock(ctx)
	if err != nil {
		return revision.Entry{}, fmt.Errorf("revision %d was not applied: %w", rec.Revision, err)
	}
	wrote := r.write(ctx, asked, at, rec.Revision, packed)
	took := time.Since(asked)
	// It may be there although the table did not say so, or another one.
	if _, err := r.Look(ctx); err != nil {
		return revision.Entry{}, errors.Join(wrote, fmt.Errorf("it is unknown whether revision %d is in force; to find out, run spate rules history: %w", rec.Revision, err))
	}
	if wrote != nil {
		took = time.Since(asked)
	}
	e, err := r.Written(rec)
	switch {
	case err != nil && wrote != nil && !errors.Is(wrote, errThere):
		return revision.Entry{}, fmt.Errorf("%w; if the revision is written after all, spate rules history lists it", wrote)
	case err != nil:
		return revision.Entry{}, err
	case took+resolution > writeTime:
		return e, fmt.Errorf("%w: writing revision %d took %v, more than %v: if the worker has logged that it became readable too late, alerts right after its boundary may be missing or have counts that are too low",
			revision.ErrLate, rec.Revision, took.Round(time.Millisecond), writeTime-resolution)
	}
	return e, nil
}

// clock returns what time it is for the table's service.
func (r *Reader) clock(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	asked := time.Now()
	out, err := r.get(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the rules from table %s: %w", r.table, err)
	}
	at, ok := middleware.GetServerTime(out.ResultMetadata)
	if !ok {
		return time.Time{}, fmt.Errorf("responses from table %s have no Date header, which is needed for the append time; configure the proxy between this machine and DynamoDB to pass it on", r.table)
	}
	// It was within a second of the header, and between question and answer, on the other clock.
	if skew := max(time.Until(at), asked.Sub(at.Add(resolution))); skew > maxSkew {
		return time.Time{}, fmt.Errorf("the clock of this machine differs from that of table %s by %v, more than %v: it is %s there; set the clock (NTP) and apply the rules again",
			r.table, skew.Round(time.Second), maxSkew, at.UTC().Format(time.RFC3339))
	}
	return at, nil
}

// errThere: another record, or this one, has the place.
var errThere = errors.New("the item exists")

// write writes the next item.
func (r *Reader) write(ctx context.Context, asked, at time.Time, number int64, packed []byte) error {
	ctx, cancel := context.WithDeadline(ctx, asked.Add(writeTime))
	defer cancel()
	_, err := r.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: aws.String(r.table), Key: r.keyed(), ConditionExpression: aws.String("attribute_not_exists(pk)"),
		UpdateExpression:         aws.String("SET #revision = :revision, at_ms = :at, #record = :record"),
		ExpressionAttributeNames: map[string]string{"#revision": "revision", "#record": "record"},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":revision": integer(number), ":at": integer(at.UnixMilli()), ":record": &types.AttributeValueMemberB{Value: packed},
		},
	})
	if cloud.IsCode(err, "ConditionalCheckFailedException") {
		err = errThere
	}
	if err != nil {
		return fmt.Errorf("write revision %d to table %s: %w", number, r.table, tableError(err))
	}
	return nil
}

func integer(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

// decode returns the append time and the record of an item.
func decode(item map[string]types.AttributeValue) (atMS int64, value []byte, err error) {
	at, ok := item["at_ms"].(*types.AttributeValueMemberN)
	if !ok {
		return 0, nil, errors.New("at_ms is missing")
	}
	if atMS, err = strconv.ParseInt(at.Value, 10, 64); err != nil {
		return 0, nil, fmt.Errorf("at_ms: %w", err)
	}
	packed, ok := item["record"].(*types.AttributeValueMemberB)
	if !ok {
		return 0, nil, errors.New("record is missing")
	}
	if value, err = unpack(packed.Value); err != nil {
		return 0, nil, fmt.Errorf("record: %w", err)
	}
	return atMS, value, nil
}

func pack(value []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		panic(err) // the options are constants
	}
	defer w.Close()
	return w.EncodeAll(value, nil)
}

func unpack(packed []byte) ([]byte, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecord))
	if err != nil {
		panic(err) // the options are constants
	}
	defer d.Close()
	return d.DecodeAll(packed, nil)
}

func tableError(err error) error {
	if cloud.IsCode(err, "ResourceNotFoundException") {
		return fmt.Errorf("%w; create it with spate aws setup (for trials) or deploy/aws/template.yaml (for production): %w", lease.ErrNoTable, err)
	}
	return err
}
