package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/state"
)

// memNet is a network in memory. An address that is cut neither sends nor receives, and what it had open hangs.
type memNet struct {
	mu  sync.Mutex
	tcp map[netip.AddrPort]*memListener
	udp map[netip.AddrPort]*memPacket
	cut map[netip.Addr]bool
}

func newMemNet() *memNet {
	return &memNet{tcp: map[netip.AddrPort]*memListener{}, udp: map[netip.AddrPort]*memPacket{}, cut: map[netip.Addr]bool{}}
}

// at is the network as the host of that address sees it.
func (m *memNet) at(a netip.Addr) Network { return memHost{m, a} }

func (m *memNet) blocked(a, b netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return a != b && (m.cut[a] || m.cut[b])
}

func (m *memNet) setCut(a netip.Addr, cut bool) {
	m.mu.Lock()
	m.cut[a] = cut
	m.mu.Unlock()
}

type memHost struct {
	m    *memNet
	addr netip.Addr
}

type memListener struct {
	m    *memNet
	addr netip.AddrPort
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func (h memHost) Listen(a netip.AddrPort) (net.Listener, error) {
	l := &memListener{m: h.m, addr: a, ch: make(chan net.Conn), done: make(chan struct{})}
	h.m.mu.Lock()
	h.m.tcp[a] = l
	h.m.mu.Unlock()
	return l, nil
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *memListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

func (h memHost) Dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	h.m.mu.Lock()
	l := h.m.tcp[a]
	h.m.mu.Unlock()
	if h.m.blocked(h.addr, a.Addr()) {
		<-ctx.Done() // a SYN that nobody answers
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	select {
	case l.ch <- &memConn{far, h.m, a.Addr(), h.addr}:
		return &memConn{near, h.m, h.addr, a.Addr()}, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// memConn loses what is written while one of its ends is cut; a stream that lost something is dead, as far as TLS is concerned.
type memConn struct {
	net.Conn
	m           *memNet
	local, peer netip.Addr
}

func (c *memConn) Write(b []byte) (int, error) {
	if c.m.blocked(c.local, c.peer) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
func (c *memConn) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.local, 1))
}
func (c *memConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.peer, 1))
}

type memDatagram struct {
	b    []byte
	from net.Addr
}

type memPacket struct {
	m    *memNet
	addr netip.AddrPort
	ch   chan memDatagram
	done chan struct{}
	once sync.Once
}

func (h memHost) ListenPacket(a netip.AddrPort) (net.PacketConn, error) {
	p := &memPacket{m: h.m, addr: a, ch: make(chan memDatagram, 64), done: make(chan struct{})}
	h.m.mu.Lock()
	h.m.udp[a] = p
	h.m.mu.Unlock()
	return p, nil
}

func (p *memPacket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-p.ch:
		return copy(b, d.b), d.from, nil
	case <-p.done:
		return 0, nil, net.ErrClosed
	}
}

func (p *memPacket) WriteTo(b []byte, to net.Addr) (int, error) {
	a := to.(*net.UDPAddr).AddrPort()
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	p.m.mu.Lock()
	q := p.m.udp[a]
	p.m.mu.Unlock()
	if q == nil || p.m.blocked(p.addr.Addr(), a.Addr()) {
		return len(b), nil
	}
	select {
	case q.ch <- memDatagram{append([]byte(nil), b...), net.UDPAddrFromAddrPort(p.addr)}:
	default:
	}
	return len(b), nil
}
func (p *memPacket) Close() error                     { p.once.Do(func() { close(p.done) }); return nil }
func (p *memPacket) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(p.addr) }
func (p *memPacket) SetDeadline(time.Time) error      { return nil }
func (p *memPacket) SetReadDeadline(time.Time) error  { return nil }
func (p *memPacket) SetWriteDeadline(time.Time) error { return nil }

// virtualThree is a cluster of three voters, inside a bubble of virtual time. Whoever calls it calls ended at the end.
func virtualThree(t *testing.T, dir string, more ...func(*Options)) (*memNet, []*node) {
	network := newMemNet()
	var nodes []*node
	start := func(name, ip string, join *node) *node {
		addr := netip.MustParseAddr(ip)
		n := &node{t: t, name: name, dir: filepath.Join(dir, name), addr: netip.AddrPortFrom(addr, 7940)}
		n.change = func(o *Options) {
			o.Network = network.at(addr)
			for _, f := range more {
				f(o)
			}
		}
		nc := n.newcomer()
		nc.Network = network.at(addr)
		var err error
		if join == nil {
			_, err = Found(nc)
		} else {
			var token string
			if _, token, err = join.CreateToken(t.Context(), state.Balancer, time.Hour, 1); err == nil {
				_, err = Join(t.Context(), nc, join.addr, token)
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		nodes = append(nodes, n.start())
		return n
	}
	a := start("a", "198.18.0.1", nil)
	wait(t, "founder leads", a.Leadership(), func(l Leadership) bool { return l.Barrier })
	wait(t, "cluster is founded", a.machine.Views(), func(v *state.View) bool { return v.Founded() })
	start("b", "198.18.0.2", a)
	start("c", "198.18.0.3", a)
	for _, n := range nodes {
		wait(t, "three voters", n.Members(), func(ms []Member) bool {
			return memberOf(ms, "a").Voter && memberOf(ms, "b").Voter && memberOf(ms, "c").Voter
		})
	}
	return network, nodes
}

// ended stops the nodes and lets a virtual minute pass: memberlist's probes under way end by their own clocks, which stand still
// once the test has returned.
func ended(nodes []*node) {
	for _, n := range nodes {
		n.stop()
	}
	time.Sleep(time.Minute)
}

// A whole cluster in virtual time: three nodes, the leader is cut off. It steps down by its lease, and takes no more writes; the
// others elect by raft's own timers and go on; after the heal all agree.
func TestClusterInVirtualTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		network, nodes := virtualThree(t, dir)
		a := nodes[0]
		a.tick(1)

		network.setCut(a.addr.Addr(), true)
		cut := time.Now()
		wait(t, "the leader steps down", a.Leadership(), func(l Leadership) bool { return !l.Self })
		if took := time.Since(cut); took > time.Second {
			t.Errorf("the leader led for %v after it was cut off", took)
		}
		next := leaderOf(t, nodes[1:]...)
		next.tick(10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, _, err := a.Propose(ctx, state.Encode(state.Tick{ElapsedMs: 100})); err == nil {
			t.Error("a proposal was taken by the side without a quorum")
		}
		cancel()
		network.setCut(a.addr.Addr(), false)
		index := nodes[1].tick(1000)
		for _, n := range nodes {
			n.applied(index)
			if got := n.machine.LogTime(); got != 1011 {
				t.Errorf("%s: log time %d, want 1011", n.name, got)
			}
		}
		time.Sleep(10 * time.Second) // of quiet
		if l := next.Leadership().Get(); !l.Self {
			t.Errorf("leadership moved without need: %+v", l)
		}
		ended(nodes)
	})
}

// A placement must reach the node that is to claim an address at once, and raft would tell a follower of a commit on a quiet log only
// after its CommitTimeout of 50 to 100 ms.
func TestFollowersHearOfACommitAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		_, nodes := virtualThree(t, dir)
		lead := leaderOf(t, nodes...)
		for range 10 {
			time.Sleep(time.Second) // a quiet log
			start := time.Now()
			index := lead.tick(1)
			for _, n := range nodes {
				n.applied(index)
			}
			if took := time.Since(start); took > 30*time.Millisecond { // of virtual time: no machine is too slow for it
				t.Errorf("a commit was applied everywhere after %v", took)
			}
		}
		ended(nodes)
	})
}

// Raft answers failures to reach a follower with pauses that double up to ten seconds. One that was away for a minute must be up to
// date soon after it is back, or its vote is missing in the next fail-over.
func TestAFollowerThatComesBackCatchesUpSoon(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		network, nodes := virtualThree(t, dir)
		lead := leaderOf(t, nodes...)
		away := nodes[0]
		if away == lead {
			away = nodes[1]
		}
		network.setCut(away.addr.Addr(), true)
		var index uint64
		for range 60 {
			index = lead.tick(1)
			time.Sleep(time.Second)
		}
		network.setCut(away.addr.Addr(), false)
		start := time.Now()
		away.applied(index)
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("it was up to date %v after it was back", took)
		}
		ended(nodes)
	})
}

// There is nobody to wait for: who founds a cluster, who is alone in one and who is the first of two leads as soon as it has its log.
func TestTheOnlyVoterLeadsAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		addr := netip.MustParseAddr("198.18.0.1")
		a := &node{t: t, name: "a", dir: filepath.Join(dir, "a"), addr: netip.AddrPortFrom(addr, 7940)}
		a.change = func(o *Options) { o.Network = network.at(addr) }
		nc := a.newcomer()
		nc.Network = network.at(addr)
		if _, err := Found(nc); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"founded", "restarted"} {
			since := time.Now()
			a.start()
			wait(t, "it leads", a.Leadership(), func(l Leadership) bool { return l.Self && l.Barrier })
			wait(t, "the cluster is founded", a.machine.Views(), func(v *state.View) bool { return v.Founded() })
			if took := time.Since(since); took > 100*time.Millisecond { // of virtual time; raft's own time-out is one second at least
				t.Errorf("%s: it led after %v", when, took)
			}
			a.tick(1)
			a.stop()
		}
		time.Sleep(time.Minute) // see ended
	})
}

// A guard that starts grants nothing for a second. A node votes soon after that, and not at the next full second; and the one after it as soon as
// the guards have confirmed the change before.
func TestVotersAreTakenInAsSoonAsTheyAreReady(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		const silent, confirms = 1010 * time.Millisecond, 110 * time.Millisecond
		seen := map[uint64]time.Time{}
		_, nodes := virtualThree(t, dir, func(o *Options) {
			o.Grants = func(string) bool { return time.Since(begin) > silent }
			o.Confirmed = func(index uint64) bool { // the leader alone asks
				if seen[index].IsZero() {
					seen[index] = time.Now()
				}
				return time.Since(seen[index]) > confirms
			}
		})
		if took := time.Since(begin); took < silent+confirms || took > silent+2*confirms+500*time.Millisecond {
			t.Errorf("three voted after %v", took)
		}
		ended(nodes)
	})
}
