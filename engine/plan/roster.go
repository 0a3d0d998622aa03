package plan

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/engine/balance"
)

// Room is what a backend keeps from plan to plan while its name stays the same. Any loop may use it.
type Room struct {
	Panic   atomic.Bool  // fewer servers are well than minimum_healthy says, and health is ignored
	Entered atomic.Int64 // requests and sessions under way, waiting ones included; see Backend.Enter
	Waiting atomic.Int64 // clients in the queues of all loops
	Stats   BalanceStats

	mu sync.Mutex
	// mu guards what Refresh writes, and the control plane's part of the servers' Live.
	opened bool   // Refresh has been called
	newest uint64 // age of the backend that was refreshed last
}

// roster is who takes new clients: health, admin states, weights, slow starts and panic come to one slice of numbers. It is made
// when one of them changes, and immutable: a pick loads a pointer.
type roster struct {
	shares []int32        // by server index; 0: takes nobody. Backups have one only while they serve
	takers []int32        // indexes of those with a share
	upto   []int64        // upto[i] is the sum of the shares of takers[:i+1]
	even   bool           // all shares are the same
	scale  int32          // by which weights were multiplied
	table  *balance.Table // of a hash, else nil
	panic  bool
}

// build makes the roster of what is known now. It changes nothing. A table that another roster has for the same servers with the same
// shares is used again: to make one takes a millisecond or two.
func (b *Backend) build(from *Backend) *roster {
	r := &roster{shares: make([]int32, len(b.Servers)), scale: 1}
	for _, s := range b.Servers {
		if s.Ramp.Load() != 100 {
			r.scale = 100
		}
	}
	var wanted, well [2]int // primaries, backups
	for _, s := range b.Servers {
		if s.wanted() > 0 {
			wanted[kind(s.Backup)]++
			if s.Well() {
				well[kind(s.Backup)]++
			}
		}
	}
	need := 1
	if b.MinHealthy > 0 {
		need = max(1, int(math.Ceil(b.MinHealthy*float64(wanted[0])-1e-9)))
	}
	// Primaries that are well; if there are too few of them, with the backups that are well; if there are none, and only where it
	// was asked for, everybody.
	var serve [2]bool
	switch {
	case well[0] >= need:
		serve[0] = true
	case well[1] > 0:
		serve = [2]bool{true, true}
	case b.MinHealthy > 0:
		r.panic = true
		serve = [2]bool{wanted[0] > 0, wanted[0] == 0}
	default:
		serve[0] = true
	}
	sum := int64(0)
	r.even = true
	for i, s := range b.Servers {
		w := s.wanted()
		if w == 0 || !serve[kind(s.Backup)] || !r.panic && !s.Well() {
			continue
		}
		if r.scale > 1 {
			w *= s.Ramp.Load()
		}
		sum += int64(w)
		r.even = r.even && w == r.shares[firstOf(r.takers, i)] || len(r.takers) == 0
		r.shares[i] = w
		r.takers = append(r.takers, int32(i))
		r.upto = append(r.upto, sum)
	}
	if b.hash == nil {
		return r
	}
	if from != nil {
		if old := from.roster.Load(); old != nil && slices.Equal(from.seeds, b.seeds) && slices.Equal(old.shares, r.shares) {
			r.table = old.table
		}
	}
	if r.table == nil {
		r.table = balance.NewTable(r.shares, b.seeds)
	}
	return r
}

func firstOf(list []int32, or int) int {
	if len(list) > 0 {
		return int(list[0])
	}
	return or
}

func kind(backup bool) int {
	if backup {
		return 1
	}
	return 0
}

// The course of a slow start.
const (
	rampFrom  = 10 // percent
	rampSteps = 20
	rampMin   = 100 * time.Millisecond // between two steps
)

// Refresh makes b's picks follow what has changed: it is to be called after every change of a server's health, admin state or
// weight, and again at the time that it returns (0: never), because slow starts and ejections go on by themselves. now is in
// nanoseconds. Any goroutine of the control plane may call it.
func (b *Backend) Refresh(now int64) (next int64) {
	room := b.Room
	room.mu.Lock()
	defer room.mu.Unlock()
	if b.age < room.newest { // who still has the former plan in hand must not tell the room what that one thinks
		return 0
	}
	room.newest = b.age
	soonest := func(at int64) {
		if next == 0 || at < next {
			next = at
		}
	}
	for _, s := range b.Servers {
		s.Bounded.Store(s.MaxConnections > 0)
		if until := s.EjectedUntil.Load(); until != 0 {
			if until <= now || s.Outlier == nil { // or a new configuration does not want it any more
				s.EjectedUntil.Store(0)
				s.fails.Store(0)
				s.back = now
			} else {
				soonest(until)
			}
		}
		serves := s.Well() && s.wanted() > 0
		if serves && !s.serving && room.opened && b.SlowStart > 0 {
			s.risen = now
		}
		s.serving = serves
		ramp := int32(100)
		if s.risen != 0 {
			if age := now - s.risen; !serves || age >= int64(b.SlowStart) {
				s.risen = 0
			} else {
				ramp = rampFrom + int32((100-rampFrom)*age/int64(b.SlowStart))
				soonest(now + int64(max(rampMin, b.SlowStart/rampSteps)))
			}
		}
		s.Ramp.Store(ramp)
	}
	room.opened = true
	r := b.build(b)
	room.Panic.Store(r.panic)
	b.roster.Store(r)
	return next
}

// Tended says that time alone may change who takes new clients.
func (b *Backend) Tended() bool {
	return b.SlowStart > 0 || len(b.Servers) > 0 && b.Servers[0].Outlier != nil
}
