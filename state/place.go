package state

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/skeinlb/skein/config"
)

// NodeHealth is what the leader's node knows of a node.
type NodeHealth struct {
	Alive bool // false only when its death is confirmed, not when it merely has not been heard
	Fit   bool // it serves traffic

	Well     time.Duration // for how long it has been alive and fit without a break, and nothing below has changed, as far as the leader has seen
	Flapping bool          // it was lost too often of late: it gets an address only when nobody else can take it
	Stopping bool          // its agent was asked to stop, and is about to: it keeps what it has until it has given it away, and gets nothing
	Short    []string      // VIPs behind which it sees fewer healthy servers than their minimum_servers
	Unable   []string      // VIPs that it cannot hold: their interface is missing or down there
	Runs     uint64        // the revision that it serves, as it said last; 0: it has not said
	Failed   uint64        // the revision that it could not put in force, as it said last; 0: none
}

// Decision is a placement to propose, and why. With a Drain it is a move from a node that is well.
type Decision struct {
	VIP    string
	Node   string
	Expect Epoch
	Drain  time.Duration
	Why    string
}

// Command is what to propose for d.
func (d Decision) Command() Command {
	if d.Drain > 0 {
		return Move{VIP: d.VIP, Node: d.Node, Expect: d.Expect, Drain: d.Drain}
	}
	return Place{VIP: d.VIP, Node: d.Node, Expect: d.Expect}
}

// Return is a VIP that goes back to a node that prefer ranks higher, unless something changes before.
type Return struct {
	VIP  string
	Node string
	In   time.Duration // from now
}

// Placements returns what the leader, self, has to propose so that every VIP is held by a node that can: nothing when all is
// well. returns are the moves that time alone will bring: when the first is due, ask again.
//
// VIPs of one group are one unit; every other VIP is one of its own. A unit that nobody holds, or whose holder is dead, unfit, unable, no
// balancer of this cluster any more, drained, short of servers where another node is not and would have noticed, or unable to put the newest configuration in force
// where another node has, goes to the best node that can take it: one that serves the newest configuration, is not flapping, then the first in prefer, then the one that holds the fewest units, then the leader, then the first by name. With
// failback, a unit goes back to the node that prefer ranks highest once that has been well for so long. A holder that health does not
// mention is not judged, and is given nothing either. What nobody can take stays where it is; who leads never matters to a holder
// that is well.
func Placements(v *View, health map[string]NodeHealth, self string) (ds []Decision, returns []Return) {
	units := units(v)
	held := map[string]int{} // units by node
	for _, u := range units {
		if u.holder != "" {
			held[u.holder]++
		}
	}
	for _, u := range units {
		to, why, wait := u.place(v, health, held, self)
		var drain time.Duration // of a move under way, that the rest follows
		if wait > 0 {
			for _, name := range u.vips {
				if v.Placements[name].Node != to {
					returns = append(returns, Return{VIP: name, Node: to, In: wait})
				}
			}
			to = ""
		}
		if to == "" && u.can(v, health, u.holder) {
			to, why, drain = u.holder, "its group is held there", u.drain
		} else if to != "" && to != u.holder {
			held[u.holder]--
			held[to]++
		}
		for _, name := range u.vips {
			if p := v.Placements[name]; to != "" && p.Node != to {
				d := Decision{VIP: name, Node: to, Expect: p.Epoch, Drain: drainOf(v, health, p), Why: why}
				if d.Drain > 0 && drain > 0 {
					d.Drain = drain
				}
				ds = append(ds, d)
			}
		}
	}
	return ds, returns
}

// drainOf is how long the holder of p may serve on what it has when the VIP goes elsewhere; 0: it cannot.
func drainOf(v *View, health map[string]NodeHealth, p Placement) time.Duration {
	n, member := v.Node(p.Node)
	if h := health[p.Node]; !member || n.Role != Balancer || !h.Alive || !h.Fit || slices.Contains(h.Unable, p.VIP) {
		return 0
	}
	if d, drained := v.Drained[p.Node]; drained {
		return d.Drain
	}
	return DefaultDrain
}

// unit is what moves together: the VIPs of a group, or one alone.
type unit struct {
	vips     []string      // by name
	holder   string        // where its newest placement is; "": nowhere
	drain    time.Duration // of that placement
	prefer   []string
	failback time.Duration
	asked    bool // an operator has put it there
}

// units returns the units of v by their first VIP's name. The VIPs of a group are placed one by one: while the group moves, whoever moves it,
// the newest placement says where to, however few have followed.
func units(v *View) []*unit {
	var us []*unit
	groups := map[string]*unit{}
	for _, name := range v.Scope.VIPs {
		var c config.VIP
		if v.Config != nil {
			if known := v.Config.VIP(name); known != nil {
				c = *known
			}
		}
		u := groups[c.Group]
		if u == nil || c.Group == "" {
			u = &unit{}
			us = append(us, u)
			groups[c.Group] = u
		}
		u.vips = append(u.vips, name)
		if len(c.Prefer) > 0 {
			u.prefer, u.failback = c.Prefer, c.Failback
		}
	}
	for _, u := range us {
		var newest Placement
		for _, name := range u.vips {
			p := v.Placements[name]
			u.asked = u.asked || p.Asked
			if p.Epoch.Compare(newest.Epoch) > 0 {
				newest = p
			}
		}
		u.holder, u.drain = newest.Node, newest.Drain
	}
	return us
}

// place returns the node that u has to go to and why, or "" when it is well where it is. With a wait it is well for so long, and goes there
// then.
func (u *unit) place(v *View, health map[string]NodeHealth, held map[string]int, self string) (to, why string, wait time.Duration) {
	var can []string
	for _, n := range v.Nodes {
		if u.can(v, health, n.Name) {
			can = append(can, n.Name)
		}
	}
	rank := func(node string) int {
		if i := slices.Index(u.prefer, node); i >= 0 {
			return i
		}
		return len(u.prefer)
	}
	slices.SortFunc(can, func(a, b string) int {
		return cmp.Or(
			cmp.Compare(u.behind(v, health, a), u.behind(v, health, b)),
			order(u.short(health[a]), u.short(health[b])),
			order(health[a].Flapping, health[b].Flapping),
			cmp.Compare(rank(a), rank(b)),
			cmp.Compare(held[a], held[b]),
			order(a != self, b != self),
			cmp.Compare(a, b),
		)
	})
	if len(can) == 0 {
		return "", "", 0
	}
	best := can[0]
	if why = u.wrong(v, health, best); why != "" {
		return best, why, 0
	}
	// The holder is well. Only an operator's failback moves it, and only to the first choice that could take it.
	b := health[best]
	if u.failback == 0 || u.asked || b.Flapping || rank(best) >= rank(u.holder) {
		return "", "", 0
	}
	if left := u.failback - b.Well; left > 0 {
		return best, "", left
	}
	return best, fmt.Sprintf("%s is preferred and has been well for %v", best, u.failback), 0
}

// wrong says what is wrong with u's holder, "" when nothing is: best could take over.
func (u *unit) wrong(v *View, health map[string]NodeHealth, best string) string {
	if u.holder == "" {
		return "nobody holds it"
	}
	n, member := v.Node(u.holder)
	h, judged := health[u.holder]
	switch {
	case !member:
		return u.holder + " is no member any more"
	case n.Role != Balancer:
		return u.holder + " is a witness"
	case !judged:
		return ""
	case !h.Alive:
		return u.holder + " is gone"
	case !h.Fit:
		return u.holder + " is unfit"
	case u.unable(h):
		return u.holder + " cannot hold it: its interface is missing or down there"
	case isDrained(v, u.holder):
		return u.holder + " is drained"
	case u.behind(v, health, u.holder) > 0 && u.behind(v, health, best) == 0 && !health[best].Flapping:
		return fmt.Sprintf("%s could not put revision %d in force, %s has", u.holder, v.Revision.Number, best)
	case u.short(h) && h.Well >= u.noticed(v) && !u.short(health[best]) && !health[best].Flapping:
		return u.holder + " sees fewer healthy servers than minimum_servers"
	}
	return ""
}

// Away returns how the VIPs of a node that is about to stop leave it: as if it were drained, by drain.
func Away(v *View, health map[string]NodeHealth, node string, drain time.Duration) []Decision {
	stopping := *v
	stopping.Drained = with(v.Drained, node, Drained{Drain: drain})
	ds, _ := Placements(&stopping, health, "")
	return slices.DeleteFunc(ds, func(d Decision) bool { return v.Placements[d.VIP].Node != node })
}

// Unit returns the VIPs that move together with vip, itself included, by name.
func Unit(v *View, vip string) []string {
	for _, u := range units(v) {
		if slices.Contains(u.vips, vip) {
			return u.vips
		}
	}
	return nil
}

// Target returns the node that a unit with this VIP would move to if its holder were drained, "" when nobody could take it.
func Target(v *View, health map[string]NodeHealth, vip string) string {
	for _, d := range Away(v, health, v.Placements[vip].Node, DefaultDrain) {
		if d.VIP == vip {
			return d.Node
		}
	}
	return ""
}

// can reports whether a node can be given u.
func (u *unit) can(v *View, health map[string]NodeHealth, node string) bool {
	n, member := v.Node(node)
	h := health[node]
	return member && n.Role == Balancer && h.Alive && h.Fit && !h.Stopping && !u.unable(h) && !isDrained(v, node)
}

// unable reports whether the node of that health cannot hold one of u's VIPs.
func (u *unit) unable(h NodeHealth) bool {
	return slices.ContainsFunc(u.vips, func(vip string) bool { return slices.Contains(h.Unable, vip) })
}

// short reports whether the node of that health lacks servers behind one of u's VIPs.
func (u *unit) short(h NodeHealth) bool {
	return slices.ContainsFunc(u.vips, func(name string) bool { return slices.Contains(h.Short, name) })
}

// spreads is how long it takes until all have heard what a node says of itself.
const spreads = time.Second

// noticed is how long after one node every other one has seen the same of the servers behind u. Servers that die are dead for all, and an address
// must not go to a node that is merely about to notice: its probes come up to an interval later, and take up to their timeout.
func (u *unit) noticed(v *View) time.Duration {
	d := spreads
	if v.Config == nil {
		return d
	}
	for _, name := range u.vips {
		for _, b := range v.Config.BackendsBehind(name) {
			if b.Check != nil {
				d = max(d, b.Check.Interval+b.Check.Timeout+spreads)
			}
		}
	}
	return d
}

// behind tells how far a node is from serving the newest configuration: 0, it does; 1, it has not said so; 2, it could not put it in
// force, say because somebody else has the port. Nobody is behind as long as u's holder has not failed: the others may be a moment
// late, and what matters then is that they have not failed either.
func (u *unit) behind(v *View, health map[string]NodeHealth, node string) int {
	newest := v.Revision.Number
	switch {
	case newest == 0:
		return 0
	case health[node].Failed == newest:
		return 2
	case health[u.holder].Failed == newest && health[node].Runs != newest:
		return 1
	}
	return 0
}

// order puts false before true.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
