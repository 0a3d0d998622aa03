package plan

import (
	"net/netip"
	"sync/atomic"
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
	MaxConnections int64 // 0: no limit

	*Live
}

// Live is what a server keeps from plan to plan while its backend, name and address stay the same. Any loop may use it.
type Live struct {
	// Written by the control plane, read by every pick.
	Usable         atomic.Bool   // health says so; a new server is believed at first
	Admin          atomic.Uint32 // an Admin
	WeightOverride atomic.Int32  // outranks Weight; -1: none
	_              [52]byte

	// Written by all loops.
	Active atomic.Int64 // requests and sessions under way: what least_conn compares
	Open   atomic.Int64 // connections, idle ones included: what max_connections bounds
	_      [48]byte

	Stats Stats

	// Local[i] belongs to loop i, for what it keeps per server: its idle connections, say.
	Local [MaxLoops]any
}

func newLive() *Live {
	l := new(Live)
	l.Usable.Store(true)
	l.WeightOverride.Store(-1)
	return l
}

// EffectiveWeight is the weight in force.
func (s *Server) EffectiveWeight() int32 {
	if w := s.WeightOverride.Load(); w >= 0 {
		return w
	}
	return s.Weight
}

// share is s's share of new clients, 0 for none.
func (s *Server) share() int32 {
	if !s.Usable.Load() || Admin(s.Admin.Load()) != Enabled {
		return 0
	}
	return s.EffectiveWeight()
}

// TakesNew reports whether a client that belongs to nobody may go to s.
func (s *Server) TakesNew() bool { return s.share() > 0 }

// TakesStuck reports whether a client that belongs to s may still go there: draining servers and those of weight 0 keep theirs.
func (s *Server) TakesStuck() bool { return s.Usable.Load() && Admin(s.Admin.Load()) != Disabled }

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
