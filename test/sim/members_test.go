package sim

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
)

func voters(n *Node) []string { return n.report().Raft.Voters }

// Two voters would stop when either dies. So the second node does not vote: it may come and go, and the first goes on. A third makes
// three voters.
func TestTheSecondNodeVotesOnlyOnceThereIsAThird(t *testing.T) {
	inBubble(t, 21, 2, func(w *World, c *Clients) {
		lb1, lb2 := w.Nodes[0], w.Nodes[1]
		w.Run(5 * time.Second)
		if got := voters(lb1); !slices.Equal(got, []string{"lb1"}) {
			w.Fatalf("of two nodes %v vote", got)
		}
		lb2.powerOff()
		c.promises()
		if w.Holder("public") != lb1 {
			w.Fatalf("lb1 lost its address with a node that does not vote")
		}
		lb2.boot()
		w.Settled(5 * time.Second)
		w.Join("lb3", config.Balancer)
		w.Until("three vote", 10*time.Second, func() bool { return len(voters(lb1)) == 3 })
		w.votes()
		w.Run(2 * time.Second) // the others hear of it
		set := lb1.agent.State().Get().VotersIndex
		for _, n := range w.Nodes {
			if got := n.agent.State().Get().VotersIndex; got == 0 || got != set {
				w.Fatalf("the guard of %s knows the voters as of index %d, lb1's as of %d", n.Name, got, set)
			}
		}
		if w.Holder("public") != lb1 {
			w.Fatalf("lb1 lost its address to a new voter")
		}
		lb1.powerOff()
		takenOver(w, "public", lb1, 200*time.Millisecond)
		c.Check()
	})
}

// A cluster grows from one node to five as fast as a script can do it. Each new voter raises the number of grants that the holder needs,
// and a guard that has just started grants nothing; yet the address stays where it is, without a moment's gap.
func TestGrowingNeverCostsTheHolderItsAddress(t *testing.T) {
	inBubble(t, 26, 1, func(w *World, c *Clients) {
		first := w.Nodes[0]
		stop := make(chan struct{})
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					if h := w.Holder("public"); h != first {
						w.violate("lb1 does not answer any more")
					}
				}
			}
		}()
		for _, name := range []string{"lb2", "lb3", "lb4", "lb5"} {
			w.Join(name, config.Balancer)
		}
		w.Until("five vote", 20*time.Second, func() bool { return len(voters(first)) == 5 })
		w.Run(2 * time.Second)
		close(stop)
		<-watched
		w.votes()
		w.Settled(5 * time.Second)
		first.powerOff()
		takenOver(w, "public", first, 150*time.Millisecond)
	})
}

// A third, tiny voter next to two balancers: it makes the majority when one of them dies, and never holds an address itself.
func TestAWitnessVotesAndNeverHolds(t *testing.T) {
	inBubble(t, 22, 2, func(w *World, c *Clients) {
		witness := w.Join("lb3", config.Witness)
		w.Until("three vote", 10*time.Second, func() bool { return len(voters(w.Nodes[0])) == 3 })
		w.votes()
		w.Run(time.Second)
		first := w.Holder("public")
		first.powerOff()
		second, took := takenOver(w, "public", first, 3*time.Second)
		t.Logf("taken over after %v", took)
		second.powerOff()
		w.Run(5 * time.Second)
		if h := w.Holder("public"); h != nil {
			w.Fatalf("%s answers", h.Name)
		}
		first.boot()
		w.Until("a balancer answers again", 10*time.Second, func() bool { return w.Holder("public") == first })
		second.boot()
		w.Settled(10 * time.Second)
		if len(witness.report().VIPs) > 0 {
			w.Fatalf("the witness holds %v", witness.report().VIPs)
		}
		c.Check()
	})
}

// Gossip believes for minutes that a node is dead. It still votes: who votes is decided by operators alone.
func TestGossipNeverChangesTheVoters(t *testing.T) {
	inBubble(t, 23, 3, func(w *World, c *Clients) {
		lb1, lb3 := w.Nodes[0], w.Nodes[2]
		before := voters(lb1)
		lb3.powerOff()
		w.Run(2 * time.Minute)
		if got := voters(lb1); !slices.Equal(got, before) {
			w.Fatalf("voters %v became %v", before, got)
		}
		lb3.boot()
		w.Settled(10 * time.Second)
	})
}

// The holder is removed from the cluster. Its address goes to a member; what it has (certificate, keys) opens nothing any more, whether
// its agent runs on or comes back from a restart.
func TestARemovedNodeIsRefusedFromThenOn(t *testing.T) {
	inBubble(t, 24, 4, func(w *World, c *Clients) {
		old := w.Holder("public")
		var via *Node
		for _, n := range w.Nodes {
			if n != old {
				via = n
			}
		}
		cl := via.client()
		defer cl.Close()
		if _, err := cl.RemoveNode(context.Background(), old.Name); err != nil {
			w.Fatalf("remove %s: %v", old.Name, err)
		}
		w.Logf("%s removed", old.Name)
		_, took := takenOver(w, "public", old, 5*time.Second)
		t.Logf("taken over after %v", took)
		w.Until("it votes no more", 20*time.Second, func() bool { return !slices.Contains(voters(via), old.Name) })
		w.Run(time.Second)
		c.Change(via)
		c.Wait()
		w.Run(5 * time.Second)
		seen := old.view().Index
		old.powerOff()
		c.promises()
		old.boot()
		w.Run(15 * time.Second)
		if got := old.view().Index; got > seen {
			w.Fatalf("the removed node still gets the log: index %d, was %d", got, seen)
		}
		for _, p := range via.report().Peers {
			if p.Name == old.Name {
				w.Fatalf("%s still hears its heartbeats: %+v", via.Name, p)
			}
		}
		if w.Holder("public") == old || w.Holder("inside") == old {
			w.Fatalf("the removed node answers for an address")
		}
		err := c.Weigh(old, "s1")
		if err == nil {
			w.Fatalf("the removed node acknowledged a change")
		}
	})
}

// The disk of the leader, which holds the addresses, fails one write. The node acknowledges nothing from then on, though the disk looks
// well again; another one leads and answers for the addresses. A restart, which reads everything again, makes it a member as before.
func TestADiskThatFailedOnceAcknowledgesNothingAgain(t *testing.T) {
	inBubble(t, 25, 3, func(w *World, c *Clients) {
		c.promises()
		old := w.Leader()
		old.disk.fail()
		w.Logf("%s disk fails", old.Name)
		_ = c.Weigh(old, "s1") // who knows
		takenOver(w, "public", old, 5*time.Second)
		old.disk.mend()
		for range 5 {
			if err := c.Weigh(old, "s2"); err == nil {
				w.Fatalf("%s acknowledged a change after its disk failed", old.Name)
			}
			w.Run(time.Second)
		}
		if l := w.Leader(); l == nil || l == old {
			w.Fatalf("nobody else leads")
		}
		c.Wait()
		old.killAgent()
		old.revive()
		w.Settled(10 * time.Second)
		c.Check()
	})
}

// A node whose disk has failed let go of what it held when it did, and does not hear where that went: it has nothing to wait for when it stops.
func TestANodeWithAFailedDiskStopsAtOnce(t *testing.T) {
	inBubble(t, 61, 3, func(w *World, c *Clients) {
		for _, n := range w.Nodes {
			n.drain = 10 * time.Second
			n.stop()
			n.revive()
			w.Settled(10 * time.Second)
		}
		old := w.Leader()
		old.disk.fail()
		_ = c.Weigh(old, "s1") // who knows
		w.Until("another node has the address", 10*time.Second, func() bool { h := w.Holder("public"); return h != nil && h != old })
		begin := time.Now()
		old.stop()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it stopped after %v, and waited for addresses that others have", took)
		}
	})
}
