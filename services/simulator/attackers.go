package simulator

import (
	"container/heap"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what an attacker or an innocent does. The numbers of this group hold for the default rule, more than 5 events in 10 s; other rules
// scale them.
type Kind string

const (
	// KindBurst is a bot that sends 12 to 40 events within 2 to 8 s, again and again; sometimes across the end of a window.
	// It breaks the rule in at least one of the windows that a burst touches.
	KindBurst Kind = "burst"
	// KindSlow sends exactly 5 events in every window, and never breaks the rule.
	KindSlow Kind = "slow"
	// KindStraddler sends 5 events just before the end of a window and 5 just after: 10 in 3 s, and never more than 5 in one
	// window. It does not break the rule.
	KindStraddler Kind = "straddler"
	// KindBulkOrder buys 8 to 20 things in one second, as one order. It breaks the rule.
	KindBulkOrder Kind = "bulk_order"
	// KindFlood is a botnet: 40 accounts that send 6 to 9 events each in the same window. Each of them breaks the rule.
	KindFlood Kind = "flood"
	// KindGiant is one account that sends half of all traffic, for a third of the time. It breaks the rule.
	KindGiant Kind = "giant"
)

// Kinds returns the attackers of the default rule. [LibraryKinds] and [Innocents] are the others.
func Kinds() []Kind {
	return []Kind{KindBurst, KindSlow, KindStraddler, KindBulkOrder, KindFlood, KindGiant}
}

// AttackerBase is the smallest user id of an attacker. The kinds follow at distances of 100000, in the order of Kinds and LibraryKinds.
// InnocentBase is that of the innocents, in the order of Innocents.
const (
	AttackerBase = 900_000_000
	InnocentBase = 800_000_000
)

const floodAccounts = 40

// kindGroup is a word that stands for several kinds.
type kindGroup struct {
	name  string
	kinds []Kind
}

func parseAttackers(names []string) (map[Kind]bool, error) {
	return parseKinds("attackers", names, kindGroup{"all", Kinds()}, kindGroup{"library", LibraryKinds()})
}

func parseInnocents(names []string) (map[Kind]bool, error) {
	return parseKinds("innocents", names, kindGroup{"all", Innocents()})
}

// parseKinds reads a list of kinds and groups; "none" stands for itself.
func parseKinds(what string, names []string, groups ...kindGroup) (map[Kind]bool, error) {
	for _, g := range groups {
		for _, k := range g.kinds {
			groups = append(groups, kindGroup{string(k), []Kind{k}})
		}
	}
	on := make(map[Kind]bool)
	for _, name := range names {
		if name == "none" {
			if len(names) > 1 {
				return nil, fmt.Errorf(`"none" cannot be combined with other %s`, what)
			}
			continue
		}
		i := slices.IndexFunc(groups, func(g kindGroup) bool { return g.name == name })
		if i < 0 {
			words := []string{"none"}
			for _, g := range groups {
				words = append(words, g.name)
			}
			return nil, fmt.Errorf("%q is not one of %s", name, strings.Join(words, ", "))
		}
		for _, k := range groups[i].kinds {
			on[k] = true
		}
	}
	return on, nil
}

// Attack is what an attacker does from its first event to its last; for an innocent, what only looks like an attack.
type Attack struct {
	Kind Kind
	// Key is what the events have in common, as text: the columns that a rule against the kind groups by.
	Key map[string]string
}

// attackPlan holds the attack events of the cycle that is under way. Time is cut in cycles of a minute or 6 windows, whichever
// is longer; every kind occurs in every cycle, and no window has events of two cycles. A run shorter than two cycles is one.
// Times are nanoseconds since the generator's start.
type attackPlan struct {
	rng    *rand.Rand
	shop   *catalogue
	on     map[Kind]bool
	rate   float64 // events per second, everything
	window int64
	phase  int64 // how far into a window the start is
	limit  int   // threshold
	end    int64 // attacks end 1 s before this

	cycle int
	next  int64 // start of the next cycle

	pending attackHeap
	seq     uint64
	scraped int // products that the giant has seen

	giantFrom, giantTo int64
	giant              attackEvent // what its events have in common
	gap, giantGap      int64       // between the slots of the shoppers; and while the giant is active
}

// attackEvent is one planned event.
type attackEvent struct {
	at            int64
	seq           uint64
	attack        *Attack
	user, session string
	eventType     string
	product       *product

	ip, agent, coupon string
	together          bool
}

// span is a stretch of time, [from, to).
type span struct{ from, to int64 }

func (s span) length() int64 { return s.to - s.from }

func newAttackPlan(cfg *Config, startMS int64, shop *catalogue) *attackPlan {
	on, _ := parseAttackers(cfg.Attackers) // Validate has seen the errors
	innocents, _ := parseInnocents(cfg.Innocents)
	maps.Copy(on, innocents)
	p := &attackPlan{
		rng:    rand.New(rand.NewPCG(cfg.Seed, 0x61747461636b)),
		shop:   shop,
		on:     on,
		rate:   cfg.EventRate,
		window: int64(cfg.Window),
		limit:  cfg.Threshold,
		end:    math.MaxInt64,
	}
	p.phase = (startMS - floorTo(startMS, cfg.Window.Milliseconds())) * 1e6
	p.gap = gapNS(p.rate)
	p.giantGap = p.gap
	if cfg.Events > 0 {
		// How long the events last is known only about: a margin keeps the attacks from being cut off.
		p.end = estimateNS(cfg.Events, cfg.EventRate, startMS) / 20 * 17
	}
	if cfg.Duration > 0 {
		p.end = min(p.end, int64(cfg.Duration))
	}
	if len(on) == 0 {
		p.next = math.MaxInt64
	}
	return p
}

func gapNS(rate float64) int64 { return max(1, int64(1e9/rate)) }

// estimateNS returns about how long it takes until a number of events has happened.
func estimateNS(events int, rate float64, startMS int64) int64 {
	left := float64(events)
	var ns int64
	for {
		at := startMS + ns/1e6
		perNS := float64(rate*float64(dayCurve[at/3_600_000%24])) / 1e12
		hour := floorTo(at, 3_600_000) + 3_600_000 - at
		if inHour := float64(perNS * float64(hour*1e6)); inHour < left && ns < math.MaxInt64/4 {
			left -= inHour
			ns += hour * 1e6
			continue
		}
		return ns + int64(left/perNS)
	}
}

// slotGapNS returns the average distance of the shoppers' slots at a time: what the attackers leave of the rate.
func (p *attackPlan) slotGapNS(at int64) int64 {
	if at >= p.giantFrom && at < p.giantTo {
		return p.giantGap
	}
	return p.gap
}

func (p *attackPlan) peek() (at int64, ok bool) {
	if len(p.pending) == 0 {
		return 0, false
	}
	return p.pending[0].at, true
}

// pop puts the next attack event in r.
func (p *attackPlan) pop(r *Row, g *Generator) {
	e := heap.Pop(&p.pending).(attackEvent)
	g.fill(r, e.at, e.eventType, e.product, e.user, e.session)
	r.IP, r.UserAgent, r.Coupon = e.ip, e.agent, e.coupon
	r.Kind, r.Attack, r.Together = e.attack.Kind, e.attack, e.together
}

// follow lets the giant answer each event of anyone else with one of its own, which makes its share one half.
func (p *attackPlan) follow(r *Row, at int64) {
	if at < p.giantFrom || at >= p.giantTo || r.Kind == KindGiant {
		return
	}
	p.scraped++
	e := p.giant
	e.at = min(at+p.rng.Int64N(int64(5*time.Millisecond)), p.giantTo-1)
	e.product = p.shop.at(p.scraped)
	p.add(e)
}

func (p *attackPlan) add(e attackEvent) {
	p.seq++
	e.seq = p.seq
	heap.Push(&p.pending, e)
}

// account returns the user id of an attacker or an innocent.
func account(k Kind, n int) string {
	base, i := AttackerBase, slices.Index(attackers, k)
	if i < 0 {
		base, i = InnocentBase, slices.Index(Innocents(), k)
	}
	return strconv.Itoa(base + (i+1)*100_000 + n%100_000)
}

var attackers = slices.Concat(Kinds(), LibraryKinds())

// byAccount returns the attack of one account, and an event of it in a new session.
func (p *attackPlan) byAccount(k Kind, n int, eventType string) attackEvent {
	user := account(k, n)
	return attackEvent{attack: &Attack{Kind: k, Key: map[string]string{"user_id": user}}, user: user, session: newUUID(p.rng), eventType: eventType}
}

// planUntil plans every cycle that begins at or before a time.
func (p *attackPlan) planUntil(at int64) {
	for p.next <= at {
		length := max(int64(time.Minute), 6*p.window)
		from, to := p.next, p.floor(p.next+length)
		p.next = to
		if p.end != math.MaxInt64 && p.end-from < 2*length {
			to, p.next = p.end, math.MaxInt64
		}
		p.plan(span{from, min(to, p.end-int64(time.Second))}, to-from)
		p.cycle++
	}
}

// plan puts the attacks of one cycle within a span; length is that of the cycle.
func (p *attackPlan) plan(in span, length int64) {
	before := len(p.pending)
	for _, k := range slices.Concat(attackers, Innocents()) {
		if !p.on[k] {
			continue
		}
		switch k {
		case KindBurst:
			p.burst(in)
		case KindSlow:
			p.slow(in)
		case KindStraddler:
			p.straddler(in)
		case KindBulkOrder:
			p.bulkOrder(in)
		case KindFlood:
			p.flood(in)
		case KindGiant:
			p.planGiant(in)
		default:
			p.library(k, in)
		}
	}
	attacks := float64(len(p.pending)-before) * 1e9 / float64(max(length, 1)) // per second
	p.gap = gapNS(max(p.rate/5, p.rate-attacks))
	p.giantGap = gapNS(max(p.rate/10, p.rate/2-attacks))
}

func (p *attackPlan) burst(in span) {
	// Twice within a window, each time another one.
	rooms := p.rooms(in)
	for range 2 {
		if len(rooms) == 0 {
			break
		}
		i := p.rng.IntN(len(rooms))
		part := p.within(rooms[i], time.Duration(p.burstLength()))
		rooms = slices.Delete(rooms, i, i+1)
		events := p.burstEvents()
		p.series(p.byAccount(KindBurst, 0, "view"), events, part)
	}
	// And once across the end of a window.
	length := p.burstLength()
	if edge, ok := p.edge(in, length/4); ok {
		from := max(in.from, edge-length/4-p.rng.Int64N(length/2+1))
		events := p.burstEvents()
		p.series(p.byAccount(KindBurst, 1, "view"), events, span{from, min(from+length, in.to)})
	}
}

func (p *attackPlan) burstLength() int64 { return p.window/5 + p.rng.Int64N(p.window*3/5) }
func (p *attackPlan) burstEvents() int   { return 2*p.limit + 2 + p.rng.IntN(29) }

func (p *attackPlan) slow(in span) {
	for n := range 2 {
		e := p.byAccount(KindSlow, n, "view")
		for _, room := range p.rooms(in) {
			step := room.length() / int64(p.limit)
			for i := range p.limit {
				// Off the edges by a tenth of a step, so that the jitter of a real clock moves none into the next window.
				e.at = room.from + int64(i)*step + step/10 + p.rng.Int64N(step*8/10)
				e.product = p.product()
				p.add(e)
			}
		}
	}
}

func (p *attackPlan) straddler(in span) {
	reach := p.window * 3 / 20
	edge, ok := p.edge(in, reach)
	if !ok {
		return
	}
	// Two accounts take turns: the same one in two cycles in a row could meet itself in a window.
	e := p.byAccount(KindStraddler, p.cycle%2, "view")
	p.series(e, p.limit, span{edge - reach, edge})
	e.session = newUUID(p.rng)
	p.series(e, p.limit, span{edge, edge + reach})
}

func (p *attackPlan) bulkOrder(in span) {
	room, ok := p.room(in)
	if !ok {
		return
	}
	part := p.within(room, min(time.Second, time.Duration(p.window/10)))
	lines := p.limit + 3 + p.rng.IntN(13)
	p.series(p.byAccount(KindBulkOrder, p.cycle, "purchase"), lines, part)
}

func (p *attackPlan) flood(in span) {
	room, ok := p.room(in)
	if !ok {
		return
	}
	for n := range floodAccounts {
		margin := room.length() / 20
		events := p.limit + 1 + p.rng.IntN(4)
		p.series(p.byAccount(KindFlood, n, "view"), events, span{room.from + margin, room.to - margin})
	}
}

func (p *attackPlan) planGiant(in span) {
	third := in.length() / 3
	if third <= 0 {
		return
	}
	p.giantFrom, p.giantTo = in.from+third, in.from+2*third
	if from, to := p.ceil(p.giantFrom), p.ceil(p.giantTo); to <= in.to && to-from >= p.window {
		p.giantFrom, p.giantTo = from, to // whole windows
	}
	p.giant = p.byAccount(KindGiant, 0, "view")
}

// within returns a part of a span, of a length or shorter.
func (p *attackPlan) within(in span, length time.Duration) span {
	n := min(int64(length), in.length())
	from := in.from + p.rng.Int64N(in.length()-n+1)
	return span{from, from + n}
}

// series plans n events like e, at random times of a span, which is not empty.
func (p *attackPlan) series(e attackEvent, n int, in span) {
	for range n {
		e.at = in.from + p.rng.Int64N(max(in.length(), 1))
		e.product = p.product()
		p.add(e)
	}
}

func (p *attackPlan) product() *product {
	category := p.shop.pick(p.rng)
	return &category[p.rng.IntN(len(category))]
}

// rooms returns the windows that lie in a span as a whole. If none does, it returns the longest part of one, if that is at least
// a fifth.
func (p *attackPlan) rooms(in span) []span {
	var whole []span
	var part span
	for from := p.floor(in.from); from < in.to; from += p.window {
		room := span{max(from, in.from), min(from+p.window, in.to)}
		switch {
		case room.length() == p.window:
			whole = append(whole, room)
		case room.length() >= p.window/5 && room.length() > part.length():
			part = room
		}
	}
	if len(whole) == 0 && part.length() > 0 {
		return []span{part}
	}
	return whole
}

// room returns one of the rooms of a span.
func (p *attackPlan) room(in span) (span, bool) {
	rooms := p.rooms(in)
	if len(rooms) == 0 {
		return span{}, false
	}
	return rooms[p.rng.IntN(len(rooms))], true
}

// edge returns one of the ends of windows that lie at least a margin within a span.
func (p *attackPlan) edge(in span, margin int64) (int64, bool) {
	first := p.ceil(in.from + margin)
	if first > in.to-margin {
		return 0, false
	}
	return first + p.rng.Int64N((in.to-margin-first)/p.window+1)*p.window, true
}

// floor and ceil return the nearest start of a window, not above or not below a time.
func (p *attackPlan) floor(at int64) int64 { return floorTo(at+p.phase, p.window) - p.phase }
func (p *attackPlan) ceil(at int64) int64  { return p.floor(at + p.window - 1) }

// attackHeap orders events by time, then by when they were planned.
type attackHeap []attackEvent

func (h attackHeap) Len() int { return len(h) }
func (h attackHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].seq < h[j].seq
}
func (h attackHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *attackHeap) Push(x any)   { *h = append(*h, x.(attackEvent)) }
func (h *attackHeap) Pop() any {
	old := *h
	n := len(old) - 1
	e := old[n]
	*h = old[:n]
	return e
}
