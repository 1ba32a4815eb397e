package simulator

import (
	"container/heap"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"spate/shared/activity"
)

// Shoppers' ids lie below those of the attackers.
const (
	shopperBase  = 500_000_000
	shopperPrime = 99_999_989 // ids are scattered by multiplication modulo this, so popular shoppers are not neighbours
)

// dayCurve is the traffic by hour of the day, UTC, in thousandths of the average.
var dayCurve = [24]int64{
	866, 803, 766, 738, 733, 766, 823, 883, 948, 1018, 1083, 1138,
	1181, 1208, 1225, 1233, 1225, 1200, 1161, 1108, 1048, 998, 948, 900,
}

// thinkNS returns how long a shopper waits at least between two events, and how much longer on average; nanoseconds.
//
// With a gap above window/threshold, threshold+1 events span more than one window, wherever it begins. The 5 % more than that
// are for the jitter of a real clock in time mode now.
func thinkNS(window time.Duration, threshold int) (least, more int64) {
	least = int64(window)/int64(threshold)*21/20 + 1
	return least, least * 10 / 7
}

func meanThinkNS(window time.Duration, threshold int) int64 {
	least, more := thinkNS(window, threshold)
	return least + more
}

// Generator is a source of seeded traffic: shoppers, and the attackers that the configuration names. The same configuration
// gives the same rows. Rows come in the order of their times.
//
// Time runs in slots, whose distance follows the rate. A slot goes to the session that has waited longest beyond its think time;
// if none has, a new session begins. So the rate holds from the first second on, however the sessions go. Attack events are
// merged in by time (see attackers.go).
type Generator struct {
	cfg     Config
	startMS int64
	endNS   int64 // since startMS; MaxInt64 means no end

	rng     *rand.Rand
	shop    *catalogue
	slotNS  int64 // time of the next slot, since startMS
	seq     uint64
	made    int
	reached int64 // time of the last row, ns since startMS

	thinkLeast, thinkMore int64

	freeAt   []int64 // by shopper: when it may begin a session; MaxInt64 is in one
	sessions sessionHeap
	pool     []*session

	attack *attackPlan

	secondMS int64 // what eventTime is the text of
	second   string
	millisMS int64
	millis   string
	buf      []byte
}

// session is a shopper's visit.
type session struct {
	readyNS  int64
	seq      uint64
	shopper  int
	user, id string
	category []product
	viewed   *product
	cart     *product
}

// NewGenerator returns the generator of a configuration that Validate accepts.
func NewGenerator(cfg Config) *Generator {
	g := &Generator{
		cfg:     cfg,
		startMS: cfg.startMS(),
		endNS:   math.MaxInt64,
		rng:     rand.New(rand.NewPCG(cfg.Seed, 0x73686f70706572)),
		shop:    newCatalogue(cfg.Seed),
		freeAt:  make([]int64, cfg.Users),
	}
	if cfg.Duration > 0 {
		g.endNS = int64(cfg.Duration)
	}
	g.thinkLeast, g.thinkMore = thinkNS(cfg.Window, cfg.Threshold)
	g.secondMS, g.millisMS = math.MinInt64, math.MinInt64
	g.attack = newAttackPlan(&g.cfg, g.startMS, g.shop)
	g.slotNS = g.gap(0)
	return g
}

// progress returns how far the traffic is, and how far it goes: events or milliseconds of event time; total 0 means no end.
func (g *Generator) progress() (done, total int64) {
	if g.cfg.Events > 0 {
		return int64(g.made), int64(g.cfg.Events)
	}
	if g.cfg.Duration > 0 {
		return g.reached / 1e6, g.cfg.Duration.Milliseconds()
	}
	return 0, 0
}

// Next implements [Source].
func (g *Generator) Next(r *Row) error {
	if g.cfg.Events > 0 && g.made >= g.cfg.Events {
		return io.EOF
	}
	for {
		g.attack.planUntil(g.slotNS)
		at := g.slotNS
		next, planned := g.attack.peek()
		if planned {
			at = min(at, next)
		}
		if at >= g.endNS {
			return io.EOF
		}
		if planned && next <= g.slotNS {
			g.attack.pop(r, g)
		} else {
			g.slotNS += g.gap(at)
			if !g.shopper(r, at) {
				continue // every shopper is busy: the slot stays empty
			}
		}
		g.made++
		g.reached = at
		g.attack.follow(r, at)
		return nil
	}
}

// gap returns the time from one slot to the next at a time.
func (g *Generator) gap(at int64) int64 {
	hour := (g.startMS + at/1e6) / 3_600_000 % 24
	return spread(g.rng, g.attack.slotGapNS(at)*1000/dayCurve[hour])
}

// shopper fills r with the next event of some shopper at a time.
func (g *Generator) shopper(r *Row, at int64) bool {
	var s *session
	if len(g.sessions) > 0 && g.sessions[0].readyNS <= at {
		s = heap.Pop(&g.sessions).(*session)
	} else if s = g.begin(at); s == nil {
		return false
	}
	kind, p := s.step(g.rng, g.shop)
	g.fill(r, at, kind, p, s.user, s.id)
	if g.rng.IntN(6) == 0 { // the session ends
		g.freeAt[s.shopper] = at + g.thinkLeast
		g.pool = append(g.pool, s)
		return true
	}
	s.readyNS = at + g.thinkLeast + spread(g.rng, g.thinkMore)
	g.seq++
	s.seq = g.seq
	heap.Push(&g.sessions, s)
	return true
}

// begin returns a new session of a shopper that has none, or nil if all have.
func (g *Generator) begin(at int64) *session {
	shopper := -1
	for try := range 24 {
		n := 0
		if try < 4 {
			n = zipf(g.rng, len(g.freeAt))
		} else {
			n = g.rng.IntN(len(g.freeAt))
		}
		if g.freeAt[n] <= at {
			shopper = n
			break
		}
	}
	for n := 0; shopper < 0; n++ {
		if n == len(g.freeAt) {
			return nil
		}
		if g.freeAt[n] <= at {
			shopper = n
		}
	}
	g.freeAt[shopper] = math.MaxInt64

	var s *session
	if n := len(g.pool); n > 0 {
		s, g.pool = g.pool[n-1], g.pool[:n-1]
	} else {
		s = new(session)
	}
	*s = session{
		shopper:  shopper,
		user:     strconv.Itoa(shopperBase + (shopper+1)*48271%shopperPrime),
		id:       newUUID(g.rng),
		category: g.shop.pick(g.rng),
	}
	return s
}

// step returns what the shopper does next, and to which product.
func (s *session) step(rng *rand.Rand, shop *catalogue) (string, *product) {
	switch n := rng.IntN(100); {
	case s.cart != nil && n < 35:
		p := s.cart
		s.cart = nil
		return "purchase", p
	case s.cart != nil && n < 50:
		p := s.cart
		s.cart = nil
		return "remove_from_cart", p
	case s.cart == nil && s.viewed != nil && n < 18:
		s.cart = s.viewed
		return "cart", s.cart
	case n >= 85:
		s.category = shop.pick(rng)
	}
	s.viewed = &s.category[zipf(rng, len(s.category))]
	return "view", s.viewed
}

// fill puts an event in r.
func (g *Generator) fill(r *Row, at int64, kind string, p *product, user, session string) {
	ms := g.startMS + at/1e6
	if ms != g.millisMS {
		g.millisMS = ms
		g.buf = activity.AppendTime(g.buf[:0], ms)
		g.millis = string(g.buf)
		if second := floorTo(ms, 1000); second != g.secondMS {
			g.secondMS = second
			g.buf[len("2006-01-02")] = ' '
			g.second = string(g.buf[:len("2006-01-02 15:04:05")]) + " UTC" // as the data set writes it
		}
	}
	*r = Row{
		Event: activity.Event{
			EventTime:    g.second,
			EventType:    kind,
			ProductID:    p.id,
			CategoryID:   p.categoryID,
			CategoryCode: p.categoryCode,
			Brand:        p.brand,
			Price:        p.price,
			UserID:       user,
			UserSession:  session,
			TxnTimestamp: g.millis,
		},
		TimeMS:  ms,
		HasTime: true,
	}
}

// newUUID returns a random (version 4) UUID out of rng.
func newUUID(rng *rand.Rand) string {
	const hex = "0123456789abcdef"
	hi, lo := rng.Uint64(), rng.Uint64()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	var b [36]byte
	for i := range b {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			b[i] = '-'
			continue
		}
		b[i] = hex[hi>>60]
		hi = hi<<4 | lo>>60
		lo <<= 4
	}
	return string(b[:])
}

// sessionHeap orders sessions by when they are ready, then by age.
type sessionHeap []*session

func (h sessionHeap) Len() int { return len(h) }
func (h sessionHeap) Less(i, j int) bool {
	if h[i].readyNS != h[j].readyNS {
		return h[i].readyNS < h[j].readyNS
	}
	return h[i].seq < h[j].seq
}
func (h sessionHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *sessionHeap) Push(x any)   { *h = append(*h, x.(*session)) }
func (h *sessionHeap) Pop() any {
	old := *h
	n := len(old) - 1
	s := old[n]
	old[n] = nil
	*h = old[:n]
	return s
}
