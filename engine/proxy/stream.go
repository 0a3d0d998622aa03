package proxy

import (
	"math"
	"time"

	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// beginStream finds a server for a TCP session. Nothing is read from the client until it is connected.
func (c *client) beginStream() {
	w, x := c.w, &c.x
	*x = exchange{bodyDone: true, fresh: true, backend: c.front.Backend}
	c.stats().Requests.Inc()
	c.open(w.loop.Now())
	if x.backend == nil {
		c.fail(plan.NoServer)
		c.drop(true)
		return
	}
	x.hash, x.hashed = x.backend.Key(nil, c.addr)
	if x.backend.StickyTable != nil {
		x.lookup(c, nil)
	}
	if !c.enter() {
		return
	}
	c.dispatch(nil)
	c.settle()
}

// startStream joins the client with the connection to its server: from here on bytes flow both ways, unread.
func (c *client) startStream() {
	w, x := c.w, &c.x
	s := x.srv
	x.forgetRequest(w)
	x.remember(w)
	c.state = clientStream
	c.pace.of = noPace
	s.state = serverStream
	w.loop.StopTimer(&s.timer)
	w.stop(&c.up)
	c.up.start(&c.conn, &s.conn, -1)
	c.down.start(&s.conn, &c.conn, -1)
	c.up.bulk, c.down.bulk = false, false
	if x.target.Outlier != nil {
		x.proving = c.tcp()
	}
	if !c.watched && !w.watch(&c.conn) {
		c.fail(plan.Internal)
		c.drop(true)
		return
	}
	c.stream()
}

// stream moves what can be moved in both directions. Each direction ends by itself: one side's end is passed on once all that
// came before it has been delivered, and the other direction goes on. A reset ends the direction towards the side that was reset at
// once, and the other one when all that came before it has been moved.
func (c *client) stream() {
	switch c.state {
	case clientStream:
	case clientCut:
		if left, _ := c.left(); loop.SocketError(left.fd) != 0 {
			c.drop(true)
		}
		return
	default:
		return
	}
	w := c.w
	up, down := c.up.moved, c.down.moved
	upEnd := c.half(&c.up, plan.ClientClosed, plan.ServerClosed)
	downEnd := c.half(&c.down, plan.ServerClosed, plan.ClientClosed)
	w.received(c, int(c.up.moved-up))
	w.sent(c, int(c.down.moved-down))
	if c.x.proving {
		c.prove(upEnd, downEnd)
	}
	switch {
	case upEnd == halfOpen || downEnd == halfOpen:
	case upEnd == halfClosed && downEnd == halfClosed:
		c.conclude()
		c.drop(false)
		return
	default:
		c.cut()
		return
	}
	if c.up.moved != up || c.down.moved != down || !c.timer.Set() {
		w.loop.SetTimer(&c.timer, w.loop.Now()+c.streamTimeout())
	}
}

// state of one direction of a tunnel.
type halfState uint8

const (
	halfOpen halfState = iota
	halfClosed
	halfBroken
)

// half moves one direction, and passes its end on. src and dst are what it means when the one or the other is broken.
func (c *client) half(f *flow, src, dst plan.Failure) halfState {
	if f.closed {
		return halfClosed
	}
	if f.cut != nil {
		return halfBroken
	}
	o := flowDstError
	if !f.dst.broken {
		o = c.w.pump(f)
	}
	switch o {
	case flowDone:
		f.closed = true
		if !c.up.finished() || !c.down.finished() { // else both are about to be closed, or reset
			c.w.closeWrite(f.dst)
		}
		return halfClosed
	case flowYield:
		c.w.again(c)
	case flowSrcError, flowShort:
		c.fail(src)
		f.cut = f.src
		return halfBroken
	case flowDstError:
		c.fail(dst)
		f.cut = f.dst
		return halfBroken
	}
	return halfOpen
}

// cutLook is between two looks whether what came before a reset has been delivered.
const cutLook = 20 * time.Millisecond

// cut ends a tunnel of which one side was reset: the other shall see the same, not a proper end, but behind all that was said before. A
// server that answers and closes without having read everything resets the connection, and to reset the client's would throw away what the
// kernel still has of the answer.
func (c *client) cut() {
	client := c.up.cut == &c.conn || c.down.cut == &c.conn
	server := c.up.cut == &c.x.srv.conn || c.down.cut == &c.x.srv.conn
	switch {
	case client && server:
		c.drop(true)
		return
	case client:
		c.conclude()
		c.w.release(&c.conn, true)
	default:
		c.endExchange(true)
	}
	c.resetBehind()
}

// resetBehind resets the side that is left, behind all that it was sent.
func (c *client) resetBehind() {
	c.state = clientCut
	left, _ := c.left()
	if left.held {
		left.push()
	}
	c.pace = pace{mark: math.MaxUint64}
	c.deliver()
}

// left is the side that was not reset, of a tunnel or after a response that was cut off, and the flow towards it.
func (c *client) left() (*conn, *flow) {
	if s := c.x.srv; s != nil {
		return &s.conn, &c.up
	}
	return &c.conn, &c.down
}

// deliver resets the side that is left when it has acknowledged everything, or nothing for a while.
func (c *client) deliver() {
	l, p := c.w.loop, &c.pace
	left, into := c.left()
	n := uint64(loop.Unacked(left.fd))
	if n == 0 || n == 1 && into.closed { // the end counts as one
		c.drop(true)
		return
	}
	if n < p.mark {
		p.mark, p.limit = n, l.Now()+lingerTime
	}
	if l.Now() >= p.limit {
		c.drop(true)
		return
	}
	l.SetTimer(&c.timer, l.Now()+int64(cutLook))
}

// prove judges a session by its first word from the server: one that ends or breaks without a word, while the client is still there,
// is a failure. (Who speaks first differs; a server that waits is not judged.)
func (c *client) prove(up, down halfState) {
	x, w := &c.x, c.w
	switch {
	case c.down.moved > 0:
		x.target.Succeeded()
	case down == halfClosed && up == halfOpen, down == halfBroken && !c.broken:
		w.failure(x.target, plan.ServerClosed)
	case up == halfOpen && down == halfOpen:
		return
	}
	x.proving = false
}

// streamTimeout is how long a tunnel may be silent: whichever side is less patient decides.
func (c *client) streamTimeout() int64 {
	return int64(min(c.front.Timeouts.Client, c.x.backend.Timeouts.Server))
}

func (c *client) streamExpired() {
	kind := plan.ClientTimeout
	if c.x.backend.Timeouts.Server < c.front.Timeouts.Client {
		kind = plan.ServerTimeout
	}
	c.fail(kind)
	c.drop(true)
}
