package post

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// refusedError is an address that no call goes to.
type refusedError struct {
	addr netip.Addr
	kind kind
}

func (e *refusedError) Error() string {
	if e.kind.private {
		return fmt.Sprintf("address %s is %s; to allow it, set SPATE_WEBHOOK_ALLOW_PRIVATE=true or, for an endpoint in the endpoints file, allow_private: true", e.addr, e.kind.name)
	}
	return fmt.Sprintf("address %s is %s, which is never allowed", e.addr, e.kind.name)
}

// kind of address that is refused.
type kind struct {
	name    string
	private bool // allowed to whoever says so
}

var (
	loopback    = kind{"loopback", true}
	private     = kind{"private", true}
	shared      = kind{"shared (carrier-grade NAT)", true}
	metadata    = kind{"that of a cloud metadata service", false}
	linkLocal   = kind{"link-local", false}
	unspecified = kind{"unspecified", false}
	multicast   = kind{"multicast", false}
	reserved    = kind{"reserved", false}
	examples    = kind{"reserved for documentation", false}
	benchmark   = kind{"reserved for benchmarks", false}
)

// special are addresses that are not a public host's, after the IANA registries of special-purpose addresses (RFC 6890 and later). The
// first that contains an address counts.
var special = []struct {
	prefix netip.Prefix
	kind   kind
}{
	// Instance metadata outside the link-local network: Alibaba Cloud, Azure, AWS, Google Cloud. Credentials can be had there.
	{netip.MustParsePrefix("100.100.100.200/32"), metadata},
	{netip.MustParsePrefix("168.63.129.16/32"), metadata},
	{netip.MustParsePrefix("fd00:ec2::/32"), metadata},
	{netip.MustParsePrefix("fd20:ce::254/128"), metadata},

	{netip.MustParsePrefix("0.0.0.0/8"), unspecified},
	{netip.MustParsePrefix("10.0.0.0/8"), private},
	{netip.MustParsePrefix("100.64.0.0/10"), shared},
	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), linkLocal},
	{netip.MustParsePrefix("172.16.0.0/12"), private},
	{netip.MustParsePrefix("192.0.0.0/24"), reserved},
	{netip.MustParsePrefix("192.0.2.0/24"), examples},
	{netip.MustParsePrefix("192.88.99.0/24"), reserved},
	{netip.MustParsePrefix("192.168.0.0/16"), private},
	{netip.MustParsePrefix("198.18.0.0/15"), benchmark},
	{netip.MustParsePrefix("198.51.100.0/24"), examples},
	{netip.MustParsePrefix("203.0.113.0/24"), examples},
	{netip.MustParsePrefix("224.0.0.0/4"), multicast},
	{netip.MustParsePrefix("240.0.0.0/4"), reserved}, // and broadcast

	{netip.MustParsePrefix("::/128"), unspecified},
	{netip.MustParsePrefix("::1/128"), loopback},
	{netip.MustParsePrefix("2001:2::/48"), benchmark},
	{netip.MustParsePrefix("2001::/23"), reserved}, // Teredo and other protocols
	{netip.MustParsePrefix("2001:db8::/32"), examples},
	{netip.MustParsePrefix("3fff::/20"), examples},
	{netip.MustParsePrefix("fc00::/7"), private},
	{netip.MustParsePrefix("fe80::/10"), linkLocal},
	{netip.MustParsePrefix("ff00::/8"), multicast},
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
	// global is all of IPv6 that has been given out for hosts.
	global = netip.MustParsePrefix("2000::/3")
)

// embedded returns the IPv4 address that packets to a translated or tunnelled IPv6 address end up at.
func embedded(a netip.Addr) (netip.Addr, bool) {
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixTo4.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// judge returns why an address is refused, nil if it is not.
func judge(addr netip.Addr, allowPrivate bool) error {
	a := addr.WithZone("").Unmap()
	if v4, ok := embedded(a); ok {
		a = v4
	}
	for _, s := range special {
		if s.prefix.Contains(a) {
			if s.kind.private && allowPrivate {
				return nil
			}
			return &refusedError{addr: addr, kind: s.kind}
		}
	}
	if a.Is6() && !global.Contains(a) {
		return &refusedError{addr: addr, kind: reserved}
	}
	return nil
}

// Refused returns why connections to a host are refused, as far as that is known before its name is resolved; nil if they are allowed.
func Refused(host string, allowPrivate bool) error {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if host != "localhost" {
			return nil
		}
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return judge(addr, allowPrivate)
}

// Dialer returns a dialer that does not connect to refused addresses.
func Dialer(timeout time.Duration, allowPrivate bool) *net.Dialer {
	return &net.Dialer{Timeout: timeout, ControlContext: guard(allowPrivate)}
}

// errPublic: what is not encrypted stays within a network.
var errPublic = errors.New("the address is public, and the connection would not be encrypted: set tls to starttls or tls")

// PrivateDialer returns a dialer, for unencrypted connections, that connects only to loopback and private addresses.
func PrivateDialer(timeout time.Duration) *net.Dialer {
	allowed := guard(true)
	return &net.Dialer{Timeout: timeout, ControlContext: func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := allowed(ctx, network, address, c); err != nil {
			return err
		}
		if guard(false)(ctx, network, address, c) == nil {
			return errPublic
		}
		return nil
	}}
}

// guard is asked by the dialer for every connection, after names have been resolved: a name that gives another address from one time
// to the next gets past no check.
func guard(allowPrivate bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, network, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || network != "tcp4" && network != "tcp6" {
			return fmt.Errorf("refusing a connection that is not TCP to an IP address: %s", network)
		}
		return judge(ap.Addr(), allowPrivate)
	}
}
