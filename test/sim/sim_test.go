package sim

import (
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs a scenario in virtual time.
func inBubble(t *testing.T, seed uint64, size int, f func(w *World, c *Clients)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := New(t, seed, size)
		defer w.Close()
		c := newClients(w)
		c.start()
		f(w, c)
	})
}

// The holder loses its power. Another node is elected and answers for its addresses at once; the host comes back later, catches up,
// and gets nothing back, since who is well is left alone.
func TestAHostThatLosesItsPowerIsReplacedAndComesBackByItself(t *testing.T) {
	inBubble(t, 1, 3, func(w *World, c *Clients) {
		old := w.Holder("public")
		if err := c.Weigh(w.Nodes[1], "s1"); err != nil {
			w.Fatalf("set a weight: %v", err)
		}
		c.Visit(w.Nodes[2])
		c.Wait()
		old.powerOff()
		w.Until("somebody else answers", 150*time.Millisecond, func() bool { return w.Holder("public") != nil && w.Holder("inside") != nil })
		next := w.Holder("public")
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
