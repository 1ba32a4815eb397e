package jobs

import (
	"context"
	"errors"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// endable is a driver whose queue can be ended although the database does not answer: what River does at its end whatever its context
// says, and tries again some times, fails at once when over has ended. Jobs that are lost by it are rescued.
type endable[TTx any] struct {
	riverdriver.Driver[TTx]
	over context.Context //nolint:containedctx // it is not a call's: it outlives them
}

// GetExecutor implements riverdriver.Driver.
func (d endable[TTx]) GetExecutor() riverdriver.Executor {
	return executor{Executor: d.Driver.GetExecutor(), over: d.over}
}

type executor struct {
	riverdriver.Executor
	over context.Context //nolint:containedctx // as above
}

// until returns ctx, ended when over is. Whoever calls it calls the function that it returns.
func (e executor) until(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.over, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// final makes an error one that River does not try again after.
func (e executor) final(err error) error {
	if err != nil && e.over.Err() != nil {
		return errors.Join(context.Canceled, err)
	}
	return err
}

// JobGetAvailable implements riverdriver.Executor.
func (e executor) JobGetAvailable(ctx context.Context, params *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	ctx, done := e.until(ctx)
	defer done()
	got, err := e.Executor.JobGetAvailable(ctx, params)
	return got, e.final(err)
}

// JobSetStateIfRunningMany implements riverdriver.Executor.
func (e executor) JobSetStateIfRunningMany(ctx context.Context, params *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	ctx, done := e.until(ctx)
	defer done()
	rows, err := e.Executor.JobSetStateIfRunningMany(ctx, params)
	return rows, e.final(err)
}

// LeaderResign implements riverdriver.Executor. Who does not resign leads until its time is over, which is a few seconds.
func (e executor) LeaderResign(ctx context.Context, params *riverdriver.LeaderResignParams) (bool, error) {
	ctx, done := e.until(ctx)
	defer done()
	resigned, err := e.Executor.LeaderResign(ctx, params)
	if e.over.Err() != nil {
		return resigned, nil
	}
	return resigned, err
}
