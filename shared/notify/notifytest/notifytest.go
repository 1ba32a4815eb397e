// Package notifytest supports the tests of all adapters of notify: it has a message of every type, messages with hostile text in every field, servers that
// misbehave, and a check that no secret is printed.
package notifytest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
)

// The subjects of the messages.
const (
	IncidentID = "0123456789abcdef0123456789abcdef"
	AlertID    = "fedcba9876543210fedcba9876543210"
)

// At is the time of the messages.
var At = time.Date(2026, 9, 1, 12, 3, 3, 0, time.UTC)

var noon = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// Incident returns a message about the incident with IncidentID. JavaScript cannot represent its number of events exactly.
func Incident(messageType string) notify.Message {
	i := incident.Incident{
		ID: IncidentID, Rule: "card-testing", State: incident.StateOpen, Severity: alert.Warning, Summary: "10.0.0.1 tried 31 cards", Runbook: "https://runbooks.example/cards",
		Key: json.RawMessage(`{"ip":"10.0.0.1","product_id":5}`), OpenedAt: At.Add(-time.Minute), FirstWindowStart: noon, LastWindowEnd: noon.Add(2 * time.Minute),
		Windows: 2, Events: 9007200134741019, Peak: 31, AlertID: AlertID,
	}
	id := IncidentID + "_opened"
	switch messageType {
	case notify.TypeIncidentEscalated:
		i.Severity, i.Escalations, i.EscalatedAt, id = alert.Critical, 1, At, IncidentID+"_escalated_1"
	case notify.TypeIncidentResolved:
		i.Severity, i.State, i.ResolvedAt, id = alert.Critical, incident.StateResolved, At, IncidentID+"_resolved"
	}
	return notify.Message{ID: id, Type: messageType, At: At, Data: must(i.Encode())}
}

// Alert returns a message about the alert with AlertID.
func Alert(messageType string) notify.Message {
	r := alert.Record{
		ID: AlertID, Rule: alert.Burst, State: alert.State(strings.TrimPrefix(messageType, "alert.")), Severity: alert.Warning, UserID: json.RawMessage(`9007200134741019`),
		Count: 7, Threshold: 5, WindowStart: noon, WindowEnd: noon.Add(10 * time.Second), FirstEventAt: noon, LastEventAt: noon.Add(time.Second),
		Evidence: alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 1, Last: 9}}},
	}
	return notify.Message{ID: notify.IDOf(r), Type: messageType, At: At, Data: must(r.Encode())}
}

// Row returns a message about an alert of a rule with a key and columns.
func Row(messageType string) notify.Message {
	r := alert.Record{
		ID: AlertID, Rule: "card-testing", State: alert.State(strings.TrimPrefix(messageType, "alert.")), Severity: alert.Critical, Summary: "10.0.0.1 tried 31 cards",
		UserID: json.RawMessage(`"10.0.0.1"`), Key: json.RawMessage(`{"ip":"10.0.0.1"}`), Columns: json.RawMessage(`{"ip":"10.0.0.1","cards":31}`),
		Count: 40, WindowStart: noon, WindowEnd: noon.Add(time.Minute), FirstEventAt: noon, LastEventAt: noon.Add(time.Second),
	}
	return notify.Message{ID: notify.IDOf(r), Type: messageType, At: At, Data: must(r.Encode())}
}

// Digest returns a digest about incidents or alerts.
func Digest(messageType string) notify.Message {
	d := notify.NewDigester(noon, noon.Add(time.Minute))
	if messageType == notify.TypeIncidentDigest {
		var i incident.Incident
		if err := json.Unmarshal(Incident(notify.TypeIncidentOpened).Data, &i); err != nil {
			panic(err)
		}
		d.Add(notify.Held{Type: notify.TypeIncidentOpened, Incident: &i})
		d.Add(notify.Held{Type: notify.TypeIncidentResolved, Incident: &i})
	} else {
		var r alert.Record
		if err := json.Unmarshal(Alert(notify.TypeOpened).Data, &r); err != nil {
			panic(err)
		}
		d.Add(notify.Held{Type: notify.TypeOpened, Alert: &r})
		d.Add(notify.Held{Type: notify.TypeClosed, Alert: &r})
	}
	return notify.Message{ID: "digest_1", Type: messageType, At: At, Data: must(d.Data(func(notify.Digest) string { return "https://grafana.example/d/x" }))}
}

// Test returns a test message.
func Test() notify.Message {
	return notify.Message{ID: "test_1", Type: notify.TypeTest, At: At, Data: json.RawMessage(`{"endpoint":"pager","text":"test message: this is not an alert"}`)}
}

// Messages returns a message of every type, and alerts of both forms.
func Messages() []notify.Message {
	return []notify.Message{
		Incident(notify.TypeIncidentOpened), Incident(notify.TypeIncidentEscalated), Incident(notify.TypeIncidentResolved), Digest(notify.TypeIncidentDigest),
		Alert(notify.TypeOpened), Alert(notify.TypeRaised), Alert(notify.TypeClosed), Row(notify.TypeOpened), Row(notify.TypeRaised), Row(notify.TypeClosed),
		Digest(notify.TypeDigest), Test(),
	}
}

// Texts are texts that an attacker could put into an event to break the programs that show it.
func Texts() []string {
	return []string{
		"\x00\x1b[31m\x07\x7f\u0085", "a\r\nBcc: x@evil.example\r\n\r\nbody", "\u202egnp.exe\u2066\u200b\u2028", `"},"routing_key":"x`,
		"<!channel> <@U123|x> <https://evil.example|bank> &amp; *b* _i_ `c` ~s~ > q", "<script>alert(1)</script>", "{{.}} {{template `x`}} ${HOME} %s %n",
		strings.Repeat("0123456789", 1000), strings.Repeat("<&>", 3400), strings.Repeat("😀", 2500), "\ufeff\ufffd\u00ad\u3164", "=?utf-8?q?x?= \\ \\n", ".\r\n.\r\n",
	}
}

// Hostile returns messages of every type with [Texts] in every text field.
func Hostile() (out []notify.Message) {
	for _, text := range Texts() {
		quoted := must(json.Marshal(text))
		for _, m := range Messages() {
			var data any
			if err := json.Unmarshal(m.Data, &data); err != nil {
				panic(err)
			}
			data = spoil(data, "", text)
			// Keys and names of rules that are text and are where none was.
			m.Data = must(json.Marshal(data))
			out = append(out, m)
			if m.Type == notify.TypeOpened {
				m.Data = json.RawMessage(fmt.Sprintf(`{"id":%q,"rule":%s,"severity":%s,"key":{%s:%s,"b":%s},%s:%s,"event_count":1}`, AlertID, quoted, quoted, quoted, quoted, quoted, quoted, quoted))
				out = append(out, m)
			}
		}
	}
	return out
}

// spoil puts a text into every string but ids and times, without which a message is not one.
func spoil(v any, name, text string) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = spoil(v[k], k, text)
		}
		return v
	case []any:
		for i := range v {
			v[i] = spoil(v[i], name, text)
		}
		return v
	case string:
		if name == "id" || name == "since" || name == "until" || strings.HasSuffix(name, "_at") || strings.HasPrefix(name, "window_") || strings.HasSuffix(name, "_start") || strings.HasSuffix(name, "_end") {
			return v
		}
		return text
	}
	return v
}

func must[T ~[]byte](b T, err error) json.RawMessage {
	if err != nil {
		panic(err)
	}
	return json.RawMessage(b)
}
