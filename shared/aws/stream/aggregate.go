package stream

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrAggregate: a record says that the Kinesis Producer Library packed it, and cannot be unpacked.
var ErrAggregate = errors.New("aggregated record is malformed")

var aggregateMagic = []byte{0xf3, 0x89, 0x9a, 0xc2}

// Numbers of the fields in the library's AggregatedRecord and in its Record.
const (
	fieldRecords = 3
	fieldData    = 3
)

// Deaggregate appends to out what a record holds: itself, or the records that the Kinesis Producer Library packed into it, in their order.
// Such a record begins with a magic number and ends with the MD5 of what is in between; what only looks like one is a record by itself.
func Deaggregate(data []byte, out [][]byte) ([][]byte, error) {
	if !bytes.HasPrefix(data, aggregateMagic) || len(data) < len(aggregateMagic)+md5.Size {
		return append(out, data), nil
	}
	body, sum := data[len(aggregateMagic):len(data)-md5.Size], data[len(data)-md5.Size:]
	if want := md5.Sum(body); !bytes.Equal(sum, want[:]) {
		return append(out, data), nil
	}
	before := len(out)
	err := fields(body, func(num protowire.Number, value []byte) error {
		if num != fieldRecords {
			return nil // tables of partition keys: they led the record here, and have no more to say
		}
		var user []byte
		found := false
		if err := fields(value, func(num protowire.Number, value []byte) error {
			if num == fieldData {
				user, found = value, true
			}
			return nil
		}); err != nil {
			return err
		}
		if !found {
			return errors.New("a record in it has no data")
		}
		out = append(out, user)
		return nil
	})
	if err != nil {
		return out[:before], fmt.Errorf("%w: %w", ErrAggregate, err)
	}
	return out, nil
}

// fields calls f for every length-delimited field of a message.
func fields(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(num, value); err != nil {
			return err
		}
	}
	return nil
}
