package cluster

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// fsmSnapshot writes a machine's snapshot without being in anybody's way: commits share the disk with it, and loops the processors.
type fsmSnapshot struct {
	s     Snapshot
	index uint64          // of its last command
	dir   string          // of the cluster's files
	hurry <-chan struct{} // closed: no more rests
}

func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	w := &calmWriter{w: sink, rest: s.rest}
	// The file that the sink writes, to send its pages on their way early. Without it the snapshot is the same, only less calm.
	if f, err := os.OpenFile(filepath.Join(s.dir, snapDir, sink.ID()+".tmp", "state.bin"), os.O_WRONLY, 0); err == nil {
		defer f.Close()
		w.flush = func() error { return writeBack(f) }
	}
	_, err := w.Write(binary.BigEndian.AppendUint64(nil, s.index))
	if err == nil {
		err = s.s.Persist(w)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if w.flush != nil {
		_ = w.flush() // Close syncs it, and reports what fails
	}
	return sink.Close()
}

func (s fsmSnapshot) Release() { s.s.Release() }

func (s fsmSnapshot) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.hurry:
	}
}

const (
	// calmChunk is written in about a millisecond.
	calmChunk = 256 << 10
	// calmShare: of the time, a snapshot in the making takes one part in this many. A million sticky entries are then written in
	// less than a second.
	calmShare = 4
)

// calmWriter writes in small steps, waits until the disk has each, and rests in between. Written at once, the 32 MB of a
// million sticky entries reach the disk in one sync, and every commit meanwhile waits for its end: 60 to 150 ms when measured.
type calmWriter struct {
	w     io.Writer
	flush func() error // nil: none
	rest  func(time.Duration)

	since   time.Time // when the present chunk began; zero: it is empty
	written int       // of the present chunk
}

func (c *calmWriter) Write(b []byte) (int, error) {
	var n int
	for len(b) > 0 {
		if c.since.IsZero() {
			c.since = time.Now()
		}
		part := b[:min(len(b), calmChunk-c.written)]
		m, err := c.w.Write(part)
		n += m
		c.written += m
		if err != nil {
			return n, err
		}
		b = b[len(part):]
		if c.written == calmChunk {
			if c.flush != nil {
				_ = c.flush() // the sync at the end reports what fails
			}
			c.rest((calmShare - 1) * time.Since(c.since))
			c.written, c.since = 0, time.Time{}
		}
	}
	return n, nil
}

// writeBack writes the file's dirty pages to the disk and waits for them, without a commit of the file system's journal, for
// which other files' syncs would have to wait.
func writeBack(f *os.File) error {
	return unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}
