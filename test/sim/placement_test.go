package sim

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
)

// A node that has nothing to hold, and so nothing to wait for when it stops, is restarted four times within a minute: that is somebody at
// work. Then its agent is killed three times, and it is flapping.
func TestOnlyLossesThatNobodyAskedForMakeANodeFlap(t *testing.T) {
	inBubble(t, 71, 3, func(w *World, c *Clients) {
		flapping := func() (names []string) { // as any node has counted, whoever leads
			for _, n := range w.running() {
				for _, name := range n.report().Flapping {
					if !slices.Contains(names, name) {
						names = append(names, name)
					}
				}
			}
			return names
		}
		again := func(n *Node, end func()) {
			end()
			w.Run(3 * time.Second)
			n.startAgent()
			w.Settled(20 * time.Second)
		}
		idle := w.Nodes[slices.IndexFunc(w.Nodes, func(n *Node) bool {
			return n != w.Holder("public") && n != w.Holder("inside") && n != w.Leader()
		})]
		for range 4 {
			again(idle, idle.stop)
		}
		if f := flapping(); len(f) > 0 {
			w.Fatalf("after restarts %v flap", f)
		}
		for range 3 {
			if f := flapping(); len(f) > 0 {
				w.Fatalf("too early %v flap", f)
			}
			again(idle, idle.killAgent)
		}
		w.Until("it is flapping", 5*time.Second, func() bool { return slices.Equal(flapping(), []string{idle.Name}) })
		c.promises()
		w.Settled(10 * time.Second) // a node that is just back hears of a commit with the next entries
		c.Check()
	})
}

// status is the whole cluster as a node tells it; empty when it does not answer.
func (n *Node) status() *api.Status {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c := n.client()
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return &api.Status{}
	}
	return s
}

// The preferred node of an address with failback comes back. Until its time is over the leader says when the address goes back, as any node
// tells, and then it does.
func TestEveryNodeTellsWhenAnAddressGoesBack(t *testing.T) {
	inBubble(t, 72, 3, func(w *World, c *Clients) {
		first := w.Holder("public")
		text := strings.Replace(edge, `"192.0.2.10/24" }`, "\"192.0.2.10/24\"\n  prefer = \""+first.Name+"\"\n  failback = \"30s\"\n}", 1)
		text = strings.Replace(text, `vip "public" { `, "vip \"public\" {\n  ", 1)
		if err := c.Apply(w.Nodes[1], text); err != nil {
			w.Fatalf("apply: %v", err)
		}
		c.conf = text
		w.Settled(10 * time.Second)
		told := func(n *Node) *api.Return {
			for _, v := range n.status().VIPs {
				if v.Name == "public" {
					return v.Returns
				}
			}
			return nil
		}
		if r := told(first); r != nil {
			w.Fatalf("it is where it belongs, and goes to %+v", r)
		}
		first.powerOff()
		second, _ := takenOver(w, "public", first, 10*time.Second)
		w.Run(5 * time.Second)
		if r := told(second); r != nil {
			w.Fatalf("%s is away, and the address goes back: %+v", first.Name, r)
		}
		first.boot()
		w.Settled(20 * time.Second)
		w.Until("all tell", 10*time.Second, func() bool {
			return !slices.ContainsFunc(w.Nodes, func(n *Node) bool {
				r := told(n)
				return r == nil || r.Node != first.Name || r.InMs <= 0 || r.InMs > 30_000
			})
		})
		left := time.Duration(told(second).InMs) * time.Millisecond
		took := w.Until("it has gone back", 40*time.Second, func() bool { return w.Holder("public") == first })
		if took < left-time.Second || took > left+time.Second {
			w.Fatalf("it was to go back in %v, and did in %v", left, took)
		}
		w.Settled(10 * time.Second)
		if r := told(second); r != nil {
			w.Fatalf("it has gone back, and still will: %+v", r)
		}
		c.Check()
	})
}

// A node that stops gives its address away while it is still fit, and the address prefers it: it has been well for longer than failback
// says. It goes once, whoever leads, and comes back when the node is well again for so long. The leader used to send it back at
// once, again and again until the node had stopped.
func TestAnAddressDoesNotGoBackToANodeThatStops(t *testing.T) {
	for _, leads := range []bool{true, false} {
		inBubble(t, 73, 3, func(w *World, c *Clients) {
			for _, n := range w.Nodes {
				n.stop()
				n.drain = 2 * time.Second
				n.startAgent()
				w.Settled(20 * time.Second)
			}
			w.Run(5 * time.Second) // the last one has handed leadership on when it stopped
			first := w.Nodes[slices.IndexFunc(w.Nodes, func(n *Node) bool { return (n == w.Leader()) == leads })]
			text := strings.Replace(edge, `"192.0.2.10/24" }`, "\"192.0.2.10/24\"\n  prefer = \""+first.Name+"\"\n  failback = \"5s\"\n}", 1)
			text = strings.Replace(text, `vip "public" { `, "vip \"public\" {\n  ", 1)
			if err := c.Apply(first, text); err != nil {
				w.Fatalf("apply: %v", err)
			}
			c.conf = text
			w.Until("the preferred node has it", 20*time.Second, func() bool { return w.Holder("public") == first })
			w.Settled(10 * time.Second)
			w.Run(10 * time.Second)
			led, takes := w.Leader() == first, w.Takes("public") // as a rule it is as it was
			first.stop()
			w.Settled(10 * time.Second)
			if n := w.Takes("public") - takes; n != 1 {
				w.Fatalf("%s stopped (it led: %v), and the address moved %d times; want once", first.Name, led, n)
			}
			first.startAgent()
			w.Settled(20 * time.Second)
			if w.Holder("public") == first {
				w.Fatalf("it went back at once")
			}
			w.Until("it has gone back", 20*time.Second, func() bool { return w.Holder("public") == first })
			c.Check()
		})
	}
}
