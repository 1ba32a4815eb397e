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
	// expiresSoon is how long before it expires a certificate is reported.
	expiresSoon = 14 * 24 * time.Hour
	// skew is how far the broker's clock may be ahead of this machine's before it is reported.
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
	reachable := e.brokers(ctx)
	e.seeds(ctx)
	if !reachable {
		return
	}
	e.rights(ctx)
	e.topics(ctx)
	e.limits(ctx)
	e.clock(ctx)
	e.transactions(ctx)
	e.newest(ctx)
	e.setAside(ctx)
	e.groups(ctx)
}

// certificates shakes hands with the seed brokers.
func (e *exam) certificates(ctx context.Context) {
	s := e.cfg.Kafka.Security
	if !s.Config().TLS.Enabled {
		if s.Config().SASL.Mechanism != "" {
			e.tell.say(Warning, "tls", "set SPATE_TLS (--tls), and use the TLS port", "connections are not encrypted")
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
		text := fmt.Sprintf("%s uses %s; its certificate is valid until %s", b, tls.VersionName(state.Version), ends.UTC().Format(time.DateOnly))
		if left := time.Until(ends); left < expiresSoon {
			e.tell.say(Warning, "tls", "renew the broker's certificate; spate accepts the new one without a restart", "%s, for another %v", text, left.Round(time.Hour))
			continue
		}
		e.tell.ok("tls", "%s", text)
	}
	if cert := s.Certificate(); cert != nil {
		ends := cert.NotAfter
		switch left := time.Until(ends); {
		case left < 0:
			e.tell.say(Failed, "tls", "replace the certificate and key files (SPATE_TLS_CERT_FILE, SPATE_TLS_KEY_FILE); spate reloads them automatically", "the client certificate of %s expired at %s", cert.Subject, ends.UTC().Format(time.RFC3339))
		case left < expiresSoon:
			e.tell.say(Warning, "tls", "replace the certificate and key files; spate reloads them automatically", "the client certificate of %s expires at %s", cert.Subject, ends.UTC().Format(time.RFC3339))
		default:
			e.tell.ok("tls", "the client certificate of %s is valid until %s", cert.Subject, ends.UTC().Format(time.DateOnly))
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
				fix = "the broker supports " + strings.Join(has, ", ")
			}
		}
		if strings.Contains(err.Error(), "EOF") && e.cfg.Kafka.Security.Config().SASL.Mechanism != "" {
			fix = "the broker closed the connection, as brokers do on a port without a login: use the SASL port, or disable SASL (SPATE_SASL_MECHANISM)"
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
		e.tell.say(Failed, "brokers", "", "%s: the broker responds, but lists no brokers in its cluster", strings.Join(e.cfg.Kafka.Brokers, ","))
	}
	reached := 0
	for _, b := range resp.Brokers {
		bctx, cancel := context.WithTimeout(ctx, askTimeout)
		_, err := e.cl.Broker(int(b.NodeID)).RetriableRequest(bctx, kmsg.NewPtrApiVersionsRequest())
		cancel()
		if err != nil {
			e.tell.say(Failed, "brokers", "set the cluster's advertised.listeners to addresses that are reachable from here", "broker %d advertises %s, but is not reachable there: %v",
				b.NodeID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), kafka.Explain(err, kafka.Right{}))
			continue
		}
		reached++
	}
	if reached > 0 {
		e.tell.ok("brokers", "%d of %d are reachable", reached, len(resp.Brokers))
	}
	return reached > 0
}

// seeds connects to every seed broker, of which the client is content with one: the others are needed when that one is away.
func (e *exam) seeds(ctx context.Context) {
	seeds := e.cl.SeedBrokers()
	if len(seeds) < 2 {
		return // brokers has told
	}
	failed := 0
	for i, b := range seeds {
		bctx, cancel := context.WithTimeout(ctx, askTimeout)
		_, err := b.RetriableRequest(bctx, kmsg.NewPtrApiVersionsRequest())
		cancel()
		if err != nil {
			failed++
			e.tell.say(Warning, "brokers", "start it, or correct SPATE_BROKERS (--brokers)", "seed broker %s does not respond: %v", e.cfg.Kafka.Brokers[i], kafka.Explain(err, kafka.Right{}))
		}
	}
	if failed == 0 {
		e.tell.ok("brokers", "all %d seed brokers respond", len(seeds))
	}
}

// found returns the cluster's description of a topic.
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
	var unneeded []string
	var unseen []kafka.Right
	of := make(map[kafka.Right][]string) // the services that need what is not known
	for _, service := range e.cfg.Services {
		for _, r := range e.names.Rights(service, e.cfg.Instance) {
			has, known := e.has(actx, r, groups)
			switch {
			case r.If != "": // whether it is needed is not known here
				if known && !has {
					unneeded = append(unneeded, r.String())
				}
			case !known:
				same := kafka.Right{Operation: r.Operation, Resource: r.Resource, Name: r.Name, Prefix: r.Prefix}
				if of[same] == nil { // several services can need the same right
					unseen = append(unseen, same)
				}
				if !slices.Contains(of[same], service) {
					of[same] = append(of[same], service)
				}
			case !has:
				missing++
				e.tell.say(Failed, "rights", "for the commands that grant it, run spate doctor --acls", "spate %s lacks %s (%s)", service, r, r.Why)
			}
		}
	}
	for i, r := range unseen {
		fix := ""
		if i == len(unseen)-1 { // it is the same for all
			fix = "check again after the services have run once; brokers never report permissions on transactional IDs"
		}
		e.tell.say(Unknown, "rights", fix, "%s: cannot check this permission: %s", strings.Join(of[r], ", "), r)
	}
	if len(unseen) == 0 && missing == 0 {
		text := "no permission is missing"
		if len(unneeded) > 0 {
			text += "; if a rule makes decisions, these are missing: " + strings.Join(unneeded, ", ")
		}
		e.tell.ok("rights", "%s: %s", strings.Join(e.cfg.Services, ", "), text)
	}
}

// described is the brokers' description of a group.
type described struct {
	operations []kadm.ACLOperation
	err        error
}

// has reports whether the principal has a right, and whether that can be determined. For topics and groups, brokers list what this principal
// may do. For transactional IDs, they only show whether it may describe them, without which it may not write.
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
				e.tell.say(Failed, "topics", fmt.Sprintf("set SPATE_PARTITIONS (--partitions) to %d, or unset it", len(t.Partitions)), "%s has %d partitions, but %d are configured, so no service will start", name, len(t.Partitions), want)
			}
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			missing = append(missing, name)
		case !errors.Is(err, kerr.TopicAuthorizationFailed): // rights has told
			e.tell.say(Failed, "topics", "", "%s: %v", name, err)
		}
	}
	if len(there) > 0 {
		e.tell.ok("topics", "existing topics (partitions): %s", strings.Join(there, ", "))
	}
	if len(missing) > 0 {
		e.tell.say(Warning, "topics", "the first service that starts creates them if it has the Create permission; otherwise, create them yourself", "topics that do not exist yet: %s", strings.Join(missing, ", "))
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
			"%s has producer timestamps: one producer whose clock is ahead can make the events of others late", e.names.Activity)
	}
}

// limits looks at settings of the brokers that are too narrow.
func (e *exam) limits(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	id := e.lists.Brokers[0].NodeID
	configs, err := e.adm.DescribeBrokerConfigs(actx, id)
	if err != nil || len(configs) == 0 || configs[0].Err != nil {
		e.tell.say(Unknown, "limits", "grant DescribeConfigs on the cluster, or check that the brokers' limits for offset metadata, transactions and sessions have their default values", "no permission to read the brokers' settings")
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
		e.tell.say(Failed, "limits", "set "+key+" in the brokers' configuration", "%s is %d, but it must be %s", key, value[key], must)
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
		e.tell.ok("limits", "the limits for offset metadata, transactions and sessions are sufficient (on broker %d)", id)
	}
}

// clock compares the broker's clock with that of this machine, by the newest record that the broker has stamped.
func (e *exam) clock(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	newest := e.stamped(actx, e.names.Keyed, e.names.Alerts)
	switch ahead := time.Until(newest); {
	case newest.IsZero():
		e.tell.say(Unknown, "clock", "", "the broker has not stamped any record yet")
	case ahead > skew:
		e.tell.say(Warning, "clock", "synchronize both machines with NTP", "the broker's clock is at least %v ahead of this machine's", ahead.Round(time.Millisecond))
	case ahead > -skew:
		e.tell.ok("clock", "the broker's clock agrees with this machine's: its newest timestamp is %v old", max(0, -ahead).Round(time.Millisecond))
	default:
		e.tell.ok("clock", "the broker's clock is not ahead of this machine's; whether it is behind is unknown, because its newest timestamp is %v old", -ahead.Round(time.Second))
	}
}

// stamped returns the newest timestamp in some topics, or the zero time if they have no records. It skips what cannot be listed, which topics
// and rights report.
func (e *exam) stamped(ctx context.Context, topics ...string) time.Time {
	newest := time.Time{}
	for _, topic := range topics {
		offsets, _ := e.adm.ListMaxTimestampOffsets(ctx, topic)
		offsets.Each(func(o kadm.ListedOffset) {
			// An empty partition has the timestamp -1.
			if at := time.UnixMilli(o.Timestamp); o.Err == nil && o.Timestamp > 0 && at.After(newest) {
				newest = at
			}
		})
	}
	return newest
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
		e.tell.ok("transactions", "no transaction is open in %s", e.names.Activity)
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
			by = "an unknown producer"
		}
		e.tell.say(Warning, "transactions", "no action is needed if the producer commits soon; to abort an abandoned transaction, use kafka-transactions.sh abort",
			"partition %d of %s is held back at offset %d (%d before its end) by an open transaction of %s", p, e.names.Activity, bounds[p].Stable, bounds[p].End-bounds[p].Stable, by)
	}
}

// recently is the maximum age of late and invalid events that are reported.
const recently = time.Hour

// setAside reports events that were late or invalid within the last hour.
func (e *exam) setAside(ctx context.Context) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, x := range []struct{ topic, what, fix string }{
		{e.names.DLQ, "invalid", "see the records' spate-reason header; the router's log and /readyz name the setting that fixes the problem"},
		{e.names.Late, "late", "see the records' spate-reason header; SPATE_LATENESS sets how late events may arrive"},
	} {
		newest := e.stamped(actx, x.topic)
		if age := time.Since(newest); !newest.IsZero() && age < recently {
			e.tell.say(Warning, "events", x.fix, "events were set aside as %s: the newest one in %s is %v old", x.what, x.topic, age.Round(time.Second))
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
			e.tell.say(Warning, "services", "start one: spate "+g.service, "no %s service is running: group %s has no members", g.service, g.group)
			continue
		}
		hosts := make(map[string]int)
		for _, m := range d.Members {
			host := strings.TrimPrefix(m.ClientHost, "/")
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h // some brokers add the port of the connection
			}
			hosts[host]++
		}
		var on []string
		for _, h := range slices.Sorted(maps.Keys(hosts)) {
			if len(hosts) == 1 {
				on = append(on, "on "+h)
			} else {
				on = append(on, fmt.Sprintf("%d on %s", hosts[h], h))
			}
		}
		members := "1 member"
		if n := len(d.Members); n != 1 {
			members = fmt.Sprintf("%d members", n)
		}
		e.tell.ok("services", "%s: group %s is %s, with %s, %s", g.service, g.group, strings.ToLower(d.State), members, strings.Join(on, ", "))
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
