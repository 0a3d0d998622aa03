package vip

import (
	"net/netip"
	"strings"
	"testing"
)

func validSetup() Setup {
	return Setup{
		Self: "n1", ClusterID: "c", Keys: [][]byte{keyA}, Listen: netip.MustParseAddrPort("198.51.100.1:7941"), SelfVoter: true,
		Peers:      []Peer{{Name: "n2", Addr: netip.MustParseAddrPort("198.51.100.2:7941"), Voter: true}},
		VIPs:       []VIP{{Name: "public", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}},
		Placements: []Placement{{VIP: "public", Node: "n2", Epoch: Epoch{1, 5}}},
	}
}

// All that is wrong is named at once; what is refused here never reaches a table of fixed size.
func TestSetupCheck(t *testing.T) {
	ok := validSetup()
	if err := ok.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		do   func(s *Setup)
	}{
		{"the node has no name", func(s *Setup) { s.Self = "" }},
		{"0 heartbeat keys", func(s *Setup) { s.Keys = nil }},
		{"5 heartbeat keys", func(s *Setup) { s.Keys = [][]byte{keyA, keyA, keyA, keyA, keyA} }},
		{"a heartbeat key of 3 bytes", func(s *Setup) { s.Keys = [][]byte{[]byte("abc")} }},
		{"heartbeat address", func(s *Setup) { s.Listen = netip.AddrPort{} }},
		{`node "n2": heartbeat address [2001:db8::1]:0: want an address`, func(s *Setup) { s.Peers[0].Addr = netip.MustParseAddrPort("[2001:db8::1]:0") }},
		{`node "n1": same name`, func(s *Setup) { s.Peers[0].Name = "n1" }},
		{"33 peers", func(s *Setup) { s.Peers = make([]Peer, 33) }},
		{"65 vips", func(s *Setup) { s.VIPs = make([]VIP, 65) }},
		{`vip "public" has no address`, func(s *Setup) { s.VIPs[0].Addresses = nil }},
		{"bound to a link", func(s *Setup) { s.VIPs[0].Addresses[0] = netip.MustParsePrefix("fe80::a/64") }},
		{`belongs to vip "public"`, func(s *Setup) { s.VIPs = append(s.VIPs, VIP{Name: "b", Addresses: s.VIPs[0].Addresses}) }},
		{`router id 7 belongs to vip "public"`, func(s *Setup) { s.VIPs[0].RouterID = 7; s.VIPs = append(s.VIPs, VIP{Name: "b", RouterID: 7}) }},
		{`placement of unknown vip "x"`, func(s *Setup) { s.Placements[0].VIP = "x" }},
	} {
		s := validSetup()
		if c.do(&s); s.Check() == nil || !strings.Contains(s.Check().Error(), c.want) {
			t.Errorf("got %v, want %q", s.Check(), c.want)
		}
	}
}

func TestEpochsAreOrderedByGenerationFirst(t *testing.T) {
	for _, c := range []struct {
		a, b Epoch
		want int
	}{{Epoch{}, Epoch{1, 1}, -1}, {Epoch{1, 9}, Epoch{2, 1}, -1}, {Epoch{1, 9}, Epoch{1, 10}, -1}, {Epoch{1, 9}, Epoch{1, 9}, 0}, {Epoch{2, 0}, Epoch{1, 99}, 1}} {
		if got := c.a.Compare(c.b); got != c.want {
			t.Errorf("%v against %v: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
