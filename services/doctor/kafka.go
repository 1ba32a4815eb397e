package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
	"spate/shared/window"
)

const (
	askTimeout = 10 * time.Second
	// expiresSoon is how long before its end a certificate is told of.
	expiresSoon = 14 * 24 * time.Hour
	// skew is how far the broker's clock may be ahead of this machine's before it is told of.
	skew = time.Second
)

// exam is the look at one cluster.
type exam struct {
	cfg   Config
	names kafka.Names
	tell  teller
	cl    *kgo.Client
	adm   *kadm.Client
	lists *kmsg.MetadataResponse
}

// Kafka looks at the brokers and at what a pipeline needs of them, and passes on what it finds as it finds it.
func Kafka(ctx context.Context, cfg Config, tell func(Finding)) {
	e := &exam{cfg: cfg, names: cfg.Layout.Names, tell: tell}
	e.certificates(ctx)
	cl, err := kgo.NewClient(cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(cfg.Log)), kgo.RequestRetries(1), kgo.RetryTimeout(askTimeout))...)
	if err != nil {
		e.tell.say(Failed, "brokers", "", "%v", err)
		return
	}
	defer cl.Close()
	e.cl, e.adm = cl, kadm.NewClient(cl)
	if !e.brokers(ctx) {
		return
	}
	e.rights(ctx)
	e.topics(ctx)
	e.limits(ctx)
	e.clock(ctx)
	e.transactions(ctx)
	e.setAside(ctx)
	e.groups(ctx)
}

// certificates shakes hands with the seed brokers.
func (e *exam) certificates(ctx context.Context) {
	s := e.cfg.Kafka.Security
	if !s.Config().TLS.Enabled {
		if s.Config().SASL.Mechanism != "" {
			e.tell.say(Warning, "tls", "set SPATE_TLS (--tls), at the port that speaks it", "connections are not encrypted")
		}
		return
	}
	for _, b := range e.cfg.Kafka.Brokers {
		state, err := s.Handshake(ctx, b)
		if err != nil {
			e.tell.say(Failed, "tls", "", "%v", err)
			continue
		}
		ends := state.PeerCertificates[0].NotAfter
		text := fmt.Sprintf("%s speaks %s, its certificate is good until %s", b, tls.VersionName(state.Version), ends.UTC().Format(time.DateOnly))
		if left := time.Until(ends); left < expiresSoon {
			e.tell.say(Warning, "tls", "have the broker's certificate renewed; spate takes the new one without a restart", "%s, in %v", text, left.Round(time.Hour))
			continue
		}
		e.tell.ok("tls", "%s", text)
	}
	if cert := s.Certificate(); cert != nil {
		ends := cert.NotAfter
		switch left := time.Until(ends); {
		case left < 0:
			e.tell.say(Failed, "tls", "put a new certificate and key in their files (SPATE_TLS_CERT_FILE, SPATE_TLS_KEY_FILE); spate reads them again by itself", "the client certificate of %s has expired at %s", cert.Subject, ends.UTC().Format(time.RFC3339))
		case left < expiresSoon:
			e.tell.say(Warning, "tls", "put a new certificate and key in their files; spate reads them again by itself", "the client certificate of %s expires at %s", cert.Subject, ends.UTC().Format(time.RFC3339))
		default:
			e.tell.ok("tls", "the client certificate of %s is good until %s", cert.Subject, ends.UTC().Format(time.DateOnly))
		}
	}
}

// brokers reports whether the cluster answers. It logs in, and connects to every broker under the name that the cluster tells.
func (e *exam) brokers(ctx context.Context) bool {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	for _, n := range e.names.All() {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(n)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(actx, e.cl)
	if err != nil {
		check := "brokers"
		if errors.Is(kafka.Explain(err, kafka.Right{}), kafka.ErrDenied) {
			check = "login"
		}
		fix := ""
		if errors.Is(err, kerr.UnsupportedSaslMechanism) {
			if has, err := e.cfg.Kafka.Security.Mechanisms(ctx, e.cfg.Kafka.Brokers[0]); err == nil {
				fix = "the broker has " + strings.Join(has, ", ")
			}
		}
		if strings.Contains(err.Error(), "EOF") && e.cfg.Kafka.Security.Config().SASL.Mechanism != "" {
			fix = "the broker has ended the connection, as one does that asks for no login at this port: take the port that does, or leave SASL out (SPATE_SASL_MECHANISM)"
		}
		e.tell.say(Failed, check, fix, "%s: %v", strings.Join(e.cfg.Kafka.Brokers, ","), kafka.Explain(err, kafka.Right{}))
		return false
	}
	e.lists = resp
	if m := e.cfg.Kafka.Security.Config().SASL.Mechanism; m != "" {
		who := e.cfg.Kafka.Security.Config().SASL.Username
		if who != "" {
			who = " as " + who
		}
		e.tell.ok("login", "%s%s", m, who)
	}
	if len(resp.Brokers) == 0 {
		e.tell.say(Failed, "brokers", "", "%s: it answers, and names no broker of its cluster", strings.Join(e.cfg.Kafka.Brokers, ","))
	}
	reached := 0
	for _, b := range resp.Brokers {
		bctx, cancel := context.WithTimeout(ctx, askTimeout)
		_, err := e.cl.Broker(int(b.NodeID)).RetriableRequest(bctx, kmsg.NewPtrApiVersionsRequest())
		cancel()
		if err != nil {
			e.tell.say(Failed, "brokers", "the cluster's advertised.listeners must be addresses that can be reached from here", "broker %d calls itself %s, where it does not answer: %v",
				b.NodeID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), kafka.Explain(err, kafka.Right{}))
			continue
		}
		reached++
	}
	if reached > 0 {
		e.tell.ok("brokers", "%d of %d answer", reached, len(resp.Brokers))
	}
	return reached > 0
}

// found returns what the cluster has told of a topic.
func (e *exam) found(name string) (kmsg.MetadataResponseTopic, error) {
	for _, t := range e.lists.Topics {
		if t.Topic != nil && *t.Topic == name {
			return t, kerr.ErrorForCode(t.ErrorCode)
		}
	}
	return kmsg.MetadataResponseTopic{}, kerr.UnknownTopicOrPartition
}

// rights looks whether this principal may do what the services do.
func (e *exam) rights(ctx context.Context) {
	groups := make(map[string]described)
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, g := range []string{e.names.RouterGroup, e.names.DetectorGroup, e.names.AlerterGroup} {
		all, err := e.adm.DescribeGroups(actx, g)
		d, ok := all[g]
		if err == nil && ok {
			err = d.Err
		}
		groups[g] = described{d.AuthorizedOperations, err}
	}
	missing := 0
	var unseen []string
	for _, service := range e.cfg.Services {
		for _, r := range e.names.Rights(service, e.cfg.Instance) {
			has, known := e.has(actx, r, groups)
			switch {
			case !known:
				unseen = append(unseen, r.String())
			case !has:
				missing++
				e.tell.say(Failed, "rights", "spate doctor --acls prints the commands that give it", "spate %s lacks %s (%s)", service, r, r.Why)
			}
		}
	}
	if len(unseen) > 0 {
		e.tell.say(Unknown, "rights", "look again when the services have run once; brokers never tell of transactional ids", "rights that cannot be seen: %s", strings.Join(unseen, ", "))
	}
	if missing == 0 && len(unseen) == 0 {
		e.tell.ok("rights", "%s: nothing is missing", strings.Join(e.cfg.Services, ", "))
	} else if missing == 0 {
		e.tell.ok("rights", "%s: nothing is missing of what can be seen", strings.Join(e.cfg.Services, ", "))
	}
}

// described is what brokers tell of a group.
type described struct {
	operations []kadm.ACLOperation
	err        error
}

// has reports whether a right is there, and whether that can be told. Brokers tell of topics and groups what this principal may do. Of the
// names of transactions they tell whether it may look at them, without which it may not write.
func (e *exam) has(ctx context.Context, r kafka.Right, groups map[string]described) (has, known bool) {
	op, err := kmsg.ParseACLOperation(r.Operation)
	if err != nil {
		return false, false
	}
	switch r.Resource {
	case "topic":
		t, err := e.found(r.Name)
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return false, false // it will be made, with rights that topics looks at
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return false, true
		case err != nil || t.AuthorizedOperations == math32:
			return false, false
		}
		return slices.Contains(kadm.DecodeACLOperations(t.AuthorizedOperations), op), true
	case "group":
		g := groups[r.Name]
		if errors.Is(g.err, kerr.GroupAuthorizationFailed) {
			return false, true // it may not even be described
		}
		return slices.Contains(g.operations, op), g.err == nil && len(g.operations) > 0
	case "transactional-id":
		name := r.Name
		if r.Prefix {
			name += "-doctor"
		}
		described, err := e.adm.DescribeTransactions(ctx, name)
		if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || errors.Is(described[name].Err, kerr.TransactionalIDAuthorizationFailed) {
			return false, true
		}
	}
	return false, false
}

// math32 is what brokers tell that keep no account of rights.
const math32 = -1 << 31

// topics looks whether they are as the pipeline needs them.
func (e *exam) topics(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var there, missing []string
	for _, name := range e.names.All() {
		t, err := e.found(name)
		switch {
		case err == nil:
			there = append(there, fmt.Sprintf("%s (%d)", name, len(t.Partitions)))
			if want := int(e.cfg.Layout.Partitions); want > 0 && len(t.Partitions) != want {
				e.tell.say(Failed, "topics", fmt.Sprintf("set SPATE_PARTITIONS (--partitions) to %d, or leave it out", len(t.Partitions)), "%s has %d partitions, and %d are asked for: no service starts with that", name, len(t.Partitions), want)
			}
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			missing = append(missing, name)
		case !errors.Is(err, kerr.TopicAuthorizationFailed): // rights has told
			e.tell.say(Failed, "topics", "", "%s: %v", name, err)
		}
	}
	if len(there) > 0 {
		e.tell.ok("topics", "there are, with partitions: %s", strings.Join(there, ", "))
	}
	if len(missing) > 0 {
		e.tell.say(Warning, "topics", "the first service that starts makes them if it has the right Create; or make them before", "there are not yet: %s", strings.Join(missing, ", "))
	}
	claimed, err := e.cfg.Layout.Check(actx, e.adm)
	for _, err := range unjoin(err) {
		level := Unknown
		if errors.Is(err, kafka.ErrLayout) {
			level = Failed
		}
		e.tell.say(level, "topics", "", "%v", err)
	}
	if claimed {
		e.tell.say(Warning, "topics", "kafka-configs --alter --entity-type topics --entity-name "+e.names.Activity+" --add-config message.timestamp.type=LogAppendTime",
			"%s has the times that its producers claim: one clock that is ahead can make the events of others late", e.names.Activity)
	}
}

// limits looks at settings of the brokers that are too narrow.
func (e *exam) limits(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	id := e.lists.Brokers[0].NodeID
	configs, err := e.adm.DescribeBrokerConfigs(actx, id)
	if err != nil || len(configs) == 0 || configs[0].Err != nil {
		e.tell.say(Unknown, "limits", "give the right DescribeConfigs on cluster, or trust that they are the defaults", "the brokers' settings may not be read")
		return
	}
	value := make(map[string]int64)
	for _, c := range configs[0].Configs {
		if c.Value != nil {
			if n, err := strconv.ParseInt(*c.Value, 10, 64); err == nil {
				value[c.Key] = n
			}
		}
	}
	activity, _ := e.found(e.names.Activity)
	needs := window.MetadataBound(max(len(activity.Partitions), kafka.DefaultPartitions))
	wrong := false
	bad := func(key, must string) {
		wrong = true
		e.tell.say(Failed, "limits", "set "+key+" in the brokers' configuration", "%s is %d, it must be %s", key, value[key], must)
	}
	if n, ok := value["offset.metadata.max.bytes"]; ok && n < int64(needs) {
		bad("offset.metadata.max.bytes", fmt.Sprintf("at least %d for %d partitions of %s", needs, len(activity.Partitions), e.names.Activity))
	}
	if n, ok := value["transaction.max.timeout.ms"]; ok && n < kafka.TransactionTimeout.Milliseconds() {
		bad("transaction.max.timeout.ms", fmt.Sprintf("at least %d", kafka.TransactionTimeout.Milliseconds()))
	}
	if n, ok := value["group.min.session.timeout.ms"]; ok && n > kafka.SessionTimeout.Milliseconds() {
		bad("group.min.session.timeout.ms", fmt.Sprintf("at most %d", kafka.SessionTimeout.Milliseconds()))
	}
	if n, ok := value["group.max.session.timeout.ms"]; ok && n < kafka.SessionTimeout.Milliseconds() {
		bad("group.max.session.timeout.ms", fmt.Sprintf("at least %d", kafka.SessionTimeout.Milliseconds()))
	}
	if !wrong {
		e.tell.ok("limits", "offset metadata, transactions and sessions have room (of broker %d)", id)
	}
}

// clock compares the broker's clock with that of this machine, by the newest record that the broker has stamped.
func (e *exam) clock(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	newest := time.Time{}
	for _, topic := range []string{e.names.Keyed, e.names.Alerts} {
		offsets, err := e.adm.ListMaxTimestampOffsets(actx, topic)
		if err != nil {
			continue
		}
		offsets.Each(func(o kadm.ListedOffset) {
			if at := time.UnixMilli(o.Timestamp); o.Err == nil && at.After(newest) {
				newest = at
			}
		})
	}
	switch ahead := time.Until(newest); {
	case newest.IsZero():
		e.tell.say(Unknown, "clock", "", "nothing has been written yet that the broker has stamped")
	case ahead > skew:
		e.tell.say(Warning, "clock", "let both machines keep time with NTP", "the broker's clock is at least %v ahead of this machine's", ahead.Round(time.Millisecond))
	default:
		e.tell.ok("clock", "the broker's newest stamp is %v old", -ahead.Round(time.Millisecond))
	}
}

// transactions looks for partitions of the topic of events that an open transaction holds back.
func (e *exam) transactions(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	bounds, err := kafka.ListBounds(actx, e.adm, e.names.Activity)
	if err != nil {
		return // topics or rights has told
	}
	var held []int32
	for p, b := range bounds {
		if b.Stable < b.End {
			held = append(held, p)
		}
	}
	if len(held) == 0 {
		e.tell.ok("transactions", "none is open in %s", e.names.Activity)
		return
	}
	slices.Sort(held)
	who, err := kafka.Holders(actx, e.adm, e.names.Activity, held)
	if err != nil {
		who = nil
	}
	for _, p := range held {
		by := who[p]
		if by == "" {
			by = "a producer that the broker does not name"
		}
		e.tell.say(Warning, "transactions", "nothing, if its producer commits soon; kafka-transactions.sh --abort ends one that was left behind",
			"partition %d of %s is held back at offset %d, %d before its end, by an open transaction of %s", p, e.names.Activity, bounds[p].Stable, bounds[p].End-bounds[p].Stable, by)
	}
}

// recently is how new what was set aside must be to be told of.
const recently = time.Hour

// setAside tells of events that were not counted lately.
func (e *exam) setAside(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, x := range []struct{ topic, what, fix string }{
		{e.names.DLQ, "invalid", "the header spate-reason of its records says why; the router's log and /readyz say which setting mends it"},
		{e.names.Late, "late", "the header spate-reason of its records says why; SPATE_LATENESS says how late events may come"},
	} {
		offsets, err := e.adm.ListMaxTimestampOffsets(actx, x.topic)
		if err != nil {
			continue // topics or rights has told
		}
		newest := time.Time{}
		offsets.Each(func(o kadm.ListedOffset) {
			if at := time.UnixMilli(o.Timestamp); o.Err == nil && o.Timestamp > 0 && at.After(newest) {
				newest = at
			}
		})
		if age := time.Since(newest); !newest.IsZero() && age < recently {
			e.tell.say(Warning, "events", x.fix, "events are set aside as %s: the newest in %s is %v old", x.what, x.topic, age.Round(time.Second))
		}
	}
}

// groups looks whether services run, and how far they are behind.
func (e *exam) groups(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, g := range []struct{ service, group, topic string }{
		{kafka.Router, e.names.RouterGroup, e.names.Activity}, {kafka.Detector, e.names.DetectorGroup, e.names.Keyed}, {kafka.Alerter, e.names.AlerterGroup, e.names.Alerts},
	} {
		described, err := e.adm.DescribeGroups(actx, g.group)
		d := described[g.group]
		if err != nil || d.Err != nil && !errors.Is(d.Err, kerr.GroupIDNotFound) {
			continue // rights has told
		}
		if len(d.Members) == 0 {
			e.tell.say(Warning, "services", "start one: spate "+g.service, "no %s runs: group %s has no member", g.service, g.group)
			continue
		}
		hosts := make(map[string]int)
		for _, m := range d.Members {
			hosts[strings.TrimPrefix(m.ClientHost, "/")]++
		}
		var on []string
		for _, h := range slices.Sorted(maps.Keys(hosts)) {
			on = append(on, fmt.Sprintf("%d on %s", hosts[h], h))
		}
		e.tell.ok("services", "%s: group %s is %s, with members %s", g.service, g.group, strings.ToLower(d.State), strings.Join(on, ", "))
	}
}

// unjoin returns the errors that were joined into one.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
