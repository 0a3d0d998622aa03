package sticky

import (
	"sync"
	"sync/atomic"
)

// A table is a list of entries, oldest first, in pages, and 64 shards that find them.
//
//	shard 0..63 (by hash, a mutex each)          pages of 64 entries, no pointers in them
//	+---------------------------------+          +--------+--------+--------+-----
//	| index: hash, position  ---------|--------> | entry  | entry  | (free) | ...   <- frozen ones are copied
//	| overlay: ring of what is learned|          +--------+--------+--------+-----     before they are written
//	+---------------------------------+            head ---- next/prev ----> tail
//
// Only the applying goroutine changes entries, links, pages and indexes. It takes a shard's mutex while it changes that shard's
// index, or key, server or lifetime of an entry that the index refers to; a loop that holds the mutex may read those. Links are
// the applying goroutine's alone.
//
// A refreshed entry goes to the tail, so that the list is in the order of lifetimes (but for a while after the table's ttl was
// changed), expiry looks at the head alone, and "the oldest" is exact.
type table struct {
	// Immutable.
	id    uint64
	owner *Tables

	spec  atomic.Pointer[Spec]
	pages atomic.Pointer[[]atomic.Pointer[page]]

	// Owned by the applying goroutine; count and the counters are read by others.
	gens       []uint32 // by page: the generation in which it was last made writable
	gen        uint32   // raised by every freeze
	head, tail uint32   // of the list, none when empty
	free       uint32   // list of free entries, by next
	used       uint32   // entries ever taken from pages
	count      atomic.Int64
	counters   struct{ learned, moved, refreshed, lost, expired, evicted atomic.Uint64 }

	shards [shardCount]shard
}

const (
	shardBits  = 6
	shardCount = 1 << shardBits
	pageBits   = 6
	pageSize   = 1 << pageBits
	none       = ^uint32(0)
)

// entry is 40 bytes. With its share of an index (8 bytes a slot, three eighths to three quarters of them taken) and of what the
// allocator rounds a page up by, a committed entry costs 53 to 63 bytes.
type entry struct {
	key        Key
	server     uint64
	expires    uint64 // log time, milliseconds; live while expires > now
	prev, next uint32 // towards head, towards tail
}

type page [pageSize]entry

// shard is a part of a table, chosen by the top bits of a key's hash.
type shard struct {
	mu sync.Mutex
	// mu guards the following.
	index        index
	over         overlay
	hits, misses uint64
	_            [64]byte // keeps neighbours off each other's cache lines
}

func newTable(owner *Tables, s Spec) *table {
	t := &table{id: s.ID, owner: owner, head: none, tail: none, free: none}
	t.spec.Store(&s)
	pages := make([]atomic.Pointer[page], 4)
	t.pages.Store(&pages)
	return t
}

func (t *table) shard(h uint64) *shard { return &t.shards[h>>(64-shardBits)] }

// at returns the entry at pos for reading.
func (t *table) at(pos uint32) *entry {
	return &(*t.pages.Load())[pos>>pageBits].Load()[pos&(pageSize-1)]
}

// write returns the entry at pos for writing, after copying its page if a snapshot may still read it.
func (t *table) write(pos uint32) *entry {
	n := pos >> pageBits
	p := &(*t.pages.Load())[n]
	if t.gens[n] != t.gen {
		if t.owner.snapshots.Load() > 0 {
			c := *p.Load()
			p.Store(&c)
		}
		t.gens[n] = t.gen
	}
	return &p.Load()[pos&(pageSize-1)]
}

// take returns the position of an entry that is in nobody's use.
func (t *table) take() uint32 {
	if pos := t.free; pos != none {
		t.free = t.at(pos).next
		return pos
	}
	pos := t.used
	t.used++
	if n := int(pos >> pageBits); n == len(t.gens) {
		pages := *t.pages.Load()
		if n == len(pages) {
			bigger := make([]atomic.Pointer[page], 2*len(pages))
			for i := range pages {
				bigger[i].Store(pages[i].Load())
			}
			pages = bigger
			pages[n].Store(new(page))
			t.pages.Store(&bigger)
		} else {
			pages[n].Store(new(page))
		}
		t.gens = append(t.gens, t.gen)
	}
	return pos
}

// link puts the entry at pos at the tail.
func (t *table) link(pos uint32) {
	e := t.write(pos)
	e.prev, e.next = t.tail, none
	if t.tail != none {
		t.write(t.tail).next = pos
	} else {
		t.head = pos
	}
	t.tail = pos
}

func (t *table) unlink(pos uint32) {
	e := t.at(pos)
	prev, next := e.prev, e.next
	if prev != none {
		t.write(prev).next = next
	} else {
		t.head = next
	}
	if next != none {
		t.write(next).prev = prev
	} else {
		t.tail = prev
	}
}

// find returns the position of key's entry, or none. The shard's mutex is held, or the caller is the applying goroutine.
func (t *table) find(s *shard, key *Key, h uint64) uint32 {
	x := &s.index
	for i := x.start(h); ; i = x.after(i) {
		if i < 0 || x.slots[i].pos == none {
			return none
		}
		if x.slots[i].hash == uint32(h) && t.at(x.slots[i].pos).key == *key {
			return x.slots[i].pos
		}
	}
}

// put applies one entry of a batch. now is log time.
func (t *table) put(key *Key, server uint64, move bool, prev, now uint64) {
	ttl := t.spec.Load().ttlMs()
	h := t.owner.hash(key)
	s := t.shard(h)
	pos := t.find(s, key, h)
	switch {
	case pos == none:
		t.trim(now, trimPerInsert, 1)
		t.insert(key, h, server, now+ttl)
		t.counters.learned.Add(1)
	default:
		e := t.at(pos)
		live := e.expires > now
		switch {
		case live && e.server == server && 2*(e.expires-now) >= ttl:
			t.counters.lost.Add(1) // fresh enough; somebody else was faster
		case live && e.server != server && !(move && e.server == prev):
			server = e.server
			t.counters.lost.Add(1)
		default:
			switch {
			case !live:
				t.counters.learned.Add(1)
			case e.server == server:
				t.counters.refreshed.Add(1)
			default:
				t.counters.moved.Add(1)
			}
			t.unlink(pos)
			t.link(pos)
			e = t.write(pos)
			s.mu.Lock()
			e.server, e.expires = server, now+ttl
			s.over.settle(t, key, h, server)
			s.mu.Unlock()
			return
		}
	}
	s.mu.Lock()
	s.over.settle(t, key, h, server)
	s.mu.Unlock()
}

// insert appends an entry for a key that has none.
func (t *table) insert(key *Key, h, server, expires uint64) {
	pos := t.take()
	e := t.write(pos)
	e.key, e.server, e.expires = *key, server, expires // nobody looks here before the index says so
	t.link(pos)
	s := t.shard(h)
	s.mu.Lock()
	s.index.add(t, pos, h)
	s.mu.Unlock()
	t.count.Add(1)
}

// trimPerInsert is more than one, so that a table that is too full shrinks while it is learned into.
const trimPerInsert = 2

// trim removes the oldest entries, at most n, while they have expired or leave no room for as many new ones.
func (t *table) trim(now uint64, n int, room int64) {
	size := int64(t.spec.Load().Size)
	for ; n > 0 && t.head != none; n-- {
		switch {
		case t.at(t.head).expires <= now:
			t.counters.expired.Add(1)
		case t.count.Load()+room > size:
			t.counters.evicted.Add(1)
		default:
			return
		}
		t.remove(t.head)
	}
}

func (t *table) remove(pos uint32) {
	key := t.at(pos).key
	h := t.owner.hash(&key)
	s := t.shard(h)
	s.mu.Lock()
	s.index.remove(t, pos, h)
	s.mu.Unlock()
	t.unlink(pos)
	t.write(pos).next = t.free
	t.free = pos
	t.count.Add(-1)
}

// close makes a table that was dropped forget what it has not proposed.
func (t *table) close() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		t.owner.pending.Add(-int64(s.over.queued))
		s.over = overlay{closed: true, dropped: s.over.dropped + uint64(s.over.queued)}
		s.mu.Unlock()
	}
}

// lookup is Lookup with the shard's mutex held.
func (s *shard) lookup(t *table, key *Key, h, now uint64) (uint64, bool) {
	if r := s.over.find(key, h); r != nil && r.expires > now {
		s.hits++
		return r.server, true
	}
	if pos := t.find(s, key, h); pos != none {
		if e := t.at(pos); e.expires > now {
			s.hits++
			if ttl := t.spec.Load().ttlMs(); 2*(e.expires-now) < ttl {
				s.over.push(t, record{key: *key, server: e.server, expires: e.expires, hash: uint32(h)})
			}
			return e.server, true
		}
	}
	s.misses++
	return 0, false
}

// learn is Learn with the shard's mutex held.
func (s *shard) learn(t *table, key *Key, h, server, now, ttlMs uint64) {
	r := record{key: *key, server: server, expires: now + ttlMs, hash: uint32(h)}
	if o := s.over.find(key, h); o != nil && o.expires > now {
		if o.server == server {
			return
		}
		if !o.sent {
			o.server = server
			return
		}
		r.prev, r.move = o.server, true
	} else if pos := t.find(s, key, h); pos != none {
		if e := t.at(pos); e.expires > now {
			if e.server == server {
				return
			}
			r.prev, r.move = e.server, true
		}
	}
	s.over.push(t, r)
}

func (t *table) stats() Stats {
	spec := t.spec.Load()
	st := Stats{
		ID: t.id, Name: spec.Name, TTL: spec.TTL, Size: spec.Size,
		Entries:   int(t.count.Load()),
		Learned:   t.counters.learned.Load(),
		Moved:     t.counters.moved.Load(),
		Refreshed: t.counters.refreshed.Load(),
		Lost:      t.counters.lost.Load(),
		Expired:   t.counters.expired.Load(),
		Evicted:   t.counters.evicted.Load(),
	}
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		st.Pending += s.over.queued
		st.Dropped += s.over.dropped
		st.Hits += s.hits
		st.Misses += s.misses
		s.mu.Unlock()
	}
	return st
}
