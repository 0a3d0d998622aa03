package engine

import (
	"context"
	"time"

	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/engine/proxy"
)

// suspect is a server that has failed too many requests in a row.
type suspect struct {
	backend string
	live    *plan.Live
}

// maxSuspects bounds what waits for tend. One that finds no room is told of again with its next failure.
const maxSuspects = 64

// now is the time as backends are told it. Loops count from when they were made, a moment later: what they note may be early by that.
func (e *Engine) now() int64 { return int64(time.Since(e.base)) }

// tend does what must be done about servers by and by, until ctx ends: it ejects those that fail, takes them back, and lets slow
// starts go on. No request waits for it.
func (e *Engine) tend(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-e.suspects:
			e.eject(s)
		case <-e.stirred:
		case <-timer.C:
		}
		if at := e.refreshAll(); at != 0 {
			timer.Reset(time.Duration(max(0, at-e.now())))
		} else {
			timer.Reset(time.Hour)
		}
	}
}

// eject takes a server out for a while, if that is still called for.
func (e *Engine) eject(s suspect) {
	b := e.plan.Load().Backend(s.backend)
	if b == nil {
		return
	}
	for _, srv := range b.Servers {
		if srv.Live != s.live {
			continue
		}
		now := e.now()
		if until, ok := b.Eject(srv, now); ok {
			b.Room.Stats.Ejected.Add(1)
			e.log.Warn("server ejected by traffic", "backend", b.Name, "server", srv.Name, "for", time.Duration(until-now).String(),
				"ejections", srv.Ejections.Load())
			b.Refresh(now)
			e.tell(func(w *proxy.Worker) { w.Rouse() })
		}
	}
}

// refreshAll brings the backends of the plan up to date where time alone changes them, and returns when to come again; 0: never.
func (e *Engine) refreshAll() (next int64) {
	now := e.now()
	for _, b := range e.plan.Load().Backends {
		if !b.Tended() {
			continue
		}
		usable := b.Usable()
		if at := b.Refresh(now); at != 0 && (next == 0 || at < next) {
			next = at
		}
		if b.Usable() != usable {
			e.log.Info("servers are back", "backend", b.Name, "usable", b.Usable())
			e.tell(func(w *proxy.Worker) { w.Rouse() })
		}
	}
	return next
}

// refresh makes b follow a change of one of its servers, and has tend look after what goes on from there.
func (e *Engine) refresh(b *plan.Backend) {
	panicked := b.Room.Panic.Load()
	b.Refresh(e.now())
	if now := b.Room.Panic.Load(); now != panicked {
		e.log.Warn("health of servers is ignored: too few are well", "backend", b.Name, "panic", now, "minimum_healthy", b.MinHealthy)
	}
	e.stir()
}

// stir has tend look again.
func (e *Engine) stir() {
	select {
	case e.stirred <- struct{}{}:
	default: // it is going to
	}
}
