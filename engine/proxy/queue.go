package proxy

import (
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/plan"
)

// maxQueue bounds the clients of one loop that wait for a place on the servers of one backend.
const maxQueue = 1024

// queue holds the clients that wait because every server they may use has its max_connections. First come, first served. It is
// one loop's: who frees a place for which nobody of its own waits tells the other loops.
type queue struct {
	first, last *client
	n           int
	due         bool // a place may have become free: look at the end of the iteration
}

// tryElsewhere says whether another server of s's kind has a place, and marks s as tried if so. A client that is stuck to s
// waits for s; and that primaries are busy does not bring backups into play.
func (x *exchange) tryElsewhere(s *plan.Server) bool {
	if s == x.stuck {
		return false
	}
	for _, o := range x.backend.Servers {
		if o != s && o.Backup == s.Backup && x.tried&o.Bit() == 0 && o.TakesNew() && hasPlace(o) {
			x.tried |= s.Bit()
			return true
		}
	}
	return false
}

// enqueue has c wait for a place on s, or on any other server of its backend if nothing binds it to s.
func (w *Worker) enqueue(c *client, s *plan.Server) {
	x := &c.x
	q := w.queues[x.backend.Name]
	if q == nil {
		q = &queue{}
		w.queues[x.backend.Name] = q
	}
	if q.n >= maxQueue {
		c.page(503, plan.QueueFull, h1.OK)
		return
	}
	x.leave()
	x.waiting = true
	c.pace.of = noPace
	x.nextW, x.prevW = nil, q.last
	if q.last != nil {
		q.last.x.nextW = c
	} else {
		q.first = c
	}
	q.last = c
	q.n++
	w.waiting.Add(1)
	c.enterQueue()
	w.loop.SetTimer(&c.timer, w.loop.Now()+int64(x.backend.Timeouts.Connect))
	// Ask the others for a connection that they do not need. From here on whoever frees one sees that somebody waits; a place
	// that was freed just before is looked for at the end of this iteration.
	w.ask(s)
	q.due = true
	w.todo = true
}

// unqueue takes c out of its queue.
func (w *Worker) unqueue(c *client) {
	x := &c.x
	q := w.queues[x.backend.Name]
	if x.prevW != nil {
		x.prevW.x.nextW = x.nextW
	} else {
		q.first = x.nextW
	}
	if x.nextW != nil {
		x.nextW.x.prevW = x.prevW
	} else {
		q.last = x.prevW
	}
	x.nextW, x.prevW, x.waiting = nil, nil, false
	q.n--
	w.waiting.Add(-1)
	c.leaveQueue()
	w.loop.StopTimer(&c.timer)
}

// freed notes that a place on p's server, or an idle connection to it, has become free. Loops whose clients wait take turns: the
// one that frees a place would otherwise always be the first to fill it.
func (w *Worker) freed(p *pool) {
	if p.server.MaxConnections == 0 {
		return
	}
	q := w.queues[p.server.Backend]
	mine := q != nil && q.n > 0
	if !mine || w.ownTurn {
		w.ownTurn = false
		if w.offer() {
			return
		}
	}
	if mine {
		w.ownTurn = true
		q.due = true
		w.todo = true
	}
}

// serveQueues gives free places to those who wait for them. It runs at the end of an iteration, when no handler is in the
// middle of something.
func (w *Worker) serveQueues() {
	for _, q := range w.queues {
		if !q.due {
			continue
		}
		q.due = false
		n := q.n // who joins while we look has its turn next time
		for c := q.first; c != nil && n > 0; n-- {
			next := c.x.nextW
			if c.x.placeFor(w) {
				w.unqueue(c)
				c.x.tried = 0
				c.dispatch(c.x.req)
				c.settle()
			}
			c = next
		}
	}
}

// placeFor says whether a server that x may use has a place or an idle connection on this loop.
func (x *exchange) placeFor(w *Worker) bool {
	if s := x.stuck; s != nil && s.TakesStuck() {
		return hasPlace(s) || len(w.pool(s, x.backend).idle) > 0
	}
	usable := false
	for _, s := range x.backend.Servers {
		if s.TakesNew() {
			usable = true
			if hasPlace(s) || len(w.pool(s, x.backend).idle) > 0 {
				return true
			}
		}
	}
	return !usable // nobody is left to wait for: dispatch will say so
}

// hasPlace says whether s would take another connection now.
func hasPlace(s *plan.Server) bool { return s.MaxConnections == 0 || s.Open.Load() < s.MaxConnections }
