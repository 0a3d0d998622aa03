package plan

import (
	"net/netip"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/balance"
)

// Backend is a set of servers that can do the same work. Immutable but for its Stats and the turns of its loops.
type Backend struct {
	Name         string
	Balance      config.Balance
	Servers      []*Server
	StickyCookie *StickyCookie // at most one of the two
	StickyTable  *StickyTable
	CloseOnDown  bool
	Timeouts     config.BackendTimeouts
	Retries      int
	Stats        *Stats

	byID    map[uint64]*Server
	seeds   []uint64 // of the servers' hashes
	pickers [MaxLoops]*picker
}

// picker is one loop's turns and its scratch.
type picker struct {
	shares []int32
	active []int64
	turns  balance.RoundRobin
	least  balance.LeastConn
}

// Pick returns the server for a client that belongs to nobody, or nil when none may take it. loop is the caller's number; hash
// (see HashAddr) matters to source_hash alone; tried has the Bit of every server to pass over. Backups are for when no primary
// may take anybody: one that was merely tried does not count as gone.
func (b *Backend) Pick(loop int, hash, tried uint64) *Server {
	if len(b.Servers) == 1 {
		if s := b.Servers[0]; tried == 0 && s.TakesNew() {
			return s
		}
		return nil
	}
	p := b.pickers[loop]
	if p == nil {
		p = b.newPicker(loop)
	}
	if !b.gather(p, tried, false) && !b.gather(p, tried, true) {
		return nil
	}
	i := balance.None
	switch b.Balance {
	case config.LeastConn:
		for i, s := range b.Servers {
			p.active[i] = s.Active.Load()
		}
		i = p.least.Pick(p.shares, p.active)
	case config.SourceHash:
		i = balance.Hash(p.shares, b.seeds, hash)
	default:
		i = p.turns.Pick(p.shares)
	}
	if i == balance.None {
		return nil
	}
	return b.Servers[i]
}

// gather fills in the shares of primaries or of backups and reports whether any of them takes new clients, tried or not.
func (b *Backend) gather(p *picker, tried uint64, backups bool) (some bool) {
	for i, s := range b.Servers {
		p.shares[i] = 0
		if s.Backup != backups {
			continue
		}
		if w := s.share(); w > 0 {
			some = true
			if tried&s.Bit() == 0 {
				p.shares[i] = w
			}
		}
	}
	return some
}

// newPicker starts a loop's turns, each loop one turn further than the one before: else the first server would get the first
// request of all.
func (b *Backend) newPicker(loop int) *picker {
	p := &picker{shares: make([]int32, len(b.Servers)), active: make([]int64, len(b.Servers))}
	if b.gather(p, 0, false) || b.gather(p, 0, true) {
		for range loop {
			p.turns.Pick(p.shares)
		}
	}
	b.pickers[loop] = p
	return p
}

// ByHash returns the server with that ID if it may still serve the clients that belong to it, else nil.
func (b *Backend) ByHash(id uint64) *Server {
	if s := b.byID[id]; s != nil && s.TakesStuck() {
		return s
	}
	return nil
}

// Server returns the server of that name, or nil.
func (b *Backend) Server(name string) *Server {
	for _, s := range b.Servers {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Usable returns how many servers take new clients, backups included.
func (b *Backend) Usable() int {
	n := 0
	for _, s := range b.Servers {
		if s.TakesNew() {
			n++
		}
	}
	return n
}

// HashAddr is the hash of a client's address for Pick, the same on every node.
func HashAddr(a netip.Addr) uint64 {
	b := a.As16() // an IPv4 address and its IPv6-mapped form are one
	h := uint64(fnvOffset)
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}

// FNV-1a, 64 bits.
const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)

// HashName is how names become IDs: FNV-1a 64.
func HashName(name string) uint64 {
	h := uint64(fnvOffset)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * fnvPrime
	}
	return h
}
