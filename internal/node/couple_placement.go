package node

import (
	"context"
	"errors"
	"sort"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// couplePlacement: the leader, who is alive and fit, what is placed -> new placements. Only a leader that has applied all that was
// committed before its term decides; each proposal is void if the placement it was decided on no longer stands.
func (n *Node) couplePlacement(ctx context.Context) {
	for {
		lead, led := n.cluster.Leadership().Watch()
		view, viewed := n.machine.Views().Watch()
		seen, saw := n.guard.State().Watch()
		if lead.Self && lead.Barrier && seen.Connected && !seen.Silent {
			for _, p := range state.Placements(view, n.health(view, seen), n.conf.Name) {
				n.place(ctx, p)
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

func (n *Node) place(ctx context.Context, p state.Place) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	result, _, err := n.cluster.Propose(ctx, state.Encode(p))
	if err == nil {
		var r state.Result
		if r, err = state.DecodeResult(result); err == nil {
			err = r.Err()
		}
	}
	switch {
	case err == nil:
		n.log.Info("vip placed", "vip", p.VIP, "node", p.Node)
	case errors.Is(err, state.ErrStaleEpoch): // somebody else decided meanwhile; the next view says what
	default:
		n.log.Warn("vip not placed", "vip", p.VIP, "node", p.Node, "why", err)
	}
}

// health is what the guards together say about every node that they have heard of. A peer counts as gone only when a majority has
// lost it, or when it said so itself.
func (n *Node) health(v *state.View, s vip.State) map[string]state.NodeHealth {
	h := make(map[string]state.NodeHealth, len(v.Nodes))
	for _, m := range v.Nodes {
		if m.Name == n.conf.Name {
			h[m.Name] = state.NodeHealth{Alive: true, Fit: s.Fit}
			continue
		}
		if p, known := s.Peers[m.Name]; known && (p.Age >= 0 || p.ConfirmedDead) {
			h[m.Name] = state.NodeHealth{Alive: !gone(p), Fit: p.Fit}
		}
	}
	return h
}

// gone reports whether the node's agent no longer runs, by its guard's own word or by a majority's. Of a node that was never heard
// nothing is known.
func gone(p vip.PeerState) bool { return p.ConfirmedDead || p.Age >= 0 && !p.AgentAlive }

// electionStep is between the attempts of followers, in the order of their names: two candidates at once split the votes, which
// cost 1.2 s when measured; one attempt takes some 10 ms.
const electionStep = 150 * time.Millisecond

// coupleElection: the leader is gone, as a majority says -> an election at once, without Raft's calm time-outs. The detector
// triggers, Raft decides.
func (n *Node) coupleElection(ctx context.Context) {
	tried := cluster.Leadership{} // the leadership after which an election was started here
	var since time.Time
	for {
		lead, led := n.cluster.Leadership().Watch()
		seen, saw := n.guard.State().Watch()
		var due <-chan time.Time
		if leader, lost := seen.Peers[lead.Leader]; lead.Leader != "" && !lead.Self && lost && gone(leader) && seen.Connected {
			if since.IsZero() {
				since = time.Now()
			}
			if wait := time.Until(since.Add(time.Duration(n.rank(lead.Leader, seen)) * electionStep)); wait > 0 {
				due = time.After(wait)
			} else if tried.Term != lead.Term || tried.Leader != lead.Leader {
				tried = lead
				n.log.Info("leader is gone, election", "leader", lead.Leader, "term", lead.Term)
				if err := n.cluster.Elect(); err != nil {
					n.log.Warn("election not started", "why", err)
				}
			}
		} else {
			since = time.Time{}
		}
		select {
		case <-led:
		case <-saw:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

// rank is this node's place among the voters that can stand for election, by name.
func (n *Node) rank(leader string, s vip.State) int {
	var names []string
	for name, p := range s.Peers {
		if name != leader && p.Voter && p.Alive && !gone(p) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return sort.SearchStrings(names, n.conf.Name)
}
