package sim

import (
	"errors"
	"sync"
	"time"
)

// disk is a node's disk, as far as it can fail.
type disk struct {
	mu     sync.Mutex
	broken bool
	takes  time.Duration // each synced write
}

var errDisk = errors.New("input/output error")

func (d *disk) sync() error {
	d.mu.Lock()
	takes := d.takes
	d.mu.Unlock()
	time.Sleep(takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return errDisk
	}
	return nil
}

func (d *disk) fail()                    { d.mu.Lock(); d.broken = true; d.mu.Unlock() }
func (d *disk) slow(takes time.Duration) { d.mu.Lock(); d.takes = takes; d.mu.Unlock() }

func (d *disk) mend() { d.mu.Lock(); d.broken = false; d.mu.Unlock() }
