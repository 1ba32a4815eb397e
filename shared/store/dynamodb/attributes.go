package dynamodb

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/activity"
	"spate/shared/alert"
)

// The names of attributes. Those of a record are the names of its JSON; consumers made for the original find its own.
const (
	partitionKey = "ddb_partition_key"
	sortKey      = "ddb_sort_key"

	attrID           = "id"
	attrRule         = "rule"
	attrState        = "state"
	attrRank         = "state_rank"
	attrSeverity     = "severity"
	attrUser         = "user_id"
	attrToken        = "user_token" // the user as a JSON token: DynamoDB writes numbers in its own way, and 7.0 is not the user 7
	attrCount        = "num_actions_per_watermark"
	attrThreshold    = "threshold"
	attrWindowStart  = "window_start"
	attrWindowEnd    = "window_end"
	attrFirst        = "first_event_at"
	attrLast         = "last_event_at"
	attrEvidence     = "evidence" // JSON
	attrEvents       = "event_count"
	attrKey          = "key"     // JSON object; absent: the rule without a rules file
	attrColumns      = "columns" // JSON object, with the columns in order
	attrAtLeast      = "at_least"
	attrRevision     = "rule_revision"
	attrMode         = "mode"
	attrSummary      = "summary"
	attrRunbook      = "runbook"
	attrArrived      = "arrived_at"
	attrOpened       = "opened_at"
	attrClosed       = "closed_at"
	attrNotification = "notification"
	attrNotified     = "notified_at"
	attrExpires      = "expires_at"

	// Of an alert: the incident that it is part of, where that is, and what it has added to the incident's events.
	attrIncident = "incident_id"
	attrSortOf   = "incident_sort_key"
	attrCounted  = "incident_counted"
)

type attributes = map[string]types.AttributeValue

func text(s string) types.AttributeValue  { return &types.AttributeValueMemberS{Value: s} }
func number(n int64) types.AttributeValue { return decimal(strconv.FormatInt(n, 10)) }
func decimal(n string) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: n}
}
func instant(t time.Time) types.AttributeValue { return text(t.UTC().Format(time.RFC3339Nano)) }

// rank is that of a state as items have it: those of opened and closed are older than the state between them.
func rank(s alert.State) types.AttributeValue {
	switch s {
	case alert.Opened:
		return decimal("1")
	case alert.Raised:
		return decimal("1.5")
	}
	return decimal("2")
}

func (k Key) attributes() attributes {
	return attributes{partitionKey: text(k.Partition), sortKey: decimal(k.Sort)}
}

// recordAttributes are those that a record sets whenever it moves its alert.
func (it Item) recordAttributes() (attributes, error) {
	evidence, err := evidenceText(it.Evidence)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	out := attributes{
		attrID: text(it.ID), attrRule: text(it.Rule), attrState: text(string(it.State)), attrRank: rank(it.State),
		attrSeverity: text(string(it.Severity)), attrToken: text(string(it.UserID)),
	}
	if it.IsUser() {
		out[attrUser] = userAttribute(string(it.UserID))
	}
	if it.Record.Key == nil {
		out[attrCount], out[attrThreshold] = number(it.Count), number(it.Threshold)
	} else {
		out[attrEvents], out[attrKey], out[attrColumns] = number(it.Count), text(string(it.Record.Key)), text(string(it.Columns))
		out[attrAtLeast] = &types.AttributeValueMemberBOOL{Value: it.AtLeast}
	}
	if it.RuleRevision > 0 {
		out[attrRevision] = number(it.RuleRevision)
	}
	for name, value := range map[string]string{attrMode: it.Mode, attrSummary: it.Summary, attrRunbook: it.Runbook} {
		if value != "" {
			out[name] = text(value)
		}
	}
	for name, t := range map[string]time.Time{
		attrWindowStart: it.WindowStart, attrWindowEnd: it.WindowEnd, attrFirst: it.FirstEventAt, attrLast: it.LastEventAt, attrArrived: it.ArrivedAt,
	} {
		if !t.IsZero() {
			out[name] = instant(t)
		}
	}
	if len(it.Evidence.Partitions)+len(it.Evidence.Shards) > 0 {
		out[attrEvidence] = text(evidence)
	}
	return out, nil
}

// userAttribute is a number only if DynamoDB gives it back as it was written: a whole one that it has room for.
func userAttribute(token string) types.AttributeValue {
	const digits = 38
	if n := len(token); n <= digits && (token == "0" || token[0] >= '1' && token[0] <= '9') {
		for i := range n {
			if token[i] < '0' || token[i] > '9' {
				return text(token)
			}
		}
		return decimal(token)
	}
	return text(activity.UserText([]byte(token)))
}

// reader reads attributes and keeps the first thing that is wrong with them.
type reader struct {
	attributes
	err error
}

func (r *reader) text(name string) string {
	switch v := r.attributes[name].(type) {
	case nil:
	case *types.AttributeValueMemberS:
		return v.Value
	default:
		r.wrong(name, fmt.Errorf("is %T", v))
	}
	return ""
}

func (r *reader) decimal(name string) string {
	switch v := r.attributes[name].(type) {
	case nil:
	case *types.AttributeValueMemberN:
		return v.Value
	default:
		r.wrong(name, fmt.Errorf("is %T", v))
	}
	return ""
}

func (r *reader) number(name string) int64 {
	s := r.decimal(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		r.wrong(name, err)
	}
	return n
}

func (r *reader) truth(name string) bool {
	switch v := r.attributes[name].(type) {
	case nil:
	case *types.AttributeValueMemberBOOL:
		return v.Value
	default:
		r.wrong(name, fmt.Errorf("is %T", v))
	}
	return false
}

func (r *reader) instant(name string) time.Time {
	s := r.text(name)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		r.wrong(name, err)
	}
	return t.UTC()
}

// duration is a number of milliseconds.
func (r *reader) duration(name string) time.Duration {
	return time.Duration(r.number(name)) * time.Millisecond
}

func (r *reader) wrong(name string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("attribute %s: %w", name, err)
	}
}

// readItem reads what Apply wrote. An item that something else wrote has no id.
func readItem(a attributes) (Item, error) {
	r := &reader{attributes: a}
	it := Item{Key: Key{Partition: r.text(partitionKey), Sort: r.decimal(sortKey)}}
	if it.ID = r.text(attrID); it.ID == "" {
		return it, nil
	}
	it.Rule, it.State, it.Severity = r.text(attrRule), alert.State(r.text(attrState)), alert.Severity(r.text(attrSeverity))
	it.UserID = json.RawMessage(r.text(attrToken))
	it.Count, it.Threshold = r.number(attrCount), r.number(attrThreshold)
	if key := r.text(attrKey); key != "" {
		it.Record.Key, it.Columns, it.Count = json.RawMessage(key), json.RawMessage(r.text(attrColumns)), r.number(attrEvents)
		it.AtLeast = r.truth(attrAtLeast)
	}
	it.RuleRevision, it.Mode, it.Summary, it.Runbook = r.number(attrRevision), r.text(attrMode), r.text(attrSummary), r.text(attrRunbook)
	it.WindowStart, it.WindowEnd = r.instant(attrWindowStart), r.instant(attrWindowEnd)
	it.FirstEventAt, it.LastEventAt = r.instant(attrFirst), r.instant(attrLast)
	if evidence := r.text(attrEvidence); evidence != "" {
		if err := json.Unmarshal([]byte(evidence), &it.Evidence); err != nil {
			r.wrong(attrEvidence, err)
		}
	}
	it.ArrivedAt, it.OpenedAt, it.ClosedAt = r.instant(attrArrived), r.instant(attrOpened), r.instant(attrClosed)
	it.Notification, it.NotifiedAt = Notification(r.text(attrNotification)), r.instant(attrNotified)
	if it.Notification == "" {
		it.Notification = None
	}
	it.Incident, it.SortOf, it.Counted = r.text(attrIncident), r.decimal(attrSortOf), r.number(attrCounted)
	if r.err != nil {
		return it, fmt.Errorf("alert %s: %w", it.ID, r.err)
	}
	return it, nil
}
