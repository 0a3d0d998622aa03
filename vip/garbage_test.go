package vip

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A guard that holds makes next to no garbage: it has 16 MB, which last for hours between two collections, each of which makes it late on
// a machine with one processor. It once made 180 KB a second.
func TestAGuardAtRestMakesLittleGarbage(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	link := linkWith(t, "198.18.0.1/24")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- RunGuard(ctx, GuardOptions{Log: slog.New(slog.DiscardHandler)})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	// An agent that makes no garbage itself: it keeps what it reads and looks at nothing.
	p, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{page: p}
	p.word(lineFit).Store(1)
	go func() { // for as long as the test
		for {
			p.word(lineAgent).Add(1)
			time.Sleep(agentStamp)
		}
	}()
	var conn *net.UnixConn
	for conn == nil {
		if conn, err = a.greet(); err != nil {
			select {
			case err := <-ended:
				t.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
	}
	defer conn.Close()
	say := func(m toGuard) {
		b, err := encodeControl(m)
		if err == nil {
			_, err = conn.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	hear := func(buf []byte) State {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := decodeControl[toAgent](buf[:n])
		if err != nil || m.Problem != "" {
			t.Fatal(err, m.Problem)
		}
		if m.State == nil {
			return State{}
		}
		return m.State.state(time.Time{})
	}
	say(toGuard{Fit: &fit{Fit: true}})
	say(toGuard{Setup: &Setup{
		Self: "n0", ClusterID: "c", Keys: [][]byte{[]byte("sixteen bytes of")}, SelfVoter: true, VotersIndex: 1, Listen: netip.MustParseAddrPort("198.18.0.1:7941"),
		VIPs: []VIP{
			{Name: "four", Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.50/24"), netip.MustParsePrefix("198.18.0.51/24")}},
			{Name: "virtual", Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.60/24")}, RouterID: 7},
			{Name: "six", Addresses: []netip.Prefix{netip.MustParsePrefix("fd00::50/64")}, Interface: link.Attrs().Name},
		},
		Placements: []Placement{{VIP: "four", Node: "n0", Epoch: Epoch{1, 1}}, {VIP: "virtual", Node: "n0", Epoch: Epoch{1, 2}}, {VIP: "six", Node: "n0", Epoch: Epoch{1, 3}}},
	}})
	buf := make([]byte, controlMax)
	for end := time.Now().Add(20 * time.Second); ; {
		s := hear(buf)
		if len(s.Held) == 3 && s.Held["six"].LeaseLeft > 0 && s.Explain["four"] != nil {
			if s.Gate != "nftables" {
				t.Fatal("gate: ", s.Gate)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it does not hold: %+v", s)
		}
	}
	const reports = 8 // so many are four seconds, with all that is done every second
	var before, after runtime.MemStats
	for range reports { // what the kernel says of the new addresses and interfaces
		conn.Read(buf)
	}
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range reports {
		conn.Read(buf)
	}
	runtime.ReadMemStats(&after)
	rate := float64(after.TotalAlloc-before.TotalAlloc) / time.Since(start).Seconds()
	t.Logf("%.0f bytes a second, in %.1f allocations", rate, float64(after.Mallocs-before.Mallocs)/time.Since(start).Seconds())
	if rate > 10_000 { // the race detector makes some, too
		t.Errorf("a guard at rest makes %.0f bytes of garbage a second, want next to none", rate)
	}
	if s := hear(buf); len(s.Held) != 3 || s.Gate != "nftables" {
		t.Errorf("it does not hold any more: %+v", s)
	}
}

// linkWith makes an interface with a carrier and these addresses, and sets the loopback up.
func linkWith(t *testing.T, addrs ...string) netlink.Link {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}))
	for _, name := range []string{"lo", "v1", "v0"} {
		l, err := netlink.LinkByName(name)
		must(err)
		must(netlink.LinkSetUp(l))
	}
	l, err := netlink.LinkByName("v0")
	must(err)
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		must(err)
		must(netlink.AddrAdd(l, addr))
	}
	return l
}

// Without a word of the kernel's a guard notices that somebody changed the gate, since the kernel counts commits.
func TestTheGateIsLookedAtAfterACommit(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	link := linkWith(t)
	g := newGateRules()
	defer g.close()
	vip := netip.MustParseAddr("198.18.0.50")
	install := func() {
		t.Helper()
		if err := g.install(gateWish{vips: []netip.Addr{vip}, devs: []gateDev{{link.Attrs().Name, link.Attrs().Index}}}, nil); err != nil {
			t.Fatal(err)
		}
		if !g.intact() || g.whole == 0 {
			t.Fatal("not whole after it was installed")
		}
	}
	by := func(change func(c *nftables.Conn)) {
		t.Helper()
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	table := &nftables.Table{Name: gateTable, Family: nftables.TableFamilyNetdev}
	install()
	seen := g.whole
	for range 3 {
		if err := g.tick(vip, gates[0]); err != nil {
			t.Fatal(err)
		}
		if !g.intact() || g.whole != seen {
			t.Fatal("to open the gate is no commit, and it was looked at all the same")
		}
	}
	if n := testing.AllocsPerRun(10, func() { g.intact() }); n != 0 {
		t.Errorf("%v allocations to see that nothing was committed", n)
	}
	by(func(c *nftables.Conn) { c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyIPv4}) })
	if !g.intact() || g.whole == seen {
		t.Error("another table was made: want the gate whole, and looked at")
	}
	for what, change := range map[string]func(c *nftables.Conn){
		"everything is flushed":   func(c *nftables.Conn) { c.FlushRuleset() },
		"the rules are deleted":   func(c *nftables.Conn) { c.FlushTable(table) },
		"the addresses are taken": func(c *nftables.Conn) { c.FlushSet(&nftables.Set{Table: table, Name: "vips4"}) },
	} {
		by(change)
		for range 2 {
			if g.intact() {
				t.Errorf("%s, and the gate counts as whole", what)
			}
		}
		install()
	}
	// Where the kernel does not count, all is looked at every time.
	g.ask.close()
	g.ask = nil
	if !g.intact() || g.whole != 0 {
		t.Errorf("nobody counts, and the gate was whole at %d", g.whole)
	}
	by(func(c *nftables.Conn) { c.FlushTable(table) })
	if g.intact() {
		t.Error("the rules are deleted, and the gate counts as whole where nobody counts")
	}
}

// What is asked over the guard's own socket, and the kernel's answers, good and bad.
func TestAskTheKernel(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	link := linkWith(t, "198.18.0.1/24", "fd00::1/64")
	l, err := openLinks()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	d := newDevice(link)
	have := func(a netip.Addr) (found netlink.Addr) {
		t.Helper()
		list, err := netlink.AddrList(link, family(a))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			if ip, _ := netip.AddrFromSlice(k.IP); ip.Unmap() == a {
				found = k
			}
		}
		return found
	}
	for _, text := range []string{"198.18.0.50", "fd00::50"} {
		a := netip.MustParseAddr(text)
		for range 2 {
			if err := l.put(d, a); err != nil {
				t.Fatal(err)
			}
		}
		k := have(a)
		want := unix.IFA_F_NOPREFIXROUTE
		if a.Is6() {
			want |= unix.IFA_F_NODAD | unix.IFA_F_DEPRECATED
		}
		if ones, _ := hostNet(a).Mask.Size(); k.IPNet == nil || k.IPNet.String() != hostNet(a).String() || k.ValidLft < 1 || k.ValidLft > validLife || k.Flags&want != want || k.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Errorf("%v: on the link as %v, for %d s, flags %x; want a /%d for %d s, flags %x", a, k.IPNet, k.ValidLft, k.Flags, ones, validLife, want)
		}
		if n := testing.AllocsPerRun(10, func() { l.put(d, a) }); n != 0 {
			t.Errorf("%v: %v allocations to prolong its life", a, n)
		}
		for range 2 { // that it was not there is no error
			if err := l.take(d, a); err != nil {
				t.Error(err)
			}
		}
		if k := have(a); k.IPNet != nil {
			t.Errorf("%v is still there: %v", a, k)
		}
	}
	gone := &device{name: "gone", to: unix.SockaddrLinklayer{Ifindex: 9999}}
	if err := l.put(gone, netip.MustParseAddr("198.18.0.50")); err == nil || err.Error() != "put 198.18.0.50 on gone: no such device" {
		t.Errorf("put on an interface that is gone: %v", err)
	}
	if err := l.take(gone, netip.MustParseAddr("198.18.0.50")); err != nil {
		t.Errorf("take off an interface that is gone: %v", err)
	}

	if g := l.gateways(); g != nil {
		t.Errorf("gateways %v, want none", g)
	}
	add := func(dst *net.IPNet, gw string, priority, table int) {
		t.Helper()
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.ParseIP(gw), Priority: priority, Table: table}); err != nil {
			t.Fatal(err)
		}
	}
	add(&net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, "fd00::9", 0, 0)
	if g := l.gateways(); !slices.Equal(g, []netip.Addr{netip.MustParseAddr("fd00::9")}) {
		t.Errorf("gateways %v, want that of IPv6 where there is no other", g)
	}
	add(&net.IPNet{IP: net.IPv4(198, 19, 0, 0), Mask: net.CIDRMask(16, 32)}, "198.18.0.7", 0, 0)
	add(&net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, "198.18.0.8", 0, 100)
	add(&net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, "198.18.0.6", 200, 0)
	add(&net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, "198.18.0.5", 100, 0)
	if g := l.gateways(); !slices.Equal(g, []netip.Addr{netip.MustParseAddr("198.18.0.5")}) {
		t.Errorf("gateways %v, want 198.18.0.5", g)
	}

	// An answer of several parts: more routes than one read holds.
	for k := range 600 {
		add(&net.IPNet{IP: net.IPv4(203, 0, byte(k>>8), byte(k)), Mask: net.CIDRMask(32, 32)}, "198.18.0.7", 0, 0)
	}
	for range 3 {
		if g := l.gateways(); !slices.Equal(g, []netip.Addr{netip.MustParseAddr("198.18.0.5")}) {
			t.Errorf("gateways %v among many routes, want 198.18.0.5", g)
		}
	}
	if err := l.loopbackUp(); err != nil {
		t.Error(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetDown(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := l.loopbackUp(); err == nil {
		t.Error("the loopback is down, and nobody sees it")
	}
	if lo.Attrs().Index != 1 {
		t.Errorf("the loopback has index %d", lo.Attrs().Index)
	}
}

// The files of an interface's sysctls stay open, and are the interface's, not the name's.
func TestTuningFollowsTheInterface(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/default/arp_ignore", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	link := linkWith(t)
	l, err := openLinks()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	g := newGuard(GuardOptions{})
	g.links, g.devs = l, []*device{newDevice(link), nil}
	var said atomic.Int32
	g.log = slog.New(counter{slog.DiscardHandler, &said})
	path := filepath.Join("/proc/sys/net/ipv4/conf", link.Attrs().Name, "arp_ignore")
	expect := func(what, want string, lines int32) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want+"\n" {
			t.Errorf("%s: arp_ignore is %q (%v), want %s", what, b, err, want)
		}
		if n := said.Swap(0); n != lines {
			t.Errorf("%s: %d lines in the log, want %d", what, n, lines)
		}
	}
	g.checkSysctls()
	expect("at first", "1", 0)
	if n := testing.AllocsPerRun(10, g.checkSysctls); n != 0 {
		t.Errorf("%v allocations to look at the sysctls", n)
	}
	if err := os.WriteFile(path, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	g.checkSysctls()
	expect("reset", "1", 1)
	if err := os.WriteFile(path, []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	g.checkSysctls()
	expect("stricter than ours", "2", 0)
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	g.devs[0] = newDevice(linkWith(t))
	expect("made anew", "0", 0)
	g.checkSysctls()
	expect("made anew, and looked at", "1", 0)
	if len(l.tuned) != 1 {
		t.Errorf("%d interfaces are looked at, want 1", len(l.tuned))
	}
}

// counter counts lines of a log.
type counter struct {
	slog.Handler
	n *atomic.Int32
}

func (c counter) Enabled(context.Context, slog.Level) bool { return true }

func (c counter) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }
