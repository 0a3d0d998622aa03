package lab

import (
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// Two balancers and a witness. Whichever of the three is lost, one balancer holds the address, and never two nodes, and never the witness;
// the balancer that is alone lets go, though the clients see both.
func TestWitness(t *testing.T) {
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	for _, name := range []string{"lb1", "lb2"} {
		_, err := s.fleet.Add(name)
		s.must(err)
	}
	witness, err := s.fleet.AddWitness("witness1")
	s.must(err)
	s.stageOn(webOf, echoOf)
	s.whole()
	begin := time.Now()
	heal := func() { s.must(s.world.Heal()) }
	power := func(n *fleet.Node) { s.must(n.Host.PowerOn()); s.restart(n) }

	for _, c := range []struct {
		name string
		do   func(holder *fleet.Node) error
		undo func(holder *fleet.Node)
	}{
		{"power off", func(n *fleet.Node) error { return n.Host.PowerOff() }, power},
		{"cable", func(n *fleet.Node) error { return s.world.Unplug(n.Host) }, func(*fleet.Node) { heal() }},
		{
			"partition: the holder alone, both sides see the clients",
			func(n *fleet.Node) error { return s.world.Partition([]*lab.Host{n.Host}, s.others(n)) }, func(*fleet.Node) { heal() },
		},
	} {
		n, since := s.holding(), time.Now()
		s.must(c.do(n))
		t.Log(c.name)
		s.moves(n, since)
		after := s.holder()
		c.undo(n)
		s.whole()
		if h := s.holder(); h != after {
			t.Errorf("%s: when %s came back, the address moved from %s to %s", c.name, n.Name, after, h)
		}
		s.stays(since)
	}

	// The witness is lost: the two are a majority, and nothing moves.
	for _, c := range []struct {
		name string
		do   func() error
		undo func()
	}{
		{"witness: power off", witness.Host.PowerOff, func() { power(witness) }},
		{"witness: partition", func() error { return s.world.Partition([]*lab.Host{witness.Host}, s.others(witness)) }, heal},
	} {
		n, since := s.holding(), time.Now()
		s.must(c.do())
		s.wait("the balancers to miss the witness", func(st *api.Status) bool {
			for _, m := range st.Nodes {
				if m.Name == witness.Name {
					return st.AsOf.Node != witness.Name && !m.Alive && st.AsOf.Quorum
				}
			}
			return false
		})
		o := s.settled(since)
		if o.Failed > 0 && s.stalled(since) < excuse {
			t.Errorf("%s: %d of %d requests failed: %v", c.name, o.Failed, o.Requests, o.Errors)
		}
		c.undo()
		s.whole()
		if h := s.holder(); h != n.Name {
			t.Errorf("%s: the address moved from %s to %s", c.name, n.Name, h)
		}
		s.stays(since)
	}
	for _, r := range s.watch.Timeline(s.world, begin) {
		for _, h := range r.Holders {
			if h == witness.Name {
				t.Errorf("the witness answered for the address for %v", r.To.Sub(r.From))
			}
		}
	}
}
