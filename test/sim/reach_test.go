package sim

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Connections between the two followers break, heartbeats go on: as long as the leader lives nothing else tells that these two could not
// elect. Both say so, and stop when it is mended. A node that is gone is not one that cannot be reached.
func TestVotersThatCannotTalkSaySoBeforeItMatters(t *testing.T) {
	inBubble(t, 301, 3, func(w *World, c *Clients) {
		old := w.Leader()
		var two []*Node
		for _, n := range w.Nodes {
			if n != old {
				two = append(two, n)
			}
		}
		// says returns how often n's alarms name the other one as not reached.
		says := func(n, other *Node) int {
			count := 0
			for _, a := range n.report().Alarms {
				if strings.HasPrefix(a.What, other.Name+" is heard, but has not been reached") {
					count++
				}
			}
			return count
		}
		reached := func(n, other *Node) bool {
			for _, p := range n.report().Peers {
				if p.Name == other.Name {
					return p.Reached != nil && *p.Reached
				}
			}
			return false
		}
		all := func() bool {
			return !slices.ContainsFunc(w.Nodes, func(n *Node) bool {
				return slices.ContainsFunc(w.Nodes, func(o *Node) bool { return n != o && !reached(n, o) })
			})
		}
		w.Until("all are reached", 10*time.Second, all)
		w.Cut(two[0], two[1], cutStreams)
		w.Cut(two[1], two[0], cutStreams)
		w.Until("both say so", 15*time.Second, func() bool { return says(two[0], two[1]) == 1 && says(two[1], two[0]) == 1 })
		if reached(two[0], two[1]) || !reached(two[0], old) || w.Leader() != old {
			w.Fatalf("reached: the other %v, the leader %v; %s leads, %s did", reached(two[0], two[1]), reached(two[0], old), w.Leader().Name, old.Name)
		}
		w.Heal()
		w.Until("all are reached again", 10*time.Second, all)
		if n := says(two[0], two[1]) + says(two[1], two[0]); n != 0 {
			w.Fatalf("%d alarms of what is mended", n)
		}

		two[1].powerOff()
		w.Until("it is not reached", 10*time.Second, func() bool { return !reached(two[0], two[1]) })
		w.Run(20 * time.Second)
		if n := says(two[0], two[1]); n != 0 {
			w.Fatalf("%d alarms that a dead node is not reached", n)
		}
		two[1].boot()
		for range 200 { // while it comes back either
			w.Run(50 * time.Millisecond)
			if n := says(two[0], two[1]); n != 0 {
				w.Fatalf("an alarm while the node comes back")
			}
		}
		w.Until("it is reached again", 10*time.Second, all)
		c.promises()
	})
}
