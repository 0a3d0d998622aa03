package proxy

import (
	"syscall"

	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// pool is what one loop has in connections to one server. It outlives configurations, as the server does.
type pool struct {
	server *plan.Server
	idle   []*server // last used last: the warmest is taken first, the rest grow old and are closed
	all    *server   // every connection, in use or not; a list
	count  int
	age    int64 // after which an unused connection is closed
	gone   bool  // the plan has the server no more
}

// pool returns the loop's pool of s.
func (w *Worker) pool(s *plan.Server, b *plan.Backend) *pool {
	p, _ := s.Local[w.id].(*pool)
	if p == nil {
		p = &pool{}
		s.Local[w.id] = p
		w.pools[s.Live] = p
	}
	p.server = s
	p.age = int64(b.Timeouts.Idle)
	return p
}

// take returns the idle connection that was used last, or nil.
func (p *pool) take() *server {
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	s := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return s
}

// maxIdle bounds the unused connections that one loop keeps to one server.
const maxIdle = 1024

// wants says whether a connection that has become unused is worth keeping.
func (p *pool) wants(w *Worker) bool {
	if w.draining || len(p.idle) >= maxIdle || p.gone || !p.server.TakesStuck() {
		return false
	}
	return !p.server.Bounded.Load() || !w.wantedElsewhere()
}

func (p *pool) put(s *server) {
	w := s.w
	s.reused = true
	p.idle = append(p.idle, s)
	w.loop.SetTimer(&s.timer, w.loop.Now()+p.age)
	w.freed(p)
}

func (p *pool) remove(s *server) {
	for i, o := range p.idle {
		if o == s {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return
		}
	}
}

// closeIdle closes at most n unused connections, the oldest first, and returns how many there were to close.
func (p *pool) closeIdle(n int) int {
	closed := 0
	for len(p.idle) > 0 && closed < n {
		p.idle[0].drop()
		closed++
	}
	return closed
}

// makePlace acquires a place on s for who needs a connection of its own there: it takes that of one that is unused.
func (p *pool) makePlace(s *plan.Server) bool { return p.closeIdle(1) > 0 && s.Acquire() }

func (p *pool) link(s *server) {
	s.next, s.prev = p.all, nil
	if p.all != nil {
		p.all.prev = s
	}
	p.all = s
	p.count++
}

func (p *pool) unlink(s *server) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		p.all = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
	p.count--
}

// connect begins a connection for c's exchange; the place on the server has been acquired. It returns false, with the place
// given back, when it fails at once.
func (c *client) connect(p *pool) bool {
	w := c.w
	fd, e := loop.Connect(p.server.Addr)
	if e == syscall.EMFILE && w.makeRoom() {
		fd, e = loop.Connect(p.server.Addr)
	}
	if e != 0 && e != syscall.EINPROGRESS {
		p.server.Release()
		w.freed(p)
		c.failed(p.server, connectFailure(e))
		return false
	}
	s := w.spareServer()
	s.conn = conn{fd: fd, owner: s}
	s.pool, s.c = p, c
	s.state = serverConnecting
	s.reused, s.spoke, s.awaiting, s.failed, s.more, s.keep = false, false, false, false, false, false
	p.link(s)
	c.x.srv = s
	c.x.rec.dialing = w.loop.Now()
	if !w.watch(&s.conn) {
		c.x.srv = nil
		s.c = nil
		s.drop()
		c.failed(p.server, plan.ConnectError)
		return false
	}
	w.loop.SetTimer(&s.timer, w.loop.Now()+int64(c.x.backend.Timeouts.Connect))
	return true
}

// retryElsewhere says whether another server may be tried, if there is one, after s could not be reached.
func (c *client) retryElsewhere(s *plan.Server) bool {
	x := &c.x
	x.tried |= s.Bit()
	x.retries++
	return x.backend.Retries.Connect && x.retries <= x.backend.Retries.Attempts
}

// failed notes that target could not be reached.
func (c *client) failed(target *plan.Server, kind plan.Failure) {
	c.x.reason, c.x.failed = kind, true
	c.punish(target, c.w.loop.Now())
	c.w.failure(target, kind)
}

// connectFailure sorts what a connection attempt ended with.
func connectFailure(e syscall.Errno) plan.Failure {
	switch e {
	case syscall.ECONNREFUSED, syscall.ECONNRESET:
		return plan.ConnectRefused
	case syscall.ETIMEDOUT:
		return plan.ConnectTimeout
	case syscall.EMFILE, syscall.ENFILE:
		return plan.OutOfDescriptors
	}
	return plan.ConnectError
}
