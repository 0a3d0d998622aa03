package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
)

// alone waits until the survivor answers for every address of its own cluster, and nobody else does.
func alone(w *World, n *Node) {
	w.tb.Helper()
	w.Until(n.Name+" leads alone", 5*time.Second, func() bool { return n.report().Raft.State == "leader" })
	w.votes()
	w.Until(n.Name+" holds all", 15*time.Second, func() bool { return w.Holder("public") == n && w.Holder("inside") == n })
}

// leftBehind waits until a node that is back has heard that it was left behind.
func leftBehind(w *World, n *Node) {
	w.tb.Helper()
	w.Until(n.Name+" hears that it was left behind", 5*time.Second, func() bool {
		s := n.agent.State().Get().Superseded
		return s != nil
	})
	w.Until(n.Name+" leaves the log", time.Second, func() bool { return n.report().Raft.State == "shutdown" })
}

// Two of three nodes are lost, whichever. The third is recovered, has all that was acknowledged, and takes writes. The lost ones
// come back with their disks, one after the other or both at once, on a network that loses packets: together they are the old majority, and yet
// nobody but the survivor ever answers for an address, and the survivor's cluster takes no notice. Then they join anew.
func TestLostNodesComeBackAfterARecovery(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, 70+seed, 3, func(w *World, c *Clients) {
				left := w.Nodes[seed%3]
				var lost []*Node
				for _, n := range w.Nodes {
					c.Change(n)
					c.Visit(n)
					if n != left {
						lost = append(lost, n)
					}
				}
				c.Wait()
				w.Settled(10 * time.Second)
				lost[0].powerOff()
				lost[1].powerOff()
				w.Run(2 * time.Second)
				left.recover()
				alone(w, left)
				c.Check()
				if err := c.Apply(left, "# after the recovery\n"+edge); err != nil {
					w.Fatalf("the survivor takes no writes: %v", err)
				}
				if seed >= 3 {
					w.Loss(0.3)
				}
				lost[0].boot()
				if seed%2 == 0 {
					leftBehind(w, lost[0])
				}
				lost[1].boot()
				leftBehind(w, lost[0])
				leftBehind(w, lost[1])
				w.Run(10 * time.Second)
				if h := w.Holder("public"); h != left {
					w.Fatalf("%v holds the address", h)
				}
				if err := c.Weigh(lost[0], "s1"); err == nil {
					w.Fatalf("a node that was left behind takes writes")
				}
				if err := c.Weigh(left, "s2"); err != nil {
					w.Fatalf("the survivor takes no writes any more: %v", err)
				}
				lost[0].powerOff()
				lost[1].powerOff()
				w.Heal()
				c.Check()
			})
		})
	}
}

// Certificates and the keys of session tickets are sealed with a key that stands in no log. The survivor goes on with it: it shows what it
// showed before, its clients resume, and it takes and gives on what is new.
func TestASurvivorOpensItsCertificatesAndTickets(t *testing.T) {
	inBubble(t, 83, 3, func(w *World, c *Clients) {
		if err := importCert(w, w.Nodes[1], selfSigned(w, 1)); err != nil {
			w.Fatalf("import: %v", err)
		}
		if err := c.Apply(w.Nodes[1], edge+secure); err != nil {
			w.Fatalf("apply: %v", err)
		}
		first := shows(w, "1", w.Nodes...)
		left := w.Nodes[2]
		w.Nodes[0].powerOff()
		w.Nodes[1].powerOff()
		w.Run(2 * time.Second)
		left.recover()
		alone(w, left)
		if got := shows(w, "1", left); got != first {
			w.Fatalf("the survivor has another ticket key")
		}
		if err := importCert(w, left, selfSigned(w, 2)); err != nil {
			w.Fatalf("import: %v", err)
		}
		shows(w, "2", left)
		joined := w.Join("lb4", config.Balancer)
		if got := shows(w, "2", left, joined); got != first {
			w.Fatalf("a node that joined has changed the ticket key")
		}
		c.Check()
	})
}

// An operator recovers a node that is merely cut off: two clusters, and each serves its side. As soon as they hear each other the older
// one gives way.
func TestTheOlderClusterGivesWayWhereItHearsTheNewer(t *testing.T) {
	inBubble(t, 80, 3, func(w *World, c *Clients) {
		left := w.Nodes[2]
		w.Partition(left)
		w.Until("the others serve", 10*time.Second, func() bool { h := w.Holder("public"); return h != nil && h != left })
		w.overlooks(true)
		left.recover()
		w.Run(15 * time.Second)
		if !left.answersFor("public") || !w.Nodes[0].answersFor("public") && !w.Nodes[1].answersFor("public") {
			w.Fatalf("there are no two clusters")
		}
		w.Heal()
		w.Run(100 * time.Millisecond) // a heartbeat, and its answer
		w.overlooks(false)
		w.votesOf(left)
		leftBehind(w, w.Nodes[0])
		leftBehind(w, w.Nodes[1])
		w.Run(10 * time.Second)
		if h := w.Holder("public"); h != left {
			w.Fatalf("%v holds the address", h)
		}
		w.Nodes[0].powerOff()
		w.Nodes[1].powerOff()
		if err := c.Weigh(left, "s1"); err != nil {
			w.Fatalf("the newer cluster takes no writes: %v", err)
		}
	})
}

// The one voter of two nodes is lost, and the other one recovered. When the voter comes back it needs nobody's word to hold an address, and
// its guard has been running for long when its agent starts; but it listens first.
func TestALoneVoterThatWasLeftBehindListensFirst(t *testing.T) {
	inBubble(t, 81, 2, func(w *World, c *Clients) {
		voter, left := w.Nodes[0], w.Nodes[1]
		c.promises()
		w.Settled(10 * time.Second)
		voter.powerOff()
		left.recover()
		alone(w, left)
		voter.bootSlowly(3 * time.Second)
		leftBehind(w, voter)
		w.Run(10 * time.Second)
		voter.powerOff()
		c.Check()
	})
}

// Three of five are lost. The two that are left go on together, and grow.
func TestSurvivorsGoOnTogether(t *testing.T) {
	inBubble(t, 82, 5, func(w *World, c *Clients) {
		c.promises()
		w.Settled(10 * time.Second)
		for _, n := range w.Nodes[2:] {
			n.powerOff()
		}
		w.Run(2 * time.Second)
		w.Nodes[0].recover(w.Nodes[1].Name)
		w.votesOf(w.Nodes[0])
		w.Settled(20 * time.Second)
		c.Check()
		w.Nodes[4].boot()
		leftBehind(w, w.Nodes[4])
		w.Run(5 * time.Second)
		w.Nodes[4].powerOff()
		w.Settled(5 * time.Second)
	})
}
