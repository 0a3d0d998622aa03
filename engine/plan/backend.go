package plan

import (
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/balance"
	"github.com/skeinlb/skein/engine/h1"
)

// Backend is a set of servers that can do the same work. Immutable but for its Room, its Stats, and what belongs to its loops.
type Backend struct {
	Name         string
	Balance      config.Balance
	Servers      []*Server
	StickyCookie *StickyCookie // at most one of the two
	StickyTable  *StickyTable
	CloseOnDown  bool
	Timeouts     config.BackendTimeouts
	Retries      Retries
	Queue        config.Queue
	MaxRequests  int64 // 0: no limit
	SlowStart    time.Duration
	MinHealthy   float64
	Room         *Room
	Stats        *Stats

	byID    map[uint64]*Server
	hash    *HashKey // nil: the balance is no hash
	seeds   []uint64 // of the servers' hashes
	counted bool     // Room.Entered is kept
	age     uint64   // plans before this one with the same Room
	roster  atomic.Pointer[roster]
	pickers [MaxLoops]*picker
	budget  [MaxLoops]Budget
}

// picker is one loop's turns and its scratch.
type picker struct {
	shares []int32 // of those who were not tried
	window []int32 // indexes of the servers that a pick looks at; parallel to the next three
	seen   []int32
	active []int64
	cost   []int64
	upto   []int64
	takers []int32
	next   int // turns of servers with even shares
	scale  int32
	turns  balance.RoundRobin
	least  balance.LeastConn
	fast   balance.LeastTime
	two    balance.Random
}

// Want is a client that looks for a server.
type Want struct {
	Loop   int
	Now    int64  // ns
	Hash   uint64 // of its key; see HashKey
	Hashed bool   // it has one
	Tried  uint64 // the Bit of every server to pass over
}

// Pick returns the server for a client that belongs to nobody, or nil when none may take it. Backups are for when no primary may
// take anybody: one that was merely tried does not count as gone.
func (b *Backend) Pick(w Want) *Server {
	for {
		s := b.pick(&w)
		if s == nil || s.TakesNew() {
			return s
		}
		// It changed a moment ago, or this is the plan of yesterday, to which a request holds on and which nobody refreshes.
		w.Tried |= s.Bit()
	}
}

func (b *Backend) pick(w *Want) *Server {
	r := b.roster.Load()
	if r.panic {
		b.Room.Stats.Panicked.Add(1)
	}
	switch len(r.takers) {
	case 0:
		return nil
	case 1:
		if s := b.Servers[r.takers[0]]; w.Tried&s.Bit() == 0 {
			return s
		}
		return nil
	}
	p := b.pickers[w.Loop]
	if p == nil || p.scale != r.scale {
		p = b.newPicker(w.Loop, r)
	}
	shares := r.shares
	if w.Tried != 0 {
		if shares = p.without(b, r, w.Tried); shares == nil {
			return nil
		}
	}
	i := balance.None
	switch {
	case b.hash != nil && w.Hashed:
		i = b.byKey(r, shares, w)
	case b.Balance == config.LeastConn && r.even:
		i = b.leastOf(p, r, shares)
	case b.Balance == config.LeastConn:
		b.look(p, r, shares)
		i = p.looked(p.least.Pick(p.seen, p.active))
	case b.Balance == config.LeastTime:
		b.look(p, r, shares)
		p.cost = p.cost[:0]
		for _, k := range p.window {
			p.cost = append(p.cost, balance.Latency(b.Servers[k].latency.Load()).Cost(w.Now))
		}
		i = p.looked(p.fast.Pick(p.seen, p.active, p.cost))
	case b.Balance == config.Random:
		i = b.ofTwo(p, r, w.Tried)
	case r.even:
		i = p.turn(r, shares)
	default:
		i = p.turns.Pick(shares)
	}
	if i == balance.None {
		// Of many servers those that were looked at are all tried.
		if i = p.turn(r, shares); i == balance.None {
			return nil
		}
	}
	return b.Servers[i]
}

// without returns the shares without those who were tried, nil when nobody is left.
func (p *picker) without(b *Backend, r *roster, tried uint64) []int32 {
	copy(p.shares, r.shares)
	left := false
	for _, k := range r.takers {
		if tried&b.Servers[k].Bit() != 0 {
			p.shares[k] = 0
		} else {
			left = true
		}
	}
	if !left {
		return nil
	}
	return p.shares
}

// turn is round robin among even shares: no need to look at all of them.
func (p *picker) turn(r *roster, shares []int32) int {
	for range r.takers {
		if p.next >= len(r.takers) {
			p.next = 0
		}
		i := int(r.takers[p.next])
		p.next++
		if shares[i] > 0 {
			return i
		}
	}
	return balance.None
}

// lookAt bounds the servers whose load one pick looks at; of more than that, each pick looks at the next so many. To be the least of
// 64 is as good as to be the least of all, and to look at 1,000 took 18 us.
const lookAt = 64

// look fills in the shares of the servers that this pick looks at, and what is under way on each.
func (b *Backend) look(p *picker, r *roster, shares []int32) {
	p.window = r.takers
	if n := len(r.takers); n > lookAt {
		p.window = p.takers[:0]
		for range lookAt { // round and round, so that all are looked at equally often
			if p.next >= n {
				p.next = 0
			}
			p.window = append(p.window, r.takers[p.next])
			p.next++
		}
	}
	p.seen, p.active = p.seen[:0], p.active[:0]
	for _, k := range p.window {
		p.seen = append(p.seen, shares[k])
		p.active = append(p.active, b.Servers[k].Active.Load())
	}
}

// looked turns a place in the window into a server's index.
func (p *picker) looked(i int) int {
	if i == balance.None {
		return i
	}
	return int(p.window[i])
}

// leastOf is least_conn among even shares: the first that is idle, or else the least loaded, from the one on whose turn it is.
func (b *Backend) leastOf(p *picker, r *roster, shares []int32) int {
	best, low, at := balance.None, int64(0), p.next
	for range min(len(r.takers), lookAt) {
		if at >= len(r.takers) {
			at = 0
		}
		i := int(r.takers[at])
		at++
		if shares[i] == 0 {
			continue
		}
		if n := b.Servers[i].Active.Load(); best == balance.None || n < low {
			best, low, p.next = i, n, at
			if n == 0 {
				break
			}
		}
	}
	return best
}

// ofTwo draws two servers and returns the one with less under way for its share.
func (b *Backend) ofTwo(p *picker, r *roster, tried uint64) int {
	takers, upto := r.takers, r.upto
	if tried != 0 {
		takers, upto = p.takers[:0], p.upto[:0]
		sum := int64(0)
		for _, k := range r.takers {
			if tried&b.Servers[k].Bit() == 0 {
				sum += int64(r.shares[k])
				takers, upto = append(takers, k), append(upto, sum)
			}
		}
	}
	x, y := p.two.Two(upto)
	i, j := takers[x], takers[y]
	if b.Servers[j].Active.Load()*int64(r.shares[i]) < b.Servers[i].Active.Load()*int64(r.shares[j]) {
		return int(j)
	}
	return int(i)
}

// byKey returns the server of the key's slot, or of the next slot whose server was not tried and, where there is a bound, has not
// more than its part of what is under way.
func (b *Backend) byKey(r *roster, shares []int32, w *Want) int {
	slot := r.table.Slot(w.Hash)
	most := 0.0 // per share
	if b.hash.bound > 0 {
		most = b.hash.bound * float64(b.Room.Entered.Load()) / float64(r.upto[len(r.upto)-1])
	}
	spare := balance.None
	for range probesPerServer * len(r.takers) {
		i := r.table.At(slot)
		if shares[i] > 0 {
			if most == 0 || float64(b.Servers[i].Active.Load()) < math.Ceil(most*float64(shares[i])) {
				return i
			}
			if spare == balance.None {
				spare = i
			}
		}
		slot = r.table.Next(slot)
	}
	if spare != balance.None {
		return spare
	}
	for _, k := range r.takers { // as good as impossible: the probes met none of those that are left
		if shares[k] > 0 {
			return int(k)
		}
	}
	return balance.None
}

// probesPerServer bounds the slots that are looked at for one key.
const probesPerServer = 16

// newPicker starts a loop's turns, each loop one turn further than the one before: else the first server would get the first
// request of all.
func (b *Backend) newPicker(loop int, r *roster) *picker {
	n := len(b.Servers)
	p := b.pickers[loop]
	if p == nil {
		p = &picker{
			shares: make([]int32, n), seen: make([]int32, 0, n), active: make([]int64, 0, n), cost: make([]int64, 0, n),
			upto: make([]int64, 0, n), takers: make([]int32, 0, n), next: loop % n,
		}
		p.two.Seed(uint64(loop) + HashName(b.Name))
		b.pickers[loop] = p
	}
	p.scale = r.scale
	p.turns.Restart()
	for range loop {
		p.turns.Pick(r.shares)
	}
	return p
}

// Key returns the hash of what the backend hashes requests by; see HashKey.Of. q is nil in TCP mode.
func (b *Backend) Key(q *h1.Request, client netip.Addr) (hash uint64, ok bool) {
	if b.hash == nil {
		return 0, false
	}
	return b.hash.Of(q, client)
}

// Enter counts a request or session of the backend where somebody wants to know, unless it has as many as it may. Exit is the end
// of what was counted.
func (b *Backend) Enter() (ok, counted bool) {
	if !b.counted {
		return true, false
	}
	for {
		n := b.Room.Entered.Load()
		if b.MaxRequests > 0 && n >= b.MaxRequests {
			return false, false
		}
		if b.Room.Entered.CompareAndSwap(n, n+1) {
			return true, true
		}
	}
}

// Exit is the end of what Enter has counted.
func (b *Backend) Exit() { b.Room.Entered.Add(-1) }

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

// Others says whether anybody but s, and but those that were tried, takes new clients.
func (b *Backend) Others(s *Server, tried uint64) bool {
	for _, k := range b.roster.Load().takers {
		if o := b.Servers[k]; o != s && tried&o.Bit() == 0 && o.TakesNew() {
			return true
		}
	}
	return false
}

// Takers calls f for the servers that serve new clients, backups only while they do, until it returns false.
func (b *Backend) Takers(f func(*Server) bool) {
	for _, k := range b.roster.Load().takers {
		if s := b.Servers[k]; s.TakesNew() && !f(s) {
			return
		}
	}
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
