package lease

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/aws/cloud"
)

var (
	// ErrLost: somebody else may hold the lease by now. Whoever gets this must stop acting.
	ErrLost = errors.New("lease lost")
	// ErrNoTable: the table does not exist.
	ErrNoTable = errors.New("table does not exist")
)

// API is what a lease needs of *dynamodb.Client.
type API interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
}

// Bounds of a lease's duration.
const (
	MinDuration     = time.Second
	MaxDuration     = 10 * time.Minute
	DefaultDuration = 10 * time.Second
)

// MaxState bounds a state, bytes: an item has room for 400 KB.
const MaxState = 380 << 10

// Lease is what to hold, and how.
type Lease struct {
	API   API
	Table string
	Key   string // what the lease is for
	Owner string // this process, for people
	// Duration within which a standby takes over from a holder that has died. All processes must have the same.
	Duration time.Duration
	Log      *slog.Logger
	// Waiting, if not nil, is told who holds the lease while this process waits for it.
	Waiting func(owner string)
}

// item is what is stored.
type item struct {
	epoch, beat, saves int64
	leaseMS            int64 // 0: of an earlier version
	owner, takenBy     string
	released           bool
	state              []byte
}

// Acquire waits until the lease is this process's.
func (l Lease) Acquire(ctx context.Context) (*Held, error) {
	tick := time.NewTicker(max(l.Duration/20, 20*time.Millisecond))
	defer tick.Stop()
	var seen item
	var since time.Time // when seen was first seen
	for {
		rctx, cancel := l.bounded(ctx)
		it, err := l.read(rctx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, ErrNoTable):
			return nil, err
		case err != nil:
			l.Log.Warn("cannot read the lease, retrying", "error", err)
			since = time.Time{} // it may have moved unseen
		default:
			now := time.Now()
			if since.IsZero() || it.epoch != seen.epoch || it.beat != seen.beat || it.saves != seen.saves {
				if since.IsZero() || it.owner != seen.owner {
					l.waiting(it)
				}
				seen, since = it, now
			}
			if it.epoch == 0 || it.released || now.Sub(since) >= l.Duration*8/10 {
				h, err := l.take(ctx, it)
				if h != nil || ctx.Err() != nil {
					return h, err
				}
				if err != nil {
					l.Log.Warn("cannot take the lease, retrying", "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// Used reports whether a process holds the lease, or one has left a state.
func (l Lease) Used(ctx context.Context) (bool, error) {
	it, err := l.read(ctx)
	return it.state != nil || it.epoch > 0 && !it.released, err
}

// State returns what the last holder has saved; nil if nobody ever did. Whoever calls it need not hold the lease.
func (l Lease) State(ctx context.Context) ([]byte, error) {
	it, err := l.read(ctx)
	return it.state, err
}

// View is how a lease is at a moment, for those who only look.
type View struct {
	Epoch    int64  // 0: nobody has ever held it
	Owner    string // the last one
	Beat     int64  // grows while the holder is alive, within the duration
	Duration time.Duration
	Released bool // the holder has shut down cleanly
	State    []byte
}

// Look returns how the lease is.
func (l Lease) Look(ctx context.Context) (View, error) {
	it, err := l.read(ctx)
	v := View{Epoch: it.epoch, Owner: it.owner, Beat: it.beat, Duration: time.Duration(it.leaseMS) * time.Millisecond, Released: it.released, State: it.state}
	if v.Duration == 0 {
		v.Duration = DefaultDuration
	}
	return v, err
}

// bounded gives a call its time, so that a connection that has gone silent does not end the waiting for the lease.
func (l Lease) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.Duration/2)
}

func (l Lease) waiting(it item) {
	if l.Waiting != nil && it.epoch > 0 && !it.released {
		l.Waiting(it.owner)
	}
}

// take makes the lease ours, if it has not moved since it was seen. Without an error and a lease, somebody was faster.
func (l Lease) take(ctx context.Context, seen item) (*Held, error) {
	began := time.Now()
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	by := rand.Text() // of this attempt alone: owners may have the same name
	values := map[string]types.AttributeValue{
		":epoch": number(seen.epoch), ":beat": number(seen.beat), ":saves": number(seen.saves),
		":next": number(seen.epoch + 1), ":owner": &types.AttributeValueMemberS{Value: l.Owner}, ":by": &types.AttributeValueMemberS{Value: by},
		":no": &types.AttributeValueMemberBOOL{Value: false}, ":duration": number(l.Duration.Milliseconds()),
	}
	condition := "epoch = :epoch AND beat = :beat AND saves = :saves"
	if seen.epoch == 0 {
		condition = "attribute_not_exists(pk)"
		delete(values, ":epoch")
	}
	err := l.update(ctx, "SET epoch = :next, #owner = :owner, taken_by = :by, beat = :beat, saves = :saves, released = :no, lease_ms = :duration", condition, values, map[string]string{"#owner": "owner"})
	if isRefused(err) {
		// Another one's, or ours with the answer lost.
		it, rerr := l.read(ctx)
		if rerr != nil || it.epoch != seen.epoch+1 || it.takenBy != by {
			return nil, rerr
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	l.Log.Info("lease taken", "lease", l.Key, "owner", l.Owner, "epoch", seen.epoch+1, "from", seen.owner)
	return &Held{l: l, epoch: seen.epoch + 1, saves: seen.saves, state: seen.state, until: began.Add(l.Duration * 6 / 10)}, nil
}

// Held is a lease that this process holds, or held.
type Held struct {
	l     Lease
	epoch int64
	saves int64
	state []byte

	mu    sync.Mutex
	until time.Time
	lost  bool
}

// State is what the holder before has saved last; nil is nothing.
func (h *Held) State() []byte { return h.state }

// Epoch is the fencing token.
func (h *Held) Epoch() int64 { return h.epoch }

// Valid returns ErrLost if somebody else may hold the lease by now.
func (h *Held) Valid() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.lost:
		return ErrLost
	case time.Now().After(h.until):
		return fmt.Errorf("%w: it was not renewed in time", ErrLost)
	}
	return nil
}

func (h *Held) setLost() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	return ErrLost
}

// Keep renews the lease until ctx ends or it is lost.
func (h *Held) Keep(ctx context.Context) error {
	tick := time.NewTicker(h.l.Duration / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		began := time.Now()
		tctx, cancel := context.WithTimeout(ctx, h.l.Duration/5)
		err := h.l.update(tctx, "SET beat = beat + :one", "epoch = :epoch",
			map[string]types.AttributeValue{":one": number(1), ":epoch": number(h.epoch)}, nil)
		cancel()
		switch {
		case isRefused(err):
			return h.setLost()
		case err == nil:
			h.mu.Lock()
			h.until = began.Add(h.l.Duration * 6 / 10)
			h.mu.Unlock()
		case ctx.Err() == nil:
			h.l.Log.Warn("cannot renew the lease, retrying", "error", err)
		}
		if err := h.Valid(); err != nil {
			return err
		}
	}
}

// Save writes the state as the successor of the last one. It tries again until it is written, the lease is lost or ctx ends; in the last
// two cases it may have been written or not.
func (h *Held) Save(ctx context.Context, state []byte) error {
	if len(state) > MaxState {
		return fmt.Errorf("save state: state is %d bytes long, but the maximum is %d", len(state), MaxState)
	}
	next := h.saves + 1
	for {
		if err := h.Valid(); err != nil {
			return err
		}
		tctx, cancel := context.WithTimeout(ctx, h.l.Duration/5)
		err := h.l.update(tctx, "SET #state = :state, saves = :next", "epoch = :epoch AND saves = :saves",
			map[string]types.AttributeValue{
				":state": &types.AttributeValueMemberB{Value: state}, ":next": number(next), ":epoch": number(h.epoch), ":saves": number(h.saves),
			}, map[string]string{"#state": "state"})
		if isRefused(err) {
			var it item
			if it, err = h.l.read(tctx); err == nil {
				switch {
				case it.epoch != h.epoch:
					err = h.setLost()
				case it.saves != next:
					cancel()
					return fmt.Errorf("save state: the item records %d saves, expected %d: another process is writing to the item", it.saves, h.saves)
				case !bytes.Equal(it.state, state): // one that was given up, and done all the same
					h.saves, next = next, next+1
					cancel()
					continue
				}
			}
		}
		cancel()
		switch {
		case err == nil:
			h.saves = next
			return nil
		case errors.Is(err, ErrLost), errors.Is(err, ErrNoTable), cloud.IsCode(err, "ValidationException", "AccessDeniedException"):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		h.l.Log.Warn("cannot save state, retrying", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(h.l.Duration/20, time.Second)):
		}
	}
}

// Release lets a standby take over at once. It is best effort: without it, the lease runs out.
func (h *Held) Release(ctx context.Context) {
	err := h.l.update(ctx, "SET released = :yes", "epoch = :epoch",
		map[string]types.AttributeValue{":yes": &types.AttributeValueMemberBOOL{Value: true}, ":epoch": number(h.epoch)}, nil)
	_ = h.setLost()
	if err != nil && !isRefused(err) {
		h.l.Log.Warn("cannot release the lease; it will expire", "error", err)
	}
}

func (l Lease) read(ctx context.Context) (item, error) {
	out, err := l.API.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String(l.Table), ConsistentRead: aws.Bool(true), Key: l.key()})
	if err != nil {
		return item{}, fmt.Errorf("read lease in table %s: %w", l.Table, tableError(err))
	}
	var it item
	for name, to := range map[string]*int64{"epoch": &it.epoch, "beat": &it.beat, "saves": &it.saves, "lease_ms": &it.leaseMS} {
		if n, ok := out.Item[name].(*types.AttributeValueMemberN); ok {
			if *to, err = strconv.ParseInt(n.Value, 10, 64); err != nil {
				return item{}, fmt.Errorf("read lease in table %s: %s: %w", l.Table, name, err)
			}
		}
	}
	for name, to := range map[string]*string{"owner": &it.owner, "taken_by": &it.takenBy} {
		if s, ok := out.Item[name].(*types.AttributeValueMemberS); ok {
			*to = s.Value
		}
	}
	if b, ok := out.Item["released"].(*types.AttributeValueMemberBOOL); ok {
		it.released = b.Value
	}
	if b, ok := out.Item["state"].(*types.AttributeValueMemberB); ok {
		it.state = b.Value
	}
	return it, nil
}

func (l Lease) update(ctx context.Context, set, condition string, values map[string]types.AttributeValue, names map[string]string) error {
	_, err := l.API.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: aws.String(l.Table), Key: l.key(), UpdateExpression: aws.String(set), ConditionExpression: aws.String(condition),
		ExpressionAttributeValues: values, ExpressionAttributeNames: names,
	})
	if err != nil {
		return fmt.Errorf("write lease in table %s: %w", l.Table, tableError(err))
	}
	return nil
}

func (l Lease) key() map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: l.Key}}
}

func tableError(err error) error {
	if cloud.IsCode(err, "ResourceNotFoundException") {
		return fmt.Errorf("%w: %w", ErrNoTable, err)
	}
	return err
}

func isRefused(err error) bool { return cloud.IsCode(err, "ConditionalCheckFailedException") }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}
