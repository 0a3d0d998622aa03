package vip

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A client that has the VIP's MAC for good, and believes no announcement, reaches whoever holds the VIP: the MAC moves with it.
func TestVirtualMACMovesWithTheVIP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	l := newLab(t, 3)
	n := l.nodes
	l.vips[0].RouterID = 51
	for _, nd := range n {
		nd.tell(order{Setup: l.setup(nd.i)})
	}
	l.until("all guards may grant", func() bool {
		for _, nd := range n {
			s, _ := nd.get()
			if s.Silent || len(s.Peers) != 2 || !s.Peers[labName((nd.i+1)%3)].Fit || !s.Peers[labName((nd.i+2)%3)].Fit || len(s.Unable) > 0 {
				return false
			}
		}
		return true
	})
	const mac = "00:00:5e:00:01:33"
	state := func(nd *labNode) string {
		t.Helper()
		link, err := nd.link.LinkByName("skein-v51")
		if err != nil {
			return "none"
		}
		if got := link.Attrs().HardwareAddr.String(); got != mac {
			t.Errorf("the MAC is %s, want %s", got, mac)
		}
		if link.Attrs().RawFlags&unix.IFF_UP != 0 {
			return "up"
		}
		return "down"
	}
	c := l.client()
	defer func() { close(c.stop); <-c.done }()
	l.place(0)
	l.until("somebody answers", func() bool { _, ok := c.first(mac, time.Time{}); return ok })
	if got := []string{state(n[0]), state(n[1]), state(n[2])}; got[0] != "up" || got[1] != "down" || got[2] != "down" {
		t.Errorf("the macvlans are %v, want the holder's up and the others' down", got)
	}

	// Where the bridge, as any switch, sends the MAC's frames.
	port := func() string {
		list, err := netlink.NeighList(0, unix.AF_BRIDGE)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.HardwareAddr.String() == mac && e.MasterIndex == l.bridge.Attrs().Index {
				link, err := netlink.LinkByIndex(e.LinkIndex)
				if err != nil {
					return ""
				}
				return link.Attrs().Name
			}
		}
		return ""
	}
	l.until("the switch knows the MAC at n0", func() bool { return port() == "p0" })
	l.place(1)
	l.until("the switch knows the MAC at n1", func() bool { return port() == "p1" })
	l.until("n0 is silent", func() bool { return state(n[0]) == "down" })
	if err := n[1].link.LinkSetDown(n[1].eth); err != nil {
		t.Fatal(err)
	}
	l.until("n1 lets go with its interface", func() bool {
		s, _ := n[1].get()
		return strings.Contains(s.Unable["public"], "interface e1 is down") && len(s.Held) == 0
	})
	l.place(2)
	l.until("the switch knows the MAC at n2", func() bool { return port() == "p2" })
	if err := n[1].link.LinkSetUp(n[1].eth); err != nil {
		t.Fatal(err)
	}

	// The guard leaves nothing behind, neither at its end nor after it was killed.
	n[2].tell(order{Close: true})
	l.until("n2 has no macvlan left", func() bool { return state(n[2]) == "none" })
	_, guard0 := n[0].get()
	l.place(0)
	l.until("n0 holds", func() bool { s, _ := n[0].get(); return len(s.Held) == 1 })
	before, err := n[0].link.LinkByName("skein-v51")
	if err != nil {
		t.Fatal(err)
	}
	unix.Kill(guard0, unix.SIGKILL)
	l.until("a new guard has another macvlan", func() bool {
		link, err := n[0].link.LinkByName("skein-v51")
		return err == nil && link.Attrs().Index != before.Attrs().Index
	})
	// The VIP loses its virtual MAC: so does the host.
	l.vips[0].RouterID = 0
	n[0].tell(order{Setup: l.setup(0)})
	l.until("n0 has no macvlan left", func() bool { return state(n[0]) == "none" })
}

// The MAC's last octet is the virtual router; the family decides the one before.
func TestVirtualMACs(t *testing.T) {
	for _, c := range []struct{ addrs, want string }{
		{"192.0.2.10/24", "00:00:5e:00:01:07"},
		{"2001:db8::10/64", "00:00:5e:00:02:07"},
		{"2001:db8::10/64 192.0.2.10/24", "00:00:5e:00:01:07"},
	} {
		v := &vip{router: 7}
		for a := range strings.FieldsSeq(c.addrs) {
			v.prefixes = append(v.prefixes, netip.MustParsePrefix(a))
		}
		if got := virtualMAC(v).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.addrs, got, c.want)
		}
	}
}
