package proxy

import (
	"syscall"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// server is a connection to a server: in use by one client, or idle in its pool. It counts against the server's
// max_connections from the attempt to connect until it is closed.
type server struct {
	conn
	w        *Worker
	pool     *pool
	c        *client // whose exchange it carries; nil: idle
	timer    loop.Timer
	state    serverState
	reused   bool   // this is not its first request
	spoke    bool   // a byte of the response has arrived
	awaiting bool   // the response's deadline has been set
	failed   bool   // it takes no more of the request, but may have answered already
	in       []byte // part of a response head; on loan
	more     bool   // in holds what follows an interim response: look at it before reading

	// The response under way.
	body   h1.Body
	chunks h1.Chunks
	keep   bool // may be used again afterwards

	next, prev *server // all of the pool's
}

type serverState uint8

const (
	serverFree serverState = iota
	serverConnecting
	serverWaiting // for the response's head
	serverBody
	serverStream // half of a tunnel
	serverIdle
)

// Ready handles what happened to the server's socket.
func (s *server) Ready(ev loop.Events) {
	s.note(ev)
	switch s.state {
	case serverConnecting:
		if ev&(loop.Writable|loop.Broken) != 0 {
			c := s.c
			s.connected()
			c.settle()
		}
		return
	case serverIdle:
		if s.readable { // closed, or speaking out of turn
			s.drop()
		}
		return
	}
	c := s.c
	if s.full && ev&(loop.Writable|loop.Broken) != 0 {
		switch s.w.flush(&s.conn) {
		case ioError:
			if s.state != serverStream { // a tunnel's end is judged as a whole
				s.sendFailed()
			}
		case ioOK:
			if s.state != serverStream {
				c.sendBody()
			}
		}
	}
	switch s.state {
	case serverWaiting:
		s.readHead()
	case serverBody:
		s.readBody()
	case serverStream:
		c.stream()
		return
	}
	c.settle()
}

// stats are the server's counters of this loop.
func (s *server) stats() *plan.Counters { return s.pool.server.Stats.Loop(s.w.id) }

// connected handles the end of a connection attempt.
func (s *server) connected() {
	c, w := s.c, s.w
	if s.broken || s.ended {
		if e := loop.SocketError(s.fd); e != 0 || s.broken {
			s.refused(e)
			return
		}
	}
	w.loop.StopTimer(&s.timer)
	s.stats().Connections.Inc()
	c.dialed()
	x := &c.x
	if c.front.Mode == config.TCP {
		if x.backend.Balance == config.LeastTime { // of a session no more is known
			x.target.Answered(w.loop.Now(), time.Duration(w.loop.Now()-x.rec.dialing))
		}
		c.startStream()
		return
	}
	s.state = serverWaiting
	if w.write(&s.conn, x.req) != ioOK {
		s.sendFailed()
		return
	}
	c.sendBody()
}

// refused handles a connection that did not come about: nothing of the request has been sent.
func (s *server) refused(e syscall.Errno) {
	c, target := s.c, s.pool.server
	c.failed(target, connectFailure(e))
	c.x.srv = nil
	s.c = nil
	s.drop()
	c.tryAgain(target)
}

// tryAgain goes on after a connection that did not come about.
func (c *client) tryAgain(target *plan.Server) {
	if c.retryElsewhere(target) {
		c.dispatch(c.x.req)
		return
	}
	c.unreachable()
}

// sendFailed notes that the server takes no more of the request. It may have answered, early, before it closed: what it said
// is read first.
func (s *server) sendFailed() {
	s.failed = true
	s.keep = false
	if s.state == serverBody {
		return
	}
	s.readable = true
	s.readHead()
}

// lost handles a connection that ended or broke before the response's head was complete.
func (s *server) lost() {
	c, w := s.c, s.w
	x := &c.x
	target := s.pool.server
	// An idle connection may be closed by its server at any time, also just when a request is on its way. The request is sent
	// again, once and over a new connection, if all of it is still here and to do it twice does no harm (RFC 9112 9.3.1).
	if s.reused && !s.spoke && x.idempotent && x.req != nil && !x.fresh {
		x.fresh = true
		x.srv = nil
		s.c = nil
		s.drop()
		s.stats().Retries.Inc()
		x.rec.retries++
		c.dispatch(x.req)
		return
	}
	if !(s.reused && !s.spoke) { // an idle connection's end says nothing about the server's health
		w.failure(target, plan.ServerClosed)
	}
	c.punish(target, x.rec.connected)
	if x.backend.Retries.Closed && c.mayRepeat(target) {
		s.keep = false
		c.repeat(s, plan.ServerClosed)
		return
	}
	c.page(502, plan.ServerClosed, h1.OK)
}

// Expired handles the server's timer.
func (s *server) Expired() {
	c, w, target := s.c, s.w, s.pool.server
	switch s.state {
	case serverIdle:
		s.drop()
		return
	case serverConnecting:
		c.failed(target, plan.ConnectTimeout)
		c.x.srv = nil
		s.c = nil
		s.drop()
		c.tryAgain(target)
	case serverWaiting:
		kind := plan.ResponseTimeout
		if s.full {
			kind = plan.ServerTimeout
		}
		w.failure(target, kind)
		c.punish(target, c.x.rec.connected)
		if c.x.backend.Retries.Timeout && c.mayRepeat(target) {
			s.keep = false
			c.repeat(s, kind)
		} else {
			c.page(504, kind, h1.OK)
		}
	case serverBody:
		w.failure(target, plan.ServerTimeout)
		c.fail(plan.ServerTimeout)
		c.drop(true)
	}
	c.settle()
}

// rest puts s into its pool, if it can be used again.
func (s *server) rest() {
	w := s.w
	if !s.keep || s.failed || s.full || s.ended || s.more || len(s.in) > 0 || !s.pool.wants(w) {
		s.drop()
		return
	}
	if s.readable { // the last read was exactly what was wanted: is there more?
		if _, st := s.recv(w.in[:1]); st != ioAgain {
			s.drop()
			return
		}
	}
	s.state = serverIdle
	s.pool.put(s)
}

// drop closes s and gives its place on the server to whoever waits for one.
func (s *server) drop() { s.close(false) }

func (s *server) close(reset bool) {
	if s.state == serverFree {
		return
	}
	w, p := s.w, s.pool
	if s.state == serverIdle {
		p.remove(s)
	}
	w.loop.StopTimer(&s.timer)
	if s.in != nil {
		w.bufs.put(s.in)
		s.in = nil
	}
	w.release(&s.conn, reset)
	s.state = serverFree
	s.c = nil
	p.unlink(s)
	if p.gone && p.count == 0 {
		delete(w.pools, p.server.Live)
	}
	p.server.Release()
	w.freed(p)
	s.next, w.spareServers = w.spareServers, s
	w.toServers.Add(-1)
	w.vacated()
}
