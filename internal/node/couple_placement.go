package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// couplePlacement: the leader, who is alive and fit, what is placed -> new placements. Only a leader that has applied all that was
// committed before its term decides; each proposal is void if the placement it was decided on no longer stands. Every node keeps count
// of who is lost how often, to be ready for the day it leads.
func (n *Node) couplePlacement(ctx context.Context) {
	past := standings{}
	for {
		lead, led := n.cluster.Leadership().Watch()
		view, viewed := n.machine.Views().Watch()
		seen, saw := n.guard.State().Watch()
		members, met := n.cluster.Members().Watch()
		now := time.Now()
		var wake time.Time
		if seen.Connected && !seen.Silent {
			health := n.health(view, seen, members)
			wake = past.note(now, health)
			if f := past.flapping(now); !maps.Equal(f, n.flapping.Get()) {
				n.flapping.Set(f)
			}
			if lead.Self && lead.Barrier {
				decisions, again := state.Placements(view, health, n.conf.Name)
				for _, d := range decisions {
					n.place(ctx, d)
				}
				if at := now.Add(again); again > 0 && (wake.IsZero() || at.Before(wake)) {
					wake = at
				}
			}
		}
		var due <-chan time.Time
		if !wake.IsZero() {
			due = time.After(time.Until(wake))
		}
		select {
		case <-led:
		case <-viewed:
		case <-saw:
		case <-met:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) place(ctx context.Context, d state.Decision) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	result, _, err := n.cluster.Propose(ctx, state.Encode(d.Command()))
	if err == nil {
		var r state.Result
		if r, err = state.DecodeResult(result); err == nil {
			err = r.Err()
		}
	}
	switch {
	case err == nil:
		n.log.Info("vip placed", "vip", d.VIP, "node", d.Node, "why", d.Why)
	case errors.Is(err, state.ErrStaleEpoch): // somebody else decided meanwhile; the next view says what
	default:
		n.log.Warn("vip not placed", "vip", d.VIP, "node", d.Node, "because", d.Why, "err", err)
	}
}

// health is what the guards together say about every node that they have heard of. A peer counts as gone only when a majority has
// lost it, or when it said so itself.
func (n *Node) health(v *state.View, s vip.State, members []cluster.Member) map[string]state.NodeHealth {
	h := make(map[string]state.NodeHealth, len(v.Nodes))
	for _, m := range v.Nodes {
		if m.Name == n.conf.Name {
			h[m.Name] = state.NodeHealth{Alive: true, Fit: s.Fit, Unable: slices.Sorted(maps.Keys(s.Unable))}
			continue
		}
		if p, known := s.Peers[m.Name]; known && (p.Age >= 0 || p.ConfirmedDead) {
			h[m.Name] = state.NodeHealth{Alive: !gone(p), Fit: p.Fit, Unable: p.Unable}
		}
	}
	for _, m := range members {
		if known, ok := h[m.Name]; ok {
			known.Short = readSummary(m.Meta).Short
			h[m.Name] = known
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

// electionTries bounds the attempts after one loss; then Raft's own timers have long since taken over.
const electionTries = 4

// campaign is what this node does about a leader that is gone, until there is another one.
type campaign struct {
	lost  string // the leader; "": none is missed
	since time.Time
	tries int
}

// next takes the newest of what is known and returns the campaign as it goes on. A loss begins it; that a leader is merely not known
// neither begins nor ends it, because the first candidate's attempt makes everybody forget the old leader, and may fail: its log
// may be older than ours.
func (c campaign) next(now time.Time, leader string, self bool, leaderGone bool) campaign {
	switch {
	case leader == "":
		return c
	case self || !leaderGone:
		return campaign{}
	case c.lost == "":
		return campaign{lost: leader, since: now}
	}
	return c
}

// due is when to stand for election next: in turns by rank of all candidates. Each round gets twice the time of the one before, since
// standing again gives up the votes that are on their way: on a slow disk these may take longer than a round.
func (c campaign) due(rank, candidates int) (at time.Time, ok bool) {
	if c.lost == "" || c.tries >= electionTries {
		return time.Time{}, false
	}
	return c.since.Add(time.Duration(rank<<c.tries+(1<<c.tries-1)*candidates) * electionStep), true
}

// coupleElection: the leader is gone, as a majority says -> an election at once, without Raft's calm time-outs. The detector
// triggers, Raft decides.
func (n *Node) coupleElection(ctx context.Context) {
	var c campaign
	for {
		lead, led := n.cluster.Leadership().Watch()
		seen, saw := n.guard.State().Watch()
		leader, known := seen.Peers[lead.Leader]
		c = c.next(time.Now(), lead.Leader, lead.Self, seen.Connected && known && gone(leader))
		var due <-chan time.Time
		if at, ok := c.due(n.rank(c.lost, seen)); ok {
			if wait := time.Until(at); wait > 0 {
				due = time.After(wait)
			} else {
				c.tries++
				n.log.Info("leader is gone, election", "leader", c.lost, "term", lead.Term, "attempt", c.tries)
				if err := n.cluster.Elect(); err != nil {
					n.log.Warn("election not started", "why", err)
				}
				continue // when the next attempt is due
			}
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

// rank is this node's place among the voters that can stand for election, by name, and how many these are.
func (n *Node) rank(leader string, s vip.State) (rank, of int) {
	of = 1
	for name, p := range s.Peers {
		if name != leader && p.Voter && p.Alive && !gone(p) {
			of++
			if name < n.conf.Name {
				rank++
			}
		}
	}
	return rank, of
}
