package lab

import (
	"context"
	"os"
	"sync"
	"time"
)

// DiskWatch writes and syncs a file again and again, to tell for how long a disk kept everybody waiting: what must be on the disk before it
// counts is then late, whoever writes it. Its zero value with a Path is ready.
type DiskWatch struct {
	Path string

	mu sync.Mutex
	// mu guards the following.
	begun time.Time // of the sync under way; zero: none
	syncs []synced
}

type synced struct {
	at   time.Time // its end
	took time.Duration
}

const (
	diskEvery = 200 * time.Millisecond
	diskKept  = 4096 // syncs, at least ten minutes of them
)

// Run watches until ctx ends, and removes the file.
func (w *DiskWatch) Run(ctx context.Context) error {
	f, err := os.Create(w.Path)
	if err != nil {
		return err
	}
	defer os.Remove(w.Path)
	defer f.Close()
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		if err := w.sync(f); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *DiskWatch) sync(f *os.File) error {
	begun := time.Now()
	w.mu.Lock()
	w.begun = begun
	w.mu.Unlock()
	_, err := f.WriteAt([]byte(begun.String()), 0)
	if err == nil {
		err = f.Sync()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.syncs) == diskKept {
		w.syncs = append(w.syncs[:0], w.syncs[diskKept/2:]...)
	}
	w.begun, w.syncs = time.Time{}, append(w.syncs, synced{time.Now(), time.Since(begun)})
	return err
}

// Slowest is the longest that a sync took that ended since then, or goes on.
func (w *DiskWatch) Slowest(since time.Time) (d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun.IsZero() {
		d = time.Since(w.begun)
	}
	for _, s := range w.syncs {
		if s.at.After(since) {
			d = max(d, s.took)
		}
	}
	return d
}
