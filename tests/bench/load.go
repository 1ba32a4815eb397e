package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// pair is a user and the window that starts at startMS.
type pair struct{ user, startMS int64 }

// backlog is a topic that is filled before anything is measured on it, and what there is to find in it.
type backlog struct {
	topic      string
	partitions int
	events     int64
	window     time.Duration
	want       map[pair]int64
}

const categoryKeyed = "category"

var expected = regexp.MustCompile(`expected alerts (\d+)`)

// referenceBacklog is the reference's load: 321 B an event, keyed by category, 500,000 users with Zipf's distribution and bots, out of
// order by up to 9 s, 20,000 events per second of event time. With 5 M events there are 98,343 results. gen changes it.
func (b *bench) referenceBacklog(ctx context.Context, events, partitions int, gen ...string) (*backlog, error) {
	l := &backlog{topic: b.name("backlog"), partitions: partitions, events: int64(events), window: 10 * time.Second}
	if err := b.create(ctx, l.topic, partitions, nil); err != nil {
		return nil, err
	}
	gen = append([]string{"-n", strconv.Itoa(events)}, gen...)
	b.say("writing a backlog and counting the expected results: %s", strings.Join(gen, " "))
	var said []byte
	g, both := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		said, err = b.tool(both, "gen", append([]string{"-in", l.topic, "-by", categoryKeyed, "-parts", strconv.Itoa(partitions)}, gen...)...)
		return err
	})
	g.Go(func() (err error) {
		l.want, err = b.expect(both, gen)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	told := expected.FindSubmatch(said)
	if told == nil {
		return nil, fmt.Errorf("the generator does not say how many results it expects: %s", said)
	}
	if strconv.Itoa(len(l.want)) != string(told[1]) {
		return nil, fmt.Errorf("the reference's rules give %d results, but its generator expects %s", len(l.want), told[1])
	}
	return l, nil
}

// expect lets the reference count its load by its own rules.
func (b *bench) expect(ctx context.Context, gen []string) (map[pair]int64, error) {
	csv := b.file("load.csv")
	defer os.Remove(csv)
	if _, err := b.tool(ctx, "gen", append([]string{"-csv", csv}, gen...)...); err != nil {
		return nil, err
	}
	said, err := b.tool(ctx, "ref", "-csv", csv)
	if err != nil {
		return nil, err
	}
	want := make(map[pair]int64)
	for lines := bufio.NewScanner(bytes.NewReader(said)); lines.Scan(); {
		r, err := parseResult(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("expected results: %w", err)
		}
		want[r.pair] = r.count
	}
	return want, nil
}

// tool runs a command of the reference's program and returns what it printed.
func (b *bench) tool(ctx context.Context, command string, args ...string) ([]byte, error) {
	args = append([]string{command, "-brokers", strings.Join(b.kafka.Brokers, ",")}, args...)
	cmd := exec.CommandContext(ctx, b.reference, args...)
	cmd.Dir = b.tmp
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("reference %s: %w: %s", command, err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// result is what all systems write: the reference's systems one for each window, spate alerts with the same members.
type result struct {
	pair
	count  int64
	opened bool // not final
	other  bool // of another rule than burst
}

func parseResult(value []byte) (result, error) {
	var r struct {
		User  int64  `json:"user_id"`
		Start string `json:"window_start"`
		Count int64  `json:"num_actions_per_watermark"`
		State string `json:"state"` // spate alone, as is the rule
		Rule  string `json:"rule"`
	}
	if err := json.Unmarshal(value, &r); err != nil {
		return result{}, fmt.Errorf("result %q: %w", value, err)
	}
	if r.Rule != "" && r.Rule != "burst" {
		return result{other: true}, nil
	}
	start, err := time.Parse("2006-01-02T15:04:05", strings.TrimSuffix(r.Start, "Z"))
	if err != nil {
		return result{}, fmt.Errorf("result %q: %w", value, err)
	}
	return result{pair{r.User, start.UnixMilli()}, r.Count, r.State == "opened", false}, nil
}

// scanEvent finds user and time in an event of ours or of the reference's generator.
func scanEvent(value []byte) (user, tsMS int64, err error) {
	_, rest, _ := bytes.Cut(value, []byte(`"user_id": `))
	digits, rest, _ := bytes.Cut(rest, []byte(","))
	if user, err = strconv.ParseInt(string(digits), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("event %q: user: %w", value, err)
	}
	_, rest, _ = bytes.Cut(rest, []byte(`"txn_timestamp": "`))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	at, err := time.Parse("2006-01-02T15:04:05.000", string(text))
	if err != nil {
		return 0, 0, fmt.Errorf("event %q: time: %w", value, err)
	}
	return user, at.UnixMilli(), nil
}
