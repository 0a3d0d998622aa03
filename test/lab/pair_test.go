package lab

import (
	"fmt"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// newPair is a stage of two balancers that are a pair, and of a gateway that they ask.
func newPair(t *testing.T, mode string) (*stage, *lab.Host) {
	t.Helper()
	s := newWorld(t)
	gateway := s.host("gateway")
	s.head = fmt.Sprintf("cluster {\n  pair = %q\n", mode)
	if mode == "tiebreak" {
		s.head += fmt.Sprintf("  tiebreak = %q\n", gateway.Addr)
	}
	s.head += "}\n"
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	for _, name := range []string{"lb1", "lb2"} {
		_, err := s.fleet.Add(name)
		s.must(err)
	}
	s.stageOn(webOf, echoOf)
	s.ready()
	return s, gateway
}

// ready waits until each node of a pair could do without the other.
func (s *stage) ready() {
	s.t.Helper()
	s.wait("both nodes of the pair to be well", func(st *api.Status) bool {
		well := 0
		for _, n := range st.Nodes {
			if r := n.Report; r != nil && r.Guard.Fit && r.Guard.Pair != nil && r.Guard.Pair.Reaches && !r.Guard.Pair.Apart && r.Revision.Running == st.Revision.Number {
				well++
			}
		}
		return well == 2 && st.AsOf.Quorum
	})
}

// moves waits until another node than n answers for the address, and the client is served by it.
func (s *stage) moves(n *fleet.Node, since time.Time) {
	s.t.Helper()
	s.until("the other node holds the address", func() bool {
		h := s.holder()
		return h != "" && h != n.Name
	})
	o := s.settled(since)
	s.t.Logf("%s -> %s: outage %v, %d of %d requests failed; the machine stood still for %v", n.Name, s.holder(), o.Length().Round(100*time.Microsecond),
		o.Failed, o.Requests, s.stalled(since).Round(time.Millisecond))
}

// stays checks that nobody but the present holder answered since then.
func (s *stage) stays(since time.Time) {
	s.t.Helper()
	if n, d := s.watch.TwoHolders(since); n > 0 {
		s.t.Errorf("two nodes answered for the address in %d samples over %v\n%s", n, d, timeline(s, since))
	}
}

// A pair that asks a gateway when it can't hear itself: whatever is lost, one of the two goes on, and only one.
func TestPairWithATieBreak(t *testing.T) {
	s, gateway := newPair(t, "tiebreak")
	s.parts(
		part{"each takes over from the other", (*stage).pairTakesOver},
		part{"without its gateway", func(s *stage) { s.pairLosesItsGateway(gateway) }},
		part{"that does not see itself", (*stage).pairDoesNotSeeItself},
		part{"recovered", (*stage).pairIsRecovered},
	)
}

// A pair whose nodes each go on by themselves.
func TestPairThatIsAlwaysAvailable(t *testing.T) {
	s, _ := newPair(t, "available")
	s.parts(
		part{"an agent is killed", (*stage).pairLosesAnAgent},
		part{"recovered", (*stage).pairIsRecovered},
	)
}

// part is one of several things that happen to a stage, one after the other.
type part struct {
	name string
	play func(*stage)
}

// parts plays them until one fails.
func (s *stage) parts(ps ...part) {
	t := s.t
	defer func() { s.t = t }()
	for _, p := range ps {
		if !t.Run(p.name, func(t *testing.T) { s.t = t; p.play(s) }) {
			return
		}
	}
}

// pairTakesOver: each node loses the other: power off, and a cable. The survivor takes the address while it reaches the gateway, and keeps it
// when the other one comes back; the log, of which one node has the only vote, hears of it when that one is back.
func (s *stage) pairTakesOver() {
	t := s.t
	for _, name := range []string{"lb1", "lb2", "lb1"} {
		n := s.fleet.Node(name)
		if s.holder() != name {
			t.Fatalf("the address is held by %s, want %s", s.holder(), name)
		}
		since := time.Now()
		s.must(n.Host.PowerOff())
		s.moves(n, since)
		after := s.holder()
		s.must(n.Host.PowerOn())
		s.restart(n)
		s.ready()
		s.wait("the log to know who holds the address", func(st *api.Status) bool {
			return len(st.VIPs) == 1 && st.VIPs[0].Placed == after && st.VIPs[0].Holder == after
		})
		if h := s.holder(); h != after {
			t.Errorf("when %s came back, the address moved from %s to %s", name, after, h)
		}
		s.stays(since)
	}
	n := s.holding()
	since := time.Now()
	s.must(s.world.Unplug(n.Host))
	s.moves(n, since)
	s.must(s.world.Heal())
	s.ready()
	s.stays(since)
}

// pairDoesNotSeeItself: both reach the gateway and the clients, and not each other: the limit of a pair. Both hold the address; when they
// are on one segment again one of them lets go.
func (s *stage) pairDoesNotSeeItself() {
	n := s.holding()
	since := time.Now()
	s.must(s.world.Partition([]*lab.Host{n.Host}, s.others(n)))
	s.until("both hold the address", func() bool {
		two, _ := s.watch.TwoHolders(since)
		return two > 0
	})
	s.must(s.world.Heal())
	s.ready()
	healed := time.Now()
	s.settled(healed)
	s.stays(healed)
	s.wait("the log to know who holds the address", func(st *api.Status) bool {
		return len(st.VIPs) == 1 && st.VIPs[0].Placed == st.VIPs[0].Holder && st.VIPs[0].Holder == s.holder()
	})
}

// pairLosesItsGateway: the gateway is gone and the nodes hear each other: nothing moves, and an alarm says what would happen.
func (s *stage) pairLosesItsGateway(gateway *lab.Host) {
	n := s.holding()
	since := time.Now()
	s.must(s.world.Partition([]*lab.Host{gateway}, []*lab.Host{n.Host, s.others(n)[0]}))
	s.wait("the nodes to miss the gateway", func(st *api.Status) bool {
		return st.Verdict == api.Degraded && len(st.VIPs) == 1 && st.VIPs[0].Holder == n.Name
	})
	s.stays(since)
	s.must(s.world.Heal())
	s.ready()
}

// pairLosesAnAgent: the agent of the node that votes is killed: its guard says so, and the other one takes the address without the log.
func (s *stage) pairLosesAnAgent() {
	t := s.t
	n := s.fleet.Node("lb1")
	if s.holder() != n.Name {
		t.Fatalf("the address is held by %s", s.holder())
	}
	since := time.Now()
	s.must(n.Kill())
	s.moves(n, since)
	s.wait("the survivor to say that nothing can be changed", func(st *api.Status) bool { return st.Cluster.Pair != nil && st.Cluster.Pair.ReadOnly })
	s.restart(n)
	s.ready()
	s.stays(since)
}
