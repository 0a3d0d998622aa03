package state

// Adopt takes into the log what a node of a pair has done without it: it has taken a VIP from a node that was lost, at an epoch of a
// generation of its own. Placements from then on are of that generation, and so newer.
type Adopt struct {
	VIP    string
	Node   string
	Epoch  Epoch // at which the node holds the VIP
	Expect Epoch // of the placement that stands
}

func (Adopt) kind() kind { return kindAdopt }

func (v *View) adopt(c Adopt) Result {
	if c.Epoch.Generation > v.Cluster.Generation+maxGenerations {
		return refuse(Invalid, "generation %d is too far ahead of the cluster's, %d", c.Epoch.Generation, v.Cluster.Generation)
	}
	if c.Epoch.Compare(c.Expect) < 0 {
		return refuse(Invalid, "epoch %v is older than the placement that stands, %v", c.Epoch, c.Expect)
	}
	r := v.place(Place{VIP: c.VIP, Node: c.Node, Expect: c.Expect})
	if r.Code != OK {
		return r
	}
	p := v.Placements[c.VIP]
	p.Epoch, p.First = c.Epoch, false
	v.Placements = with(v.Placements, c.VIP, p)
	v.Cluster.Generation = max(v.Cluster.Generation, c.Epoch.Generation)
	return Result{Epoch: p.Epoch}
}

// maxGenerations bounds what one adoption can do to the generation: a node that was alone for long has taken a VIP not nearly so often.
const maxGenerations = 1 << 20
