package lab

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
)

// TestMovesInAVRRPGroup has three nodes in a group with a keepalived of lower priority, at one advertisement a second: whoever listens first
// needs 3.6 s, and a good-bye brings keepalived in after 0.8 s. The nodes are one router to the group: the address moves and a node is
// drained without a failed request, and a node without power is followed as without a group. A keepalived of higher priority takes the
// address; then there is nothing to move, and a drain gives the standing by to another node. The last node that may hold the
// address is stopped: keepalived has it after its skew time.
func TestMovesInAVRRPGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes on a network of their own: not with -short")
	}
	path := find(t, "keepalived")["keepalived"]
	s := newCluster(t, webOf, echoOf)
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
	since := time.Now()
	s.skein(s.fleet.Nodes()[0], "node", "drain", first, "--no-wait")
	s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != first })
	s.nobodyNoticed("drained", since)
	ours("drained", since)
	s.skein(s.fleet.Nodes()[1], "node", "enable", first)
	s.whole()

	n := s.holding()
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

// standsBy is the node that has the lease of the address.
func (s *stage) standsBy() (name string) {
	s.t.Helper()
	s.wait("a node to have the lease", func(st *api.Status) bool {
		name = st.VIPs[0].Holder
		return name != ""
	})
	return name
}
