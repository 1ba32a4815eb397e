package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"spate/shared/alert"
	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
	"spate/shared/window"
)

// output is what is written to other streams: alerts, and events that are set aside.
type output struct {
	cfg    *Config // the session's
	alerts *stream.Producer
	aside  *stream.Producer // nil: events set aside are logged
	outbox []stream.Entry   // alerts that are not written yet
	asides []stream.Entry
}

// newOutput writes as long as the lease is held.
func newOutput(cfg *Config, held *lease.Held) output {
	to := func(name string) *stream.Producer {
		return &stream.Producer{API: cfg.Kinesis, Stream: name, Log: cfg.Log, Before: held.Valid}
	}
	o := output{cfg: cfg, alerts: to(cfg.AlertsStream)}
	if cfg.AsideStream != "" {
		o.aside = to(cfg.AsideStream)
	}
	return o
}

// queue encodes the alerts of verdicts.
func (s *session) queue(verdicts []window.Verdict) error {
	for _, v := range verdicts {
		r := s.teller.Record(v)
		if !slices.Contains(s.cfg.Transitions, r.State) {
			continue
		}
		r.Evidence = alert.Evidence{Stream: s.cfg.Stream, Shards: make(map[string]alert.SequenceRange)}
		for _, e := range v.Pane.Evidence() {
			sh := s.numbered[e.Partition]
			r.Evidence.Shards[sh.id] = alert.SequenceRange{First: sh.seqs.At(e.First), Last: sh.seqs.At(e.Last)}
		}
		value, err := r.Encode()
		if err != nil {
			return err
		}
		entry := stream.Entry{Key: partitionKey(r.KeyText()), Data: value}
		if n := len(entry.Key) + len(value); n > stream.MaxEntryBytes {
			s.metrics.tooLarge.Inc()
			s.cfg.Log.Error("an alert was not written because it exceeds the maximum size of a Kinesis record", "rule", r.Rule, "id", r.ID, "state", string(r.State), "bytes", n, "max_bytes", stream.MaxEntryBytes)
			continue
		}
		s.outbox = append(s.outbox, entry)
		s.metrics.alerts.WithLabelValues(r.Rule, string(r.State)).Inc()
		s.reports.alert(r.State)
	}
	return nil
}

// partitionKey is a key of a stream that stands for the key of an alert: itself, or a digest if a stream does not take it, as it is empty or too long.
func partitionKey(text string) string {
	if n := utf8.RuneCountInString(text); n >= 1 && n <= stream.MaxKeyLength && utf8.ValidString(text) {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// emit writes the alerts that wait, and notes where they are for the state that is saved next.
func (s *session) emit(ctx context.Context) error {
	if len(s.outbox) == 0 {
		return nil
	}
	places, err := s.alerts.Put(ctx, s.outbox)
	s.st.Wrote(places)
	if err != nil {
		return fmt.Errorf("write alerts: %w", err)
	}
	s.st.Alerts += int64(len(s.outbox))
	s.outbox = s.outbox[:0]
	return nil
}

// aside is a record of the stream of events that are late or none.
type aside struct {
	Reason         string `json:"reason"`
	Stream         string `json:"stream"`
	ShardID        string `json:"shard_id"`
	SequenceNumber string `json:"sequence_number"`
	WindowStartMS  *int64 `json:"window_start_ms,omitempty"` // late: the window that was missed
	LateByMS       *int64 `json:"late_by_ms,omitempty"`      // late: by how much the watermark had passed the window's last instant
	Event          string `json:"event,omitempty"`           // as text, if it is some
	Data           []byte `json:"data,omitempty"`            // base64, if it is none, or text that is too long in JSON
	Truncated      int    `json:"truncated,omitempty"`       // the length of what was too long to be kept whole
}

// maxAside is how much of an event is kept: a record of Kinesis has room for 1 MiB, and base64 takes a third more.
const maxAside = 512 << 10

// setAside keeps an event of a shard that is not counted.
func (o *output) setAside(sh *shard, seq string, data []byte, a aside) {
	if o.aside == nil {
		o.cfg.Log.Debug("event set aside", "reason", a.Reason, "stream", o.cfg.Stream, "shard", sh.id, "sequence_number", seq)
		return
	}
	a.Stream, a.ShardID, a.SequenceNumber = o.cfg.Stream, sh.id, seq
	if len(data) > maxAside {
		a.Truncated, data = len(data), data[:maxAside]
	}
	if utf8.Valid(data) {
		a.Event = string(data)
	} else {
		a.Data = data
	}
	b, err := json.Marshal(a)
	if err == nil && len(b)+len(sh.id) > stream.MaxEntryBytes { // escapes make text up to six times as long
		a.Event, a.Data = "", data
		b, err = json.Marshal(a)
	}
	if err != nil {
		o.cfg.Log.Error("cannot encode event to set aside", "error", err, "shard", sh.id, "sequence_number", seq)
		return
	}
	o.asides = append(o.asides, stream.Entry{Key: seq, Data: b}) // over all shards: a flood of bad input is not one shard's
}

// writeAside writes what was set aside.
func (o *output) writeAside(ctx context.Context) error {
	if len(o.asides) == 0 {
		return nil
	}
	if _, err := o.aside.Put(ctx, o.asides); err != nil {
		return err
	}
	o.asides = o.asides[:0]
	return nil
}
