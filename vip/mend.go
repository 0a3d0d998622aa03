package vip

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What others do to our addresses, rules and sysctls is noticed here and mended: network managers, firewalls and people clean up what
// they did not make.

const (
	mendWindow = int64(10e9)
	rulesEvery = 50 * ms
	mendMax    = 10 // removals of an address within a window that are put up with; then it is for another node
)

// hearKernel looks at what others did to links and addresses.
func (g *guard) hearKernel() {
	links, added := g.links.events(func(index int, a netip.Addr) {
		for i, v := range g.m.vips {
			if d := g.devs[i]; d == nil || d.link.Attrs().Index != index || !v.held || !g.routed(i) {
				continue
			}
			for _, p := range v.prefixes {
				if p.Addr() == a {
					g.addressLost(i, a)
				}
			}
		}
	})
	// An address may be what tells that an interface is a VIP's.
	if links || added && slices.Contains(g.devs, nil) {
		g.gate.look = true // chains go with their interface, and no commit says so
		g.findDevices()
		g.checkGate() // for the interfaces as they are now
	}
}

// addressLost puts a held address back that somebody removed, unless that happens all the time: two programs that both know better
// would leave the clients with an address that flickers.
func (g *guard) addressLost(i int, a netip.Addr) {
	v := g.m.vips[i]
	if g.m.lost(g.now(), i) {
		g.log.Error("address removed by somebody else; putting it back", "vip", v.name, "addr", a)
		return
	}
	g.log.Error("address removed by somebody else again and again; giving it up", "vip", v.name, "addr", a)
	g.m.broken(g.now(), i, "somebody on this host keeps removing it")
}

// hearRules has the gate looked at soon when somebody has changed nftables' rules, however often that happens.
func (g *guard) hearRules() {
	if g.gate.changed() {
		g.checkAt = min(g.checkAt, g.rulesAt)
	}
}

// checkGate has the gate's rules looked at, and put back if they are gone, and has the gate taken away while it can't be opened: without it
// a guard that is stopped leaves the kernel answering for three seconds, with it nobody would answer at all.
func (g *guard) checkGate() {
	if g.setup == nil {
		return
	}
	now := g.now()
	if g.gate.late(now) {
		g.log.Error("the ARP gate may be gone: the kernel has not answered for a second")
		g.dirty = true
	}
	if err := g.links.loopbackUp(); (err != nil) != g.gate.noLoop {
		g.installGate()
	} else if g.gate.due(now) {
		g.gate.ask(now)
	}
}

// hearGate takes what the gate's worker has done.
func (g *guard) hearGate() {
	was := g.gate.gateState
	out, done := g.gate.hear(g.now())
	if !done || out.made { // nothing is open in new rules
		for i, v := range g.m.vips {
			if v.held {
				g.openGate(i)
			}
		}
	}
	if !done {
		return
	}
	if out.mended {
		g.log.Error("the ARP gate's rules were removed by somebody else; putting them back")
	}
	if out.err != nil && out.err.Error() != was.why {
		g.log.Error("no ARP gate", "err", out.err)
	}
	if out.wish.is(g.gate.wish) {
		g.m.gated()
	}
	g.dirty = g.dirty || out.state != was
}

// loopbackUp is nil when the loopback works, which the gate is opened over.
func (l *linkLayer) loopbackUp() error {
	err := unix.IoctlIfreq(l.eventFd, unix.SIOCGIFFLAGS, &l.lo) // any socket will do
	if err == nil && l.lo.Uint16()&unix.IFF_UP == 0 {
		return errors.New("the loopback interface is down")
	}
	return nil // or unknown: a call that was interrupted says nothing
}

// checkSysctls sets the interfaces' sysctls again if somebody has reset them.
func (g *guard) checkSysctls() {
	for name := range g.links.tuned {
		g.tune(name)
	}
	for _, d := range g.devs {
		if d != nil && g.links.tuned[d.name] == nil {
			g.tune(d.name)
		}
	}
}

func (g *guard) tune(name string) {
	known := g.links.tuned[name] != nil
	was, err := g.links.tune(name)
	switch {
	case known && errors.Is(err, fs.ErrNotExist):
		g.links.forget(name) // the interface is gone, or has another name
	case err != nil && g.untuned != err.Error():
		g.untuned = err.Error()
		g.log.Error("interface not tuned: it may answer for addresses that it must not", "err", err)
	case err == nil && was != "":
		g.untuned = ""
		g.log.Error("sysctl reset by somebody else; set again", "was", was)
	}
}

// sysctls make an interface answer ARP for its own addresses only, and use no VIP as the source of its own requests: with
// arp_announce 0 a node that merely had the VIP on lo stole a client's entry (measured).
var sysctls = [...]struct {
	file string
	min  byte
}{{"arp_ignore", '1'}, {"arp_announce", '2'}}

// tuning is an interface whose sysctls were set. Their files stay open, to be looked at every second. When the interface goes, they can't be
// read any more, whoever gets its name.
type tuning struct {
	fds [len(sysctls)]int
	set bool
	buf [16]byte
}

func sysctlPath(name, file string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", filepath.Base(name), file)
}

// tune sets the sysctls of an interface. was says which of them had been set before by us and were not any more.
func (l *linkLayer) tune(name string) (was string, err error) {
	t := l.tuned[name]
	if t == nil {
		if t, err = openTuning(name); err != nil {
			return "", err
		}
		l.tuned[name] = t
	}
	for k, s := range sysctls {
		n, err := unix.Pread(t.fds[k], t.buf[:], 0)
		if err != nil {
			return "", fmt.Errorf("read %s of %s: %w", s.file, name, err)
		}
		if n > 0 && t.buf[0] >= s.min {
			continue
		}
		if err := os.WriteFile(sysctlPath(name, s.file), []byte{s.min}, 0o644); err != nil {
			return "", fmt.Errorf("set %s of %s: %w", s.file, name, err)
		}
		if t.set {
			was += fmt.Sprintf(" %s.%s=%s", name, s.file, strings.TrimSpace(string(t.buf[:n])))
		}
	}
	t.set = true
	return strings.TrimSpace(was), nil
}

func openTuning(name string) (*tuning, error) {
	t := &tuning{}
	for k, s := range sysctls {
		fd, err := unix.Open(sysctlPath(name, s.file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.close(k)
			return nil, fmt.Errorf("read %s of %s: %w", s.file, name, err)
		}
		t.fds[k] = fd
	}
	return t, nil
}

func (t *tuning) close(n int) {
	for _, fd := range t.fds[:n] {
		unix.Close(fd)
	}
}

// forget is told of an interface that is not the one that was tuned, or is gone.
func (l *linkLayer) forget(name string) {
	if t := l.tuned[name]; t != nil {
		t.close(len(t.fds))
		delete(l.tuned, name)
	}
}
