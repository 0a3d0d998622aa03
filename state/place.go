package state

import "slices"

// NodeHealth is what the leader's node knows of a node.
type NodeHealth struct {
	Alive bool // false only when its death is confirmed, not when it merely has not been heard
	Fit   bool // it serves traffic
}

// Placements returns what the leader, self, has to propose so that every VIP is held by a node that can: nothing when all is
// well.
//
// A VIP that nobody holds goes to the leader, or, when the leader cannot hold it, to the first fit node of prefer, then of all
// by name. A VIP whose holder is dead, unfit or no longer a balancer of this cluster goes to the first fit node of prefer, then
// to the leader, then to the first by name. A holder that health does not mention is not judged, and is given nothing either.
// What nobody can take stays where it is; who leads never matters to a holder that is well.
func Placements(v *View, health map[string]NodeHealth, self string) []Place {
	can := func(node string) bool {
		n, ok := v.Node(node)
		h := health[node]
		return ok && n.Role == Balancer && h.Alive && h.Fit
	}
	var ps []Place
	for _, vip := range v.Scope.VIPs {
		p, placed := v.Placements[vip]
		if placed {
			n, member := v.Node(p.Node)
			h, judged := health[p.Node]
			if member && n.Role == Balancer && (!judged || h.Alive && h.Fit) {
				continue
			}
		}
		var ranked []string
		if v.Config != nil {
			if c := v.Config.VIP(vip); c != nil {
				ranked = slices.Clone(c.Prefer)
			}
		}
		if placed {
			ranked = append(ranked, self)
		} else {
			ranked = append([]string{self}, ranked...)
		}
		for _, n := range v.Nodes {
			ranked = append(ranked, n.Name)
		}
		if i := slices.IndexFunc(ranked, can); i >= 0 {
			ps = append(ps, Place{VIP: vip, Node: ranked[i], Expect: p.Epoch})
		}
	}
	return ps
}
