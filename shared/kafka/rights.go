package kafka

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Right is something that brokers with an authorizer must allow. Its words are those of kafka-acls.
type Right struct {
	Operation string `json:"operation"` // Read, Write, Create, Describe, DescribeConfigs
	Resource  string `json:"resource"`  // topic, group, transactional-id
	Name      string `json:"name"`
	Prefix    bool   `json:"prefix,omitempty"` // it is for all names that begin with Name
	Why       string `json:"why"`
	If        string `json:"if,omitempty"` // when it is needed; empty is always
}

// String implements fmt.Stringer.
func (r Right) String() string {
	name := r.Name
	if r.Prefix {
		name += "*"
	}
	return fmt.Sprintf("%s on %s %s", r.Operation, r.Resource, name)
}

// Services that rights are for.
const (
	Router    = "route"
	Detector  = "detect"
	Alerter   = "alert"
	Simulator = "simulate"
	Asker     = "user"
	Teller    = "alerts show"
	Explainer = "why"
	Ruler     = "rules apply"
	Decider   = "decide"
)

// Services are all of them.
var Services = []string{Router, Detector, Alerter, Simulator, Asker, Teller, Explainer, Ruler, Decider}

// InstancePrefix begins the names of routers whose name is not set, which are those of their transactions.
const InstancePrefix = "spate-router"

// Rights are the least that a service needs at brokers with an authorizer, with topics that are there already. instance is the name of the router, if
// it is set (SPATE_INSTANCE).
func (n Names) Rights(service, instance string) []Right {
	topic := func(op, name, why string) Right { return Right{Operation: op, Resource: "topic", Name: name, Why: why} }
	group := func(op, name, why string) Right { return Right{Operation: op, Resource: "group", Name: name, Why: why} }
	decisions := func(op, why string) Right {
		r := topic(op, n.Decisions, why)
		r.If = "a rule makes decisions"
		return r
	}
	// Read and Write include Describe. Every service looks whether all topics are as the pipeline needs them.
	look := func(others ...string) (out []Right) {
		for _, name := range others {
			out = append(out, topic("Describe", name, "check the topic"))
		}
		return out
	}
	switch service {
	case Router:
		txn := Right{Operation: "Write", Resource: "transactional-id", Name: InstancePrefix, Prefix: true, Why: "write exactly once"}
		if instance != "" {
			txn.Name, txn.Prefix = instance, false
		}
		return append([]Right{
			topic("Read", n.Activity, "events"),
			topic("Read", n.Rules, "the rules"),
			topic("Read", n.Keyed, "find out what has already been counted"),
			topic("Write", n.Keyed, "counts"),
			topic("Write", n.Late, "late events"),
			topic("Write", n.DLQ, "invalid events"),
			group("Read", n.RouterGroup, "share partitions, store offsets"),
			txn,
		}, look(n.Alerts, n.Table())...)
	case Detector:
		return append([]Right{
			topic("Read", n.Keyed, "counts"),
			topic("Read", n.Rules, "the rules"),
			topic("Write", n.Alerts, "alerts"),
			topic("Write", n.Table(), "the group table"),
			group("Read", n.DetectorGroup, "share partitions, store offsets"),
		}, look(n.Activity, n.Late, n.DLQ)...)
	case Alerter:
		return append([]Right{
			topic("Read", n.Alerts, "alerts"),
			group("Read", n.AlerterGroup, "share partitions, store offsets"),
			group("Describe", n.DetectorGroup, "find out which incidents have ended"),
			group("Describe", n.RouterGroup, "find out which incidents have ended"),
			decisions("Read", "the decisions in force"),
			decisions("Write", "decisions"),
			decisions("Create", "create it if it is missing"),
		}, look(n.Activity, n.Keyed, n.Late, n.DLQ, n.Table(), n.Rules)...)
	case Simulator:
		return []Right{topic("Write", n.Activity, "events")}
	case Asker:
		return []Right{
			topic("Describe", n.Keyed, "find the user's partition"),
			group("Describe", n.DetectorGroup, "find the detector that owns this partition"),
		}
	case Ruler:
		return append([]Right{
			topic("Read", n.Rules, "the rules in force"),
			topic("Write", n.Rules, "a revision of the rules"),
			topic("Describe", n.Keyed, "find out whether anything has been counted"),
			group("Describe", n.RouterGroup, "find out whether a router is running"),
		}, look(n.Activity, n.Late, n.DLQ, n.Alerts, n.Table())...)
	case Decider:
		return []Right{topic("Read", n.Decisions, "the decisions in force")}
	case Explainer:
		return []Right{
			topic("Read", n.Activity, "the events of a key"),
			topic("Read", n.Keyed, "the positions of these events"),
			topic("Read", n.Late, "late events"),
			topic("Read", n.DLQ, "invalid events"),
			topic("Read", n.Rules, "the rules in force"),
			group("Describe", n.RouterGroup, "find out which events have not been counted yet"),
		}
	case Teller:
		return []Right{topic("Read", n.Activity, "the events of an alert")}
	}
	return nil
}

// MakeRights are what a service needs besides, at the first start, to make the topics that are missing and to check the settings of those
// that are there. Without the second it works, and what does not fit is met later.
func (n Names) MakeRights() []Right {
	var out []Right
	for _, name := range n.All() {
		out = append(out, Right{Operation: "Create", Resource: "topic", Name: name, Why: "create it if it is missing"},
			Right{Operation: "DescribeConfigs", Resource: "topic", Name: name, Why: "check that its settings do not cause data loss"})
	}
	return out
}

// All are the topics of a pipeline.
func (n Names) All() []string {
	return []string{n.Activity, n.Keyed, n.Late, n.DLQ, n.Alerts, n.Table(), n.Rules}
}

// denials are the errors of brokers that do not allow something, by the resource that it is about.
var denials = map[string]error{
	"topic": kerr.TopicAuthorizationFailed, "group": kerr.GroupAuthorizationFailed, "transactional-id": kerr.TransactionalIDAuthorizationFailed, "cluster": kerr.ClusterAuthorizationFailed,
}

// ErrDenied means that brokers do not let this principal in, or do not allow something that spate needs.
var ErrDenied = errors.New("access denied")

// Explain adds to an error of a broker, or of the connection to one, what a person can do about it. right is what was asked for, if that is
// known.
func Explain(err error, right Right) error {
	if err == nil || errors.Is(err, ErrDenied) {
		return err
	}
	var first *kgo.ErrFirstReadEOF
	var name *net.DNSError
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Errorf("%w; %w: check SPATE_SASL_USERNAME and the password, or the other credentials for the mechanism", err, ErrDenied)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return fmt.Errorf("%w; %w: set SPATE_SASL_MECHANISM to a mechanism that the brokers support", err, ErrDenied)
	case errors.Is(err, kerr.IllegalSaslState):
		return fmt.Errorf("%w; %w: the brokers require a different login on this port, or none, or the login expired before it was renewed; check SPATE_SASL_MECHANISM", err, ErrDenied)
	case errors.As(err, &first):
		return fmt.Errorf("%w; does this port require TLS (SPATE_TLS) or a login (SPATE_SASL_MECHANISM)?", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w; nothing is listening at this address: is the broker running, and is this its port (SPATE_BROKERS, --brokers)? spate up includes a broker", err)
	case errors.As(err, &name) && name.IsNotFound:
		return fmt.Errorf("%w; check the host names in SPATE_BROKERS (--brokers), and those that the brokers advertise (advertised.listeners)", err)
	case tlsAnswer(err):
		return fmt.Errorf("%w; the port seems to require TLS: set SPATE_TLS (--tls)", err)
	}
	for resource, denial := range denials {
		if !errors.Is(err, denial) {
			continue
		}
		what := fmt.Sprintf("a permission on a %s", resource)
		if right.Resource == resource || right.Operation == "Create" {
			what = right.String()
		}
		return fmt.Errorf("%w; %w: the principal lacks %s; for the permissions that it needs, run spate doctor --acls", err, ErrDenied, what)
	}
	return err
}

// tlsAnswer reports whether err is what the client makes of the alert that a port with TLS answers a request without it with.
func tlsAnswer(err error) bool {
	return strings.Contains(err.Error(), "plaintext connection speaking to a tls endpoint")
}
