package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
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

// checkDatabase verifies a file before bbolt opens it: its length, its tree, the checksum of every entry and value, and that the log
// has no gap. The log is bounded (see snapshotBytes), so this takes a fraction of a second. A file that does not exist, or that a
// crash left empty right after it was made, is fine.
func checkDatabase(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lockShared(f); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() == 0 {
		return nil
	}
	if err := checkFile(f, fi.Size()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// lockShared makes sure that no other process writes the file meanwhile: bbolt locks it in the same way. Closing f unlocks it.
func lockShared(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	return err
}

func checkFile(f io.ReaderAt, size int64) error {
	p, err := openPages(f)
	if err != nil {
		return err
	}
	if size < p.length() {
		return fmt.Errorf("it is cut off: %d bytes of %d", size, p.length())
	}
	var last uint64
	return p.buckets(func(bucket, k, v []byte) error {
		switch {
		case bytes.Equal(bucket, bucketStable):
			_, err := decodeValue(k, v)
			return err
		case !bytes.Equal(bucket, bucketLog):
			return fmt.Errorf("bucket %q is not known", bucket)
		case len(k) != 8:
			return fmt.Errorf("a log key of %d bytes", len(k))
		}
		index := binary.BigEndian.Uint64(k)
		if last != 0 && index != last+1 {
			return fmt.Errorf("log entry %d follows %d", index, last)
		}
		last = index
		return decodeEntry(index, v, new(raft.Log))
	})
}

// checkSnapshots verifies that the newest snapshot is sound and that the log goes on where it ends. It returns the snapshot's index, 0
// if there is none. An older snapshot is no way out: the log behind it is gone.
func checkSnapshots(dir string, snaps raft.SnapshotStore, s *store) (uint64, error) {
	metas, err := snaps.List()
	if err != nil {
		return 0, err
	}
	first, last, _ := s.extent()
	if len(metas) == 0 {
		if first > 1 {
			return 0, fmt.Errorf("the log begins at %d and the snapshot with what came before it is missing", first)
		}
		return 0, nil
	}
	m := metas[0]
	if err := readSnapshot(snaps, m.ID); err != nil {
		return 0, fmt.Errorf("snapshot %s: %w", filepath.Join(dir, snapDir, m.ID), err)
	}
	if first > m.Index+1 {
		return 0, fmt.Errorf("snapshot %s ends at %d and the log runs from %d to %d: what is between them is missing", m.ID, m.Index, first, last)
	}
	return m.Index, nil
}

// readSnapshot verifies a snapshot: opening it reads all of it and compares the checksum.
func readSnapshot(snaps raft.SnapshotStore, id string) error {
	_, r, err := snaps.Open(id)
	if err != nil {
		return err
	}
	return r.Close()
}
