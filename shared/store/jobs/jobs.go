// Package jobs is the queue of deliveries in the alert database. It adapts River, so that a job is created in the transaction that stores
// its alert and survives the process that works on it. River decides which job is due and which worker runs it; the outcome of a job is
// determined by the delivery's own row. So a job that runs twice, or is lost and added again, does not cause a second delivery.
//
// # A job's life
//
//	(Add) ──► available ──► running ──done──► completed, and deleted after an hour
//	              ▲            │
//	              ├──due again─┤  a try that failed, or that has to wait
//	              └──rescued───┘  its worker is gone: after 45 s and at most 30 s more
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"

	"spate/shared/store"
)

const (
	// MaxRun bounds what a job may take: waiting for its turn at the endpoint, the try, and writing it down.
	MaxRun = 40 * time.Second
	// rescueAfter is when whoever runs a job is taken for dead.
	rescueAfter = MaxRun + 5*time.Second

	keepCompleted = time.Hour
	// cooldown is the least time between two fetches, each of which fills a queue's workers.
	cooldown = 10 * time.Millisecond
	// grace is what deliveries under way get when the process ends.
	grace = 2 * time.Second
	// EndAfter is when, after the process should end, the database is not waited for any more.
	EndAfter = grace + time.Second/2
	// leaveAfter is when nothing is.
	leaveAfter = 5 * time.Second

	retryMin = time.Second
	retryMax = 30 * time.Second
)

// indexes are those that River makes anew at midnight, UTC: all of its own, without the two that the schema drops.
var indexes = slices.DeleteFunc(river.ReindexerIndexNamesDefault(), func(name string) bool {
	return name == "river_job_args_index" || name == "river_job_metadata_index"
})

// Args name a delivery.
type Args struct {
	WebhookID string `json:"webhook_id"`
	Endpoint  string `json:"endpoint"`
	// BegunMS is when the delivery's schedule began. A job with another one is left over: the delivery was sent again since, with a new job.
	BegunMS int64 `json:"begun_ms"`
}

// Kind implements river.JobArgs.
func (Args) Kind() string { return "deliver" }

// Job is a delivery that will be due.
type Job struct {
	Args
	At time.Time
}

// Of returns the jobs of deliveries that are pending.
func Of(deliveries []store.Delivery) []Job {
	jobs := make([]Job, 0, len(deliveries))
	for _, d := range deliveries {
		if d.State == store.Pending {
			jobs = append(jobs, Job{Args: Args{WebhookID: d.WebhookID, Endpoint: d.Endpoint, BegunMS: d.BegunAt.UnixMilli()}, At: d.NextAt})
		}
	}
	return jobs
}

// Queue is the queue in one database. Transactions are the driver's.
type Queue[TTx any] struct {
	driver riverdriver.Driver[TTx]
	add    *river.Client[TTx]
	poll   time.Duration
}

// New returns the queue of a database that has its tables. poll is how often it is checked for jobs that were not announced.
func New[TTx any](driver riverdriver.Driver[TTx], poll time.Duration) (*Queue[TTx], error) {
	// The cooldown is the minimum time between two announcements of new jobs. Jobs that come in between wait for the next poll.
	add, err := river.NewClient(driver, &river.Config{Logger: slog.New(slog.DiscardHandler), FetchCooldown: river.FetchCooldownMin})
	if err != nil {
		return nil, fmt.Errorf("queue of deliveries: %w", err)
	}
	return &Queue[TTx]{driver: driver, add: add, poll: poll}, nil
}

// Add adds jobs in a transaction: one for each delivery that has come to be, or is pending again, in it. River is not asked to look for
// one that is there already: it is that of a delivery which is settled, on its last way out, or was brought forward, and to leave out the
// new one for that would lose the delivery.
func (q *Queue[TTx]) Add(ctx context.Context, tx TTx, jobs []Job) error {
	if len(jobs) == 0 {
		return nil
	}
	now := time.Now()
	params := make([]river.InsertManyParams, len(jobs))
	for i, j := range jobs {
		opts := &river.InsertOpts{Queue: j.Endpoint, MaxAttempts: math.MaxInt16} // the schedule is ours
		if j.At.After(now) {
			opts.ScheduledAt = j.At // whoever leads the queue looks for these every 5 s; others are found at once
		}
		params[i] = river.InsertManyParams{Args: j.Args, InsertOpts: opts}
	}
	if _, err := q.add.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("add %d jobs: %w", len(jobs), err)
	}
	return nil
}

// Work works off the queues until ctx ends. of returns a delivery, or store.ErrNoDelivery.
func (q *Queue[TTx]) Work(ctx context.Context, queues []store.Queue, log *slog.Logger, of func(ctx context.Context, webhookID, endpoint string) (store.Delivery, error), do store.Do) error {
	if len(queues) == 0 {
		<-ctx.Done()
		return nil
	}
	// over ends when nothing of the database is waited for any more.
	over, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	log = slog.New(newQuiet(log.Handler()))
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{of: of, do: do})
	cfg := &river.Config{
		ID:                          name(),
		Queues:                      make(map[string]river.QueueConfig, len(queues)),
		Workers:                     workers,
		ErrorHandler:                faults{log},
		Logger:                      log,
		JobTimeout:                  MaxRun,
		RescueStuckJobsAfter:        rescueAfter,
		SoftStopTimeout:             grace,
		CompletedJobRetentionPeriod: keepCompleted,
		FetchCooldown:               min(q.poll, cooldown),
		FetchPollInterval:           q.poll,
		ReindexerIndexNames:         indexes,
	}
	for _, e := range queues {
		cfg.Queues[e.Endpoint] = river.QueueConfig{MaxWorkers: e.Workers}
	}
	client, err := river.NewClient(endable[TTx]{Driver: q.driver, over: over}, cfg)
	if err != nil {
		return fmt.Errorf("process deliveries: %w", err)
	}
	// With a SoftStopTimeout the end of this context is what Stop is: fetching ends at once, and deliveries under way have the grace period.
	if err := client.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("process deliveries: %w", err)
	}
	<-ctx.Done()
	defer time.AfterFunc(EndAfter, end).Stop()
	leave := time.NewTimer(leaveAfter)
	defer leave.Stop()
	select {
	case <-client.Stopped():
	case <-leave.C:
		log.Warn("deliveries in progress did not finish in time; other processes will take them over", "after", leaveAfter, "rescue_after", rescueAfter)
	}
	return nil
}

// name tells who works on a job, for people. No two processes have the same one at a time.
func name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%.60s-%d-%d", host, os.Getpid(), time.Now().UnixNano())
}

type worker struct {
	river.WorkerDefaults[Args]
	of func(ctx context.Context, webhookID, endpoint string) (store.Delivery, error)
	do store.Do
}

// Work implements river.Worker.
func (w *worker) Work(ctx context.Context, job *river.Job[Args]) error {
	if d, err := w.of(ctx, job.Args.WebhookID, job.Args.Endpoint); err != nil && !errors.Is(err, store.ErrNoDelivery) {
		return err
	} else if err == nil && d.BegunAt.UnixMilli() != job.Args.BegunMS {
		return nil
	}
	again, err := w.do(ctx, job.Args.WebhookID, job.Args.Endpoint)
	switch {
	case err != nil:
		return err
	case again.IsZero():
		return nil
	}
	return river.JobSnooze(max(0, time.Until(again)+time.Millisecond)) // SQLite has milliseconds, cut off
}

// NextRetry implements river.Worker: it is for faults of the database and for rescued jobs. When a message is tried again is not decided
// here.
func (w *worker) NextRetry(job *river.Job[Args]) time.Time {
	wait := retryMax
	if n := len(job.Errors); n < 5 {
		wait = min(retryMin<<n, retryMax)
	}
	return time.Now().Add(wait)
}
