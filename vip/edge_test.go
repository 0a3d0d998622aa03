package vip

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func lockThread() { runtime.LockOSThread() }

// A cluster of three real guards, with the test in place of Raft: what a client on the wire sees when agents die, guards stop,
// strangers claim the address and somebody meddles with the kernel.
func TestGuardsHoldAnAddressOnARealLink(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	l := newLab(t, 3)
	n := l.nodes
	l.until("all guards know one another and may grant", func() bool {
		for _, nd := range n {
			s, _ := nd.get()
			if s.Silent || len(s.Peers) != 2 || !s.Peers[labName((nd.i+1)%3)].Fit || !s.Peers[labName((nd.i+2)%3)].Fit {
				return false
			}
		}
		return true
	})
	s, _ := n[0].get()
	t.Logf("profile %q, gate %q, real time %v, locked %v", s.Profile, s.Gate, s.RealTime, s.Locked)
	if s.Gate != "nftables" {
		t.Errorf("gate %q, want nftables", s.Gate)
	}
	c := l.client()
	defer func() { close(c.stop); <-c.done }()

	l.place(0)
	t.Logf("first claim after %v", l.until("n0 answers", func() bool { _, ok := c.first(n[0].mac, time.Time{}); return ok }))

	time.Sleep(time.Second)
	c.mu.Lock()
	var worst time.Duration
	for i := 1; i < len(c.seen); i++ {
		worst = max(worst, c.seen[i].at.Sub(c.seen[i-1].at))
	}
	t.Logf("%d answers in a second, the longest pause between two is %v", len(c.seen), worst)
	c.mu.Unlock()

	// The agent is killed. Its guard lets go and tells the others, who need not wait for a time-out.
	start := time.Now()
	n[0].cmd.Process.Kill()
	n[0].cmd.Wait()
	t.Logf("agent killed: confirmed after %v", l.until("n1 knows that n0 is gone", func() bool { s, _ := n[1].get(); return s.Peers["n0"].ConfirmedDead }))
	l.place(1, 0)
	l.until("n1 answers", func() bool { _, ok := c.first(n[1].mac, start); return ok })
	a, _ := c.first(n[1].mac, start)
	t.Logf("agent killed: n1 answers after %v, n0 last answered after %v", a.at.Sub(start), c.last(n[0].mac).at.Sub(start))

	// A new agent comes back to the guard that the old one left.
	n[0].start(false)
	n[0].tell(order{Setup: l.setup(0)})
	l.until("n0 is fit again", func() bool { s, _ := n[1].get(); return s.Peers["n0"].Fit && !s.Peers["n0"].ConfirmedDead })

	// Guard and agent of the holder both stop: only the kernel is left, and it must fall silent.
	_, guard1 := n[1].get()
	start = time.Now()
	syscall.Kill(guard1, syscall.SIGSTOP)
	n[1].cmd.Process.Signal(syscall.SIGSTOP)
	l.until("n2 is sure that n1 is gone", func() bool { s, _ := n[2].get(); return s.Peers["n1"].ConfirmedDead })
	t.Logf("both stopped: confirmed after %v", time.Since(start))
	l.place(2, 1)
	l.until("n2 answers", func() bool { _, ok := c.first(n[2].mac, start); return ok })
	time.Sleep(300 * time.Millisecond)
	syscall.Kill(guard1, syscall.SIGCONT)
	n[1].cmd.Process.Signal(syscall.SIGCONT)
	n[1].tell(order{Setup: l.setup(1)})
	l.until("n1 has let go", func() bool { s, _ := n[1].get(); return s.Connected && len(s.Held) == 0 })
	a, _ = c.first(n[2].mac, start)
	silent := c.last(n[1].mac).at
	t.Logf("both stopped: n1 last answered after %v, n2 first after %v", silent.Sub(start), a.at.Sub(start))
	if silent.After(a.at) {
		t.Errorf("n1 answered %v after n2 had begun to", silent.Sub(a.at))
	}

	// A stranger claims the address.
	start = time.Now()
	f, err := buildFrames(net.HardwareAddr{2, 0, 0, 0, 0, 66}, netip.MustParseAddr(labVIP))
	if err != nil {
		t.Fatal(err)
	}
	to := c.to // Sendto writes to it
	unix.Sendto(c.fd, f.request, 0, &to)
	l.until("n2 reports the stranger", func() bool {
		s, _ := n[2].get()
		return len(s.Conflicts) == 1 && s.Conflicts[0].Stranger && s.Conflicts[0].MAC == "02:00:00:00:00:42"
	})
	l.until("n2 defends", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.seen {
			if s.mac == n[2].mac && s.op == 1 && s.at.After(start) { // a request naming itself: an announcement
				return true
			}
		}
		return false
	})

	// Somebody takes the address off the link, then flushes the rules.
	vip := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(labVIP), Mask: net.CIDRMask(32, 32)}}
	if err := n[2].link.AddrDel(n[2].eth, vip); err != nil {
		t.Errorf("the address is not on the holder's link: %v", err)
	}
	t.Logf("address removed from outside: back after %v", l.until("the address is back", func() bool {
		addrs, _ := n[2].link.AddrList(n[2].eth, unix.AF_INET)
		for _, a := range addrs {
			if a.IP.String() == labVIP {
				if a.ValidLft <= 0 || a.ValidLft > validLife || a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 {
					t.Errorf("valid_lft %d, flags %#x; want a short life and noprefixroute", a.ValidLft, a.Flags)
				}
				return true
			}
		}
		return false
	}))
	if err := inNS(n[2].ns, func() error {
		g := newGateRules()
		g.left = true
		defer g.close()
		return g.open()
	}); err != nil {
		t.Fatal(err)
	} // closing a gate removes the table, as `nft flush ruleset` would
	start = time.Now()
	l.until("n2 answers behind a new gate", func() bool {
		return time.Since(start) > 1500*time.Millisecond && time.Since(c.last(n[2].mac).at) < 100*time.Millisecond
	})
	if !n[2].gateWhole(t) {
		t.Error("the gate was not put back")
	}

	// A loop hangs while the rest of the agent lives.
	start = time.Now()
	n[2].tell(order{Hang: true})
	l.until("n0 knows that n2 is not fit, and that its agent lives", func() bool {
		s, _ := n[0].get()
		p := s.Peers["n2"]
		return !p.Fit && p.AgentAlive && !p.ConfirmedDead
	})
	t.Logf("loop hangs: known after %v", time.Since(start))
	l.place(0)
	l.until("n0 answers again", func() bool { _, ok := c.first(n[0].mac, start); return ok })

	// A holder whose guard is killed: the kernel alone is left with the address, and the gate shuts. The new guard sweeps.
	_, guard0 := n[0].get()
	start = time.Now()
	syscall.Kill(guard0, syscall.SIGKILL)
	l.until("n1 is sure that n0 is gone", func() bool {
		s, _ := n[1].get()
		return s.Peers["n0"].ConfirmedDead || s.Peers["n0"].Held == nil
	})
	l.place(1)
	l.until("n1 answers again", func() bool { _, ok := c.first(n[1].mac, start); return ok })
	a, _ = c.first(n[1].mac, start)
	if last := c.last(n[0].mac).at; last.After(a.at) {
		t.Errorf("n0 answered %v after n1 had begun to", last.Sub(a.at))
	}
	l.until("n0 has a new guard", func() bool { s, pid := n[0].get(); return s.Connected && pid != guard0 })
	l.until("the stale address is swept", func() bool {
		addrs, _ := n[0].link.AddrList(n[0].eth, unix.AF_INET)
		return len(addrs) == 1
	})

	// The holder's agent makes room, and another takes its place: the address stays where it is, whatever becomes of the former one.
	before, heir := n[1].get()
	former := n[1].cmd
	n[1].tell(order{Yield: true})
	start = time.Now()
	n[1].start(false)
	defer former.Process.Kill()
	n[1].tell(order{Setup: l.setup(1)})
	l.until("the new agent is served", func() bool {
		s, pid := n[1].get()
		return s.Connected && s.Fit && pid == heir && s.Held["public"].LeaseLeft > 0 && time.Since(start) > 300*time.Millisecond
	})
	former.Process.Kill()
	former.Wait()
	if after, _ := n[1].get(); !after.Connected || after.Held["public"].Since.Sub(before.Held["public"].Since).Abs() > 100*time.Millisecond {
		t.Errorf("held since %v, was held since %v: the address was let go at the restart of the agent", after.Held["public"].Since, before.Held["public"].Since)
	}

	// A second guard in the same namespace is refused, and says why.
	if err := inNS(n[1].ns, func() error {
		cmd := exec.Command("/proc/self/exe", "-test.run=^$")
		cmd.Env = append(os.Environ(), "SKEIN_VIP_PART=guard")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "another guard runs in this network namespace") {
			t.Errorf("a second guard: %v\n%s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	// What a guard costs while it holds.
	used, since := cpuTime(heir), time.Now()
	time.Sleep(time.Second)
	t.Logf("the holder's guard uses %.2f %% of a core, %d kB of memory", 100*(cpuTime(heir)-used).Seconds()/time.Since(since).Seconds(), residentKB(heir))

	// The agent alone is stopped, and goes on.
	start = time.Now()
	n[1].cmd.Process.Signal(syscall.SIGSTOP)
	l.until("n0 knows that n1's agent is stopped", func() bool { s, _ := n[0].get(); return s.Peers["n1"].ConfirmedDead })
	t.Logf("agent stopped: confirmed after %v", time.Since(start))
	n[1].cmd.Process.Signal(syscall.SIGCONT)
	l.until("n1 is fit again", func() bool { s, _ := n[0].get(); return s.Peers["n1"].Fit && !s.Peers["n1"].ConfirmedDead })

	// A clean end: the agent closes, the guard lets go and ends.
	n[1].tell(order{Close: true})
	l.until("n1's guard has ended", func() bool { return syscall.Kill(heir, 0) != nil })
	if addrs, _ := n[1].link.AddrList(n[1].eth, unix.AF_INET); len(addrs) != 1 {
		t.Errorf("after a clean end the link has %v", addrs)
	}
}

// cpuTime is what a process has used so far, in ticks of 10 ms.
func cpuTime(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system int64
	if len(f) > 12 {
		fmt.Sscan(f[11], &user)
		fmt.Sscan(f[12], &system)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func residentKB(pid int) (kb int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(rest, &kb)
		}
	}
	return kb
}
