package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Cut stops what a sends to b.
func (w *World) Cut(a, b *Node, what cut) {
	w.Logf("cut %s -> %s%s", a.Name, b.Name, map[cut]string{cutStreams: " (tcp only)", cutDatagrams: " (udp only)"}[what])
	w.net.cut(a.addr.Addr(), b.addr.Addr(), what)
	w.reachable()
}

// Forget makes the connections that are open between a and b black holes; new ones work.
func (w *World) Forget(a, b *Node) {
	w.Logf("connections between %s and %s carry nothing any more", a.Name, b.Name)
	w.net.forget(a.addr.Addr(), b.addr.Addr())
}

// Partition lets only nodes of the same side talk.
func (w *World) Partition(side ...*Node) {
	var names []string
	for _, n := range side {
		names = append(names, n.Name)
	}
	w.Logf("partition: %v against the rest", names)
	for _, a := range w.Nodes {
		for _, b := range w.Nodes {
			if a != b && slices.Contains(side, a) != slices.Contains(side, b) {
				w.net.cut(a.addr.Addr(), b.addr.Addr(), cutAll)
			}
		}
	}
	w.reachable()
}

// Heal repairs the network.
func (w *World) Heal() {
	w.Logf("network healed")
	w.net.change(func() { clear(w.net.cuts); w.net.loss = 0 })
	w.reachable()
}

// Loss makes datagrams get lost, and some of the others late.
func (w *World) Loss(p float64) {
	w.Logf("datagram loss %.0f %%", 100*p)
	w.net.change(func() { w.net.loss = p })
}

// votes tells the world's judge who votes now: what the nodes say while all is well.
func (w *World) votes() { w.votesOf(w.running()[0]) }

// votesOf takes that node's word for it.
func (w *World) votesOf(n *Node) {
	clear(w.voters)
	for _, name := range n.report().Raft.Voters {
		w.voters[name] = true
	}
	w.reachable()
}

// reachable notes for every node whether it can exchange heartbeats with a majority of the voters.
func (w *World) reachable() {
	now := time.Now()
	for _, n := range w.Nodes {
		voters, heard := 0, 0
		for _, o := range w.Nodes {
			if len(w.voters) > 0 && !w.voters[o.Name] {
				continue
			}
			voters++
			w.net.mu.Lock()
			both := w.net.open(n.addr.Addr(), o.addr.Addr(), cutDatagrams) && w.net.open(o.addr.Addr(), n.addr.Addr(), cutDatagrams)
			w.net.mu.Unlock()
			if n == o || both && !o.paused {
				heard++
			}
		}
		w.mu.Lock()
		switch {
		case 2*heard > voters:
			n.cutSince = time.Time{}
		case n.cutSince.IsZero():
			n.cutSince = now
		}
		w.mu.Unlock()
	}
	w.pair.look()
}

// dice makes draws from the world's dice safe for other goroutines.
func dice[T any](w *World, draw func(*rand.Rand) T) func() T {
	return func() T {
		w.net.mu.Lock()
		defer w.net.mu.Unlock()
		return draw(w.net.rng)
	}
}
