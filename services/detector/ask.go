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
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
)

// User is what a detector knows of one user.
type User struct {
	UserID    json.RawMessage `json:"user_id"`
	Partition int32           `json:"partition"`
	// Watermark is the time up to which windows are closed; null until every source partition has spoken.
	Watermark *time.Time   `json:"watermark"`
	Windows   []UserWindow `json:"windows"`
}

// UserWindow is one window of a user.
type UserWindow struct {
	AlertID      string    `json:"alert_id,omitempty"` // if the count is above the threshold
	WindowStart  time.Time `json:"window_start"`
	WindowEnd    time.Time `json:"window_end"`
	Count        int64     `json:"count"`
	FirstEventAt time.Time `json:"first_event_at"`
	LastEventAt  time.Time `json:"last_event_at"`
}

// usersPath is where a detector answers for its users.
const usersPath = "/users/"

// ErrNotOwner means that the user's partition is another detector's, or nobody's at the moment, or was taken over and is being read again.
var ErrNotOwner = errors.New("the user's partition is not owned here")

// Lookup returns the present windows of a user, given as canonical JSON token.
func (d *Detector) Lookup(token string) (User, error) {
	partitions, n := d.partitions.Load(), d.keyed.Load()
	if partitions == nil || n == 0 {
		return User{}, ErrNotOwner
	}
	p := kafka.PartitionFor([]byte(token), n)
	s := partitions.get(p)
	if s == nil {
		return User{}, ErrNotOwner
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready || !s.caughtUp {
		return User{}, ErrNotOwner
	}
	u := User{UserID: json.RawMessage(token), Partition: p, Windows: []UserWindow{}}
	if w := s.table.Stats().WatermarkMS; w != window.NoTime && w != window.EndOfTime {
		t := at(w)
		u.Watermark = &t
	}
	for _, pane := range s.table.Lookup(token) {
		w := UserWindow{WindowStart: at(pane.StartMS), WindowEnd: at(pane.EndMS()), Count: pane.Count, FirstEventAt: at(pane.FirstMS), LastEventAt: at(pane.LastMS)}
		if threshold, ok := d.threshold(); ok && pane.Count > threshold {
			w.AlertID = alert.ID(alert.Burst, token, pane.StartMS, pane.SizeMS)
		}
		u.Windows = append(u.Windows, w)
	}
	return u, nil
}

// threshold is that of the rule without a rules file. With other rules, a pane is not a window, and has no alert of its own.
func (d *Detector) threshold() (int64, bool) {
	plan := d.rules.Load().now().plan
	if len(plan.Rules) != 1 {
		return 0, false
	}
	return plan.Rules[0].Threshold()
}

// Handler answers GET /users/{token}: 200 with a User, 421 if the partition is not owned here.
func (d *Detector) Handler() (pattern string, h http.Handler) {
	return "GET " + usersPath + "{token}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := d.Lookup(r.PathValue("token"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusMisdirectedRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// The status line is out: an error here is the client's going away.
		_ = json.NewEncoder(w).Encode(u)
	})
}

// The client id carries the address of the user pages; the group's description shows it to everyone who asks.
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

// Ask finds the owner of a user, as a person writes it, in the detectors' consumer group, and asks it as asker says. It tries again for some
// seconds while a rebalance is under way.
func Ask(ctx context.Context, cfg kafka.Config, names kafka.Names, asker ops.Asker, id string) ([]User, error) {
	cl, err := kgo.NewClient(cfg.Options()...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var out []User
	for _, token := range activity.UserToken(id) {
		u, err := askToken(ctx, kadm.NewClient(cl), names, asker, token)
		if err != nil {
			return nil, err
		}
		if len(u.Windows) > 0 || len(out) == 0 {
			out = append(out, u)
		}
	}
	if len(out) > 1 && len(out[0].Windows) == 0 {
		out = out[1:]
	}
	return out, nil
}

func askToken(ctx context.Context, adm *kadm.Client, names kafka.Names, asker ops.Asker, token string) (User, error) {
	for {
		u, err := askOwner(ctx, adm, names, asker, token)
		if err == nil || !errors.Is(err, ErrNotOwner) {
			return u, err
		}
		t := time.NewTimer(250 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return User{}, err
		case <-t.C:
		}
	}
}

func askOwner(ctx context.Context, adm *kadm.Client, names kafka.Names, asker ops.Asker, token string) (User, error) {
	found, err := adm.ListTopics(ctx, names.Keyed)
	if err != nil {
		return User{}, fmt.Errorf("list topic %s (SPATE_BROKERS, --brokers): %w", names.Keyed, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "topic", Name: names.Keyed}))
	}
	if err := found[names.Keyed].Err; errors.Is(err, kerr.TopicAuthorizationFailed) {
		return User{}, fmt.Errorf("list topic %s: %w", names.Keyed, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "topic", Name: names.Keyed}))
	}
	n := int32(len(found[names.Keyed].Partitions))
	if n == 0 {
		return User{}, fmt.Errorf("topic %s does not exist, because no detector has run here yet; start one with `spate up` or `spate detect`", names.Keyed)
	}
	p := kafka.PartitionFor([]byte(token), n)
	groups, err := adm.DescribeGroups(ctx, names.DetectorGroup)
	if err != nil {
		return User{}, fmt.Errorf("describe group %s: %w", names.DetectorGroup, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "group", Name: names.DetectorGroup}))
	}
	if len(groups[names.DetectorGroup].Members) == 0 {
		return User{}, fmt.Errorf("no detector is running: group %s has no members; start one with `spate up` or `spate detect`", names.DetectorGroup)
	}
	for _, m := range groups[names.DetectorGroup].Members {
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
					return User{}, fmt.Errorf("partition %d of %s is assigned to a member of group %s that is not a detector of this version: client id %.200q", p, names.Keyed, names.DetectorGroup, m.ClientID)
				}
				return get(ctx, asker, address, token)
			}
		}
	}
	return User{}, fmt.Errorf("partition %d of %s: %w", p, names.Keyed, ErrNotOwner)
}

// addressOf returns the address in a client id. Whoever may join the group says there what they like, so that nothing of it is believed but
// a host and a port: no path, no user, no query. Who asks sends that member a user's name, and takes nothing from it but an answer's form.
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
func get(ctx context.Context, asker ops.Asker, address, token string) (User, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+usersPath+url.PathEscape(token), http.NoBody)
	if err != nil {
		return User{}, fmt.Errorf("query %s: %w", address, err)
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
		return User{}, fmt.Errorf("query %s: %w", address, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return User{}, fmt.Errorf("query the user's detector: %w (is its address, set by SPATE_ADVERTISE, reachable from here?)", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusMisdirectedRequest:
		return User{}, fmt.Errorf("query %s: %w", address, ErrNotOwner)
	case http.StatusUnauthorized:
		return User{}, fmt.Errorf("query %s: a token is required: set SPATE_HTTP_TOKEN or SPATE_HTTP_TOKEN_FILE to the detectors' value", address)
	default:
		return User{}, fmt.Errorf("query %s: status %d", address, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return User{}, fmt.Errorf("query %s: %w", address, err)
	}
	u, err := parseUser(body, token)
	if err != nil {
		return User{}, fmt.Errorf("query %s: not a detector's response: %w", address, err)
	}
	return u, nil
}

// parseUser reads an answer, which has to be about the user who was asked for.
func parseUser(body []byte, token string) (User, error) {
	if len(body) > maxAnswer {
		return User{}, fmt.Errorf("response is larger than %d bytes", maxAnswer)
	}
	var u User
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&u); err != nil {
		return User{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return User{}, errors.New("unexpected data after the response")
	}
	var asked, told any
	if json.Unmarshal([]byte(token), &asked) != nil || json.Unmarshal(u.UserID, &told) != nil || asked != told {
		return User{}, errors.New("response is about a different user")
	}
	u.UserID = json.RawMessage(token)
	for _, w := range u.Windows {
		if w.AlertID != "" && w.AlertID != alert.ID(alert.Burst, token, w.WindowStart.UnixMilli(), w.WindowEnd.Sub(w.WindowStart).Milliseconds()) {
			return User{}, errors.New("an alert id does not match its window")
		}
	}
	return u, nil
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
