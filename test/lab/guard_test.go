package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

var vip6 = netip.MustParseAddr("2001:2::100")

// TestIPv6Failover has one address of either family in a VIP and a server that is reached by IPv6: whatever happens to the holder,
// both move together, at most one node answers for either, and clients of both are served.
func TestIPv6Failover(t *testing.T) {
	s := newCluster(t, webOf, echoOf)
	watch6 := &lab.ARPWatch{Addr: vip6}
	watcher := s.host("watcher6")
	s.background("the watcher of IPv6", func(ctx context.Context) error { return watch6.Run(ctx, watcher) })
	text := fmt.Sprintf(`vip "public" { address = ["%v/24", "%v/64"] }
frontend "shop" {
  vip     = "public"
  http    = 80
  backend = "shop"
  route "literal" {
    host = "[%v]"
    path = "/literal"
    respond { status = 204 }
  }
}
backend "shop" {
  check "http" {
    path     = "/healthz"
    interval = "500ms"
    timeout  = "400ms"
  }
  server "six" { address = "[%v]:%d" }
}
`, vip, vip6, vip6, s.world.Hosts()[3].Addr6, webPort)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.must(s.fleet.Nodes()[0].Apply(ctx, text, "both families"))
	s.until("somebody holds both addresses", func() bool { return s.holder() != "" && watch6.Holder(s.world) == s.holder() })
	s.held()
	load6 := &lab.Load{Target: netip.AddrPortFrom(vip6, 80)}
	s.load = &lab.Load{Target: netip.AddrPortFrom(vip, 80)}
	s.control = &lab.Load{Target: s.servers[0].addr, KeepAlive: true, Every: 10 * time.Millisecond, Deadline: 10 * time.Second}
	s.start = time.Now()
	for _, l := range []*lab.Load{s.load, load6, s.control} {
		s.background("the client", func(ctx context.Context) error { return l.Run(ctx, s.client) })
	}
	s.begins()
	client := http.Client{Transport: &http.Transport{DialContext: s.client.Dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get(fmt.Sprintf("http://[%v]/literal", vip6))
	s.must(err)
	if answer.Body.Close(); answer.StatusCode != http.StatusNoContent {
		t.Errorf("the route for the literal address answered %s, want 204", answer.Status)
	}
	for _, c := range []struct {
		name string
		do   func(*fleet.Node) error
		undo func(*fleet.Node)
	}{
		{"agent killed", (*fleet.Node).Kill, s.restart},
		{"power off", func(n *fleet.Node) error { return n.Host.PowerOff() }, func(n *fleet.Node) { s.must(n.Host.PowerOn()); s.restart(n) }},
		{"agent and guard stopped", func(n *fleet.Node) error { return n.Host.Signal(unix.SIGSTOP) }, func(n *fleet.Node) { s.must(n.Host.Signal(unix.SIGCONT)) }},
	} {
		n, since := s.holding(), time.Now()
		s.must(c.do(n))
		s.until("another node holds both addresses", func() bool {
			h := watch6.Holder(s.world)
			return h != "" && h != n.Name && s.holder() == h
		})
		four := s.settled(since)
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		six, err := load6.Record.Settled(ctx, since, calm)
		cancel()
		s.must(err)
		c.undo(n)
		s.whole()
		t.Logf("%s: outage of IPv4 %v, of IPv6 %v", c.name, four.Length().Round(time.Millisecond), six.Length().Round(time.Millisecond))
		for _, w := range []*lab.ARPWatch{s.watch, watch6} {
			// The kernel may answer for what is left of the gate of a whole host that was stopped: see vip/DESIGN.md.
			if k, d := w.TwoHolders(since); k > 0 && d > 100*time.Millisecond {
				t.Errorf("%s: two nodes answered for %v in %d samples over %v", c.name, w.Addr, k, d)
			}
		}
	}
}

// TestSecondHeartbeatLink cuts the holder off from the other nodes on the first link. Clients still reach it, and so do the others'
// guards over the second link: nothing moves, nothing fails, and the status says what is broken. The same when the second link fails.
func TestSecondHeartbeatLink(t *testing.T) {
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	second, err := s.world.AddSegment("second", netip.MustParsePrefix("198.18.1.0/24"))
	s.must(err)
	for i, name := range []string{"lb1", "lb2", "lb3"} {
		n, err := s.fleet.Add(name, fmt.Sprintf("heartbeat = %q", fmt.Sprintf("198.18.1.%d", i+1)))
		s.must(err)
		_, err = second.Attach(n.Host, "eth1")
		s.must(err)
	}
	s.stageOn(webOf, echoOf)
	s.whole()
	// The nodes learn one another's second address from the log.
	linked := func(up bool) func(*api.Status) bool {
		return func(st *api.Status) bool {
			for _, n := range st.Nodes {
				if n.Report == nil || len(n.Report.Peers) != 2 {
					return false
				}
				for _, p := range n.Report.Peers {
					if len(p.Links) != 2 || p.Links[0].Up != up && n.Name == s.holder() || !p.Links[1].Up && up {
						return false
					}
				}
			}
			return true
		}
	}
	s.wait("every node to be heard over both links", linked(true))

	n, since := s.holding(), time.Now()
	s.must(s.world.Partition([]*lab.Host{n.Host}, s.others(n)))
	alarmed := func(link string) func() bool {
		return func() bool {
			ctx, cancel := context.WithTimeout(s.ctx, patience)
			defer cancel()
			st, err := n.Status(ctx)
			if err != nil {
				return false
			}
			for _, a := range st.Alarms {
				if strings.Contains(a.What, "is not heard over heartbeat link "+link) {
					return true
				}
			}
			return false
		}
	}
	s.until("the holder says that the first link is silent", alarmed("1"))
	time.Sleep(2 * time.Second) // for what must not happen: others elect, and must leave the address where it is
	s.must(s.world.Heal())
	s.wait("all to be well", linked(true))
	s.whole()
	if h := s.holder(); h != n.Name {
		t.Errorf("the address moved from %s to %s though the second link worked", n.Name, h)
	}

	s.must(second.Plug(n.Host, false))
	s.until("the holder says that the second link is silent", alarmed("2"))
	s.must(second.Plug(n.Host, true))
	s.wait("all to be well", linked(true))
	if o, stalled := s.settled(since), s.stalled(since); o.Failed > 0 && (stalled < excuse || o.Failed > o.Errors["timeout"]) {
		t.Errorf("%d of %d requests failed while a link was cut: %v\n%s", o.Failed, o.Requests, o.Errors, s.failures(since))
	}
	if h := s.holder(); h != n.Name {
		t.Errorf("the address moved from %s to %s", n.Name, h)
	}
	if k, d := s.watch.TwoHolders(since); k > 0 {
		t.Errorf("two nodes answered for the address in %d samples over %v\n%s", k, d, timeline(s, since))
	}
}

// TestMeddling does to the holder of an address of either family what network managers and firewalls do. Each time the clients are served again, by
// this node or by another, both addresses are answered for by one node, and never do two answer for either.
func TestMeddling(t *testing.T) {
	s := newCluster(t, webOf, echoOf)
	watch6 := &lab.ARPWatch{Addr: vip6}
	watcher := s.host("watcher6")
	s.background("the watcher of IPv6", func(ctx context.Context) error { return watch6.Run(ctx, watcher) })
	s.trafficOn(strings.Replace(s.config(), fmt.Sprintf(`"%v/24"`, vip), fmt.Sprintf(`["%v/24", "%v/64"]`, vip, vip6), 1))
	s.whole()
	own6 := func(n *fleet.Node) error { return n.Host.AddAddr(netip.PrefixFrom(n.Host.Addr6, lab.Subnet6.Bits())) } // which goes with the interface
	for _, c := range []struct {
		name  string
		do    func(*fleet.Node) error
		undo  func(*fleet.Node) error
		moves bool // to another node
		says  string
	}{
		{"address removed", func(n *fleet.Node) error { return n.Host.DelAddr(netip.PrefixFrom(vip, 32)) }, nil, false, "address removed by somebody else"},
		{"IPv6 address removed", func(n *fleet.Node) error { return n.Host.DelAddr(netip.PrefixFrom(vip6, 128)) }, nil, false, "address removed by somebody else"},
		{"nft flush ruleset", func(n *fleet.Node) error { return n.Host.FlushRules() }, nil, false, "rules were removed by somebody else"},
		{"sysctl reset", func(n *fleet.Node) error { return n.Host.Sysctl("net.ipv4.conf.eth0.arp_ignore", "0") }, nil, false, "sysctl reset by somebody else"},
		{
			"interface down", func(n *fleet.Node) error { return n.Host.SetLink(lab.Interface, false) },
			func(n *fleet.Node) error { return errors.Join(n.Host.SetLink(lab.Interface, true), own6(n)) }, true, "is down",
		},
		{
			"IPv6 disabled", func(n *fleet.Node) error { return n.Host.Sysctl("net.ipv6.conf.eth0.disable_ipv6", "1") },
			func(n *fleet.Node) error {
				return errors.Join(n.Host.Sysctl("net.ipv6.conf.eth0.disable_ipv6", "0"), own6(n))
			}, true, "IPv6 is disabled on eth0",
		},
	} {
		n, since := s.holding(), time.Now()
		s.must(c.do(n))
		if c.moves {
			s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != n.Name })
		}
		s.until("the guard says so: "+c.says, func() bool {
			b, err := os.ReadFile(filepath.Join(n.Dir, "guard.log"))
			return err == nil && strings.Contains(string(b), c.says)
		})
		o := s.settled(since)
		s.until("both addresses are answered for by one node after: "+c.name, func() bool { h := watch6.Holder(s.world); return h != "" && h == s.holder() })
		if c.undo != nil {
			s.must(c.undo(n))
		}
		s.whole()
		t.Logf("%s: outage %v, %d of %d requests failed, held by %s then %s", c.name, o.Length().Round(time.Millisecond), o.Failed, o.Requests, n.Name, s.holder())
		if h := s.holder(); !c.moves && h != n.Name {
			t.Errorf("%s: the address moved from %s to %s", c.name, n.Name, h)
		}
		for _, w := range []*lab.ARPWatch{s.watch, watch6} {
			if k, d := w.TwoHolders(since); k > 0 {
				t.Errorf("%s: two nodes answered for %v in %d samples over %v\n%s", c.name, w.Addr, k, d, timeline(s, since))
			}
		}
	}
}

// TestBootBeforeTheNetwork starts a node whose host has no network yet: no interface that is up, no address. It says what it waits
// for, and takes part as soon as that comes.
func TestBootBeforeTheNetwork(t *testing.T) {
	s := newStage(t)
	s.whole()
	n := s.fleet.Node("lb3")
	if s.holder() == n.Name {
		n = s.fleet.Node("lb2")
	}
	since := time.Now()
	s.must(n.Host.Kill())
	own := netip.PrefixFrom(n.Host.Addr, lab.Subnet.Bits())
	s.must(n.Host.DelAddr(own))
	s.must(n.Host.SetLink(lab.Interface, false))
	s.restart(n)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	waits := fmt.Sprintf("%v (advertise) is not an address of this host", n.Host.Addr)
	s.until("it says what it waits for", func() bool {
		st, err := n.Status(ctx)
		if err != nil {
			return false
		}
		for _, a := range st.Alarms {
			if strings.Contains(a.What, waits) {
				return true
			}
		}
		return false
	})
	s.until("its log says so too", func() bool {
		return strings.Contains(n.LogTail(1000), "waiting for the network")
	})
	s.must(n.Host.SetLink(lab.Interface, true))
	s.must(n.Host.AddAddr(own))
	s.whole()
	if !strings.Contains(n.LogTail(1000), "the network is there") {
		t.Error("its log does not say that the network came")
	}
	if o := s.settled(since); o.Failed > 0 && s.stalled(since) < excuse {
		t.Errorf("%d of %d requests failed: %v", o.Failed, o.Requests, o.Errors)
	}
}

// TestOverload burns the machine with two busy processes for each of its cores: nothing is wrong with any node, so nothing may move.
func TestOverload(t *testing.T) {
	s := newStage(t)
	s.whole()
	n, since := s.holding(), time.Now()
	epoch := s.epoch()
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		s.must(cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
	wait := time.NewTimer(*overload)
	defer wait.Stop()
	<-wait.C
	o := s.settled(since)
	if h := s.holder(); h != n.Name {
		t.Errorf("the address moved from %s to %s", n.Name, h)
	}
	if now := s.epoch(); now != epoch {
		t.Errorf("the address was placed anew: epoch %s, was %s", now, epoch)
	}
	if k, d := s.watch.TwoHolders(since); k > 0 {
		t.Errorf("two nodes answered for the address in %d samples over %v\n%s", k, d, timeline(s, since))
	}
	var none time.Duration
	for _, r := range s.watch.Timeline(s.world, since) {
		if len(r.Holders) == 0 {
			none = max(none, r.To.Sub(r.From))
		}
	}
	for _, m := range s.back().Nodes {
		g := m.Report.Guard
		t.Logf("%s: %s; woke up to %.1f ms late %s", m.Name, g.Profile, g.LatenessMs, g.ProfileWhy)
	}
	t.Logf("%v with %d burners: %d of %d requests failed (%v), nobody answered for at most %v, the machine stood still for %v", *overload,
		2*runtime.NumCPU(), o.Failed, o.Requests, o.Errors, none, s.stalled(since))
}

// epoch is that of the placement of the address.
func (s *stage) epoch() string {
	s.t.Helper()
	st := s.wait("a placement", func(st *api.Status) bool { return len(st.VIPs) == 1 && st.VIPs[0].Epoch != "" })
	return st.VIPs[0].Epoch
}
