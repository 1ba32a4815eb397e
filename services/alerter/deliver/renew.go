package deliver

import (
	"context"
	"time"

	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/ops"
	"spate/shared/store"
)

// renewAtOnce is how many incidents a renewal names.
const renewAtOnce = 500

// renewal is an endpoint that must be sent its open incidents again and again. Its state is not stored: a renewal that fails, or is lost with the process, is made up for a
// minute later. It does no harm if several alerters renew.
type renewal struct {
	*target
	renewer notify.Renewer
	open    map[string]bool // named as open in the last round
}

// renew names what is open to the endpoints that would forget it, again and again until ctx ends.
func (d *deliverer) renew(ctx context.Context) error {
	var all []*renewal
	for _, t := range d.targets {
		if r, ok := t.Notifier.(notify.Renewer); ok {
			all = append(all, &renewal{target: t, renewer: r})
		}
	}
	var warned time.Time
	for len(all) > 0 && ops.Pause(ctx, notify.RenewEvery) {
		for _, r := range all {
			if err := d.renewAt(ctx, r); err != nil && ctx.Err() == nil && d.cfg.Now().Sub(warned) >= 10*notify.RenewEvery {
				warned = d.cfg.Now()
				d.log.Warn("cannot read open incidents, so they are not resent", "endpoint", r.Name, "error", err)
			}
		}
	}
	return nil
}

// renewAt is one round at one endpoint.
func (d *deliverer) renewAt(ctx context.Context, r *renewal) error {
	if disabled, err := d.cfg.Store.DisabledAt(ctx, r.Name); err != nil || !disabled.IsZero() {
		return err
	}
	was := r.open
	r.open = make(map[string]bool, len(was))
	var ms []notify.Message
	flush := func() {
		if len(ms) > 0 {
			d.send(ctx, r, ms)
		}
		ms = ms[:0]
	}
	add := func(e incident.Event) error {
		data, err := e.Incident.Encode()
		if err != nil {
			return err
		}
		m := notify.Message{ID: e.ID(), Type: notify.TypeOfEvent(e), At: d.cfg.Now(), Data: data}
		if r.Notifier.Check(m) != nil {
			return nil // the delivery has said so
		}
		if ms = append(ms, m); len(ms) == renewAtOnce {
			flush()
		}
		return nil
	}
	for i, err := range d.cfg.Store.Incidents(ctx, store.IncidentFilter{State: incident.StateOpen}) {
		if err != nil {
			return err
		}
		e := incident.Event{Transition: incident.Opened, Incident: i}
		if i.Escalations > 0 {
			e.Transition = incident.Escalated
		}
		if i.Told == "" || !r.Filter.MatchEvent(e) {
			continue
		}
		if err := add(e); err != nil {
			return err
		}
		r.open[i.ID] = true
		delete(was, i.ID)
	}
	for id := range was {
		for i, err := range d.cfg.Store.Incidents(ctx, store.IncidentFilter{ID: id, State: incident.StateResolved}) {
			if err != nil {
				return err
			}
			if err := add(incident.Event{Transition: incident.Resolved, Incident: i}); err != nil {
				return err
			}
		}
	}
	flush()
	return nil
}

// send makes one try, before the messages that wait: while there are many, what is open must not be taken for over. An endpoint that is away, or asks for patience, hears of
// it in the next round.
func (d *deliverer) send(ctx context.Context, r *renewal, ms []notify.Message) {
	if ok, err := r.gate.turn(ctx); err != nil || !ok {
		return
	}
	result := r.renewer.Renew(ctx, ms)
	if ctx.Err() != nil {
		r.gate.unprobe()
		return
	}
	r.gate.leave(result)
	if result.Outcome != notify.Delivered {
		d.log.Warn("cannot resend open incidents to the endpoint, retrying within a minute", "endpoint", r.Name, "incidents", len(ms), "status", result.Status, "reason", result.Reason)
	}
}
