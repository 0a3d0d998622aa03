package node

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// Flows is what knows the connections of this host. *vip.Flows is one.
type Flows interface {
	Each(addrs []netip.Addr, f func(vip.Flow)) error
	Reset(addrs []netip.Addr) (int, error)
	Tickle(ctx context.Context, flows []vip.Flow) (int, error)
	Close()
}

const (
	// parkLeast is how long a moved address is served at least: who has not heard of the move yet still comes here.
	parkLeast = 3 * time.Second
	// parkLast is how long before the end of its time what is left is reset, so that the resets can leave.
	parkLast = 1500 * time.Millisecond
	// drainStep is how often connections are counted.
	drainStep = time.Second
	// drainShare bounds what the counting may cost: the step grows until it takes no more than this part of the time.
	drainShare = 25
)

// coupleDrain: addresses that have gone while their connections stay -> the engine, which asks clients to close; the kernel, which
// counts them; the guard, when nothing is left.
func (n *Node) coupleDrain(ctx context.Context) {
	reset := resets{}
	elsewhere := map[string]bool{} // VIPs that others have, with nothing left of them here
	var before []flow              // the connections of the step before
	for {
		seen, saw := n.guard.State().Watch()
		view := n.machine.Views().Get()
		if n.engine != nil {
			n.engine.Leave(parkedAddrs(view, seen))
		}
		begin := time.Now()
		now := n.count(view, seen)
		n.own.Set(lasting(before, now))
		before = now
		for name, p := range seen.Parked {
			addrs := addrsOf(view, name)
			switch count := n.drains.Get()[name]; {
			case !p.Planned && reset.first(name, p.Epoch):
				// This node is not fit any more. Its clients shall not wait for what does not come.
				n.reset(name, addrs, "this node had to let go of its address")
				n.guard.Drained(name, p.Epoch)
			case p.Planned && p.Left <= parkLast:
				n.reset(name, addrs, "the time to drain is over")
				n.guard.Drained(name, p.Epoch)
			case p.Planned && count == 0 && p.For >= parkLeast:
				n.log.Info("vip drained", "vip", name, "after", p.For.Round(time.Millisecond))
				n.guard.Drained(name, p.Epoch)
			}
		}
		for _, name := range lost(view, seen, elsewhere) {
			n.reset(name, addrsOf(view, name), "another node has had the address since")
		}
		step := time.NewTimer(max(drainStep, drainShare*time.Since(begin)))
		for waiting := true; waiting; {
			select {
			case <-saw:
				// What is parked is new: that is urgent. The rest is not.
				next, again := n.guard.State().Watch()
				saw = again
				waiting = sameParked(seen, next)
			case <-step.C:
				waiting = false
			case <-ctx.Done():
				step.Stop()
				return
			}
		}
		step.Stop()
	}
}

// resets are the VIPs whose connections were reset after a loss, at which epoch.
type resets map[string]vip.Epoch

// first is true once for each loss.
func (r resets) first(name string, at vip.Epoch) bool {
	if r[name] == at {
		return false
	}
	r[name] = at
	return true
}

// lost returns the VIPs that another node has by now while this one neither has nor serves them, each once: they are noted in elsewhere. What is
// left of them on this host is of the time before a lease that ended. The new holder has made its clients connect anew, and one that did so by
// the same port must not find its old connection here when the address comes back.
func lost(view *state.View, seen vip.State, elsewhere map[string]bool) (names []string) {
	if view.Config == nil {
		return nil
	}
	for _, c := range view.Config.VIPs {
		if serves(c.Name, seen.Held, seen.Parked) {
			delete(elsewhere, c.Name)
			continue
		}
		for _, p := range seen.Peers {
			if !elsewhere[c.Name] && slices.Contains(p.Held, c.Name) {
				elsewhere[c.Name] = true
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// sameParked reports whether the same VIPs are held and parked in a and b.
func sameParked(a, b vip.State) bool {
	if len(a.Parked) != len(b.Parked) || len(a.Held) != len(b.Held) {
		return false
	}
	for name, p := range a.Parked {
		if o, ok := b.Parked[name]; !ok || o.Epoch != p.Epoch || o.Planned != p.Planned {
			return false
		}
	}
	return true
}

// count counts the connections to each VIP that is held or parked here, and returns them, sorted. Where they cannot be counted, what is
// parked is kept for all of its time: it is not nothing.
func (n *Node) count(view *state.View, seen vip.State) (all []flow) {
	counts := map[string]int{}
	owner := map[netip.Addr]string{}
	var addrs []netip.Addr
	note := func(name string) {
		counts[name] = 0
		for _, a := range addrsOf(view, name) {
			owner[a] = name
			addrs = append(addrs, a)
		}
	}
	for name := range seen.Held {
		note(name)
	}
	for name := range seen.Parked {
		note(name)
	}
	known := !n.uncounted
	if n.flows != nil && len(addrs) > 0 {
		if err := n.flows.Each(addrs, func(f vip.Flow) {
			counts[owner[f.VIP.Addr()]]++
			all = append(all, flowOf(f))
		}); err != nil {
			n.log.Warn("connections not counted", "err", err)
			known = false
		}
	}
	if !known {
		for name := range counts {
			counts[name] = -1
		}
	}
	n.drains.Set(counts)
	slices.SortFunc(all, compareFlows)
	return all
}

// reset ends what is connected to addrs.
func (n *Node) reset(name string, addrs []netip.Addr, why string) {
	if n.flows == nil {
		return
	}
	count, err := n.flows.Reset(addrs)
	if count > 0 || err != nil {
		n.log.Info("connections reset", "vip", name, "connections", count, "why", why, "err", err)
	}
}

func addrsOf(view *state.View, name string) (addrs []netip.Addr) {
	if view.Config == nil {
		return nil
	}
	if c := view.Config.VIP(name); c != nil {
		for _, a := range c.Addresses {
			addrs = append(addrs, a.Addr())
		}
	}
	return addrs
}

func parkedAddrs(view *state.View, seen vip.State) (addrs []netip.Addr) {
	for name, p := range seen.Parked {
		if _, held := seen.Held[name]; !held && p.Planned {
			addrs = append(addrs, addrsOf(view, name)...)
		}
	}
	return addrs
}

// reportParked is what is left of addresses that have gone.
func (n *Node) reportParked(seen vip.State) (ps []api.ParkedVIP) {
	counts := n.drains.Get()
	for name, p := range seen.Parked {
		parked := api.ParkedVIP{Name: name, Epoch: p.Epoch.String(), Planned: p.Planned, ForMs: p.For.Milliseconds(), LeftMs: p.Left.Milliseconds()}
		if count, counted := counts[name]; counted && count >= 0 {
			parked.Connections = &count
		}
		ps = append(ps, parked)
	}
	return ps
}

// leadAgain is between the attempts of a drained leader to hand leadership over. While one lasts, up to a second, nothing is committed.
const leadAgain = 5 * time.Second

// coupleLeadership: a node that an operator has drained leads no longer than it must -> another voter.
func (n *Node) coupleLeadership(ctx context.Context) {
	var tried time.Time
	for {
		lead, led := n.cluster.Leadership().Watch()
		view, viewed := n.machine.Views().Watch()
		members, met := n.cluster.Members().Watch()
		var again <-chan time.Time
		if _, drained := view.Drained[n.conf.Name]; drained && lead.Self && lead.Barrier && !n.holds(view) {
			if wait := time.Until(tried.Add(leadAgain)); wait > 0 {
				again = time.After(wait)
			} else if to := successor(n.conf.Name, members, view, n.guard.State().Get()); to == "" {
				again = time.After(time.Second) // until a guard is heard again
			} else {
				if err := n.cluster.Transfer(to); err != nil {
					n.log.Info("leadership not handed over", "to", to, "why", err)
				}
				tried = time.Now()
				again = time.After(leadAgain)
			}
		}
		select {
		case <-led:
		case <-viewed:
		case <-met:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// successor is the voter that a drained leader hands leadership to, "" when there is none. It must be heard by the guard now, not just by
// gossip, which takes seconds: raft has nothing committed while it hands over to somebody who does not answer, and a second attempt
// at the same one does not end before he does answer.
func successor(self string, members []cluster.Member, view *state.View, seen vip.State) string {
	for _, m := range members {
		p := seen.Peers[m.Name]
		if _, drained := view.Drained[m.Name]; m.Name != self && m.Voter && m.Alive && !drained && p.Alive && p.AgentAlive && !p.ConfirmedDead {
			return m.Name
		}
	}
	return ""
}

// holds reports whether a VIP is placed on this node.
func (n *Node) holds(view *state.View) bool {
	for _, p := range view.Placements {
		if p.Node == n.conf.Name {
			return true
		}
	}
	return false
}
