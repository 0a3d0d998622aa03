package vip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ring is a client on a bridge and hosts behind its ports, with a server on each that listens on the VIPs, whether the host has them or
// not. Who holds them is said here: the client's neighbour table is written by hand.
type ring struct {
	t      *testing.T
	bridge netlink.Link
	hosts  []*ringHost
	vips   []netip.Addr
}

type ringHost struct {
	name  string
	ns    netns.NsHandle
	link  *netlink.Handle
	eth   netlink.Link
	lo    netlink.Link
	hand  *Handover
	flows *Flows
}

func (h *ringHost) intact() (ok bool) {
	inNS(h.ns, func() error { ok = h.hand.Intact(); return nil })
	return ok
}

const ringPort = 8080

func newRing(t *testing.T, n int) *ring {
	r := &ring{t: t, vips: []netip.Addr{netip.MustParseAddr("198.18.0.50"), netip.MustParseAddr("fd00::50")}}
	r.must(os.WriteFile("/proc/sys/net/ipv6/conf/all/accept_dad", []byte("0"), 0o644))
	r.must(os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644))
	r.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 100}}}))
	var err error
	r.bridge, err = netlink.LinkByName("br0")
	r.must(err)
	r.must(netlink.LinkSetUp(r.bridge))
	for _, a := range []string{"198.18.0.100/24", "fd00::100/64"} {
		r.must(netlink.AddrAdd(r.bridge, ringAddr(netip.MustParsePrefix(a))))
	}
	for i := range n {
		r.addHost(i)
	}
	return r
}

func (r *ring) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func ringAddr(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Flags: unix.IFA_F_NODAD}
}

func (r *ring) addHost(i int) {
	h := &ringHost{name: string(rune('A' + i))}
	made := make(chan error)
	go func() {
		lockThread() // never unlocked: the thread ends with the goroutine
		var err error
		h.ns, err = netns.New()
		made <- err
	}()
	r.must(<-made)
	var err error
	h.link, err = netlink.NewHandleAt(h.ns)
	r.must(err)
	port, inside := fmt.Sprint("p", i), fmt.Sprint("e", i)
	r.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: inside}))
	in, err := netlink.LinkByName(inside)
	r.must(err)
	r.must(netlink.LinkSetNsFd(in, int(h.ns)))
	out, err := netlink.LinkByName(port)
	r.must(err)
	r.must(netlink.LinkSetMaster(out, r.bridge))
	r.must(netlink.LinkSetUp(out))
	h.lo, err = h.link.LinkByName("lo")
	r.must(err)
	r.must(h.link.LinkSetUp(h.lo))
	h.eth, err = h.link.LinkByName(inside)
	r.must(err)
	for _, a := range []string{fmt.Sprintf("198.18.0.%d/24", i+1), fmt.Sprintf("fd00::%d/64", i+1)} {
		r.must(h.link.AddrAdd(h.eth, ringAddr(netip.MustParsePrefix(a))))
	}
	r.must(h.link.LinkSetUp(h.eth))
	h.eth, err = h.link.LinkByName(inside)
	r.must(err)
	r.must(inNS(h.ns, func() error {
		// SYN cookies for everybody: a node that did not see the SYN cannot know the connection.
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0o644); err != nil {
			return err
		}
		for _, a := range r.vips {
			if err := ringServe(h.name, netip.AddrPortFrom(a, ringPort)); err != nil {
				return err
			}
		}
		if h.hand, err = OpenHandover(); err != nil {
			return err
		}
		h.flows, err = OpenFlows()
		return err
	}))
	r.t.Cleanup(func() { inNS(h.ns, func() error { h.hand.Close(); return nil }) })
	r.t.Cleanup(h.flows.Close)
	r.hosts = append(r.hosts, h)
}

// ringServe greets every client with its name and sends back what it gets.
func ringServe(name string, at netip.AddrPort) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		c.Control(func(fd uintptr) {
			if at.Addr().Is4() {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
		return err
	}}
	l, err := lc.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, name)
				io.Copy(c, c)
			}()
		}
	}()
	return nil
}

// holds moves the VIPs: from the link of one host to its loopback, and to the link of another. Clients hear of it.
func (r *ring) holds(to *ringHost, from ...*ringHost) {
	r.t.Helper()
	for _, a := range r.vips {
		p := netip.PrefixFrom(a, a.BitLen())
		for _, f := range from {
			r.must(f.link.AddrReplace(f.lo, ringAddr(p)))
			r.must(f.link.AddrDel(f.eth, ringAddr(p)))
		}
		r.must(to.link.AddrReplace(to.eth, ringAddr(p)))
		to.link.AddrDel(to.lo, ringAddr(p)) // if it was there
	}
	r.sends(to)
}

// sends has the client send to a host.
func (r *ring) sends(to *ringHost) {
	r.t.Helper()
	for _, a := range r.vips {
		r.must(netlink.NeighSet(&netlink.Neigh{LinkIndex: r.bridge.Attrs().Index, IP: a.AsSlice(), State: netlink.NUD_PERMANENT, HardwareAddr: to.eth.Attrs().HardwareAddr}))
	}
}

// hands has each of hosts hand on what is not its own: to the next, the last of them to the first if ring, else to nobody.
func (r *ring) hands(ring bool, hosts ...*ringHost) {
	r.t.Helper()
	for i, h := range hosts {
		var hands []Hand
		for _, a := range r.vips {
			if i+1 < len(hosts) || ring {
				to := hosts[(i+1)%len(hosts)]
				hands = append(hands, Hand{Address: a, Link: h.eth.Attrs().Name, To: to.eth.Attrs().HardwareAddr, Hops: len(hosts) - 1})
			}
		}
		r.must(inNS(h.ns, func() error { _, err := h.hand.Set(hands); return err }))
	}
}

// ringConn is a connection and who has it.
type ringConn struct {
	net.Conn
	of string
}

func (r *ring) connect(n int, of *ringHost) (cs []*ringConn) {
	r.t.Helper()
	for i := range n {
		for _, a := range r.vips {
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, ringPort).String(), 2*time.Second)
			if err != nil {
				r.t.Fatalf("connection %d: %v", i, err)
			}
			r.t.Cleanup(func() { c.Close() })
			name := make([]byte, 1)
			c.SetDeadline(time.Now().Add(2 * time.Second))
			if _, err := io.ReadFull(c, name); err != nil {
				r.t.Fatalf("connection %d: %v", i, err)
			}
			if string(name) != of.name {
				r.t.Fatalf("a new connection to %v went to %s, want %s", a, name, of.name)
			}
			cs = append(cs, &ringConn{c, string(name)})
		}
	}
	return cs
}

// alive sends something large through each connection, and has it back.
func (r *ring) alive(when string, css ...[]*ringConn) {
	r.t.Helper()
	out := bytes.Repeat([]byte("the flight goes on. "), 5000)
	in := make([]byte, len(out))
	for _, cs := range css {
		for i, c := range cs {
			c.SetDeadline(time.Now().Add(3 * time.Second))
			go c.Write(out)
			if _, err := io.ReadFull(c, in); err != nil {
				r.t.Fatalf("%s: connection %d with %s to %v: %v", when, i, c.of, c.RemoteAddr(), err)
			}
			if !bytes.Equal(in, out) {
				r.t.Fatalf("%s: connection %d with %s: something else came back", when, i, c.of)
			}
		}
	}
}

// reset wants each connection to be reset, without having sent anything.
func (r *ring) reset(when string, cs []*ringConn) {
	r.t.Helper()
	for i, c := range cs {
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			r.t.Errorf("%s: connection %d with %s: %v, want a reset", when, i, c.of, err)
		}
	}
}

// stray sends a segment of a connection that there never was, and wants it to be reset.
func (r *ring) stray() {
	r.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	r.must(err)
	defer unix.Close(fd)
	r.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3}))
	const port = 1234
	tick := newTickler()
	defer tick.close()
	r.must(tick.send(Flow{VIP: netip.MustParseAddrPort(fmt.Sprintf("198.18.0.100:%d", port)), Client: netip.AddrPortFrom(r.vips[0], ringPort)}, nil))
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			r.t.Errorf("a segment that belongs to nobody got no answer: %v", err)
			return
		}
		if head := 4 * int(buf[0]&15); n >= head+20 && binary.BigEndian.Uint16(buf[head+2:]) == port && buf[head+13]&4 != 0 {
			return
		}
	}
}

// The address moves from A to B, to C, and back to A, while connections of every stage go on, over IPv4 and IPv6, with SYN cookies and
// listeners bound to the address. What belongs to nobody gets a reset and does not go in circles.
func TestConnectionsStayWithWhoeverEstablishedThem(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	r := newRing(t, 3)
	a, b, c := r.hosts[0], r.hosts[1], r.hosts[2]
	r.holds(a)
	ofA := r.connect(5, a)
	r.alive("before any move", ofA)

	r.hands(false, b, a)
	r.holds(b, a)
	ofB := r.connect(5, b)
	r.alive("after A to B", ofA, ofB)

	r.hands(false, c, b, a)
	r.holds(c, b)
	ofC := r.connect(5, c)
	r.alive("after B to C", ofA, ofB, ofC)

	// For a moment the client still sends to C what is A's: it goes all the way round.
	r.hands(true, a, c, b)
	r.holds(a, c)
	r.sends(c)
	r.alive("after C to A, before the client has heard of it", ofA, ofB, ofC)
	r.sends(a)
	again := r.connect(5, a)
	r.alive("after C to A", ofA, ofB, ofC, again)

	// A client whose connection nobody knows any more: an answer at once, not a packet that circles.
	if n, err := b.flows.Reset(r.vips); err != nil || n != len(ofB) {
		t.Errorf("reset %d connections of B: %v, want %d", n, err, len(ofB))
	}
	r.reset("reset by B", ofB)

	// What belongs to nobody goes round once and is answered.
	r.stray()

	// The rules go when nothing is handed on any more, and what was established since they came stays.
	r.hands(false, a)
	r.alive("without rules", ofA, again)
	if !a.intact() {
		t.Error("rules that were taken away on purpose count as lost")
	}
	var chains []*nftables.Chain
	r.must(inNS(a.ns, func() (err error) {
		chains, err = a.hand.conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
		return err
	}))
	for _, c := range chains {
		if c.Hooknum != nil {
			t.Errorf("the chain %s still sees packets", c.Name)
		}
	}
}

// Somebody flushes all rules of the host in the middle of a move: they are made anew, and everybody's connections go on.
func TestRulesThatWereFlushedAreMadeAgain(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	r := newRing(t, 2)
	a, b := r.hosts[0], r.hosts[1]
	r.holds(a)
	ofA := r.connect(2, a)
	r.hands(false, b, a)
	r.holds(b, a)
	ofB := r.connect(2, b)
	b.hand.conn.FlushRuleset()
	r.must(inNS(b.ns, b.hand.conn.Flush))
	if b.intact() {
		t.Fatal("rules that are gone count as there")
	}
	r.must(inNS(b.ns, b.hand.Again))
	if !b.intact() {
		t.Error("the rules are not there again")
	}
	r.alive("after a flush", ofA, ofB)
}

// A crashes. Its clients only wait, and would for ever. B has their tuples, says one word to each, and each gets a reset.
func TestClientsOfADeadNodeAreWoken(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	r := newRing(t, 2)
	a, b := r.hosts[0], r.hosts[1]
	r.holds(a)
	ofA := r.connect(25, a)
	var flows []Flow
	r.must(a.flows.Each(r.vips, func(f Flow) { flows = append(flows, f) }))
	if len(flows) != len(ofA) {
		t.Fatalf("A has %d connections, want %d", len(flows), len(ofA))
	}
	r.must(a.link.LinkSetDown(a.eth))
	for _, v := range r.vips {
		r.must(b.link.AddrReplace(b.eth, ringAddr(netip.PrefixFrom(v, v.BitLen()))))
		r.must(netlink.NeighSet(&netlink.Neigh{LinkIndex: r.bridge.Attrs().Index, IP: v.AsSlice(), State: netlink.NUD_PERMANENT, HardwareAddr: b.eth.Attrs().HardwareAddr}))
	}
	r.must(inNS(b.ns, func() error {
		n, err := b.flows.Tickle(t.Context(), flows)
		if n != len(flows) {
			t.Errorf("woke %d clients, want %d", n, len(flows))
		}
		return err
	}))
	r.reset("after the crash", ofA)
}
