package engine

import (
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/accesslog"
	"github.com/skeinlb/skein/engine/plan"
)

// Stats is a copy of what the engine has counted since it started, by the configuration in force. What a frontend, backend or
// server counted goes with it when it is removed.
type Stats struct {
	Frontends []FrontendStats
	Backends  []BackendStats
	Limits    []LimitStats
	Loops     []LoopStats

	Handshakes int // of TLS, that go on or wait for their turn
	Log        accesslog.Stats
}

// FrontendStats is one frontend. Failures count what its clients did not get, by reason.
type FrontendStats struct {
	Name string
	Mode config.Mode
	plan.Totals
}

// BackendStats is one backend. Retries counts requests that were tried on another server.
type BackendStats struct {
	Name    string
	Usable  int   // servers that take new clients
	Panic   bool  // fewer than minimum_healthy are well, and health is ignored
	Waiting int64 // clients in queues, of all loops
	Balance plan.BalanceTotals
	Servers []ServerStats
	plan.Totals
}

// ServerStats is one server. Failures count what it did wrong, by reason.
type ServerStats struct {
	Name         string
	Usable       bool // says health
	Admin        plan.Admin
	Weight       int       // in force
	Ramp         int       // percent of Weight that it has got to: 100, but for a slow start
	EjectedUntil time.Time // zero: it is not ejected
	Ejections    uint64
	Active       int64 // requests and sessions under way
	Open         int64 // connections, unused ones included
	plan.Totals
}

// LimitStats is one limit. Refused counts requests and connections since its accounts were made.
type LimitStats struct {
	Name    string
	Refused uint64
}

// LoopStats is one event loop.
type LoopStats struct {
	Clients    int64 // connections
	Servers    int64 // connections, unused ones included
	Waiting    int64 // clients in queues
	Iterations uint64
	Events     uint64
	Sleeps     uint64
	Naps       uint64 // moments waited for more events to come
	Posts      uint64
	PostsFull  uint64
	Pauses     uint64 // of accepting, for lack of descriptors
	Busy       time.Duration
}

// Stats returns what has been counted. The numbers are right one by one; they are not of one instant.
func (e *Engine) Stats() Stats {
	p := e.plan.Load()
	st := Stats{Handshakes: e.shared.Handshakes.Pending()}
	for _, f := range p.Frontends {
		st.Frontends = append(st.Frontends, FrontendStats{Name: f.Name, Mode: f.Mode, Totals: f.Stats.Totals()})
	}
	for _, b := range p.Backends {
		bs := BackendStats{
			Name: b.Name, Usable: b.Usable(), Panic: b.Room.Panic.Load(), Waiting: b.Room.Waiting.Load(), Balance: b.Room.Stats.Totals(),
			Totals: b.Stats.Totals(),
		}
		for _, s := range b.Servers {
			var ejected time.Time
			if until := s.EjectedUntil.Load(); until != 0 {
				ejected = e.base.Add(time.Duration(until))
			}
			bs.Servers = append(bs.Servers, ServerStats{
				EjectedUntil: ejected,
				Name:         s.Name,
				Usable:       s.Usable.Load(),
				Admin:        plan.Admin(s.Admin.Load()),
				Weight:       int(s.EffectiveWeight()),
				Ramp:         int(s.Ramp.Load()),
				Ejections:    s.Ejections.Load(),
				Active:       s.Active.Load(),
				Open:         s.Open.Load(),
				Totals:       s.Stats.Totals(),
			})
		}
		st.Backends = append(st.Backends, bs)
	}
	for _, c := range p.Config.Limits {
		st.Limits = append(st.Limits, LimitStats{c.Name, p.Limit(c.Name).Refused()})
	}
	for _, w := range e.workers {
		ls := LoopStats{Clients: w.Connections(), Servers: w.ToServers(), Waiting: w.Waiting(), Pauses: w.Pauses()}
		load := w.Load()
		ls.Iterations, ls.Events, ls.Sleeps = load.Iterations.Load(), load.Events.Load(), load.Sleeps.Load()
		ls.Naps = load.Naps.Load()
		ls.Posts, ls.PostsFull = load.Posts.Load(), load.PostsFull.Load()
		ls.Busy = time.Duration(load.BusyNanos.Load())
		st.Loops = append(st.Loops, ls)
	}
	st.Log = e.access.Stats()
	return st
}
