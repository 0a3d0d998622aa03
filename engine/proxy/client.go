package proxy

import (
	"net/netip"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// client is a connection from a client, with the exchange that is under way on it. It lives on one loop and is used again for
// another connection when it has ended.
type client struct {
	conn
	w          *Worker
	serial     uint64 // of this use: tells a stale reference
	listener   *Listener
	front      *plan.Frontend // pinned: per request (HTTP), per connection (TCP)
	addr       netip.Addr     // who it is: the peer, or what a trusted proxy says of the request
	peer       netip.Addr
	port       uint16      // of the peer
	places     *plan.Limit // where it has one; nil: nowhere
	account    uint64      // of it there
	surplus    bool        // it has too many connections: its first request is answered so, and its connection ends
	timer      loop.Timer
	pace       pace
	state      clientState
	in         []byte // read and not used yet: part of a head, or pipelined requests; on loan
	incomplete bool   // in is known to hold no complete head
	headDue    int64  // when the head that has begun must be complete
	served     uint32 // requests
	onHold     bool   // noted as one for whom something may be held back
	discarded  int    // bytes read and thrown away while lingering
	headAt     int64  // when the first byte of the head in hand was read

	x        exchange
	up, down flow // bodies of known length, and tunnels

	next, prev *client // all of the worker's
}

type clientState uint8

const (
	clientFree      clientState = iota // not in use
	clientHead                         // before or in a request head
	clientBusy                         // an exchange is under way
	clientStream                       // a tunnel: TCP mode, or after 101
	clientCut                          // of a tunnel one side was reset, or a response cut off: what came before has yet to be delivered
	clientClosing                      // the last response is on its way out
	clientLinger                       // our direction is closed; what still comes is thrown away
	clientHandshake                    // of TLS, in a goroutine that has the descriptor
)

// Bounds of lingering: long enough for a response to arrive before a reset could overtake it, short enough to be no burden.
const (
	lingerTime  = 2e9 // ns
	lingerBytes = 1 << 20
)

// headTurns bounds the pipelined requests of one client that are answered in a row without a server.
const headTurns = 64

// Ready handles what happened to the client's socket.
func (c *client) Ready(ev loop.Events) {
	c.note(ev)
	if c.full && ev&(loop.Writable|loop.Broken) != 0 && c.w.flush(&c.conn) == ioError && c.state != clientStream {
		c.gone()
		return
	}
	c.run()
}

// stats are the frontend's counters of this loop.
func (c *client) stats() *plan.Counters { return c.front.Stats.Loop(c.w.id) }

// run does what c's state allows.
func (c *client) run() {
	switch c.state {
	case clientHead:
		c.readHead()
	case clientBusy:
		if c.broken {
			c.gone()
			return
		}
		c.sendBody()
		if s := c.x.srv; s != nil && c.state == clientBusy {
			switch {
			case s.state == serverWaiting && (s.more || s.readable):
				s.readHead()
			case s.state == serverBody && !c.full:
				s.readBody()
			}
		}
		c.settle()
	case clientStream, clientCut:
		c.stream()
	case clientClosing:
		if !c.full {
			c.close()
		}
	case clientLinger:
		c.discard()
	}
}

// settle goes on with the next request, if the exchange has ended, or else sets the timers that watch over it. Whoever handles an
// event, a timer or a wake-up ends with it.
func (c *client) settle() {
	switch c.state {
	case clientHead:
		c.readHead()
	case clientBusy:
		c.arm()
	}
}

// gone ends c whose socket is broken, or whose client has gone away.
func (c *client) gone() {
	if c.x.rec.open {
		c.fail(plan.ClientClosed)
	}
	c.drop(c.state == clientStream || c.tcp())
}

// drop ends c at once, with all that belongs to it.
func (c *client) drop(reset bool) {
	if c.state == clientFree {
		return
	}
	w := c.w
	w.stop(&c.up)
	w.stop(&c.down)
	c.endExchange(reset)
	w.loop.StopTimer(&c.timer)
	c.pace.of = noPace
	if c.in != nil {
		w.bufs.put(c.in)
		c.in = nil
	}
	w.release(&c.conn, reset)
	w.unlink(c)
}

// endExchange gives up the exchange under way: its server connection can be in any state and is closed, or reset.
func (c *client) endExchange(reset bool) {
	x := &c.x
	if x.rec.open {
		c.fail(plan.Internal) // unless somebody knew better
	}
	if x.waiting {
		c.w.unqueue(c)
	}
	c.conclude()
	if s := x.srv; s != nil {
		x.srv = nil
		s.c = nil
		s.close(reset)
	}
	x.free(c.w)
}

// close ends c after its last response. What it may still be sending is read and thrown away for a moment: closing a socket
// with unread bytes resets the connection, and the reset would overtake the response.
func (c *client) close() {
	w := c.w
	if c.full {
		c.state = clientClosing
		c.await(takesResponse)
		return
	}
	if !c.readable && len(c.in) == 0 && c.x.bodyDone || c.ended && !c.readable {
		c.drop(false)
		return
	}
	c.state = clientLinger
	c.discarded = 0
	w.closeWrite(&c.conn)
	c.pace.of = noPace
	w.loop.SetTimer(&c.timer, w.loop.Now()+lingerTime)
	if !c.watched && !w.watch(&c.conn) {
		c.drop(false)
		return
	}
	c.discard()
}

// discard reads what nobody wants.
func (c *client) discard() {
	for c.readable {
		n, st := c.recv(c.w.in)
		c.discarded += n
		if st == ioEnd || st == ioError || c.discarded > lingerBytes {
			c.drop(false)
			return
		}
	}
}

// readHead reads request heads and starts an exchange with the first complete one. It goes on as long as exchanges end at once.
func (c *client) readHead() {
	w := c.w
	for turn := 0; c.state == clientHead; turn++ {
		if turn == headTurns {
			w.again(c)
			return
		}
		if c.full { // a slow reader with many pipelined requests: answer the next when it has taken the last
			c.await(takesResponse)
			return
		}
		b := w.in[:headRead] // of a large body the rest is left for splicing
		if len(c.in) > headRead/2 {
			b = w.in
		}
		n := copy(b, c.in)
		if n == 0 || c.incomplete {
			if !c.readable {
				c.awaitHead(n)
				return
			}
			m, st := c.recv(b[n:])
			switch st {
			case ioAgain:
				continue
			case ioEnd, ioError:
				if n > 0 { // within a head: nobody waits for an answer any more
					c.refuse(plan.ClientClosed, n)
				}
				c.drop(false)
				return
			}
			n += m
			w.received(c, m)
		}
		if !c.incomplete {
			c.headAt = w.loop.Now()
		}
		e := w.q.Parse(b[:n], c.front.Head)
		if e != h1.OK {
			c.malformed(e, n)
			return
		}
		if w.q.N == 0 {
			if n == len(w.in) {
				c.malformed(h1.HeadTooLarge, n)
				return
			}
			c.in = w.bufs.save(c.in, b[:n])
			c.incomplete = true
			continue
		}
		if c.in != nil {
			w.bufs.put(c.in)
			c.in = nil
		}
		c.incomplete = false
		c.headDue = 0
		c.begin(b[w.q.N:n])
	}
}

// awaitHead waits for the rest of a head of which n bytes are there.
func (c *client) awaitHead(n int) {
	w := c.w
	now := w.loop.Now()
	switch {
	case c.surplus: // it was given one read, for which nothing is kept
		c.fail(plan.ConnectionLimit)
		c.drop(true)
		return
	case n == 0 && c.served > 0:
		if w.draining || c.listener.removed() {
			c.drop(false)
			return
		}
		c.rest(now)
	case c.headDue == 0: // one deadline for the whole head: a slow one cannot extend it byte by byte
		c.headDue = now + int64(c.front.Timeouts.Headers)
		c.pace.of = noPace
		w.loop.SetTimer(&c.timer, c.headDue)
	}
	if !c.watched && !w.watch(&c.conn) {
		c.drop(false)
	}
}

// malformed answers what is no request, of which n bytes are there, and ends the connection: nobody can tell where the next one would
// begin.
func (c *client) malformed(e h1.Error, n int) {
	c.stats().Malformed[e].Inc()
	c.refuse(plan.ClientMalformed, n)
	c.state = clientBusy
	c.page(e.Status(), plan.ClientMalformed, e)
}

// Expired handles the client's timer: what it means depends on what c was waiting for.
func (c *client) Expired() {
	w := c.w
	if c.pace.of != noPace && w.loop.Now() < c.pace.limit {
		c.look()
		return
	}
	switch c.state {
	case clientHead:
		switch {
		case c.full:
			c.fail(plan.ClientTimeout)
			c.drop(true)
		case len(c.in) > 0:
			c.refuse(plan.HeadersTimeout, len(c.in))
			c.state = clientBusy
			c.page(408, plan.HeadersTimeout, h1.OK)
		case c.served == 0:
			c.fail(plan.HeadersTimeout)
			c.drop(false)
		default:
			c.stats().Idle.Inc()
			c.drop(false)
		}
	case clientBusy:
		if c.x.waiting {
			w.unqueue(c)
			if !c.redispatch() {
				c.page(503, plan.QueueTimeout, h1.OK)
			}
			c.settle()
			return
		}
		if !c.x.answered && !c.full {
			c.x.closing = true
			c.page(408, plan.ClientTimeout, h1.OK)
			return
		}
		c.fail(plan.ClientTimeout)
		c.drop(true)
	case clientStream:
		c.streamExpired()
	case clientCut:
		c.deliver()
	case clientClosing:
		c.fail(plan.ClientTimeout)
		c.drop(true)
	case clientLinger:
		c.seeOff()
	}
}

// newClient takes over an accepted connection.
func (w *Worker) newClient(l *Listener, front *plan.Frontend, fd int, addr netip.AddrPort) {
	c := w.spareClient()
	c.conn = conn{fd: fd, owner: c}
	c.listener, c.front, c.addr, c.peer, c.port = l, front, addr.Addr(), addr.Addr(), addr.Port()
	c.served, c.headDue, c.incomplete, c.onHold = 0, 0, false, false
	w.link(c)
	c.stats().Connections.Inc()
	c.takePlace()
	if t := l.tls.Load(); t != nil {
		c.state = clientHandshake
		if c.surplus { // to be told so would cost a handshake
			c.fail(plan.ConnectionLimit)
			c.drop(true)
			return
		}
		c.fd = -1
		c.handshake(t, fd)
		return
	}
	c.readable = front.Mode != config.TCP // deferred accept: there is a request already; no need to ask for events if it is the only one
	c.welcome()
}
