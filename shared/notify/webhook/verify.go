package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The headers of a call.
const (
	HeaderID        = standardwebhooks.HeaderWebhookID
	HeaderTimestamp = standardwebhooks.HeaderWebhookTimestamp
	HeaderSignature = standardwebhooks.HeaderWebhookSignature
)

// Tolerance is how far a call's timestamp may be from the receiver's clock, in either direction.
const Tolerance = 5 * time.Minute

// The reasons for which a call is not accepted.
var (
	ErrHeaders   = errors.New("headers are missing or invalid")
	ErrTimestamp = errors.New("timestamp is too far from the current time")
	ErrSignature = errors.New("no signature matches")
)

// Verify reports whether a call was signed with one of the secrets, within Tolerance of now. body is the body as received. The
// error wraps ErrHeaders, ErrTimestamp or ErrSignature and contains neither a secret nor a signature.
func Verify(secrets []Secret, h http.Header, body []byte, now time.Time) error {
	for _, name := range []string{HeaderID, HeaderTimestamp, HeaderSignature} {
		if h.Get(name) == "" {
			return fmt.Errorf("verify call: %w: %s is missing", ErrHeaders, name)
		}
	}
	at, err := parseTimestamp(h.Get(HeaderTimestamp))
	if err != nil {
		return fmt.Errorf("verify call: %w: %s: %w", ErrHeaders, HeaderTimestamp, err)
	}
	// The library compares with its own clock, so it is not asked about the time.
	switch apart := now.Unix() - at; {
	case apart > int64(Tolerance/time.Second):
		return fmt.Errorf("verify call: %w: it is %d s old", ErrTimestamp, apart)
	case apart < -int64(Tolerance/time.Second):
		return fmt.Errorf("verify call: %w: it is %d s in the future", ErrTimestamp, -apart)
	}
	for _, s := range secrets {
		if s.signer == nil {
			continue
		}
		if err := s.signer().VerifyIgnoringTimestamp(body, h); err == nil {
			return nil
		}
	}
	return fmt.Errorf("verify call: %w", ErrSignature)
}

// parseTimestamp reads Unix seconds: digits alone, of a time that has a year of four digits.
func parseTimestamp(text string) (int64, error) {
	const maxDigits = 11
	if len(text) > maxDigits {
		return 0, fmt.Errorf("has more than %d characters", maxDigits)
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, errors.New("is not a number of seconds")
	}
	return int64(n), nil
}
