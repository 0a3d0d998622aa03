package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the guard's dealings with its agent: who is it, does it live, what does it want.

// hearGuest drains one connection, unless it is dropped meanwhile: then descriptor 0 is none of its.
func (g *guard) hearGuest(c *guest) {
	for k := 0; k < batchMax && c.fd != 0; k++ {
		m, ok, ended := g.ctl.read(c)
		if ended {
			if c.attached {
				g.agentLeft(c)
			}
			g.ctl.drop(c)
			return
		}
		if !ok {
			return
		}
		if (m.Hello == nil || c.attached) && m.fd >= 0 {
			unix.Close(m.fd)
		}
		if m.err != nil && c.attached { // its stamps are good: it lives, and what it said before stands
			g.log.Error("what the agent says can't be read", "err", m.err)
			g.ctl.send(c, toAgent{Problem: fmt.Sprintf("it can't read what its agent says: %v", m.err)})
			continue
		}
		if m.unknown != "" && c.attached {
			g.log.Warn("the agent says what this version of the guard does not know", "what", m.unknown)
			if m.Setup == nil { // a Setup is answered below
				g.ctl.send(c, toAgent{Unknown: m.unknown})
			}
		}
		switch {
		case m.Quit && (c.attached || c.quitting):
			g.quit = true
			return
		case m.Hello != nil && c.attached: // it is served, with the page that it came with
			g.log.Error("the agent greets once more", "pid", c.pid)
			g.ctl.send(c, toAgent{Problem: "its agent has greeted it twice"})
		case m.Hello != nil:
			g.greet(c, m.Hello, m.fd)
		case !c.attached:
			g.ctl.drop(c)
			return
		case m.Fit != nil:
			g.fit, g.relay = *m.Fit, 0
			g.watch(g.now())
		case m.Yield != nil:
			c.yields = int64(min(max(m.Yield.Grace, 0), time.Minute))
			g.log.Info("agent makes room for a successor", "pid", c.pid, "grace", m.Yield.Grace)
		case m.Drained != nil:
			for i, v := range g.m.vips {
				if e, ok := m.Drained[v.name]; ok {
					g.m.drained(g.now(), i, e)
				}
			}
			g.act()
		case m.Setup != nil:
			answer := toAgent{Taken: true, Unknown: m.unknown}
			g.refused = nil
			if err := g.configure(m.Setup); err != nil {
				answer = toAgent{Problem: err.Error(), Unknown: m.unknown}
				g.refused, g.refusedUnknown = m.Setup, m.unknown
				g.log.Error("setup not taken", "err", err)
			}
			g.ctl.send(c, answer)
			g.dirty = true
		}
	}
}

// greet attaches an agent, or says why not. One that speaks another protocol may only ask us to make room.
func (g *guard) greet(c *guest, h *hello, fd int) {
	refuse := func(why string) {
		g.ctl.send(c, toAgent{Refused: &refused{Protocol: controlProtocol, Why: why}})
		if fd >= 0 {
			unix.Close(fd)
		}
		if !c.quitting {
			g.ctl.drop(c)
		}
	}
	if h.Protocol != controlProtocol {
		c.quitting = g.ctl.agent() == nil
		refuse(fmt.Sprintf("this guard speaks protocol %d", controlProtocol))
		return
	}
	former := g.ctl.agent()
	if former != nil && former.yields == 0 {
		refuse(fmt.Sprintf("it serves another agent, process %d", former.pid))
		return
	}
	p, err := openPage(fd)
	if err != nil {
		refuse(err.Error())
		return
	}
	if g.page != nil {
		g.page.close()
	}
	if g.proc != nil {
		g.proc.close()
	}
	now := g.now()
	g.relay = 0
	if former != nil { // not a moment without somebody who is watched
		g.log.Info("agent succeeded by another", "pid", former.pid)
		g.relay = now + former.yields
		g.ctl.drop(former)
	}
	g.page, g.proc, c.attached = p, openProcState(c.pid), true
	g.dog.attach(now)
	if now >= g.relay {
		g.fit = fit{Reason: "the agent has not said yet that the node is fit"}
	}
	g.ctl.send(c, toAgent{Welcome: &welcome{Protocol: controlProtocol, PID: os.Getpid()}})
	g.log.Info("agent attached", "pid", c.pid)
	g.dirty = true
	g.watch(now)
}

// agentLeft handles the end of the agent's socket: a death that the peers hear of at once.
func (g *guard) agentLeft(c *guest) {
	c.attached = false
	now := g.now()
	g.orphan = now
	g.log.Error("agent died", "pid", c.pid)
	g.dog.died(now)
	g.watch(now)
	g.m.tick(now)
	g.act()
}

// watch tells the machine what is to be thought of the agent.
func (g *guard) watch(now int64) {
	agent := g.ctl.agent()
	g.m.deserted = agent == nil
	if agent == nil {
		g.m.local(now, false, false, "the agent is gone")
		return
	}
	n := 1 + int(min(g.page.word(lineLoops).Load(), MaxLoops))
	v := g.dog.look(now, n, g.progress, g.proc.state)
	if v != g.dogSay {
		g.log.Info("agent judged", "was", g.dogSay.String(), "is", v.String())
		g.dogSay = v
	}
	switch {
	case v != agentFine:
		g.m.local(now, v.alive(), false, v.String())
	case now < g.relay: // as its predecessor left it
		g.m.local(now, true, g.fit.Fit, g.fit.Reason)
	case g.page.word(lineFit).Load() != 1:
		g.m.local(now, true, false, g.fit.Reason)
	default:
		g.m.local(now, true, g.fit.Fit, g.fit.Reason)
	}
}

func (g *guard) progress(i int) uint64 {
	if i == 0 {
		return g.page.word(lineAgent).Load()
	}
	return g.page.word(lineFirst + i - 1).Load()
}

// configure takes a Setup over from the one before. What goes wrong leaves that one in force.
func (g *guard) configure(s *Setup) error {
	if err := s.Check(); err != nil {
		return err
	}
	if err := g.bind(s); err != nil {
		return err
	}
	// What is held and no longer wanted in this form leaves the link before it is forgotten.
	gone := func(v *vip) bool {
		return !slices.ContainsFunc(s.VIPs, func(c VIP) bool {
			return v.is(c)
		})
	}
	for i, v := range g.m.vips {
		if v.onLink && gone(v) {
			for _, p := range v.prefixes {
				if err := g.links.take(g.devs[i], p.Addr()); err != nil {
					return err
				}
			}
			g.log.Info("vip released", "vip", v.name, "why", "it is no longer configured like this")
		}
		if v.park.until > 0 && gone(v) {
			g.unpark(i)
		}
	}
	first := g.setup == nil
	virtual := !first && slices.ContainsFunc(g.m.vips, func(v *vip) bool { return v.router != 0 && gone(v) })
	rekeyed := first || s.ClusterID != g.setup.ClusterID || !slices.EqualFunc(s.Keys, g.setup.Keys, slices.Equal)
	g.setup = s
	if rekeyed {
		g.codec = newCodec(s.ClusterID, s.Keys)
	}
	g.peers = g.peers[:0]
	for _, p := range s.Peers {
		to := []unix.Sockaddr{sockaddr(p.Addr)}
		for _, a := range p.Also[:min(len(p.Also), len(s.Also))] {
			to = append(to, sockaddr(a))
		}
		g.peers = append(g.peers, to)
	}
	g.told = report{} // it may speak of others now
	now := g.now()
	old := g.m.vips
	resolved := g.resolvePair(s)
	g.setPair(resolved)
	g.m.configure(now, resolved)
	g.moveDevices(old)
	addrs, _ := g.gateNeeds()
	g.listenFor(addrs)
	if first {
		g.sweep()
		g.sweepVirtual()
	}
	g.findDevices()
	g.setRouters(s)
	if virtual {
		g.sweepVirtual()
	}
	g.m.tick(g.now())
	g.act()
	return nil
}

// listenFor makes the sockets hear claims of these addresses.
func (g *guard) listenFor(addrs []netip.Addr) {
	var four, six []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if err := errors.Join(g.arp.only(four), g.nd.only(six)); err != nil {
		g.log.Error("other claims of the addresses are not heard", "err", err)
	}
}

// moveDevices keeps devs, frames and noDev parallel to the machine's VIPs.
func (g *guard) moveDevices(old []*vip) {
	devs, frs, noDev, failing := make([]*device, len(g.m.vips)), make([][]frames, len(g.m.vips)), make([]string, len(g.m.vips)), map[int]string{}
	for i, v := range g.m.vips {
		if j := slices.Index(old, v); j >= 0 {
			devs[i], frs[i], noDev[i] = g.devs[j], g.frames[j], g.noDev[j]
			if why, ok := g.failing[j]; ok {
				failing[i] = why
			}
		}
	}
	g.devs, g.frames, g.noDev, g.failing = devs, frs, noDev, failing
}

// sweep removes what a former guard may have left.
func (g *guard) sweep() {
	addrs := map[netip.Addr]bool{}
	for _, v := range g.m.vips {
		for _, p := range v.prefixes {
			addrs[p.Addr()] = true
		}
	}
	swept, err := g.links.sweep(addrs)
	for _, s := range swept {
		g.log.Info("address of a former life removed", "addr", s)
	}
	if err != nil {
		g.log.Error("sweep", "err", err)
	}
}

// sweepVirtual removes the macvlans that no VIP has any more.
func (g *guard) sweepVirtual() {
	keep := map[int]bool{}
	for _, d := range g.devs {
		if d != nil {
			keep[d.to.Ifindex] = true
		}
	}
	if err := g.links.sweepVirtual(keep); err != nil {
		g.log.Error("virtual MAC not removed", "err", err)
	}
}

// findDevices looks for each VIP's interface and its state.
func (g *guard) findDevices() {
	pause := seekEvery
	found := make([]*device, len(g.m.vips))
	for i, v := range g.m.vips {
		d, err := g.links.again(g.devs[i])
		if err != nil {
			d, err = g.links.find(v)
		}
		if err != nil {
			if g.noDev[i] != err.Error() {
				g.noDev[i], pause = err.Error(), checkEvery // it may be passing
				g.log.Error("no interface", "err", err)
			}
			g.m.link(g.now(), i, false, err.Error())
			g.act()
			if !v.onLink {
				g.devs[i], g.frames[i] = nil, nil
			}
			continue
		}
		g.noDev[i] = ""
		if old := g.devs[i]; old == nil || old.to.Ifindex != d.to.Ifindex || !slices.Equal(old.mac, d.mac) {
			if v.onLink {
				g.m.link(g.now(), i, false, "its interface has changed") // let go of it on the old one first
				g.act()
				if v.onLink {
					continue
				}
			}
			g.frames[i] = nil
			for _, p := range v.prefixes {
				if len(d.mac) != 6 {
					break
				}
				f, err := framesFor(d.mac, p.Addr())
				if err == nil && d.below != nil { // see vmac.go
					var below frames
					below, err = framesFor(d.below.mac, p.Addr())
					f.probe = below.probe
				}
				if err != nil {
					g.log.Error("frames", "err", err)
					continue
				}
				g.frames[i] = append(g.frames[i], f)
			}
			g.links.forget(d.name) // one of that name, not the one that we knew
		}
		g.devs[i] = d
		if len(d.mac) == 6 {
			copy(v.mac[:], d.mac)
			g.m.mac = v.mac
			if d.below != nil {
				copy(g.m.mac[:], d.below.mac) // a virtual MAC is nobody's own
			}
		}
		found[i] = d
	}
	g.seekAt = g.now() + pause
	g.checkSysctls()
	g.installGate() // before an interface that is new counts as one to claim on
	for i, d := range found {
		if d != nil {
			g.m.link(g.now(), i, d.up, d.why)
			g.act()
		}
	}
}

func (g *guard) gateNeeds() (vips []netip.Addr, devs []gateDev) {
	for i, v := range g.m.vips {
		for _, p := range v.prefixes {
			vips = append(vips, p.Addr())
		}
		if d := g.devs[i]; d != nil {
			if dev := (gateDev{d.name, d.to.Ifindex}); !slices.Contains(devs, dev) {
				devs = append(devs, dev)
			}
		}
	}
	return vips, devs
}

// installGate has the gate's rules made to fit the VIPs and their interfaces, if that is not asked for already. What is held stays held;
// nothing more is claimed until the worker has tried, since nobody would shut what a guard leaves that is stopped.
func (g *guard) installGate() {
	err := g.links.loopbackUp()
	was := g.gate.noLoop
	g.gate.noLoop = err != nil
	var w gateWish
	w.vips, w.devs = g.gateNeeds()
	switch {
	case g.m.witness || len(w.vips) == 0:
		w = gateWish{why: "there is nothing to answer for"}
	case err != nil:
		w = gateWish{why: err.Error()}
		if !was {
			g.log.Error("the ARP gate can't be opened; going on without it", "err", err)
		}
	}
	if w.is(g.gate.wish) {
		return
	}
	now := g.now()
	g.gate.wish, g.m.gateTo = w, 0
	if len(w.vips) > 0 {
		g.m.gateTo = now + gateMost
	}
	g.gate.ask(now)
}

// release lets go of everything and says so.
func (g *guard) release(why string) {
	if g.m == nil {
		return
	}
	g.m.local(g.now(), false, false, why)
	g.act()
	for i := range g.m.vips {
		g.m.unpark(i)
	}
	g.act()
	for range 2 { // a lost packet must not cost the peers a detection time
		g.m.chatty = true
		g.m.tick(g.now())
		g.act()
	}
}

// logInBackground makes g.log a logger that never makes the loop wait for a disk: lines go through a bounded queue, and what
// does not fit is lost. The function returned writes out what is queued.
func (g *guard) logInBackground(to *slog.Logger) (flush func()) {
	q := make(chan slog.Record, 256)
	done := make(chan struct{})
	g.log = slog.New(queueHandler{q})
	go func() {
		defer close(done)
		for r := range q {
			to.Handler().Handle(context.Background(), r)
		}
	}()
	return func() {
		close(q)
		<-done
	}
}

type queueHandler struct{ q chan slog.Record }

func (h queueHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h queueHandler) WithAttrs([]slog.Attr) slog.Handler       { return h } // the guard uses neither
func (h queueHandler) WithGroup(string) slog.Handler            { return h }

func (h queueHandler) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.q <- r:
	default:
	}
	return nil
}
