package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka/security"
)

// Names are the topics and consumer groups of one pipeline. They all follow from the topic that the events come in.
type Names struct {
	Activity string // events, as their producers wrote them
	Keyed    string // panes per user and watermarks, from router to detector
	Late     string // events that missed their window
	DLQ      string // what is not an event
	Alerts   string // alert records
	Rules    string // revisions of the rules

	Decisions string // what to do about keys; it is made when something is first decided

	RouterGroup   string
	DetectorGroup string
	AlerterGroup  string
}

// NamesFor returns the names of the pipeline that reads topic.
func NamesFor(topic string) Names {
	n := Names{
		Activity: topic, Keyed: topic + ".keyed", Late: topic + ".late", DLQ: topic + ".dlq", Alerts: "alerts", Rules: topic + ".rules", Decisions: "decisions",
		RouterGroup: "spate-router", DetectorGroup: "spate-detector", AlerterGroup: "spate-alerter",
	}
	if topic != DefaultTopic {
		n.Alerts, n.Decisions = topic+".alerts", topic+".decisions"
		n.RouterGroup += "." + topic
		n.DetectorGroup += "." + topic
		n.AlerterGroup += "." + topic
	}
	return n
}

// DefaultTopic is where events come in.
const DefaultTopic = "activity"

// Table is the changelog of the detector's group table; goka derives its name from the group.
func (n Names) Table() string { return n.DetectorGroup + "-table" }

// DefaultPartitions is what topics are made with when nothing else is asked for.
const DefaultPartitions = 4

// maxMessageBytes lets 1 MiB events pass whatever the broker's default; late and dead ones travel with their headers.
const maxMessageBytes = 2 << 20

// maxBatchBytes is the limit of the topics that the router writes, so that a batch may hold such an event and more.
const maxBatchBytes = 2 * maxMessageBytes

// ProducerBatchMaxBytes is what the router may send at once; it stays below maxBatchBytes, which includes the batch's frame.
const ProducerBatchMaxBytes = maxBatchBytes - 64<<10

const day = 24 * time.Hour

const (
	// TransactionTimeout is how long a dead router can hold readers back.
	TransactionTimeout = 6 * time.Second
	// SessionTimeout is how long a dead member keeps its partitions: Apache Kafka's lower bound by default.
	SessionTimeout = 6 * time.Second
)

// Layout says how the topics of a pipeline are to be.
type Layout struct {
	Names Names
	// Partitions of all topics that are made. 0 takes what exists, or DefaultPartitions. A topic that exists with another count is
	// an error, for every key would change its partition and leave its state behind.
	Partitions int32
	// Replication of topics that are made; 0 is the broker's default. From 3 on, writes need two replicas in sync.
	Replication int16
	// Service and Instance say whose rights are meant when brokers refuse something ([Names.Rights]).
	Service, Instance string
	// Replays is the longest stretch of the keyed log that a detector has to read again: the window and its lateness. 0 is not known.
	Replays time.Duration
}

// Topics are those of a pipeline, as they were when a session began.
type Topics struct {
	Sources int32 // partitions of the topic of events
	Keyed   int32 // partitions of the keyed topic
	// ClaimedTime reports that the records of the topic of events have the time that their producers claim, not that of the broker.
	ClaimedTime bool

	IDs    map[string]kadm.TopicID // by name; none on brokers without them
	counts map[string]int32
}

// Incarnation tells topics of one name apart that were deleted and made anew. It is 0 on brokers without topic ids.
func (t Topics) Incarnation(topic string) uint64 {
	id := t.IDs[topic]
	return binary.BigEndian.Uint64(id[:8]) ^ binary.BigEndian.Uint64(id[8:])
}

type topicSpec struct {
	name       string
	partitions partitions
	config     map[string]string
}

// partitions says how many a topic must have.
type partitions uint8

const (
	anyNumber partitions = iota
	asKeyed              // as many as the keyed topic
	one                  // its records have one order
)

func (l Layout) specs() []topicSpec {
	n := l.Names
	retain := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	size, twice := strconv.Itoa(maxMessageBytes), strconv.Itoa(maxBatchBytes)
	return []topicSpec{
		// LogAppendTime: "too far in the future" is judged by the broker's clock, not by what a producer claims.
		{n.Activity, anyNumber, map[string]string{"cleanup.policy": "delete", "retention.ms": retain(7 * day), "message.timestamp.type": "LogAppendTime", "max.message.bytes": size}},
		{n.Keyed, asKeyed, map[string]string{"cleanup.policy": "delete", "retention.ms": retain(max(2*day, 2*l.keyedFor())), "message.timestamp.type": "LogAppendTime", "max.message.bytes": twice}},
		{n.Late, asKeyed, map[string]string{"cleanup.policy": "delete", "retention.ms": retain(14 * day), "max.message.bytes": twice}},
		{n.DLQ, asKeyed, map[string]string{"cleanup.policy": "delete", "retention.ms": retain(14 * day), "max.message.bytes": twice}},
		{n.Alerts, asKeyed, map[string]string{"cleanup.policy": "delete", "retention.ms": retain(30 * day), "message.timestamp.type": "LogAppendTime"}},
		// For others to read: one record a user, gone soon after the user's last window, or after a day if a crash left it behind.
		{n.Table(), asKeyed, map[string]string{"cleanup.policy": "compact,delete", "retention.ms": retain(day), "min.cleanable.dirty.ratio": "0.1", "segment.ms": retain(10 * time.Minute), "delete.retention.ms": retain(time.Minute)}},
		// Nothing of it may ever go: what is in force is the sum of all.
		{n.Rules, one, map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime", "max.message.bytes": twice}},
	}
}

// keyedFor is how long the keyed log has to be kept at least: what is open is counted from it again, and somebody has to have the time to start
// a detector that has died.
func (l Layout) keyedFor() time.Duration {
	if l.Replays == 0 {
		return 0
	}
	return l.Replays + time.Hour
}

// MaxClockSkew is how far clocks of brokers and services may be apart. What the log holds from further in the future nobody can have written.
const MaxClockSkew = time.Minute

// MaxSources is how many partitions the topic of events may have: the detector keeps a watermark of each in the metadata of its offsets,
// for which brokers have 4096 bytes unless told otherwise.
const MaxSources = 900

// ErrLayout means that a topic exists in a way that the pipeline cannot work with.
var ErrLayout = errors.New("topic is not usable")

// Ensure makes the topics that are missing, checks those that exist, and returns them. Several processes may do it at once.
func (l Layout) Ensure(ctx context.Context, adm *kadm.Client) (Topics, error) {
	specs := l.specs()
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.name
	}
	found, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return Topics{}, fmt.Errorf("list topics: %w", l.denied(ctx, adm, names, err))
	}
	want := l.Partitions
	if want == 0 {
		want = DefaultPartitions
		// Whoever made the topic of events chose its partitions; the others follow the keyed topic.
		for _, n := range []string{l.Names.Activity, l.Names.Keyed} {
			if d, ok := found[n]; ok && d.Err == nil {
				want = int32(len(d.Partitions))
			}
		}
	}
	if want > MaxSources {
		return Topics{}, fmt.Errorf("%w: %d partitions are requested, but the maximum is %d", ErrLayout, want, MaxSources)
	}
	var made []string
	for _, s := range specs {
		d, ok := found[s.name]
		switch {
		case ok && d.Err == nil:
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			n := want
			if s.partitions == one {
				n = 1
			}
			if err := l.create(ctx, adm, s, n); err != nil {
				return Topics{}, err
			}
			made = append(made, s.name)
		default:
			return Topics{}, fmt.Errorf("describe topic %s: %w", s.name, Explain(d.Err, l.right(s.name)))
		}
	}
	if err := appear(ctx, adm, made, found); err != nil {
		return Topics{}, err
	}
	count, ids := make(map[string]int32, len(specs)), make(map[string]kadm.TopicID, len(specs))
	for _, s := range specs {
		count[s.name], ids[s.name] = int32(len(found[s.name].Partitions)), found[s.name].ID
	}
	if n := count[l.Names.Activity]; n > MaxSources {
		return Topics{}, fmt.Errorf("%w: %s has %d partitions, but the maximum is %d", ErrLayout, l.Names.Activity, n, MaxSources)
	}
	for _, s := range specs {
		got := count[s.name]
		if s.partitions == one && got != 1 {
			return Topics{}, fmt.Errorf("%w: %s has %d partitions, but exactly 1 is required, because the revisions of the rules must form a single sequence; stop all services and delete the topic", ErrLayout, s.name, got)
		}
		if s.partitions == one || s.partitions == anyNumber && l.Partitions == 0 {
			continue
		}
		if got != want {
			return Topics{}, fmt.Errorf("%w: the number of partitions of %s is %d, but must be %d: set SPATE_PARTITIONS (--partitions) to %d, or stop all services and delete the topic", ErrLayout, s.name, got, want, got)
		}
	}
	t := Topics{Sources: count[l.Names.Activity], Keyed: want, IDs: ids, counts: count}
	t.ClaimedTime, err = l.checkConfigs(ctx, adm)
	return t, err
}

// denied finds out which topics may not be seen: the client tells that of all together.
func (l Layout) denied(ctx context.Context, adm *kadm.Client, names []string, err error) error {
	var errs []error
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		for _, name := range names {
			if _, err := adm.ListTopics(ctx, name); errors.Is(err, kerr.TopicAuthorizationFailed) {
				errs = append(errs, fmt.Errorf("topic %s: %w", name, Explain(err, l.right(name))))
			}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return Explain(err, Right{})
}

// right is what the service needs first of a topic: if it may not even be described, that is what is lacking.
func (l Layout) right(topic string) Right {
	for _, r := range l.Names.Rights(l.Service, l.Instance) {
		if r.Resource == "topic" && r.Name == topic {
			return r
		}
	}
	return Right{Operation: "Describe", Resource: "topic", Name: topic}
}

// Check looks whether the topics that are there have settings that the pipeline can work with, and changes nothing. It reports whether the topic of
// events has the times of its producers.
func (l Layout) Check(ctx context.Context, adm *kadm.Client) (claimed bool, err error) {
	return l.checkConfigs(ctx, adm)
}

// create makes a topic, unless another process was first.
func (l Layout) create(ctx context.Context, adm *kadm.Client, s topicSpec, partitions int32) error {
	config := make(map[string]*string, len(s.config))
	for k, v := range s.config {
		config[k] = kadm.StringPtr(v)
	}
	replication := l.Replication
	if replication == 0 {
		replication = -1
	} else if replication >= 3 {
		config["min.insync.replicas"] = kadm.StringPtr("2")
	}
	if _, err := adm.CreateTopic(ctx, partitions, replication, config, s.name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", s.name, Explain(err, Right{Operation: "Create", Resource: "topic", Name: s.name}))
	}
	return nil
}

// Fresh lists topics as they are now. A client remembers for five seconds what it was told of a topic, also that there was none; that it does not for a
// request with authorized operations, and remembers the answer.
func Fresh(ctx context.Context, adm *kadm.Client, topics ...string) (kadm.TopicDetails, error) {
	return adm.ListTopics(kadm.WithAuthorizedOps(ctx), topics...)
}

// appear waits until the brokers know topics that were made, which may take them a moment, and adds what they say to found.
func appear(ctx context.Context, adm *kadm.Client, made []string, found kadm.TopicDetails) error {
	for len(made) > 0 {
		now, err := Fresh(ctx, adm, made...)
		if err != nil {
			return fmt.Errorf("list topics %s: %w", strings.Join(made, ", "), err)
		}
		made = slices.DeleteFunc(made, func(name string) bool {
			d := now[name]
			if d.Err != nil || len(d.Partitions) == 0 {
				return false
			}
			found[name] = d
			return true
		})
		if len(made) == 0 {
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("wait for topics %s: %w", strings.Join(made, ", "), err)
		}
	}
	return nil
}

// checkConfigs refuses topics whose settings lose data, compaction of a log or a keyed log that is kept for less than a window takes, or that
// would refuse what is written. It reports whether the topic of events has the times of its producers.
func (l Layout) checkConfigs(ctx context.Context, adm *kadm.Client) (claimed bool, err error) {
	want := make(map[string]topicSpec)
	var configs kadm.ResourceConfigs
	for _, s := range l.specs() {
		want[s.name] = s
		// One by one: of several, one that may not be read hides the others.
		c, err := adm.DescribeTopicConfigs(ctx, s.name)
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			continue // a cluster may forbid reading configurations; that is not a reason not to work
		} else if err != nil {
			return false, fmt.Errorf("describe topic %s: %w", s.name, Explain(err, Right{}))
		}
		configs = append(configs, c...)
	}
	var errs []error
	refuse := func(topic, key, got, must string) {
		errs = append(errs, fmt.Errorf("%w: %s has %s=%s, but it must be %s: change it with kafka-configs --alter --entity-type topics --entity-name %s", ErrLayout, topic, key, got, must, topic))
	}
	for _, c := range configs {
		if c.Err != nil {
			continue // it is not there any more
		}
		for _, kv := range c.Configs {
			if kv.Value == nil {
				continue
			}
			need := want[c.Name].config[kv.Key]
			switch kv.Key {
			case "cleanup.policy":
				if *kv.Value != need && c.Name != l.Names.Table() { // nothing is recovered from the table
					refuse(c.Name, kv.Key, *kv.Value, need)
				}
			case "max.message.bytes":
				least, _ := strconv.Atoi(need) // "" is none
				// What comes into the topic of events is its producers' business.
				if got, err := strconv.Atoi(*kv.Value); err == nil && got < least && c.Name != l.Names.Activity {
					refuse(c.Name, kv.Key, *kv.Value, "at least "+need)
				}
			case "retention.bytes":
				if c.Name == l.Names.Rules && *kv.Value != need {
					refuse(c.Name, kv.Key, *kv.Value, need)
				}
			case "retention.ms":
				if c.Name == l.Names.Rules && *kv.Value != need {
					refuse(c.Name, kv.Key, *kv.Value, need+" (revisions of the rules are kept forever)")
				}
				got, err := strconv.ParseInt(*kv.Value, 10, 64)
				if least := l.keyedFor().Milliseconds(); err == nil && c.Name == l.Names.Keyed && got >= 0 && got < least {
					refuse(c.Name, kv.Key, *kv.Value, fmt.Sprintf("at least %d for a window and lateness of %v in total, because a detector recounts open windows from this topic", least, l.Replays))
				}
			case "message.timestamp.type":
				if c.Name == l.Names.Rules && *kv.Value != need {
					refuse(c.Name, kv.Key, *kv.Value, need)
				}
				claimed = claimed || c.Name == l.Names.Activity && *kv.Value == "CreateTime"
			}
		}
	}
	return claimed, errors.Join(errs...)
}

// EnsureWhenReady is [Layout.Ensure] for the start of a service: as long as the broker does not answer, or refuses, it says so every few
// seconds, in the log and to hold, and tries again, until ctx ends.
func (l Layout) EnsureWhenReady(ctx context.Context, cl *kgo.Client, brokers []string, log *slog.Logger, hold func(reason string)) (Topics, error) {
	adm := kadm.NewClient(cl)
	for {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		t, err := l.Ensure(try, adm)
		cancel()
		if err == nil || errors.Is(err, ErrLayout) || ctx.Err() != nil {
			hold("")
			return t, err
		}
		hold(trouble(err) + ": " + err.Error())
		log.Warn(trouble(err)+", retrying", "brokers", strings.Join(brokers, ","), "error", err)
		if err := pause(ctx, 3*time.Second); err != nil {
			return Topics{}, err
		}
	}
}

// trouble says in a few words what keeps a service from its broker.
func trouble(err error) string {
	switch {
	case errors.Is(err, security.ErrCredentials):
		return "cannot log in to the broker"
	case errors.Is(err, ErrDenied):
		return "broker denies access"
	}
	return "broker is not responding"
}

// pause waits for d, or for the end of ctx and then returns its error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
