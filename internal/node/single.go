package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/sticky"
)

// Single is one node with one file and nothing else: no cluster, no guard, no log. Its frontends bind addresses that the host has.
// Sticky tables live in its memory.
type Single struct {
	// Immutable.
	file    string
	log     *slog.Logger
	engine  *engine.Engine
	checker *healthcheck.Checker
	tables  *sticky.Tables // driven here, as the replicated machine drives a cluster's

	mu sync.Mutex // one at a time: Reload, and the pump, which change tables
}

// OpenSingle reads the file and prepares to serve it. The diagnostics are the file's mistakes, warnings included.
func OpenSingle(file string, log *slog.Logger) (*Single, config.Diagnostics, error) {
	s := &Single{file: file, log: log, checker: healthcheck.New(log.With("part", "check")), tables: sticky.New()}
	var err error
	s.engine, err = engine.New(engine.Options{
		Log: log.With("part", "engine"), Sticky: s.tables,
		Failure: func(backend, server string, _ engine.Failure) {
			s.checker.Failed(healthcheck.Key{Backend: backend, Server: server})
		},
	})
	if err != nil {
		return nil, nil, err
	}
	diags, err := s.Reload()
	return s, diags, err
}

// Reload reads the file again and puts it into force. When anything is wrong, the old configuration goes on serving.
func (s *Single) Reload() (config.Diagnostics, error) {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return nil, err
	}
	c, diags := config.Parse(s.file, text)
	if diags.HasErrors() {
		return diags, fmt.Errorf("%s has mistakes; nothing was changed", s.file)
	}
	if len(c.VIPs) > 0 {
		return diags, fmt.Errorf("%s: vip %q needs a cluster to hold it: use bind = [\"address\"] in frontends with `skein run`, or found a "+
			"cluster with `skein cluster init`", s.file, c.VIPs[0].Name)
	}
	if err := s.engine.Apply(c); err != nil {
		return diags, err
	}
	s.checker.Set(healthcheck.Targets(c))
	for k, v := range s.checker.Verdicts().Get() {
		s.engine.SetUsable(k.Backend, k.Server, v.Up)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return diags, s.tables.Configure(state.ScopeOf(c).Tables)
}

// Listeners are the addresses that are served.
func (s *Single) Listeners() []engine.Listener { return s.engine.Listeners() }

// Run serves until ctx ends, then stops accepting and lets what is under way finish, for at most drain.
func (s *Single) Run(ctx context.Context, drain time.Duration) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var wg sync.WaitGroup
	ended := make(chan error, 1)
	wg.Go(func() { ended <- s.engine.Run(life) })
	wg.Go(func() { _ = s.checker.Run(life) })
	wg.Go(func() {
		s.checker.Verdicts().Each(life, func(verdicts map[healthcheck.Key]healthcheck.Verdict) {
			for k, v := range verdicts {
				s.engine.SetUsable(k.Backend, k.Server, v.Up)
			}
		})
	})
	wg.Go(func() { s.pump(life) })
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		dctx, cancel := context.WithTimeout(context.Background(), drain)
		if derr := s.engine.Drain(dctx); derr != nil {
			s.log.Info("drain ended early", "why", derr)
		}
		cancel()
	}
	end()
	wg.Wait()
	return err
}

// pump makes what the loops learned permanent and lets time pass.
func (s *Single) pump(ctx context.Context) {
	seconds := time.NewTicker(logTick)
	defer seconds.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.tables.Ready():
			s.settle()
		case now := <-seconds.C:
			s.settle()
			s.mu.Lock()
			s.tables.Advance(s.tables.LogTime() + uint64(now.Sub(last).Milliseconds()))
			s.mu.Unlock()
			last = now
		}
	}
}

// settle applies all that waits.
func (s *Single) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.tables.Pending() > 0 {
		batch, entries := s.tables.Drain(stickyBatch)
		if entries == 0 {
			return
		}
		if _, err := s.tables.Apply(batch, s.tables.LogTime()); err != nil {
			s.log.Error("sticky entries lost", "why", err) // a batch of our own making
		}
	}
}
