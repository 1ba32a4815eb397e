package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"spate/services/query"
	"spate/services/simulator"
	"spate/shared/activity"
	"spate/shared/kafka"
	"spate/shared/rule"
)

// fileLog is a log that files would make if they were sent: in the same partitions, and in the same order.
type fileLog struct {
	paths      []string
	fields     activity.Fields
	key        string
	partitions int32
	exact      bool
	literal    []string
	rows       atomic.Int64 // as of the last time that all were read
}

func newFileLog(c *sqlCommand, fields activity.Fields, set *rule.Set) *fileLog {
	f := &fileLog{paths: c.File, fields: fields, key: c.RecordKey, partitions: c.Partitions, exact: set != nil}
	if f.partitions <= 0 {
		f.partitions = kafka.DefaultPartitions
	}
	if set != nil {
		for _, in := range set.Inputs {
			if len(in.Path) == 1 && strings.Contains(in.Path[0], ".") {
				f.literal = append(f.literal, in.Path[0])
			}
		}
	}
	return f
}

// Topics implements query.Log.
func (f *fileLog) Topics() []query.Topic { return []query.Topic{query.Activity} }

// Times implements query.Log.
func (f *fileLog) Times() bool { return false }

// Partitions implements query.Log.
func (f *fileLog) Partitions(context.Context, query.Topic) (int32, error) { return f.partitions, nil }

// Size implements query.Log.
func (f *fileLog) Size(context.Context, query.Topic) (int64, error) { return f.rows.Load(), nil }

// fileRows are handed over at once.
const fileRows = 1000

// Read implements query.Log: a file is always read as a whole.
func (f *fileLog) Read(ctx context.Context, _ query.Topic, _ query.Range, note func(string), take func([]query.Record) error) error {
	offsets := make([]int64, f.partitions)
	records := make([]query.Record, 0, fileRows)
	var room []byte
	n := int64(0)
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := take(records)
		records, room = records[:0], room[:0]
		return err
	}
	one := func(path string) (err error) {
		in, err := simulator.OpenCSV(path)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
		if err := in.Fields(f.fields, nil); err != nil {
			return err
		}
		if f.exact {
			in.Exact(f.literal...)
		} else {
			in.Whole()
		}
		in.OnBad(func(b simulator.BadLine) { note(fmt.Sprintf("%s, line %d: %s", path, b.Line, b.Reason)) })
		var row simulator.Row
		for {
			if err := in.Next(&row); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			begin := len(room)
			room = row.AppendJSON(room)
			r := query.Record{Value: room[begin:len(room):len(room)]}
			switch f.key {
			case simulator.KeyCategory:
				r.Key = []byte(row.Event.CategoryID)
			case simulator.KeyUser:
				r.Key = []byte(row.Event.UserID)
			}
			if len(r.Key) == 0 {
				r.Key = nil
			}
			r.Partition = simulator.Partition(r.Key, n, f.partitions)
			r.Offset = offsets[r.Partition]
			offsets[r.Partition]++
			n++
			if records = append(records, r); len(records) == fileRows {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	for _, path := range f.paths {
		if err := one(path); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	f.rows.Store(n)
	return nil
}
