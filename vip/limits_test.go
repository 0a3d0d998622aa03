package vip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// largestSetup is a Setup in which everything is as many and as long as Check and the configuration allow.
func largestSetup() Setup {
	long := strings.Repeat("n", 59)
	addr := func(link, i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff:ffff:ffff:ffff:%x:%x", 0xf000+link, 0xf000+i)), 65535)
	}
	also := func(i int) []netip.AddrPort { return []netip.AddrPort{addr(1, i), addr(2, i)} }
	keys := make([][]byte, MaxKeys)
	for i := range keys {
		keys[i] = make([]byte, 32)
	}
	s := Setup{
		Self: long + "self", ClusterID: strings.Repeat("c", 64), Keys: keys, Listen: addr(0, 999), Also: also(999), SelfVoter: true, VotersIndex: 1<<64 - 1,
		Applied: 1<<64 - 1, Generation: 1<<64 - 1,
	}
	for i := range MaxPeers {
		s.Peers = append(s.Peers, Peer{Name: fmt.Sprintf("%s%04d", long, i), Addr: addr(0, i), Also: also(i), Voter: true})
	}
	for i := range MaxFormer {
		s.Former = append(s.Former, Former{Name: fmt.Sprintf("%sf%03d", long, i), Addr: addr(0, i), Also: also(i), Keys: keys})
	}
	for i := range MaxVIPs {
		v := VIP{Name: fmt.Sprintf("%sv%03d", long, i), Interface: strings.Repeat("e", 15), RouterID: uint8(i + 1)}
		for k := range MaxAddresses / MaxVIPs {
			v.Addresses = append(v.Addresses, netip.PrefixFrom(addr(3+k, i).Addr(), 128))
		}
		s.VIPs = append(s.VIPs, v)
		s.Placements = append(s.Placements, Placement{VIP: v.Name, Node: s.Peers[i%MaxPeers].Name, Epoch: Epoch{1<<64 - 1, 1<<64 - 1}, First: true, Drain: time.Hour})
	}
	return s
}

// The largest that an agent can say to its guard fits a packet.
func TestTheLargestSetupFitsAPacket(t *testing.T) {
	s := largestSetup()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	drained := map[string]Epoch{}
	for _, p := range s.Placements {
		drained[p.VIP] = p.Epoch
	}
	for _, m := range []toGuard{{Setup: &s}, {Drained: drained}} {
		if _, err := encodeControl(m); err != nil {
			t.Error(err)
		}
	}
}

// What a guard says of so many nodes and VIPs fits a packet, too: each VIP held by one and parked by two, and where each node's interfaces are
// known of all. It was said for each node and VIP whether anybody asked or not, 231 KB, and none of it arrived.
func TestTheLargestReportFitsAPacket(t *testing.T) {
	s := largestSetup()
	m := newMachine(0, 1, true)
	m.configure(0, &s)
	for k, p := range m.peers {
		p.ever = true
		for i := range p.claims {
			p.claims[i].mac = [6]byte{2, byte(i), byte(k), 1, 1, 1}
			switch (i + k) % len(m.peers) {
			case 0:
				p.claims[i].flags = entryHeld | entryWant
			case 1, 2:
				p.claims[i].flags = entryParked
			}
		}
	}
	var r report
	m.fillReport(1, &r)
	var c controlServer
	if b := c.json.append(nil, &r); len(b) > controlMax {
		t.Errorf("%d bytes, want at most %d", len(b), controlMax)
	}
	for _, p := range r.Peers {
		for _, name := range append(p.Held, p.Parked...) {
			if p.MACs[name] == "" {
				t.Fatalf("%s is held or parked, and it is not said where: %v", name, p.MACs)
			}
		}
	}
}
