package simulator

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"spate/shared/activity"
)

// sink is where rows go.
type sink interface {
	// send accepts row number index, from 0. It blocks while too much is not written yet.
	send(r *Row, index int64) error
	// idle says that nothing will come for a while: what was accepted should go out.
	idle() error
	// close waits until what was accepted is written, but not longer than 10 s after ctx ends, and frees what the sink holds.
	close(ctx context.Context) error
}

// newSink returns the sink that the configuration asks for. It counts in count.sent what is written.
func newSink(ctx context.Context, cfg *Config, count *counters) (sink, error) {
	switch {
	case cfg.Out != "":
		return newFileSink(cfg, count)
	case cfg.To == ToKinesis:
		return newKinesisSink(ctx, cfg, count)
	}
	return newKafkaSink(ctx, cfg, count)
}

// outlive returns a context that ends the given time after ctx: an interrupted run still gets rid of what it accepted, and never blocks
// for ever on a broker that is gone. release frees what it holds.
func outlive(ctx context.Context, by time.Duration) (longer context.Context, release func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}

// fileSink writes JSON lines or CSV.
type fileSink struct {
	csv    bool
	onSent func(Row, int32, int64)
	count  *counters

	w      *bufio.Writer
	gz     *gzip.Writer // nil: not compressed
	closer io.Closer    // nil: not ours
	line   []byte
}

func newFileSink(cfg *Config, count *counters) (*fileSink, error) {
	f, err := formatOf(cfg.Out)
	if err != nil {
		return nil, err
	}
	s := &fileSink{csv: f.csv, onSent: cfg.OnSent, count: count}
	var w io.Writer
	if cfg.Out == "-" {
		if w = cfg.Stdout; w == nil {
			w = os.Stdout
		}
	} else {
		file, err := os.Create(cfg.Out)
		if err != nil {
			return nil, fmt.Errorf("create events file: %w", err)
		}
		w, s.closer = file, file
	}
	if f.gzip {
		s.gz = gzip.NewWriter(w)
		w = s.gz
	}
	s.w = bufio.NewWriterSize(w, 256<<10)
	if s.csv {
		_, err = s.w.WriteString(activity.CSVHeader + "\n") // reported again by the flush
	}
	return s, err
}

func (s *fileSink) send(r *Row, index int64) error {
	if s.csv && r.JSON != nil {
		return errors.New("the events have fields that are not columns in the data set; write them as JSON lines with --out FILE.jsonl")
	}
	if s.csv {
		s.line = r.Event.AppendCSV(s.line[:0])
	} else {
		s.line = append(r.AppendJSON(s.line[:0]), '\n')
	}
	if _, err := s.w.Write(s.line); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	s.count.sent.Add(1)
	if s.onSent != nil {
		s.onSent(*r, -1, index)
	}
	return nil
}

func (s *fileSink) idle() error {
	if s.gz != nil { // flushing would cost most of the compression
		return nil
	}
	return s.flush()
}

func (s *fileSink) flush() error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	return nil
}

func (s *fileSink) close(context.Context) error {
	err := s.flush()
	if s.gz != nil {
		err = errors.Join(err, s.gz.Close())
	}
	if s.closer != nil {
		err = errors.Join(err, s.closer.Close())
	}
	return err
}
