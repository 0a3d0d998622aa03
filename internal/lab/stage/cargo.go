package stage

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/skeinlb/skein/internal/lab"
)

// What a Cargo consists of.
const (
	Active = 25 // connections with a request every 100 ms
	Idle   = 25 // connections that were used once
	// A download takes so many bytes a second of an answer that is longer than any run.
	downloadRate  = 2_000_000
	downloadBytes = 1_000_000_000
	// An answer that takes longer is lost.
	patience = 2 * time.Second
)

// Cargo is what clients have open when something happens. Only one goroutine may use it.
type Cargo struct {
	active   []*lab.Load
	idle     []*lab.Idler
	download *lab.Download
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu sync.Mutex
	// mu guards the following.
	errs []error
}

// Lost is what a Cargo has lost.
type Lost struct {
	Active, Idle int  // connections
	Download     bool // it broke off, or nothing comes any more
}

// Load opens all connections and waits until each has had an answer.
func (s *Stage) Load(ctx context.Context) (*Cargo, error) {
	front := netip.AddrPortFrom(VIP, FrontPort)
	begin := time.Now()
	running, stop := context.WithCancel(s.ctx)
	c := &Cargo{stop: stop, download: &lab.Download{Target: front, Path: fmt.Sprintf("/bytes/%d", downloadBytes), Rate: downloadRate}}
	run := func(f func(context.Context, *lab.Host) error) {
		c.running.Go(func() {
			if err := f(running, s.Client); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.errs = append(c.errs, err)
			}
		})
	}
	for range Active {
		l := &lab.Load{Target: front, KeepAlive: true, Every: 100 * time.Millisecond, Deadline: patience}
		c.active = append(c.active, l)
		run(l.Run)
	}
	run(c.download.Run)
	for range Idle {
		i := &lab.Idler{Target: front}
		if err := i.Open(s.Client); err != nil {
			c.Close()
			return nil, err
		}
		c.idle = append(c.idle, i)
	}
	err := Until(ctx, func() bool {
		return c.download.Report().Bytes > 0 &&
			!slices.ContainsFunc(c.active, func(l *lab.Load) bool { return len(l.Record.Since(begin)) == 0 })
	})
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("load the cargo: %w", errors.Join(err, c.err()))
	}
	return c, nil
}

func (c *Cargo) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}

// Unload ends the traffic and says what was lost since then. A connection that the other side closed in good order between two
// requests is not lost: servers do that, and clients know it.
func (c *Cargo) Unload(ctx context.Context, since time.Time) Lost {
	var lost Lost
	before := c.download.Report()
	wait, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	flows := before.Why == "" && Until(wait, func() bool { return c.download.Report().Bytes > before.Bytes }) == nil
	cancel()
	lost.Download = !flows
	c.stop()
	c.running.Wait()
	for _, l := range c.active {
		if slices.ContainsFunc(l.Record.Since(since), func(o lab.Outcome) bool { return !o.Good() }) {
			lost.Active++
		}
	}
	var mu sync.Mutex
	var looks sync.WaitGroup
	for _, i := range c.idle {
		looks.Go(func() {
			what := i.Look()
			if what == lab.IdleOpen {
				if _, err := i.Use(); err != nil {
					what = err.Error()
				}
			}
			if what != lab.IdleOpen && what != lab.IdleClosed {
				mu.Lock()
				defer mu.Unlock()
				lost.Idle++
			}
		})
	}
	looks.Wait()
	c.Close()
	return lost
}

// Close ends the traffic.
func (c *Cargo) Close() {
	c.stop()
	c.running.Wait()
	for _, i := range c.idle {
		i.Close()
	}
	c.idle = nil
}
