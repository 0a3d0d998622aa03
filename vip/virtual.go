package vip

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/skeinlb/skein/internal/watch"
)

// This file is for simulations of whole clusters, and for nothing else: the program never makes a Virtual. It drives the same
// machine, codec and watch over the agent's life as the guard process does, on Go's clock instead of CLOCK_BOOTTIME and an Edge
// instead of sockets and netlink, so that it runs in a bubble of testing/synctest, where time is virtual.

// Edge is the link and the wire under a Virtual guard. Its methods are called by one goroutine and must not block.
type Edge interface {
	Send(to netip.AddrPort, heartbeat []byte)
	Put(vip string, life time.Duration)  // its addresses are on the link, for so long
	Take(vip string)                     // they are not
	Gate(vip string, life time.Duration) // the kernel answers ARP for them, for so long
}

// VirtualOptions are what a Virtual guard is made with.
type VirtualOptions struct {
	Edge     Edge
	Pair     PairEdge             // nil: it is never one of a pair, and asks the segment nothing
	Boot     func() uint64        // tells one life of the guard from another
	RealTime bool                 // as if it ran in real time
	Late     func() time.Duration // how late it wakes each time; nil: never
}

// Virtual is a guard process in virtual time, and the host's part in its life: a guard that was killed is started again by its
// agent. Any goroutine may call any method but Run.
type Virtual struct {
	opts VirtualOptions
	wake chan struct{} // capacity 1: something below is new

	mu sync.Mutex
	// mu guards the following.
	inbox   [][]byte
	heard   []func()      // from the segment, the tie-break and the disk, see PairEdge
	agent   *VirtualAgent // nil: none
	died    *VirtualAgent // its death was not noticed yet
	paused  bool
	crashed bool
	quit    *VirtualAgent // it asked the guard to release everything and end

	// Owned by Run.
	m        *machine
	codec    *codec
	msg, in  message
	wire     []byte
	setup    *Setup
	pair     virtualPair
	setupN   uint64
	served   *VirtualAgent
	reportAt int64
	dirty    bool
	dog      watchdog
}

// virtualInbox is how many heartbeats wait for a guard that is stopped, about what a socket's buffer holds.
const virtualInbox = 256

// NewVirtual returns a guard that has no agent and does nothing before Run.
func NewVirtual(o VirtualOptions) *Virtual {
	if o.Late == nil {
		o.Late = func() time.Duration { return 0 }
	}
	return &Virtual{opts: o, wake: make(chan struct{}, 1)}
}

// VirtualAgent is a node's handle on a Virtual guard, as Agent is on a real one.
type VirtualAgent struct {
	v     *Virtual
	state watch.Value[State]

	// Guarded by v.mu.
	setup   *Setup
	setupN  uint64
	fit     fit
	drained map[string]Epoch
	gone    bool          // dead, or has closed
	stopped int64         // when it stopped to stamp; 0: it runs
	closing chan struct{} // closed when the guard has released everything
}

// Attach is a new agent that finds the guard. One that is attached already is dead first.
func (v *Virtual) Attach() *VirtualAgent {
	a := &VirtualAgent{v: v, fit: fit{Reason: "the agent has not said yet that the node is fit"}, closing: make(chan struct{})}
	a.state.Set(State{Problem: "the guard has not answered yet"})
	v.mu.Lock()
	v.agent = a
	v.mu.Unlock()
	v.poke()
	return a
}

// Heartbeat is a packet that arrives. What does not fit is lost.
func (v *Virtual) Heartbeat(b []byte) {
	v.mu.Lock()
	if len(v.inbox) < virtualInbox {
		v.inbox = append(v.inbox, b)
	}
	v.mu.Unlock()
	v.poke()
}

// Pause stops the process as SIGSTOP does, and lets it run again.
func (v *Virtual) Pause(on bool) {
	v.mu.Lock()
	v.paused = on
	v.mu.Unlock()
	v.poke()
}

// Crash kills the process. Nothing is released; when there is an agent, it starts another guard.
func (v *Virtual) Crash() {
	v.mu.Lock()
	v.crashed = true
	v.mu.Unlock()
	v.poke()
}

func (v *Virtual) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// State publishes what the guard sees and does.
func (a *VirtualAgent) State() *watch.Value[State] { return &a.state }

// Update tells the guard what is wanted from now on.
func (a *VirtualAgent) Update(s Setup) error {
	if err := s.Check(); err != nil {
		return fmt.Errorf("guard setup: %w", err)
	}
	a.change(func() { a.setup, a.setupN = &s, a.setupN+1 })
	return nil
}

// SetFit says whether this node may hold addresses, and if not, why not.
func (a *VirtualAgent) SetFit(ok bool, why string) {
	a.change(func() { a.fit = fit{Fit: ok, Reason: why} })
}

// Drained says that nothing is left of what a parked VIP had established when it was held at that epoch.
func (a *VirtualAgent) Drained(vip string, e Epoch) {
	a.change(func() {
		next := maps.Clone(a.drained)
		if next == nil {
			next = map[string]Epoch{}
		}
		next[vip] = e
		a.drained = next
	})
}

// Close releases every address and ends the guard, until another agent attaches.
func (a *VirtualAgent) Close() {
	a.v.mu.Lock()
	gone := a.gone
	a.gone = true
	if !gone {
		a.v.quit = a
	}
	a.v.mu.Unlock()
	if !gone {
		a.v.poke()
		select {
		case <-a.closing:
		case <-time.After(guardParting): // a guard that is stopped
		}
	}
}

// Die ends the agent as SIGKILL does. What it still says is not heard.
func (a *VirtualAgent) Die() {
	a.change(func() {
		a.gone = true
		if a.v.agent == a {
			a.v.agent, a.v.died = nil, a
		}
	})
	a.state.Update(func(s State) State { s.Connected, s.Held = false, nil; return s })
}

// Stop stops the agent's process as SIGSTOP does, as far as the guard sees it, and lets it run again.
func (a *VirtualAgent) Stop(on bool) {
	a.change(func() {
		if a.stopped = 0; on {
			a.stopped = a.v.now()
		}
	})
}

func (a *VirtualAgent) change(f func()) {
	a.v.mu.Lock()
	if !a.gone {
		f()
	}
	a.v.mu.Unlock()
	a.v.poke()
}

func (v *Virtual) now() int64 { return time.Now().UnixNano() }

// Run is the process, again and again, until ctx ends as SIGKILL ends it.
func (v *Virtual) Run(ctx context.Context) {
	v.boot()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stopped := int64(0)
	for {
		now := v.now()
		due := min(v.m.next(), v.reportAt)
		if v.dog.until > now {
			due = min(due, v.dog.until)
		}
		if stopped > 0 && now <= stopped+stampMissing {
			due = min(due, stopped+stampMissing+1)
		}
		due = max(due, now+spinGuard/10)
		timer.Reset(time.Duration(due-now) + v.opts.Late())
		timely := false
		select {
		case <-timer.C:
			timely = true
		case <-v.wake:
		case <-ctx.Done():
			return
		}
		v.mu.Lock()
		for v.paused {
			v.mu.Unlock()
			select {
			case <-v.wake:
			case <-ctx.Done():
				return
			}
			v.mu.Lock()
		}
		crashed, quit, inbox, heard, agent, died := v.crashed, v.quit, v.inbox, v.heard, v.agent, v.died
		v.crashed, v.quit, v.inbox, v.heard, v.died = false, nil, nil, nil, nil
		var setup *Setup
		var saying fit
		var setupN uint64
		var drained map[string]Epoch
		stopped = 0
		if agent != nil {
			setup, setupN, saying, stopped, drained = agent.setup, agent.setupN, agent.fit, agent.stopped, agent.drained
		}
		v.mu.Unlock()

		if crashed && !v.restart(ctx) {
			return
		}
		if timely && !crashed {
			v.m.woke(v.now(), v.now()-due)
		}
		if quit != nil {
			v.release(quit)
			continue
		}
		for _, b := range inbox {
			if v.codec == nil {
				continue
			}
			if isNotice(b) {
				v.m.notice(v.now(), b)
				continue
			}
			switch v.codec.unpack(b, &v.in) {
			case "":
				v.m.receive(v.now(), 0, &v.in)
			case otherFormat:
				v.m.hearUnread(v.now(), b)
			default:
				v.m.former.answer(v.now(), b, v.wire, v.tell)
			}
		}
		for _, f := range heard {
			f()
		}
		v.serve(agent, died, setup, setupN, saying, stopped)
		for i, vip := range v.m.vips {
			if e, ok := drained[vip.name]; ok {
				v.m.drained(v.now(), i, e)
			}
		}
		v.m.tick(v.now())
		v.act()
		v.m.former.due(v.now(), v.wire, v.tell)
		if now := v.now(); v.dirty || now >= v.reportAt {
			v.report(now, stopped > 0)
		}
	}
}

// tell sends a notice.
func (v *Virtual) tell(to netip.AddrPort, b []byte) { v.opts.Edge.Send(to, slices.Clone(b)) }

// boot starts a life that knows nothing.
func (v *Virtual) boot() {
	v.m = newMachine(v.now(), v.opts.Boot(), v.opts.RealTime)
	v.codec, v.setup, v.setupN, v.served, v.dog, v.dirty, v.pair = nil, nil, 0, nil, watchdog{}, true, virtualPair{}
}

// restart is the time without a guard after a crash. It is false when ctx ended.
func (v *Virtual) restart(ctx context.Context) bool {
	v.mu.Lock()
	a := v.agent
	v.mu.Unlock()
	if a != nil {
		a.state.Update(func(s State) State {
			s.Connected, s.Problem, s.Held = false, "the guard ended the conversation", nil
			return s
		})
	}
	select {
	case <-time.After(guardRetry):
	case <-ctx.Done():
		return false
	}
	v.mu.Lock()
	v.inbox, v.heard = nil, nil // of sockets that are closed
	v.mu.Unlock()
	v.boot()
	return true
}

// serve takes what the agent says and what is to be thought of it, as guard.hearGuest and guard.watch do.
func (v *Virtual) serve(a, died *VirtualAgent, setup *Setup, setupN uint64, saying fit, stopped int64) {
	now := v.now()
	if died != nil && died == v.served {
		v.dog.died(now)
	}
	if a != v.served {
		v.served, v.setupN, v.dirty = a, 0, true
	}
	if setup != nil && setupN != v.setupN {
		v.setupN, v.dirty = setupN, true
		v.configure(now, setup)
	}
	v.m.deserted = a == nil
	switch {
	case a == nil:
		v.m.local(now, false, false, "it has no agent")
	case stopped > 0 && now > stopped+stampMissing:
		v.m.local(now, false, false, agentStopped.String())
	case now < v.dog.until:
		v.m.local(now, true, false, agentCrashes.String())
	default:
		v.m.local(now, true, saying.Fit, saying.Reason)
	}
}

// configure takes a Setup over from the one before, as guard.configure does.
func (v *Virtual) configure(now int64, s *Setup) {
	if v.setup == nil {
		for _, c := range s.VIPs {
			v.opts.Edge.Take(c.Name) // what a former life may have left
		}
	}
	for _, o := range v.m.vips {
		stays := slices.ContainsFunc(s.VIPs, func(c VIP) bool {
			return o.is(c)
		})
		if o.onLink && !stays {
			v.opts.Edge.Take(o.name)
		}
	}
	if v.setup == nil || s.ClusterID != v.setup.ClusterID || !slices.EqualFunc(s.Keys, v.setup.Keys, slices.Equal) {
		v.codec = newCodec(s.ClusterID, s.Keys)
	}
	v.setup = s
	v.m.configure(now, v.resolvePair(s))
	for i := range v.m.vips {
		if v.opts.Pair != nil {
			v.m.mac = v.opts.Pair.MAC()
			v.m.vips[i].mac = v.m.mac
		}
		v.m.link(now, i, true, "")
	}
}

// act executes what the machine asked for, with the looks at the lease that guard.act has.
func (v *Virtual) act() {
	for k := 0; k < len(v.m.out); k++ { // removed appends
		a := v.m.out[k]
		now := v.now()
		switch a.kind {
		case actSend, actGreet:
			v.m.fill(now, a, &v.msg)
			v.wire = v.codec.pack(v.wire[:0], &v.msg)
			v.opts.Edge.Send(v.m.peers[a.peer].addrs[0], slices.Clone(v.wire))
		case actAdd, actRefresh:
			if v.m.leaseEnd(a.vip) > now {
				v.opts.Edge.Put(v.m.vips[a.vip].name, validLife*time.Second)
			}
		case actDel:
			v.opts.Edge.Take(v.m.vips[a.vip].name)
			v.m.removed(now, a.vip)
		case actGate:
			if v.m.leaseEnd(a.vip) >= now+v.m.prof.gate {
				v.opts.Edge.Gate(v.m.vips[a.vip].name, time.Duration(v.m.prof.gate))
			}
		case actReport:
			v.dirty = true
		default:
			v.actPair(a)
		}
	}
	v.m.out = v.m.out[:0]
}

// release lets go of everything, says so and forgets the agent that asked for it.
func (v *Virtual) release(a *VirtualAgent) {
	v.m.local(v.now(), false, false, "the guard ends")
	for i := range v.m.vips {
		v.m.unpark(i)
	}
	v.act()
	for range 2 {
		v.m.chatty = true
		v.m.tick(v.now())
		v.act()
	}
	v.mu.Lock()
	if v.agent == a {
		v.agent = nil
	}
	v.mu.Unlock()
	a.state.Update(func(s State) State { s.Connected, s.Held = false, nil; return s })
	close(a.closing)
	v.boot()
}

// report tells the agent, which hears nothing while it is stopped.
func (v *Virtual) report(now int64, stopped bool) {
	v.reportAt, v.dirty = now+reportEvery, false
	if v.served == nil || stopped || !v.m.configured {
		return
	}
	w := v.m.status(now)
	w.Connected, w.Gate = true, "nftables"
	for k := 0; w.Pair != nil && k < min(len(w.Pair.Tiebreak), len(v.pair.ties)); k++ {
		w.Pair.Tiebreak[k].Addr = v.pair.ties[k].String()
	}
	s := w.state(time.Now())
	v.mu.Lock()
	gone := v.served.gone
	v.mu.Unlock()
	if !gone {
		v.served.state.Set(s)
	}
}
