package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Handshake connects to a broker, shakes hands, and returns what was agreed.
func (s *Client) Handshake(ctx context.Context, address string) (tls.ConnectionState, error) {
	if s == nil || s.material == nil {
		return tls.ConnectionState{}, errors.New("TLS is not configured")
	}
	conn, err := s.material.dial(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*explained).Conn.(*tls.Conn).ConnectionState(), nil
}

// Certificate is that of this client, nil without one.
func (s *Client) Certificate() *x509.Certificate {
	if s == nil || s.material == nil {
		return nil
	}
	s.material.mu.Lock()
	defer s.material.mu.Unlock()
	if s.material.cert == nil {
		return nil
	}
	return s.material.cert.Leaf
}

// maxAnswer bounds the answer of a broker to the question of its mechanisms.
const maxAnswer = 64 << 10

// Mechanisms asks a broker with which mechanisms one can log in at an address. Clients do not pass on what a broker says that does not have theirs.
func (s *Client) Mechanisms(ctx context.Context, address string) ([]string, error) {
	dial := dialer.DialContext
	if s != nil && s.material != nil {
		dial = s.material.dial
	}
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(shakeTimeout)); err != nil {
		return nil, err
	}
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = 1, "?"
	const id = 1
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("spate")).AppendRequest(nil, req, id)); err != nil {
		return nil, err
	}
	answer, err := readAnswer(conn)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	if len(answer) < 4 || binary.BigEndian.Uint32(answer) != id {
		return nil, errors.New("response does not match the request")
	}
	err = resp.ReadFrom(answer[4:])
	return resp.SupportedMechanisms, err
}

func readAnswer(conn net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxAnswer {
		return nil, fmt.Errorf("invalid response size: %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(conn, b)
	return b, err
}
