package vip

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What of nftables' answers a guard does not get, by what it is told to do without.
var mutes = map[string][]bpf.Instruction{
	"answers": loseAll,
	"commits": { // acknowledgements of all but a question for a set; of types the low byte, on a machine that has it first
		bpf.LoadAbsolute{Off: 4, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.NLMSG_ERROR, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 24, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NFT_MSG_GETSET, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	},
}

// muteFor returns a guard's connection to nftables, which loses what the file "mute" in dir says. Each call that is then made adds a byte
// to the file "waits".
func muteFor(dir string) *nftables.Conn {
	c, err := openRules(time.Duration(askMost), func(c *netlink.Conn) error {
		what, err := os.ReadFile(filepath.Join(dir, "mute"))
		if err != nil || len(what) == 0 {
			return nil
		}
		prog, err := bpf.Assemble(mutes[string(what)])
		if err != nil {
			return err
		}
		if err := c.SetBPF(prog); err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, "waits"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write([]byte("."))
		return err
	})
	if err != nil {
		panic(err)
	}
	return c
}

// mute has the node's guard do without some of nftables' answers, or with all of them.
func (n *labNode) mute(what string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, "mute"), []byte(what), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// waits is how often the node's guard has made a call that lacks them.
func (n *labNode) waits() int {
	b, _ := os.ReadFile(filepath.Join(n.dir, "waits"))
	return len(b)
}

// ready waits until every guard may grant.
func (l *lab) ready() {
	l.t.Helper()
	l.until("all guards may grant", func() bool {
		for _, nd := range l.nodes {
			s, _ := nd.get()
			if s.Silent || len(s.Peers) != len(l.nodes)-1 {
				return false
			}
			for _, p := range s.Peers {
				if !p.Fit {
					return false
				}
			}
		}
		return true
	})
}

// Somebody flushes the rules of a holder whose kernel takes its time with nftables. The guard once waited for that in its loop: it said
// nothing meanwhile, did not see its lease end, and its kernel answered beside the next holder's, behind no gate.
func TestAHolderWaitsForNoRules(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	l := newLab(t, 3)
	n := l.nodes
	l.ready()
	c := l.client()
	defer func() { close(c.stop); <-c.done }()
	l.place(0)
	l.until("n0 answers behind its gate", func() bool { return c.last("").mac == n[0].mac && n[0].gateWhole(t) })
	flush := func() {
		before := n[0].waits()
		n[0].mute("answers")
		n[0].nft(t, func(c *nftables.Conn) { c.FlushRuleset() })
		l.until("n0's guard waits for the kernel", func() bool { return n[0].waits() > before })
	}

	// Its heartbeats go on, and so does its lease.
	held := func() time.Time { s, _ := n[0].get(); return s.Held["public"].Since }
	l.until("n0 says that it holds", func() bool { return !held().IsZero() })
	since := held()
	flush()
	first := n[0].waits()
	l.until("it has waited in vain, and waits again", func() bool { return n[0].waits() > first })
	n[0].mute("")
	l.until("the gate is put back", func() bool { return n[0].gateWhole(t) })
	start := time.Now()
	l.until("n0 answers behind its new gate", func() bool { return c.last("").at.After(start) })
	told := n[0].tellings()
	l.until("n0 tells how it is now", func() bool { return n[0].tellings() >= told+2 }) // the next may have been under way
	if now := held(); now.Sub(since).Abs() > 100*time.Millisecond {
		t.Errorf("held since %v, was held since %v: the lease was lost while the guard waited", now, since)
	}

	// It hears of its successor, and lets go first.
	flush()
	start = time.Now()
	l.place(1, 0)
	l.until("n1 answers", func() bool { _, ok := c.first(n[1].mac, start); return ok })
	a, _ := c.first(n[1].mac, start)
	l.until("n0 has let go", func() bool { return !n[0].has(t, labVIP) })
	if last := c.last(n[0].mac).at; last.After(a.at) {
		t.Errorf("n0 answered %v after n1 had begun to", last.Sub(a.at))
	}
	if c.last("").mac != n[1].mac {
		t.Error("n0 answered last")
	}
}

// What is new is put on the link when its gate was tried, and not before: nobody would shut it if the guard were stopped. But it does not wait
// for ever, and what is held already does not wait at all.
func TestNothingIsClaimedBeforeItsGateWasTried(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	l := newLab(t, 1) // alone: nobody else has to be asked
	n := l.nodes[0]
	l.ready()
	l.place(0)
	held := func(name string) func() bool {
		return func() bool { s, _ := n.get(); _, ok := s.Held[name]; return ok }
	}
	l.until("the first VIP is held", held("public"))
	n.mute("commits")
	second := l.vips[0]
	second.Name, second.Addresses = "second", slices.Clone(second.Addresses)
	second.Addresses[0] = netip.MustParsePrefix("198.18.0.51/24")
	l.vips = append(l.vips, second)
	s := l.setup(0)
	s.Placements = append(s.Placements, Placement{VIP: "second", Node: labName(0), Epoch: Epoch{1, 2}})
	n.tell(order{Setup: s})
	l.until("the second VIP is held", held("second"))
	var b []byte
	l.until("its log says so", func() bool { // which is written beside the loop
		b, _ = os.ReadFile(filepath.Join(n.dir, "guard.log"))
		return strings.Contains(string(b), "vip=second")
	})
	tried, claimed := strings.Index(string(b), "no ARP gate"), strings.Index(string(b), "vip=second")
	if tried < 0 || claimed < tried {
		t.Errorf("claimed at %d, the gate tried at %d of its log:\n%s", claimed, tried, b)
	}
	if strings.Count(string(b), "vip held") != 2 || strings.Contains(string(b), "vip released") {
		t.Errorf("want both held once, and none let go:\n%s", b)
	}
}

// idleGate is a gate whose worker does nothing by itself.
func idleGate() *gate {
	g := newGate()
	g.jobs, g.done, g.ended = make(chan gateJob, 1), make(chan gateOutcome, 1), make(chan struct{})
	return g
}

// However often the loop changes its mind while the worker is at something, one job follows, for what is wanted last.
func TestTheGateIsMadeForTheNewestWish(t *testing.T) {
	g := idleGate()
	wish := func(addr string) gateWish { return gateWish{vips: []netip.Addr{netip.MustParseAddr(addr)}} }
	for k, addr := range []string{"198.18.0.1", "198.18.0.2", "198.18.0.3"} {
		g.wish, g.look = wish(addr), k == 1
		g.ask(1)
	}
	if j := <-g.jobs; !j.wish.is(wish("198.18.0.1")) || !g.left {
		t.Errorf("the first job is for %v, opened %v", j.wish.vips, g.left)
	}
	if _, ok := g.hear(2); ok || len(g.jobs) > 0 {
		t.Error("the worker has made rules and is not done, and counts as done")
	}
	g.done <- gateOutcome{wish: wish("198.18.0.1"), state: gateState{up: true, left: true}}
	if out, ok := g.hear(3); !ok || out.wish.is(g.wish) || !g.up {
		t.Errorf("the first outcome: %v, %+v", ok, out)
	}
	if j := <-g.jobs; !j.wish.is(wish("198.18.0.3")) {
		t.Errorf("the second job is for %v, want the newest wish", j.wish.vips)
	}
	g.done <- gateOutcome{wish: g.wish, state: gateState{left: true, why: "refused"}}
	if out, ok := g.hear(4); !ok || !out.wish.is(g.wish) || len(g.jobs) > 0 {
		t.Errorf("the second outcome: %v, %+v, %d jobs more; want no more", ok, out, len(g.jobs))
	}
	if g.due(4+gateRetry-1) || !g.due(4+gateRetry) {
		t.Error("what failed is tried again at once, or never")
	}
}

// A kernel that does not come back at all: what the guard says of its gate is not what was true once, and the guard can end.
func TestAGateWhoseKernelHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := idleGate()
		g.up, g.left, g.wish = true, true, gateWish{vips: []netip.Addr{netip.MustParseAddr("198.18.0.1")}}
		if g.late(1) {
			t.Error("nothing is under way, and it is late")
		}
		g.ask(1)
		if g.late(gateMost) || !g.late(1+gateMost) || g.up || !g.left || g.String() == "nftables" {
			t.Errorf("after a second without an answer: %q, opened %v; want no gate, and opened all the same", g, g.left)
		}
		if g.late(2 + gateMost) {
			t.Error("it is said twice")
		}
		g.done <- gateOutcome{wish: g.wish, state: gateState{up: true, left: true}}
		if g.hear(3 + gateMost); !g.up {
			t.Error("the kernel has answered, and there is no gate")
		}
		start := time.Now()
		g.close()
		if d := time.Since(start); d != time.Duration(gateMost) {
			t.Errorf("its end took %v", d)
		}
	})
}

// A claim waits for the gate of what is new, for a second at most, and is not held up by a gate that is only looked at.
func TestAClaimWaitsForItsGate(t *testing.T) {
	for _, tried := range []bool{true, false} {
		m := newMachine(0, 1, true)
		m.agentAlive, m.fit = true, true
		now := 2 * maxPromise
		end := now + gateMost
		m.configure(now, &Setup{Self: "n1", SelfVoter: true,
			VIPs:       []VIP{{Name: "public", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}},
			Placements: []Placement{{VIP: "public", Node: "n1", Epoch: Epoch{1, 1}}}})
		m.gateTo = end
		m.link(now, 0, true, "")
		for now < end {
			if m.tick(now); m.vips[0].held {
				t.Fatal("claimed before its gate was tried")
			}
			if now = max(now+1, m.next()); tried && now > end-gateMost/2 {
				m.gated()
				break
			}
		}
		if now > end {
			t.Error("nobody wakes up when the wait is over")
		}
		if m.tick(now); !m.vips[0].held {
			t.Errorf("tried %v: not claimed when the wait is over", tried)
		}
	}
}

// New rules are opened for what is held as soon as they are there, and again when the worker is done, but not for each look at them; and never
// beyond the lease.
func TestNewRulesAreOpenedAtOnce(t *testing.T) {
	hear, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer hear.Close()
	g := newGuard(GuardOptions{})
	g.log = slog.New(slog.DiscardHandler)
	g.gate = idleGate()
	if err := g.gate.opener.open(); err != nil {
		t.Fatal(err)
	}
	defer g.gate.opener.close()
	g.gate.to.Port = hear.LocalAddr().(*net.UDPAddr).Port
	g.gate.left = true
	g.m = newMachine(g.now()-2*maxPromise, 1, true)
	g.m.agentAlive, g.m.fit = true, true
	var s Setup
	s.Self, s.SelfVoter = "n1", true
	for k, name := range []string{"held", "wanted"} {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + k)})
		s.VIPs = append(s.VIPs, VIP{Name: name, Addresses: []netip.Prefix{netip.PrefixFrom(a, 24)}})
		s.Placements = append(s.Placements, Placement{VIP: name, Node: "n1", Epoch: Epoch{1, 1}})
	}
	g.m.configure(g.now(), &s)
	g.m.link(g.now(), 0, true, "")
	if !g.m.vips[0].held || g.m.vips[1].held {
		t.Fatal("want the first VIP held and the second not")
	}
	lease := func(left time.Duration) { // of both
		for _, v := range g.m.vips {
			v.own = lease{epoch: Epoch{1, 1}, until: g.now() + int64(left)}
		}
	}
	mark := netip.MustParseAddr("192.0.2.99")
	opened := func() (addrs []netip.Addr) {
		t.Helper()
		g.hearGate()
		if err := g.gate.tick(mark, gates[0]); err != nil {
			t.Fatal(err)
		}
		for b := make([]byte, 100); ; {
			n, err := hear.Read(b)
			if err != nil || n != 12 {
				t.Fatal(n, err)
			}
			a := netip.AddrFrom4([4]byte(b[8:12]))
			if a == mark {
				return addrs
			}
			addrs = append(addrs, a)
		}
	}
	held := []netip.Addr{netip.MustParseAddr("192.0.2.10")}
	up := gateState{up: true, left: true}
	lease(time.Hour)
	if got := opened(); !slices.Equal(got, held) {
		t.Errorf("rules are made: %v opened, want %v", got, held)
	}
	g.gate.done <- gateOutcome{state: up, made: true}
	if got := opened(); !slices.Equal(got, held) {
		t.Errorf("rules were made: %v opened, want %v", got, held)
	}
	g.gate.done <- gateOutcome{state: up}
	if got := opened(); len(got) > 0 {
		t.Errorf("rules were looked at: %v opened, want none", got)
	}
	lease(time.Millisecond)
	g.gate.done <- gateOutcome{state: up, made: true}
	if got := opened(); len(got) > 0 {
		t.Errorf("rules were made, and the lease is over before an opening is: %v opened, want none", got)
	}
}
