package stream

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrGzip: a record begins as gzip does, and cannot be unpacked.
var ErrGzip = errors.New("gzip data is malformed or too large")

// MaxUnpacked bounds what a record may take when it is decompressed: Kinesis takes records of up to 10 MiB, and text packs ten to one.
const MaxUnpacked = 64 << 20

// Unpack appends to out the events that a record holds: itself, or those that the Kinesis Producer Library put into it; what is packed with gzip
// is unpacked, and a subscription of CloudWatch Logs gives the messages of its log events. An error says what cannot be unpacked; nothing is
// appended then.
func Unpack(data []byte, out [][]byte) ([][]byte, error) {
	before := len(out)
	out, err := Deaggregate(data, out)
	if err != nil {
		return out, err
	}
	for i := before; i < len(out); i++ {
		if !bytes.HasPrefix(out[i], []byte{0x1f, 0x8b}) {
			continue
		}
		plain, err := gunzip(out[i])
		if err != nil {
			return out[:before], err
		}
		events := [][]byte{plain}
		if messages, ok := logEvents(plain); ok {
			events = messages
		}
		out = append(out[:i], append(events, out[i+1:]...)...)
		i += len(events) - 1
	}
	return out, nil
}

func gunzip(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGzip, err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, MaxUnpacked+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGzip, err)
	}
	if len(plain) > MaxUnpacked {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrGzip, MaxUnpacked)
	}
	return plain, nil
}

// logEvents returns the messages of a record of a subscription of CloudWatch Logs. A control message has none: it is sent to see whether the stream is
// there.
func logEvents(text []byte) (messages [][]byte, ok bool) {
	if !bytes.Contains(text[:min(len(text), 4096)], []byte(`"messageType"`)) {
		return nil, false
	}
	var s struct {
		MessageType string `json:"messageType"`
		LogEvents   []struct {
			Message string `json:"message"`
		} `json:"logEvents"`
	}
	if json.Unmarshal(text, &s) != nil {
		return nil, false
	}
	switch s.MessageType {
	case "DATA_MESSAGE":
		for _, e := range s.LogEvents {
			messages = append(messages, []byte(e.Message))
		}
		return messages, true
	case "CONTROL_MESSAGE":
		return nil, true
	}
	return nil, false
}
