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
		w.Until("every node's status says so", 5*time.Second, func() bool {
			return !slices.ContainsFunc(w.Nodes, func(n *Node) bool {
				return !slices.ContainsFunc(n.status().Alarms, func(a api.Alarm) bool {
					return strings.HasPrefix(a.What, idle.Name+" was lost 3 times within 10m0s: it gets addresses only when no other node can, until ")
				})
			})
		})
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

// Three addresses of a group are moved by an operator, to each node and by way of each: they go together and once each, the operator is told
// so, and each is served for as long as was asked for. Then their node stops, and the next one loses its power: together again. The leader, who
// sees them move one by one, used to put the first of them back, or to move the others itself, so that the operator was refused.
func TestAGroupMovesTogether(t *testing.T) {
	inBubble(t, 74, 3, func(w *World, c *Clients) {
		group := []string{"public", "inside", "third"}
		text := strings.NewReplacer(`"192.0.2.10/24" }`, "\"192.0.2.10/24\"\n  group = \"all\"\n}", `"192.0.2.11/24" }`, "\"192.0.2.11/24\"\n  group = \"all\"\n}\n"+
			"vip \"third\" {\n  address = \"192.0.2.12/24\"\n  group = \"all\"\n}", `["public", "inside"]`, `["public", "inside", "third"]`,
			`vip "public" { `, "vip \"public\" {\n  ", `vip "inside" { `, "vip \"inside\" {\n  ").Replace(edge)
		if err := c.Apply(w.Nodes[0], text); err != nil {
			w.Fatalf("apply: %v", err)
		}
		c.conf = text
		together := func() *Node {
			h := w.Holder(group[0])
			for _, name := range group[1:] {
				if w.Holder(name) != h {
					return nil
				}
			}
			return h
		}
		w.Until("one node has all", 20*time.Second, func() bool { return together() != nil })
		w.Settled(10 * time.Second)
		const drain = 7 * time.Minute
		for i := range 12 {
			via, to := w.Nodes[i%3], w.Nodes[(i/3+i)%3]
			if to == together() {
				to = w.Nodes[(i/3+i+1)%3]
			}
			before := map[string]int{}
			for _, name := range group {
				before[name] = w.Takes(name)
			}
			m, err := via.move(group[i%3], to.Name, drain)
			if err != nil {
				w.Fatalf("move %d, to %s by way of %s: %v", i, to.Name, via.Name, err)
			}
			w.Settled(10 * time.Second)
			if h := together(); h != to || len(m.VIPs) != len(group) {
				w.Fatalf("move %d, to %s by way of %s: the answer has %d addresses, and they are on %v", i, to.Name, via.Name, len(m.VIPs), h)
			}
			for _, name := range group {
				if n := w.Takes(name) - before[name]; n != 1 {
					w.Fatalf("move %d, to %s by way of %s: %s moved %d times", i, to.Name, via.Name, name, n)
				}
				if p := to.view().Placements[name]; p.Drain != drain {
					w.Fatalf("move %d, to %s by way of %s: what is established to %s has %v, want %v", i, to.Name, via.Name, name, p.Drain, drain)
				}
			}
		}
		for _, end := range []func(*Node){(*Node).stop, (*Node).powerOff} {
			n := together()
			before := map[string]int{}
			for _, name := range group {
				before[name] = w.Takes(name)
			}
			end(n)
			w.Until("another node has all", 10*time.Second, func() bool { h := together(); return h != nil && h != n })
			w.Settled(10 * time.Second)
			for _, name := range group {
				if took := w.Takes(name) - before[name]; took != 1 {
					w.Fatalf("%s is gone, and %s moved %d times", n.Name, name, took)
				}
			}
			if n.up {
				n.startAgent()
			} else {
				n.boot()
			}
			w.Settled(20 * time.Second)
		}
		c.Check()
	})
}

// move is what an operator types on a node.
func (n *Node) move(vip, to string, drain time.Duration) (*api.Moved, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := n.client()
	defer c.Close()
	return c.MoveVIP(ctx, vip, api.MoveRequest{Node: to, DrainSeconds: drain.Seconds()})
}
