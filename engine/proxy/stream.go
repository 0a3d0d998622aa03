package proxy

import (
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
// came before it has been delivered, and the other direction goes on.
func (c *client) stream() {
	if c.state != clientStream {
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
	case upEnd == halfBroken || downEnd == halfBroken:
		// One side was reset: the other shall see the same, not a proper end.
		c.drop(true)
		return
	case upEnd == halfClosed && downEnd == halfClosed:
		c.conclude()
		c.drop(false)
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
	switch c.w.pump(f) {
	case flowDone:
		f.closed = true
		if !c.up.closed || !c.down.closed { // else both are about to be closed
			c.w.closeWrite(f.dst)
		}
		return halfClosed
	case flowYield:
		c.w.again(c)
	case flowSrcError, flowShort:
		c.fail(src)
		return halfBroken
	case flowDstError:
		c.fail(dst)
		return halfBroken
	}
	return halfOpen
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
