package kafka

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The table in docs/kafka.md has every right.
func TestRightsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/kafka.md")
	if err != nil {
		t.Fatal(err)
	}
	names := NamesFor(DefaultTopic)
	for _, s := range Services {
		var row string
		for line := range strings.SplitSeq(string(text), "\n") {
			if strings.HasPrefix(line, "| `spate "+s+"` |") {
				row = line
			}
		}
		if row == "" {
			t.Errorf("docs/kafka.md has no row for spate %s", s)
			continue
		}
		for _, r := range names.Rights(s, "") {
			name := r.Name
			if r.Prefix {
				name += "*"
			}
			all := r.Operation == "Describe" && strings.Contains(row, "Describe the other six")
			if !strings.Contains(row, r.Operation) || !all && !strings.Contains(row, "`"+name+"`") {
				t.Errorf("the row of spate %s lacks %v: %s", s, r, row)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	write := Right{Operation: "Write", Resource: "topic", Name: "alerts"}
	for _, c := range []struct {
		err    error
		right  Right
		denied bool
		want   string
	}{
		{kerr.TopicAuthorizationFailed, write, true, "lacks Write on topic alerts"},
		{fmt.Errorf("write: %w", kerr.TopicAuthorizationFailed), write, true, "lacks Write on topic alerts"},
		{kerr.TopicAuthorizationFailed, Right{}, true, "lacks a permission on a topic"},
		{kerr.GroupAuthorizationFailed, Right{Operation: "Read", Resource: "group", Name: "g"}, true, "lacks Read on group g"},
		{kerr.TransactionalIDAuthorizationFailed, Right{Operation: "Write", Resource: "transactional-id", Name: "r-", Prefix: true}, true, "lacks Write on transactional-id r-*"},
		{kerr.ClusterAuthorizationFailed, Right{Operation: "Create", Resource: "topic", Name: "alerts"}, true, "lacks Create on topic alerts"},
		{kerr.SaslAuthenticationFailed, Right{}, true, "SPATE_SASL_USERNAME"},
		{kerr.UnsupportedSaslMechanism, Right{}, true, "SPATE_SASL_MECHANISM"},
		{syscall.ECONNREFUSED, Right{}, false, "spate up includes a broker"},
		{&net.DNSError{Err: "no such host", Name: "nohost.invalid", IsNotFound: true}, Right{}, false, "no such host; check the host names in SPATE_BROKERS (--brokers), and"},
		{syscall.ECONNREFUSED, Right{}, false, "(SPATE_BROKERS, --brokers)"},
		{errors.New("other"), write, false, "other"},
	} {
		err := Explain(c.err, c.right)
		if !errors.Is(err, c.err) || errors.Is(err, ErrDenied) != c.denied || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.err, err)
		}
		if again := Explain(err, Right{Operation: "Read", Resource: "topic", Name: "other"}); c.denied && again.Error() != err.Error() {
			t.Errorf("it is explained twice: %v", again)
		}
	}
	if Explain(nil, write) != nil {
		t.Error("no error is explained")
	}
}
