package proxy

import (
	"sync/atomic"

	"github.com/skeinlb/skein/engine/plan"
)

// Descriptors is how many descriptors the process may have, and what this means for accepting. The loops share it; the zero value
// knows no bound.
//
// When they become scarce, connections wait in the kernel's queues: a client that was accepted needs a second descriptor to be
// served, so that the last ones are kept for servers. Idle clients are closed to make room, those that have been idle longest
// first, and accepting goes on when something has been freed.
type Descriptors struct {
	// Immutable.
	Limit int // of the process; 0: unknown

	other  atomic.Int64 // that are not connections: counted when a configuration comes into force
	paused atomic.Int32 // loops that have paused accepting
}

// reserve is what accepting leaves for connections to servers.
func (d *Descriptors) reserve() int { return max(16, d.Limit/8) }

// scarceFrom is the number from which on a new descriptor says that they are becoming scarce: the kernel gives the lowest free one.
func (d *Descriptors) scarceFrom() int {
	if d.Limit == 0 {
		return 1 << 30
	}
	return d.Limit - d.reserve()
}

// SetOther says how many descriptors the process has besides those of clients and servers.
func (d *Descriptors) SetOther(n int) { d.other.Store(int64(n)) }

// Bounds of making room.
const (
	evictBatch = 16   // clients that are closed at once
	evictLook  = 1024 // clients that are looked at for that
)

// full says whether accepting has to stop for lack of descriptors. Other loops' numbers are read only while they are scarce.
func (w *Worker) full() bool {
	if !w.scarce {
		return false
	}
	d := w.shared.Descriptors
	used := d.other.Load()
	for _, o := range w.shared.Workers {
		used += o.connections.Load() + o.toServers.Load() + 2*o.loop.Pipes()
	}
	if used < int64(d.scarceFrom()-evictBatch) {
		w.scarce = false
	}
	return used >= int64(d.scarceFrom())
}

// capped says whether front, or this node, has as many connections as it may have.
func (w *Worker) capped(front *plan.Frontend) bool {
	if most := front.Caps.Connections; most > 0 && front.Stats.Open(len(w.shared.Workers)) >= int64(most) {
		return true
	}
	most := w.shared.MaxConnections
	if most == 0 {
		return false
	}
	open := int64(0)
	for _, o := range w.shared.Workers {
		open += o.connections.Load()
	}
	return open >= int64(most)
}

// admits says whether another connection of front may be accepted. It makes room if it can.
func (w *Worker) admits(front *plan.Frontend) bool {
	if w.capped(front) {
		only := front
		if w.shared.MaxConnections > 0 && !(front.Caps.Connections > 0) {
			only = nil
		}
		return w.evict(only) > 0 && !w.capped(front)
	}
	return !w.full() || w.makeRoom() && !w.full()
}

// makeRoom frees descriptors that nobody is using now, and says whether there were any.
func (w *Worker) makeRoom() bool {
	n := w.loop.DropPipes()
	n += w.evict(nil)
	for _, p := range w.pools {
		if n >= evictBatch {
			break
		}
		n += p.closeIdle(1)
	}
	return n > 0
}

// evict closes idle clients of a frontend, or of all (nil): of those that it looks at the ones that have been idle longest. It goes on
// next time where it stopped looking, and returns how many it closed.
func (w *Worker) evict(front *plan.Frontend) int {
	var found [evictBatch]*client // by the time when they would have been closed anyway
	n := 0
	c := w.look
	if c == nil {
		c = w.lastClient
	}
	for range evictLook {
		if c == nil {
			break
		}
		if c.idle() && (front == nil || c.front.Stats == front.Stats) {
			i := n
			for i > 0 && found[i-1].pace.limit > c.pace.limit {
				i--
			}
			if i < evictBatch {
				n = min(n+1, evictBatch)
				copy(found[i+1:n], found[i:n-1])
				found[i] = c
			}
		}
		c = c.prev
	}
	w.look = c
	for _, c := range found[:n] {
		c.stats().Idle.Inc()
		c.drop(false)
	}
	return n
}

// idle says whether c waits for its client to ask something again, and nothing has come yet.
func (c *client) idle() bool {
	return c.state == clientHead && c.served > 0 && len(c.in) == 0 && !c.full && !c.readable
}

// pause stops accepting on s until something has been freed. The other loops are asked to make room; the timer is for what is freed
// where nobody looks.
func (s *socket) pause() {
	w := s.w
	if s.paused {
		return
	}
	s.paused = true
	w.paused.Add(1)
	if w.pausedSockets++; w.pausedSockets == 1 {
		w.shared.Descriptors.paused.Add(1)
	}
	w.loop.Pause(s.fd)
	w.loop.SetTimer(&s.timer, w.loop.Now()+int64(acceptPause))
	for _, o := range w.shared.Workers {
		if o != w && o.asked.CompareAndSwap(false, true) {
			if !o.loop.Post(func() {
				o.asked.Store(false)
				o.makeRoom()
			}) {
				o.asked.Store(false)
			}
		}
	}
}

// resume goes on accepting on s.
func (s *socket) resume() {
	w := s.w
	if !s.paused {
		return
	}
	if w.loop.WatchLevel(s.fd, s) != nil {
		w.loop.SetTimer(&s.timer, w.loop.Now()+int64(acceptPause))
		return
	}
	w.unpause(s)
}

// unpause notes that s is not paused any more.
func (w *Worker) unpause(s *socket) {
	if !s.paused {
		return
	}
	s.paused = false
	w.loop.StopTimer(&s.timer)
	if w.pausedSockets--; w.pausedSockets == 0 {
		w.shared.Descriptors.paused.Add(-1)
	}
}

// resumeAll goes on accepting on every socket.
func (w *Worker) resumeAll() {
	for _, s := range w.sockets {
		s.resume()
	}
}

// vacated notes that a connection was closed: who has paused accepting, here or on another loop, looks again at the end of the
// iteration.
func (w *Worker) vacated() {
	if w.shared.Descriptors.paused.Load() == 0 {
		return
	}
	if w.pausedSockets > 0 {
		w.resuming = true
	}
	for _, o := range w.shared.Workers {
		if o != w && o.nudged.CompareAndSwap(false, true) {
			if !o.loop.Post(func() {
				o.nudged.Store(false)
				o.resumeAll()
			}) {
				o.nudged.Store(false)
			}
		}
	}
}
