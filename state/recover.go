package state

import (
	"maps"
	"net/netip"
	"slices"
)

// Recover makes the nodes in Keep the whole cluster, after an operator has declared the others lost. It stands in no log: a survivor
// carries it out on what it has, and begins a new log with what comes of it. Everything but members, keys and placements stays.
//
// Placements from then on are of a generation that no lost node can have reached, nor anybody who has read Above on a disk.
type Recover struct {
	Keep      []string
	Above     uint64 // a generation that was seen elsewhere
	Gossip    []byte // keys that only the survivors know
	Heartbeat []byte
}

func (Recover) kind() kind { return kindRecover }

// Former is a node that the cluster was recovered without. Should it come back with what it has, it is told so, under the keys that
// it knows.
type Former struct {
	Name      string
	Advertise netip.AddrPort
	Heartbeat []netip.Addr `json:",omitempty"` // of its further links
	Keys      [][]byte     // of heartbeats, that it knows
}

// maxTaken is more often than a node of a pair takes addresses by itself before an operator recovers the other one; each time
// raises its generation by one.
const maxTaken = 1 << 16

// maxFormer bounds the nodes that are told; the oldest are forgotten first.
const maxFormer = 32

func (v *View) recover(c Recover) Result {
	for _, name := range c.Keep {
		if _, ok := v.node(name); !ok {
			return refuse(UnknownNode, "node %q is not a member", name)
		}
	}
	if len(c.Keep) == 0 {
		return refuse(Invalid, "a cluster of no nodes cannot go on")
	}
	if r := checkKeys(c.Gossip, c.Heartbeat); r.Code != OK {
		return r
	}
	step := uint64(1)
	if v.Pair() {
		step = maxTaken
	}
	generation := max(v.Cluster.Generation, c.Above) + step
	if generation > v.Cluster.Generation+2*maxGenerations {
		return refuse(Invalid, "generation %d is too far ahead of the cluster's, %d", generation, v.Cluster.Generation)
	}

	var nodes []Node
	removed, former := maps.Clone(v.Removed), slices.Clone(v.Former)
	if removed == nil {
		removed = map[string]string{}
	}
	for _, n := range v.Nodes {
		if slices.Contains(c.Keep, n.Name) {
			nodes = append(nodes, n)
			continue
		}
		for _, f := range append([]string{n.Fingerprint}, n.Former...) {
			removed[f] = n.Name
		}
		former = append(former, Former{Name: n.Name, Advertise: n.Advertise, Heartbeat: n.Heartbeat, Keys: v.Keys.Heartbeat})
		v.forgetNode(n.Name)
	}
	v.Nodes, v.Removed, v.Former = nodes, removed, former[max(0, len(former)-maxFormer):]
	v.Keys = Keys{Gossip: [][]byte{c.Gossip}, Heartbeat: [][]byte{c.Heartbeat}}
	v.Cluster.Generation = generation
	v.Placements = map[string]Placement{} // each is made anew, and claimed as if nobody had held the address: somebody lost may
	return Result{Epoch: Epoch{generation, v.Index}}
}

// forgetFormer ends the telling of whoever had the name or the address of n, which is a member now.
func (v *View) forgetFormer(n Node) {
	v.Former = slices.DeleteFunc(slices.Clone(v.Former), func(f Former) bool { return f.Name == n.Name || f.Advertise == n.Advertise })
}
