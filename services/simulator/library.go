package simulator

import (
	"fmt"
	"strconv"
	"time"
)

// The attackers that the rules in rules/ find. Their numbers do not depend on the rule that the flags describe; in a short run they are faster.
// Where it can be, they are too slow for the default rule: it takes another question to find them.
const (
	// KindScraper looks at 24 products in 50 s, one after the other through the catalogue, and buys nothing.
	KindScraper Kind = "scraper"
	// KindCardTester pays 10 to 15 times within 50 s for the cheapest product, and most payments fail. One account begins a new session for every
	// card, another one stays in its session and its cards are all declined.
	KindCardTester Kind = "card_tester"
	// KindCredentialStuffer tries the passwords of 40 to 79 accounts from one address in 30 s, each once or twice. One in 25 fits.
	KindCredentialStuffer Kind = "credential_stuffer"
	// KindPasswordGuesser tries 12 to 21 passwords of one account in 50 s, each from another address.
	KindPasswordGuesser Kind = "password_guesser"
	// KindCouponAbuser redeems the same coupon in 8 to 15 accounts from one address within 50 s.
	KindCouponAbuser Kind = "coupon_abuser"
	// KindCartHoarder puts 36 to 44 products in the cart in 50 s, and buys none.
	KindCartHoarder Kind = "cart_hoarder"
)

// LibraryKinds returns the attackers that the rules in rules/ find.
func LibraryKinds() []Kind {
	return []Kind{KindScraper, KindCardTester, KindCredentialStuffer, KindPasswordGuesser, KindCouponAbuser, KindCartHoarder}
}

// The innocents: what the logs of real shops are full of, and a rule that only counts takes for attacks.
const (
	// KindOrder is an order of 6 to 40 lines, all with the same time.
	KindOrder Kind = "order"
	// KindMassRemoval empties a cart of 8 to 17 products within one window; every third removal is sent twice.
	KindMassRemoval Kind = "mass_removal"
	// KindDoubleSent looks at 5 products, and every event is sent twice, to the last byte.
	KindDoubleSent Kind = "double_sent"
	// KindOffice is 20 to 29 colleagues who sign in from one address. Five of them mistype the password, one of them three times, and four redeem
	// the same coupon.
	KindOffice Kind = "office"
)

// Innocents returns the kinds of innocents.
func Innocents() []Kind { return []Kind{KindOrder, KindMassRemoval, KindDoubleSent, KindOffice} }

// withAddress are the kinds whose events have what no column of a CSV file is for.
var withAddress = []Kind{KindCredentialStuffer, KindPasswordGuesser, KindCouponAbuser, KindOffice}

const (
	coupon = "WELCOME10"
	script = "python-requests/2.32.3"
	chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)

// noProduct is what a login is about.
var noProduct = new(product)

// library plans what one attacker of the library, or one innocent, does in a cycle.
func (p *attackPlan) library(k Kind, in span) {
	if in.length() < int64(time.Second) {
		return
	}
	switch k {
	case KindScraper:
		p.walk(p.byAccount(k, p.cycle, "view"), 24, p.within(in, 50*time.Second))
	case KindCardTester:
		p.cardTester(p.byAccount(k, 2*p.cycle, ""), true, in)
		p.cardTester(p.byAccount(k, 2*p.cycle+1, ""), false, in)
	case KindCredentialStuffer:
		p.credentialStuffer(in)
	case KindPasswordGuesser:
		e := p.byAccount(k, p.cycle, "login_failed")
		e.product, e.agent = noProduct, chrome
		p.steps(12+p.rng.IntN(10), p.within(in, 50*time.Second), func(at int64) {
			e.at, e.session, e.ip = at, newUUID(p.rng), fmt.Sprintf("198.51.100.%d", 1+p.rng.IntN(254))
			p.add(e)
		})
	case KindCouponAbuser:
		p.couponAbuser(in)
	case KindCartHoarder:
		p.walk(p.byAccount(k, p.cycle, "cart"), 36+p.rng.IntN(9), p.within(in, 50*time.Second))
	case KindOrder:
		e := p.byAccount(k, p.cycle, "purchase")
		e.at = in.from + p.rng.Int64N(in.length())
		for range p.limit + 1 + p.rng.IntN(35) {
			e.product = p.product()
			p.add(e)
			e.together = true
		}
	case KindMassRemoval:
		p.repeated(p.byAccount(k, p.cycle, "remove_from_cart"), p.limit+3+p.rng.IntN(10), 3, in)
	case KindDoubleSent:
		p.repeated(p.byAccount(k, p.cycle, "view"), p.limit, 1, in)
	case KindOffice:
		p.office(in)
	}
}

// steps calls f at n times of a span, evenly but for a jitter of a 25th.
func (p *attackPlan) steps(n int, in span, f func(at int64)) {
	step := in.length() / int64(n)
	for i := range n {
		f(in.from + int64(i)*step + p.rng.Int64N(step/25+1))
	}
}

// walk plans n events like e, about one product after the other of the catalogue.
func (p *attackPlan) walk(e attackEvent, n int, in span) {
	next := p.rng.IntN(1 << 20)
	p.steps(n, in, func(at int64) {
		e.at, e.product = at, p.shop.at(next)
		next++
		p.add(e)
	})
}

func (p *attackPlan) cardTester(e attackEvent, sessions bool, in span) {
	e.product = p.shop.cheapest
	p.steps(10+p.rng.IntN(6), p.within(in, 50*time.Second), func(at int64) {
		e.at, e.eventType = at, "payment_failed"
		if sessions {
			e.session = newUUID(p.rng)
			if p.rng.IntN(5) == 0 {
				e.eventType = "purchase"
			}
		}
		p.add(e)
	})
}

func (p *attackPlan) credentialStuffer(in span) {
	ip := fmt.Sprintf("203.0.113.%d", 1+p.cycle%127)
	attack := &Attack{Kind: KindCredentialStuffer, Key: map[string]string{"ip": ip}}
	victim := p.cycle * 100 // at most 79 in a cycle
	p.steps(40+p.rng.IntN(40), p.within(in, 30*time.Second), func(at int64) {
		e := attackEvent{at: at, attack: attack, user: account(attack.Kind, victim), product: noProduct, session: newUUID(p.rng), ip: ip, agent: script, eventType: "login_failed"}
		victim++
		if p.rng.IntN(2) == 0 {
			p.add(e)
		}
		if p.rng.IntN(25) == 0 {
			e.eventType = "login"
		}
		e.at += int64(100 * time.Millisecond)
		p.add(e)
	})
}

func (p *attackPlan) couponAbuser(in span) {
	ip := fmt.Sprintf("203.0.113.%d", 128+p.cycle%127)
	attack := &Attack{Kind: KindCouponAbuser, Key: map[string]string{"coupon": coupon, "ip": ip}}
	n := p.cycle * 20 // at most 15 in a cycle
	p.steps(8+p.rng.IntN(8), p.within(in, 50*time.Second), func(at int64) {
		p.add(attackEvent{at: at, attack: attack, user: account(attack.Kind, n), session: newUUID(p.rng), eventType: "purchase", product: p.product(),
			ip: ip, agent: chrome, coupon: coupon})
		n++
	})
}

// repeated plans n events like e within a window. Every so many of them is sent again at once.
func (p *attackPlan) repeated(e attackEvent, n, every int, in span) {
	room, ok := p.room(in)
	if !ok {
		return
	}
	i := 0
	p.steps(n, room, func(at int64) {
		e.at, e.product, e.together = at, p.product(), false
		p.add(e)
		if i++; i%every == 0 {
			e.together = true
			p.add(e)
		}
	})
}

func (p *attackPlan) office(in span) {
	ip := "192.0.2." + strconv.Itoa(1+p.cycle%254)
	attack := &Attack{Kind: KindOffice, Key: map[string]string{"ip": ip}}
	n := 0
	p.steps(20+p.rng.IntN(10), p.within(in, 50*time.Second), func(at int64) {
		e := attackEvent{at: at, attack: attack, user: account(attack.Kind, p.cycle*30+n), product: noProduct, session: newUUID(p.rng), ip: ip, agent: chrome, eventType: "login_failed"}
		failures := 0
		switch {
		case n == 0:
			failures = 3
		case n < 5:
			failures = 1
		}
		for range failures {
			p.add(e)
			e.at += int64(100 * time.Millisecond)
		}
		e.eventType = "login"
		p.add(e)
		if n%5 == 1 && n < 20 {
			e.at += int64(100 * time.Millisecond)
			e.eventType, e.product, e.coupon = "purchase", p.product(), coupon
			p.add(e)
		}
		n++
	})
}
