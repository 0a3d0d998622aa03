// Package stage sets the scene that every contender and every fault is measured in: a network with web servers, a client that opens
// fresh connections all the time, and a watcher that asks the wire who has the address.
//
// It knows nothing of who balances: skein, keepalived, anything that answers at the address. The one rule: it believes the client and the
// wire, never what a program says of itself.
package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/skeinlb/skein/internal/lab"
)

// VIP is the address that everything is about.
var VIP = netip.MustParseAddr("198.18.0.100")

// Ports of the web servers and of the frontend.
const (
	WebPort   = 8080
	FrontPort = 80
)

// Stage is a scene with traffic. Make it with New, call Open when the address is served. Only one goroutine may use it.
type Stage struct {
	World   *lab.World
	Servers []*lab.WebServer
	Client  *lab.Host
	Watch   *lab.ARPWatch
	Fresh   *lab.Load // a fresh connection every 5 ms, 250 ms for each request
	Control *lab.Load // straight to a web server: for how long the machine itself stood still
	Disk    lab.DiskWatch

	watcher *lab.Host
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	// mu guards the following.
	errs []error
}

// New builds the network: three web servers, the client, the watcher. The balancers are the contender's to add.
func New(log *slog.Logger) (_ *Stage, err error) {
	s := &Stage{Watch: &lab.ARPWatch{Addr: VIP}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if s.World, err = lab.New(log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.World.Close()
		}
	}()
	for _, name := range []string{"web1", "web2", "web3"} {
		h, err := s.World.AddHost(name)
		if err != nil {
			return nil, err
		}
		w, err := h.ServeHTTP(name, WebPort)
		if err != nil {
			return nil, err
		}
		s.Servers = append(s.Servers, w)
	}
	if s.Client, err = s.World.AddHost("client"); err != nil {
		return nil, err
	}
	if s.watcher, err = s.World.AddHost("watcher"); err != nil {
		return nil, err
	}
	front := netip.AddrPortFrom(VIP, FrontPort)
	s.Fresh = &lab.Load{Target: front}
	s.Control = &lab.Load{Target: s.Servers[0].Addr, KeepAlive: true, Every: 10 * time.Millisecond, Deadline: 10 * time.Second}
	s.run("the watcher", func(ctx context.Context) error { return s.Watch.Run(ctx, s.watcher) })
	s.run("the control client", func(ctx context.Context) error { return s.Control.Run(ctx, s.Client) })
	return s, nil
}

// Open starts the client.
func (s *Stage) Open() {
	s.run("the client", func(ctx context.Context) error { return s.Fresh.Run(ctx, s.Client) })
}

// WatchDisk watches the disk that path is on, with a file of that name.
func (s *Stage) WatchDisk(path string) {
	s.Disk.Path = path
	s.run("the disk's watcher", s.Disk.Run)
}

// run runs f until Close. What it says of its end is in Err.
func (s *Stage) run(who string, f func(context.Context) error) {
	s.running.Go(func() {
		if err := f(s.ctx); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.errs = append(s.errs, fmt.Errorf("%s: %w", who, err))
		}
	})
}

// Err says what went wrong with the stage itself, nil: nothing.
func (s *Stage) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// Close ends everything and takes the network down.
func (s *Stage) Close() error {
	s.stop()
	s.running.Wait()
	return errors.Join(s.World.Close(), s.Err())
}

// Holder is the name of the host that answers for the address, "" if nobody has within the last half second.
func (s *Stage) Holder() string { return s.Watch.Holder(s.World) }

// Host returns the host of that name, or nil.
func (s *Stage) Host(name string) *lab.Host {
	for _, h := range s.World.Hosts() {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Stalled is the longest that a request past the balancers took since then: for so long the machine itself stood still.
func (s *Stage) Stalled(since time.Time) (d time.Duration) {
	for _, o := range s.Control.Record.Since(since) {
		d = max(d, o.Took)
	}
	return d
}

// Until waits for something that can only be looked at.
func Until(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// Held is who answered for the address over a stretch of time.
type Held struct {
	Two, None time.Duration // how long more than one host answered, and nobody
	Longest   time.Duration // that two did, in one piece
	Switches  int           // from one holder to another
}

// Held works out who answered since then.
func (s *Stage) Held(since time.Time) (h Held) {
	_, h.Longest = s.Watch.TwoHolders(since)
	samples := s.Watch.Samples(since)
	last := ""
	for i, sample := range samples {
		if i+1 == len(samples) {
			break // its answers may be under way
		}
		span := samples[i+1].At.Sub(sample.At)
		switch len(sample.Holders) {
		case 0:
			h.None += span
		case 1:
			if now := s.World.HostOf(sample.Holders[0][:]); now != last {
				if last != "" {
					h.Switches++
				}
				last = now
			}
		default:
			h.Two += span
		}
	}
	return h
}

// Timeline says who answered when, one reign a line.
func (s *Stage) Timeline(since time.Time) string {
	text := ""
	for _, r := range s.Watch.Timeline(s.World, since) {
		text += fmt.Sprintf("  %8.1f ms  %v for %v\n", float64(r.From.Sub(since).Microseconds())/1000, r.Holders, r.To.Sub(r.From).Round(time.Millisecond))
	}
	return text
}
