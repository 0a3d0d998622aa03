package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
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
		_, ran := n.running.Watch()
		now := time.Now()
		var wake time.Time
		var returns []returning
		if seen.Connected && !seen.Silent {
			health := n.health(view, seen, members)
			wake = past.note(now, health, purposes(view, members))
			if f := past.flapping(now); !maps.Equal(f, n.flapping.Get()) {
				n.flapping.Set(f)
			}
			if lead.Self && lead.Barrier {
				decisions, later := state.Placements(view, health, n.conf.Name)
				n.placeAll(ctx, decisions)
				for _, r := range later {
					at := now.Add(r.In)
					if returns = append(returns, returning{r.VIP, r.Node, at}); wake.IsZero() || at.Before(wake) {
						wake = at
					}
				}
			}
		}
		n.returns.Set(returns)
		var due <-chan time.Time
		if !wake.IsZero() {
			due = time.After(time.Until(wake))
		}
		select {
		case <-led:
		case <-viewed:
		case <-saw:
		case <-met:
		case <-ran:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

// returning is a VIP that goes back to a node at a time, unless something changes before.
type returning struct {
	vip, node string
	at        time.Time
}

// placeAll proposes decisions and waits for what becomes of them. They go into the log together: one after the other, each address of a
// node that died would wait for the disks as often as there are others before it.
func (n *Node) placeAll(ctx context.Context, ds []state.Decision) {
	var all sync.WaitGroup
	for _, d := range ds {
		all.Go(func() { n.place(ctx, d) })
	}
	all.Wait()
}

func (n *Node) place(ctx context.Context, d state.Decision) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	switch err := n.Propose(ctx, d.Command()); {
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
			running := n.running.Get()
			h[m.Name] = state.NodeHealth{
				Alive: true, Fit: s.Fit, Unable: slices.Sorted(maps.Keys(s.Unable)), Runs: running.Revision, Failed: failed(running),
				Stopping: n.leaving.Get(),
			}
			continue
		}
		if p, known := s.Peers[m.Name]; known && (p.Age >= 0 || p.ConfirmedDead) {
			h[m.Name] = state.NodeHealth{Alive: !gone(p), Fit: p.Fit, Unable: p.Unable}
		}
	}
	for _, m := range members {
		if known, ok := h[m.Name]; ok {
			said := readSummary(m.Meta)
			if known.Short = said.Short; m.Name != n.conf.Name {
				known.Runs, known.Failed, known.Stopping = said.Runs, said.Failed, said.Stopping && m.Alive
			}
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
	led   string // who led last
	term  uint64 // in which term
	lost  string // the leader; "": none is missed
	since time.Time
	tries int

	heard uint64    // the term in which another one stood last
	hold  time.Time // it may still win: not before this
	ahead int       // so many that come before this node cannot win
}

// next takes the newest of what is known and returns the campaign as it goes on. The loss of who led last begins it, whether or not
// raft still names him. That nobody is known to lead does not end it, because the first candidate's attempt makes everybody forget the
// old leader, and may fail.
//
// A candidate that asked this node for its vote gets a step's time from then: on a slow disk its own vote alone may have taken as
// long, and to stand beside it would depose it. One whose log is older than this node's cannot win: its successor's turn has come.
func (c campaign) next(now time.Time, lead cluster.Leadership, rival cluster.Rival, gone func(string) bool) campaign {
	if lead.Leader != "" {
		if lead.Leader != c.led || !gone(lead.Leader) {
			c = campaign{}
		}
		c.led, c.term = lead.Leader, lead.Term
	}
	if c.lost == "" && !lead.Self && gone(c.led) {
		c.lost, c.since = c.led, now
	}
	if c.lost != "" && rival.Term > max(c.term, c.heard) {
		c.heard = rival.Term
		if rival.Behind {
			c.ahead++
		} else {
			c.hold = rival.At.Add(electionStep)
		}
	}
	return c
}

// due is when to stand for election next: in turns by rank of all candidates. Each round gets twice the time of the one before, since
// standing again gives up the votes that are on their way: on a slow disk these may take longer than a round.
func (c campaign) due(rank, candidates int) (at time.Time, ok bool) {
	if c.lost == "" || c.tries >= electionTries {
		return time.Time{}, false
	}
	if c.tries == 0 {
		rank = max(rank-c.ahead, 0)
	}
	at = c.since.Add(time.Duration(rank<<c.tries+(1<<c.tries-1)*candidates) * electionStep)
	if at.Before(c.hold) {
		at = c.hold
	}
	return at, true
}

// coupleElection: the leader is gone, as a majority says -> an election at once, without Raft's calm time-outs. The detector
// triggers, Raft decides.
func (n *Node) coupleElection(ctx context.Context) {
	var c campaign
	for {
		lead, led := n.cluster.Leadership().Watch()
		rival, stood := n.cluster.Rival().Watch()
		seen, saw := n.guard.State().Watch()
		c = c.next(time.Now(), lead, rival, func(name string) bool {
			p, known := seen.Peers[name]
			return seen.Connected && known && gone(p)
		})
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
		case <-stood:
		case <-saw:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

// rank is this node's place among the voters that can stand for election, and how many these are: by name, and witnesses behind the
// others, since one that leads has to give every address away.
func (n *Node) rank(leader string, s vip.State) (rank, of int) {
	of = 1
	witness := n.conf.Role == config.Witness
	for name, p := range s.Peers {
		if name != leader && p.Voter && p.Alive && !gone(p) {
			of++
			if p.Witness == witness && name < n.conf.Name || witness && !p.Witness {
				rank++
			}
		}
	}
	return rank, of
}
