package post

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Reason says in its own words why there was no answer, because network errors are long and quote what the endpoint sent. ctx is the caller's context, and
// timeout is the bound of the try. Reason returns false if the error is not a network error.
func Reason(ctx context.Context, err error, timeout time.Duration) (string, bool) {
	var (
		refused *refusedError
		dns     *net.DNSError
		slow    net.Error
	)
	switch {
	case errors.As(err, &refused):
		return refused.Error(), true
	case errors.Is(err, errPublic):
		return errPublic.Error(), true
	case ctx.Err() != nil:
		return "interrupted before there was a response", true
	case errors.As(err, &dns) && dns.IsNotFound:
		return "host not found", true
	case errors.As(err, &slow) && slow.Timeout():
		return fmt.Sprintf("no response within %v", timeout), true
	case errors.As(err, &dns):
		return "cannot look up the host: the name server failed or is unavailable", true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset", true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "host is unreachable", true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed without a response", true
	}
	return reasonTLS(err)
}

func reasonTLS(err error) (string, bool) {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		cert      *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.As(err, &authority):
		return "TLS: certificate is not trusted", true
	case errors.As(err, &host):
		return "TLS: certificate is for another host", true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "TLS: certificate has expired or is not valid yet", true
	case errors.As(err, &cert):
		return "TLS: certificate is not valid", true
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "TLS: the response is not TLS; the URL may have to begin with http://", true
	case errors.As(err, &alert):
		return "TLS: handshake refused", true
	}
	return "", false
}
