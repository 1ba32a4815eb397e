package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"spate/shared/activity"
	"spate/shared/aws/object"
)

// flushTimeout bounds how long an interrupted run waits for what the sink has accepted.
const flushTimeout = 10 * time.Second

// Result is what a run did.
type Result struct {
	Sent    int64 `json:"sent"`    // rows that the broker acknowledged, or that are in the file
	Skipped int64 `json:"skipped"` // malformed lines of the CSV, not sent
	Cut     int64 `json:"cut"`     // last lines that end too early, not sent: 0 or 1 per file of an archive
	CutLine int64 `json:"cut_line"`

	// Invalid are rows of a file that were sent and are not events, by the fields that were given; Why says what is wrong with the first of them.
	Invalid int64  `json:"invalid,omitempty"`
	Why     string `json:"invalid_why,omitempty"`

	// BadLines are the first 5 lines that were skipped or cut.
	BadLines []BadLine `json:"bad_lines,omitempty"`

	// FirstEventMS and LastEventMS are the smallest and the largest event time sent, epoch milliseconds; 0 if none has a time.
	FirstEventMS int64 `json:"first_event_ms"`
	LastEventMS  int64 `json:"last_event_ms"`

	Elapsed     time.Duration `json:"elapsed"` // nanoseconds
	Truth       []Truth       `json:"truth,omitempty"`
	Interrupted bool          `json:"interrupted"`
	// Backwards: the file's newest events come first.
	Backwards bool `json:"backwards,omitempty"`
}

// counters are what the progress reads while a run is under way.
type counters struct {
	sent        atomic.Int64
	done, total atomic.Int64 // in a unit of the source: bytes, events or milliseconds
}

// Run sends the events and returns when the source is at its end and everything sent is acknowledged, or when ctx ends: then it
// waits up to 10 s for what was sent already, and returns a Result that says Interrupted, and no error. With an error, the
// Result still says what was done before it.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	r := &run{cfg: &cfg, log: cfg.Log, truths: newTruths(cfg.Window, cfg.Threshold)}
	return r.run(ctx)
}

// run is the state of one call of Run.
type run struct {
	up, down, before int64 // steps in time from row to row, and the time of the last
	cfg              *Config
	log              *slog.Logger
	truths           *truths
	count            counters
	res              Result
	timed            bool // res has event times
}

func (r *run) run(ctx context.Context) (res Result, err error) {
	begin := r.cfg.Now()
	reading, done := context.WithCancel(ctx)
	defer done()
	src, err := r.open(reading)
	if err != nil {
		return Result{Interrupted: ctx.Err() != nil}, notEnd(ctx, err)
	}
	defer closeSource(src)

	// The truth file is created first: a path that cannot be written should not come to light after an hour of sending.
	var truthFile *os.File
	if r.cfg.TruthPath != "" {
		if truthFile, err = os.Create(r.cfg.TruthPath); err != nil {
			return Result{}, fmt.Errorf("create truth file: %w", err)
		}
	}
	out, err := newSink(ctx, r.cfg, &r.count)
	if err == nil {
		progress := startProgress(r.cfg, &r.count)
		err = notEnd(ctx, r.send(ctx, src, out))
		if closed := notEnd(ctx, out.close(ctx)); !errors.Is(err, closed) { // a sink that has failed says so twice
			err = errors.Join(err, closed)
		}
		progress.stop()
	}
	err = notEnd(ctx, err)
	r.res.Interrupted = ctx.Err() != nil

	r.res.Sent = r.count.sent.Load()
	r.res.Truth = r.truths.list()
	if truthFile != nil {
		err = errors.Join(err, writeTruth(truthFile, r.res.Truth))
	}
	r.reportLines(src)
	r.res.Elapsed = r.cfg.Now().Sub(begin)
	return r.res, err
}

// notEnd returns err, or nil if it only says that ctx has ended: the Result says that.
func notEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// open returns the source that the configuration asks for.
func (r *run) open(ctx context.Context) (Source, error) {
	switch cfg := r.cfg; {
	case cfg.Source != nil:
		return cfg.Source, nil
	case cfg.File == "":
		return NewGenerator(*cfg), nil
	}
	csv, err := r.file(ctx)
	if err != nil {
		return nil, err
	}
	if err := csv.Fields(r.cfg.fields(), r.cfg.NullValues); err != nil {
		return csv, err
	}
	if r.cfg.Exact {
		csv.Exact(r.cfg.Literal...)
	} else if r.cfg.Whole {
		csv.Whole()
	}
	return csv, nil
}

// file opens the file that the configuration names.
func (r *run) file(ctx context.Context) (*CSV, error) {
	switch cfg := r.cfg; {
	case cfg.File == "-":
		in := cfg.Stdin
		if in == nil {
			in = os.Stdin
		}
		return ReadCSV(newInterruptible(ctx, in), "standard input")
	case object.IsURL(cfg.File):
		return openObjectCSV(ctx, cfg.File)
	}
	if info, err := os.Stat(r.cfg.File); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		return ReadCSV(newInterruptible(ctx, &pipe{path: r.cfg.File}), r.cfg.File)
	}
	return OpenCSV(r.cfg.File)
}

// pipe is a named pipe, which is opened when it is read: to open it waits for who writes it.
type pipe struct {
	path string
	file *os.File
}

// Read implements io.Reader.
func (p *pipe) Read(b []byte) (int, error) {
	if p.file == nil {
		var err error
		if p.file, err = os.Open(p.path); err != nil {
			return 0, err
		}
	}
	return p.file.Read(b)
}

// send passes the rows of src on until its end, the bound on events, an error, or the end of ctx.
func (r *run) send(ctx context.Context, src Source, out sink) error {
	in := src
	if r.cfg.Disorder > 0 {
		in = newDisorder(src, r.cfg.Disorder, r.cfg.Seed)
	}
	pace := newPacer(r.cfg)
	times := newRetimer(r.cfg, src)
	measure := newMeasure(r.cfg, src, &r.count)
	var row Row
	for index := int64(0); r.cfg.Events == 0 || index < int64(r.cfg.Events); index++ {
		if err := in.Next(&row); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if err := pace.wait(ctx, &row, out.idle); err != nil {
			return err
		}
		if times.apply(&row); times.failed != nil {
			return times.failed
		}
		if err := out.send(&row, index); err != nil {
			return err
		}
		r.truths.add(&row)
		r.check(&row)
		r.span(&row)
		measure.add()
	}
	r.count.done.Store(r.count.total.Load())
	return nil
}

// check counts a row of a file that a pipeline with the same fields will refuse, and says of the first one why.
func (r *run) check(row *Row) {
	if r.cfg.File == "" || row.HasTime && row.Event.UserID != "" {
		return
	}
	if r.res.Invalid++; r.res.Invalid > 1 {
		return
	}
	scanner, err := activity.NewScanner(r.cfg.fields())
	if err != nil {
		return // it was checked
	}
	text := row.AppendJSON(nil)
	_, reason := scanner.Scan(text)
	r.res.Why = fmt.Sprintf("%s - %s. For example: %s", reason, scanner.Explain(text, reason), activity.Example(text))
}

// span widens the result's event times to those of row.
func (r *run) span(row *Row) {
	if !row.HasTime {
		return
	}
	if !r.timed {
		r.timed = true
		r.res.FirstEventMS, r.res.LastEventMS = row.TimeMS, row.TimeMS
	}
	switch {
	case row.TimeMS > r.before:
		r.up++
	case row.TimeMS < r.before:
		r.down++
	}
	r.before = row.TimeMS
	r.res.Backwards = r.cfg.File != "" && r.down > 9*(r.up-1) && r.down > 5 // the first one is a step upwards
	r.res.FirstEventMS = min(r.res.FirstEventMS, row.TimeMS)
	r.res.LastEventMS = max(r.res.LastEventMS, row.TimeMS)
}

// reportLines says which lines of a CSV were not sent.
func (r *run) reportLines(src Source) {
	c, ok := src.(*CSV)
	if !ok {
		return
	}
	s := c.Stats()
	r.res.Skipped, r.res.Cut, r.res.CutLine, r.res.BadLines = s.Skipped, s.Cut, s.CutLine, s.BadLines
	if left := c.LeftOut(); len(left) > 0 {
		r.log.Warn("skipping files in the archive whose names do not look like event files", "members", len(left), "first", left[0])
	}
	if len(s.Nulls) > 0 {
		var rows []string
		for _, word := range slices.Sorted(maps.Keys(s.Nulls)) {
			rows = append(rows, fmt.Sprintf("%d %s", s.Nulls[word], word))
		}
		r.log.Warn("some values in the user column are treated as a missing user; if one of them is a user, remove it from SPATE_NULL_VALUES (--null-values)", "rows", strings.Join(rows, ", "))
	}
	for _, b := range s.BadLines {
		r.log.Warn("skipped line", "file", b.File, "line", b.Line, "reason", b.Reason)
	}
	if n := s.Skipped + s.Cut; n > int64(len(s.BadLines)) {
		r.log.Warn("skipped more lines", "lines", n-int64(len(s.BadLines)))
	}
}

func closeSource(src Source) {
	if c, ok := src.(io.Closer); ok {
		_ = c.Close() // it was only read from
	}
}

// retimer gives rows the time that the time mode asks for.
type retimer struct {
	mode string
	now  func() time.Time

	started  bool
	baseMS   int64 // event time that becomes toMS
	toMS     int64
	dividend float64
	lastMS   int64 // time of the last row, in time mode now
	format   activity.TimeFormat
	buf      []byte
	failed   error
}

func newRetimer(cfg *Config, src Source) *retimer {
	t := &retimer{mode: cfg.TimeMode, now: cfg.Now, dividend: 1, format: activity.TimeFormat(cfg.TimeFormat)}
	if cfg.Rate == 0 && cfg.Speed != 0 {
		t.dividend = cfg.Speed
	}
	if g, ok := src.(*Generator); ok && t.mode == TimeShift {
		t.started, t.baseMS = true, g.startMS
		t.toMS = cfg.Now().UnixMilli()
		if t.dividend == 1 {
			// Attackers know where windows begin, so theirs move by whole windows, up to one into the past.
			size := cfg.Window.Milliseconds()
			t.toMS = t.baseMS + floorTo(t.toMS-t.baseMS, size)
		}
		if t.dividend != 1 {
			cfg.Log.Warn("speed changes the spacing of generated events, so shoppers may break the rule too; for more traffic, use event-rate", "speed", cfg.Speed)
		}
	}
	if t.mode == TimeShift && cfg.Rate == 0 && cfg.Speed == 0 {
		cfg.Log.Warn("event times will run ahead of the wall clock, and the router rejects events from the future; to send a file at once, use --time original", "speed", cfg.Speed)
	}
	return t
}

func (t *retimer) apply(r *Row) {
	switch t.mode {
	case TimeNow:
		if !r.Together {
			t.lastMS = t.now().UnixMilli()
		}
		r.TimeMS, r.HasTime = t.lastMS, true
	case TimeShift:
		if !r.HasTime {
			return
		}
		if !t.started {
			t.started, t.baseMS, t.toMS = true, r.TimeMS, t.now().UnixMilli()
		}
		d := r.TimeMS - t.baseMS
		if t.dividend != 1 {
			d = int64(float64(d) / t.dividend)
		}
		r.TimeMS = t.toMS + d
	default:
		return
	}
	if r.JSON != nil {
		t.failed = r.retime(t.format)
		return
	}
	t.buf = activity.AppendTime(t.buf[:0], r.TimeMS)
	r.Event.TxnTimestamp = string(t.buf)
}
