// Package sticky holds the tables that keep a client on its server, the same on every node.
//
// The loops call Lookup and Learn; what was learned waits in bounded rings until Drain hands it out as a batch, and becomes
// true on all nodes when the batch comes back through the log to Apply. It proposes nothing itself, owns no goroutine and reads
// no clock. The one rule: what is committed is a function of the log alone; which shard, slot or ring a thing sits in never
// shows.
package sticky

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Key is what a client is known by.
type Key = [16]byte

// Spec is one table. It is part of the replicated state.
type Spec struct {
	ID   uint64
	Name string
	TTL  time.Duration // after the last refresh
	Size int           // entries; the oldest go first
}

// Bounds of a Spec.
const (
	MinTTL  = time.Second
	MaxTTL  = 366 * 24 * time.Hour
	MaxSize = 1 << 26 // 3.6 GB
	MaxName = 1024    // bytes
)

// Check returns what is wrong with s.
func (s Spec) Check() error {
	switch {
	case len(s.Name) > MaxName:
		return fmt.Errorf("sticky table %.20q...: its name is longer than %d bytes", s.Name, MaxName)
	case s.TTL < MinTTL || s.TTL > MaxTTL:
		return fmt.Errorf("sticky table %q: ttl %v is not between %v and %v", s.Name, s.TTL, MinTTL, MaxTTL)
	case s.Size < 1 || s.Size > MaxSize:
		return fmt.Errorf("sticky table %q: size %d is not between 1 and %d", s.Name, s.Size, MaxSize)
	}
	return nil
}

func (s Spec) ttlMs() uint64 { return uint64(s.TTL / time.Millisecond) }

// ID returns the ID of the table of a backend: FNV-1a, 64 bits, of its name.
func ID(backend string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(backend); i++ {
		h = (h ^ uint64(backend[i])) * 1099511628211
	}
	return h
}

// Tables are all sticky tables of a node. New makes them. Lookup, Learn, Drain, Abandon, Ready, Stats and the methods of a
// Snapshot may be called from any goroutine; Configure, Apply, Advance, Freeze and Restore from one at a time (Raft's apply).
type Tables struct {
	// Immutable. The seeds differ per process, so that nobody outside can choose keys that collide; they decide on places only.
	seed0, seed1 uint64
	ready        chan struct{} // has a token while something may be pending

	logTime atomic.Uint64            // milliseconds
	pending atomic.Int64             // queued in the rings of all tables
	set     atomic.Pointer[tableSet] // replaced as a whole

	snapshots atomic.Int32 // frozen and not yet released

	drainMu sync.Mutex
	// drainMu guards the following.
	nextTable, nextShard int // where the next Drain begins, so that no shard waits for ever
}

// tableSet is immutable; the tables in it are not.
type tableSet struct {
	byID  map[uint64]*table
	order []*table // by ID
}

// New returns Tables without a table.
func New() *Tables {
	var seed [16]byte
	rand.Read(seed[:]) // never fails
	ts := &Tables{
		seed0: binary.LittleEndian.Uint64(seed[:]),
		seed1: binary.LittleEndian.Uint64(seed[8:]),
		ready: make(chan struct{}, 1),
	}
	ts.set.Store(&tableSet{byID: map[uint64]*table{}})
	return ts
}

// hash is one round of a folded 64x64 multiplication, as in wyhash.
func (ts *Tables) hash(k *Key) uint64 {
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(k[:])^ts.seed0, binary.LittleEndian.Uint64(k[8:])^ts.seed1)
	h := hi ^ lo
	hi, lo = bits.Mul64(h^ts.seed1, 0x9e3779b97f4a7c15)
	return hi ^ lo
}

// Lookup returns the server of key: what this node learned last, committed or not, else what is committed. When less than half of
// the lifetime is left it queues a refresh. It does not allocate.
func (ts *Tables) Lookup(tableID uint64, key Key) (server uint64, ok bool) {
	t := ts.set.Load().byID[tableID]
	if t == nil {
		return 0, false
	}
	h := ts.hash(&key)
	now := ts.logTime.Load()
	s := t.shard(h)
	s.mu.Lock()
	server, ok = s.lookup(t, &key, h, now)
	s.mu.Unlock()
	return server, ok
}

// Learn remembers server for key, at once on this node, and elsewhere when its batch is committed. Over a committed entry that
// names another server it is a move ("I saw that one, now it is this one"), which wins only while what it saw still stands;
// over the same server it does nothing. The ttl bounds what is not yet committed; a committed entry lives as long as the
// table's Spec says, since nodes must agree on it while a configuration changes. When the ring is full, the entry is dropped
// and counted: the client merely balances again. It does not allocate but to grow a ring, seldom and up to its bound.
func (ts *Tables) Learn(tableID uint64, key Key, server uint64, ttl time.Duration) {
	t := ts.set.Load().byID[tableID]
	if t == nil { // its backend left the configuration a moment ago
		return
	}
	h := ts.hash(&key)
	now := ts.logTime.Load()
	s := t.shard(h)
	s.mu.Lock()
	s.learn(t, &key, h, server, now, uint64(max(ttl, 0)/time.Millisecond))
	s.mu.Unlock()
}

// Ready returns a channel that yields after something was learned. Whoever receives from it drains until Drain returns nothing.
func (ts *Tables) Ready() <-chan struct{} { return ts.ready }

// Pending returns how many entries wait to be drained.
func (ts *Tables) Pending() int { return int(ts.pending.Load()) }

// LogTime returns the log time that Advance set last, in milliseconds.
func (ts *Tables) LogTime() uint64 { return ts.logTime.Load() }

// enqueued counts what went into a ring and wakes the drainer at the first.
func (ts *Tables) enqueued() {
	if ts.pending.Add(1) == 1 {
		select {
		case ts.ready <- struct{}{}:
		default:
		}
	}
}

// Specs returns the specs of all tables, by ID.
func (ts *Tables) Specs() []Spec {
	set := ts.set.Load()
	specs := make([]Spec, len(set.order))
	for i, t := range set.order {
		specs[i] = *t.spec.Load()
	}
	return specs
}

// Configure makes the tables those of specs. A table that stays keeps its entries, one that shrank loses its oldest little by
// little with what is applied next, one that is gone is dropped. Nothing changes when a spec is wrong.
func (ts *Tables) Configure(specs []Spec) error {
	specs = slices.Clone(specs)
	slices.SortFunc(specs, func(a, b Spec) int { return cmp.Compare(a.ID, b.ID) })
	for i, s := range specs {
		if err := s.Check(); err != nil {
			return err
		}
		if i > 0 && specs[i-1].ID == s.ID {
			return fmt.Errorf("sticky tables %q and %q have the same ID", specs[i-1].Name, s.Name)
		}
	}
	old := ts.set.Load()
	next := &tableSet{byID: make(map[uint64]*table, len(specs))}
	for _, s := range specs {
		t := old.byID[s.ID]
		if t == nil {
			t = newTable(ts, s)
		} else {
			t.spec.Store(&s)
		}
		next.byID[s.ID] = t
		next.order = append(next.order, t)
	}
	ts.set.Store(next)
	for _, t := range old.order {
		if next.byID[t.id] == nil {
			t.close()
		}
	}
	return nil
}

// trimPerTick bounds what one Advance removes from a table: some milliseconds of work. Inserting removes too (see table.insert),
// so expiry keeps up with any rate of learning.
const trimPerTick = 8192

// Advance sets log time, which never goes back, and removes some of what has expired.
func (ts *Tables) Advance(logTime uint64) {
	if logTime > ts.logTime.Load() {
		ts.logTime.Store(logTime)
	}
	for _, t := range ts.set.Load().order {
		t.trim(ts.logTime.Load(), trimPerTick, 0)
	}
}

// ErrCorrupt is the reason for refusing a batch or a snapshot whose bytes make no sense.
var ErrCorrupt = errors.New("corrupt")

// Stats are one table's numbers. Entries is the same on every node; the rest is what this node counted since it started.
type Stats struct {
	ID   uint64
	Name string
	TTL  time.Duration
	Size int

	Entries   int    // committed, expired but not yet removed included
	Pending   int    // learned here and not yet drained
	Learned   uint64 // new entries committed
	Moved     uint64 // entries that changed their server
	Refreshed uint64
	Lost      uint64 // entries of batches that lost against one that stood
	Expired   uint64 // removed because of age
	Evicted   uint64 // removed because the table was full
	Dropped   uint64 // not queued because the ring was full, or abandoned
	Hits      uint64
	Misses    uint64
}

// Stats returns the numbers of all tables, by ID.
func (ts *Tables) Stats() []Stats {
	set := ts.set.Load()
	all := make([]Stats, len(set.order))
	for i, t := range set.order {
		all[i] = t.stats()
	}
	return all
}
