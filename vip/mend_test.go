package vip

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What network managers, firewalls and people do to a host behind the guard's back: each time the address is answered for again soon,
// protected as before, or the node says why it cannot hold it.
func TestWhatOthersTakeAwayIsMended(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	l := newLab(t, 3)
	n := l.nodes
	l.until("all guards may grant", func() bool {
		for _, nd := range n {
			s, _ := nd.get()
			if s.Silent || len(s.Peers) != 2 || !s.Peers[labName((nd.i+1)%3)].Fit || !s.Peers[labName((nd.i+2)%3)].Fit {
				return false
			}
		}
		return true
	})
	c := l.client()
	defer func() { close(c.stop); <-c.done }()
	l.place(0)
	h := n[0]
	vip := &netlink.Addr{IPNet: hostNet(netip.MustParseAddr(labVIP))}
	answers := func(what string) {
		t.Helper()
		start := time.Now()
		l.until("n0 answers "+what, func() bool { a := c.last(""); return a.mac == h.mac && a.at.After(start) })
	}
	whole := func(what string) {
		t.Helper()
		l.until("the gate is whole "+what, func() bool { return h.gateWhole(t) })
	}
	held := func(yes bool) func() bool {
		return func() bool { s, _ := h.get(); _, ok := s.Held["public"]; return ok == yes }
	}
	answers("at first")
	whole("at first")

	t.Run("nft flush ruleset", func(t *testing.T) {
		h.nft(t, func(c *nftables.Conn) { c.FlushRuleset() })
		start := time.Now()
		whole("after a flush")
		t.Logf("whole after %v", time.Since(start))
		answers("after a flush")
	})
	t.Run("rules deleted, chains left", func(t *testing.T) {
		h.nft(t, func(c *nftables.Conn) {
			c.FlushTable(&nftables.Table{Name: gateTable, Family: nftables.TableFamilyNetdev})
		})
		whole("after its rules were deleted")
	})
	t.Run("set emptied", func(t *testing.T) {
		h.nft(t, func(c *nftables.Conn) {
			c.FlushSet(&nftables.Set{Table: &nftables.Table{Name: gateTable, Family: nftables.TableFamilyNetdev}, Name: "vips4"})
		})
		whole("after its set was emptied")
	})
	t.Run("sysctls reset", func(t *testing.T) {
		path := "/proc/sys/net/ipv4/conf/e0/arp_ignore"
		read := func() (v string) {
			if err := inNS(h.ns, func() error { b, err := os.ReadFile(path); v = strings.TrimSpace(string(b)); return err }); err != nil {
				t.Fatal(err)
			}
			return v
		}
		if got := read(); got != "1" {
			t.Errorf("arp_ignore is %s before, want 1", got)
		}
		if err := inNS(h.ns, func() error { return os.WriteFile(path, []byte("0"), 0) }); err != nil {
			t.Fatal(err)
		}
		l.until("arp_ignore is set again", func() bool { return read() == "1" })
	})
	t.Run("address removed", func(t *testing.T) {
		if err := h.link.AddrDel(h.eth, vip); err != nil {
			t.Fatal(err)
		}
		l.until("it is back", func() bool { return h.has(t, labVIP) })
		answers("after its address was removed")
	})
	t.Run("address removed again and again", func(t *testing.T) {
		l.until("n0 gives it up", func() bool {
			h.link.AddrDel(h.eth, vip)
			s, _ := h.get()
			return strings.Contains(s.Unable["public"], "somebody on this host keeps removing it")
		})
		l.until("the others hear that", func() bool { s, _ := n[1].get(); p := s.Peers["n0"]; return len(p.Unable) == 1 && len(p.Held) == 0 })
		l.until("n0 tries again once it is left alone", held(true))
		answers("again")
	})
	t.Run("loopback down", func(t *testing.T) {
		lo, err := h.link.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.link.LinkSetDown(lo); err != nil {
			t.Fatal(err)
		}
		l.until("n0 goes on without a gate", func() bool { s, _ := h.get(); return strings.HasPrefix(s.Gate, "none: the loopback interface is down") })
		answers("without a gate")
		if err := h.link.LinkSetUp(lo); err != nil {
			t.Fatal(err)
		}
		whole("when the loopback is back")
		answers("with a gate again")
	})
	t.Run("interface down and up", func(t *testing.T) {
		if err := h.link.LinkSetDown(h.eth); err != nil {
			t.Fatal(err)
		}
		l.until("n0 says that its interface is down", func() bool {
			s, _ := h.get()
			return s.Unable["public"] == "interface e0 is down" && len(s.Held) == 0
		})
		if err := h.link.LinkSetUp(h.eth); err != nil {
			t.Fatal(err)
		}
		l.until("n0 holds again", held(true))
		answers("after its interface was down")
	})
	t.Run("carrier lost and back", func(t *testing.T) {
		port, err := netlink.LinkByName("p0")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetDown(port); err != nil {
			t.Fatal(err)
		}
		l.until("n0 says that its interface has no carrier", func() bool {
			s, _ := h.get()
			return s.Unable["public"] == "interface e0 has no carrier" && len(s.Held) == 0
		})
		if err := netlink.LinkSetUp(port); err != nil {
			t.Fatal(err)
		}
		l.until("n0 holds again", held(true))
		answers("after its carrier was lost")
	})
	t.Run("interface deleted and made anew", func(t *testing.T) {
		if err := h.link.LinkDel(h.eth); err != nil {
			t.Fatal(err)
		}
		l.until("n0 says that it has none", func() bool {
			s, _ := h.get()
			return strings.Contains(s.Unable["public"], "no interface has an address in the subnet") && len(s.Held) == 0
		})
		h.plug(l)
		l.until("n0 holds again", held(true))
		answers("over its new interface")
		whole("over its new interface")
	})
	t.Run("no VIP is configured any more", func(t *testing.T) {
		l.vips, l.holder = nil, ""
		for _, nd := range n {
			nd.tell(order{Setup: l.setup(nd.i)})
		}
		l.until("the gate is gone, and with it what it drops: the address may be anybody's", func() (gone bool) {
			h.nft(t, func(c *nftables.Conn) {
				tables, err := c.ListTablesOfFamily(nftables.TableFamilyNetdev)
				gone = err == nil && len(tables) == 0
			})
			return gone
		})
	})
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// plug connects the node to the bridge.
func (n *labNode) plug(l *lab) {
	l.t.Helper()
	must := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
	}
	port, end := fmt.Sprint("p", n.i), fmt.Sprint("e", n.i)
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: end}))
	in, err := netlink.LinkByName(end)
	must(err)
	must(netlink.LinkSetNsFd(in, int(n.ns)))
	out, err := netlink.LinkByName(port)
	must(err)
	must(netlink.LinkSetMaster(out, l.bridge))
	must(netlink.LinkSetUp(out))
	n.eth, err = n.link.LinkByName(end)
	must(err)
	must(n.link.AddrAdd(n.eth, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(labAddr(n.i)), Mask: net.CIDRMask(24, 32)}}))
	must(n.link.LinkSetUp(n.eth))
	n.eth, err = n.link.LinkByName(end)
	must(err)
	n.mac = n.eth.Attrs().HardwareAddr.String()
}

// has is whether an address is on the node's link.
func (n *labNode) has(t *testing.T, addr string) bool {
	list, err := n.link.AddrList(n.eth, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if a.IP.String() == addr {
			return true
		}
	}
	return false
}

// nft changes the node's rules.
func (n *labNode) nft(t *testing.T, f func(*nftables.Conn)) {
	t.Helper()
	if err := inNS(n.ns, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		f(c)
		return c.Flush()
	}); err != nil {
		t.Fatal(err)
	}
}

// gateWhole is whether the rules of the node's gate are all there, and the VIP is in its set.
func (n *labNode) gateWhole(t *testing.T) (whole bool) {
	t.Helper()
	if err := inNS(n.ns, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: gateTable, Family: nftables.TableFamilyNetdev}
		for chain, want := range map[string]int{"tick": 11, "in-0": 2, "out-0": 3} {
			if rules, err := c.GetRules(table, &nftables.Chain{Name: chain, Table: table}); err != nil || len(rules) != want {
				return nil
			}
		}
		set, err := c.GetSetByName(table, "vips4")
		if err != nil {
			return nil
		}
		vips, err := c.GetSetElements(set)
		whole = err == nil && len(vips) == 1
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return whole
}
