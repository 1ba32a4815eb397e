package console

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/store"
	"spate/shared/terminal"
)

type alertsCommand struct {
	Ls   alertsLsCommand   `cmd:"" help:"List alerts that the database has, the newest last."`
	Show alertsShowCommand `cmd:"" help:"Tell the whole story of an alert: its window, who was notified of it and how that went, the events themselves."`
}

// errNoDatabase: nothing has made the database yet.
var errNoDatabase = errors.New("no alerts are kept there yet; spate up and spate alert make the database when they start, spate migrate up makes it now")

// look opens a database that is there already, and leaves its schema as it is: whoever looks at alerts changes nothing.
func (f migrateFlags) look(ctx context.Context) (store.Store, error) {
	db, err := f.target()
	if err != nil {
		return nil, err
	}
	migrations, err := db.status(ctx)
	if err != nil {
		return nil, err
	}
	states := make(map[string]int)
	for _, m := range migrations {
		states[stateOf(m)]++
	}
	switch {
	case states["pending"] > 0 && states["pending"] == len(migrations):
		return nil, fmt.Errorf("%s: %w", db.name, errNoDatabase)
	case states["pending"] > 0:
		return nil, fmt.Errorf("%s has the schema of an older version; bring it up to date with spate migrate up", db.name)
	}
	return db.open(ctx)
}

// out is where a command prints what it finds: lines for people, or a JSON object a line.
type out struct {
	*bufio.Writer
	enc *json.Encoder
}

func newOut(w io.Writer) *out {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(terminal.JSONWriter(b))
	enc.SetEscapeHTML(false) // a user stays what it was
	return &out{Writer: b, enc: enc}
}

// printf prints for people, args escaped; the writer keeps its first error for the end.
func (o *out) printf(format string, args ...any) { terminal.Fprintf(o.Writer, format, args...) }

// json prints an object and returns whether it makes sense to go on.
func (o *out) json(v any) error { return o.enc.Encode(v) }

// end prints what is left, and returns err, or why printing failed. A reader that closes the pipe early, as head does, is not a failure.
func (o *out) end(err error) error {
	if ferr := o.Flush(); err == nil {
		err = ferr
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

const (
	instant = "2006-01-02T15:04:05.000Z07:00"
	day     = "2006-01-02"
)

// span writes a window: its start, and as much of its end as differs.
func span(start, end time.Time) string {
	form := "15:04:05.999Z07:00"
	if start.Format(day) != end.Format(day) {
		form = time.RFC3339Nano
	}
	return start.Format(time.RFC3339Nano) + " - " + end.Format(form)
}

// moment reads a time as people write it: an instant, a day (its beginning, UTC), or how long ago.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ms, ok := activity.ParseTime([]byte(text)); ok {
		return time.UnixMilli(ms).UTC(), nil
	}
	if t, err := time.Parse(day, text); err == nil {
		return t, nil
	}
	ago := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			ago = strconv.FormatUint(24*n, 10) + "h"
		}
	}
	if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
		return now.Add(-d).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%s: %q is not a time; write it as 2026-11-24T09:30:00Z, as a day, 2026-11-24, or as how long ago, 1h or 7d", flag, text)
}

// userToken reads a user as people write it: 7 is the number, "7" in quotes the string, everything else is a string.
func userToken(text string) (string, error) {
	if strings.HasPrefix(text, `"`) {
		token, err := store.User(json.RawMessage(text))
		if err == nil {
			return token, nil
		}
	}
	if text == "" {
		return "", errors.New("user: is empty")
	}
	return activity.UserToken(text)[0], nil
}

// directoryNotState tells those apart who mean the state of what is listed: --state is the directory, as everywhere.
func (f migrateFlags) directoryNotState(states ...string) error {
	if slices.Contains(states, f.State) {
		return fmt.Errorf("state: is the directory that the database is in, as for spate up; to choose by state write --only %s (a directory of that name is ./%s)", f.State, f.State)
	}
	return nil
}

type alertsLsCommand struct {
	migrateFlags
	tableFlags
	User     *string `placeholder:"USER" help:"Only those of this user: 7 is the number, '\"7\"' the string, other text is a string."`
	Only     string  `name:"only" placeholder:"STATE" help:"Only those that are opened (their windows have not ended), or closed."`
	Severity string  `placeholder:"SEVERITY" help:"Only those that are at least this bad: warning or critical."`
	Rule     string  `placeholder:"RULE" help:"Only those of this rule: burst."`
	Since    string  `placeholder:"TIME" help:"Only windows that start then or later: 2026-11-24T09:30:00Z, a day (2026-11-24, its beginning, UTC), or how long ago (1h, 7d)."`
	Until    string  `placeholder:"TIME" help:"Only windows that start before that, written as for --since."`
	Limit    *int    `placeholder:"N" help:"At most so many, the newest; 0 is all. Default: 50, and all with --json."`
	JSON     bool    `name:"json" help:"Print a JSON line for each alert: the record as in the topic, and opened_at, closed_at, delivery (state, attempts)."`
}

// peopleRead is how many lines are printed unless another number is asked for.
const peopleRead = 50

// atMost is how many are listed.
func atMost(limit *int, json bool) int {
	switch {
	case limit != nil:
		return *limit
	case json:
		return 0
	}
	return peopleRead
}

func (c *alertsLsCommand) filter(now time.Time) (store.Filter, error) {
	f := store.Filter{State: alert.State(c.Only), Rule: c.Rule, MinSeverity: alert.Severity(c.Severity), Limit: atMost(c.Limit, c.JSON)}
	errs := []error{c.directoryNotState("opened", "closed")}
	var err error
	if c.User != nil {
		f.User, err = userToken(*c.User)
		errs = append(errs, err)
	}
	f.Since, err = moment("since", c.Since, now)
	errs = append(errs, err)
	f.Until, err = moment("until", c.Until, now)
	errs = append(errs, err)
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		errs = append(errs, fmt.Errorf("since, until: %s is not before %s", f.Since.Format(time.RFC3339), f.Until.Format(time.RFC3339)))
	}
	errs = append(errs, f.Validate())
	return f, errors.Join(errs...)
}

func (c *alertsLsCommand) Run(e *env) (err error) {
	f, err := c.filter(time.Now())
	if err != nil {
		return usage(err)
	}
	var st alertReader
	if e.mode == "aws" {
		if st, err = c.table(e.ctx); err != nil {
			return usage(err)
		}
	} else {
		db, err := c.look(e.ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		st = db
	}
	v := newView(e.stdout, false)
	return tell(e, f.Limit, c.JSON, func(limit int) iter.Seq2[store.Alert, error] {
		f.Newest, f.Limit = limit > 0, limit
		return st.Alerts(e.ctx, f)
	}, func(a store.Alert) any { a.Record = a.Written(); return a }, func(a store.Alert) terminal.Safe { return alertLine(v, a) })
}

func alertLine(v *view, a store.Alert) terminal.Safe {
	severity := v.paint(fmt.Sprintf("%-8s", a.Severity), yellow)
	if a.Severity == alert.Critical {
		severity = v.paint(fmt.Sprintf("%-8s", a.Severity), red)
	}
	return terminal.Sprintf("%s %-6s  user %-12s window %s  %-18s %-9s  %s", severity, a.State, activity.UserText(a.UserID),
		span(a.WindowStart, a.WindowEnd), countText(a.Record), a.Delivery.State, v.paint(a.ID, dim))
}

func countText(r alert.Record) string {
	if r.State == alert.Opened {
		return fmt.Sprintf("%d events so far", r.Count)
	}
	return fmt.Sprintf("%d events", r.Count)
}

type alertsShowCommand struct {
	migrateFlags
	tableFlags
	ID string `arg:"" name:"id" help:"Id of the alert, 32 hexadecimal digits, or the webhook-id of a message about it."`
	brokerFlags
	formatFlags
	NoEvents   bool     `name:"no-events" help:"Do not read the events from Kafka."`
	UserField  []string `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Members of the event's JSON that may hold the user; dots lead into objects."`
	TimeFormat string   `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"How times are written, as the router has it."`
	TimeField  []string `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Members that may hold the event's time; the first that is there counts."`
	JSON       bool     `name:"json" help:"Print one JSON object: the alert as ls --json has it, deliveries (each with its tries), events, events_more, events_note."`
}

// Help is shown below the usage.
func (alertsShowCommand) Help() string {
	return `The events are read from the log, between the offsets that the alert has as evidence: those of its user in its window, the first 100 of
them. That takes a broker that still has them; without one everything else is told, and why the events are not.`
}

// story is everything about an alert.
type story struct {
	store.Alert
	Deliveries []deliveryStory `json:"deliveries"`
	Events     []event         `json:"events"`                // null: not read
	More       int             `json:"events_more"`           // that are not in Events
	Note       string          `json:"events_note,omitempty"` // why events are missing
}

// event is one event of the log.
type event struct {
	place
	At    time.Time       `json:"at"` // event time
	Value json.RawMessage `json:"value"`
}

// place is where an event is in its log: a topic of Kafka, or a stream of Kinesis.
type place struct {
	Partition *int32 `json:"partition,omitempty"`
	Offset    *int64 `json:"offset,omitempty"`
	Shard     string `json:"shard_id,omitempty"`
	Sequence  string `json:"sequence_number,omitempty"`
}

func (p place) String() string {
	if p.Shard != "" {
		return p.Shard + " " + p.Sequence
	}
	return fmt.Sprintf("partition %d offset %d", *p.Partition, *p.Offset)
}

// compare orders places by partition, then by how far they are in it.
func (p place) compare(q place) int {
	if p.Shard != "" {
		return cmp.Or(cmp.Compare(p.Shard, q.Shard), cmp.Compare(len(p.Sequence), len(q.Sequence)), cmp.Compare(p.Sequence, q.Sequence))
	}
	return cmp.Or(cmp.Compare(*p.Partition, *q.Partition), cmp.Compare(*p.Offset, *q.Offset))
}

func (c *alertsShowCommand) Run(e *env) (err error) {
	k, kerr := c.config(e.logger(slog.LevelError))
	cfg := format.Config{Fields: activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}}
	rerr := c.events(&cfg, e.logger(slog.LevelError))
	events, err := format.New(cfg)
	if err := usage(errors.Join(err, rerr, kerr, k.Validate())); err != nil {
		return err
	}
	id := c.ID
	for _, s := range []alert.State{alert.Opened, alert.Closed} {
		id = strings.TrimSuffix(id, "_"+string(s)) // of a message
	}
	var s story
	read := func() { s.read(e.ctx, k, events) }
	if e.mode == "aws" {
		read, err = c.fromTable(e.ctx, &s, id, events)
	} else {
		err = c.fromDatabase(e.ctx, &s, id)
	}
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("no alert has the id %s; spate alerts ls lists them", terminal.Text(id))
	} else if err != nil {
		return err
	}
	if c.NoEvents {
		s.Note = "not asked for (--no-events)"
	} else {
		read()
		if err := e.ctx.Err(); err != nil {
			return err
		}
	}
	o := newOut(e.stdout)
	if c.JSON {
		s.Record = s.Written()
		return o.end(o.json(s))
	}
	s.write(o)
	return o.end(nil)
}

// fromDatabase reads what the database has of an alert.
func (c *alertsShowCommand) fromDatabase(ctx context.Context, s *story, id string) (err error) {
	st, err := c.look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if s.Alert, err = st.Alert(ctx, id); err != nil {
		return err
	}
	s.Deliveries, err = deliveryStories(ctx, st, store.DeliveryFilter{AlertID: id})
	return err
}

func (s *story) write(o *out) {
	o.printf("alert      %s\n", s.ID)
	o.printf("rule       %s: more than %d events of a user in a window\n", s.Rule, s.Threshold)
	o.printf("severity   %s\n", s.Severity)
	o.printf("user       %s\n", activity.UserText(s.UserID))
	o.printf("window     %s\n", span(s.WindowStart, s.WindowEnd))
	o.printf("count      %s, threshold %d\n", countText(s.Record), s.Threshold)
	o.printf("first      %s\nlast       %s\n", s.FirstEventAt.Format(instant), s.LastEventAt.Format(instant))
	o.printf("opened     %s\n", s.OpenedAt.Format(instant))
	if s.State == alert.Closed {
		o.printf("closed     %s\n", s.ClosedAt.Format(instant))
	}
	for _, p := range slices.SortedFunc(maps.Keys(s.Evidence.Partitions), byNumber) {
		r := s.Evidence.Partitions[p]
		o.printf("evidence   topic %s, partition %s, offsets %d to %d\n", s.Evidence.Topic, p, r.First, r.Last)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Evidence.Shards)) {
		r := s.Evidence.Shards[id]
		o.printf("evidence   stream %s, %s, sequence numbers %s to %s\n", s.Evidence.Stream, id, r.First, r.Last)
	}
	o.printf("delivery   %s, %s\n", s.Delivery.State, tries(s.Delivery.Attempts))
	for _, d := range s.Deliveries {
		o.printf("\n")
		d.write(o, "")
	}
	o.printf("\n")
	if s.Events == nil {
		o.printf("events were not read: %s\n", s.Note)
		return
	}
	found, differs := len(s.Events)+s.More, ""
	if int64(found) != s.Count {
		differs = fmt.Sprintf(" (the alert counted %d)", s.Count)
	}
	o.printf("%d events of the user in the window, as the log has them%s:\n", found, differs)
	for _, ev := range s.Events {
		var b bytes.Buffer
		text := string(ev.Value)
		if json.Compact(&b, ev.Value) == nil {
			text = b.String()
		}
		const wide = 500 // bytes
		if len(text) > wide {
			text = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:wide], ""), len(ev.Value))
		}
		o.printf("  %s  %s  %s\n", ev.At.Format(instant), ev.place, text)
	}
	if s.More > 0 {
		o.printf("  and %d more\n", s.More)
	}
	if s.Note != "" {
		o.printf("%s\n", s.Note)
	}
}

func byNumber(a, b string) int {
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return x - y
}

const (
	reachTime = 5 * time.Second  // for the broker to answer
	readTime  = 30 * time.Second // for all events
	maxEvents = 100
)

// read reads the alert's events from the log. What keeps it from that is a note, not an error.
func (s *story) read(ctx context.Context, cfg kafka.Config, events *format.Reader) {
	note := func(format string, args ...any) {
		if s.Note != "" {
			s.Note += "; "
		}
		s.Note += fmt.Sprintf(format, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	// As the router reads: what was aborted is not an event. Closing the client waits for what is under way, which ctx and the timeouts end.
	at := make(map[int32]int64) // where each partition is read next
	position := func(p int32) int64 {
		if o, ok := at[p]; ok {
			return o
		}
		return -1
	}
	reader, err := cfg.NewReader(s.Evidence.Topic, slog.New(slog.DiscardHandler), position, kgo.NewClient,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.WithContext(ctx), kgo.DialTimeout(reachTime), kgo.RequestTimeoutOverhead(reachTime))
	if err != nil {
		note("%v", err)
		return
	}
	cl := reader.Client()
	defer cl.Close()
	reach, cancelReach := context.WithTimeout(ctx, reachTime)
	defer cancelReach()
	if err := cl.Ping(reach); err != nil {
		note("the broker %s cannot be reached (SPATE_BROKERS, --brokers): %v", brokers(cfg), brief(kafka.Explain(err, kafka.Right{})))
		return
	}
	ranges, err := s.ranges(reach, kadm.NewClient(cl), note)
	if err != nil {
		note("topic %s at %s: %v", s.Evidence.Topic, brokers(cfg), brief(kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: s.Evidence.Topic})))
		return
	}
	s.Events = []event{}
	from := make(map[int32]kgo.Offset, len(ranges))
	for p, r := range ranges {
		from[p], at[p] = kgo.NewOffset().At(r.First), r.First
	}
	if len(from) > 0 {
		cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{s.Evidence.Topic: from})
	}
	for len(ranges) > 0 {
		poll, cancelPoll := context.WithTimeout(ctx, reachTime)
		fetches, gaps, err := reader.Poll(poll, 10_000)
		timedOut := poll.Err() != nil
		cancelPoll()
		if err != nil {
			note("not all was read: %v", brief(err))
			return
		}
		done := func(p int32) {
			delete(ranges, p)
			cl.PauseFetchPartitions(map[string][]int32{s.Evidence.Topic: {p}})
		}
		var failed error
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			r, wanted := ranges[p.Partition]
			if !wanted {
				return
			}
			for _, record := range p.Records {
				if record.Offset <= r.Last && !record.Attrs.IsControl() {
					if err := s.take(ctx, place{Partition: &record.Partition, Offset: &record.Offset}, record.Value, record.Headers, events); err != nil {
						failed = err
						return
					}
				}
				at[p.Partition] = record.Offset + 1
				if record.Offset >= r.Last {
					done(p.Partition)
					return
				}
			}
		})
		if failed != nil {
			note("not all was read: %v", failed)
			return
		}
		for _, g := range gaps {
			r, wanted := ranges[g.Partition]
			if !wanted || !g.Passed && g.To <= at[g.Partition] {
				continue
			}
			if !g.Aborted {
				note("partition %d: offsets %d to %d cannot be read: %v", g.Partition, g.From, g.To-1, brief(g.Cause))
			}
			if !g.Passed {
				reader.Skip(g)
			}
			if at[g.Partition] = max(at[g.Partition], g.To); at[g.Partition] > r.Last {
				done(g.Partition)
			}
		}
		if timedOut && len(ranges) > 0 {
			note("not all was read: that took too long")
			return
		}
	}
	if len(s.Events) == 0 && s.Note == "" {
		note("no record there is an event of this user in this window: are SPATE_USER_FIELD, SPATE_TIME_FIELD, SPATE_TIME_FORMAT, SPATE_FORMAT and SPATE_SCHEMA_REGISTRY_URL those of the router?")
	}
}

// ranges returns what there is to read of each partition, and notes what the log has no more.
func (s *story) ranges(ctx context.Context, adm *kadm.Client, note func(string, ...any)) (map[int32]alert.OffsetRange, error) {
	starts, err := adm.ListStartOffsets(ctx, s.Evidence.Topic)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, s.Evidence.Topic)
	if err != nil {
		return nil, err
	}
	if err := starts.Error(); errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, errors.New("is not there")
	}
	out := make(map[int32]alert.OffsetRange)
	for _, text := range slices.SortedFunc(maps.Keys(s.Evidence.Partitions), byNumber) {
		r := s.Evidence.Partitions[text]
		p, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			note("partition %s is none", text)
			continue
		}
		start, ok := starts.Lookup(s.Evidence.Topic, int32(p))
		end, ok2 := ends.Lookup(s.Evidence.Topic, int32(p))
		switch {
		case !ok || !ok2 || start.Err != nil || end.Err != nil:
			note("partition %d is not there", p)
			continue
		case r.Last >= end.Offset:
			note("partition %d ends at offset %d, before the evidence does: this is not the log that the alert is from", p, end.Offset)
		case r.First < start.Offset:
			note("partition %d begins at offset %d now: older events are not kept any more", p, start.Offset)
		}
		r.First, r.Last = max(r.First, start.Offset), min(r.Last, end.Offset-1)
		if r.First <= r.Last {
			out[int32(p)] = r
		}
	}
	return out, nil
}

// take keeps a record if it is an event of the alert. An error means that this cannot be told.
func (s *story) take(ctx context.Context, at place, value []byte, headers []kgo.RecordHeader, events *format.Reader) error {
	mark, reason, err := events.Mark(ctx, value, headers)
	if err != nil {
		return err
	}
	if reason != activity.ReasonNone || !bytes.Equal(mark.User, s.UserID) || mark.TimeMS < s.WindowStart.UnixMilli() || mark.TimeMS >= s.WindowEnd.UnixMilli() {
		return nil
	}
	ev := event{place: at, At: time.UnixMilli(mark.TimeMS).UTC(), Value: bytes.ToValidUTF8(bytes.Clone(events.Text(value)), []byte("\ufffd"))}
	to, _ := slices.BinarySearchFunc(s.Events, ev, func(a, b event) int { return cmp.Or(a.At.Compare(b.At), a.compare(b.place)) })
	if to < maxEvents {
		s.Events = slices.Insert(s.Events, to, ev)
	}
	if len(s.Events) > maxEvents || to >= maxEvents {
		s.More++
		s.Events = s.Events[:maxEvents]
	}
	return nil
}

// brief leaves out of an error what a client adds for its programmer.
func brief(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", reachTime)
	}
	return err
}
