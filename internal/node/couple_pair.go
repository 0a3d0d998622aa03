package node

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// pairFile is where the guard keeps the generation that this node has taken addresses at.
const pairFile = "pair.json"

// pairOf is what the guard is told of the pair that these two nodes are; nil: they are none.
func pairOf(self *config.Node, v *state.View) *vip.Pair {
	if v.Config == nil || v.Config.Pair == nil || !v.Pair() {
		return nil
	}
	p := v.Config.Pair
	return &vip.Pair{Available: p.Mode == config.PairAvailable, Tiebreak: p.Tiebreak, File: filepath.Join(self.DataDir, pairFile)}
}

// couplePair: what a guard of a pair has taken without the log -> the log. The leader does it, as soon as there is one.
func (n *Node) couplePair(ctx context.Context) {
	for {
		lead, led := n.cluster.Leadership().Watch()
		view, viewed := n.machine.Views().Watch()
		seen, saw := n.guard.State().Watch()
		if lead.Self && lead.Barrier && seen.Connected && pairOf(n.conf, view) != nil {
			for _, c := range adoptions(view, seen) {
				n.adopt(ctx, c)
			}
		}
		select {
		case <-led:
		case <-viewed:
		case <-saw:
		case <-ctx.Done():
			return
		}
	}
}

// adoptions are the placements that the guards know of and the log does not.
func adoptions(v *state.View, seen vip.State) []state.Adopt {
	var out []state.Adopt
	for _, p := range v.SortedPlacements() {
		taken, known := seen.Newest[p.VIP]
		e := state.Epoch(taken.Epoch)
		if n, member := v.Node(taken.Node); !known || !member || n.Role != state.Balancer {
			continue
		}
		if by := e.Compare(p.Epoch); by > 0 || by == 0 && taken.Node != p.Node {
			out = append(out, state.Adopt{VIP: p.VIP, Node: taken.Node, Epoch: e, Expect: p.Epoch})
		}
	}
	return out
}

func (n *Node) adopt(ctx context.Context, c state.Adopt) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	result, _, err := n.cluster.Propose(ctx, state.Encode(c))
	if err == nil {
		var r state.Result
		if r, err = state.DecodeResult(result); err == nil {
			err = r.Err()
		}
	}
	switch {
	case err == nil:
		n.log.Info("vip taken", "vip", c.VIP, "node", c.Node, "epoch", c.Epoch.String())
	case errors.Is(err, state.ErrStaleEpoch), errors.Is(err, cluster.ErrNoLeader): // the next view says more
	default:
		n.log.Warn("what was taken is not in the log", "vip", c.VIP, "node", c.Node, "err", err)
	}
}

// reportPair is what the guard sees of the pair.
func reportPair(p *vip.Standing) *api.PairReport {
	if p == nil {
		return nil
	}
	r := &api.PairReport{Apart: p.Apart, Reaches: p.Reaches, Problem: p.Problem, Generation: p.Generation}
	for _, t := range p.Tiebreak {
		r.Tiebreak = append(r.Tiebreak, api.TieReport{Address: t.Addr, Up: t.Up})
	}
	return r
}
