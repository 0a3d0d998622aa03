package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The protocols that share the one port. TLS picks one (ALPN) before a byte of it is spoken.
const (
	ALPNRaft    = "skein-raft"
	ALPNForward = "skein-forward"
	ALPNGossip  = "skein-gossip"
	ALPNAPI     = "skein-api"
	ALPNFlows   = "skein-flows"
	ALPNJoin    = "skein-join" // the only one without a client certificate
)

const (
	handshakeTime = 5 * time.Second
	// maxHandshakes bounds the strangers that are served at once; what comes beyond is closed. Members need a handful.
	maxHandshakes = 128
	// maxJoins bounds those who have done their handshake and have nothing to prove but a token; what comes beyond is closed, and asks again.
	maxJoins = 32
)

// mux is the one port: it accepts, authenticates, and hands each connection to the protocol that it asks for. It also dials, with
// the same certificates and the same rules.
type mux struct {
	// Immutable.
	log      *slog.Logger
	network  Network
	identity *atomic.Pointer[identity]
	removed  func(fingerprint string) bool
	clock    func() time.Time
	handlers map[string]func(*tls.Conn, peer) // one per protocol; it owns the connection

	handshakes chan struct{}
	wg         sync.WaitGroup

	mu sync.Mutex
	// mu guards the following.
	conns  map[*trackedConn]string // open connections and the key behind them, "" before it is known
	closed bool
}

func newMux(log *slog.Logger, network Network, id *atomic.Pointer[identity], removed func(string) bool, clock func() time.Time) *mux {
	return &mux{
		log: log, network: network, identity: id, removed: removed, clock: clock,
		handshakes: make(chan struct{}, maxHandshakes),
		conns:      map[*trackedConn]string{},
	}
}

// handle says who serves which protocol. It comes before serve.
func (m *mux) handle(c *Cluster, raftQueue *queue, gossip *gossipTransport) {
	m.handlers = map[string]func(*tls.Conn, peer){
		ALPNRaft:    func(conn *tls.Conn, _ peer) { raftQueue.put(conn) },
		ALPNGossip:  func(conn *tls.Conn, _ peer) { gossip.put(conn) },
		ALPNAPI:     func(conn *tls.Conn, _ peer) { c.api.put(conn) },
		ALPNFlows:   func(conn *tls.Conn, p peer) { c.flows.put(&PeerConn{Conn: conn, Node: p.name}) },
		ALPNForward: c.serveForward,
		ALPNJoin:    c.serveJoin,
	}
}

// trackedConn is the bare connection below TLS. It leaves the table when it is closed, by whomever.
type trackedConn struct {
	net.Conn
	m *mux
}

func (c *trackedConn) Close() error {
	c.m.mu.Lock()
	delete(c.m.conns, c)
	c.m.mu.Unlock()
	return c.Conn.Close()
}

// track takes a connection into the table. It returns false when the mux is closed.
func (m *mux) track(c net.Conn) (*trackedConn, bool) {
	t := &trackedConn{Conn: c, m: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, false
	}
	m.conns[t] = ""
	return t, true
}

func (m *mux) identify(c *trackedConn, fingerprint string) {
	m.mu.Lock()
	if _, ok := m.conns[c]; ok {
		m.conns[c] = fingerprint
	}
	m.mu.Unlock()
}

// serve accepts until the listener is closed, and returns after the last handshake has ended.
func (m *mux) serve(l net.Listener) {
	defer m.wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			m.log.Warn("accept", "err", err)
			time.Sleep(50 * time.Millisecond) // out of descriptors: they come back, but not by trying harder
			m.mu.Lock()
			closed := m.closed
			m.mu.Unlock()
			if closed {
				return
			}
			continue
		}
		t, ok := m.track(c)
		if !ok {
			c.Close()
			return
		}
		select {
		case m.handshakes <- struct{}{}:
		default:
			t.Close()
			continue
		}
		m.wg.Go(func() { m.accept(t) })
	}
}

// accept authenticates one connection and hands it on.
func (m *mux) accept(t *trackedConn) {
	var p peer
	c := tls.Server(t, m.serverConfig(&p))
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	err := c.HandshakeContext(ctx)
	cancel()
	<-m.handshakes
	if err != nil {
		t.Close()
		m.log.Debug("handshake refused", "peer", t.RemoteAddr(), "err", err)
		return
	}
	h := m.handlers[c.ConnectionState().NegotiatedProtocol]
	if h == nil {
		c.Close()
		return
	}
	m.identify(t, p.fingerprint)
	if p.fingerprint != "" && m.removed(p.fingerprint) {
		c.Close() // removed between the handshake and here
		return
	}
	h(c, p)
}

// serverConfig lets a client without a certificate speak the join protocol and nothing else.
func (m *mux) serverConfig(p *peer) *tls.Config {
	id := m.identity.Load()
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		SessionTicketsDisabled: true, // a ticket would outlive a removal
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.GetConfigForClient = nil
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == ALPNJoin && m.handlers[ALPNJoin] != nil {
			c.NextProtos = []string{ALPNJoin}
			return c, nil
		}
		c.NextProtos = []string{ALPNRaft, ALPNForward, ALPNGossip, ALPNAPI, ALPNFlows}
		c.ClientAuth = tls.RequireAnyClientCert
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol == "" {
				return errors.New("no protocol was asked for")
			}
			var err error
			*p, err = verify(id.ca, id.cluster, cs.PeerCertificates, m.clock(), m.removed)
			return err
		}
		return c, nil
	}
	return base
}

// dial opens a connection to the node of that name and speaks alpn on it. The certificate at the other end must be that node's.
func (m *mux) dial(ctx context.Context, addr netip.AddrPort, name, alpn string) (*tls.Conn, error) {
	raw, err := m.network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	t, ok := m.track(raw)
	if !ok {
		raw.Close()
		return nil, net.ErrClosed
	}
	var p peer
	c := tls.Client(t, clientConfig(m.identity.Load(), name, alpn, m.clock, m.removed, &p))
	if err := c.HandshakeContext(ctx); err != nil {
		t.Close()
		return nil, fmt.Errorf("node %s at %v: %w", name, addr, err)
	}
	m.identify(t, p.fingerprint)
	return c, nil
}

// clientConfig is for a connection to a member; name "" takes any.
func clientConfig(id *identity, name, alpn string, clock func() time.Time, removed func(string) bool, p *peer) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // VerifyConnection does it: by node name and cluster, not by host name
		VerifyConnection: func(cs tls.ConnectionState) error {
			got, err := verify(id.ca, id.cluster, cs.PeerCertificates, clock(), removed)
			if err != nil {
				return err
			}
			if name != "" && got.name != name {
				return fmt.Errorf("%w: node %s answers where %s was expected", ErrForeign, got.name, name)
			}
			if cs.NegotiatedProtocol != alpn {
				return fmt.Errorf("the other end does not speak %s", alpn)
			}
			*p = got
			return nil
		},
	}
}

// drop closes the connections of nodes that have been removed.
func (m *mux) drop() {
	m.mu.Lock()
	var gone []*trackedConn
	for c, fp := range m.conns {
		if fp != "" && m.removed(fp) {
			gone = append(gone, c)
		}
	}
	m.mu.Unlock()
	for _, c := range gone {
		c.Close()
	}
}

// close closes every connection, the handshakes under way included. The caller closes the listener.
func (m *mux) close() {
	m.mu.Lock()
	m.closed = true
	var all []*trackedConn
	for c := range m.conns {
		all = append(all, c)
	}
	m.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// queue is a net.Listener fed by the mux.
type queue struct {
	addr net.Addr
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newQueue(addr netip.AddrPort) *queue {
	return &queue{addr: net.TCPAddrFromAddrPort(addr), ch: make(chan net.Conn), done: make(chan struct{})}
}

// put hands a connection to whoever accepts; a connection that nobody takes within the time of a handshake is closed.
func (q *queue) put(c net.Conn) {
	t := time.NewTimer(handshakeTime)
	defer t.Stop()
	select {
	case q.ch <- c:
	case <-q.done:
		c.Close()
	case <-t.C:
		c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.ch:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }
