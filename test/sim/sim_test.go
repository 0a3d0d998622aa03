package sim

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs a scenario in virtual time, from the moment on at which all addresses are answered for.
func inBubble(t *testing.T, seed uint64, size int, f func(w *World, c *Clients)) {
	t.Helper()
	inYoungBubble(t, seed, size, func(w *World, c *Clients) {
		w.Settled(20 * time.Second)
		f(w, c)
	})
}

// inYoungBubble runs one that begins before that.
func inYoungBubble(t *testing.T, seed uint64, size int, f func(w *World, c *Clients)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := New(t, seed, size)
		defer w.Close()
		c := newClients(w)
		c.start()
		f(w, c)
	})
}

// takenOver waits until somebody but old answers for the address, and returns who and after how long. No moment may have two.
func takenOver(w *World, name string, old *Node, limit time.Duration) (*Node, time.Duration) {
	w.tb.Helper()
	begin := time.Now()
	for {
		if h := w.Holder(name); h != nil && h != old {
			return h, time.Since(begin)
		}
		if time.Since(begin) > limit {
			w.Fatalf("nobody else answers for %s after %v", name, limit)
		}
		w.Run(time.Millisecond)
	}
}

// promises makes some of each kind.
func (c *Clients) promises() {
	for _, n := range c.w.running() {
		c.Change(n)
		c.Wait() // else all but one are stale
		c.WeighSoon(n, "s1")
		c.Visit(n)
		c.Wait()
	}
}

// The holder loses its power. Another node is elected and answers for its addresses at once; the host comes back later, catches up,
// and gets nothing back, since who is well is left alone.
func TestAHostThatLosesItsPowerIsReplacedAndComesBackByItself(t *testing.T) {
	inBubble(t, 1, 3, func(w *World, c *Clients) {
		old := w.Holder("public")
		c.promises()
		old.powerOff()
		next, _ := takenOver(w, "public", old, 150*time.Millisecond)
		w.Settled(5 * time.Second)
		c.Check()
		old.boot()
		w.Settled(5 * time.Second)
		if h := w.Holder("public"); h != next {
			w.Fatalf("%s came back and %s no longer holds public, but %v", old.Name, next.Name, h)
		}
		c.Check()
	})
}

// The agent of the holder is killed; its guard lives, lets go and says so. No detection time passes. The agent comes back, finds its
// guard, and takes nothing from the successor.
func TestAKilledAgentCostsNoDetectionTime(t *testing.T) {
	inBubble(t, 2, 3, func(w *World, c *Clients) {
		old := w.Holder("public")
		old.killAgent()
		next, took := takenOver(w, "public", old, 50*time.Millisecond)
		w.Run(2 * time.Second)
		old.revive()
		w.Settled(5 * time.Second)
		if h := w.Holder("public"); h != next {
			w.Fatalf("the address moved back to %s", h.Name)
		}
		t.Logf("taken over after %v", took)
	})
}

// The agent of the holder, which leads, is stopped; its guard lives. Nobody is served by a node that hangs, so its guard lets go, another
// node leads and answers. The agent runs on and finds all of that changed.
func TestAHungAgentCostsItsNodeTheAddress(t *testing.T) {
	inBubble(t, 10, 3, func(w *World, c *Clients) {
		old := w.Holder("public")
		old.hang(true)
		next, took := takenOver(w, "public", old, 300*time.Millisecond)
		w.Run(4 * time.Second)
		old.hang(false)
		w.Settled(10 * time.Second)
		if h := w.Holder("public"); h != next {
			w.Fatalf("the address moved back to %s", h.Name)
		}
		c.Reload(old)
		t.Logf("taken over after %v", took)
	})
}

// An operator stops the holder's agent. The address is elsewhere before the agent ends, and hardly anybody notices.
func TestAPlannedStopHandsTheAddressOverFirst(t *testing.T) {
	inBubble(t, 3, 3, func(w *World, c *Clients) {
		old := w.Holder("public")
		gap := 0
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			old.stop()
		}()
		for range 300 {
			w.Run(time.Millisecond)
			if w.Holder("public") == nil {
				gap++
			}
		}
		<-ended
		if h := w.Holder("public"); h == nil || h == old {
			w.Fatalf("nobody took over")
		}
		if gap > 30 {
			w.Fatalf("nobody answered for %d ms", gap)
		}
		t.Logf("nobody answered for %d ms", gap)
		old.revive()
		w.Settled(5 * time.Second)
	})
}

// Agent and guard of the holder are stopped for a while, as a snapshot of a virtual machine does. Its kernel stops to answer by itself;
// when it runs on, its lease is gone, and it does not answer for a moment together with its successor.
func TestAStoppedHolderNeverAnswersWithItsSuccessor(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Millisecond, 70 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second, 20 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			inBubble(t, uint64(d), 3, func(w *World, c *Clients) {
				old := w.Holder("public")
				old.pause()
				w.Run(d)
				if d >= 200*time.Millisecond && (w.Holder("public") == nil || w.Holder("public") == old) {
					w.Fatalf("nobody took over in %v", d)
				}
				old.resume()
				w.Settled(10 * time.Second)
			})
		})
	}
}

// The holder is cut off: altogether, so that it hears nobody, or so that nobody hears it. Each way it lets go before somebody else
// answers, and somebody else does; after the heal there is one.
func TestAHolderThatIsCutOffLetsGoFirst(t *testing.T) {
	for _, c := range []struct {
		name    string
		in, out bool
	}{{"altogether", true, true}, {"hears nobody", true, false}, {"is heard by nobody", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, 4, 3, func(w *World, cl *Clients) {
				old := w.Holder("public")
				for _, n := range w.Nodes {
					if n != old && c.in {
						w.Cut(n, old, cutAll)
					}
					if n != old && c.out {
						w.Cut(old, n, cutAll)
					}
				}
				_, took := takenOver(w, "public", old, time.Second)
				t.Logf("taken over after %v", took)
				w.Run(5 * time.Second)
				w.Heal()
				w.Settled(10 * time.Second)
				cl.Reload(old)
			})
		})
	}
}

// Nobody reaches anybody. Nobody holds anything, nothing is acknowledged, reads go on; after the heal all is well by itself.
func TestWithoutAMajorityNothingIsHeldAndNothingAcknowledged(t *testing.T) {
	inBubble(t, 5, 3, func(w *World, c *Clients) {
		c.promises()
		before := c.acked
		for _, n := range w.Nodes {
			w.Partition(n)
		}
		w.Run(longestLease)
		if h := w.Holder("public"); h != nil {
			w.Fatalf("%s still answers", h.Name)
		}
		for _, n := range w.Nodes {
			if err := c.Weigh(n, "s2"); err == nil {
				w.Fatalf("%s acknowledged a weight", n.Name)
			}
			if r := n.report(); r.Revision.Running == 0 {
				w.Fatalf("%s cannot be read: %+v", n.Name, r)
			}
		}
		if c.acked != before {
			w.Fatalf("%d promises were made", c.acked-before)
		}
		w.Heal()
		took := w.Settled(10 * time.Second)
		c.Check()
		t.Logf("settled %v after the heal", took)
	})
}

// Raft's connections to the leader, which also holds the addresses, break; heartbeats go on. Another node leads, and the addresses
// stay where they are.
func TestAChangeOfLeaderAloneMovesNoAddress(t *testing.T) {
	inBubble(t, 6, 3, func(w *World, c *Clients) {
		old := w.Leader()
		if h := w.Holder("public"); h != old {
			w.Fatalf("%s leads, %s holds", old.Name, h.Name)
		}
		takes := w.Takes("public") + w.Takes("inside")
		for _, n := range w.Nodes {
			if n != old {
				w.Cut(n, old, cutStreams)
				w.Cut(old, n, cutStreams)
			}
		}
		w.Until("another node leads", 10*time.Second, func() bool { l := w.Leader(); return l != nil && l != old })
		w.Run(3 * time.Second)
		w.Heal()
		w.Settled(10 * time.Second)
		if n := w.Takes("public") + w.Takes("inside"); n != takes || w.Holder("public") != old {
			w.Fatalf("an address moved")
		}
	})
}

// A change of servers touches no address, from whichever node it comes; taking one address out of the configuration touches that one.
func TestAReloadTouchesNoAddressThatDidNotChange(t *testing.T) {
	inBubble(t, 7, 3, func(w *World, c *Clients) {
		for _, n := range w.Nodes {
			c.Reload(n)
		}
		takes, holder := w.Takes("public"), w.Holder("public")
		text := strings.Replace(edge, `vip "inside" { address = "192.0.2.11/24" }`, "", 1)
		text = strings.Replace(text, `["public", "inside"]`, `["public"]`, 1)
		if err := c.Apply(w.Nodes[2], text); err != nil {
			w.Fatalf("take out an address: %v", err)
		}
		w.Run(time.Second)
		if h := w.Holder("inside"); h != nil {
			w.Fatalf("%s still answers for what was taken out", h.Name)
		}
		if w.Takes("public") != takes || w.Holder("public") != holder {
			w.Fatalf("the address that stayed was touched")
		}
		w.Settled(5 * time.Second)
	})
}

// All hosts lose their power at once and come back one after the other. The cluster needs nobody, and nothing is lost.
func TestEveryHostLosesItsPowerAndTheClusterComesBackByItself(t *testing.T) {
	inBubble(t, 8, 3, func(w *World, c *Clients) {
		c.promises()
		for _, n := range w.Nodes {
			n.powerOff()
		}
		w.Run(10 * time.Second)
		for _, n := range w.Nodes {
			n.boot()
			w.Run(700 * time.Millisecond)
		}
		took := w.Settled(15 * time.Second)
		c.Check()
		t.Logf("settled %v after the last boot", took)
	})
}

// A guard is killed. Its address stays behind in the kernel, which stops to answer; the agent starts another guard, which finds the
// network as a newcomer does. There is never a second holder.
func TestAKilledGuardIsReplaced(t *testing.T) {
	inBubble(t, 9, 3, func(w *World, c *Clients) {
		old := w.Holder("public")
		old.crashGuard()
		_, took := takenOver(w, "public", old, 500*time.Millisecond)
		w.Settled(5 * time.Second)
		t.Logf("taken over after %v", took)
	})
}
