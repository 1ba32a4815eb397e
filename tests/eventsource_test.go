package tests

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"spate/tests/harness"
)

// kinesisRecord is a record of a stream, as an event source mapping reads it.
type kinesisRecord struct {
	shard, sequence string
	arrived         time.Time
	data            []byte
}

// kinesisEvent is what Lambda makes of records.
func kinesisEvent(t *testing.T, records []kinesisRecord) []byte {
	t.Helper()
	list := make([]any, len(records))
	for i, r := range records {
		list[i] = map[string]any{
			"kinesis": map[string]any{
				"kinesisSchemaVersion": "1.0", "partitionKey": "u", "sequenceNumber": r.sequence,
				"data": base64.StdEncoding.EncodeToString(r.data), "approximateArrivalTimestamp": float64(r.arrived.UnixMilli()) / 1000,
			},
			"eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": r.shard + ":" + r.sequence, "eventName": "aws:kinesis:record",
			"awsRegion": "us-east-1", "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/e-commerce-raw-user-activity-stream-2",
		}
	}
	b, err := json.Marshal(map[string]any{"Records": list})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// invoke hands records to a function and returns the sequence number from which they are to be delivered again; empty is all done.
func invoke(t *testing.T, api *harness.RuntimeAPI, event []byte) (string, error) {
	t.Helper()
	b, err := api.Invoke(event, time.Minute)
	if err != nil {
		return "", err
	}
	var out struct {
		BatchItemFailures []struct {
			ItemIdentifier string `json:"itemIdentifier"`
		} `json:"batchItemFailures"`
	}
	if err := json.Unmarshal(b, &out); err != nil || len(out.BatchItemFailures) > 1 {
		t.Errorf("answer %s: %v", b, err)
	}
	if len(out.BatchItemFailures) == 0 {
		return "", nil
	}
	return out.BatchItemFailures[0].ItemIdentifier, nil
}

// eventSource delivers the records of a shard to a function as an event source mapping does that has ReportBatchItemFailures and
// BisectBatchOnFunctionError: in order, the next batch when one is done. A batch is delivered again from where the function says. One that
// fails at its first record is cut in half, which costs no retry, as the service's guide has it; one that cannot be cut is tried again
// some times and then put aside.
type eventSource struct {
	batch   int
	retries int
	invoke  func([]kinesisRecord) (string, error)

	deadLetters []kinesisRecord
	calls       int
}

func (s *eventSource) deliver(t *testing.T, records []kinesisRecord) {
	t.Helper()
	for batch := range slices.Chunk(records, s.batch) {
		type piece struct {
			records []kinesisRecord
			tries   int
		}
		stack := []piece{{records: batch}}
		for len(stack) > 0 {
			p := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if s.calls++; s.calls > 100*len(records) {
				t.Fatal("the mapping makes no progress")
			}
			failed, err := s.invoke(p.records)
			at := slices.IndexFunc(p.records, func(r kinesisRecord) bool { return r.sequence == failed })
			switch {
			case err != nil:
				at = 0
			case failed == "":
				continue
			case at < 0:
				t.Fatalf("the function reports %q, which is not in the batch", failed)
			}
			rest := p.records[at:]
			switch half := len(rest) / 2; {
			case at > 0:
				stack = append(stack, piece{rest, 0})
			case half > 0:
				stack = append(stack, piece{rest[half:], p.tries}, piece{rest[:half], p.tries})
			case p.tries < s.retries:
				stack = append(stack, piece{rest, p.tries + 1})
			default:
				s.deadLetters = append(s.deadLetters, rest...)
			}
		}
	}
}

// TestEventSource: the mapping of these tests does what it is said to do, with a function that fails as told.
func TestEventSource(t *testing.T) {
	var records []kinesisRecord
	for i := range 40 {
		records = append(records, kinesisRecord{sequence: fmt.Sprint(i)})
	}
	done := make(map[string]int)
	s := &eventSource{batch: 16, retries: 2}
	s.invoke = func(batch []kinesisRecord) (string, error) {
		if s.calls%7 == 0 {
			return "", harness.ErrFunction
		}
		for _, r := range batch {
			if r.sequence == "5" || r.sequence == "39" {
				return r.sequence, nil
			}
			done[r.sequence]++
		}
		return "", nil
	}
	s.deliver(t, records)
	if len(s.deadLetters) != 2 || s.deadLetters[0].sequence != "5" || s.deadLetters[1].sequence != "39" || len(done) != 38 {
		t.Errorf("dead letters %v, %d done", s.deadLetters, len(done))
	}
}
