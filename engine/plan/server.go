package plan

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/engine/balance"
)

// Admin is what an operator wants of a server. It outranks health.
type Admin uint32

const (
	Enabled  Admin = iota // takes new clients
	Drain                 // keeps its clients, takes no new ones
	Disabled              // takes nothing
)

func (a Admin) String() string {
	switch a {
	case Enabled:
		return "enabled"
	case Drain:
		return "drain"
	case Disabled:
		return "disabled"
	}
	return "unknown"
}

// Server is a server as one plan sees it. Immutable but for Live.
type Server struct {
	Backend        string
	Name           string
	ID             uint64 // FNV-1a 64 of Name; unique within the backend
	Addr           netip.AddrPort
	Index          int // in Backend.Servers
	Weight         int32
	Backup         bool
	MaxConnections int64    // 0: no limit
	Outlier        *Outlier // nil: traffic does not eject it

	*Live
	room *Room // of its backend
}

// Live is what a server keeps from plan to plan while its backend, name and address stay the same. Any loop may use it.
type Live struct {
	// Written by the control plane, which then calls Backend.Refresh.
	Usable         atomic.Bool   // health says so; a new server is believed at first
	Admin          atomic.Uint32 // an Admin
	WeightOverride atomic.Int32  // outranks Weight; -1: none

	// Written by Refresh and Eject.
	Ramp         atomic.Int32 // percent of its weight that it has got to: 100, but for slow starts
	Bounded      atomic.Bool  // the plan in force has a MaxConnections for it, whatever the plans say that are still in use
	EjectedUntil atomic.Int64 // by traffic; 0: not
	Ejections    atomic.Uint64
	_            [24]byte

	// Written by all loops.
	Active  atomic.Int64  // requests and sessions under way: what least_conn compares
	Open    atomic.Int64  // connections, idle ones included: what max_connections bounds
	latency atomic.Uint64 // a balance.Latency; least_time alone keeps it
	fails   atomic.Int32  // in a row; see Outlier
	since   atomic.Int64  // when they began
	_       [24]byte

	Stats Stats

	// Room.mu guards the following.
	serving bool  // took new clients when Refresh last looked
	risen   int64 // when its slow start began; 0: it is over
	repeats int   // ejections that followed one another
	back    int64 // when the last one ended

	// Local[i] belongs to loop i, for what it keeps per server: its idle connections, say.
	Local [MaxLoops]any
}

func newLive() *Live {
	l := new(Live)
	l.Usable.Store(true)
	l.WeightOverride.Store(-1)
	l.Ramp.Store(100)
	return l
}

// EffectiveWeight is the weight in force.
func (s *Server) EffectiveWeight() int32 {
	if w := s.WeightOverride.Load(); w >= 0 {
		return w
	}
	return s.Weight
}

// Well says that neither health nor traffic has anything against s.
func (s *Server) Well() bool { return s.Usable.Load() && s.EjectedUntil.Load() == 0 }

// wanted is the weight with which an operator wants s to take new clients, 0 for not at all.
func (s *Server) wanted() int32 {
	if Admin(s.Admin.Load()) != Enabled {
		return 0
	}
	return s.EffectiveWeight()
}

// TakesNew reports whether a client that belongs to nobody may go to s.
func (s *Server) TakesNew() bool { return s.wanted() > 0 && (s.Well() || s.room.Panic.Load()) }

// TakesStuck reports whether a client that belongs to s may still go there: draining servers and those of weight 0 keep theirs.
func (s *Server) TakesStuck() bool {
	return Admin(s.Admin.Load()) != Disabled && (s.Well() || s.room.Panic.Load())
}

// Bit is s's place in the mask of servers that were tried. Servers 64 apart share one; a retry passes over both then.
func (s *Server) Bit() uint64 { return 1 << (s.Index % 64) }

// Acquire reserves room for one more connection, or reports that s has all it may have. Release gives it back.
func (s *Server) Acquire() bool {
	if s.MaxConnections == 0 {
		s.Open.Add(1)
		return true
	}
	for {
		n := s.Open.Load()
		if n >= s.MaxConnections {
			return false
		}
		if s.Open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives back what Acquire reserved, when the connection is closed.
func (s *Server) Release() { s.Open.Add(-1) }

// Begin counts a request or session under way; End ends it.
func (s *Server) Begin() { s.Active.Add(1) }

// End is the end of what Begin began.
func (s *Server) End() { s.Active.Add(-1) }

// Answered notes how long s took to answer, for least_time.
func (s *Server) Answered(now int64, took time.Duration) {
	s.latency.Store(uint64(balance.Latency(s.latency.Load()).Observe(now, took)))
}

// Unanswered notes that a request got no answer, or one that says that the server cannot.
func (s *Server) Unanswered(now int64, took time.Duration) { s.Answered(now, max(took, failureCost)) }

// failureCost is what least_time makes of a failure: a server that fails at once must not seem to be the fastest.
const failureCost = time.Second
