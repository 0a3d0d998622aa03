package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network is an Ethernet of hosts in memory: datagrams that are lost, late and overtaken, streams that behave as TCP does (what was
// sent through a cut arrives after it heals, a dead process resets its connections, a dead host says nothing). Nothing in it blocks
// but a read, an accept and a dial, so that time in a bubble goes on.
type Network struct {
	mu sync.Mutex
	// mu guards the following and all streams.
	rng    *rand.Rand
	loss   float64 // of datagrams
	jitter time.Duration
	hosts  map[netip.Addr]*host
	cuts   map[route]cut
	held   []*half             // streams with something that can't be delivered now
	forgot map[route]time.Time // streams that were open then are dead, and nobody says so
}

type route struct{ from, to netip.Addr }

// cut says what does not get through.
type cut uint8

const (
	cutStreams cut = 1 << iota
	cutDatagrams
	cutAll = cutStreams | cutDatagrams
)

type host struct {
	addr      netip.Addr
	up        bool
	paused    bool // its processes are stopped: what arrives waits
	hung      bool // the one with the streams is
	packets   map[uint16]func(b []byte, from netip.AddrPort)
	listeners map[uint16]*listener
	waiting   []func() // datagrams for stopped processes
}

const (
	wireTime   = 50 * time.Microsecond
	retransmit = 200 * time.Millisecond // TCP's smallest; after a heal the first segment comes up to this late
	giveUp     = 11 * time.Second       // keep-alive, as package cluster sets it
	waitingMax = 256
)

func newNetwork(seed uint64) *Network {
	return &Network{
		rng: rand.New(rand.NewPCG(seed, 1)), jitter: 300 * time.Microsecond, hosts: map[netip.Addr]*host{}, cuts: map[route]cut{}, forgot: map[route]time.Time{},
	}
}

func (n *Network) host(a netip.Addr) *host {
	h := n.hosts[a]
	if h == nil {
		h = &host{addr: a, up: true, packets: map[uint16]func([]byte, netip.AddrPort){}, listeners: map[uint16]*listener{}}
		n.hosts[a] = h
	}
	return h
}

// cut stops what from sends to to; zero lets everything through again.
func (n *Network) cut(from, to netip.Addr, what cut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cuts[route{from, to}] = what; what == 0 {
		delete(n.cuts, route{from, to})
	}
	n.release()
}

// forget makes the streams that are open between two hosts carry nothing any more, as a firewall does that has lost its table. New
// ones work.
func (n *Network) forget(a, b netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgot[route{a, b}], n.forgot[route{b, a}] = time.Now(), time.Now()
}

// change changes a host or a condition and lets go on what can.
func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	n.release()
}

// open reports whether something sent now would arrive at a running host.
func (n *Network) open(from, to netip.Addr, what cut) bool {
	a, b := n.hosts[from], n.hosts[to]
	return a != nil && b != nil && a.up && b.up && n.cuts[route{from, to}]&what == 0
}

// release delivers what was held up, each stream a little later, as TCP retransmits.
func (n *Network) release() {
	for _, h := range n.hosts {
		if h.up && !h.paused && len(h.waiting) > 0 {
			for _, f := range h.waiting {
				time.AfterFunc(0, f)
			}
			h.waiting = nil
		}
	}
	held := n.held
	n.held = nil
	for _, s := range held {
		if s.passable() {
			s.holding = false
			time.AfterFunc(n.late(retransmit), s.deliver)
		} else {
			n.held = append(n.held, s)
		}
	}
}

func (n *Network) late(most time.Duration) time.Duration {
	return wireTime + time.Duration(n.rng.Int64N(int64(most)))
}

// send sends a datagram.
func (n *Network) send(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[from.Addr()]; h == nil || h.paused || !n.open(from.Addr(), to.Addr(), cutDatagrams) || n.rng.Float64() < n.loss {
		return
	}
	late := n.late(n.jitter)
	if n.loss > 0 && n.rng.IntN(50) == 0 {
		late += n.late(30 * time.Millisecond)
	}
	time.AfterFunc(late, func() { n.arrive(from, to, b) })
}

func (n *Network) arrive(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	h := n.hosts[to.Addr()]
	if !h.up {
		n.mu.Unlock()
		return
	}
	f, paused := h.packets[to.Port()], h.paused
	if paused && f != nil && len(h.waiting) < waitingMax {
		h.waiting = append(h.waiting, func() { f(b, from) })
	}
	n.mu.Unlock()
	if f != nil && !paused {
		f(b, from)
	}
}

// bind hears datagrams.
func (n *Network) bind(at netip.AddrPort, f func(b []byte, from netip.AddrPort)) {
	n.change(func() {
		if n.host(at.Addr()).packets[at.Port()] = f; f == nil {
			delete(n.hosts[at.Addr()].packets, at.Port())
		}
	})
}

// process is the network as one process on one host has it. When it is killed, its sockets go with it.
type process struct {
	n    *Network
	addr netip.Addr

	// Guarded by n.mu.
	dead      bool
	streams   map[*stream]bool
	listeners []*listener
	packets   []*packetConn
}

func (n *Network) process(addr netip.Addr) *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host(addr)
	return &process{n: n, addr: addr, streams: map[*stream]bool{}}
}

// kill ends all sockets. A host that is up says so to the other ends.
func (p *process) kill() {
	p.n.mu.Lock()
	p.dead = true
	for s := range p.streams {
		s.abort(syscall.ECONNRESET)
	}
	ls, ps := p.listeners, p.packets
	p.listeners, p.packets = nil, nil
	p.n.mu.Unlock()
	for _, l := range ls {
		l.Close()
	}
	for _, c := range ps {
		c.Close()
	}
}

func opError(op string, at netip.AddrPort, err error) error {
	return &net.OpError{Op: op, Net: "sim", Addr: net.TCPAddrFromAddrPort(at), Err: err}
}

func (p *process) Listen(at netip.AddrPort) (net.Listener, error) {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	h := p.n.host(at.Addr())
	if p.dead || h.listeners[at.Port()] != nil {
		return nil, opError("listen", at, syscall.EADDRINUSE)
	}
	l := &listener{p: p, addr: at, queue: make(chan net.Conn, 64), done: make(chan struct{})}
	h.listeners[at.Port()] = l
	p.listeners = append(p.listeners, l)
	return l, nil
}

// Dial takes a round trip. Through a cut it waits for ctx, as a lost SYN does.
func (p *process) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	for {
		p.n.mu.Lock()
		rtt := p.n.late(p.n.jitter) + p.n.late(p.n.jitter)
		p.n.mu.Unlock()
		select {
		case <-time.After(rtt):
		case <-ctx.Done():
			return nil, opError("dial", to, context.Cause(ctx))
		}
		c, err := p.connect(to)
		if c != nil || err != nil {
			return c, err
		}
		select {
		case <-time.After(retransmit): // another SYN
		case <-ctx.Done():
			return nil, opError("dial", to, context.Cause(ctx))
		}
	}
}

// connect returns neither when nothing gets through.
func (p *process) connect(to netip.AddrPort) (net.Conn, error) {
	n := p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.dead {
		return nil, opError("dial", to, net.ErrClosed)
	}
	if !n.open(p.addr, to.Addr(), cutStreams) || !n.open(to.Addr(), p.addr, cutStreams) || n.hosts[p.addr].paused || n.hosts[p.addr].hung {
		return nil, nil
	}
	l := n.hosts[to.Addr()].listeners[to.Port()]
	if l == nil {
		return nil, opError("dial", to, syscall.ECONNREFUSED)
	}
	near := netip.AddrPortFrom(p.addr, uint16(32768+n.rng.IntN(28000)))
	a, b := newStreams(n, p, l.p, near, to)
	select {
	case l.queue <- b:
		return a, nil
	default:
		a.abort(syscall.ECONNREFUSED)
		return nil, opError("dial", to, syscall.ECONNREFUSED)
	}
}

func (p *process) ListenPacket(at netip.AddrPort) (net.PacketConn, error) {
	c := &packetConn{p: p, addr: at, in: make(chan datagram, waitingMax), done: make(chan struct{})}
	p.n.bind(at, func(b []byte, from netip.AddrPort) {
		select {
		case c.in <- datagram{b, from}:
		default:
		}
	})
	p.n.mu.Lock()
	p.packets = append(p.packets, c)
	p.n.mu.Unlock()
	return c, nil
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

type packetConn struct {
	p    *process
	addr netip.AddrPort
	in   chan datagram
	done chan struct{}
	once sync.Once
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-c.in:
		return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	default:
	}
	at := to.(*net.UDPAddr).AddrPort()
	c.p.n.send(c.addr, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), append([]byte(nil), b...))
	return len(b), nil
}

func (c *packetConn) Close() error {
	c.once.Do(func() {
		c.p.n.bind(c.addr, nil)
		close(c.done)
	})
	return nil
}

func (c *packetConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.addr) }
func (c *packetConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *packetConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *packetConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

type listener struct {
	p     *process
	addr  netip.AddrPort
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, opError("accept", l.addr, net.ErrClosed)
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.p.n.mu.Lock()
		if h := l.p.n.hosts[l.addr.Addr()]; h.listeners[l.addr.Port()] == l {
			delete(h.listeners, l.addr.Port())
		}
		close(l.done)
		l.p.n.mu.Unlock()
		for {
			select {
			case c := <-l.queue:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// stream is one end of a connection. Writing never blocks: a socket buffer of any size.
type stream struct {
	p           *process
	near, far   netip.AddrPort
	out, in     *half
	deadline    time.Time
	deadTimer   *time.Timer
	closed      bool
	writeClosed error
}

// half is one direction.
type half struct {
	n        *Network
	src, dst *stream
	cond     sync.Cond // of n.mu
	flight   []segment
	ready    []byte
	eof      bool
	err      error
	holding  bool
	last     time.Time // when the newest segment arrives: order is kept
	born     time.Time
}

type segment struct {
	b   []byte
	fin bool
	rst error
	at  time.Time
}

func newStreams(n *Network, p, q *process, near, far netip.AddrPort) (a, b *stream) {
	a, b = &stream{p: p, near: near, far: far}, &stream{p: q, near: far, far: near}
	now := time.Now()
	a.out = &half{n: n, src: a, dst: b, born: now}
	b.out = &half{n: n, src: b, dst: a, born: now}
	a.out.cond.L, b.out.cond.L = &n.mu, &n.mu
	a.in, b.in = b.out, a.out
	p.streams[a], q.streams[b] = true, true
	return a, b
}

// passable is whether a segment gets through now: no cut, both hosts up and running, and nobody on the way has forgotten the stream.
func (h *half) passable() bool {
	from, to := h.src.near.Addr(), h.dst.near.Addr()
	a, b := h.n.hosts[from], h.n.hosts[to]
	return h.n.open(from, to, cutStreams) && h.born.After(h.n.forgot[route{from, to}]) && !a.paused && !b.paused && !a.hung && !b.hung
}

// push sends one segment. n.mu is held.
func (h *half) push(s segment) {
	s.at = time.Now().Add(h.n.late(h.n.jitter))
	if s.at.Before(h.last) {
		s.at = h.last
	}
	h.last = s.at
	h.flight = append(h.flight, s)
	time.AfterFunc(time.Until(s.at), h.deliver)
}

// deliver moves what is due to the reader.
func (h *half) deliver() {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.holding || len(h.flight) == 0 {
		return
	}
	if !h.passable() {
		h.holding = true
		h.n.held = append(h.n.held, h)
		oldest := h.flight[0].at
		time.AfterFunc(giveUp, func() {
			h.n.mu.Lock()
			defer h.n.mu.Unlock()
			if h.holding && len(h.flight) > 0 && h.flight[0].at.Equal(oldest) {
				h.flight = nil
				h.src.abort(syscall.ETIMEDOUT)
			}
		})
		return
	}
	now := time.Now()
	for len(h.flight) > 0 && !h.flight[0].at.After(now) {
		s := h.flight[0]
		h.flight = h.flight[1:]
		switch {
		case s.rst != nil:
			h.dst.fail(s.rst)
		case h.dst.closed:
			if len(s.b) > 0 && h.src.writeClosed == nil {
				h.dst.out.push(segment{rst: syscall.ECONNRESET}) // nobody is there any more
			}
		case s.fin:
			h.eof = true
		default:
			h.ready = append(h.ready, s.b...)
		}
	}
	h.cond.Broadcast()
}

// fail ends this end with err. n.mu is held.
func (s *stream) fail(err error) {
	if s.in.err == nil {
		s.in.err = err
	}
	if s.writeClosed == nil {
		s.writeClosed = err
	}
	delete(s.p.streams, s)
	s.in.cond.Broadcast()
}

// abort ends this end and resets the other. n.mu is held.
func (s *stream) abort(err error) {
	if s.closed {
		return
	}
	s.fail(err)
	s.closed = true
	s.out.push(segment{rst: syscall.ECONNRESET})
}

func (s *stream) Read(b []byte) (int, error) {
	n := s.p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case s.closed && s.in.err == nil:
			return 0, opError("read", s.far, net.ErrClosed)
		case len(s.in.ready) > 0 && s.in.err == nil:
			k := copy(b, s.in.ready)
			s.in.ready = s.in.ready[k:]
			return k, nil
		case s.in.err != nil:
			return 0, opError("read", s.far, s.in.err)
		case s.in.eof:
			return 0, io.EOF
		case !s.deadline.IsZero() && !s.deadline.After(time.Now()):
			return 0, opError("read", s.far, os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		}
		s.in.cond.Wait()
	}
}

func (s *stream) Write(b []byte) (int, error) {
	n := s.p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.writeClosed != nil {
		return 0, opError("write", s.far, s.writeClosed)
	}
	if len(b) > 0 {
		s.out.push(segment{b: append([]byte(nil), b...)})
	}
	return len(b), nil
}

func (s *stream) Close() error {
	n := s.p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.closed {
		return opError("close", s.far, net.ErrClosed)
	}
	s.closed = true
	if s.writeClosed == nil {
		s.writeClosed = net.ErrClosed
		s.out.push(segment{fin: true})
	}
	if s.deadTimer != nil {
		s.deadTimer.Stop()
	}
	delete(s.p.streams, s)
	s.in.cond.Broadcast()
	return nil
}

func (s *stream) SetReadDeadline(t time.Time) error {
	n := s.p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.deadTimer != nil {
		s.deadTimer.Stop()
		s.deadTimer = nil
	}
	if s.deadline = t; !t.IsZero() {
		s.deadTimer = time.AfterFunc(time.Until(t), func() {
			n.mu.Lock()
			s.in.cond.Broadcast()
			n.mu.Unlock()
		})
	}
	s.in.cond.Broadcast()
	return nil
}

func (s *stream) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(time.Time) error { return nil } // a write never waits
func (s *stream) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(s.near) }
func (s *stream) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(s.far) }
