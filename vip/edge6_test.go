package vip

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The addresses of the tests in IPv6 are of the block for benchmarks, RFC 5180.
var labVIP6 = netip.MustParseAddr("2001:2::50")

func labNet6(last byte) *net.IPNet {
	return &net.IPNet{IP: net.IP{0x20, 1, 0, 2, 15: last}, Mask: net.CIDRMask(64, 128)}
}

// ndClient asks for the VIP by neighbour solicitation every 2 ms and notes who answers.
type ndClient struct {
	nd   ndSocket
	stop chan struct{}
	done chan struct{}
	mu   sync.Mutex
	seen []answer
}

func (l *lab) client6() *ndClient {
	c := &ndClient{nd: ndSocket{fd: -1}, stop: make(chan struct{}), done: make(chan struct{})}
	if err := c.nd.only([]netip.Addr{labVIP6}); err != nil {
		l.t.Fatal(err)
	}
	a := l.bridge.Attrs()
	self, _ := netip.AddrFromSlice(labNet6(100).IP)
	group, groupMAC := solicitedNode(labVIP6)
	ask := ndFrame(groupMAC, a.HardwareAddr, self, group, ndSolicit, 0, labVIP6, optSource)
	to := unix.SockaddrLinklayer{Ifindex: a.Index, Halen: 6}
	go func() {
		defer close(c.done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			c.nd.send(&to, ask)
			for {
				mac, addr, more := c.nd.claimOf()
				if !more {
					break
				}
				if addr == labVIP6 {
					c.mu.Lock()
					c.seen = append(c.seen, answer{at: time.Now(), mac: net.HardwareAddr(mac[:]).String()})
					c.mu.Unlock()
				}
			}
			select {
			case <-tick.C:
			case <-c.stop:
				c.nd.close()
				return
			}
		}
	}()
	return c
}

// first and last are the first answer by mac after a moment, and the last.
func (c *ndClient) first(mac string, after time.Time) (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seen {
		if s.mac == mac && s.at.After(after) {
			return s.at, true
		}
	}
	return at, false
}

func (c *ndClient) last(mac string) (at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seen {
		if s.mac == mac {
			at = s.at
		}
	}
	return at
}

// One VIP with an address of either family: both are held together, the IPv6 one answers to neighbour discovery behind the same
// gate, and the neighbour cache of a client follows the holder.
func TestGuardsHoldAnIPv6Address(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	// Duplicate address detection would keep the addresses of the lab itself unusable for two seconds.
	os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
	l := newLab(t, 3)
	n := l.nodes
	six := func(h *netlink.Handle, link netlink.Link, last byte) {
		t.Helper()
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: labNet6(last), Flags: unix.IFA_F_NODAD}); err != nil {
			t.Fatal(err)
		}
	}
	here, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	six(here, l.bridge, 100)
	for _, nd := range n {
		six(nd.link, nd.eth, byte(nd.i+1))
	}
	l.vips = []VIP{{Name: "public", Addresses: []netip.Prefix{
		netip.PrefixFrom(labVIP6, 64), netip.MustParsePrefix(labVIP + "/24"),
	}}}
	for _, nd := range n {
		nd.tell(order{Setup: l.setup(nd.i)})
	}
	l.until("all guards may grant", func() bool {
		for _, nd := range n {
			s, _ := nd.get()
			if s.Silent || len(s.Peers) != 2 || !s.Peers[labName((nd.i+1)%3)].Fit || !s.Peers[labName((nd.i+2)%3)].Fit {
				return false
			}
		}
		return true
	})
	c, c4 := l.client6(), l.client()
	defer func() { close(c.stop); <-c.done; close(c4.stop); <-c4.done }()
	l.place(0)
	l.until("n0 answers", func() bool { _, ok := c.first(n[0].mac, time.Time{}); return ok })
	l.until("n0 answers for the other family", func() bool { _, ok := c4.first(n[0].mac, time.Time{}); return ok })

	addrs, err := n[0].link.AddrList(n[0].eth, unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, a := range addrs {
		if a.IP.Equal(labVIP6.AsSlice()) {
			found = true
			ones, _ := a.Mask.Size()
			want := unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_DEPRECATED
			if ones != 128 || a.ValidLft <= 0 || a.ValidLft > validLife || a.Flags&want != want || a.Flags&unix.IFA_F_TENTATIVE != 0 {
				t.Errorf("a /%d with valid_lft %d and flags %#x; want a /128 with a short life, nodad, noprefixroute and deprecated", ones, a.ValidLft, a.Flags)
			}
		}
	}
	if !found {
		t.Errorf("the address is not on the holder's link: %v", addrs)
	}

	// The client's kernel learns the address, as any host would, and is told when it moves.
	conn, err := net.Dial("udp", "[2001:2::50]:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	entry := func() string {
		conn.Write([]byte("x")) // makes an entry where there is none
		list, _ := netlink.NeighList(l.bridge.Attrs().Index, unix.AF_INET6)
		for _, e := range list {
			if e.IP.Equal(labVIP6.AsSlice()) && e.HardwareAddr != nil {
				return e.HardwareAddr.String()
			}
		}
		return ""
	}
	l.until("the client's kernel knows n0", func() bool { return entry() == n[0].mac })

	start := time.Now()
	l.place(1)
	l.until("n1 answers", func() bool { _, ok := c.first(n[1].mac, start); return ok })
	l.until("the client's kernel knows n1", func() bool { return entry() == n[1].mac })
	t.Logf("moved: n1 answers and the client knows it after %v", time.Since(start))

	// Guard and agent both stop: only the kernel is left with the address, and the gate must silence it.
	_, guard1 := n[1].get()
	start = time.Now()
	syscall.Kill(guard1, syscall.SIGSTOP)
	n[1].cmd.Process.Signal(syscall.SIGSTOP)
	l.until("n2 is sure that n1 is gone", func() bool { s, _ := n[2].get(); return s.Peers["n1"].ConfirmedDead })
	l.place(2, 1)
	l.until("n2 answers", func() bool { _, ok := c.first(n[2].mac, start); return ok })
	at, _ := c.first(n[2].mac, start)
	time.Sleep(300 * time.Millisecond) // n1 has the address for three seconds more
	if last := c.last(n[1].mac); last.After(at) {
		t.Errorf("n1 answered %v after n2 had begun to", last.Sub(at))
	} else {
		t.Logf("both stopped: n1 last answered after %v, n2 first after %v", last.Sub(start), at.Sub(start))
	}
	addrs, err = n[1].link.AddrList(n[1].eth, unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("n1 still has %d IPv6 addresses", len(addrs))
	syscall.Kill(guard1, syscall.SIGCONT)
	n[1].cmd.Process.Signal(syscall.SIGCONT)
	n[1].tell(order{Setup: l.setup(1)})

	// A stranger claims the address.
	stranger, err := buildND(net.HardwareAddr{2, 0, 0, 0, 0, 66}, labVIP6)
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, stranger.request, 0, &unix.SockaddrLinklayer{Ifindex: l.bridge.Attrs().Index, Halen: 6}); err != nil {
		t.Fatal(err)
	}
	l.until("n2 reports the stranger", func() bool {
		s, _ := n[2].get()
		return len(s.Conflicts) == 1 && s.Conflicts[0].Stranger && s.Conflicts[0].Address == labVIP6
	})
	l.until("the client's kernel still knows n2", func() bool { return entry() == n[2].mac })

	// Somebody takes the address off the link.
	if err := n[2].link.AddrDel(n[2].eth, &netlink.Addr{IPNet: hostNet(labVIP6)}); err != nil {
		t.Errorf("the address is not on the holder's link: %v", err)
	}
	l.until("the address is back", func() bool {
		addrs, _ := n[2].link.AddrList(n[2].eth, unix.AF_INET6)
		for _, a := range addrs {
			if a.IP.Equal(labVIP6.AsSlice()) {
				return true
			}
		}
		return false
	})

	// Somebody disables IPv6: the kernel takes the address away and wants no other.
	disable := func(v string) {
		t.Helper()
		if err := inNS(n[2].ns, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/e2/disable_ipv6", []byte(v), 0) }); err != nil {
			t.Fatal(err)
		}
	}
	disable("1")
	l.until("n2 says why it cannot hold the VIP, of either family", func() bool {
		s, _ := n[2].get()
		return strings.HasSuffix(s.Unable["public"], "IPv6 is disabled on e2 (net.ipv6.conf.e2.disable_ipv6)") && len(s.Held) == 0
	})
	disable("0")
	l.until("n2 holds again", func() bool { s, _ := n[2].get(); _, ok := s.Held["public"]; return ok })
	n[2].tell(order{Close: true})
	l.until("n2 has left nothing behind", func() bool {
		addrs, _ := n[2].link.AddrList(n[2].eth, unix.AF_INET6)
		for _, a := range addrs {
			if a.IP.Equal(labVIP6.AsSlice()) {
				return false
			}
		}
		return true
	})
}

// Where IPv6 is disabled on the loopback, a VIP of both families is parked with what is left of it.
func TestAnAddressThatCannotBeParkedTakesNoOtherAlong(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	l, err := openLinks()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	v4 := netip.MustParseAddr(labVIP)
	v := &vip{prefixes: []netip.Prefix{netip.PrefixFrom(labVIP6, 64), netip.PrefixFrom(v4, 24)}}
	if err := l.onLoopback(v, l.put); err == nil || !strings.Contains(err.Error(), "IPv6 is disabled on lo") {
		t.Errorf("parked with IPv6 disabled: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	parked, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(parked, func(a netlink.Addr) bool { return a.IP.Equal(v4.AsSlice()) }) {
		t.Errorf("on the loopback: %v; want %v, too", parked, v4)
	}
}
