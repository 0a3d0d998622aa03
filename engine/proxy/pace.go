package proxy

import (
	"time"

	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// A pace watches how fast a client is while nothing but the client is waited for: first it is given the grace of min_rate, then
// every period of that length must bring its share of bytes. It is forgotten as soon as the server, or we, become what is waited for, so
// that a long poll or a slow server costs no client its connection.
//
// It costs nothing while things move: it is looked at when the client's timer fires, and only then is the kernel asked how much
// the client has acknowledged. That is also why it holds for spliced bodies, and for what a large send buffer has swallowed.
type pace struct {
	of     paced
	marked bool
	due    int64  // of the next look
	limit  int64  // until when the phase may last at all, however fast; due <= limit while the timer stands at due
	mark   uint64 // bytes at the last look
}

// paced is what a client is expected to do.
type paced uint8

const (
	noPace        paced = iota
	sendsBody           // of a request
	takesResponse       // the socket is full
	takesRest           // of a response that is with the kernel already, between two requests
	takesLast           // the same, after our direction was closed
)

// minRate returns the bytes per second that a client has to reach.
func (c *client) minRate(what paced) uint64 {
	if what == sendsBody {
		return uint64(c.front.MinRate.Request)
	}
	return uint64(c.front.MinRate.Response)
}

// paced returns when the timer of a client that is waited for is to fire: at the end of its patience, or for a look before that.
func (c *client) paced(what paced, now int64) int64 {
	p := &c.pace
	p.limit = now + int64(c.front.Timeouts.Client)
	if c.minRate(what) == 0 {
		p.of = noPace
		return p.limit
	}
	if p.of != what {
		p.of, p.marked, p.due = what, false, now+int64(c.front.MinRate.Grace)
	}
	return min(p.due, p.limit)
}

// await sets c's timer for a phase in which only the client is waited for.
func (c *client) await(what paced) {
	l := c.w.loop
	l.SetTimer(&c.timer, c.paced(what, l.Now()))
}

// rest sets c's timer for the time between two requests. The response may still be on its way then: a client that does not take
// it occupies the kernel's memory, and is not idle.
func (c *client) rest(now int64) {
	p := &c.pace
	p.limit = now + int64(c.front.Timeouts.Idle)
	at := p.limit
	if c.front.MinRate.Response > 0 && p.of != takesRest {
		p.of, p.marked, p.due = takesRest, false, now+int64(c.front.MinRate.Grace)
	}
	if p.of == takesRest {
		at = min(at, p.due)
	}
	c.w.loop.SetTimer(&c.timer, at)
}

// seeOff ends a client that has been lingered for. What the kernel has not delivered by then it would go on delivering without
// us, for as long as the client cares to acknowledge a byte now and then.
func (c *client) seeOff() {
	if c.pace.of == noPace && c.front.MinRate.Response > 0 && loop.Unacked(c.fd) > 1 { // the end itself counts as one
		now := c.w.loop.Now()
		c.pace = pace{of: takesLast, due: now, limit: now + int64(c.front.Timeouts.Client)}
		c.look()
		return
	}
	c.drop(false)
}

// look measures a client whose timer has fired for that.
func (c *client) look() {
	l, p := c.w.loop, &c.pace
	now, grace := l.Now(), int64(c.front.MinRate.Grace)
	if now < p.due {
		l.SetTimer(&c.timer, min(p.due, p.limit))
		return
	}
	var n uint64
	switch p.of {
	case sendsBody:
		n = uint64(c.x.rec.in)
	case takesRest, takesLast:
		if loop.Unacked(c.fd) <= 1 {
			c.delivered()
			return
		}
		fallthrough
	default:
		var ok bool
		if n, ok = loop.Acked(c.fd); !ok { // this kernel does not say: the phase's timeout is all there is
			p.of = noPace
			l.SetTimer(&c.timer, p.limit)
			return
		}
	}
	if p.marked && n-p.mark < c.minRate(p.of)*uint64(grace)/uint64(time.Second) {
		c.tooSlow()
		return
	}
	p.mark, p.marked = n, true
	p.due = now + grace
	l.SetTimer(&c.timer, min(p.due, p.limit))
}

// delivered goes on with a client that has taken all that was sent.
func (c *client) delivered() {
	if c.pace.of == takesLast {
		c.drop(false)
		return
	}
	c.pace.of = noPace
	c.w.loop.SetTimer(&c.timer, c.pace.limit)
}

// tooSlow cuts c off. A slow sender can be told why.
func (c *client) tooSlow() {
	if c.pace.of == sendsBody && !c.x.answered && !c.full {
		c.pace.of = noPace
		c.x.closing = true
		c.page(408, plan.SlowRequest, h1.OK)
		return
	}
	kind := plan.SlowResponse
	if c.pace.of == sendsBody {
		kind = plan.SlowRequest
	}
	c.fail(kind)
	c.drop(true)
}
