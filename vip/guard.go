package vip

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// GuardOptions are what a guard is started with; everything else it hears from its agent.
type GuardOptions struct {
	Log     *slog.Logger
	Version string // of the program, for people
	// Linger is how long a guard without an agent goes on granting before it ends; zero means ten minutes. It holds nothing in
	// that time, but the others may need its grants.
	Linger time.Duration
}

const (
	lingerDefault = 10 * time.Minute
	watchEvery    = 20 * ms // and with every wake-up that comes 5 ms after the last look
	reportEvery   = 500 * ms
	checkEvery    = int64(time.Second) // interfaces, the gate's rules
	gateRetry     = int64(10 * time.Second)
	batchMax      = 128 // packets of one kind per turn of the loop
	seekEvery     = int64(5 * time.Second)
	wholeMost     = int64(10 * time.Minute) // the gate is looked at although nothing was committed
	spinGuard     = 100_000                 // never wait for less than this, in ns, twice in a row
)

// guard is the process: one thread, one loop, and goroutines for what would keep it waiting: signals, log lines, a disk, nftables.
type guard struct {
	opts  GuardOptions
	log   *slog.Logger
	m     *machine
	codec *codec
	msg   message
	in    message
	wire  []byte
	ts    unix.Timespec

	ctl     *controlServer
	links   *linkLayer
	arp     *arpSocket
	nd      ndSocket
	gate    *gate
	rules   *gateRules         // the worker's, from open on
	routers map[string]*router // by VIP: those in a VRRP group
	joinAt  int64              // not to try again to join a group before
	beats   [MaxLinks]beat     // where heartbeats go out and come in, by link
	peers   [][]unix.Sockaddr  // as machine.peers, by link

	devs           []*device // as machine.vips; nil: none found
	frames         [][]frames
	noDev          []string // as machine.vips: what was logged of a missing interface
	setup          *Setup
	refused        *Setup         // could not be taken yet; tried again, since an address may come up later
	refusedUnknown string         // what in it was not known
	failing        map[int]string // VIPs whose removal failed

	ties     []tie // of a pair
	pairFile string
	keeper   keeper

	page   *page
	proc   *procState
	dog    watchdog
	dogSay verdict
	fit    fit
	relay  int64 // the successor of an agent that yielded is here, and until this has not said whether it is fit
	orphan int64 // since when there is no agent

	locked   bool
	reportAt int64
	checkAt  int64
	watchAt  int64
	wholeAt  int64
	seekAt   int64 // not to look before for an interface that was not found, unless the kernel has news
	rx       [wireMax]byte
	dirty    bool
	rulesAt  int64             // not to look at the gate's rules again before
	untuned  string            // the last error about sysctls that was logged
	dropped  map[string]uint64 // heartbeats not taken, by reason
	told     report
	rest     breather

	stop   atomic.Bool
	wakeFd int
	quit   bool
}

// RunGuard is the guard process: it returns when ctx ends, on SIGTERM or SIGINT, when an agent says so, or when it has
// lingered. On every one of these ways it lets go of all addresses first.
func RunGuard(ctx context.Context, opts GuardOptions) error { return newGuard(opts).run(ctx) }

func (g *guard) run(ctx context.Context) error {
	flush := g.logInBackground(g.opts.Log)
	defer flush()
	if err := g.open(); err != nil {
		g.close()
		return err
	}
	defer g.close()

	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(term)
	go func() { // ends with the process's guard: ctx or a signal
		select {
		case <-term:
		case <-ctx.Done():
		}
		g.stop.Store(true)
		unix.Write(g.wakeFd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}()

	var rt bool
	rt, g.locked = settle()
	var boot [8]byte
	rand.Read(boot[:])
	g.m = newMachine(g.now(), binary.NativeEndian.Uint64(boot[:]), rt)
	g.orphan = g.m.start
	g.log.Info("guard runs", "pid", os.Getpid(), "realtime", rt, "locked", g.locked)
	err := g.loop()
	g.release("the guard ends")
	g.log.Info("guard ends")
	return err
}

// newGuard is a guard that has opened nothing.
func newGuard(opts GuardOptions) *guard {
	if opts.Linger == 0 {
		opts.Linger = lingerDefault
	}
	g := &guard{opts: opts, codec: newCodec("", nil), gate: newGate(), rules: newGateRules(), wakeFd: -1, nd: ndSocket{fd: -1}, rest: breather{every: restEvery, sleeps: threadSleeps}, failing: map[int]string{}, routers: map[string]*router{}, dropped: map[string]uint64{}}
	for k := range g.beats {
		g.beats[k].fd = -1
	}
	return g
}

func (g *guard) open() (err error) {
	if g.ctl, err = listenControl(); err != nil {
		return err
	}
	if err = g.gate.start(g.rules); err != nil {
		return err
	}
	if g.links, err = openLinks(); err != nil {
		return err
	}
	if g.arp, err = openARP(); err != nil {
		return err
	}
	if err = g.keeper.open(); err != nil {
		return err
	}
	g.wakeFd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

func (g *guard) close() {
	g.gate.close()
	for k := range g.beats {
		g.beats[k].close()
	}
	if g.arp != nil {
		unix.Close(g.arp.fd)
	}
	g.nd.close()
	g.closeTies()
	if g.links != nil {
		if g.setup != nil {
			g.links.sweepVirtual(nil)
		}
		g.links.close()
	}
	if g.page != nil {
		g.page.close()
	}
	if g.proc != nil {
		g.proc.close()
	}
	if g.ctl != nil {
		g.ctl.close() // last: the name says that a guard runs, and an agent waits for this end
	}
}

// now is CLOCK_BOOTTIME: it goes on while the machine sleeps, and nobody can set it.
func (g *guard) now() int64 {
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &g.ts); err != nil {
		panic(err) // since Linux 2.6.39
	}
	return g.ts.Nano()
}

// loop waits for a packet, an agent, the kernel or the time, and lets the machine decide.
func (g *guard) loop() error {
	var timeout unix.Timespec
	fds := make([]unix.PollFd, 0, 32)
	hurried := false
	poll := waiting()
	for !g.quit && !g.stop.Load() {
		fds = append(fds[:0],
			unix.PollFd{Fd: int32(g.wakeFd), Events: unix.POLLIN},
			unix.PollFd{Fd: int32(g.ctl.listen), Events: unix.POLLIN},
			unix.PollFd{Fd: int32(g.arp.fd), Events: unix.POLLIN},
			unix.PollFd{Fd: int32(g.links.eventFd), Events: unix.POLLIN},
			unix.PollFd{Fd: int32(g.nd.fd), Events: unix.POLLIN}, // -1 is ignored
			unix.PollFd{Fd: int32(g.gate.newsFd), Events: unix.POLLIN},
		)
		for k := range g.beats {
			fds = append(fds, unix.PollFd{Fd: int32(g.beats[k].fd), Events: unix.POLLIN})
		}
		for i := range g.ctl.guests {
			fd := int32(-1)
			if g.ctl.guests[i].fd != 0 {
				fd = int32(g.ctl.guests[i].fd)
			}
			fds = append(fds, unix.PollFd{Fd: fd, Events: unix.POLLIN})
		}
		routers := len(fds)
		for _, v := range g.m.vips {
			if r := g.routers[v.name]; r != nil && r.fd >= 0 {
				fds = append(fds, unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN})
			}
		}
		ties := len(fds)
		fds = append(fds, unix.PollFd{Fd: int32(g.keeper.fd), Events: unix.POLLIN}, unix.PollFd{Fd: int32(g.gate.wakeFd), Events: unix.POLLIN})
		for _, t := range g.ties {
			fds = append(fds, unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN})
		}
		now := g.now()
		due := min(g.m.next(), g.reportAt, g.checkAt, g.watchAt, g.nextRouter())
		wait := max(due-now, 0)
		if wait < spinGuard && hurried {
			wait = spinGuard
		}
		hurried = wait < spinGuard
		timeout = unix.NsecToTimespec(wait)
		n, err := poll(fds, &timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait: %w", err)
		}
		if now = g.now(); g.rest.due(now) {
			timeout = unix.NsecToTimespec(restFor)
			_, _ = unix.Ppoll(nil, &timeout, nil)
			now = g.now()
		}
		if n == 0 && err == nil {
			g.m.woke(now, now-due)
		}
		if n > 0 {
			if fds[ties].Revents != 0 {
				g.hearKeeper()
			}
			if fds[ties+1].Revents != 0 {
				g.hearGate()
			}
			for k := range g.ties {
				if fds[ties+2+k].Revents != 0 {
					g.hearTie(k)
				}
			}
			for i, k := 0, routers; k < ties && i < len(g.m.vips); i++ { // before a setup can change them
				if r := g.routers[g.m.vips[i].name]; r != nil && r.fd >= 0 {
					if fds[k].Revents != 0 {
						g.hearRouter(i, r)
					}
					k++
				}
			}
			for i := range g.ctl.guests {
				if fds[6+MaxLinks+i].Revents != 0 && g.ctl.guests[i].fd != 0 { // one may have made room for another just now
					g.hearGuest(&g.ctl.guests[i])
				}
			}
			for k := range g.beats {
				if fds[6+k].Revents != 0 {
					g.hearPeers(k)
				}
			}
			if fds[5].Revents != 0 {
				g.hearRules()
			}
			if fds[3].Revents != 0 {
				g.hearKernel()
			}
			if fds[2].Revents != 0 {
				g.hearClaims(g.arp.claimOf)
			}
			if fds[4].Revents != 0 {
				g.hearClaims(g.nd.claimOf)
			}
			if fds[1].Revents != 0 {
				g.ctl.accept()
			}
		}
		now = g.now()
		if now >= g.watchAt-watchEvery*3/4 {
			g.watchAt = now + watchEvery
			g.watch(now)
		}
		if now >= g.checkAt {
			g.checkAt = now + checkEvery
			g.check()
		}
		g.m.tick(now)
		g.act()
		g.m.former.due(now, g.wire, g.tell)
		g.tickRouters(now)
		if now >= g.reportAt || g.dirty {
			g.report()
		}
	}
	return nil
}

// act executes what the machine asked for. Whatever claims, prolongs or announces looks at the lease with a clock read of its
// own: the process may have been stopped since the decision.
func (g *guard) act() {
	for k := 0; k < len(g.m.out); k++ { // removed appends
		a := g.m.out[k]
		switch a.kind {
		case actSend, actGreet:
			g.m.fill(g.now(), a, &g.msg)
			g.wire = g.codec.pack(g.wire[:0], &g.msg)
			for k, to := range g.peers[a.peer] {
				g.beats[k].send(g.wire, to)
			}
		case actAdd:
			v := g.m.vips[a.vip]
			g.log.Info("vip held", "vip", v.name, "epoch", v.heldEpoch.String(), "on", g.devs[a.vip].name)
			if g.routers[v.name] != nil {
				g.join(a.vip, false)
			} else {
				g.put(a.vip)
			}
		case actRefresh:
			if g.routed(a.vip) {
				g.put(a.vip)
			}
		case actDel:
			g.leave(a.vip)
			g.take(a.vip)
		case actGate:
			g.openGate(a.vip)
		case actProbe:
			for _, f := range g.frames[a.vip] {
				g.say(g.devs[a.vip].bottom(), f, f.probe)
			}
		case actAnnounce:
			if !g.routed(a.vip) {
				continue
			}
			for _, f := range g.frames[a.vip] {
				for _, frame := range [...][]byte{f.request, f.reply} {
					if frame != nil && g.m.leaseEnd(a.vip) > g.now() {
						g.say(g.devs[a.vip], f, frame)
					}
				}
			}
		case actReport:
			g.dirty = true
		case actPark:
			g.park(a.vip)
		case actUnpark:
			g.unpark(a.vip)
		case actPing:
			g.ping()
		case actSave:
			g.saveGeneration()
		}
	}
	g.m.out = g.m.out[:0]
	if len(g.failing) > 0 {
		g.retake()
	}
}

// openGate lets the kernel answer for VIP i for one gate more, if the lease lasts that long and a VRRP group lets us.
func (g *guard) openGate(i int) {
	if !g.routed(i) {
		return
	}
	for _, p := range g.m.vips[i].prefixes {
		if g.m.leaseEnd(i) >= g.now()+g.m.prof.gate {
			g.gate.tick(p.Addr(), g.m.prof.gate)
		}
	}
}

// say sends a frame out of an interface.
func (g *guard) say(d *device, f frames, frame []byte) {
	if f.six {
		g.nd.send(&d.to, frame)
	} else {
		g.arp.send(&d.to, frame)
	}
}

// put installs or prolongs the addresses of a VIP.
func (g *guard) put(i int) {
	v := g.m.vips[i]
	if err := g.links.raise(g.devs[i]); err != nil {
		g.log.Error("vip not on the link: it is for another node", "vip", v.name, "err", err)
		g.m.broken(g.now(), i, err.Error())
		return
	}
	for _, p := range v.prefixes {
		if g.m.leaseEnd(i) <= g.now() {
			return
		}
		if err := g.links.put(g.devs[i], p.Addr()); err != nil {
			g.log.Error("vip not on the link: it is for another node", "vip", v.name, "err", err)
			g.m.broken(g.now(), i, err.Error())
			return
		}
	}
}

// take removes the addresses of a VIP. Until the kernel has confirmed it, the machine does not tell anybody that the VIP is free.
func (g *guard) take(i int) {
	v := g.m.vips[i]
	g.log.Info("vip released", "vip", v.name, "epoch", v.heldEpoch.String(), "why", g.m.text(v.lostWhy, i))
	g.failing[i] = ""
	g.retake()
}

func (g *guard) retake() {
	for i, last := range g.failing {
		var errs []error
		for _, p := range g.m.vips[i].prefixes {
			if g.devs[i] != nil {
				errs = append(errs, g.links.take(g.devs[i], p.Addr()))
			}
		}
		if g.devs[i] != nil {
			errs = append(errs, g.links.lower(g.devs[i]))
		}
		if err := errors.Join(errs...); err != nil {
			if err.Error() != last {
				g.log.Error("address not removed; trying on", "vip", g.m.vips[i].name, "err", err)
			}
			g.failing[i] = err.Error()
			continue
		}
		delete(g.failing, i)
		g.m.removed(g.now(), i)
	}
}

// hearPeers drains the heartbeats of one link.
func (g *guard) hearPeers(k int) {
	for range batchMax {
		n, err := unix.Read(g.beats[k].fd, g.rx[:])
		if err != nil {
			return // drained, or an ICMP error of an earlier send
		}
		if isNotice(g.rx[:n]) {
			if g.m.notice(g.now(), g.rx[:n]) {
				g.log.Error("left behind: the cluster was recovered without this node, which lets go of everything", "by", g.m.former.heard.By,
					"generation", g.m.former.heard.Generation, "own", g.m.former.generation)
			}
			continue
		}
		why := g.codec.unpack(g.rx[:n], &g.in)
		switch {
		case why == "":
			why = g.m.receive(g.now(), k, &g.in)
		case why == otherFormat:
			if name, unread := g.m.hearUnread(g.now(), g.rx[:n]); unread != "" {
				g.log.Error("a node is not understood, which counts as not heard", "peer", name, "why", unread)
			}
		case g.m.former.answer(g.now(), g.rx[:n], g.wire, g.tell):
			why = "from a node that was left behind"
		}
		if why != "" && (why != overtaken || g.m.links == 1) {
			g.dropped[why]++
		}
	}
}

// tell sends a notice.
func (g *guard) tell(to netip.AddrPort, b []byte) { g.beats[0].send(b, sockaddr(to)) }

// hearClaims drains a socket and looks for others who claim what is ours.
func (g *guard) hearClaims(next func() (mac [6]byte, addr netip.Addr, more bool)) {
	for range batchMax {
		mac, addr, more := next()
		if !more {
			return
		}
		if !addr.IsValid() {
			continue
		}
		for i, v := range g.m.vips {
			if g.devs[i] == nil || !g.routed(i) {
				continue
			}
			// A virtual MAC is the other one's, too.
			if ours := slices.Equal(mac[:], g.devs[i].mac); ours && (v.held || !g.m.pair.on) {
				continue
			}
			for _, p := range v.prefixes {
				if p.Addr() == addr {
					g.foreign(i, addr, mac)
				}
			}
		}
	}
}

func (g *guard) foreign(i int, addr netip.Addr, mac [6]byte) {
	known := g.m.ownerOf(mac) != nil
	before := len(g.m.vips[i].conflicts)
	g.m.foreign(g.now(), i, addr, mac)
	if len(g.m.vips[i].conflicts) > before {
		level := slog.LevelError
		if known {
			level = slog.LevelInfo // a former holder's last word
		}
		g.log.Log(context.Background(), level, "address claimed by another host", "vip", g.m.vips[i].name, "addr", addr, "mac", fmt.Sprintf("%x", mac), "peer", known)
	}
}

// check looks at what nobody tells of.
func (g *guard) check() {
	now := g.now()
	g.rulesAt = now + rulesEvery
	if now >= g.wholeAt {
		g.wholeAt, g.gate.look = now+wholeMost, true
	}
	g.checkGate()
	g.checkSysctls()
	if now >= g.seekAt && slices.Contains(g.devs, nil) {
		g.findDevices()
	}
	g.rebind()
	g.checkPair()
	if g.refused != nil {
		if s := g.refused; g.configure(s) == nil {
			g.refused = nil
			g.log.Info("setup taken after all")
			if c := g.ctl.agent(); c != nil {
				g.ctl.send(c, toAgent{Taken: true, Unknown: g.refusedUnknown})
			}
		}
	}
	if now := g.now(); g.ctl.agent() == nil && now-g.orphan > int64(g.opts.Linger) {
		g.log.Info("no agent came back", "after", g.opts.Linger)
		g.quit = true
	}
}
