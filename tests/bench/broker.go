package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/testport"
)

// bench is one run of the command: what it has built and started, and the broker that everything is measured on.
type bench struct {
	options
	report   *report
	progress io.Writer

	tmp         string // folder of this run; removed at its end
	program     string // spate
	reference   string // the reference's own program: load, go-count, expected results
	kafka       kafka.Config
	kafkaDown   func() error
	brokerPID   int // 0 if the broker is not ours
	cl          *kgo.Client
	adm         *kadm.Client
	topics      int                 // how many names were given out
	made        map[string]struct{} // topics that are to be deleted
	started     []*process          // all processes that ever were
	highestRate float64             // events/s that the pipeline sustains, once measured
	flinkReady  bool
}

// say tells whoever waits what is going on.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// prepare builds the programs and starts the broker.
func (b *bench) prepare(ctx context.Context) error {
	shared, err := filepath.Abs(b.shared)
	if err != nil {
		return fmt.Errorf("reference folder: %w", err)
	}
	b.shared = shared
	if _, err := os.Stat(filepath.Join(shared, "bench", "go", "go.mod")); err != nil {
		return fmt.Errorf("%s is not the reference folder (bench/, kafka/): set SPATE_TEST_SHARED", shared)
	}
	if b.tmp, err = os.MkdirTemp(b.dir, "spate-bench-"); err != nil {
		return fmt.Errorf("temporary folder: %w", err)
	}
	for _, kept := range []*string{&b.logs, &b.cpuProfile} {
		if *kept == "" {
			continue
		}
		if *kept, err = filepath.Abs(*kept); err == nil {
			err = os.MkdirAll(*kept, 0o755)
		}
		if err != nil {
			return fmt.Errorf("folder: %w", err)
		}
	}
	b.reference = filepath.Join(b.tmp, "reference")
	b.say("building the reference's program")
	if err := b.goBuild(ctx, filepath.Join(shared, "bench", "go"), b.reference, "."); err != nil {
		return err
	}
	if b.program = b.bin; b.program == "" {
		b.say("building spate")
		b.program = filepath.Join(b.tmp, "spate")
		if err := b.goBuild(ctx, ".", b.program, "spate"); err != nil {
			return err
		}
	} else if found, err := exec.LookPath(b.bin); err != nil {
		return fmt.Errorf("-bin: %w", err)
	} else if b.program, err = filepath.Abs(found); err != nil {
		return fmt.Errorf("-bin: %w", err)
	}
	b.kafka = kafka.Config{Brokers: kafka.ParseBrokers(b.brokers), ClientID: "spate-bench"}
	if b.brokers == "" {
		b.say("starting Kafka (the first time, Maven fetches it)")
		err := b.startKafka(ctx)
		if err != nil && ctx.Err() == nil && errors.Is(err, errKafkaUp) {
			err = b.startKafka(ctx) // somebody may have taken the port
		}
		if err != nil {
			return err
		}
	}
	if b.cl, err = kgo.NewClient(b.kafka.Options(kgo.MetadataMinAge(50 * time.Millisecond))...); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	b.adm = kadm.NewClient(b.cl)
	ping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := b.cl.Ping(ping); err != nil {
		return fmt.Errorf("no broker answers at %s: %w", strings.Join(b.kafka.Brokers, ","), err)
	}
	b.made = make(map[string]struct{})
	return nil
}

// goBuild builds a package in a module's folder.
func (b *bench) goBuild(ctx context.Context, dir, out, pkg string) error {
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("the go command is missing: it builds what is measured")
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = dir
	// The reference is a module of its own, wherever it lies.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w: %s", pkg, dir, err, bytes.TrimSpace(said))
	}
	return nil
}

var errKafkaUp = errors.New("kafka-up")

// startKafka starts a broker by the reference's script, in the temporary folder.
func (b *bench) startKafka(ctx context.Context) error {
	for tool, why := range map[string]string{"java": "it runs Kafka (17 or newer)", "bash": "the scripts of the reference folder need it", "ps": "the scripts of the reference folder need it"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: %s; or name a broker with -brokers", tool, why)
		}
	}
	var ports [2]int // the broker's and its controller's
	for i := range ports {
		var err error
		if ports[i], _, err = testport.Hold(); err != nil { // as long as this process lives
			return err
		}
	}
	data, scripts := filepath.Join(b.tmp, "kafka"), filepath.Join(b.shared, "kafka")
	b.kafkaDown = func() error { // also after a start that failed half way
		down := exec.Command(filepath.Join(scripts, "kafka-down"), data)
		if said, err := down.CombinedOutput(); err != nil {
			return fmt.Errorf("kafka-down: %w: %s", err, bytes.TrimSpace(said))
		}
		return nil
	}
	up := exec.CommandContext(ctx, filepath.Join(scripts, "kafka-up"), strconv.Itoa(ports[0]), data,
		// Deleted topics, gigabytes each, give their room back at once; the soak's topic is cut while it grows.
		"log.segment.delete.delay.ms=1000", "log.retention.check.interval.ms=5000")
	up.Env = append(os.Environ(), "KAFKA_CONTROLLER_PORT="+strconv.Itoa(ports[1]))
	log, err := os.Create(filepath.Join(b.tmp, "kafka-up.log"))
	if err != nil {
		return fmt.Errorf("kafka-up: %w", err)
	}
	defer log.Close()
	up.Stdout, up.Stderr = log, log // a file, not a pipe: the broker inherits it and keeps it open
	if err := up.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w: %w: %s", errKafkaUp, err, bytes.TrimSpace(said))
	}
	pid, err := os.ReadFile(filepath.Join(data, "broker.pid"))
	if err != nil {
		return fmt.Errorf("kafka-up: %w", err)
	}
	if b.brokerPID, err = strconv.Atoi(string(bytes.TrimSpace(pid))); err != nil {
		return fmt.Errorf("kafka-up: pid: %w", err)
	}
	b.kafka.Brokers = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))}
	return nil
}

// close ends and removes what the run has started and made. Whoever starts a process stops it; what an error left over ends here.
func (b *bench) close() error {
	var errs []error
	for _, p := range b.started {
		if !p.ended() {
			p.stop()
		}
	}
	if b.cl != nil {
		if b.brokerPID == 0 { // a broker of others gets its room back
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			for t := range b.made {
				errs = append(errs, b.drop(ctx, t))
			}
			cancel()
		}
		b.cl.Close()
	}
	if b.kafkaDown != nil {
		errs = append(errs, b.kafkaDown())
	}
	if b.tmp != "" {
		errs = append(errs, os.RemoveAll(b.tmp))
	}
	if b.report != nil {
		errs = append(errs, b.report.close())
	}
	return errors.Join(errs...)
}

// name returns a topic name that was never used.
func (b *bench) name(what string) string {
	b.topics++
	return fmt.Sprintf("bench-%d-%d-%s", os.Getpid(), b.topics, what)
}

// create makes a topic and waits until it can be written to.
func (b *bench) create(ctx context.Context, topic string, partitions int, config map[string]string) error {
	set := make(map[string]*string, len(config))
	for k, v := range config {
		set[k] = kadm.StringPtr(v)
	}
	b.made[topic] = struct{}{}
	if _, err := b.adm.CreateTopic(ctx, int32(partitions), -1, set, topic); err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return b.await(ctx, topic)
}

// await waits until all partitions of topics have a leader.
func (b *bench) await(ctx context.Context, topics ...string) error {
	return poll(ctx, 30*time.Second, 20*time.Millisecond, "leaders of "+strings.Join(topics, ", "), func() (bool, error) {
		ends, err := b.adm.ListEndOffsets(ctx, topics...)
		return err == nil && ends.Error() == nil, nil
	})
}

// drop deletes topics and waits until the broker knows nothing of them any more.
func (b *bench) drop(ctx context.Context, topics ...string) error {
	gone, err := b.adm.DeleteTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	for _, r := range gone {
		if r.Err != nil && !errors.Is(r.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", r.Topic, r.Err)
		}
		delete(b.made, r.Topic)
	}
	return poll(ctx, 30*time.Second, 20*time.Millisecond, "deletion of "+strings.Join(topics, ", "), func() (bool, error) {
		ends, err := b.adm.ListEndOffsets(ctx, topics...)
		if err != nil {
			return false, nil //nolint:nilerr // asked again
		}
		left := false
		ends.Each(func(o kadm.ListedOffset) { left = left || o.Err == nil })
		return !left, nil
	})
}

// ends returns where the partitions of a topic end.
func (b *bench) ends(ctx context.Context, topic string) (map[int32]int64, error) {
	listed, err := b.adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of %s: %w", topic, err)
	}
	ends := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// behind returns how many records of a topic a group has not committed.
func (b *bench) behind(ctx context.Context, group, topic string) (int64, error) {
	ends, err := b.ends(ctx, topic)
	if err != nil {
		return 0, err
	}
	offsets, err := b.adm.FetchOffsets(ctx, group)
	if err != nil {
		return 0, fmt.Errorf("offsets of %s: %w", group, err)
	}
	var n int64
	for p, end := range ends {
		if o, ok := offsets.Lookup(topic, p); ok {
			end -= max(o.At, 0)
		}
		n += end
	}
	return n, nil
}

// each reads a topic from its beginning to its present end.
func (b *bench) each(ctx context.Context, topic string, f func(*kgo.Record) error) error {
	ends, err := b.ends(ctx, topic)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(b.kafka.Options(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())...)
	if err != nil {
		return fmt.Errorf("read %s: %w", topic, err)
	}
	defer cl.Close()
	for p, end := range ends {
		if end == 0 {
			delete(ends, p)
		}
	}
	for len(ends) > 0 {
		fetched := cl.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		for it := fetched.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset+1 >= ends[r.Partition] {
				delete(ends, r.Partition)
			}
			if !r.Attrs.IsControl() {
				if err := f(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// poll asks every so often until ok, an error, or the time is over.
func poll(ctx context.Context, within, every time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %v: %s", within, what))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done, err := ok(); err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// commit is what was checked out, with a plus if something was changed since.
func (b *bench) commit(ctx context.Context) string {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := string(bytes.TrimSpace(head))
	changed, err := exec.CommandContext(ctx, "git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=no").Output()
	if err != nil || len(changed) > 0 {
		commit += "+"
	}
	return commit
}
