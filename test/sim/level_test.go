package sim

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/state"
)

// upgrade ends a node's agent as an operator does and starts one of another version: level is what it applies, 0: all.
func (n *Node) upgrade(level int) {
	n.w.Logf("%s gets a version of level %d", n.Name, level)
	n.stop()
	n.level = level
	n.startAgent()
}

// newer proposes, on a node, what versions of the first level do not know, and changes nothing but the log.
func (n *Node) newer() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	me, _ := n.view().Node(n.Name)
	return n.node.Propose(ctx, state.PutNode{Node: me, Level: 2})
}

// A cluster of the version before is upgraded node by node. While one old node is a member, be it away, nothing is written that it
// would not know, and everything else works; with the last one upgraded the level rises by itself.
func TestAClusterOfTwoVersionsWorksTogetherAtTheOldersLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewAt(t, 61, 3, 1)
		defer w.Close()
		c := newClients(w)
		c.start()
		lb1, lb2, lb3 := w.Nodes[0], w.Nodes[1], w.Nodes[2]
		refused := func(on *Node, why string) {
			t.Helper()
			if err := on.newer(); !errors.Is(err, state.ErrTooEarly) || !strings.Contains(err.Error(), why) {
				w.Fatalf("a newer command on %s: %v, want a refusal that says %q", on.Name, err, why)
			}
		}
		for _, n := range []*Node{lb1, lb2} {
			n.upgrade(0)
			w.Settled(10 * time.Second)
			w.Run(10 * time.Second)
			if got := n.view().Level(); got != 1 {
				w.Fatalf("the cluster is at level %d while lb3 is old", got)
			}
		}
		refused(lb1, "lb3 runs a version that applies up to level 1")
		refused(lb2, "`skein cluster upgrade`")
		c.promises()
		lb3.powerOff()
		w.Run(10 * time.Second)
		refused(lb1, "lb3 is away, and may come back with an older version")
		c.promises()
		lb3.boot()
		w.Settled(10 * time.Second)
		w.Run(10 * time.Second) // gossip hears of it
		refused(lb1, "lb3 runs a version that applies up to level 1")

		lb3.upgrade(0)
		w.Until("the level is raised", 20*time.Second, func() bool { return lb1.view().Level() == 2 && lb3.view().Level() == 2 })
		if err := lb2.newer(); err != nil {
			w.Fatalf("a newer command with all upgraded: %v", err)
		}
		c.promises()
		w.Settled(10 * time.Second)
		c.Check()
	})
}

// Somebody puts the version before on the holder, and the log is at a newer level by now. It stops: no state of its own making, no
// address; it says why. Upgraded again it has what all have.
func TestANodeTooOldForItsLogHoldsNothingAndComesBackWithANewerVersion(t *testing.T) {
	inBubble(t, 62, 3, func(w *World, c *Clients) {
		old := w.Holder("public")
		c.promises()
		old.upgrade(1)
		w.Until("it says so", 5*time.Second, func() bool { return old.report().Outdated != "" })
		r := old.report()
		if r.Guard.Fit || len(r.VIPs) > 0 || len(r.Alarms) == 0 || !strings.Contains(r.Alarms[0].What, "of level 2") && !strings.Contains(r.Alarms[0].What, "level 2; ") {
			w.Fatalf("it reports fit %v, %v, alarms %+v", r.Guard.Fit, r.VIPs, r.Alarms)
		}
		w.Until("another one holds it", 5*time.Second, func() bool { h := w.Holder("public"); return h != nil && h != old })
		for _, n := range w.Nodes {
			if n != old {
				c.Change(n)
				c.Wait()
			}
		}
		w.Run(10 * time.Second)
		if old.report().Outdated == "" || old.view().Founded() {
			w.Fatalf("it has gone on")
		}
		old.upgrade(0)
		w.Settled(10 * time.Second)
		c.promises()
		w.Settled(10 * time.Second)
		c.Check()
	})
}
