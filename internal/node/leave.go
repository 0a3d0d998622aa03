package node

import (
	"context"
	"time"

	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// Times of an orderly stop, within the time to drain that the operator gives.
const (
	giveAwayMost = 5 * time.Second        // for the others to take the addresses; a cluster without a quorum cannot
	giveAwayStep = 20 * time.Millisecond  // between looks at how it goes
	politeMost   = 5 * time.Second        // for idle connections to be used once more, and be told to close
	wordSpreads  = 300 * time.Millisecond // that this node stops: gossip says it every 200 ms
)

// leave gives everything away in the order in which nothing is lost: the addresses, to nodes that are ready for them, then leadership,
// then what is still under way. Connections that this node has stay with it meanwhile.
func (n *Node) leave(drain time.Duration) {
	n.log.Info("node leaves", "drain", drain)
	n.leaving.Set(true)
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if n.engine != nil { // a witness says nothing, and flaps for nobody
		// A node with nothing to give away has left before its gossip is woken, and would be one that was lost.
		word, enough := context.WithTimeout(context.Background(), wordSpreads)
		_, _ = n.farewell.Wait(word, func(said bool) bool { return said })
		enough()
	}
	if n.wanted() {
		pause(ctx, min(wordSpreads, drain/4))
	}
	moved := n.GiveAway(ctx, drain)
	if n.cluster.Leadership().Get().Self {
		if err := n.cluster.Transfer(""); err != nil {
			n.log.Info("leadership not handed over", "why", err)
		}
	}
	finish := !moved && !n.inGroups()
	if finish {
		// Nobody can take an address over. What is under way is finished while it is still here.
		n.drainEngine(ctx)
	}
	n.letGo()
	_, _ = n.guard.State().Wait(ctx, func(s vip.State) bool { return len(s.Held) == 0 || !s.Connected })
	if finish {
		return
	}
	polite, enough := context.WithTimeout(ctx, min(drain/2, politeMost))
	defer enough()
	_, _ = n.guard.State().Wait(polite, func(s vip.State) bool { return len(s.Parked) == 0 || !s.Connected })
	n.drainEngine(ctx)
	n.awaitFormer(ctx)
}

// awaitFormer waits until the agent that this process has followed has nothing left, which it serves on addresses that go with this process.
func (n *Node) awaitFormer(ctx context.Context) {
	if n.inherited != nil {
		_, _ = n.former.Wait(ctx, func(f former) bool { return f.ended })
	}
}

// inGroups reports whether all that this node holds is in VRRP groups: their backups, which are silent, take over as soon as it lets go,
// and would wait in vain while it still answers for the addresses and accepts nothing.
func (n *Node) inGroups() bool {
	view := n.machine.Views().Get()
	held := false
	for name := range n.guard.State().Get().Held {
		if view.Config == nil {
			return false
		}
		if v := view.Config.VIP(name); v == nil || v.VRRP == nil {
			return false
		}
		held = true
	}
	return held
}

// wanted reports whether something that this node holds would go back to it: it is well until it has let go. Whoever leads has to know
// before the first address goes that it stops.
func (n *Node) wanted() bool {
	view := n.machine.Views().Get()
	for name, p := range view.Placements {
		if view.Config == nil || p.Node != n.conf.Name {
			continue
		}
		for _, in := range state.Unit(view, name) {
			if c := view.Config.VIP(in); c != nil && c.Failback > 0 {
				return true
			}
		}
	}
	return false
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (n *Node) drainEngine(ctx context.Context) {
	if n.engine == nil {
		return
	}
	if err := n.engine.Drain(ctx); err != nil {
		n.log.Info("drain ended early", "why", err)
	}
}

// GiveAway moves every address of this node to others, as far as these can take them, and waits until they have. It reports whether
// none is left here. What is established here can be served for drain from then on; how long it is, is the caller's to see to. A node
// whose disk has failed gives nothing away: it has let go of everything, and does not hear where to.
func (n *Node) GiveAway(ctx context.Context, drain time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, giveAwayMost)
	defer cancel()
	tick := time.NewTicker(giveAwayStep)
	defer tick.Stop()
	for {
		view, seen := n.machine.Views().Get(), n.guard.State().Get()
		if len(seen.Held) == 0 && (!n.holds(view) || n.cluster.Disk().Get() != nil) || !seen.Connected {
			return true
		}
		if n.holds(view) {
			ds := state.Away(view, n.health(view, seen, n.cluster.Members().Get()), n.conf.Name, min(drain+giveAwayMost, state.MaxDrain))
			if len(ds) == 0 {
				return false
			}
			for i := range ds {
				ds[i].Why = n.conf.Name + " stops"
			}
			n.placeAll(ctx, ds)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return len(n.guard.State().Get().Held) == 0
		}
	}
}
