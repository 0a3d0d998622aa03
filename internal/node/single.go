package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/internal/metrics"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/cert"
	"github.com/skeinlb/skein/state/sticky"
)

// Single is one node with one file and nothing else: no cluster, no guard, no log. Its frontends bind addresses that the host has.
// Sticky tables live in its memory.
type Single struct {
	// Immutable.
	file    string
	certs   []CertificateFiles
	log     *slog.Logger
	engine  *engine.Engine
	checker *healthcheck.Checker
	tables  *sticky.Tables // driven here, as the replicated machine drives a cluster's
	started time.Time

	inForce atomic.Pointer[state.View] // configuration and certificates, nothing else; any goroutine may look

	mu sync.Mutex // one at a time: who changes tables, Reload and the pump; who tells verdicts
}

// CertificateFiles are the PEM files, chains and keys in any order, that are one certificate of a Single.
type CertificateFiles struct {
	Name  string
	Files []string
}

// OpenSingle reads the file and prepares to serve it. The diagnostics are the file's mistakes, warnings included.
func OpenSingle(file string, certs []CertificateFiles, log *slog.Logger) (*Single, config.Diagnostics, error) {
	s := &Single{file: file, certs: certs, log: log, checker: healthcheck.New(log.With("part", "check")), tables: sticky.New(), started: time.Now()}
	host, err := os.Hostname()
	if err != nil {
		return nil, nil, fmt.Errorf("ask for the host's name: %w", err)
	}
	s.engine, err = engine.New(engine.Options{
		Node: host, Log: log.With("part", "engine"), Sticky: s.tables,
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

// loadCertificates reads the certificates' files: for the engine, and without their keys.
func (s *Single) loadCertificates() (all []*engine.Certificate, shown []state.Certificate, err error) {
	for _, c := range s.certs {
		var files []cert.File
		for _, path := range c.Files {
			b, err := ReadFile(path)
			if err != nil {
				return nil, nil, fmt.Errorf("certificate %q: %w", c.Name, err)
			}
			files = append(files, cert.File{Name: path, PEM: b})
		}
		pairs, warnings, err := cert.Read(files, time.Now())
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %q: %w", c.Name, err)
		}
		for _, w := range warnings {
			s.log.Warn("certificate", "name", c.Name, "warning", w)
		}
		ready, err := certificate(c.Name, pairs)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, ready)
		c := state.Certificate{Name: c.Name}
		for _, p := range pairs {
			c.Pairs = append(c.Pairs, state.CertificatePair{Algorithm: p.Algorithm, Chain: p.Chain})
		}
		shown = append(shown, c)
	}
	return all, shown, nil
}

// Reload reads the file, and those of the certificates, again and puts them into force. When anything is wrong, the old configuration
// goes on serving.
func (s *Single) Reload() (config.Diagnostics, error) {
	text, err := ReadFile(s.file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c, diags := config.Parse(s.file, text)
	if diags.HasErrors() {
		return diags, fmt.Errorf("%s has mistakes; nothing was changed", s.file)
	}
	if len(c.VIPs) > 0 {
		return diags, fmt.Errorf("%s: vip %q needs a cluster to hold it: use bind = [\"address\"] in frontends with `skein run`, or found a "+
			"cluster with `skein cluster init`", s.file, c.VIPs[0].Name)
	}
	certs, shown, err := s.loadCertificates()
	if err != nil {
		return diags, err
	}
	if err := s.engine.SetCertificates(certs); err != nil {
		return diags, err
	}
	if err := s.engine.Apply(c); err != nil {
		return diags, err
	}
	s.inForce.Store(&state.View{Config: c, Certificates: shown})
	s.checker.Set(healthcheck.Targets(c))
	s.tellVerdicts()
	s.mu.Lock()
	defer s.mu.Unlock()
	return diags, s.tables.Configure(state.ScopeOf(c).Tables)
}

// tellVerdicts tells the engine the newest verdicts, never older ones after them.
func (s *Single) tellVerdicts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.checker.Verdicts().Get() {
		s.engine.SetUsable(k.Backend, k.Server, v.Up)
	}
}

// ServeMetrics shows on l what was counted, until ctx ends.
func (s *Single) ServeMetrics(ctx context.Context, l net.Listener, version string) error {
	return metrics.Serve(ctx, l, metrics.Handler(metrics.Sources{
		Version: version, Engine: s.engine.Stats, Alone: s.report,
		Certificates: func() []api.CertificateStatus { return api.Certificates(s.inForce.Load(), time.Now()) },
	}))
}

// report is what of a node's report needs no cluster, for the metrics.
func (s *Single) report() api.NodeReport {
	r := api.NodeReport{StartedAt: s.started, Tables: reportTables(s.tables)}
	verdicts := s.checker.Verdicts().Get()
	for _, t := range healthcheck.Targets(s.inForce.Load().Config) {
		v, seen := verdicts[t.Key]
		r.Servers = append(r.Servers, api.ServerReport{
			Backend: t.Backend, Server: t.Server, Checked: t.Check != nil, Up: v.Up || !seen, Since: v.Since, Why: v.Why, LatencyMs: millis(v.LastLatency),
		})
	}
	return r
}

// ReopenLog has the access log's file be opened anew, after it was moved away.
func (s *Single) ReopenLog() { s.engine.ReopenLog() }

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
		s.checker.Verdicts().Each(life, func(map[healthcheck.Key]healthcheck.Verdict) { s.tellVerdicts() })
	})
	wg.Go(func() { s.pump(life) })
	wg.Go(func() { s.turnTicketKeys(life) })
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

// turnTicketKeys makes keys for session tickets as the leader of a cluster would.
func (s *Single) turnTicketKeys(ctx context.Context) {
	var keys []engine.TicketKey
	turn := time.NewTicker(ticketLife)
	defer turn.Stop()
	for {
		keys = append([]engine.TicketKey{engine.TicketKey(cert.NewSealKey())}, keys...)
		keys = keys[:min(len(keys), ticketKeep)]
		if err := s.engine.SetTicketKeys(keys); err != nil {
			s.log.Warn("set session ticket keys", "err", err)
		}
		select {
		case <-turn.C:
		case <-ctx.Done():
			return
		}
	}
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
