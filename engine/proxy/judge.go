package proxy

import (
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/plan"
)

// enter counts the exchange with its backend. It returns false, with the exchange answered, when the backend has as many as it may:
// those are turned away at once, since waiting would only add to what is too much.
func (c *client) enter() bool {
	x := &c.x
	ok, counted := x.backend.Enter()
	x.entered = counted
	if !ok {
		c.page(503, plan.OverLimit, 0)
	}
	return ok
}

// judge takes from the status of a response what balancing wants to know of its server.
func (s *server) judge(status int) {
	c := s.c
	x := &c.x
	unable := plan.Unable(status)
	switch {
	case x.target.Outlier == nil:
	case unable:
		s.w.blame(x.target)
	default:
		x.target.Succeeded()
	}
	// A body that was still on its way when the request began may have been what took the time.
	if x.backend.Balance == config.LeastTime && x.req != nil && x.bodyDone {
		now := s.w.loop.Now()
		took := time.Duration(now - x.rec.connected)
		if unable && status != 500 {
			x.target.Unanswered(now, took)
		} else {
			x.target.Answered(now, took)
		}
	}
}

// punish tells least_time of a request that got no answer.
func (c *client) punish(target *plan.Server, since int64) {
	if b := c.x.backend; b != nil && b.Balance == config.LeastTime {
		now := c.w.loop.Now()
		target.Unanswered(now, time.Duration(now-since))
	}
}

// blame counts a failure against s, and has it looked at when that was one too many.
func (w *Worker) blame(s *plan.Server) {
	if s.Failed(w.loop.Now()) && w.shared.Suspect != nil {
		w.shared.Suspect(s.Backend, s.Live)
	}
}

// mayRepeat says whether the request, which target has got at least in part, may be sent to another server: to do it twice does no
// harm (RFC 9110 9.2.2), all of it that was sent is still here, there is another server, and the budget is not spent.
func (c *client) mayRepeat(target *plan.Server) bool {
	w, x := c.w, &c.x
	b := x.backend
	if !x.idempotent || x.req == nil || x.retries >= b.Retries.Attempts || !b.Others(target, x.tried) {
		return false
	}
	if !b.Spend(w.id, w.loop.Now()) {
		b.Room.Stats.OverBudget.Add(1)
		return false
	}
	return true
}

// repeat sends the request to another server. s, which has got it, goes to its pool if s.keep says that it is fit for that.
func (c *client) repeat(s *server, reason plan.Failure) {
	x := &c.x
	x.tried |= s.pool.server.Bit()
	x.retries++
	x.reason, x.failed = reason, true
	x.backend.Room.Stats.Repeated.Add(1)
	x.srv = nil
	s.c = nil
	s.rest()
	c.dispatch(x.req)
}
