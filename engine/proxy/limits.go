package proxy

import (
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/plan"
)

// takePlace counts a new connection where its frontend limits those of one client. A trusted proxy has the connections of many. One
// that is beyond the limit is only told so, if it has asked something already (accepting is deferred), and else reset.
func (c *client) takePlace() {
	l := c.front.Places
	if l == nil || c.front.Trusts(c.peer) {
		return
	}
	var ok bool
	c.places = l
	c.account, ok = l.Open(c.peer, c.w.now())
	c.surplus = !ok
}

// leavePlace gives the place back.
func (c *client) leavePlace() {
	if c.places != nil && !c.surplus {
		c.places.Close(c.account)
	}
	c.places, c.surplus = nil, false
}

// now is the time on the clock that all loops share.
func (w *Worker) now() int64 { return w.loop.Now() + w.clock }

// tooMuch says whether a request (nil: a connection of TCP mode) is beyond a limit, and leaves in w what the answer needs to say.
func (c *client) tooMuch(q *h1.Request) plan.Failure {
	w := c.w
	if c.surplus {
		c.x.closing = true
		w.limitStatus, w.retryAfter = c.places.Status, 1
		return plan.ConnectionLimit
	}
	for _, l := range c.front.Limits {
		if !w.allows(l, c, q) {
			return plan.RateLimit
		}
	}
	if q == nil {
		return plan.None
	}
	for _, l := range c.x.action.Limits {
		if !w.allows(l, c, q) {
			return plan.RateLimit
		}
	}
	return plan.None
}

func (w *Worker) allows(l *plan.Limit, c *client, q *h1.Request) bool {
	wait, ok := l.Allow(q, c.addr, w.now())
	if !ok {
		w.limitStatus, w.retryAfter = l.Status, int64((wait+time.Second-1)/time.Second)
	}
	return ok
}

// spent says that c has had the last request that its connection is good for.
func (c *client) spent() bool {
	most := c.front.Caps.Requests
	return most > 0 && int64(c.served)+1 >= int64(most) && c.front.Mode == config.HTTP
}

// beyondBody says whether the chunks of the request hold more than they may.
func (c *client) beyondBody() bool {
	most := c.front.Caps.Body
	return most > 0 && c.x.chunks.Data > most
}

// bodyTooLarge refuses the request. A server that has seen the beginning of it sees it cut off.
func (c *client) bodyTooLarge() {
	c.x.closing = true
	c.page(413, plan.BodyTooLarge, h1.OK)
}
