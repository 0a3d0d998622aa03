package proxy

import (
	"github.com/skeinlb/skein/engine/accesslog"
	"github.com/skeinlb/skein/engine/plan"
)

// record is what is noted of an exchange for the statistics: when it reached what, in the loop's time, and why it ended. The zero
// time is "not reached". It is part of its exchange and open from the exchange's beginning to its end.
type record struct {
	open    bool
	cause   plan.Failure // the first that was noted
	phase   plan.Phase   // at that moment
	retries uint16
	status  uint16 // of the response; 0: none was begun

	first     int64 // the first byte of the request
	ready     int64 // the request's head was complete, or the session began
	queueing  int64 // it began to wait for a place
	queued    int64 // and how long it waited, in all
	dialing   int64 // the last connection to a server was begun
	connect   int64 // how long that took; 0: one was at hand
	connected int64 // the connection was there, new or not
	answered  int64 // the response's head was complete

	in, out int64 // bytes from and to the client

	// For the access log.
	log   *accesslog.Settings // in force when it began; nil: not logged
	text  []byte              // parts of the request; on loan
	parts [3 + accesslog.MaxHeaders]uint16
	ahead uint16 // clients in the queue when it was entered

	// Of this loop; nil before the exchange has one.
	backend, server *plan.Counters
}

// open begins the record of an exchange, which has begun now.
func (c *client) open(first int64) {
	r := &c.x.rec
	r.open = true
	if c.front.Log {
		r.log = c.w.lines.ring.Settings()
	}
	r.first, r.ready = first, c.w.loop.Now()
	if c.x.backend != nil {
		r.backend = c.x.backend.Stats.Loop(c.w.id)
		r.backend.Requests.Inc()
		r.backend.Active.Add(1)
	}
}

// fail notes why the exchange, or else the connection, does not get what it came for. Of an exchange the first reason counts.
func (c *client) fail(kind plan.Failure) {
	r := &c.x.rec
	switch {
	case !r.open:
		c.stats().Failures[kind].Inc()
	case r.cause == plan.None:
		r.cause, r.phase = kind, c.phase(kind)
	}
}

// refuse begins an exchange that a request makes whose head is not there or not correct, and notes why; n bytes of it have been read.
// What never was a request is counted by its failure alone.
func (c *client) refuse(kind plan.Failure, n int) {
	c.x = exchange{minor: 1, closing: true}
	c.open(c.headAt)
	r := &c.x.rec
	r.cause, r.phase, r.in = kind, plan.PhaseRequest, int64(n)
}

// phase says what the exchange is doing that fails.
func (c *client) phase(kind plan.Failure) plan.Phase {
	x := &c.x
	s := x.srv
	switch {
	case kind == plan.ClientMalformed, kind == plan.RateLimit, kind == plan.ConnectionLimit, kind == plan.BodyTooLarge:
		return plan.PhaseRequest
	case c.state == clientStream:
		return plan.PhaseData
	case x.waiting || kind == plan.QueueTimeout || kind == plan.QueueFull:
		return plan.PhaseQueue
	case x.answered && (s == nil || s.state != serverBody):
		return plan.PhaseLast
	case x.answered:
		return plan.PhaseData
	case s == nil || s.state == serverConnecting:
		return plan.PhaseConnect
	}
	return plan.PhaseHeaders
}

// conclude closes the record, once: each exchange is counted with the one reason for its end.
func (c *client) conclude() {
	r := &c.x.rec
	if !r.open {
		return
	}
	r.open = false
	front, now := c.stats(), c.w.loop.Now()
	front.Failures[r.cause].Inc()
	if r.backend != nil {
		r.backend.Active.Add(-1)
		r.backend.Failures[r.cause].Inc()
	}
	front.Took(plan.SpanTotal, now-r.first, r.backend, r.server)
	if r.ready > r.first {
		front.Took(plan.SpanRequest, r.ready-r.first)
	}
	if r.queued != 0 {
		r.backend.Took(plan.SpanQueue, r.queued)
	}
	if r.answered != 0 && r.server != nil {
		front.Took(plan.SpanResponse, r.answered-r.connected, r.backend, r.server)
	}
	if r.log != nil {
		c.log(now)
	}
}

// enterQueue and leaveQueue note how long an exchange waits.
func (c *client) enterQueue(ahead int) {
	r := &c.x.rec
	r.queueing = c.w.loop.Now()
	r.ahead = uint16(ahead)
	r.backend.Waits(1)
}

func (c *client) leaveQueue() {
	r := &c.x.rec
	r.queued += max(c.w.loop.Now()-r.queueing, 1)
	r.queueing = 0
	r.backend.Waits(-1)
}

// dialed notes that a new connection to the server is there.
func (c *client) dialed() {
	r := &c.x.rec
	d := c.w.loop.Now() - r.dialing
	r.server.Took(plan.SpanConnect, d, r.backend)
	c.reached(d)
}

// reached notes that the exchange has a connection, new or not, over which it sends what there is of the request.
func (c *client) reached(took int64) {
	r := &c.x.rec
	r.connect = took
	r.connected = c.w.loop.Now()
	r.server.BytesIn.Add(uint64(r.in))
}

// sent and received count bytes on the client's side, in all places that want to know.
func (w *Worker) sent(c *client, n int) {
	r := &c.x.rec
	c.stats().BytesOut.Add(uint64(n))
	if !r.open {
		return
	}
	r.out += int64(n)
	if r.backend != nil {
		r.backend.BytesOut.Add(uint64(n))
		if r.server != nil {
			r.server.BytesOut.Add(uint64(n))
		}
	}
}

func (w *Worker) received(c *client, n int) {
	c.stats().BytesIn.Add(uint64(n))
	if c.x.rec.open {
		c.took(int64(n))
	}
}

// took counts bytes of the exchange's request, which may have been read before it began.
func (c *client) took(n int64) {
	r := &c.x.rec
	r.in += n
	if r.backend != nil {
		r.backend.BytesIn.Add(uint64(n))
		if r.server != nil {
			r.server.BytesIn.Add(uint64(n))
		}
	}
}

// countStatus counts a response, which is a server's or our own.
func (c *client) countStatus(status int, servers bool) {
	r := &c.x.rec
	r.status = uint16(status)
	class := status / 100
	c.stats().Status[class].Inc()
	if r.backend != nil {
		r.backend.Status[class].Inc()
	}
	if servers && r.server != nil {
		r.server.Status[class].Inc()
	}
}
