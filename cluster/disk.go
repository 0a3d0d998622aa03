package cluster

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/skeinlb/skein/internal/watch"
)

// ErrDisk is what everything that would have to be written gets after the first failed write.
var ErrDisk = errors.New("the disk failed a write: this node acknowledges nothing any more")

// disk is what is known about the disk. It goes from well to failed once and never back: after a failed fsync the kernel may have
// dropped the pages and reports success from then on, so that only a new start, which reads everything again, is believed.
type disk struct {
	state watch.Value[error] // nil: well

	mu sync.Mutex
	// mu guards the following.
	err   error
	since time.Time // of the write under way; zero: none
}

// refused returns the error that a write gets now, nil while the disk is well.
func (d *disk) refused() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// fail records the first failure and returns the error that the writer gets.
func (d *disk) fail(cause error) error {
	d.mu.Lock()
	first := d.err == nil
	if first {
		d.err = fmt.Errorf("%w: %w", ErrDisk, cause)
	}
	err := d.err
	d.mu.Unlock()
	if first {
		d.state.Set(err)
	}
	return err
}

func (d *disk) begin(now time.Time) {
	d.mu.Lock()
	d.since = now
	d.mu.Unlock()
}

func (d *disk) end() {
	d.mu.Lock()
	d.since = time.Time{}
	d.mu.Unlock()
}

// stalled returns for how long the write under way has been waiting.
func (d *disk) stalled(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.since.IsZero() {
		return 0
	}
	return now.Sub(d.since)
}

// SlowWrite is a synced write that took so long that elections go wrong for it: raft's candidates do not wait for a vote for longer
// than one to two seconds. Its zero value is none.
type SlowWrite struct {
	Took time.Duration
	At   time.Time // when it ended, or, of one that still waits, now
}

// slowWrite is how long a write takes at least to be one.
const slowWrite = raftTimeout

// latency keeps the newest write times, for people.
type latency struct {
	mu sync.Mutex
	// mu guards the following.
	ring [128]time.Duration
	n    int
	slow SlowWrite // the newest
}

func (l *latency) add(d time.Duration, now time.Time) {
	l.mu.Lock()
	l.ring[l.n%len(l.ring)] = d
	l.n++
	if d >= slowWrite {
		l.slow = SlowWrite{d, now}
	}
	l.mu.Unlock()
}

// newestSlow returns the newest slow write, of which one may still wait.
func (l *latency) newestSlow(waits time.Duration, now time.Time) SlowWrite {
	if waits >= slowWrite {
		return SlowWrite{waits, now}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slow
}
