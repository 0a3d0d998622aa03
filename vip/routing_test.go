package vip

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/vip/vrrp"
)

// What our router has become is told to peers and agent at once, and once.
func TestARoutersStateIsToldWhenItChanges(t *testing.T) {
	s := Setup{Self: "n1", SelfVoter: true, Peers: []Peer{{Name: "n2", Voter: true}}, VIPs: []VIP{{Name: "public",
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")},
		VRRP:      &VRRP{ID: 51, Version: 3, Priority: 100, Interval: time.Second}}}}
	now := int64(time.Hour)
	m := newMachine(0, 1, true)
	m.configure(now, &s)
	for _, c := range []struct{ active, told bool }{{false, false}, {true, true}, {true, false}, {false, true}, {false, false}} {
		m.out, m.chatty = nil, false
		m.routes(0, c.active)
		if reported := len(m.out) == 1 && m.out[0].kind == actReport; reported != c.told || m.chatty != c.told {
			t.Errorf("active %v: the agent hears of it: %v, the peers: %v; want %v", c.active, reported, m.chatty, c.told)
		}
	}
}

// Two nodes become a pair with a holder only if its leases are all good: of what it holds without one nobody knows who has it.
func TestAPairBeginsWithAHolderIfAllItHoldsHasALease(t *testing.T) {
	const now = int64(time.Hour)
	held, lapsed := now+1, now
	for _, c := range []struct {
		name   string
		leases []int64 // of what is held; 0: it is not
		want   bool
	}{
		{"nothing is held", []int64{0, 0}, false},
		{"one of two", []int64{held, 0}, true},
		{"the other one", []int64{0, held}, true},
		{"both", []int64{held, held}, true},
		{"one lease is over", []int64{lapsed, held}, false},
		{"the other one is", []int64{held, lapsed}, false},
	} {
		m := newMachine(0, 1, true)
		m.selfVoter = true
		for _, until := range c.leases {
			m.vips = append(m.vips, &vip{held: until > 0, heldEpoch: Epoch{1, 3}, own: lease{Epoch{1, 3}, until}})
		}
		if got := m.keepsAll(now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What becomes of a VIP that enters a VRRP group, leaves it, or is in another one: what is on the link stays there, what another router has
// stays off it, and a VIP that is gone says good-bye.
func TestARoutersGroupChanges(t *testing.T) {
	one, two := &VRRP{ID: 1, Version: 3, Priority: 100, Interval: time.Second}, &VRRP{ID: 1, Version: 3, Priority: 200, Interval: time.Second}
	for _, c := range []struct {
		name         string
		was          *VRRP
		active, same bool
		is           *VRRP
		want         regroup
	}{
		{"it enters", nil, false, false, one, regroup{enter: true, assume: true}},
		{"nothing changes", one, true, true, one, regroup{keep: true}},
		{"nothing changes while another router is active", one, false, true, one, regroup{keep: true}},
		{"the active router's priority changes", one, true, true, two, regroup{enter: true, assume: true}},
		{"so does that of one that stands by", one, false, true, two, regroup{enter: true}},
		{"it leaves", one, true, true, nil, regroup{link: true}},
		{"it leaves while another router is active", one, false, true, nil, regroup{link: true}},
		{"the vip is gone", one, true, false, nil, regroup{resign: true}},
		{"the vip has other addresses", one, true, false, one, regroup{resign: true, enter: true}},
	} {
		if got := regrouped(c.was, c.active, c.same, c.is); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Addresses in a group are on the link while our router is the active one; those in none always.
func TestARoutersAddressesAreOnTheLinkWhileItIsActive(t *testing.T) {
	g := &guard{m: newMachine(0, 1, true), routers: map[string]*router{}}
	g.m.vips = []*vip{{name: "public"}}
	is := func(when string, want bool) {
		t.Helper()
		if got := g.routed(0); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	is("in no group", true)
	r := &router{fd: -1}
	g.routers["public"] = r
	is("it could not join", false)
	r.Router = vrrp.New(vrrp.Config{ID: 1, Version: vrrp.V3, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")}})
	is("not started", false)
	r.Startup(0)
	is("backup", false)
	r.Assume(0)
	is("active", true)
	r.Shutdown()
	is("ended", false)
}

// The guard wakes up for the router whose turn is next, and for none that takes no part.
func TestARoutersTurnWakesTheGuard(t *testing.T) {
	made := func(fd int, started int64) *router {
		r := &router{fd: fd, Router: vrrp.New(vrrp.Config{
			ID: 1, Version: vrrp.V3, Priority: 1, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")},
		})}
		if started > 0 {
			r.Startup(started)
		}
		return r
	}
	g := &guard{routers: map[string]*router{"a": made(-1, 1), "idle": made(3, 0)}}
	if got := g.nextRouter(); got != 1<<63-1 {
		t.Errorf("nobody takes part, and the next turn is at %v", got)
	}
	g.routers["b"], g.routers["c"] = made(3, int64(time.Hour)), made(4, int64(time.Minute))
	if got, want := g.nextRouter(), g.routers["c"].Next(); got != want || want == 0 {
		t.Errorf("the next turn is at %v, want %v", got, want)
	}
}

// Without a lease our router says nothing more: another node of the cluster may be the group's active router.
func TestARoutersWordEndsWithItsLease(t *testing.T) {
	m := newMachine(0, 1, true)
	m.selfVoter = true
	at := Epoch{1, 3}
	m.vips = []*vip{{placed: Placement{Epoch: at}, own: lease{at, 100}}}
	for now, want := range map[int64]bool{0: true, 99: true, 100: false, 101: false} {
		if got := m.vouched(now, 0); got != want {
			t.Errorf("at %d of a lease until 100: %v, want %v", now, got, want)
		}
	}
}

// Advertisements come from an address that belongs to the interface, whoever holds the VIP.
func TestARoutersOwnAddress(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")}
	for _, c := range []struct{ own, want string }{
		{"", ""},
		{"192.0.2.1/24", "192.0.2.1"},
		{"192.0.2.10/24 192.0.2.1/24", "192.0.2.1"}, // the VIP is on the link
		{"192.0.2.7/32 192.0.2.1/24", "192.0.2.1"},  // a host address is another VIP
		{"192.0.2.2/24 192.0.2.1/24", "192.0.2.2"},  // the first
		{"2001:db8::1/64 fe80::1/64", "fe80::1"},    // RFC 9568, 5.1.2.1
		{"2001:db8::1/64 2001:db8::10/128", ""},     //
		{"192.0.2.10/24", ""},                       // whoever has nothing else has to wait
	} {
		var own []netip.Prefix
		for _, f := range strings.Fields(c.own) {
			own = append(own, netip.MustParsePrefix(f))
		}
		got := ""
		if a := primaryOf(own, vips); a.IsValid() {
			got = a.String()
		}
		if got != c.want {
			t.Errorf("of %q: %q, want %q", c.own, got, c.want)
		}
	}
}
