package worker

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/rule"
	"spate/shared/verdict"
	"spate/shared/window"
)

// engine counts events, and finds the windows that rules are about. Its log of batches is never written: it is read again from the stream.
type engine struct {
	stream   window.Stream
	combiner *window.Combiner
	table    *window.Table
	teller   verdict.Teller
	idleness window.Idleness
	batch    int64     // offset of the next batch
	gathers  time.Time // when the oldest event that is not in the table was judged; zero: there is none
	repeated int64     // events that the table has left out, as it was asked last
	faulty   []int64   // what each rule could not compute, as it was counted last
}

// extend makes the engine judge by a plan that follows the one before.
func (e *engine) extend(plan *rule.Plan, lateness, idleTimeout time.Duration) (err error) {
	if e.stream, err = window.NewStream(plan, lateness); err != nil {
		return err
	}
	if e.combiner == nil {
		e.combiner, e.table = window.NewCombiner(e.stream), window.NewTable(e.stream)
	} else {
		e.combiner.Extend(plan)
		e.table.Extend(plan)
	}
	e.teller = verdict.New(plan)
	e.idleness.Stream, e.idleness.TimeoutMS = e.stream, idleTimeout.Milliseconds()
	return nil
}

// apply hands the sums, or, with watermarks, the watermark to the table, as one batch.
func (e *engine) apply(sources int32, watermarks []window.Watermark) (out []window.Verdict, err error) {
	e.gathers = time.Time{}
	if e.combiner.Panes() == 0 && watermarks == nil {
		return nil, nil
	}
	same := func([]byte) int32 { return 0 }
	e.combiner.Flush(1, same, window.Header{Sources: sources, Watermarks: watermarks}, func(_ int32, value []byte) {
		if err == nil {
			out, err = e.table.Apply(e.batch, value, out)
		}
		e.batch++
	})
	if err != nil {
		return nil, fmt.Errorf("apply batch: %w", err)
	}
	return out, nil
}

// again returns how many events the table has left out since the last call, because it knew them by their ids.
func (e *engine) again() int64 {
	was := e.repeated
	e.repeated = e.table.Stats().Repeated
	return e.repeated - was
}

// faults counts what rules could not compute since it was called last.
func (e *engine) faults(by *prometheus.CounterVec) {
	for i, n := range e.table.Faults() {
		if i == len(e.faulty) {
			e.faulty = append(e.faulty, 0)
		}
		if n > e.faulty[i] {
			by.WithLabelValues(e.stream.Plan.Rules[i].Name).Add(float64(n - e.faulty[i]))
			e.faulty[i] = n
		}
	}
}
