package sticky

import (
	"encoding/binary"
	"fmt"
)

// A batch is what one command carries:
//
//	version 1 (1 byte), then for each table: ID (8), number of entries (2), entries:
//	flags (1; bit 0: move), key (16), server (8), and for a move: the server that it replaces (8)
//
// Integers are little-endian. An entry takes 25 or 33 bytes.
const (
	batchVersion = 1
	entrySize    = 1 + 16 + 8
	flagMove     = 1
)

// A batch stands in the log: whoever changes this, be it a flag, gives it the next version and the next level of state, and writes the version
// before until the cluster is at that level.

// Later reports the version of a batch that a later version of this program has written; 0: it is one of ours, or none.
func Later(batch []byte) byte {
	if len(batch) > 0 && batch[0] > batchVersion && batch[0] < 200 {
		return batch[0]
	}
	return 0
}

// MaxBatch is how many entries a batch may have. It bounds the work of one command to about a millisecond.
const MaxBatch = 4096

// Drain returns up to max of the entries that wait, oldest first within a shard, as a batch to propose. Nothing waits when n is
// 0. The batch comes back through Apply; one that is known to be lost goes to Abandon.
func (ts *Tables) Drain(max int) (batch []byte, n int) {
	if max <= 0 || ts.pending.Load() <= 0 {
		return nil, 0
	}
	max = min(max, MaxBatch)
	ts.drainMu.Lock()
	defer ts.drainMu.Unlock()
	set := ts.set.Load()
	batch = make([]byte, 0, 64+entrySize*min(max, int(ts.pending.Load())))
	batch = append(batch, batchVersion)
	for range set.order {
		if ts.nextTable >= len(set.order) {
			ts.nextTable = 0
		}
		t := set.order[ts.nextTable]
		head := len(batch)
		batch = binary.LittleEndian.AppendUint64(batch, t.id)
		batch = append(batch, 0, 0)
		count := 0
		for visited := 0; visited < shardCount && n+count < max; visited++ {
			s := &t.shards[ts.nextShard]
			s.mu.Lock()
			for n+count < max {
				r := s.over.next(t)
				if r == nil {
					break
				}
				batch = appendRecord(batch, r)
				count++
			}
			s.mu.Unlock()
			ts.nextShard = (ts.nextShard + 1) % shardCount
		}
		if count == 0 {
			batch = batch[:head]
		} else {
			binary.LittleEndian.PutUint16(batch[head+8:], uint16(count))
			n += count
		}
		if n >= max {
			break // the next Drain begins with this table again, at its next shard
		}
		ts.nextTable++
	}
	if n == 0 {
		return nil, 0
	}
	return batch, n
}

func appendRecord(b []byte, r *record) []byte {
	var flags byte
	if r.move {
		flags |= flagMove
	}
	b = append(b, flags)
	b = append(b, r.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.server)
	if r.move {
		b = binary.LittleEndian.AppendUint64(b, r.prev)
	}
	return b
}

// batchEntry is one entry as it stands in a batch.
type batchEntry struct {
	table  uint64
	key    Key
	server uint64
	prev   uint64
	move   bool
}

// walk calls f with each entry of a batch, and returns how many there are. What is not a batch is an error, found at the place
// where it stops to be one; f may be nil.
func walk(b []byte, f func(*batchEntry)) (n int, err error) {
	bad := func(what string) (int, error) { return 0, fmt.Errorf("sticky batch: %s: %w", what, ErrCorrupt) }
	if len(b) == 0 || b[0] != batchVersion {
		return bad("unknown version")
	}
	b = b[1:]
	var e batchEntry
	for len(b) > 0 {
		if len(b) < 10 {
			return bad("truncated table")
		}
		e.table = binary.LittleEndian.Uint64(b)
		count := int(binary.LittleEndian.Uint16(b[8:]))
		b = b[10:]
		if n += count; n > MaxBatch || count == 0 {
			return bad("number of entries")
		}
		for range count {
			if len(b) < entrySize {
				return bad("truncated entry")
			}
			if b[0]&^flagMove != 0 {
				return bad("unknown flags")
			}
			e.move = b[0]&flagMove != 0
			e.key = Key(b[1:17])
			e.server = binary.LittleEndian.Uint64(b[17:])
			b = b[entrySize:]
			e.prev = 0
			if e.move {
				if len(b) < 8 {
					return bad("truncated entry")
				}
				e.prev = binary.LittleEndian.Uint64(b)
				b = b[8:]
			}
			if f != nil {
				f(&e)
			}
		}
	}
	return n, nil
}

// Apply makes the entries of a committed batch true, in their order: the first to name a key's server wins, a move wins while
// what it replaces stands, and the same server again is a refresh when less than half of the lifetime is left. A corrupt batch
// is refused as a whole. Entries for a table that is gone are passed over. It returns how many entries the batch has.
func (ts *Tables) Apply(batch []byte, logTime uint64) (n int, err error) {
	if _, err := walk(batch, nil); err != nil {
		return 0, err
	}
	set := ts.set.Load()
	return walk(batch, func(e *batchEntry) {
		if t := set.byID[e.table]; t != nil {
			t.put(&e.key, e.server, e.move, e.prev, logTime)
		}
	})
}

// Abandon forgets the entries of a batch that Drain returned and that could not be proposed: their clients balance again. To
// abandon a batch that is committed after all does no harm.
func (ts *Tables) Abandon(batch []byte) {
	set := ts.set.Load()
	_, _ = walk(batch, func(e *batchEntry) { // Drain made it, it is well-formed
		t := set.byID[e.table]
		if t == nil {
			return
		}
		h := ts.hash(&e.key)
		s := t.shard(h)
		s.mu.Lock()
		if i := s.over.slot(&e.key, h); i >= 0 {
			if r := &s.over.ring[s.over.slots[i]-1]; r.sent && r.server == e.server {
				s.over.kill(t, i)
				s.over.skipDead()
				s.over.dropped++
			}
		}
		s.mu.Unlock()
	})
}
