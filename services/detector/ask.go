package detector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/kafka"
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
	sh, n := d.shards.Load(), d.keyed.Load()
	if sh == nil || n == 0 {
		return User{}, ErrNotOwner
	}
	p := kafka.PartitionFor([]byte(token), n)
	s := sh.get(p)
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
		if pane.Count > d.cfg.Threshold {
			w.AlertID = alert.ID(alert.Burst, token, pane.StartMS, pane.SizeMS)
		}
		u.Windows = append(u.Windows, w)
	}
	return u, nil
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

// clientID carries the address of the user pages; the group's description shows it to everyone who asks.
const clientPrefix = "spate-detector@"

func clientID(address string) string { return clientPrefix + address }

// Ask finds the owner of a user, as a person writes it, in the detectors' consumer group, and asks it. It tries again for some seconds
// while a rebalance is under way.
func Ask(ctx context.Context, cfg kafka.Config, names kafka.Names, id string) ([]User, error) {
	cl, err := kgo.NewClient(cfg.Options()...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var out []User
	for _, token := range activity.UserToken(id) {
		u, err := askToken(ctx, kadm.NewClient(cl), names, token)
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

func askToken(ctx context.Context, adm *kadm.Client, names kafka.Names, token string) (User, error) {
	for {
		u, err := askOwner(ctx, adm, names, token)
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

func askOwner(ctx context.Context, adm *kadm.Client, names kafka.Names, token string) (User, error) {
	found, err := adm.ListTopics(ctx, names.Keyed)
	if err != nil {
		return User{}, fmt.Errorf("list topic %s: %w", names.Keyed, err)
	}
	n := int32(len(found[names.Keyed].Partitions))
	if n == 0 {
		return User{}, fmt.Errorf("topic %s does not exist: no detector has run here yet; start one with `spate up` or `spate detect`", names.Keyed)
	}
	p := kafka.PartitionFor([]byte(token), n)
	groups, err := adm.DescribeGroups(ctx, names.DetectorGroup)
	if err != nil {
		return User{}, fmt.Errorf("describe group %s: %w", names.DetectorGroup, err)
	}
	for _, m := range groups[names.DetectorGroup].Members {
		as, ok := m.Assigned.AsConsumer()
		address, ours := strings.CutPrefix(m.ClientID, clientPrefix)
		if !ok || !ours {
			continue
		}
		for _, t := range as.Topics {
			for _, q := range t.Partitions {
				if t.Topic == names.Keyed && q == p {
					return get(ctx, address, token)
				}
			}
		}
	}
	return User{}, fmt.Errorf("partition %d of %s: %w", p, names.Keyed, ErrNotOwner)
}

func get(ctx context.Context, address, token string) (User, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+usersPath+url.PathEscape(token), nil)
	if err != nil {
		return User{}, fmt.Errorf("ask %s: %w", address, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return User{}, fmt.Errorf("ask the owner of the user: %w (is its address, set by SPATE_ADVERTISE, reachable from here?)", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return User{}, fmt.Errorf("ask %s: %w", address, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusMisdirectedRequest:
		return User{}, fmt.Errorf("ask %s: %w", address, ErrNotOwner)
	default:
		return User{}, fmt.Errorf("ask %s: status %s", address, strconv.Itoa(resp.StatusCode))
	}
	var u User
	if err := json.Unmarshal(body, &u); err != nil {
		return User{}, fmt.Errorf("ask %s: %w", address, err)
	}
	return u, nil
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
