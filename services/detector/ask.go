package detector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
)

// Key is what a detector knows of one key of the rules, such as a user.
type Key struct {
	Token     json.RawMessage `json:"token"` // its JSON, or a JSON array if the key has several columns
	Partition int32           `json:"partition"`
	// Watermark is the time up to which windows are closed; null until every source partition has spoken.
	Watermark *time.Time `json:"watermark"`
	// Windows are those that have not ended, by end and rule: of each rule, the 100 that end first. More is how many a rule has beyond those.
	Windows []KeyWindow    `json:"windows"`
	More    map[string]int `json:"more,omitempty"`
}

// KeyWindow is a window of a key that has not ended, as it is now.
type KeyWindow struct {
	Rule         string `json:"rule"`
	RuleRevision int64  `json:"rule_revision,omitempty"` // which brought the rule
	Mode         string `json:"mode,omitempty"`          // alert.Shadow or empty
	// Key has the key by column, Columns the rule's columns, if it is a rule of a file.
	Key     json.RawMessage `json:"key,omitempty"`
	Columns json.RawMessage `json:"columns,omitempty"`
	AtLeast bool            `json:"at_least,omitempty"` // some column is a lower bound
	// AlertID is set if the window has an alert already. Without one, Holds reports whether it will have one if nothing changes until it ends.
	AlertID      string    `json:"alert_id,omitempty"`
	Holds        bool      `json:"holds"`
	Critical     bool      `json:"critical"`
	WindowStart  time.Time `json:"window_start"`
	WindowEnd    time.Time `json:"window_end"`
	Count        int64     `json:"count"` // of its events
	FirstEventAt time.Time `json:"first_event_at"`
	LastEventAt  time.Time `json:"last_event_at"`
}

// keysPath is where a detector answers for its keys.
const keysPath = "/keys/"

// faultsPath is where a detector says what its rules could not compute.
const faultsPath = "/faults"

// mostWindows bounds the windows of one rule in an answer: those of a window that hops are many.
const mostWindows = 100

// ErrNotOwner means that the key's partition is another detector's, or nobody's at the moment, or was taken over and is being read again.
var ErrNotOwner = errors.New("this detector does not own the key's partition")

// Lookup returns the present windows of a key, given as canonical JSON token.
func (d *Detector) Lookup(token string) (Key, error) {
	partitions, n := d.partitions.Load(), d.keyed.Load()
	if partitions == nil || n == 0 {
		return Key{}, ErrNotOwner
	}
	p := kafka.PartitionFor([]byte(token), n)
	s := partitions.get(p)
	if s == nil {
		return Key{}, ErrNotOwner
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready || !s.caughtUp {
		return Key{}, ErrNotOwner
	}
	k := Key{Token: json.RawMessage(token), Partition: p, Windows: []KeyWindow{}}
	if w := s.table.Stats().WatermarkMS; w != window.NoTime && w != window.EndOfTime {
		t := at(w)
		k.Watermark = &t
	}
	teller := d.rules.Load().now().teller
	windows, more := s.table.Windows(token, mostWindows)
	for _, w := range windows {
		r := teller.Record(window.Verdict{Rule: w.Rule, Key: token, Pane: w.Pane, Columns: w.Columns, AtLeast: w.AtLeast})
		kw := KeyWindow{
			Rule: r.Rule, RuleRevision: r.RuleRevision, Mode: r.Mode, Key: r.Key, Columns: r.Columns, AtLeast: r.AtLeast, Holds: w.Holds, Critical: w.Critical,
			WindowStart: r.WindowStart, WindowEnd: r.WindowEnd, Count: r.Count, FirstEventAt: r.FirstEventAt, LastEventAt: r.LastEventAt,
		}
		if w.Opened {
			kw.AlertID = r.ID
		}
		k.Windows = append(k.Windows, kw)
	}
	for rule, n := range more {
		if k.More == nil {
			k.More = map[string]int{}
		}
		k.More[teller.Rule(window.Verdict{Rule: rule})] += n
	}
	return k, nil
}

// Handlers are the pages that others ask: GET /keys/{token} answers 200 with a Key, or 421 if the partition is not owned here; GET /faults answers
// 200 with the faults of each rule.
func (d *Detector) Handlers() map[string]http.Handler {
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false) // the token stays as it is
		_ = enc.Encode(v)        // the status line is out: an error here is the client's going away
	}
	return map[string]http.Handler{
		"GET " + keysPath + "{token}": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			k, err := d.Lookup(r.PathValue("token"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusMisdirectedRequest)
				return
			}
			answer(w, k)
		}),
		"GET " + faultsPath: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, tables{&d.partitions, &d.rules}.faults(true)) }),
	}
}

// The client id carries the address of the pages of keys; the group's description shows it to everyone who asks.
const (
	clientPrefix    = "spate-detector@"
	clientPrefixTLS = "spate-detector-tls@" // where they are asked with TLS
)

func clientID(address string, tls bool) string {
	if tls {
		return clientPrefixTLS + address
	}
	return clientPrefix + address
}

// Ask finds the owner of each key in the detectors' consumer group, and asks it as asker says. It tries again for some seconds while a rebalance is
// under way. Keys are canonical JSON tokens.
func Ask(ctx context.Context, cfg kafka.Config, names kafka.Names, asker ops.Asker, tokens ...string) ([]Key, error) {
	cl, err := kgo.NewClient(cfg.Options()...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var out []Key
	for _, token := range tokens {
		k, err := askToken(ctx, kadm.NewClient(cl), names, asker, token)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func askToken(ctx context.Context, adm *kadm.Client, names kafka.Names, asker ops.Asker, token string) (Key, error) {
	for {
		k, err := askOwner(ctx, adm, names, asker, token)
		if err == nil || !errors.Is(err, ErrNotOwner) {
			return k, err
		}
		t := time.NewTimer(250 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return Key{}, err
		case <-t.C:
		}
	}
}

func askOwner(ctx context.Context, adm *kadm.Client, names kafka.Names, asker ops.Asker, token string) (Key, error) {
	found, err := adm.ListTopics(ctx, names.Keyed)
	if err != nil {
		return Key{}, fmt.Errorf("list topic %s (SPATE_BROKERS, --brokers): %w", names.Keyed, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "topic", Name: names.Keyed}))
	}
	if err := found[names.Keyed].Err; errors.Is(err, kerr.TopicAuthorizationFailed) {
		return Key{}, fmt.Errorf("list topic %s: %w", names.Keyed, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "topic", Name: names.Keyed}))
	}
	n := int32(len(found[names.Keyed].Partitions))
	if n == 0 {
		return Key{}, fmt.Errorf("topic %s does not exist, because no detector has run here yet; start one with `spate up` or `spate detect`", names.Keyed)
	}
	p := kafka.PartitionFor([]byte(token), n)
	all, err := members(ctx, adm, names)
	if err != nil {
		return Key{}, err
	}
	for _, m := range all {
		as, ok := m.Assigned.AsConsumer()
		if !ok {
			continue
		}
		for _, t := range as.Topics {
			for _, q := range t.Partitions {
				if t.Topic != names.Keyed || q != p {
					continue
				}
				address, ok := addressOf(m.ClientID)
				if !ok {
					return Key{}, fmt.Errorf("partition %d of %s is assigned to a member of group %s that is not a detector of this version: client ID %.200q", p, names.Keyed, names.DetectorGroup, m.ClientID)
				}
				body, err := get(ctx, asker, address, keysPath+url.PathEscape(token))
				if err != nil {
					return Key{}, err
				}
				k, err := parseKey(body, token)
				if err != nil {
					return Key{}, fmt.Errorf("query %s: not a detector's response: %w", address, err)
				}
				return k, nil
			}
		}
	}
	return Key{}, fmt.Errorf("partition %d of %s: %w", p, names.Keyed, ErrNotOwner)
}

// members are those of the detectors' group.
func members(ctx context.Context, adm *kadm.Client, names kafka.Names) ([]kadm.DescribedGroupMember, error) {
	groups, err := adm.DescribeGroups(ctx, names.DetectorGroup)
	if err != nil {
		return nil, fmt.Errorf("describe group %s: %w", names.DetectorGroup, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "group", Name: names.DetectorGroup}))
	}
	all := groups[names.DetectorGroup].Members
	if len(all) == 0 {
		return nil, fmt.Errorf("no detector is running: group %s has no members; start one with `spate up` or `spate detect`", names.DetectorGroup)
	}
	return all, nil
}

// AskFaults asks all detectors what each rule in force could not compute in the partitions that they have, since they took them over. silent is how many of
// them have not answered.
func AskFaults(ctx context.Context, cfg kafka.Config, names kafka.Names, asker ops.Asker) (faults map[string]int64, silent int, err error) {
	cl, err := kgo.NewClient(cfg.Options()...)
	if err != nil {
		return nil, 0, fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, faultsTimeout)
	defer cancel()
	all, err := members(ctx, kadm.NewClient(cl), names)
	if err != nil {
		return nil, 0, err
	}
	answers := make([]map[string]int64, len(all))
	var wg sync.WaitGroup
	for i, m := range all {
		wg.Go(func() {
			address, ok := addressOf(m.ClientID)
			if !ok {
				return
			}
			var answer map[string]int64
			if body, err := get(ctx, asker, address, faultsPath); err == nil && len(body) <= maxAnswer && json.Unmarshal(body, &answer) == nil {
				answers[i] = answer
			}
		})
	}
	wg.Wait()
	faults = map[string]int64{}
	for _, answer := range answers {
		if answer == nil {
			silent++
		}
		for rule, n := range answer {
			faults[rule] += max(0, n) // whoever answers says what they like
		}
	}
	return faults, silent, nil
}

// faultsTimeout bounds how long a list of rules waits for the detectors.
const faultsTimeout = 2 * time.Second

// addressOf returns the address in a client id. Whoever may join the group says there what they like, so that nothing of it is believed but
// a host and a port: no path, no user, no query. Who asks sends that member a key, and takes nothing from it but an answer's form.
func addressOf(clientID string) (string, bool) {
	scheme := "http://"
	address, ours := strings.CutPrefix(clientID, clientPrefix)
	if !ours {
		scheme = "https://"
		address, ours = strings.CutPrefix(clientID, clientPrefixTLS)
	}
	host, port, err := net.SplitHostPort(address)
	if !ours || err != nil || !hostForm.MatchString(host) {
		return "", false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", false
	}
	return scheme + address, true
}

// hostForm is that of names, IPv4 and IPv6 addresses.
var hostForm = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45})$`)

const (
	maxAnswer     = 1 << 20 // bytes
	answerTimeout = 5 * time.Second
)

// get asks a detector. The address is whatever a member of the group says: with authorities of its own, the asker believes those only whom they vouch
// for.
func get(ctx context.Context, asker ops.Asker, address, page string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+page, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", address, err)
	}
	client, err := asker.Client()
	// A member of the group says where to ask, and says what it likes: only a certificate of the asker's own authorities makes it one to trust a
	// token to.
	if token, terr := asker.Access.ReadToken(); err == nil && terr == nil && token != "" && asker.CAFile == "" {
		err = errors.New("the token is sent only to a detector whose certificate is verified with SPATE_HTTP_TLS_CA_FILE (--http-tls-ca-file), which is not set")
	}
	if err == nil {
		err = asker.Sign(req)
	}
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", address, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("query the detector: %w (is its address, set by SPATE_ADVERTISE, reachable from here?)", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusMisdirectedRequest:
		return nil, fmt.Errorf("query %s: %w", address, ErrNotOwner)
	case http.StatusUnauthorized:
		return nil, fmt.Errorf("query %s: a token is required: set SPATE_HTTP_TOKEN or SPATE_HTTP_TOKEN_FILE to the detectors' value", address)
	default:
		return nil, fmt.Errorf("query %s: status %d", address, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", address, err)
	}
	return body, nil
}

// parseKey reads an answer, which has to be about the key that was asked for.
func parseKey(body []byte, token string) (Key, error) {
	if len(body) > maxAnswer {
		return Key{}, fmt.Errorf("response is larger than %d bytes", maxAnswer)
	}
	var k Key
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&k); err != nil {
		return Key{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Key{}, errors.New("unexpected data after the response")
	}
	if string(k.Token) != token {
		return Key{}, errors.New("response is about a different key")
	}
	for _, w := range k.Windows {
		if w.AlertID != "" && w.AlertID != alert.ID(w.Rule, token, w.WindowStart.UnixMilli(), w.WindowEnd.Sub(w.WindowStart).Milliseconds()) {
			return Key{}, errors.New("an alert ID does not match its window")
		}
	}
	return k, nil
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
