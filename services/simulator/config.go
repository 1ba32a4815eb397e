package simulator

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/aws/object"
	"spate/shared/kafka"
)

// The time modes: what the event says about its time.
const (
	TimeOriginal = "original" // event_time and txn_timestamp stay as they are, unreadable ones too
	TimeNow      = "now"      // txn_timestamp is the wall clock at sending; event_time stays
	TimeShift    = "shift"    // txn_timestamp is the event's time, moved so that the first event is now; event_time stays
)

// What events can be sent to.
const (
	ToKafka   = "kafka"
	ToKinesis = "kinesis"
)

// The fields a record can be keyed by.
const (
	KeyCategory = "category_id" // as the original's producer does
	KeyUser     = "user_id"
	KeyNone     = "none" // no key: round robin; in Kinesis, where every record has one, the row's number
)

const (
	maxUsers     = 10_000_000
	maxEventRate = 1_000_000
	maxDisorder  = time.Hour
)

// defaultStart is where generated event time begins: 2019-11-01T00:00:00Z, a month of the data set.
const defaultStart int64 = 1572566400000

// Config is the settings of the simulator: flags, environment and help. Start from [Default]; the zero value asks for unpaced,
// endless traffic, which Validate refuses.
type Config struct {
	File string `arg:"" optional:"" name:"file" help:"Event file: CSV or JSON lines; plain, .gz, .bz2, .zst, .xz or .zip; - for standard input, or s3://bucket/key. Event times are kept unless --time is set. Without a file, traffic is generated."`
	Out  string `name:"out" short:"o" env:"SPATE_OUT" placeholder:"PATH" help:"Write events to this file instead of a broker: .jsonl or .csv, optionally with .gz; - writes JSON lines to standard output."`
	To   string `name:"to" env:"SPATE_TO" default:"" enum:",kafka,kinesis" placeholder:"BROKER" help:"Destination: kafka or kinesis. Default: kinesis in mode aws, otherwise kafka."`

	Topic         string `name:"topic" env:"SPATE_TOPIC" default:"activity" help:"Kafka topic to send to."`
	Stream        string `name:"stream" env:"SPATE_STREAM" default:"e-commerce-raw-user-activity-stream-1" help:"Kinesis stream to send to. Every event gets an event_id, because Kinesis may store a record twice."`
	Key           string `name:"key" env:"SPATE_KEY" default:"category_id" enum:"category_id,user_id,none" help:"Field to use as the record key: category_id, user_id or none."`
	SpreadByUser  bool   `name:"spread-by-user" env:"SPATE_SPREAD_BY_USER" help:"Kinesis: choose the shard by user_id (ExplicitHashKey), regardless of the partition key."`
	BatchMaxBytes int32  `name:"batch-max-bytes" env:"SPATE_BATCH_MAX_BYTES" default:"1000012" help:"Kafka: maximum size of a record batch in bytes; must not exceed the topic's max.message.bytes, or the broker rejects it."`

	TimeMode   string        `name:"time" env:"SPATE_TIME" default:"original" enum:"original,now,shift" help:"Event times: those from the file or the generator (original), the time of sending (now), or the original times, shifted so that the first event happens when sending starts (shift)."`
	TimeFormat string        `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format of the file: auto; rfc3339; s, ms, us or ns (a number in this unit since 1970); or a Go layout."`
	UserField  []string      `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Columns or JSON fields in the file that may hold the user."`
	TimeField  []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Columns or JSON fields in the file that may hold the event time."`
	NullValues []string      `name:"null-values" env:"SPATE_NULL_VALUES" default:"\\N,NULL,null,NaN,nan,None,<NA>,undefined" help:"Values in the user column that stand for a missing user."`
	Speed      float64       `name:"speed" env:"SPATE_SPEED" default:"1" help:"Replay speed relative to event time: 1 means real time, and 0 means as fast as possible."`
	Rate       float64       `name:"rate" env:"SPATE_RATE" default:"0" help:"Send this many events per second of wall-clock time, regardless of event times; 0 disables this."`
	Disorder   time.Duration `name:"disorder" env:"SPATE_DISORDER" default:"0s" help:"Delay the arrival of each event by a random time shorter than this, in event time."`

	Events   int           `name:"events" short:"n" env:"SPATE_EVENTS" default:"0" help:"Stop after this many events; 0 means no limit."`
	Duration time.Duration `name:"duration" env:"SPATE_DURATION" default:"0s" help:"Stop after this much event time (generated traffic only); 0 means no limit."`

	Seed      uint64        `name:"seed" env:"SPATE_SEED" default:"1" help:"Random seed for generated traffic and for --disorder."`
	EventRate float64       `name:"event-rate" env:"SPATE_EVENT_RATE" default:"500" help:"Generated events per second of event time, including attackers, averaged over the day."`
	Users     int           `name:"users" env:"SPATE_USERS" default:"20000" help:"Number of shoppers."`
	Start     time.Time     `name:"start" env:"SPATE_START" placeholder:"TIME" help:"Event time of the first event (RFC 3339). Default: 2019-11-01T00:00:00Z, or the current time if --time is not original."`
	Attackers []string      `name:"attackers" env:"SPATE_ATTACKERS" default:"all" help:"Attackers to generate: all (those for the default rule: burst, slow, straddler, bulk_order, flood, giant), library (those for the rules in rules/: scraper, card_tester, credential_stuffer, password_guesser, coupon_abuser, cart_hoarder), a comma-separated list of these, or none."`
	Innocents []string      `name:"innocents" env:"SPATE_INNOCENTS" default:"none" help:"Innocents to generate (shoppers who look like attackers, as in logs from real shops): order (an order whose lines all have the same time), mass_removal (a cart that is emptied), double_sent (events that are sent twice), office (colleagues who sign in from one address), all, or none. A good rule flags none of them."`
	Window    time.Duration `name:"window" env:"SPATE_WINDOW" default:"10s" help:"Window size of the rule that the attackers are generated for."`
	Threshold int           `name:"threshold" env:"SPATE_THRESHOLD" default:"5" help:"Threshold of the rule: more than this many events in one window break the rule."`
	TruthPath string        `name:"truth" env:"SPATE_TRUTH" placeholder:"PATH" help:"Write the ground truth about the attackers to this file, as JSON lines."`

	Kafka kafka.Config `kong:"-"`

	// Source replaces File and the generator if not nil. Run closes it if it is an io.Closer.
	Source Source `kong:"-"`
	// Stdin and Stdout are what "-" means; nil is the process's.
	Stdin  io.Reader `kong:"-"`
	Stdout io.Writer `kong:"-"`
	// Progress is where progress is drawn if it is a terminal; on anything else, progress is a log line every 5 s. Nil is off.
	Progress io.Writer `kong:"-"`
	// Log is never nil inside Run: nil discards.
	Log *slog.Logger `kong:"-"`
	// Now is the wall clock of the time modes and the pace; nil is time.Now.
	Now func() time.Time `kong:"-"`
	// Whole has all columns of a file sent, by their names; Exact has them sent with the blanks around them.
	Whole bool `kong:"-"`
	Exact bool `kong:"-"`
	// Literal are names of columns that lead into no object, though they have dots. They need Exact.
	Literal []string `kong:"-"`

	// OnSent is called for every row that the broker acknowledged, with its place; a file's rows are in partition -1. Kinesis has names for
	// shards and no offsets: there, a partition is the number of the shard in the order in which this run met them, and an offset the
	// number of the row among this run's rows in it. Calls do not overlap, and come in offset order within a partition. It holds up
	// sending, so it must be quick. May be nil.
	OnSent func(row Row, partition int32, offset int64) `kong:"-"`
}

// Default returns the settings that the flags default to: endless generated traffic in real time.
func Default() Config {
	return Config{
		Topic:         "activity",
		TimeFormat:    string(activity.TimeAuto),
		UserField:     activity.DefaultFields().User,
		TimeField:     activity.DefaultFields().Time,
		NullValues:    slices.Clone(NullWords),
		Stream:        "e-commerce-raw-user-activity-stream-1",
		Key:           KeyCategory,
		BatchMaxBytes: 1_000_012,
		TimeMode:      TimeOriginal,
		Speed:         1,
		Seed:          1,
		EventRate:     500,
		Users:         20_000,
		Attackers:     []string{"all"},
		Innocents:     []string{"none"},
		Window:        10 * time.Second,
		Threshold:     5,
	}
}

// fields are those of a file.
func (c *Config) fields() activity.Fields {
	return activity.Fields{User: c.UserField, Time: c.TimeField, TimeFormat: activity.TimeFormat(c.TimeFormat)}
}

// Validate reports every problem of c at once, with the flag's name and its bound; it does no I/O.
func (c *Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !slices.Contains([]string{"", ToKafka, ToKinesis}, c.To) {
		problem("to: %q is not one of kafka, kinesis", c.To)
	}
	switch {
	case c.Out != "":
		if _, err := formatOf(c.Out); err != nil {
			errs = append(errs, err)
		}
	case c.To == ToKinesis:
		if !isStream(c.Stream) {
			problem("stream: %q is not a valid stream name: use 1 to 128 letters, digits, dots, hyphens and underscores", c.Stream)
		}
	default:
		if err := c.Kafka.Validate(); err != nil {
			errs = append(errs, err)
		}
		if c.Topic == "" {
			problem("topic: must not be empty")
		}
	}
	if c.SpreadByUser && (c.Out != "" || c.To != ToKinesis) {
		problem("spread-by-user: applies only to Kinesis; use --to kinesis, or --key user_id for Kafka")
	}
	if object.IsURL(c.File) {
		if _, _, err := object.ParseURL(c.File); err != nil {
			problem("file: %w", err)
		}
	}
	if !slices.Contains([]string{KeyCategory, KeyUser, KeyNone}, c.Key) {
		problem("key: %q is not one of category_id, user_id, none", c.Key)
	}
	if c.BatchMaxBytes < 16<<10 || c.BatchMaxBytes > 64<<20 {
		problem("batch-max-bytes: %d is not between 16384 and 67108864", c.BatchMaxBytes)
	}
	if !slices.Contains([]string{TimeOriginal, TimeNow, TimeShift}, c.TimeMode) {
		problem("time: %q is not one of original, now, shift", c.TimeMode)
	}
	errs = append(errs, c.fields().Validate())
	if !(c.Speed == 0 || c.Speed >= 0.001 && c.Speed <= 1e6) {
		problem("speed: %v is neither 0 nor between 0.001 and 1000000", c.Speed)
	}
	if !(c.Rate == 0 || c.Rate >= 0.001 && c.Rate <= 1e7) {
		problem("rate: %v is neither 0 nor between 0.001 and 10000000 events per second", c.Rate)
	}
	if c.Rate > 0 && c.Speed != 0 && c.Speed != 1 {
		problem("rate, speed: only one of them can be given")
	}
	if c.Disorder < 0 || c.Disorder > maxDisorder {
		problem("disorder: %v is not between 0s and %v", c.Disorder, maxDisorder)
	}
	if c.Disorder > 0 && c.TimeMode == TimeNow {
		problem("disorder: cannot be combined with --time now, where the event time is the time of sending")
	}
	if c.Events < 0 {
		problem("events: %d is negative", c.Events)
	}
	if c.Duration < 0 {
		problem("duration: %v is negative", c.Duration)
	}
	if c.Window < time.Second || c.Window > 24*time.Hour || c.Window%time.Millisecond != 0 {
		problem("window: %v is not a whole number of milliseconds between 1s and 24h", c.Window)
	}
	if c.Threshold < 1 || c.Threshold > 1000 {
		problem("threshold: %d is not between 1 and 1000", c.Threshold)
	}
	if c.generates() {
		c.validateGenerator(problem)
	} else if c.Duration > 0 {
		problem("duration: applies only to generated traffic; to send the beginning of a file, use --events")
	}
	return errors.Join(errs...)
}

func (c *Config) validateGenerator(problem func(format string, args ...any)) {
	if c.Events == 0 && c.Duration == 0 && c.Speed == 0 && c.Rate == 0 {
		problem("events, duration: one of them is required when speed is 0")
	}
	if c.Duration > 0 && c.Duration < time.Millisecond {
		problem("duration: %v is below 1ms", c.Duration)
	}
	kinds, err := parseAttackers(c.Attackers)
	if err != nil {
		problem("attackers: %w", err)
	}
	innocents, err := parseInnocents(c.Innocents)
	if err != nil {
		problem("innocents: %w", err)
	}
	if f, _ := formatOf(c.Out); f.csv {
		var named []string
		for _, k := range withAddress {
			if kinds[k] || innocents[k] {
				named = append(named, string(k))
			}
		}
		if named != nil {
			problem("out: events from %s have addresses or coupons, for which a CSV file has no columns; write JSON lines with --out FILE.jsonl", strings.Join(named, ", "))
		}
	}
	if !(c.EventRate >= 0.001 && c.EventRate <= maxEventRate) {
		problem("event-rate: %v is not between 0.001 and %d events per second", c.EventRate, maxEventRate)
	} else if kinds[KindGiant] && c.EventRate < 10 {
		problem("event-rate: %v is below 10, the minimum for the attacker \"giant\"", c.EventRate)
	}
	// Each event of a shopper keeps it busy for the think time; twice as many shoppers leave room for the peak of the day.
	busy := math.Floor(2 * c.EventRate * float64(meanThinkNS(c.Window, max(c.Threshold, 1))) / 1e9)
	if c.Users < 1 || c.Users > maxUsers {
		problem("users: %d is not between 1 and %d", c.Users, maxUsers)
	} else if float64(c.Users) < busy {
		problem("users: %d is below %.0f, the minimum at which no shopper breaks the rule with an event-rate of %v", c.Users, busy, c.EventRate)
	}
	if !c.Start.IsZero() && (c.Start.Year() < 1970 || c.Start.Year() > 2200) {
		problem("start: year %d is not between 1970 and 2200", c.Start.Year())
	}
}

func isStream(name string) bool {
	return len(name) >= 1 && len(name) <= 128 && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	})
}

// generates reports whether the events come from the generator.
func (c *Config) generates() bool { return c.File == "" && c.Source == nil }

// startMS returns where generated event time begins, epoch milliseconds. It is now in the time modes that move times, so that
// moving them changes nothing and the attackers keep their place within the windows.
func (c *Config) startMS() int64 {
	switch {
	case !c.Start.IsZero():
		return c.Start.UnixMilli()
	case c.TimeMode == TimeOriginal || c.Now == nil:
		return defaultStart
	}
	return c.Now().UnixMilli()
}

// format is how a file is written.
type format struct {
	csv, gzip bool
}

// formatOf returns the format that a path's extension asks for.
func formatOf(path string) (format, error) {
	if path == "-" {
		return format{}, nil
	}
	var f format
	name := strings.ToLower(filepath.Base(path))
	name, f.gzip = strings.CutSuffix(name, ".gz")
	switch filepath.Ext(name) {
	case ".csv":
		f.csv = true
	case ".jsonl", ".ndjson", ".json":
	default:
		return f, fmt.Errorf("out: the name %q does not end in .jsonl or .csv, with or without .gz", path)
	}
	return f, nil
}
