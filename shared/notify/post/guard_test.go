package post

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	const (
		open  = iota // always allowed
		lifts        // allowed with AllowPrivate
		never
	)
	for _, tt := range []struct {
		addr string
		want int
		kind string
	}{
		{"8.8.8.8", open, ""},
		{"1.1.1.1", open, ""},
		{"9.255.255.255", open, ""},
		{"11.0.0.0", open, ""},
		{"100.63.255.255", open, ""},
		{"100.128.0.0", open, ""},
		{"172.15.255.255", open, ""},
		{"172.32.0.0", open, ""},
		{"192.167.255.255", open, ""},
		{"192.169.0.0", open, ""},
		{"198.17.255.255", open, ""},
		{"198.20.0.0", open, ""},
		{"223.255.255.255", open, ""},
		{"2606:4700:4700::1111", open, ""},
		{"2a00:1450:4001:830::200e", open, ""},
		{"::ffff:8.8.8.8", open, ""},
		{"64:ff9b::8.8.8.8", open, ""},
		{"2002:808:808::1", open, ""},

		{"127.0.0.1", lifts, "loopback"},
		{"127.255.255.254", lifts, "loopback"},
		{"::1", lifts, "loopback"},
		{"10.0.0.1", lifts, "private"},
		{"10.255.255.255", lifts, "private"},
		{"172.16.0.1", lifts, "private"},
		{"172.31.255.255", lifts, "private"},
		{"192.168.1.1", lifts, "private"},
		{"fc00::1", lifts, "private"},
		{"fdff:ffff::1", lifts, "private"},
		{"100.64.0.1", lifts, "shared"},
		{"100.127.255.255", lifts, "shared"},
		{"::ffff:127.0.0.1", lifts, "loopback"},
		{"::ffff:10.0.0.1", lifts, "private"},
		{"64:ff9b::10.0.0.1", lifts, "private"},
		{"64:ff9b::127.0.0.1", lifts, "loopback"},
		{"2002:a00:1::1", lifts, "private"},
		{"2002:7f00:1::", lifts, "loopback"},

		{"169.254.169.254", never, "link-local"},
		{"169.254.0.1", never, "link-local"},
		{"fe80::1", never, "link-local"},
		{"fe80::1%eth0", never, "link-local"},
		{"febf::1", never, "link-local"},
		{"::ffff:169.254.169.254", never, "link-local"},
		{"64:ff9b::169.254.169.254", never, "link-local"},
		{"2002:a9fe:a9fe::1", never, "link-local"},
		{"fd00:ec2::254", never, "metadata"},
		{"fd20:ce::254", never, "metadata"},
		{"100.100.100.200", never, "metadata"},
		{"168.63.129.16", never, "metadata"},
		{"::ffff:168.63.129.16", never, "metadata"},
		{"0.0.0.0", never, "unspecified"},
		{"0.1.2.3", never, "unspecified"},
		{"::", never, "unspecified"},
		{"::ffff:0.0.0.0", never, "unspecified"},
		{"64:ff9b::", never, "unspecified"},
		{"224.0.0.1", never, "multicast"},
		{"239.255.255.255", never, "multicast"},
		{"ff02::1", never, "multicast"},
		{"240.0.0.1", never, "reserved"},
		{"255.255.255.255", never, "reserved"},
		{"192.0.0.1", never, "reserved"},
		{"192.88.99.1", never, "reserved"},
		{"198.18.0.1", never, "benchmarks"},
		{"198.19.255.255", never, "benchmarks"},
		{"2001:2::1", never, "benchmarks"},
		{"192.0.2.1", never, "documentation"},
		{"198.51.100.1", never, "documentation"},
		{"203.0.113.1", never, "documentation"},
		{"2001:db8::1", never, "documentation"},
		{"3fff::1", never, "documentation"},
		{"2001::1", never, "reserved"},                // Teredo
		{"::127.0.0.1", never, "reserved"},            // IPv4-compatible, deprecated
		{"64:ff9b:1::10.0.0.1", never, "reserved"},    // local NAT64
		{"100::1", never, "reserved"},                 // discard
		{"fec0::1", never, "reserved"},                // site-local, deprecated
		{"5f00::1", never, "reserved"},                // SRv6
		{"::ffff:0:127.0.0.1", never, "reserved"},     // SIIT
		{"4000::1", never, "reserved"},                // not given out
		{"::ffff:255.255.255.255", never, "reserved"}, // broadcast
	} {
		for _, allow := range []bool{false, true} {
			err := judge(netip.MustParseAddr(tt.addr), allow)
			if allowed := tt.want == open || tt.want == lifts && allow; allowed != (err == nil) {
				t.Errorf("%s, allow private %t: %v", tt.addr, allow, err)
			}
			if err == nil {
				continue
			}
			if !strings.Contains(err.Error(), tt.kind) {
				t.Errorf("%s, allow private %t: %v, want something about %q", tt.addr, allow, err, tt.kind)
			}
			if helps := strings.Contains(err.Error(), "SPATE_WEBHOOK_ALLOW_PRIVATE=true"); helps != (tt.want == lifts) {
				t.Errorf("%s: %v: tells of the setting: %t", tt.addr, err, helps)
			}
		}
	}
}

func TestGuardTakesTCPToAddressesAlone(t *testing.T) {
	check := guard(true)
	for _, tt := range []struct{ network, address string }{{"udp4", "8.8.8.8:53"}, {"unix", "/run/x"}, {"tcp4", "example.com:80"}, {"tcp4", ""}} {
		if err := check(t.Context(), tt.network, tt.address, nil); err == nil {
			t.Errorf("%s %s is let through", tt.network, tt.address)
		}
	}
	if err := check(t.Context(), "tcp6", "[::ffff:127.0.0.1]:80", nil); err != nil {
		t.Error(err)
	}
	var refused *refusedError
	if err := guard(false)(t.Context(), "tcp6", "[fe80::1%lo]:80", nil); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
}

func TestPrivateDialer(t *testing.T) {
	control := PrivateDialer(0).ControlContext
	for address, want := range map[string]error{"8.8.8.8:25": errPublic, "127.0.0.1:25": nil, "10.0.0.1:25": nil, "[fd00::1]:25": nil, "[2606:4700:4700::1111]:25": errPublic} {
		network := "tcp4"
		if strings.HasPrefix(address, "[") {
			network = "tcp6"
		}
		if err := control(t.Context(), network, address, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	var refused *refusedError
	if err := control(t.Context(), "tcp4", "169.254.169.254:25", nil); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
}
