package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab/fleet"
	"github.com/skeinlb/skein/vip/vrrp"
)

// TestMovesInAVRRPGroup has three nodes in a group with a keepalived of lower priority, at one advertisement a second: whoever listens first
// needs 3.6 s, and a good-bye brings keepalived in after 0.8 s. The nodes are one router to the group: the agent of the active one is
// replaced in place and the group hears nothing of it, a node without power is followed as without a group, and the address moves and a
// node is drained without a failed request. A keepalived of higher priority takes the
// address; then there is nothing to move, and a drain gives the standing by to another node. The last node that may hold the
// address is stopped: keepalived has it after its skew time.
func TestMovesInAVRRPGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes on a network of their own: not with -short")
	}
	path := find(t, "keepalived")["keepalived"]
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Agent: filepath.Join(s.dir, "skein"), Dir: s.dir}
	s.place(copyOf(*binary))
	s.logsOnFailure()
	for _, name := range []string{"lb1", "lb2", "lb3"} {
		_, err := s.fleet.Add(name)
		s.must(err)
	}
	s.bootOn(webOf, echoOf)
	old := s.host("old")
	serveEverywhere(s, old)
	s.trafficOn(s.grouped(3, "1s"))
	backup := s.keepalivedEvery("1", old, path, 3, 50, vip.String()+"/24")
	s.whole()
	others := func(name string) (names []string) {
		for _, n := range s.fleet.Nodes() {
			if n.Name != name {
				names = append(names, n.Name)
			}
		}
		return names
	}
	// Nobody but nodes of the cluster has answered since then.
	ours := func(what string, since time.Time) {
		t.Helper()
		for _, r := range s.watch.Timeline(s.world, since) {
			if slices.Contains(r.Holders, "old") {
				t.Errorf("%s: keepalived had the address for %v\n%s", what, r.To.Sub(r.From), timeline(s, since))
			}
		}
	}

	n := s.holding()
	since := time.Now()
	s.upgradedInTheGroup(n)
	s.nobodyNoticed("upgraded", since)
	ours("upgraded", since)

	since = time.Now()
	s.must(n.Host.PowerOff())
	s.until("another node holds the address", func() bool {
		h := s.holder()
		return h != "" && h != n.Name && h != "old"
	})
	o := s.settled(since)
	t.Logf("without power: outage %v, %d of %d requests failed; the machine stood still for %v", o.Length().Round(time.Millisecond), o.Failed, o.Requests, s.stalled(since))
	if s.stalled(since) < excuse {
		ours("without power", since)
	}
	s.must(n.Host.PowerOn())
	s.restart(n)
	s.whole()

	for range 2 {
		first := s.holder()
		to := others(first)[0]
		since := time.Now()
		s.skein(s.fleet.Node(first), "vip", "move", "public", to, "--no-wait")
		s.answers(to)
		s.nobodyNoticed("moved", since)
		ours("moved", since)
	}

	first := s.holder()
	since = time.Now()
	s.skein(s.fleet.Nodes()[0], "node", "drain", first, "--no-wait")
	s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != first })
	s.nobodyNoticed("drained", since)
	ours("drained", since)
	s.skein(s.fleet.Nodes()[1], "node", "enable", first)
	s.whole()

	// From here on the address is not this cluster's.
	s.must(unix.Kill(backup.Pid, unix.SIGTERM))
	master := s.keepalivedEvery("1", old, path, 3, 150, vip.String()+"/24")
	s.answers("old")
	var stands string
	s.wait("the status to say who is active", func(st *api.Status) bool {
		stands = st.VIPs[0].Holder
		return st.VIPs[0].VRRP.Standby() && st.VIPs[0].VRRP.Active == old.Addr.String()
	})
	ctx, cancel := context.WithTimeout(s.ctx, 3*patience)
	defer cancel()
	out, err := s.fleet.Node(stands).Skein(ctx, "vip", "move", "public", others(stands)[0])
	if err == nil || !strings.Contains(err.Error()+out, old.Addr.String()+", a router of VRRP group 51 that is not of this cluster, has the address") {
		t.Errorf("move what another router has: %v\n%s", err, out)
	}
	s.skein(s.fleet.Node(stands), "node", "drain", stands, "--no-wait")
	s.wait("another node to stand by", func(st *api.Status) bool {
		v := st.VIPs[0]
		return v.Holder != "" && v.Holder != stands && v.VRRP.Standby() && v.VRRP.Active == old.Addr.String()
	})
	if h := s.holder(); h != "old" {
		t.Errorf("%s answers for the address, want keepalived", h)
	}

	// Only one node is left that may have it, and it stops.
	for _, name := range others(stands) {
		if name != s.standsBy() {
			s.skein(s.fleet.Node(name), "node", "drain", name, "--no-wait")
		}
	}
	last := s.fleet.Node(s.standsBy())
	s.must(unix.Kill(master.Pid, unix.SIGTERM))
	s.answers(last.Name)
	s.keepalivedEvery("1", old, path, 3, 50, vip.String()+"/24")
	s.wait("a node to be active", func(st *api.Status) bool { return st.VIPs[0].Holder == last.Name && !st.VIPs[0].VRRP.Standby() })
	s.settled(time.Now())
	since = time.Now()
	s.must(last.Agent().Signal(unix.SIGTERM))
	s.answers("old")
	took := time.Since(since)
	o = s.settled(since)
	t.Logf("the last node stops: keepalived has the address after %v; outage %v; the machine stood still for %v", took.Round(time.Millisecond), o.Length().Round(time.Millisecond), s.stalled(since))
	if took > 3*time.Second {
		t.Errorf("keepalived has the address %v after an orderly stop: it has waited for its time-out", took)
	}
	if n, d := s.watch.TwoHolders(since); n > 1 {
		t.Errorf("two hosts answered in %d samples over %v", n, d)
	}
	s.ended(last)
}

// upgradedInTheGroup replaces the agent of n, the group's active router, by another process in place. Its guard goes on: in all the time, and until
// the group has heard of it twice more, nobody else speaks there, and it says no good-bye.
func (s *stage) upgradedInTheGroup(n *fleet.Node) {
	s.t.Helper()
	group := s.group()
	before := s.agentOf(n.Name).PID
	said := s.guardLog(n)
	s.place(copyOf(*binary))
	s.skein(n, "node", "upgrade", n.Name, "--drain", "1s")
	if after := s.agentOf(n.Name).PID; after == before {
		s.t.Errorf("process %d still runs the node", after)
	}
	upgraded := len(group())
	s.until("the group hears of its active router again", func() bool { return len(group()) >= upgraded+2 })
	for _, a := range group() {
		if a.from != n.Host.Addr || a.priority != 100 {
			s.t.Errorf("%v advertises priority %d, want nobody but %v with 100", a.from, a.priority, n.Host.Addr)
		}
	}
	more := strings.TrimPrefix(s.guardLog(n), said)
	for _, word := range []string{"guard runs", "vrrp router"} {
		if strings.Contains(more, word) {
			s.t.Errorf("the guard did not just go on:\n%s", more)
		}
	}
}

func (s *stage) guardLog(n *fleet.Node) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.Dir, "guard.log"))
	s.must(err)
	return string(b)
}

// advert is an advertisement that the client's host has heard.
type advert struct {
	from     netip.Addr
	priority uint8
}

// group listens to the VRRP group of the stage from now on, and returns what has been heard so far.
func (s *stage) group() func() []advert {
	s.t.Helper()
	c, err := s.client.ListenPacket(fmt.Sprintf("ip4:%d", vrrp.Protocol), "0.0.0.0")
	s.must(err)
	raw, err := c.(*net.IPConn).SyscallConn()
	s.must(err)
	var joined error
	s.must(raw.Control(func(fd uintptr) {
		joined = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: vrrp.Group4.As4(), Address: s.client.Addr.As4()})
	}))
	s.must(joined)
	var mu sync.Mutex
	var heard []advert
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return // it was closed
			}
			if ip, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP); ok && n >= 3 {
				mu.Lock()
				heard = append(heard, advert{ip.Unmap(), b[2]})
				mu.Unlock()
			}
		}
	}()
	s.t.Cleanup(func() { c.Close(); <-done })
	return func() []advert {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(heard)
	}
}

// standsBy is the node that has the lease of the address.
func (s *stage) standsBy() (name string) {
	s.t.Helper()
	s.wait("a node to have the lease", func(st *api.Status) bool {
		name = st.VIPs[0].Holder
		return name != ""
	})
	return name
}
