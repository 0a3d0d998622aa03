package sim

import (
	"errors"
	"testing"
	"time"
)

// The holder cannot put the newest configuration in force, say because another program has a port there. The address goes to a node that
// has, once: the node that it left gets it back neither when it can again nor when the next configuration comes.
func TestAHolderThatCannotServeTheNewestConfigurationGivesTheAddressAway(t *testing.T) {
	inBubble(t, 300, 3, func(w *World, c *Clients) {
		w.Run(2 * time.Second)
		old, takes := w.Holder("public"), w.Takes("public")
		old.engine.refuse(errors.New("port 80 is taken"))
		c.Change(old)
		next, took := takenOver(w, "public", old, 5*time.Second)
		t.Logf("given away after %v", took)
		old.engine.refuse(nil)
		w.Run(10 * time.Second) // tried again meanwhile
		c.Change(next)
		w.Settled(10 * time.Second)
		if h := w.Holder("public"); h != next || w.Takes("public") != takes+1 {
			w.Fatalf("public is held by %s after %d moves, want %s after 1", h.Name, w.Takes("public")-takes, next.Name)
		}
	})
}

// No node can put the newest configuration in force. Nobody serves more than the holder, and nothing moves.
func TestAConfigurationThatFailsEverywhereMovesNothing(t *testing.T) {
	inBubble(t, 301, 3, func(w *World, c *Clients) {
		w.Run(2 * time.Second)
		old, takes := w.Holder("public"), w.Takes("public")
		for _, n := range w.Nodes {
			n.engine.refuse(errors.New("port 80 is taken"))
		}
		c.Change(old)
		w.Run(20 * time.Second)
		if h := w.Holder("public"); h != old || w.Takes("public") != takes {
			w.Fatalf("public moved %d times, to %s", w.Takes("public")-takes, h.Name)
		}
		for _, n := range w.Nodes {
			n.engine.refuse(nil)
		}
		w.Settled(10 * time.Second) // without another change
	})
}
