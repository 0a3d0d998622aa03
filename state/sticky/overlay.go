package sticky

// overlay is what a shard has learned and not yet seen committed: a ring in the order of learning, and an index over it.
//
//	head <= mid <= tail, tail - head <= len(ring) <= ringMax
//	[head, mid)  sent: handed out by Drain, on its way through the log
//	[mid, tail)  queued
//
// A record is dead once it is settled or superseded; it is then in no index, and goes when head reaches it. A sent record that
// never comes back (its batch was lost and nobody abandoned it) is overwritten when the ring is full, and ignored when its ttl
// is over.
type overlay struct {
	ring            []record
	slots           []uint16 // open addressing: 1 + place in the ring, 0 is empty; twice as many as the ring has
	head, mid, tail uint32   // counters; a record's place is the counter modulo len(ring)
	live            int      // records in the index
	queued          int      // live ones in [mid, tail)
	dropped         uint64
	closed          bool // the table is gone
}

// ringMax bounds what a shard can have pending: 64 shards hold 65,536 entries, which is more than a second of learning at the
// rate that the log carries. A full ring and its index take 52 KiB.
const (
	ringMin = 16
	ringMax = 1024
)

type record struct {
	key     Key
	server  uint64
	prev    uint64 // of a move: the server that it replaces
	expires uint64
	hash    uint32
	move    bool
	sent    bool
	dead    bool
}

func (o *overlay) place(n uint32) int { return int(n) & (len(o.ring) - 1) }

// slot returns the index's slot for key, or -1.
func (o *overlay) slot(key *Key, h uint64) int {
	if o.live == 0 {
		return -1
	}
	mask := len(o.slots) - 1
	for i := int(uint32(h)) & mask; o.slots[i] != 0; i = (i + 1) & mask {
		if r := &o.ring[o.slots[i]-1]; r.hash == uint32(h) && r.key == *key {
			return i
		}
	}
	return -1
}

// find returns key's record, or nil. It may be changed in place.
func (o *overlay) find(key *Key, h uint64) *record {
	if i := o.slot(key, h); i >= 0 {
		return &o.ring[o.slots[i]-1]
	}
	return nil
}

// push queues r in place of what stands for its key, or drops it when the ring is full of what was not even sent.
func (o *overlay) push(t *table, r record) {
	if o.closed {
		o.dropped++
		return
	}
	if i := o.slot(&r.key, uint64(r.hash)); i >= 0 {
		o.kill(t, i)
	}
	o.skipDead()
	if int(o.tail-o.head) == len(o.ring) {
		switch first := o.first(); {
		case len(o.ring) < ringMax:
			o.grow()
		case first != nil && first.sent:
			o.kill(t, o.slot(&first.key, uint64(first.hash)))
			o.skipDead()
		default:
			o.dropped++
			return
		}
	}
	at := o.place(o.tail)
	o.ring[at] = r
	o.index(at)
	o.tail++
	o.queued++
	t.owner.enqueued()
}

func (o *overlay) first() *record {
	if o.head == o.tail {
		return nil
	}
	return &o.ring[o.place(o.head)]
}

func (o *overlay) index(at int) {
	mask := len(o.slots) - 1
	i := int(o.ring[at].hash) & mask
	for o.slots[i] != 0 {
		i = (i + 1) & mask
	}
	o.slots[i] = uint16(at + 1)
	o.live++
}

func (o *overlay) grow() {
	old := *o
	o.ring = make([]record, max(ringMin, 2*len(old.ring)))
	o.slots = make([]uint16, 2*len(o.ring))
	o.live = 0
	for n := o.head; n != o.tail; n++ {
		r := old.ring[old.place(n)]
		o.ring[o.place(n)] = r
		if !r.dead {
			o.index(o.place(n))
		}
	}
}

// kill takes the record of an index slot out of everything but the ring.
func (o *overlay) kill(t *table, i int) {
	r := &o.ring[o.slots[i]-1]
	r.dead = true
	if !r.sent {
		o.queued--
		t.owner.pending.Add(-1)
	}
	o.live--
	mask := len(o.slots) - 1
	for j := (i + 1) & mask; o.slots[j] != 0; j = (j + 1) & mask {
		if home := int(o.ring[o.slots[j]-1].hash) & mask; (j-home)&mask >= (j-i)&mask {
			o.slots[i] = o.slots[j]
			i = j
		}
	}
	o.slots[i] = 0
}

func (o *overlay) skipDead() {
	for o.head != o.tail && o.ring[o.place(o.head)].dead {
		if o.mid == o.head {
			o.mid++
		}
		o.head++
	}
}

// settle takes note that server is now what is committed for key. Whatever was on its way or waiting for that key has lost or
// won; only a move away from that very server is still worth proposing.
func (o *overlay) settle(t *table, key *Key, h, server uint64) {
	i := o.slot(key, h)
	if i < 0 {
		return
	}
	if r := &o.ring[o.slots[i]-1]; !r.sent && r.move && r.prev == server && r.server != server {
		return
	}
	o.kill(t, i)
	o.skipDead()
}

// next hands out the oldest queued record, or nil.
func (o *overlay) next(t *table) *record {
	for o.mid != o.tail {
		r := &o.ring[o.place(o.mid)]
		o.mid++
		if !r.dead {
			r.sent = true
			o.queued--
			t.owner.pending.Add(-1)
			return r
		}
	}
	return nil
}
