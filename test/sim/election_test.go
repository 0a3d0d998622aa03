package sim

import (
	"fmt"
	"testing"
	"time"
)

// The leader and holder loses its power while every disk is slow, as those of a busy machine are. What is left of a fail-over is
// detection and few writes, one after the other: nobody stands beside somebody who is about to win.
func TestASlowDiskCostsAFailOverFewWrites(t *testing.T) {
	for _, takes := range []time.Duration{0, 10 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond} {
		t.Run(takes.String(), func(t *testing.T) {
			for seed := range uint64(4) {
				inBubble(t, 100+seed, 3, func(w *World, c *Clients) {
					w.Run(500 * time.Millisecond) // everybody has applied everything
					for _, n := range w.Nodes {
						n.disk.slow(takes)
					}
					old := w.Holder("public")
					old.powerOff()
					_, took := takenOver(w, "public", old, 3*time.Second)
					t.Logf("taken over after %v", took)
					if most := 85*time.Millisecond + 5*takes; took > most {
						t.Errorf("seed %d: taken over after %v, want at most %v", 100+seed, took, most)
					}
				})
			}
		})
	}
}

// The leader and holder loses its power at the moment in which a change is acknowledged. The one who comes first may not have it, and
// then cannot be elected; the other one stands as soon as it knows that.
func TestALateFollowerDoesNotHoldUpAnElection(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, 200+seed, 3, func(w *World, c *Clients) {
				old := w.Holder("public")
				var first *Node
				for _, n := range w.Nodes {
					if n != old && first == nil {
						first = n
					}
				}
				w.Cut(old, first, cutStreams)
				if err := c.Weigh(old, "s1"); err != nil {
					w.Fatalf("a weight: %v", err)
				}
				old.powerOff()
				_, took := takenOver(w, "public", old, 3*time.Second)
				t.Logf("taken over after %v", took)
				if took > 120*time.Millisecond {
					t.Errorf("taken over after %v", took)
				}
			})
		})
	}
}
