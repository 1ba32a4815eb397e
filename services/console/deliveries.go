package console

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/terminal"
)

type deliveriesCommand struct {
	Ls      deliveriesLsCommand      `cmd:"" help:"List the tries to deliver messages, the newest last; or, with --pending or --only, the deliveries themselves."`
	Show    deliveriesShowCommand    `cmd:"" help:"Tell of a message: to whom it goes, every try, and what it says."`
	Resend  deliveriesResendCommand  `cmd:"" help:"Send a message again, now, whether it was delivered or not."`
	Recover deliveriesRecoverCommand `cmd:"" help:"Send now what has not got there: the messages whose tries all failed, those that wait for the next one, and those dropped while an endpoint was disabled."`
}

// deliveryStory is a delivery with its tries.
type deliveryStory struct {
	store.Delivery
	Tries []try `json:"tries"`
	// Via is the digest that it goes with.
	Via *deliveryStory `json:"via,omitempty"`
}

// try is a store.Try in the JSON form.
type try struct {
	WebhookID string         `json:"webhook_id"`
	Endpoint  string         `json:"endpoint"`
	N         int            `json:"n"`
	At        time.Time      `json:"at"`
	Status    int            `json:"status"` // HTTP status; 0 means no answer
	Outcome   notify.Outcome `json:"outcome"`
	Reason    string         `json:"reason"`
	TookMS    int64          `json:"took_ms"`
	NextAt    *time.Time     `json:"next_at"` // null: none
}

func tryOf(t store.Try) try {
	out := try{WebhookID: t.WebhookID, Endpoint: t.Endpoint, N: t.N, At: t.At, Status: t.Status, Outcome: t.Outcome, Reason: t.Reason, TookMS: t.Took.Milliseconds()}
	if !t.NextAt.IsZero() {
		out.NextAt = &t.NextAt
	}
	return out
}

// line is the try for people; names says whose it is.
func (t try) line(names string) terminal.Safe {
	status := "no answer"
	if t.Status != 0 {
		status = fmt.Sprintf("status %d", t.Status)
	}
	s := terminal.Sprintf("%s  try %d%s  %-9s  %-10s  %d ms", t.At.Format(instant), t.N, names, t.Outcome, status, t.TookMS)
	if t.Reason != "" && t.Reason != status {
		s += terminal.Sprintf("  %s", t.Reason)
	}
	if t.NextAt != nil {
		s += terminal.Sprintf("  next %s", t.NextAt.Format(instant))
	}
	return s
}

func tries(n int) string {
	if n == 1 {
		return "1 try"
	}
	return fmt.Sprintf("%d tries", n)
}

// gather reads a list to its end.
func gather[T any](list iter.Seq2[T, error]) (out []T, err error) {
	for x, err := range list {
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// deliveryStories returns what fits f with all tries, also those of the digests.
func deliveryStories(ctx context.Context, st store.Store, f store.DeliveryFilter) ([]deliveryStory, error) {
	list, err := gather(st.ListDeliveries(ctx, f))
	if err != nil {
		return nil, err
	}
	out := make([]deliveryStory, 0, len(list))
	for _, d := range list {
		s, err := storyOf(ctx, st, d)
		if err != nil {
			return nil, err
		}
		if d.State == store.Held && d.Digest != "" {
			digest, err := st.Delivery(ctx, d.Digest, d.Endpoint)
			if err == nil {
				via, err := storyOf(ctx, st, digest)
				if err != nil {
					return nil, err
				}
				via.Data = nil // of hundreds of messages
				s.Via = &via
			} else if !errors.Is(err, store.ErrNoDelivery) {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func storyOf(ctx context.Context, st store.Store, d store.Delivery) (deliveryStory, error) {
	list, err := gather(st.ListTries(ctx, store.TryFilter{WebhookID: d.WebhookID, Endpoint: d.Endpoint}))
	s := deliveryStory{Delivery: d, Tries: make([]try, len(list))}
	for i, t := range list {
		s.Tries[i] = tryOf(t)
	}
	return s, err
}

// deliveryLine is a delivery for people.
func deliveryLine(d store.Delivery) terminal.Safe {
	s := terminal.Sprintf("%s  %s to %s: %s, %s", d.CreatedAt.Format(instant), d.WebhookID, d.Endpoint, d.State, tries(d.Tries))
	if !d.NextAt.IsZero() {
		s += terminal.Sprintf(", due %s", d.NextAt.Format(instant))
	}
	if d.Digest != "" {
		s += terminal.Sprintf(", goes with %s", d.Digest)
	}
	return s
}

func (s deliveryStory) write(o *out, indent string) {
	o.printf("%s%s\n", indent, deliveryLine(s.Delivery))
	for _, t := range s.Tries {
		o.printf("%s  %s\n", indent, t.line(""))
	}
	if s.Via != nil {
		s.Via.write(o, indent+"  ")
	}
}

type deliveriesLsCommand struct {
	migrateFlags
	Endpoint string   `placeholder:"NAME" help:"Only those of this endpoint."`
	Outcome  string   `placeholder:"OUTCOME" help:"Only tries that came to this: delivered, failed, throttled, gone or exhausted."`
	Since    string   `placeholder:"TIME" help:"Only tries since then, or deliveries made since then: 2026-11-24T09:30:00Z, a day (2026-11-24), or how long ago (1h, 7d)."`
	Pending  bool     `help:"List the deliveries that are still to be made, instead of tries; short for --only pending."`
	Only     []string `placeholder:"STATE" help:"List the deliveries in these states, instead of tries: pending, held (for a digest), delivered, exhausted, disabled."`
	Limit    *int     `placeholder:"N" help:"At most so many, the newest; 0 is all. Default: 50, and all with --json."`
	JSON     bool     `name:"json" help:"Print a JSON line for each try: webhook_id, endpoint, n, at, status (0: no answer), outcome, reason, took_ms, next_at; or for each delivery."`
}

var deliveryStates = []string{"pending", "held", "delivered", "exhausted", "disabled"}

func (c *deliveriesLsCommand) Run(e *env) (err error) {
	since, err := moment("since", c.Since, time.Now())
	errs := []error{err, c.directoryNotState(deliveryStates...)}
	if c.Pending {
		c.Only = append(c.Only, string(store.Pending))
	}
	limit := atMost(c.Limit, c.JSON)
	deliveries := store.DeliveryFilter{Endpoint: c.Endpoint, Since: since}
	for _, s := range c.Only {
		deliveries.States = append(deliveries.States, store.DeliveryState(s))
	}
	tried := store.TryFilter{Endpoint: c.Endpoint, Outcome: notify.Outcome(c.Outcome), Since: since, Limit: limit}
	if len(c.Only) > 0 && c.Outcome != "" {
		errs = append(errs, errors.New("outcome: is of tries, and --pending and --only list deliveries; leave one out"))
	}
	errs = append(errs, tried.Validate(), deliveries.Validate())
	if err := usage(errors.Join(errs...)); err != nil {
		return err
	}
	st, err := c.look(e.ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if len(c.Only) > 0 {
		return tell(e, limit, c.JSON, func(limit int) iter.Seq2[store.Delivery, error] {
			deliveries.Newest, deliveries.Limit = limit > 0, limit
			return st.ListDeliveries(e.ctx, deliveries)
		}, func(d store.Delivery) any { d.Data = nil; return d }, deliveryLine)
	}
	return tell(e, limit, c.JSON, func(limit int) iter.Seq2[store.Try, error] {
		tried.Newest, tried.Limit = limit > 0, limit
		return st.ListTries(e.ctx, tried)
	}, func(t store.Try) any { return tryOf(t) }, func(t store.Try) terminal.Safe {
		return tryOf(t).line(fmt.Sprintf("  %s to %s", t.WebhookID, t.Endpoint))
	})
}

// tell prints a list, the newest last: in a terminal that is where the eye is. Without a limit the list has the oldest first, and is
// printed as it comes; else it has the newest first.
func tell[T any](e *env, limit int, asJSON bool, list func(limit int) iter.Seq2[T, error], object func(T) any, line func(T) terminal.Safe) error {
	o := newOut(e.stdout)
	one := func(x T) error {
		if asJSON {
			return o.json(object(x))
		}
		_, err := terminal.Fprintln(o, line(x))
		return err
	}
	if limit == 0 {
		for x, err := range list(0) {
			if err == nil {
				err = one(x)
			}
			if err != nil {
				return o.end(err)
			}
		}
		return o.end(nil)
	}
	// One more shows whether there are others.
	all, err := gather(list(limit + 1))
	if err != nil {
		return err
	}
	more := len(all) > limit
	all = all[:min(len(all), limit)]
	slices.Reverse(all)
	for _, x := range all {
		if err := one(x); err != nil {
			return o.end(err)
		}
	}
	if err := o.end(nil); err != nil {
		return err
	}
	if more && !asJSON {
		terminal.Fprintf(e.stderr, "(the newest %d; --limit 0 lists all)\n", limit)
	}
	return nil
}

type deliveriesShowCommand struct {
	migrateFlags
	WebhookID string `arg:"" name:"webhook-id" help:"Id of the message, as its header webhook-id has it."`
	Endpoint  string `placeholder:"NAME" help:"Only its delivery to this endpoint."`
	JSON      bool   `name:"json" help:"Print a JSON line for each endpoint that it goes to: the delivery, its data and tries."`
}

func (c *deliveriesShowCommand) Run(e *env) (err error) {
	st, err := c.look(e.ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	list, err := deliveryStories(e.ctx, st, store.DeliveryFilter{WebhookID: c.WebhookID, Endpoint: c.Endpoint})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return noMessage(c.WebhookID, c.Endpoint)
	}
	o := newOut(e.stdout)
	for i, s := range list {
		if c.JSON {
			if err := o.json(s); err != nil {
				return o.end(err)
			}
			continue
		}
		if i > 0 {
			o.printf("\n")
		}
		s.write(o, "")
		if s.Data != nil {
			o.printf("  type  %s\n  data  %s\n", s.Type, s.Data)
		}
	}
	return o.end(nil)
}

func noMessage(id, endpoint string) error {
	to := ""
	if endpoint != "" {
		to = " to " + terminal.Text(endpoint)
	}
	return fmt.Errorf("no message %s%s was found; spate deliveries ls lists what was tried, spate deliveries ls --pending what is to come", terminal.Text(id), to)
}

type deliveriesResendCommand struct {
	migrateFlags
	WebhookID string `arg:"" name:"webhook-id" help:"Id of the message, as its header webhook-id has it."`
	Endpoint  string `placeholder:"NAME" help:"Only to this endpoint. Default: to all that it went to."`
	JSON      bool   `name:"json" help:"Print {\"resent\":n}."`
}

func (c *deliveriesResendCommand) Run(e *env) (err error) {
	st, err := c.look(e.ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	f := store.DeliveryFilter{WebhookID: c.WebhookID, Endpoint: c.Endpoint}
	n, err := st.Resend(e.ctx, time.Now(), f)
	if err != nil {
		return err
	}
	list, err := gather(st.ListDeliveries(e.ctx, f))
	if err != nil {
		return err
	}
	if n > 0 {
		names := make([]string, len(list))
		for i, d := range list {
			names[i] = d.Endpoint
		}
		return resent(e, st, n, names, c.JSON)
	}
	if c.JSON {
		if err := newResult(e, struct {
			Resent int `json:"resent"`
		}{}); err != nil {
			return err
		}
	}
	var why []string
	for _, d := range list {
		switch d.State {
		case store.Held:
			why = append(why, fmt.Sprintf("to %s it goes with the digest %s; send that again", terminal.Text(d.Endpoint), terminal.Text(d.Digest)))
		case store.Pending:
			why = append(why, fmt.Sprintf("to %s it is still to be delivered, due %s", terminal.Text(d.Endpoint), d.NextAt.Format(instant)))
		}
	}
	if len(why) == 0 {
		return noMessage(c.WebhookID, c.Endpoint)
	}
	return fmt.Errorf("nothing is sent again: %s", strings.Join(why, "; "))
}

type deliveriesRecoverCommand struct {
	migrateFlags
	Since    string `required:"" placeholder:"TIME" help:"What was made since then: 2026-11-24T09:30:00Z, a day (2026-11-24), or how long ago (1h, 7d)."`
	Endpoint string `placeholder:"NAME" help:"Only to this endpoint. Default: to all."`
	JSON     bool   `name:"json" help:"Print {\"resent\":n}."`
}

func (c *deliveriesRecoverCommand) Run(e *env) (err error) {
	now := time.Now()
	since, err := moment("since", c.Since, now)
	if err == nil && since.IsZero() {
		err = errors.New("since: is empty")
	}
	if err != nil {
		return usage(err)
	}
	st, err := c.look(e.ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	n, err := st.Resend(e.ctx, now, store.DeliveryFilter{Endpoint: c.Endpoint, States: []store.DeliveryState{store.Exhausted, store.Disabled, store.Pending}, Since: since})
	if err != nil {
		return err
	}
	var names []string
	if c.Endpoint != "" {
		names = []string{c.Endpoint}
	}
	return resent(e, st, n, names, c.JSON)
}

// resent tells how many deliveries are sent again, and of endpoints, all if there are no names, that are disabled and drop them again.
func resent(e *env, st store.Store, n int, names []string, asJSON bool) error {
	if asJSON {
		if err := newResult(e, struct {
			Resent int `json:"resent"`
		}{n}); err != nil {
			return err
		}
	} else {
		text := fmt.Sprintf("%d deliveries are due now; spate up or spate alert makes them", n)
		switch n {
		case 0:
			text = "there is nothing to send again"
		case 1:
			text = "1 delivery is due now; spate up or spate alert makes it"
		}
		terminal.Fprintln(e.stdout, text)
	}
	if n == 0 {
		return nil
	}
	states, err := st.Endpoints(e.ctx)
	if err != nil {
		return err
	}
	for _, s := range states {
		if !s.DisabledAt.IsZero() && s.Pending > 0 && (names == nil || slices.Contains(names, s.Name)) {
			terminal.Fprintf(e.stderr, "spate: endpoint %s is disabled since %s and drops what is due: spate endpoints enable %s, then send again\n", s.Name, s.DisabledAt.Format(instant), s.Name)
		}
	}
	return nil
}

// newResult prints one object.
func newResult(e *env, v any) error {
	o := newOut(e.stdout)
	return o.end(o.json(v))
}
