package proxy

import (
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/plan"
)

// queue holds the clients that wait because every server they may use has its max_connections. First come, first served. It is
// one loop's: who frees a place for which nobody of its own waits tells the other loops.
type queue struct {
	first, last *client
	n           int
	due         bool // a place may have become free: look at the end of the iteration
}

// insert has c stand before another client; nil: at the end.
func (q *queue) insert(c, before *client) {
	x := &c.x
	x.nextW, x.prevW = before, q.last
	if before != nil {
		x.prevW, before.x.prevW = before.x.prevW, c
	} else {
		q.last = c
	}
	if x.prevW != nil {
		x.prevW.x.nextW = c
	} else {
		q.first = c
	}
	q.n++
}

func (q *queue) remove(c *client) {
	x := &c.x
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
	x.nextW, x.prevW = nil, nil
	q.n--
}

// tryElsewhere says whether another server has a place, and marks s as tried if so. A client that is stuck to s waits for s; and that
// primaries are busy does not bring backups into play. only is the one that is to be asked: it shares its bit with one that was tried, so
// that picking would pass it over; nil: whoever is picked.
func (x *exchange) tryElsewhere(s *plan.Server) (only *plan.Server, found bool) {
	if s == x.stuck {
		return nil, false
	}
	failed := x.tried
	if x.retries == 0 { // then those tried were merely full
		failed = 0
	}
	tried := x.tried | s.Bit()
	x.backend.Takers(func(o *plan.Server) bool {
		if o == s || failed&o.Bit() != 0 || !hasPlace(o) {
			return true
		}
		found = true
		if tried&o.Bit() == 0 {
			only = nil
			return false
		}
		only = o
		return true
	})
	if found {
		x.tried = tried
	}
	return only, found
}

// enqueue has c wait for a place on s, or on any other server of its backend if nothing binds it to s.
func (w *Worker) enqueue(c *client, s *plan.Server) {
	x := &c.x
	b := x.backend
	if b.Room.Waiting.Add(1) > int64(b.Queue.Length) && !x.called {
		b.Room.Waiting.Add(-1)
		if !c.redispatch() {
			c.page(503, plan.QueueFull, h1.OK)
		}
		return
	}
	b.Room.Stats.Queued.Add(1)
	q := w.queues[b.Name]
	if q == nil {
		q = &queue{}
		w.queues[b.Name] = q
	}
	x.leave()
	x.waiting = true
	c.pace.of = noPace
	q.insert(c, nil)
	w.waiting.Add(1)
	c.enterQueue(q.n - 1)
	w.loop.SetTimer(&c.timer, w.loop.Now()+int64(b.Queue.Timeout)-x.rec.queued) // who lost a place to another loop has waited already
	// Ask the others for a connection that they do not need. From here on whoever frees one sees that somebody waits; a place
	// that was freed just before is looked for at the end of this iteration.
	w.ask(s)
	q.due = true
	w.todo = true
}

// unqueue takes c out of its queue.
func (w *Worker) unqueue(c *client) {
	x := &c.x
	w.queues[x.backend.Name].remove(c)
	x.waiting = false
	w.waiting.Add(-1)
	x.backend.Room.Waiting.Add(-1)
	c.leaveQueue()
	w.loop.StopTimer(&c.timer)
}

// freed notes that a place on p's server, or an idle connection to it, has become free. Loops whose clients wait take turns: the
// one that frees a place would otherwise always be the first to fill it.
func (w *Worker) freed(p *pool) {
	if !p.server.Bounded.Load() {
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
				w.call(q, c, next)
			}
			c = next
		}
	}
}

// call sends c, whose turn it is, to a server that has a place. If a client of another loop was quicker, c stands where it stood, before
// next: neither behind all who came later, nor turned away because the queue has become full meanwhile.
func (w *Worker) call(q *queue, c, next *client) {
	x, room := &c.x, c.x.backend.Room
	room.Waiting.Add(1) // nobody else gets its place in the queue until it is known whether c needs it
	w.unqueue(c)
	x.tried, x.called = 0, true
	c.dispatch(x.req)
	x.called = false
	room.Waiting.Add(-1)
	if x.waiting {
		q.remove(c)
		q.insert(c, next)
	}
	c.settle()
}

// placeFor says whether a server that x may use has a place or an idle connection on this loop.
func (x *exchange) placeFor(w *Worker) bool {
	if s := x.stuck; s != nil && s.TakesStuck() {
		return hasPlace(s) || len(w.pool(s, x.backend).idle) > 0
	}
	usable, found := false, false
	x.backend.Takers(func(s *plan.Server) bool {
		usable = true
		found = hasPlace(s) || len(w.pool(s, x.backend).idle) > 0
		return !found
	})
	return found || !usable // nobody is left to wait for: dispatch will say so
}

// redispatch sends a client to another server that has a place, when the one to which it belongs has had none for too long. From then
// on it belongs there: what it did is where it went.
func (c *client) redispatch() bool {
	w, x := c.w, &c.x
	s := x.stuck
	if s == nil {
		return false
	}
	found := false
	x.backend.Takers(func(o *plan.Server) bool {
		found = o != s && (hasPlace(o) || len(w.pool(o, x.backend).idle) > 0)
		return !found
	})
	if !found {
		return false
	}
	x.backend.Room.Stats.Redispatched.Add(1)
	x.stuck, x.tried = nil, s.Bit()
	c.dispatch(x.req)
	return true
}

// Repin gives the clients that wait the backends of the new plan: the old one's servers are not looked after any more.
func (w *Worker) Repin(p *plan.Plan) {
	for name, q := range w.queues {
		b := p.Backend(name)
		if b == nil {
			continue
		}
		for c := q.first; c != nil; c = c.x.nextW {
			x, old := &c.x, c.x.backend
			if old.Room != b.Room { // it was gone meanwhile: what c counts as goes along
				old.Room.Waiting.Add(-1)
				b.Room.Waiting.Add(1)
				if x.entered {
					old.Exit()
					b.Room.Entered.Add(1)
				}
			}
			x.backend = b
			// A key that was taken from another part of the request than the new table's keys are would be a wrong entry.
			x.keyed = x.keyed && old.StickyTable.SameKeys(b.StickyTable)
			if x.stuck != nil {
				x.stuck = b.ByHash(x.stuck.ID)
			}
		}
	}
}

// hasPlace says whether s would take another connection now.
func hasPlace(s *plan.Server) bool { return s.MaxConnections == 0 || s.Open.Load() < s.MaxConnections }
