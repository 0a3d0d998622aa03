package sim

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
)

// survivors are the nodes but one.
func (w *World) survivors(of *Node) (ns []*Node) {
	for _, n := range w.Nodes {
		if n != of {
			ns = append(ns, n)
		}
	}
	return ns
}

// holds moves the address to a node, if another one has it.
func holds(w *World, n *Node) {
	w.tb.Helper()
	if w.Holder("public") == n {
		return
	}
	cl := n.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := cl.MoveVIP(ctx, "public", api.MoveRequest{Node: n.Name}); err != nil {
		w.Fatalf("move: %v", err)
	}
	w.Until("it has moved", 10*time.Second, func() bool { return w.Holder("public") == n })
}

// All connections between two nodes die without a word, and a moment later the third node does, which holds the address and may lead. New
// connections work. To wait for answers over the old ones took two to four seconds.
func TestDeadConnectionsDoNotHoldUpATakeover(t *testing.T) {
	for _, before := range []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, time.Second, 3 * time.Second} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%v before, %d", before, seed), func(t *testing.T) {
				inBubble(t, 400+seed, 3, func(w *World, c *Clients) {
					old := w.Holder("public")
					// A former takeover leaves more than one connection ready.
					old.powerOff()
					w.Settled(10 * time.Second)
					old.boot()
					w.Settled(20 * time.Second)
					w.Run(7 * time.Second)
					old = w.Holder("public")
					two := w.survivors(old)
					diesAfter(w, before, old, two)
				})
			})
		}
	}
}

// The same, and the node that dies holds the address while one of the two others leads: entries and heartbeats of the leader go where
// nobody hears them.
func TestDeadConnectionsDoNotHoldUpAPlacement(t *testing.T) {
	for _, before := range []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, time.Second, 3 * time.Second} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%v before, %d", before, seed), func(t *testing.T) {
				inBubble(t, 430+seed, 3, func(w *World, c *Clients) {
					lead := w.Leader()
					old := w.survivors(lead)[0]
					holds(w, old)
					w.Settled(20 * time.Second)
					w.Run(7 * time.Second)
					two := w.survivors(old)
					if w.Leader() == old {
						w.Fatalf("%s leads", old.Name)
					}
					diesAfter(w, before, old, two)
				})
			})
		}
	}
}

// diesAfter lets all connections between the two survivors die, and some time later the holder, whose address is to be taken over all the same.
func diesAfter(w *World, before time.Duration, old *Node, two []*Node) {
	w.tb.Helper()
	w.Forget(two[0], two[1])
	w.Run(before)
	old.powerOff()
	_, took := takenOver(w, "public", old, 20*time.Second)
	w.tb.Logf("taken over after %v", took)
	if took > 750*time.Millisecond {
		w.Fatalf("taken over after %v", took)
	}
}

// The disk of the leader, which holds the address, fails while all its connections are dead without a word. It asks another one to lead
// and, until somebody does, nobody can place the address. To wait for the answer over such a connection took up to three seconds.
func TestDeadConnectionsDoNotHoldUpAFailedDisk(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, 460+seed, 3, func(w *World, c *Clients) {
				old := w.Leader()
				holds(w, old)
				w.Settled(20 * time.Second)
				w.Run(7 * time.Second)
				for _, n := range w.survivors(old) {
					w.Forget(old, n)
				}
				old.disk.fail()
				_ = c.Weigh(old, "s1") // who knows
				_, took := takenOver(w, "public", old, 20*time.Second)
				t.Logf("taken over after %v", took)
				if took > 750*time.Millisecond {
					w.Fatalf("taken over after %v", took)
				}
			})
		})
	}
}
