package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"spate/shared/aws/awstest"
	"spate/shared/aws/lease"
	"spate/shared/revision"
	"spate/shared/revision/revisiontest"
	"spate/shared/rule"
	"spate/shared/rule/syntax"
)

// bed is a table of its own.
type bed struct {
	t      *testing.T
	client *dynamodb.Client
	table  string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	client := dynamodb.NewFromConfig(awstest.Config(awstest.DynamoDB(t)))
	return &bed{t, client, awstest.StateTable(t, client)}
}

// unread is a reader that has read nothing.
func (b *bed) unread(api lease.API) *Reader {
	b.t.Helper()
	initial, err := rule.Burst(10*time.Second, 5, 10)
	if err != nil {
		b.t.Fatal(err)
	}
	return NewReader(api, b.table, "events", initial)
}

// reader has read what there is.
func (b *bed) reader() *Reader {
	b.t.Helper()
	r := b.unread(b.client)
	if _, err := r.Look(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// faults stands between a reader and the table. A hook that is nil does nothing; an error of before keeps the write from being made, of after takes its
// answer away.
type faults struct {
	*dynamodb.Client
	before, after func(ctx context.Context) error
}

func (f *faults) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	if f.before != nil {
		if err := f.before(ctx); err != nil {
			return nil, err
		}
	}
	out, err := f.Client.UpdateItem(ctx, in, opts...)
	if err == nil && f.after != nil {
		err = f.after(ctx)
	}
	return out, err
}

func TestAppendAndLook(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one, two := b.reader(), b.reader()
	e, err := one.Append(t.Context(), revision.Record{Source: revisiontest.Source(1), Beginning: true, MaxAheadMS: 1000, Author: "ann"})
	if at := time.UnixMilli(e.AtMS); err != nil || e.Revision != 1 || e.BoundaryMS != 0 || at.Before(time.Now().Add(-time.Minute)) || at.After(time.Now()) {
		t.Fatalf("%+v, %v", e, err)
	}
	if changed, err := two.Look(t.Context()); !changed || err != nil || two.Revision() != 1 {
		t.Errorf("%v, %v", changed, err)
	}
	if changed, err := two.Look(t.Context()); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	e, err = two.Append(t.Context(), revision.Record{Source: revisiontest.Source(2), MaxAheadMS: 1000})
	if now, _ := b.reader().Newest(); err != nil || e.Revision != 2 || e.BoundaryMS != e.AtMS+revision.Margin.Milliseconds()+1000 || e.BoundaryMS != now.BoundaryMS {
		t.Errorf("%+v, %v", e, err)
	}
	// Who has not read the second one cannot write a second one.
	if _, err := one.Append(t.Context(), revision.Record{Source: revisiontest.Source(3), MaxAheadMS: 1000}); !errors.Is(err, revision.ErrOvertaken) || one.Revision() != 2 {
		t.Errorf("revision %d, %v", one.Revision(), err)
	}
	// Rules that nobody can evaluate are not written.
	if _, err := one.Append(t.Context(), revision.Record{Source: revision.Source{Name: "a", Text: "SELECT 1"}}); err == nil || b.reader().Revision() != 2 {
		t.Error(err)
	}
	// Those of another stream are others.
	other := NewReader(b.client, b.table, "events#1", &rule.Set{})
	if changed, err := other.Look(t.Context()); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
}

// TestAppendAtOnce: of several that are applied at the same time, one is the next revision. The others are told, and can try again.
func TestAppendAtOnce(t *testing.T) {
	t.Parallel()
	if _, ignored := revisiontest.AtOnce(t, newBed(t).reader); ignored > 0 {
		t.Errorf("%d items are ignored", ignored)
	}
}

// TestTableIsAway: the rules are applied or not, and who applied them is told which.
func TestTableIsAway(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	away := errors.New("away")
	f := &faults{Client: b.client}
	apply := func(more int) (revision.Entry, error) {
		r := b.unread(f)
		if _, err := r.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r.Append(t.Context(), revision.Record{Source: revisiontest.Source(more)})
	}
	f.before = func(context.Context) error { return away }
	if _, err := apply(1); !errors.Is(err, away) || !strings.Contains(err.Error(), "write revision 1 to table "+b.table) || b.reader().Revision() != 0 {
		t.Error(err)
	}
	f.before, f.after = nil, func(context.Context) error { return away } // only the answer is lost
	if e, err := apply(1); err != nil || e.Revision != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	// The client tries again what has been done.
	f.after = nil
	f.before = func(ctx context.Context) error {
		f.before = nil
		other := b.unread(f.Client)
		if _, err := other.Look(ctx); err != nil {
			return err
		}
		_, err := other.Append(ctx, revision.Record{Source: revisiontest.Source(2)})
		return err
	}
	if e, err := apply(2); err != nil || e.Revision != 2 {
		t.Errorf("%+v, %v", e, err)
	}

	cfg := awstest.Config("http://127.0.0.1:1")
	cfg.RetryMaxAttempts = 1
	r := b.unread(dynamodb.NewFromConfig(cfg))
	if _, err := r.Look(t.Context()); err == nil || !strings.Contains(err.Error(), "read the rules from table "+b.table) {
		t.Error(err)
	}
	if _, err := r.Append(t.Context(), revision.Record{Source: revisiontest.Source(1)}); err == nil || !strings.Contains(err.Error(), "revision 1 was not applied") {
		t.Error(err)
	}
	missing := NewReader(b.client, b.table+"-missing", "events", &rule.Set{})
	if _, err := missing.Look(t.Context()); !errors.Is(err, lease.ErrNoTable) || !strings.Contains(err.Error(), "spate aws setup") {
		t.Error(err)
	}
}

// dated changes the time that the table has on its clock.
type dated struct{ change func(http.Header) }

func (d dated) Do(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		d.change(resp.Header)
	}
	return resp, err
}

// TestClock: the append time is that of the table's clock. If this machine's differs, nothing is written.
func TestClock(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, c := range []struct {
		change func(http.Header)
		err    string
	}{
		{func(h http.Header) { h.Del("Date") }, "have no Date header"},
		{shift(time.Minute), "set the clock (NTP) and apply the rules again"},
		{shift(-time.Minute), "set the clock (NTP) and apply the rules again"},
		{shift(5 * time.Second), ""},
	} {
		cfg := awstest.Config(awstest.DynamoDB(t))
		cfg.HTTPClient = dated{c.change}
		e, err := b.unread(dynamodb.NewFromConfig(cfg)).Append(t.Context(), revision.Record{Source: revisiontest.Source(1)})
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v, want %q", err, c.err)
		}
		if ahead := time.Until(time.UnixMilli(e.AtMS)); err == nil && (ahead < time.Second || ahead > 5*time.Second) {
			t.Errorf("appended %v from now", ahead)
		}
	}
}

func shift(by time.Duration) func(http.Header) {
	return func(h http.Header) {
		at, err := http.ParseTime(h.Get("Date"))
		if err != nil {
			panic(err)
		}
		h.Set("Date", at.Add(by).UTC().Format(http.TimeFormat))
	}
}

// TestLate: who writes a revision too late for its boundary is told.
func TestLate(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes ten seconds")
	}
	t.Parallel()
	b := newBed(t)
	f := &faults{Client: b.client, after: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	e, err := b.unread(f).Append(t.Context(), revision.Record{Source: revisiontest.Source(1)})
	if !errors.Is(err, revision.ErrLate) || e.Revision != 1 || !strings.Contains(err.Error(), "more than 9s") {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestLargest: a rules file of the largest size fits if it is text, and is refused with its size if it is noise.
func TestLargest(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	rng := rand.New(rand.NewPCG(1, 1))
	large := func(comment func() string) revision.Source {
		var text strings.Builder
		for text.Len() < syntax.MaxScript-1000 {
			fmt.Fprintf(&text, "-- %s\n", comment())
		}
		s := revisiontest.Source(1)
		s.Text = text.String() + s.Text
		return s
	}
	words := strings.Fields("users that look at more products than a customer would and never buy any of them but for those of the staff who test")
	prose := large(func() string { return words[rng.IntN(len(words))] + " " + words[rng.IntN(len(words))] })
	r := b.reader()
	if e, err := r.Append(t.Context(), revision.Record{Source: prose}); err != nil || !e.Same(prose) {
		t.Fatalf("%d bytes: %v", len(prose.Text), err)
	}
	if e, _ := b.reader().Newest(); cmp.Diff(prose, e.Source) != "" {
		t.Errorf("%d bytes were read, %d were written", len(e.Text), len(prose.Text))
	}
	noise := large(func() string { return fmt.Sprintf("%016x%016x", rng.Uint64(), rng.Uint64()) })
	if _, err := r.Append(t.Context(), revision.Record{Source: noise}); err == nil || !strings.Contains(err.Error(), "has room for 389120") {
		t.Error(err)
	}
}

// TestDamaged: an item that cannot be read is not passed over.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, item := range map[string]map[string]types.AttributeValue{
		"at_ms is missing":  {"record": &types.AttributeValueMemberB{Value: pack([]byte("{}"))}},
		"record is missing": {"at_ms": integer(1)},
		"record: ":          {"at_ms": integer(1), "record": &types.AttributeValueMemberB{Value: []byte("x")}},
	} {
		b := newBed(t)
		item["pk"] = &types.AttributeValueMemberS{Value: "rules#events#1"}
		if _, err := b.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(b.table), Item: item}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.unread(b.client).Look(t.Context()); err == nil || !strings.Contains(err.Error(), "item rules#events#1: "+name) {
			t.Error(err)
		}
	}
	// What is no record has no effect, as in a topic.
	b := newBed(t)
	item := map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "rules#events#1"}, "at_ms": integer(1), "record": &types.AttributeValueMemberB{Value: pack([]byte("{}"))}}
	if _, err := b.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(b.table), Item: item}); err != nil {
		t.Fatal(err)
	}
	r := b.reader()
	if e, err := r.Append(t.Context(), revision.Record{Source: revisiontest.Source(1)}); err != nil || e.Revision != 1 || len(r.Ignored()) != 1 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestBegun(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	l := lease.Lease{API: b.client, Table: b.table, Key: "worker#events", Owner: "test", Duration: lease.MinDuration, Log: slog.New(slog.DiscardHandler)}
	begun := func(want bool) {
		t.Helper()
		if got, err := l.Used(t.Context()); got != want || err != nil {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	begun(false)
	h, err := l.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begun(true)
	h.Release(t.Context())
	begun(false)
	if h, err = l.Acquire(t.Context()); err == nil {
		err = h.Save(t.Context(), []byte("{}"))
	}
	if err != nil {
		t.Fatal(err)
	}
	h.Release(t.Context())
	begun(true)
}
