package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// store is raft's log and stable store in one bbolt file. An entry's key is its index, big-endian, so that a cursor walks the log
// in order; what is kept carries checksums of its own, because bbolt has none on its data pages. An entry:
//
//	0      4      5       13      21           25        25+n
//	| crc  | type | term  | at    | n (data)   | data ... | extensions ... |
//
// Invariants: indexes are contiguous (raft is told so by IsMonotonic); after the first failed write nothing is ever written again,
// because after a failed fsync nobody knows what is on the disk; the commit index is written together with entries only.
type store struct {
	db    *bolt.DB
	disk  *disk
	clock func() time.Time
	// commit is db.Update; tests put a failing disk in its place.
	commit func(func(*bolt.Tx) error) error

	written atomic.Uint64 // bytes of entries since the last snapshot that they made due
	latency latency

	mu sync.Mutex
	// mu guards the following.
	first, last uint64                // 0, 0: empty
	size        uint64                // bytes of all entries
	recent      [recentLogs]*raft.Log // the newest entries, by index modulo; what raft sends and applies is nearly always here
	staged      uint64                // the commit index that goes with the next entries
	terms       terms                 // that go with the next write
}

var (
	bucketLog    = []byte("log")
	bucketStable = []byte("stable")
	keyCommit    = []byte("skein.commit")
	keyFormat    = []byte("skein.format")
)

// storeFormat is written into a new file and checked in an old one.
const storeFormat = 1

const (
	entryHead = 25
	// deleteChunk bounds one transaction of a truncation. 50,000 entries in one transaction stalled writes for 76 ms (measured); this
	// many take about a millisecond, and writes get their turn between two of them.
	deleteChunk = 1000
	recentLogs  = 512
	recentMax   = 64 << 10 // bytes of data; a longer entry is read from the file when it is needed
)

var (
	errBusy     = errors.New("another skein agent uses it")
	errFormat   = errors.New("written by another version of skein")
	errStoreKey = errors.New("not found") // raft compares the text
	crcTable    = crc32.MakeTable(crc32.Castagnoli)
)

// openStore opens or creates the file, which must have passed checkDatabase.
func openStore(path string, d *disk) (*store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true, // 100,000 free pages: 1.46 -> 0.28 ms per commit, 20 ms more at the next start (measured)
		FreelistType:   bolt.FreelistMapType,
		NoStatistics:   true,
	})
	if err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			return nil, fmt.Errorf("open %s: %w", path, errBusy)
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &store{db: db, disk: d, clock: time.Now, commit: db.Update}
	if err := s.prepare(); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

// prepare makes the buckets and reads what is kept in memory.
func (s *store) prepare() error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(bucketLog); err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists(bucketStable)
		if err != nil {
			return err
		}
		v := b.Get(keyFormat)
		if v == nil {
			return b.Put(keyFormat, encodeValue(keyFormat, binary.BigEndian.AppendUint64(nil, storeFormat)))
		}
		if v, err = decodeValue(keyFormat, v); err == nil && (len(v) != 8 || binary.BigEndian.Uint64(v) != storeFormat) {
			err = fmt.Errorf("%w (format %x, this version knows %d)", errFormat, v, storeFormat)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketLog).Cursor()
		if k, _ := c.First(); k != nil {
			s.first = binary.BigEndian.Uint64(k)
			k, _ = c.Last()
			s.last = binary.BigEndian.Uint64(k)
		}
		for k, v := c.First(); k != nil; k, v = c.Next() {
			s.size += uint64(len(v))
		}
		s.written.Store(s.size)
		return nil
	})
}

// update runs one write transaction, unless the disk has failed before; when it fails now, it was the last one.
func (s *store) update(what string, f func(*bolt.Tx) error) error {
	if err := s.disk.refused(); err != nil {
		return err
	}
	start := s.clock()
	s.disk.begin(start)
	err := s.commit(f)
	s.disk.end()
	if err != nil {
		return s.disk.fail(fmt.Errorf("%s: %w", what, err))
	}
	end := s.clock()
	s.latency.add(end.Sub(start), end)
	return nil
}

// IsMonotonic tells raft that the log must have no gaps: it then clears the log after installing a snapshot.
func (s *store) IsMonotonic() bool { return true }

func (s *store) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, nil
}

func (s *store) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

func (s *store) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	r := s.recent[index%recentLogs]
	s.mu.Unlock()
	if r != nil && r.Index == index {
		*l = *r
		return nil
	}
	return s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketLog).Get(indexKey(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		return decodeEntry(index, v, l)
	})
}

func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends. When it returns nil, the entries have been synced.
func (s *store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.mu.Lock()
	last, staged, wait := s.last, s.staged, s.terms
	s.mu.Unlock()

	var size int
	err := s.update("write the log", func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = 0.9 // appended in order: leave little room for what never comes
		for _, l := range logs {
			if last != 0 && l.Index != last+1 {
				return fmt.Errorf("entry %d after entry %d", l.Index, last)
			}
			last = l.Index
			v := encodeEntry(l)
			size += len(v)
			if err := b.Put(indexKey(l.Index), v); err != nil {
				return err
			}
		}
		if err := wait.put(tx.Bucket(bucketStable)); err != nil || staged == 0 {
			return err
		}
		return tx.Bucket(bucketStable).Put(keyCommit, encodeValue(keyCommit, binary.BigEndian.AppendUint64(nil, min(staged, last))))
	})
	if err != nil {
		return err
	}
	s.written.Add(uint64(size))
	s.mu.Lock()
	if s.last = last; s.first == 0 { // a truncation may have moved it meanwhile
		s.first = logs[0].Index
	}
	s.size += uint64(size)
	s.terms.written(wait)
	for _, l := range logs {
		s.recent[l.Index%recentLogs] = nil
		if len(l.Data) <= recentMax {
			s.recent[l.Index%recentLogs] = l
		}
	}
	s.mu.Unlock()
	return nil
}

// extent returns the first and the last index (0, 0: empty) and the bytes of all entries.
func (s *store) extent() (first, last, size uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.last, s.size
}

// DeleteRange deletes min to max in chunks. A crash between two chunks leaves a log without gaps: a suffix goes from its end, a
// prefix from its beginning.
func (s *store) DeleteRange(lo, hi uint64) error {
	s.mu.Lock()
	first, last := s.first, s.last
	s.mu.Unlock()
	lo, hi = max(lo, first), min(hi, last)
	if first == 0 || lo > hi {
		return nil
	}
	prefix := lo == first
	if !prefix && hi != last {
		return fmt.Errorf("delete entries %d to %d: the log runs from %d to %d, this would leave a gap", lo, hi, first, last)
	}
	for lo <= hi {
		from, to := lo, hi
		if n := uint64(deleteChunk); prefix {
			to = min(hi, lo+n-1)
			lo = to + 1
		} else {
			if hi-lo >= n {
				from = hi - n + 1
			}
			hi = from - 1
		}
		var freed uint64
		err := s.update("truncate the log", func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketLog)
			for i := from; i <= to; i++ {
				freed += uint64(len(b.Get(indexKey(i))))
				if err := b.Delete(indexKey(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.size -= min(s.size, freed)
		for i, l := range s.recent {
			if l != nil && from <= l.Index && l.Index <= to {
				s.recent[i] = nil
			}
		}
		if prefix {
			s.first = to + 1
		} else {
			s.last = from - 1
		}
		if s.first > s.last {
			s.first, s.last = 0, 0
		}
		s.mu.Unlock()
	}
	return nil
}

// stageCommit remembers how far the log is known to be committed; the next entries take it to disk.
func (s *store) stageCommit(index uint64) {
	s.mu.Lock()
	s.staged = index
	s.mu.Unlock()
}

// commitIndex returns how far the log is known to be committed: never behind its end.
func (s *store) commitIndex() (uint64, error) {
	v, err := s.GetUint64(keyCommit)
	if errors.Is(err, errStoreKey) {
		return 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(v, s.last), err
}

func indexKey(i uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 8), i) }

func encodeEntry(l *raft.Log) []byte {
	v := make([]byte, 4, entryHead+len(l.Data)+len(l.Extensions))
	v = append(v, byte(l.Type))
	v = binary.BigEndian.AppendUint64(v, l.Term)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	v = binary.BigEndian.AppendUint64(v, uint64(at))
	v = binary.BigEndian.AppendUint32(v, uint32(len(l.Data)))
	v = append(v, l.Data...)
	v = append(v, l.Extensions...)
	binary.BigEndian.PutUint32(v, entrySum(l.Index, v[4:]))
	return v
}

// entrySum covers the index too: an entry under another entry's key is as wrong as a flipped bit.
func entrySum(index uint64, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(indexKey(index), crcTable), crcTable, rest)
}

// A value of the stable store is its checksum, then itself: a vote that reads as another one would be a second vote.
func encodeValue(key, val []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, crcTable), crcTable, val)
	return append(binary.BigEndian.AppendUint32(nil, sum), val...)
}

func decodeValue(key, v []byte) ([]byte, error) {
	if len(v) < 4 || crc32.Update(crc32.Checksum(key, crcTable), crcTable, v[4:]) != binary.BigEndian.Uint32(v) {
		return nil, fmt.Errorf("value %q: wrong checksum", key)
	}
	return v[4:], nil
}

func decodeEntry(index uint64, v []byte, l *raft.Log) error {
	if len(v) < entryHead {
		return fmt.Errorf("log entry %d: %d bytes, at least %d are needed", index, len(v), entryHead)
	}
	if got, want := entrySum(index, v[4:]), binary.BigEndian.Uint32(v); got != want {
		return fmt.Errorf("log entry %d: checksum %08x, %08x was written", index, got, want)
	}
	n := int64(binary.BigEndian.Uint32(v[21:]))
	if n > int64(len(v)-entryHead) {
		return fmt.Errorf("log entry %d: %d bytes of data in an entry of %d", index, n, len(v))
	}
	*l = raft.Log{Index: index, Type: raft.LogType(v[4]), Term: binary.BigEndian.Uint64(v[5:])}
	if at := int64(binary.BigEndian.Uint64(v[13:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	// The bytes belong to the memory map and live only as long as the transaction.
	rest := append([]byte(nil), v[entryHead:]...)
	l.Data = rest[:n:n]
	if int64(len(rest)) > n {
		l.Extensions = rest[n:]
	}
	return nil
}
