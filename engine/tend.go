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
			e.refresh(b)
			e.tell(func(w *proxy.Worker) { w.Rouse() })
		}
	}
}

// refreshAll brings the backends of the plan up to date where time alone changes them, and returns when to come again; 0: never.
func (e *Engine) refreshAll() (next int64) {
	for _, b := range e.plan.Load().Backends {
		if !b.Tended() {
			continue
		}
		usable := b.Usable()
		if at := e.refresh(b); at != 0 && (next == 0 || at < next) {
			next = at
		}
		if b.Usable() != usable {
			e.log.Info("servers are back", "backend", b.Name, "usable", b.Usable())
			e.tell(func(w *proxy.Worker) { w.Rouse() })
		}
	}
	return next
}

// refresh makes b's picks follow what has changed, and returns when time alone will change them again; 0: never.
func (e *Engine) refresh(b *plan.Backend) (next int64) {
	was := b.Room.Panic.Load()
	next = b.Refresh(e.now())
	switch is := b.Room.Panic.Load(); {
	case is && !was:
		e.log.Error("too few servers are well: their health is ignored from now on", "backend", b.Name, "minimum_healthy", b.MinHealthy)
	case was && !is:
		e.log.Info("enough servers are well: their health counts again", "backend", b.Name)
	}
	return next
}

// changed makes the plan in force follow a change of a server: it may have come into force since the server was looked up.
func (e *Engine) changed(backend string) {
	if b := e.plan.Load().Backend(backend); b != nil {
		e.refresh(b)
		e.stir()
	}
}

// stir has tend look again.
func (e *Engine) stir() {
	select {
	case e.stirred <- struct{}{}:
	default: // it is going to
	}
}
