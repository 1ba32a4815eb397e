package dynamodb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

// The attributes of items that are not alerts. None of them has the attribute id, by which readers of the table know alerts.
const (
	attrKind = "kind"

	attrEscalated   = "escalated_at"
	attrResolved    = "resolved_at"
	attrFirstStart  = "first_window_start"
	attrLastEnd     = "last_window_end"
	attrWindows     = "windows"
	attrSum         = "events"
	attrPeak        = "peak"
	attrEscalations = "escalations"
	attrAlert       = "alert_id"
	attrSilenced    = "silenced"
	attrTold        = "told"
	attrQuiet       = "quiet_ms"
	attrLongest     = "longest_ms"
	attrMark        = "mark" // JSON
	// Of each transition: the message that is still to be told, as JSON, and when it was told.
	beforeUntold = "untold_"
	beforeToldAt = "told_at_"

	// Of the head of a partition of incidents, in milliseconds: how long after its sort key an incident ends at most, how long before it one begins,
	// and how far apart windows of one are.
	attrVersion = "version"
	attrReach   = "reach_ms"
	attrLead    = "lead_ms"
	attrFar     = "far_ms"
)

// The kinds of items.
const (
	kindIncident = "incident"
	kindHead     = "head"
	kindOpen     = "open"
	kindSilence  = "silence"
	kindProgress = "progress"
)

// headSort is the sort key of a partition's head: a time that no window has.
const headSort = "999999999999"

// Notice is a message about an incident that must be published.
type Notice struct {
	// At is where the incident is.
	Of Key
	// Transition is the transition that the message is about.
	Transition incident.Transition
	Message    notify.Message
}

// notice is what is stored of one.
type notice struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	At   time.Time       `json:"at"`
	Data json.RawMessage `json:"data"`
}

// transitions, in the order in which they are told.
var transitions = []incident.Transition{incident.Opened, incident.Escalated, incident.Resolved}

// kept is an incident as the table has it.
type kept struct {
	incident.Incident
	key    Key
	untold []Notice
	toldAt map[incident.Transition]time.Time
}

// head is what the incidents of a partition have in common. Every change of one of them changes its version, so that of two writers who have read the
// same, one finds that the other was faster, even if both open an incident.
type head struct {
	version          int64 // 0: there is none, or it has expired
	reach, lead, far time.Duration
	alone            bool // the key has no incident
}

// covers makes the head reach over an incident.
func (h *head) covers(k *kept) {
	at := k.key.time()
	h.reach, h.lead, h.far = max(h.reach, k.LastWindowEnd.Sub(at)), max(h.lead, at.Sub(k.FirstWindowStart)), max(h.far, k.Quiet)
}

// incidents is the partition of the incidents that an alert may be part of.
func (c Config) incidents(r *alert.Record) string {
	return c.incidentPartition(r.Rule, r.Mode, incident.KeyOf(r))
}

func (c Config) incidentPartition(rule, mode string, key json.RawMessage) string {
	before, after := "incident#"+rule+"#"+mode+"#", "#appserver#"+c.server()
	name := string(key)
	if len(before)+len(name)+len(after) > maxPartition {
		sum := sha256.Sum256(key)
		name = "sha256:" + hex.EncodeToString(sum[:])
	}
	return before + name + after
}

// change is what a record does to its incident.
type change struct {
	key    Key // of the incident
	writes []types.TransactWriteItem
	events []incident.Event
	untold []Notice
}

// fold applies a record that moves its alert to incidents, and notes in the item of which it is part.
func (t *Table) fold(ctx context.Context, now time.Time, it *Item, to []notify.Endpoint) (*change, error) {
	r := &it.Record
	partition := t.cfg.incidents(r)
	h, err := t.head(ctx, partition) // before the incidents, so that a later change of one is noticed
	if err != nil {
		return nil, err
	}
	var near []kept
	if !h.alone {
		if near, err = t.between(ctx, partition, r.WindowStart.Add(-h.far-h.reach), r.WindowEnd.Add(h.far+h.lead)); err != nil {
			return nil, err
		}
	}
	silences, err := t.silencesAfter(ctx, now)
	if err != nil {
		return nil, err
	}
	stored, members := make([]incident.Incident, len(near)), make(map[string]incident.Member)
	for n := range near {
		stored[n] = near[n].Incident
	}
	if it.Incident != "" {
		members[r.ID] = incident.Member{Incident: it.Incident, Counted: it.Counted}
	}
	f := incident.NewFold(now, silences, stored, members)
	f.Apply(r)
	next := f.Incidents()[0] // a record is part of one
	m := f.Members()[r.ID]
	k, opens := kept{Incident: next, key: Key{Partition: partition, Sort: seconds(next.FirstWindowStart, idDigits(next.ID))}}, true
	var due time.Time
	for _, n := range near {
		if n.ID == next.ID {
			k.key, k.untold, opens, due = n.key, n.untold, false, n.Due()
		}
	}
	it.Incident, it.SortOf, it.Counted = m.Incident, k.key.Sort, m.Counted
	out := &change{key: k.key, events: f.Events()}
	waiting := len(k.untold)
	if err := k.tell(out.events, now, to); err != nil {
		return nil, err
	}
	out.untold = k.untold
	out.writes = []types.TransactWriteItem{t.writeIncident(now, k, waiting), t.writeHead(now, partition, h, k)}
	if opens && next.State == incident.StateOpen || next.State == incident.StateOpen && next.Due().Before(due) {
		out.writes = append(out.writes, t.writeOpen(k))
	}
	return out, nil
}

// tell adds what the topic is to be told of events.
func (k *kept) tell(events []incident.Event, now time.Time, to []notify.Endpoint) error {
	for _, e := range events {
		if e.Silent || !slices.ContainsFunc(to, func(p notify.Endpoint) bool { return p.Filter.MatchEvent(e) }) {
			continue
		}
		data, err := e.Incident.Encode()
		if err != nil {
			return err
		}
		k.untold = append(k.untold, Notice{Of: k.key, Transition: e.Transition, Message: notify.Message{ID: e.ID(), Type: notify.TypeOfEvent(e), At: milli(now), Data: data}})
	}
	return nil
}

// writeIncident sets all that a fold knows of an incident; what others know, such as its mark, stays. So do the messages that were waiting when it was read: they are
// there, or were told since.
func (t *Table) writeIncident(now time.Time, k kept, waiting int) types.TransactWriteItem {
	i := &k.Incident
	values := attributes{
		attrKind: text(kindIncident), attrIncident: text(i.ID), attrRule: text(i.Rule), attrState: text(string(i.State)), attrSeverity: text(string(i.Severity)), attrKey: text(string(i.Key)),
		attrOpened: instant(i.OpenedAt), attrFirstStart: instant(i.FirstWindowStart), attrLastEnd: instant(i.LastWindowEnd), attrWindows: number(i.Windows), attrSum: number(i.Events),
		attrPeak: number(i.Peak), attrEscalations: number(int64(i.Escalations)), attrAlert: text(i.AlertID), attrQuiet: number(i.Quiet.Milliseconds()), attrLongest: number(i.Longest.Milliseconds()),
	}
	for _, n := range k.untold[waiting:] {
		b, _ := json.Marshal(notice{ID: n.Message.ID, Type: n.Message.Type, At: n.Message.At, Data: n.Message.Data}) // texts and JSON are always encoded
		values[beforeUntold+string(n.Transition)] = text(string(b))
	}
	t.cfg.expire(values, k.keptFrom(now))
	e := newExpression()
	for name, v := range values {
		e.set(name, v)
	}
	for name, value := range map[string]string{attrMode: i.Mode, attrSummary: i.Summary, attrRunbook: i.Runbook, attrSilenced: i.Silenced, attrTold: string(i.Told)} {
		if value == "" {
			e.remove(name)
		} else {
			e.set(name, text(value))
		}
	}
	for name, at := range map[string]time.Time{attrEscalated: i.EscalatedAt, attrResolved: i.ResolvedAt} {
		if !at.IsZero() {
			e.set(name, instant(at))
		}
	}
	return types.TransactWriteItem{Update: &types.Update{
		TableName: &t.cfg.Table, Key: k.key.attributes(), UpdateExpression: aws.String(e.update()), ExpressionAttributeNames: e.names, ExpressionAttributeValues: e.values,
	}}
}

// openKept is for how much longer an incident that is open is kept: its end is still to be told, be it that nobody worked for long.
const openKept = 31 * 24 * time.Hour

// keptFrom is from when on the time counts for which an incident is kept.
func (k *kept) keptFrom(now time.Time) time.Time {
	if k.State == incident.StateOpen {
		return now.Add(openKept)
	}
	return now
}

// writeHead moves the head on to the next version, if it is as it was read.
func (t *Table) writeHead(now time.Time, partition string, h head, k kept) types.TransactWriteItem {
	h.covers(&k)
	item := Key{Partition: partition, Sort: headSort}.attributes()
	item[attrKind], item[attrVersion] = text(kindHead), number(h.version+1)
	item[attrReach], item[attrLead], item[attrFar] = number(h.reach.Milliseconds()), number(h.lead.Milliseconds()), number(h.far.Milliseconds())
	t.cfg.expire(item, k.keptFrom(now))
	put := &types.Put{TableName: &t.cfg.Table, Item: item, ConditionExpression: aws.String("attribute_not_exists(#pk)"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey}}
	if h.version > 0 {
		put.ConditionExpression, put.ExpressionAttributeNames = aws.String("#version = :version"), map[string]string{"#version": attrVersion}
		put.ExpressionAttributeValues = attributes{":version": number(h.version)}
	}
	return types.TransactWriteItem{Put: put}
}

// time is the instant of a sort key, to the millisecond; the digits behind it are left out.
func (k Key) time() time.Time {
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(k.Sort, "-"), ".")
	fraction = (fraction + "000")[:3]
	s, _ := strconv.ParseInt(whole, 10, 64) // it is one of ours
	ms, _ := strconv.ParseInt(fraction, 10, 64)
	at := s*1000 + ms
	if strings.HasPrefix(k.Sort, "-") {
		at = -at
	}
	return time.UnixMilli(at).UTC()
}

// head reads the head of a partition. If there is none, because nothing happened there or it has expired before the incidents, which is in no order, they say what it
// would.
func (t *Table) head(ctx context.Context, partition string) (head, error) {
	a, err := t.attributesAt(ctx, Key{Partition: partition, Sort: headSort})
	if err != nil {
		return head{}, err
	}
	if a == nil {
		all, err := t.incidentsIn(ctx, partition, decimal("-"+headSort), decimal(headSort))
		h := head{alone: len(all) == 0}
		for n := range all {
			h.covers(&all[n])
		}
		return h, err
	}
	r := &reader{attributes: a}
	h := head{version: r.number(attrVersion), reach: r.duration(attrReach), lead: r.duration(attrLead), far: r.duration(attrFar)}
	return h, r.err
}

// between returns the incidents of a partition whose sort keys are in a span.
func (t *Table) between(ctx context.Context, partition string, from, to time.Time) ([]kept, error) {
	return t.incidentsIn(ctx, partition, decimal(seconds(from.Add(-time.Millisecond), "")), decimal(seconds(to.Add(time.Millisecond), "")))
}

func (t *Table) incidentsIn(ctx context.Context, partition string, from, to types.AttributeValue) (out []kept, err error) {
	err = t.query(ctx, &sdk.QueryInput{
		KeyConditionExpression:    aws.String("#pk = :pk AND #sort BETWEEN :from AND :to"),
		ExpressionAttributeNames:  map[string]string{"#pk": partitionKey, "#sort": sortKey},
		ExpressionAttributeValues: attributes{":pk": text(partition), ":from": from, ":to": to},
	}, func(a attributes) error {
		k, err := readIncident(a)
		if err == nil && k.ID != "" {
			out = append(out, k)
		}
		return err
	})
	return out, err
}

// query reads pages as the last writes left them.
func (t *Table) query(ctx context.Context, in *sdk.QueryInput, f func(attributes) error) error {
	in.TableName, in.ConsistentRead = &t.cfg.Table, aws.Bool(true)
	for {
		res, err := t.api.Query(ctx, in)
		if err != nil {
			return t.translate(err)
		}
		for _, a := range res.Items {
			if err := f(a); err != nil {
				return err
			}
		}
		if len(res.LastEvaluatedKey) == 0 {
			return nil
		}
		in.ExclusiveStartKey = res.LastEvaluatedKey
	}
}

// incidentAt returns the incident at a key; nil if there is none.
func (t *Table) incidentAt(ctx context.Context, key Key) (*kept, error) {
	a, err := t.attributesAt(ctx, key)
	if err != nil || a == nil {
		return nil, err
	}
	k, err := readIncident(a)
	if err != nil || k.ID == "" {
		return nil, err
	}
	return &k, nil
}

// readIncident reads what writeIncident wrote. Any other item has no id.
func readIncident(a attributes) (kept, error) {
	r := &reader{attributes: a}
	k := kept{key: Key{Partition: r.text(partitionKey), Sort: r.decimal(sortKey)}, toldAt: map[incident.Transition]time.Time{}}
	if r.text(attrKind) != kindIncident {
		return k, nil
	}
	k.Incident = incident.Incident{
		ID: r.text(attrIncident), Rule: r.text(attrRule), State: incident.State(r.text(attrState)), Severity: alert.Severity(r.text(attrSeverity)), Mode: r.text(attrMode),
		Summary: r.text(attrSummary), Runbook: r.text(attrRunbook), Key: json.RawMessage(r.text(attrKey)),
		OpenedAt: r.instant(attrOpened), EscalatedAt: r.instant(attrEscalated), ResolvedAt: r.instant(attrResolved), FirstWindowStart: r.instant(attrFirstStart), LastWindowEnd: r.instant(attrLastEnd),
		Windows: r.number(attrWindows), Events: r.number(attrSum), Peak: r.number(attrPeak), Escalations: int(r.number(attrEscalations)), AlertID: r.text(attrAlert),
		Silenced: r.text(attrSilenced), Told: alert.Severity(r.text(attrTold)), Quiet: r.duration(attrQuiet), Longest: r.duration(attrLongest),
	}
	if mark := r.text(attrMark); mark != "" {
		var err error
		if k.Marked, err = store.ParseMark(&mark); err != nil {
			r.wrong(attrMark, err)
		}
	}
	for _, tr := range transitions {
		if at := r.instant(beforeToldAt + string(tr)); !at.IsZero() {
			k.toldAt[tr] = at
		}
		s := r.text(beforeUntold + string(tr))
		if s == "" {
			continue
		}
		var n notice
		if err := json.Unmarshal([]byte(s), &n); err != nil {
			r.wrong(beforeUntold+string(tr), err)
		}
		k.untold = append(k.untold, Notice{Of: k.key, Transition: tr, Message: notify.Message{ID: n.ID, Type: n.Type, At: n.At, Data: n.Data}})
	}
	if r.err != nil {
		return k, fmt.Errorf("incident %s: %w", k.ID, r.err)
	}
	return k, nil
}

// Told records that messages about an incident have been published, or can never be. It does nothing if that is recorded already, or if the
// incident is gone. After an error, it may have been recorded.
func (t *Table) Told(ctx context.Context, now time.Time, notices ...Notice) error {
	of := make(map[Key][]incident.Transition)
	for _, n := range notices {
		of[n.Of] = append(of[n.Of], n.Transition)
	}
	for _, key := range slices.SortedFunc(maps.Keys(of), func(a, b Key) int { return strings.Compare(a.Partition+a.Sort, b.Partition+b.Sort) }) {
		e := newExpression()
		for _, tr := range of[key] {
			e.remove(beforeUntold + string(tr))
			e.set(beforeToldAt+string(tr), instant(milli(now)))
		}
		err := t.touch(ctx, &sdk.UpdateItemInput{
			TableName: &t.cfg.Table, Key: key.attributes(), UpdateExpression: aws.String(e.update()), ConditionExpression: aws.String("attribute_exists(#pk)"),
			ExpressionAttributeNames: e.withName("#pk", partitionKey), ExpressionAttributeValues: e.values,
		})
		if err != nil && !conditionFailed(err) {
			return fmt.Errorf("record that messages about an incident were published: %w", t.translate(err))
		}
	}
	return nil
}
