package sim

import (
	"net/netip"
	"time"
)

// link is a VIP in a host's kernel: it answers while the address is there and the gate is open.
type link struct{ since, until, gate time.Time }

// longestLease bounds every lease and every life of an open gate: vip.maxPromise.
const longestLease = time.Second

// Send, Put, Take and Gate make a Node the edge of its guard.
func (n *Node) Send(to netip.AddrPort, b []byte) { n.w.net.send(n.heartbeats(), to, b) }

func (n *Node) Put(name string, life time.Duration) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	l := n.link(name)
	if now := time.Now(); !l.until.After(now) {
		n.w.takes[name]++
		n.w.Logf("%s takes %s", n.Name, name)
		l.since = now
	}
	l.until = time.Now().Add(life)
	n.w.judge(n, name)
}

func (n *Node) Take(name string) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if l := n.link(name); l.until.After(time.Now()) {
		n.w.Logf("%s lets go of %s", n.Name, name)
	}
	n.link(name).until = time.Time{}
}

func (n *Node) Gate(name string, life time.Duration) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.link(name).gate = time.Now().Add(life)
	n.w.judge(n, name)
}

func (n *Node) link(name string) *link {
	if n.links[name] == nil {
		n.links[name] = &link{}
	}
	return n.links[name]
}

// answers is whether a client's ARP request for the VIP is answered by this host's kernel. w.mu is held.
func (n *Node) answers(name string) bool {
	l, now := n.links[name], time.Now()
	return l != nil && l.until.After(now) && l.gate.After(now)
}

// judge is called with w.mu held whenever a node begins or goes on to answer.
func (w *World) judge(n *Node, name string) {
	if !n.answers(name) || w.split {
		return
	}
	if w.pair != nil && !w.pair.over {
		w.pair.judge(n, name)
		return
	}
	for _, o := range w.Nodes {
		if o != n && o.answers(name) {
			w.violated("%s and %s both answer for %s", n.Name, o.Name, name)
		}
	}
	if at := n.cutSince; !at.IsZero() && time.Since(at) > longestLease {
		w.violated("%s answers for %s, but has been without a majority for %v", n.Name, name, time.Since(at))
	}
}

// Holder is who answers for a VIP now; nil: nobody.
func (w *World) Holder(name string) *Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.Nodes {
		if n.answers(name) {
			return n
		}
	}
	return nil
}

// Takes is how often a node put the VIP on its link.
func (w *World) Takes(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.takes[name]
}
