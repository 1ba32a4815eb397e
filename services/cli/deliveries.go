package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/shared/terminal"
)

type deliveriesCommand struct {
	Ls      deliveriesLsCommand      `cmd:"" help:"List delivery attempts, newest last; with --pending or --only, list the deliveries themselves."`
	Show    deliveriesShowCommand    `cmd:"" help:"Show a message: its endpoints, every attempt, and its content."`
	Resend  deliveriesResendCommand  `cmd:"" help:"Resend a message now, even if it was delivered."`
	Recover deliveriesRecoverCommand `cmd:"" help:"Resend undelivered messages now: those whose attempts all failed, those waiting for their next attempt, and those dropped while an endpoint was disabled."`
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

func tries(n int) string { return counted(n, "attempt", "attempts") }

// answer is what an endpoint said.
func (t try) answer() string {
	if t.Status == 0 {
		return "-"
	}
	return strconv.Itoa(t.Status)
}

// tryColumns are those of tries, with the cells of tryCells.
var tryColumns = []terminal.Column{
	{Head: "TIME (UTC)"}, {Head: "MESSAGE", Floor: shortID + len("_opened")}, {Head: "ENDPOINT", Floor: 8}, {Head: "TRY", Right: true}, {Head: "OUTCOME"}, {Head: "STATUS", Right: true}, {Head: "REASON", Floor: 12},
}

func tryCells(o *out, t try, now time.Time) []any {
	why := t.Reason
	if why == fmt.Sprintf("status %d", t.Status) {
		why = ""
	}
	return []any{clockText(t.At.Truncate(time.Second), now), messageText(o, t.WebhookID), t.Endpoint, t.N, outcomeText(o, t.Outcome), t.answer(), why}
}

// messageText is the id of a message; where there is little room, that of its alert or incident is cut to its first digits.
func messageText(o *out, webhookID string) string {
	id, which := messageID(webhookID)
	if o.width > 0 && o.width < roomy && which != "" && isID(id) && len(id) > shortID {
		return id[:shortID] + "_" + which
	}
	return webhookID
}

// roomy is how many cells a terminal has that shows ids as they are.
const roomy = 132

func outcomeText(o *out, outcome notify.Outcome) terminal.Safe {
	switch outcome {
	case notify.Delivered:
		return o.paint(string(outcome), terminal.Green)
	case notify.Throttled:
		return o.paint(string(outcome), terminal.Yellow)
	}
	return o.paint(string(outcome), terminal.Red)
}

// deliveryColumns are those of deliveries, with the cells of deliveryCells.
var deliveryColumns = []terminal.Column{{Head: "CREATED (UTC)"}, {Head: "MESSAGE", Floor: shortID + len("_opened")}, {Head: "ENDPOINT", Floor: 8}, {Head: "STATE"}, {Head: "TRIES", Right: true}, {Head: "NEXT", Floor: 8}}

func deliveryCells(o *out, d store.Delivery, now time.Time) []any {
	next := ""
	switch {
	case !d.NextAt.IsZero():
		next = "due " + clockText(d.NextAt.Truncate(time.Second), now)
	case d.Digest != "":
		next = "with " + d.Digest
	}
	return []any{clockText(d.CreatedAt.Truncate(time.Second), now), messageText(o, d.WebhookID), d.Endpoint, string(d.State), d.Tries, next}
}

// deliveryTable prints deliveries, and below them the tries that failed.
func deliveryTable(o *out, wide bool, list []deliveryStory) {
	if wide {
		o.width = 0
	}
	now := time.Now()
	t := terminal.Table{Columns: slices.Clone(deliveryColumns)}
	failed := terminal.Table{Columns: slices.Clone(tryColumns)}
	for _, d := range list {
		t.Row(deliveryCells(o, d.Delivery, now)...)
		for _, try := range d.Tries {
			if try.Outcome != notify.Delivered {
				failed.Row(tryCells(o, try, now)...)
			}
		}
	}
	o.lines(t.Lines(o.width))
	if len(failed.Rows) > 0 {
		o.printf("\nfailed attempts:\n")
		o.lines(failed.Lines(o.width))
	}
}

// deliveryReader reads messages and their tries.
type deliveryReader interface {
	ListDeliveries(context.Context, store.DeliveryFilter) iter.Seq2[store.Delivery, error]
	ListTries(context.Context, store.TryFilter) iter.Seq2[store.Try, error]
	Delivery(ctx context.Context, webhookID, endpoint string) (store.Delivery, error)
}

// deliveryStories returns what fits f with all tries, also those of the digests.
func deliveryStories(ctx context.Context, st deliveryReader, f store.DeliveryFilter) ([]deliveryStory, error) {
	list, err := store.Collect(st.ListDeliveries(ctx, f))
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

func storyOf(ctx context.Context, st deliveryReader, d store.Delivery) (deliveryStory, error) {
	list, err := store.Collect(st.ListTries(ctx, store.TryFilter{WebhookID: d.WebhookID, Endpoint: d.Endpoint}))
	s := deliveryStory{Delivery: d, Tries: make([]try, len(list))}
	for i, t := range list {
		s.Tries[i] = tryOf(t)
	}
	return s, err
}

// write prints a message to one endpoint: its state and every try.
func (s deliveryStory) write(o *out, indent string) {
	o.printf("%smessage   %s\n%sendpoint  %s\n%sstate     %s, %s\n", indent, s.WebhookID, indent, s.Endpoint, indent, s.State, tries(len(s.Tries)))
	if !s.NextAt.IsZero() {
		o.printf("%sdue       %s\n", indent, s.NextAt.Format(instant))
	}
	for _, t := range s.Tries {
		o.printf("%stry %-4d  %s  %s", indent, t.N, t.At.Format(instant), t.Outcome)
		if t.Reason != "" {
			o.printf(": %s", t.Reason)
		} else if t.Status != 0 {
			o.printf(": status %d", t.Status)
		}
		o.printf(" (%d ms)\n", t.TookMS)
	}
	if s.Via != nil {
		o.printf("%ssent as part of a digest:\n", indent)
		s.Via.write(o, indent+"  ")
	}
}

// deliveryFlags say where deliveries are kept.
type deliveryFlags struct {
	migrateFlags
	tableFlags
}

// ledger is where deliveries and endpoints are kept: the database or, in mode aws, the table.
type ledger interface {
	incidentReader
	Resend(ctx context.Context, now time.Time, f store.DeliveryFilter) (int, error)
	Endpoints(ctx context.Context) ([]store.EndpointState, error)
	SetEnabled(ctx context.Context, now time.Time, endpoint string, enabled bool, reason string) error
}

// ledger opens it.
func (f deliveryFlags) ledger(e *env) (ledger, error) {
	if e.mode != "aws" {
		return f.look(e.ctx)
	}
	table, _, err := f.table(e.ctx)
	if err != nil {
		return nil, usage(err)
	}
	return awsIncidents{table}, nil
}

type deliveriesLsCommand struct {
	deliveryFlags
	Endpoint string   `placeholder:"NAME" help:"List only attempts or deliveries to this endpoint."`
	Outcome  string   `placeholder:"OUTCOME" help:"List only attempts with this outcome: delivered, failed, throttled, gone or exhausted."`
	Since    string   `placeholder:"TIME" help:"List only attempts made, or deliveries created, since this time: a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24), or an age (1h, 7d)."`
	Pending  bool     `help:"List pending deliveries instead of attempts; same as --only pending."`
	Only     []string `placeholder:"STATE" help:"List deliveries in these states instead of attempts: pending, held (for a digest), delivered, exhausted, disabled."`
	listFlags
	JSON bool `name:"json" help:"Print one JSON line per attempt (webhook_id, endpoint, n, at, status (0: no response), outcome, reason, took_ms, next_at) or per delivery."`
}

var deliveryStates = []string{"pending", "held", "delivered", "exhausted", "disabled"}

func (c *deliveriesLsCommand) Run(e *env) (err error) {
	since, err := moment("since", c.Since, time.Now())
	errs := []error{err, c.directoryNotState(deliveryStates...)}
	if c.Pending {
		c.Only = append(c.Only, string(store.Pending))
	}
	limit := c.atMost(c.JSON)
	deliveries := store.DeliveryFilter{Endpoint: c.Endpoint, Since: since}
	for _, s := range c.Only {
		deliveries.States = append(deliveries.States, store.DeliveryState(s))
	}
	tried := store.TryFilter{Endpoint: c.Endpoint, Outcome: notify.Outcome(c.Outcome), Since: since, Limit: limit}
	if len(c.Only) > 0 && c.Outcome != "" {
		errs = append(errs, errors.New("outcome: --outcome filters attempts, but --pending and --only list deliveries; use one or the other"))
	}
	errs = append(errs, tried.Validate(), flagged(deliveries.Validate(), "state", "only"))
	if err := usage(errors.Join(errs...)); err != nil {
		return err
	}
	st, err := c.ledger(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	now := time.Now()
	if len(c.Only) > 0 {
		return list(e, c.listFlags, listing[store.Delivery]{
			json: c.JSON, object: func(d store.Delivery) any { d.Data = nil; return d }, none: "no deliveries match",
			columns: deliveryColumns, row: func(o *out, d store.Delivery) []any { return deliveryCells(o, d, now) },
		}, func(limit int) iter.Seq2[store.Delivery, error] {
			deliveries.Newest, deliveries.Limit = limit > 0, limit
			return st.ListDeliveries(e.ctx, deliveries)
		})
	}
	return list(e, c.listFlags, listing[store.Try]{
		json: c.JSON, object: func(t store.Try) any { return tryOf(t) }, none: "no matching delivery attempts; to list pending deliveries, run spate deliveries ls --pending;\nto list the endpoints, run spate endpoints ls",
		columns: tryColumns, row: func(o *out, t store.Try) []any { return tryCells(o, tryOf(t), now) },
	}, func(limit int) iter.Seq2[store.Try, error] {
		tried.Newest, tried.Limit = limit > 0, limit
		return st.ListTries(e.ctx, tried)
	})
}

type deliveriesShowCommand struct {
	deliveryFlags
	WebhookID string `arg:"" name:"webhook-id" help:"ID of the message (its webhook-id header), or the ID of its incident or alert, or a unique prefix of that ID."`
	Endpoint  string `placeholder:"NAME" help:"Show only the delivery to this endpoint."`
	JSON      bool   `name:"json" help:"Print one JSON line per endpoint: the delivery, its data and its attempts (tries)."`
}

func (c *deliveriesShowCommand) Run(e *env) (err error) {
	st, err := c.ledger(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	f, err := messages(e.ctx, st, c.WebhookID, c.Endpoint)
	var list []deliveryStory
	if err == nil {
		list, err = deliveryStories(e.ctx, st, f)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
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
			o.printf("type      %s\ndata      %s\n", s.Type, s.Data)
		}
	}
	return o.end(nil)
}

func noMessage(id, endpoint string) error {
	to := ""
	if endpoint != "" {
		to = " to " + terminal.Text(endpoint)
	}
	return fmt.Errorf("message %s%s not found; to list attempts, run spate deliveries ls; to list pending deliveries, run spate deliveries ls --pending", terminal.Text(id), to)
}

type deliveriesResendCommand struct {
	deliveryFlags
	WebhookID string `arg:"" name:"webhook-id" help:"ID of the message (its webhook-id header), or the ID of its incident or alert, or a unique prefix of that ID."`
	Endpoint  string `placeholder:"NAME" help:"Resend only to this endpoint. Default: all endpoints of the message."`
	JSON      bool   `name:"json" help:"Print {\"resent\":n}."`
}

func (c *deliveriesResendCommand) Run(e *env) (err error) {
	st, err := c.ledger(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	f, err := messages(e.ctx, st, c.WebhookID, c.Endpoint)
	if errors.Is(err, store.ErrNotFound) {
		err, f = nil, store.DeliveryFilter{WebhookID: c.WebhookID, Endpoint: c.Endpoint} // it matches nothing
	}
	if err != nil {
		return err
	}
	n, err := st.Resend(e.ctx, time.Now(), f)
	if err != nil {
		return err
	}
	list, err := store.Collect(st.ListDeliveries(e.ctx, f))
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
		switch {
		case d.Endpoint == dynamodb.Endpoint && e.mode == "aws":
			why = append(why, "spate retries each message until the SNS topic accepts it, and does not resend it after that")
		case d.State == store.Held:
			why = append(why, fmt.Sprintf("for %s, the message is part of digest %s; resend the digest instead", terminal.Text(d.Endpoint), terminal.Text(d.Digest)))
		case d.State == store.Pending:
			why = append(why, fmt.Sprintf("for %s, the message is still pending, due at %s", terminal.Text(d.Endpoint), d.NextAt.Format(instant)))
		}
	}
	if len(why) == 0 {
		return noMessage(c.WebhookID, c.Endpoint)
	}
	return fmt.Errorf("nothing to resend: %s", strings.Join(why, "; "))
}

type deliveriesRecoverCommand struct {
	deliveryFlags
	Since    string `required:"" placeholder:"TIME" help:"Resend only messages created since this time: a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24), or an age (1h, 7d)."`
	Endpoint string `placeholder:"NAME" help:"Resend only to this endpoint. Default: all endpoints."`
	JSON     bool   `name:"json" help:"Print {\"resent\":n}."`
}

func (c *deliveriesRecoverCommand) Run(e *env) (err error) {
	now := time.Now()
	since, err := moment("since", c.Since, now)
	if err == nil && since.IsZero() {
		err = errors.New("since: must not be empty")
	}
	if err != nil {
		return usage(err)
	}
	st, err := c.ledger(e)
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

// resent prints how many deliveries are sent again, and warns about endpoints (of those named, or of all) that are disabled and drop them again.
func resent(e *env, st ledger, n int, names []string, asJSON bool) error {
	if asJSON {
		if err := newResult(e, struct {
			Resent int `json:"resent"`
		}{n}); err != nil {
			return err
		}
	} else {
		text := fmt.Sprintf("%d deliveries are due now; spate up or spate alert sends them", n)
		switch n {
		case 0:
			text = "nothing to resend"
		case 1:
			text = "1 delivery is due now; spate up or spate alert sends it"
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
			terminal.Fprintf(e.stderr, "spate: endpoint %s has been disabled since %s, so its messages are dropped; run spate endpoints enable %s, then resend\n", s.Name, s.DisabledAt.Format(instant), s.Name)
		}
	}
	return nil
}

// newResult prints one object.
func newResult(e *env, v any) error {
	o := newOut(e.stdout)
	return o.end(o.json(v))
}
