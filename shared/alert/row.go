package alert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxRow bounds a key and the columns, in bytes each, and maxColumn the name of a column.
	maxRow    = 64 << 10
	maxColumn = 512
	// maxText bounds a summary and a runbook, in bytes each.
	maxText = 2000
	// maxRule bounds the name of a rule, in bytes.
	maxRule = 63
)

// reserved are the names that a column cannot have: those of members of every alert. Names that differ in case only are refused as well: many
// decoders, Go's among them, take them for the same. They are those of package rule, which this one does not import.
var reserved = []string{
	"id", "rule", "state", "severity", "rule_revision", "mode", "summary", "runbook", "quiet_ms", "decision", "key", "values", "user", "threshold", "at_least", "event_count",
	"window_start", "window_end", "first_event_at", "last_event_at", "evidence",
}

// Reserved reports whether a column cannot have a name.
func Reserved(name string) bool {
	return slices.ContainsFunc(reserved, func(r string) bool { return strings.EqualFold(r, name) })
}

// head, user and tail are what is around the columns in the JSON of a record with a key.
type (
	head struct {
		ID           string          `json:"id"`
		Rule         string          `json:"rule"`
		State        State           `json:"state"`
		Severity     Severity        `json:"severity"`
		RuleRevision int64           `json:"rule_revision,omitempty"`
		Mode         string          `json:"mode,omitempty"`
		Summary      string          `json:"summary,omitempty"`
		Runbook      string          `json:"runbook,omitempty"`
		QuietMS      int64           `json:"quiet_ms,omitempty"`
		Decision     *Decision       `json:"decision,omitempty"`
		Key          json.RawMessage `json:"key"`
	}
	user struct {
		UserID json.RawMessage `json:"user_id,omitempty"`
		User   string          `json:"user,omitempty"`
	}
	tail struct {
		AtLeast      bool      `json:"at_least,omitempty"`
		EventCount   int64     `json:"event_count"`
		WindowStart  time.Time `json:"window_start"`
		WindowEnd    time.Time `json:"window_end"`
		FirstEventAt time.Time `json:"first_event_at"`
		LastEventAt  time.Time `json:"last_event_at"`
		Evidence     Evidence  `json:"evidence"`
	}
)

// encodeRow is MarshalJSON of a record with a key.
func (r Record) encodeRow() ([]byte, error) {
	of := user{UserID: r.UserID, User: r.User}
	if !r.IsUser() || hasMember(r.Columns, "user_id") {
		of.UserID = nil
	}
	b, err := Join([]byte("{}"),
		head{ID: r.ID, Rule: r.Rule, State: r.State, Severity: r.Severity, RuleRevision: r.RuleRevision, Mode: r.Mode, Summary: r.Summary, Runbook: r.Runbook, QuietMS: r.QuietMS, Decision: r.Decision, Key: r.Key},
		of, r.Columns,
		tail{r.AtLeast, r.Count, r.WindowStart, r.WindowEnd, r.FirstEventAt, r.LastEventAt, r.Evidence})
	if err != nil {
		return nil, fmt.Errorf("encode alert %s: %w", r.ID, err)
	}
	return b, nil
}

// errNoKey: a record is one of the rule without a rules file.
var errNoKey = errors.New("record has no key")

// parseRow decodes a record with a key.
func parseRow(value []byte) (Record, error) {
	var r Record
	known := map[string]any{
		"id": &r.ID, "rule": &r.Rule, "state": &r.State, "severity": &r.Severity, "rule_revision": &r.RuleRevision, "mode": &r.Mode, "summary": &r.Summary, "runbook": &r.Runbook, "quiet_ms": &r.QuietMS, "decision": &r.Decision,
		"key": &r.Key, "user": &r.User, "at_least": &r.AtLeast, "event_count": &r.Count, "window_start": &r.WindowStart, "window_end": &r.WindowEnd,
		"first_event_at": &r.FirstEventAt, "last_event_at": &r.LastEventAt, "evidence": &r.Evidence,
	}
	list, err := members(value)
	if err != nil {
		return Record{}, err
	}
	if !slices.ContainsFunc(list, func(m member) bool { return m.name == "key" }) {
		return Record{}, errNoKey
	}
	var columns []member
	seen := make(map[string]bool, len(list))
	for _, m := range list {
		to, ok := known[m.name]
		switch {
		case seen[m.name]:
			return Record{}, fmt.Errorf("%q appears twice", m.name)
		case !ok:
			columns = append(columns, m)
		case m.name == "key":
			r.Key = slices.Clone(m.value)
		default:
			if err := json.Unmarshal(m.value, to); err != nil {
				return Record{}, fmt.Errorf("%s: %w", m.name, err)
			}
		}
		seen[m.name] = true
	}
	if r.UserID, err = Token(r.Key); err != nil {
		return Record{}, err
	}
	r.Columns = object(slices.DeleteFunc(columns, func(m member) bool { return r.has(m) }))
	return r, nil
}

// has reports whether the record has a column anyway: the user.
func (r *Record) has(m member) bool {
	return m.name == "user_id" && r.IsUser() && bytes.Equal(m.value, r.UserID)
}

// SetRow gives the record the key and columns of a rule's row: the names of the key columns, the key's token, and the columns as members of a
// JSON object. What the record has anyway, window_start, window_end and the user, is left out of the columns. What is not valid is left for Check.
func (r *Record) SetRow(names []string, token string, columns []byte) {
	values := []json.RawMessage{json.RawMessage(token)}
	if len(names) != 1 {
		values = nil
		if json.Unmarshal([]byte(token), &values) != nil || len(values) != len(names) {
			values = make([]json.RawMessage, len(names))
		}
	}
	var key []member
	for i, name := range names {
		for n := 2; slices.ContainsFunc(key, func(m member) bool { return m.name == name }); n++ {
			name = names[i] + strconv.Itoa(n) // two expressions may have one alias
		}
		key = append(key, member{name, values[i]})
	}
	r.Key, r.UserID = object(key), json.RawMessage(token)
	list, err := members(slices.Concat([]byte{'{'}, columns, []byte{'}'}))
	if err != nil {
		r.Columns = columns
		return
	}
	r.Columns = object(slices.DeleteFunc(list, func(m member) bool {
		return m.name == "window_start" || m.name == "window_end" || r.has(m)
	}))
}

// IsUser reports whether the alert is about a user: whether its key is user_id alone, and the token that of a user.
func (r *Record) IsUser() bool {
	const before = `{"user_id":`
	return r.Key == nil || canonical(r.UserID) && len(r.Key) == len(before)+len(r.UserID)+1 && strings.HasPrefix(string(r.Key), before)
}

// Token is the token of a key, a JSON object: the value of its only member, or the JSON array of those of all.
func Token(key json.RawMessage) (json.RawMessage, error) {
	list, err := members(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if len(list) == 1 {
		return list[0].value, nil
	}
	token := []byte{'['}
	for i, m := range list {
		if i > 0 {
			token = append(token, ',')
		}
		token = append(token, m.value...)
	}
	return append(token, ']'), nil
}

// KeyLabel is a key, a JSON object, for people: of several columns, each with its name, as in ip=10.0.0.1 product_id=5. A string is in quotes only if
// it could be taken for something else.
func KeyLabel(key json.RawMessage) (string, error) {
	list, err := members(key)
	if err != nil || len(list) < 2 {
		token, err := Token(key)
		return userText(token), err
	}
	var out []string
	for _, m := range list {
		text := userText(m.value)
		if text == "" || strings.ContainsAny(text, ` ="`) || json.Valid([]byte(text)) {
			text = string(m.value)
		}
		out = append(out, m.name+"="+text)
	}
	return strings.Join(out, " "), nil
}

// KeyNames are the names of the columns of a key.
func KeyNames(key json.RawMessage) ([]string, error) {
	list, err := members(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = m.name
	}
	return names, nil
}

// CheckRow returns what is wrong with the rule, key, columns and count of a record that has a key.
func (r *Record) CheckRow() error {
	if !IsRule(r.Rule) {
		return fmt.Errorf("rule: %.80q is not a rule name: use a lower-case letter, followed by up to %d lower-case letters, digits, dashes and underscores", r.Rule, maxRule-1)
	}
	key, err := checkObject(r.Key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	for _, m := range key {
		if !isScalar(m.value) {
			return fmt.Errorf("key: %.80q: %.100q is not null, a boolean, a number or a string in canonical form", m.name, m.value)
		}
	}
	if token, _ := Token(r.Key); !bytes.Equal(token, r.UserID) {
		return fmt.Errorf("key: %.100q is not the key of %.100q", r.UserID, r.Key)
	}
	columns, err := checkObject(r.Columns)
	if err != nil {
		return fmt.Errorf("columns: %w", err)
	}
	for _, m := range columns {
		if Reserved(m.name) || r.has(m) {
			return fmt.Errorf("columns: the name %.80q is reserved for a standard alert member", m.name)
		}
	}
	switch {
	case r.Threshold != 0:
		return fmt.Errorf("threshold: is %d, but a record with a key must not have a threshold", r.Threshold)
	case r.Count < 1:
		return fmt.Errorf("event_count: %d is below 1", r.Count)
	}
	return nil
}

// IsRule reports whether a text can be the name of a rule.
func IsRule(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	return name != "" && len(name) <= maxRule && strings.Contains(letters, name[:1]) && strings.Trim(name, letters+"0123456789_-") == ""
}

// checkObject returns the members of an object that is written as object writes it.
func checkObject(value json.RawMessage) ([]member, error) {
	if len(value) > maxRow {
		return nil, fmt.Errorf("the length is %d bytes; the maximum is %d", len(value), maxRow)
	}
	if !utf8.Valid(value) {
		return nil, fmt.Errorf("%.100q is not UTF-8", value)
	}
	list, err := members(value)
	if err != nil {
		return nil, fmt.Errorf("%.100q is not a JSON object", value)
	}
	seen := make(map[string]bool, len(list))
	for _, m := range list {
		switch {
		case m.name == "" || len(m.name) > maxColumn:
			return nil, fmt.Errorf("the name %.80q is %d bytes long; a name must be 1 to %d bytes long", m.name, len(m.name), maxColumn)
		case seen[m.name]:
			return nil, fmt.Errorf("%.80q appears twice", m.name)
		}
		seen[m.name] = true
	}
	if !bytes.Equal(object(list), value) {
		return nil, fmt.Errorf("%.100q is not in canonical form", value)
	}
	return list, nil
}

// isScalar reports whether a valid JSON value is one of a key: a string escapes only what has to be escaped.
func isScalar(value json.RawMessage) bool {
	if len(value) == 0 || value[0] == '{' || value[0] == '[' {
		return false
	}
	for rest := value; ; {
		at := bytes.IndexByte(rest, '\\')
		switch {
		case at < 0:
			return true
		case rest[at+1] == 'u':
			code, err := strconv.ParseUint(string(rest[at+2:at+6]), 16, 16)
			lower := bytes.Equal(bytes.ToLower(rest[at+2:at+6]), rest[at+2:at+6])
			if err != nil || !lower || code >= 0x20 && code != 0x2028 && code != 0x2029 && code != utf8.RuneError {
				return false
			}
		case rest[at+1] == '/':
			return false
		}
		rest = rest[at+2:]
	}
}

// member is one of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members returns those of a JSON object, in order, with compact values.
func members(value []byte) ([]member, error) {
	if !json.Valid(value) {
		var v any
		return nil, json.Unmarshal(value, &v) // says what is wrong
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var list []member
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: t.(string)}
		if err := dec.Decode(&m.value); err != nil {
			return nil, err
		}
		if c := m.value[0]; c == '{' || c == '[' {
			var b bytes.Buffer
			if err := json.Compact(&b, m.value); err != nil {
				return nil, err
			}
			m.value = b.Bytes()
		}
		list = append(list, m)
	}
	return list, nil
}

// hasMember reports whether an object has a member with the name.
func hasMember(object json.RawMessage, name string) bool {
	if !bytes.Contains(object, []byte(name)) {
		return false
	}
	list, _ := members(object)
	return slices.ContainsFunc(list, func(m member) bool { return m.name == name })
}

// object is the inverse of members.
func object(list []member) json.RawMessage {
	b := []byte{'{'}
	for i, m := range list {
		if i > 0 {
			b = append(b, ',')
		}
		name, _ := marshal(m.name) // no string is refused
		b = append(append(append(b, name...), ':'), m.value...)
	}
	return append(b, '}')
}
