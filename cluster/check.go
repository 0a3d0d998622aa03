package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// ErrCorrupt is in the chain of every error about files that cannot be trusted. The message says what to do.
var ErrCorrupt = errors.New("the data of this node is damaged")

// corrupt says what is wrong and the way out. There is no repair: the other nodes have everything, and a node that guesses what
// its own log said could acknowledge twice.
func corrupt(dir, name string, cause error) error {
	return fmt.Errorf("%w: %w\n"+
		"  nothing was changed. Move %s away, and let this node join again as a new one:\n"+
		"    on another node:  skein node remove %s --yes && skein cluster token\n"+
		"    here:             mv %s %s.damaged && skein cluster join ADDRESS --token TOKEN",
		ErrCorrupt, cause, dir, name, dir, dir)
}

// checkDatabase looks at a bbolt file before bbolt does. bbolt maps the file and trusts its newest meta page: of a truncated file
// it would touch pages that are not there, and the kernel answers with SIGBUS. A file that does not exist is fine.
func checkDatabase(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	need, err := databaseSize(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if fi.Size() < need {
		return fmt.Errorf("%s is cut off: %d bytes of %d", path, fi.Size(), need)
	}
	return nil
}

// databaseSize reads the two meta pages (bbolt's internal/common/meta.go) and returns the size that the newer valid one implies.
func databaseSize(f io.ReaderAt) (int64, error) {
	const (
		magic    = 0xED0CDAED
		version  = 2
		pageHead = 16
		metaSize = 64
	)
	var newest uint64
	var size int64
	read := func(at int64) (pageSize int64) {
		var b [metaSize]byte
		if _, err := f.ReadAt(b[:], at+pageHead); err != nil {
			return 0
		}
		h := fnv.New64a()
		h.Write(b[:metaSize-8])
		le := binary.NativeEndian
		if le.Uint32(b[0:]) != magic || le.Uint32(b[4:]) != version || le.Uint64(b[56:]) != h.Sum64() {
			return 0
		}
		pageSize = int64(le.Uint32(b[8:]))
		if txid := le.Uint64(b[48:]); txid >= newest {
			newest, size = txid, int64(le.Uint64(b[40:]))*pageSize
		}
		return pageSize
	}
	if pageSize := read(0); pageSize > 0 {
		read(pageSize)
		return size, nil
	}
	// The first meta page is torn: the second one is at a page boundary that only the page size knows.
	for pageSize := int64(1024); pageSize <= 64<<10; pageSize *= 2 {
		if read(pageSize) == pageSize {
			return size, nil
		}
	}
	return 0, errors.New("neither of the two meta pages is valid")
}

// guarded runs f and turns what a damaged file does to bbolt (a failed assertion, a fault in the memory map) into an error.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return f()
}

// checkLog reads every entry: checksums, and no gap. The log is bounded (see snapshotBytes), so this is a fraction of a second.
func (s *store) checkLog() error {
	return s.db.View(func(tx *bolt.Tx) error {
		var want uint64
		var l raft.Log
		var size uint64
		c := tx.Bucket(bucketLog).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if len(k) != 8 {
				return fmt.Errorf("a log key of %d bytes", len(k))
			}
			index := binary.BigEndian.Uint64(k)
			if want != 0 && index != want {
				return fmt.Errorf("log entries %d to %d are missing", want, index-1)
			}
			if err := decodeEntry(index, v, &l); err != nil {
				return err
			}
			want = index + 1
			size += uint64(len(v))
		}
		s.size = size
		s.written.Store(size)
		return nil
	})
}

// checkSnapshots reads the snapshots that a restart may need and says whether they and the log together hold everything. It
// returns the index of the newest sound one, 0 if there is none.
func checkSnapshots(dir string, snaps raft.SnapshotStore, s *store) (uint64, error) {
	metas, err := snaps.List()
	if err != nil {
		return 0, err
	}
	first, last := s.first, s.last
	var bad error
	for _, m := range metas {
		if err := readSnapshot(snaps, m.ID); err != nil {
			bad = errors.Join(bad, fmt.Errorf("snapshot %s: %w", filepath.Join(dir, "snapshots", m.ID), err))
			continue
		}
		if first == 0 || first <= m.Index+1 {
			if first == 0 && bad != nil {
				break // an older snapshot and no log: what the damaged one held is lost
			}
			return m.Index, nil
		}
		return 0, errors.Join(bad, fmt.Errorf("snapshot at %d, but the log runs from %d to %d: what is between them is missing", m.Index, first, last))
	}
	if bad != nil {
		return 0, bad
	}
	if first > 1 {
		return 0, fmt.Errorf("the log begins at %d and the snapshot with what came before it is missing", first)
	}
	return 0, nil
}

// readSnapshot reads a snapshot to its end; opening it verifies its checksum.
func readSnapshot(snaps raft.SnapshotStore, id string) error {
	m, r, err := snaps.Open(id)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != m.Size {
		err = fmt.Errorf("%d bytes of %d", n, m.Size)
	}
	return err
}
