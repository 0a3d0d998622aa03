// Package engine is the data plane: it accepts, routes, balances and forwards HTTP/1.1 and TCP on one event loop per core.
//
// It is told what to do and knows no cluster, no Raft, no disk and no health checks. DESIGN.md holds its core principles; the
// one rule: no lock, no blocking call, no allocation and no long loop on the request path.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/accesslog"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/engine/proxy"
)

// Options of an engine. The zero value is useful.
type Options struct {
	Loops          int              // 0: one for each processor
	Log            *slog.Logger     // nil: nothing is logged
	Sticky         Sticky           // nil: backends with a sticky table balance every client anew
	Progress       []*atomic.Uint64 // one for each loop, see loop.Options; nil: none
	Node           string           // its name, for the access log
	FreeBind       bool             // listen on addresses that are not on this host (yet)
	MaxConnections int              // clients at once; 0: as many as there are descriptors
	Sockets        []Sockets        // what a former engine listens on, see Engine.Sockets; closed when the first configuration has no use for them

	// Failure, when set, hears of every connection to a server that did not come about, on a loop: it must not block.
	Failure func(backend, server string, kind Failure)
}

// Sticky is the tables that keep clients on their servers. Loops call it at the same time.
type Sticky = proxy.Sticky

// Failure is why a connection or a request did not get what it came for.
type Failure = plan.Failure

// Engine is the data plane of one node. Make it with New, give it a goroutine with Run, and a configuration with Apply; both
// in any order. Any goroutine may call its methods.
type Engine struct {
	// Immutable.
	opts    Options
	log     *slog.Logger
	workers []*proxy.Worker
	shared  *proxy.Shared
	access  *accesslog.Log

	base     time.Time     // from when now counts
	suspects chan suspect  // see maxSuspects
	stirred  chan struct{} // holds one: look again

	plan    atomic.Pointer[plan.Plan]
	running atomic.Bool // set once, under mu

	mu sync.Mutex
	// mu guards the following, and makes changes follow one another. It is not held while a loop works for a request.
	listeners map[addr]*listener
	inherited map[addr][]int          // Options.Sockets until the first configuration is in force
	certs     map[string]*Certificate // by name
	tickets   []TicketKey             // newest first
	draining  bool
	leaving   []netip.Addr
	ended     bool
}

// spareProcs is how many processors the scheduler needs beyond the loops: a loop that is busy blocks in raw system calls, and
// keeps its processor meanwhile. With none to spare, other goroutines would wait 10 ms at a time.
const spareProcs = 2

// New returns an engine that listens on nothing yet. It raises GOMAXPROCS to what its loops need.
func New(o Options) (*Engine, error) {
	if o.Loops == 0 {
		o.Loops = min(runtime.NumCPU(), plan.MaxLoops)
	}
	if o.Loops < 0 || o.Loops > plan.MaxLoops {
		return nil, fmt.Errorf("%d loops: there can be 1 to %d", o.Loops, plan.MaxLoops)
	}
	if o.Progress != nil && len(o.Progress) != o.Loops {
		return nil, fmt.Errorf("%d progress stamps for %d loops", len(o.Progress), o.Loops)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if need := o.Loops + spareProcs; runtime.GOMAXPROCS(0) < need {
		runtime.GOMAXPROCS(need)
	}
	e := &Engine{
		opts: o, log: o.Log, listeners: map[addr]*listener{},
		base: time.Now(), suspects: make(chan suspect, maxSuspects), stirred: make(chan struct{}, 1),
	}
	e.access = accesslog.New(accesslog.Options{Node: o.Node, Loops: o.Loops, Log: o.Log})
	shared := &proxy.Shared{
		Sticky: o.Sticky, Failure: o.Failure, Log: e.access, Start: e.base, Descriptors: descriptors(), MaxConnections: o.MaxConnections,
	}
	shared.Suspect = func(backend string, live *plan.Live) {
		select {
		case e.suspects <- suspect{backend, live}:
		default:
		}
	}
	for i := range o.Loops {
		var progress *atomic.Uint64
		if o.Progress != nil {
			progress = o.Progress[i]
		}
		w, err := proxy.New(i, shared, progress)
		if err != nil {
			return nil, fmt.Errorf("make loop %d: %w", i, err)
		}
		shared.Workers = append(shared.Workers, w)
	}
	e.workers, e.shared = shared.Workers, shared
	if err := e.inherit(o.Sockets); err != nil {
		return nil, err
	}
	empty, err := plan.Compile(&config.Config{}, nil)
	if err != nil {
		return nil, fmt.Errorf("compile the empty configuration: %w", err)
	}
	e.plan.Store(empty)
	return e, nil
}

// Run serves until ctx ends, then closes everything and returns when the last loop has ended. It can be called once.
func (e *Engine) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	e.mu.Lock()
	e.running.Store(true)
	e.mu.Unlock()
	for _, w := range e.workers {
		loops.Go(w.Run)
	}
	loops.Go(func() { e.tend(ctx) })
	writing, endLog := context.WithCancel(context.WithoutCancel(ctx))
	var log sync.WaitGroup
	log.Go(func() { e.access.Run(writing) })
	<-ctx.Done()
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	for _, w := range e.workers {
		w.Stop()
	}
	loops.Wait()
	e.shared.Handshakes.Close()
	endLog() // after the last line
	log.Wait()
	return nil
}

// ReopenLog has the access log's file be opened anew, after it was moved away.
func (e *Engine) ReopenLog() { e.access.Reopen() }

// errEnded is what a call gets that comes after Run has returned.
var errEnded = errors.New("the engine has ended")

// each has f run once for every loop, on it, and waits until it has. The caller holds e.mu: as long as the loops do not run,
// what is theirs is ours.
func (e *Engine) each(f func(*proxy.Worker) error) error {
	errs := make([]error, len(e.workers))
	if !e.running.Load() {
		for i, w := range e.workers {
			errs[i] = f(w)
		}
		return errors.Join(errs...)
	}
	var done sync.WaitGroup
	for i, w := range e.workers {
		done.Add(1)
		run := func() {
			errs[i] = f(w)
			done.Done()
		}
		if !post(w, run) {
			errs[i] = errEnded
			done.Done()
		}
	}
	done.Wait()
	return errors.Join(errs...)
}

// post has f run on w's loop. It returns false, without f, when that has ended.
func post(w *proxy.Worker, f func()) bool {
	for !w.Post(f) {
		if w.Ended() {
			return false
		}
		time.Sleep(time.Millisecond) // its mailbox is full; the control plane can wait
	}
	return true
}

// Check reports whether c could be applied as far as that can be known without opening a socket.
func (e *Engine) Check(c *config.Config) error {
	if _, err := plan.Compile(c, e.plan.Load()); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := terminators(c, e.certs, e.tickets)
	return err
}

// Apply makes c the configuration in force. New listeners are opened first: when one of them fails, the old configuration stays
// in force as if nothing had happened, and the error names every listener that failed. Listeners that stay are not touched, and
// established connections go on, those of frontends that are gone included.
func (e *Engine) Apply(c *config.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return errEnded
	}
	if e.draining {
		return errors.New("apply a configuration: the engine is draining")
	}
	old := e.plan.Load()
	next, err := plan.Compile(c, old)
	if err != nil {
		return err
	}
	terms, err := terminators(c, e.certs, e.tickets)
	if err != nil {
		return err
	}
	opened, err := e.open(next)
	if err != nil {
		return err
	}
	for _, b := range next.Backends {
		b.Refresh(e.now())
	}
	e.plan.Store(next)
	for _, b := range next.Backends { // again: whoever changed a server meanwhile has told the old plan alone
		e.refresh(b)
	}
	e.stir()
	e.access.Configure(c.Log)
	gone := e.swap(next, opened, terms)
	dropped := next.Dropped(old)
	err = e.each(func(w *proxy.Worker) error {
		for _, l := range opened {
			if err := w.Listen(l.shared, l.fds[w.ID()]); err != nil {
				return fmt.Errorf("listen on %v: %w", l.addr, err)
			}
		}
		for _, l := range gone {
			w.Unlisten(l.shared)
		}
		w.Forget(dropped)
		w.Repin(next)
		w.Rouse()
		return nil
	})
	if err != nil {
		return fmt.Errorf("apply a configuration: %w", err)
	}
	e.disinherit()
	e.countDescriptors()
	e.evict(next)
	e.log.Info("configuration in force", "frontends", len(next.Frontends), "backends", len(next.Backends),
		"listeners", len(e.listeners), "opened", len(opened), "closed", len(gone))
	return nil
}

// SetUsable says whether health permits a server to be used. One that went down loses its unused connections, and its sessions
// too where the backend says on_down = "close". A name that is not configured is ignored: it has been removed a moment ago.
func (e *Engine) SetUsable(backend, server string, usable bool) {
	b, s := e.server(backend, server)
	if s == nil || s.Usable.Swap(usable) == usable {
		return
	}
	e.log.Info("server usable", "backend", backend, "server", server, "usable", usable)
	e.changed(backend)
	e.tell(func(w *proxy.Worker) {
		if !usable {
			w.Down(s.Live, b.CloseOnDown)
		}
		w.Rouse()
	})
}

// SetAdmin says what the operator wants of a server; it outranks health. weight outranks the file's; -1: the file's holds.
func (e *Engine) SetAdmin(backend, server string, state plan.Admin, weight int) {
	_, s := e.server(backend, server)
	if s == nil {
		return
	}
	s.WeightOverride.Store(int32(max(-1, weight)))
	if old := plan.Admin(s.Admin.Swap(uint32(state))); old != state {
		e.log.Info("server admin state", "backend", backend, "server", server, "old", old, "new", state, "weight", weight)
	}
	e.changed(backend)
	e.tell(func(w *proxy.Worker) {
		if state == plan.Disabled {
			w.Down(s.Live, false)
		}
		w.Rouse()
	})
}

// tell has every loop call f soon. Loops that do not run yet have nothing to which f could matter.
func (e *Engine) tell(f func(*proxy.Worker)) {
	if !e.running.Load() {
		return
	}
	for _, w := range e.workers {
		post(w, func() { f(w) })
	}
}

func (e *Engine) server(backend, name string) (*plan.Backend, *plan.Server) {
	b := e.plan.Load().Backend(backend)
	if b == nil {
		return nil, nil
	}
	return b, b.Server(name)
}

// Drain stops accepting, after taking what waits in the queues, lets every exchange end and tells clients to close; it returns
// when the last connection has ended, or with ctx's error and the number of those that have not. The engine serves nothing new
// from then on.
func (e *Engine) Drain(ctx context.Context) error {
	err := e.stopAccepting(func(l *listener) { l.shared.SetFrontend(nil) }, (*proxy.Worker).Drain)
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return e.emptied(ctx)
}

// stopAccepting closes the listeners for good: part is done to each of them first, then to each loop at the end.
func (e *Engine) stopAccepting(part func(*listener), then func(*proxy.Worker)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.draining = true
	var gone []*listener
	for key, l := range e.listeners {
		gone = append(gone, l)
		part(l)
		delete(e.listeners, key)
	}
	return e.each(func(w *proxy.Worker) error {
		for _, l := range gone {
			w.Unlisten(l.shared)
		}
		then(w)
		return nil
	})
}

// emptied returns when the last connection has ended, or with ctx's error and the number of those that have not.
func (e *Engine) emptied(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		n := int64(0)
		for _, w := range e.workers {
			n += w.Connections()
		}
		if n == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("drain: %d connections have not ended: %w", n, context.Cause(ctx))
		}
	}
}

// closeFDs closes listeners that no loop has. What was inherited stays for the next attempt.
func closeFDs(ls []*listener) {
	for _, l := range ls {
		if l.heir {
			continue
		}
		for _, fd := range l.fds {
			loop.Close(fd)
		}
	}
}
