package proxy

import (
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// Drain closes what is idle and has everything else end as soon as its exchange does. Streams go on.
func (w *Worker) Drain() {
	w.draining = true
	for c := w.clients; c != nil; {
		next := c.next
		if c.state == clientHead && c.served > 0 && len(c.in) == 0 && !c.full {
			c.drop(false)
		}
		c = next
	}
	for _, p := range w.pools {
		p.closeIdle(maxIdle)
	}
}

// closeAll closes everything.
func (w *Worker) closeAll() {
	w.draining = true
	for _, s := range w.sockets { // what waits in their queues has sent nothing to a server yet, and shall not begin to
		s.close()
	}
	for c := w.clients; c != nil; c = w.clients {
		if c.x.rec.open {
			c.fail(plan.Stopped)
		}
		c.drop(false)
	}
	for _, p := range w.pools {
		p.closeIdle(maxIdle)
	}
}

// Forget closes the unused connections to servers that the plan has no more. The others are closed when their exchange ends, and so are
// those that requests of former plans make.
func (w *Worker) Forget(gone []*plan.Server) {
	for _, s := range gone {
		p := w.pools[s.Live]
		if p == nil {
			s.Local[w.id] = &pool{server: s, gone: true} // not among w.pools: there is nothing to be found in it
			continue
		}
		p.gone = true
		p.closeIdle(maxIdle)
		if p.count == 0 {
			delete(w.pools, s.Live)
		}
	}
}

// Down closes the unused connections to a server that is not usable any more, and with sessions everything that goes on there.
func (w *Worker) Down(live *plan.Live, sessions bool) {
	p := w.pools[live]
	if p == nil {
		return
	}
	p.closeIdle(maxIdle)
	if !sessions {
		return
	}
	for s := p.all; s != nil; {
		next := s.next
		if c := s.c; c != nil {
			c.page(502, plan.MarkedDown, h1.OK)
			c.settle()
		}
		s = next
	}
	w.Rouse()
}

// Evict resets the connections of clients that may not connect any more.
func (w *Worker) Evict() {
	for c := w.clients; c != nil; {
		next := c.next
		f := c.listener.Frontend()
		if f == nil { // its listener is gone
			f = c.front
		}
		if f.Denies(c.peer) {
			c.fail(plan.Denied)
			c.drop(true)
		}
		c = next
	}
}

// Rouse looks after the queues again: a server may have become usable, or not.
func (w *Worker) Rouse() {
	for _, q := range w.queues {
		q.due = q.n > 0
	}
	w.todo = true
}

// wantedElsewhere says whether a client of another loop waits for a place on some server.
func (w *Worker) wantedElsewhere() bool {
	for _, o := range w.shared.Workers {
		if o != w && o.waiting.Load() > 0 {
			return true
		}
	}
	return false
}

// offer tells loops whose clients wait that a place has become free somewhere, and reports whether one of them will look. When
// it has, it is this loop's turn: the place may be on a server that nobody there waits for.
func (w *Worker) offer() (taken bool) {
	for _, o := range w.shared.Workers {
		if o == w || o.waiting.Load() == 0 || !o.roused.CompareAndSwap(false, true) {
			continue
		}
		look := func() {
			o.roused.Store(false)
			o.Rouse()
			o.serveQueues()
			if w.waiting.Load() > 0 {
				w.loop.Post(w.Rouse)
			}
		}
		if o.loop.Post(look) {
			taken = true
		} else {
			o.roused.Store(false) // its mailbox is full; the next place that is freed is offered again
		}
	}
	return taken
}

// ask has the other loops close one unused connection to s each, since a client of this loop needs its place.
func (w *Worker) ask(s *plan.Server) {
	for _, o := range w.shared.Workers {
		if o != w {
			o.loop.Post(func() {
				if p := o.pools[s.Live]; p != nil {
					p.closeIdle(1)
				}
			})
		}
	}
}

// ID is the worker's number.
func (w *Worker) ID() int { return w.id }

// Connections returns how many clients are connected. Any goroutine may call it.
func (w *Worker) Connections() int64 { return w.connections.Load() }

// ToServers returns how many connections to servers there are, unused ones included. Any goroutine may call it.
func (w *Worker) ToServers() int64 { return w.toServers.Load() }

// Waiting returns how many clients wait in queues. Any goroutine may call it.
func (w *Worker) Waiting() int64 { return w.waiting.Load() }

// Pauses returns how often accepting was paused. Any goroutine may call it.
func (w *Worker) Pauses() uint64 { return w.paused.Load() }

// Pipes returns how many pipes there are for splicing. Any goroutine may call it.
func (w *Worker) Pipes() int64 { return w.loop.Pipes() }

// Load returns the loop's counters. Any goroutine may call it.
func (w *Worker) Load() *loop.Load { return w.loop.Load() }
