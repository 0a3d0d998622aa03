package state

import (
	"maps"
	"slices"
	"time"
)

// Move gives a VIP to another node while its holder is well: what the holder has established stays there until it ends, for Drain at
// the longest. Asked says that an operator named the node.
type Move struct {
	VIP    string
	Node   string
	Expect Epoch // of the placement that stands
	Drain  time.Duration
	Asked  bool
}

// SetNode takes a node out of service, for the leader to give its VIPs away, or puts it back.
type SetNode struct {
	Name    string
	Drained bool
	Drain   time.Duration // how long what it serves may take
	By      string
	At      time.Time
}

// Drained is a node that an operator has taken out of service: it gets no VIP, and leads only when nobody else can.
type Drained struct {
	Drain time.Duration // how long what it serves may take
	By    string
	At    time.Time // by the proposer's clock, for people only
}

// Bounds of what is established before a move. Longer than MaxDrain nobody waits for a connection: the rules that hand its packets on
// cost every packet of the address a little.
const (
	DefaultDrain = 5 * time.Minute
	MaxDrain     = 24 * time.Hour
	maxRing      = 9 // nodes that have held a VIP, each of which adds a hop to a packet that belongs to none of them
)

func (v *View) move(c Move) Result {
	old, placed := v.Placements[c.VIP]
	switch {
	case c.Drain <= 0 || c.Drain > MaxDrain:
		return refuse(Invalid, "what is established may take up to %v, not %v", MaxDrain, c.Drain)
	case v.Scope.HasVIP(c.VIP) && !placed:
		return refuse(StaleEpoch, "vip %q is on no node, so it cannot be moved from one", c.VIP)
	case placed && old.Node == c.Node && old.Epoch == c.Expect:
		return refuse(Invalid, "vip %q is on %s already", c.VIP, c.Node)
	case isDrained(v, c.Node):
		return refuse(Invalid, "node %q is drained; `skein node enable %s` puts it back", c.Node, c.Node)
	}
	r := v.place(Place{VIP: c.VIP, Node: c.Node, Expect: c.Expect})
	if r.Code != OK {
		return r
	}
	p := v.Placements[c.VIP]
	p.Drain, p.Asked = c.Drain, c.Asked
	v.Placements = with(v.Placements, c.VIP, p)
	return r
}

func (v *View) setNode(c SetNode) Result {
	if _, ok := v.Node(c.Name); !ok {
		return refuse(UnknownNode, "node %q is not a member", c.Name)
	}
	if !c.Drained {
		v.Drained = maps.Clone(v.Drained)
		delete(v.Drained, c.Name)
		return Result{}
	}
	if c.Drain <= 0 || c.Drain > MaxDrain {
		return refuse(Invalid, "what is established may take up to %v, not %v", MaxDrain, c.Drain)
	}
	v.Drained = with(v.Drained, c.Name, Drained{Drain: c.Drain, By: c.By, At: c.At.UTC()})
	return Result{}
}

// forgetNode drops what was said of a node that is removed.
func (v *View) forgetNode(name string) {
	if isDrained(v, name) {
		v.Drained = maps.Clone(v.Drained)
		delete(v.Drained, name)
	}
}

func isDrained(v *View, node string) bool {
	_, drained := v.Drained[node]
	return drained
}

// join returns ring with node in it, as its newest if it was not. The oldest goes when there are too many.
func join(ring []string, node string) []string {
	if slices.Contains(ring, node) {
		return ring
	}
	ring = append(slices.Clone(ring), node)
	return ring[max(0, len(ring)-maxRing):]
}
