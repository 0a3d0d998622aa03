package vip

import (
	"net/netip"
	"testing"
	"time"
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
