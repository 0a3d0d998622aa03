package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
)

// Level is the newest level of commands that this version applies.
const Level = state.Level

// raiseAgain is between two attempts to raise the cluster's level; each may be void because a member has just joined.
const raiseAgain = 5 * time.Second

// coupleLevel: what all members apply, as they say in gossip -> the cluster's level, raised by the leader.
func (n *Node) coupleLevel(ctx context.Context) {
	for {
		lead, led := n.cluster.Leadership().Watch()
		view, viewed := n.machine.Views().Watch()
		members, met := n.cluster.Members().Watch()
		var again <-chan time.Time
		if s := n.slowest(view, members); lead.Self && lead.Barrier && view.Founded() && s.level > view.Level() {
			n.raise(ctx, view, s.level)
			again = time.After(raiseAgain)
			viewed = nil // its own command is no reason to try again at once
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

func (n *Node) raise(ctx context.Context, view *state.View, to int) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := state.Raise{To: to, Version: n.version}
	for _, m := range view.Nodes {
		c.Members = append(c.Members, m.Name)
	}
	if err := n.Propose(ctx, c); err != nil {
		n.log.Info("the cluster's level is not raised yet", "level", view.Level(), "to", to, "why", err)
		return
	}
	n.log.Info("every node runs a version that applies a newer level: the cluster is raised to it", "was", view.Level(), "level", to)
}

// follower is what a member applies.
type follower struct {
	name    string
	level   int
	version string // "": it does not say
	away    bool   // it is not heard: what it runs when it comes back is not known
}

// slowest is the member that applies least; of one that is away, no more than the first level is known.
func (n *Node) slowest(view *state.View, members []cluster.Member) follower {
	said := map[string]follower{n.conf.Name: {name: n.conf.Name, level: n.level, version: n.version}}
	for _, m := range members {
		if s := readSummary(m.Meta); m.Alive && m.Name != n.conf.Name {
			said[m.Name] = follower{name: m.Name, level: max(1, s.Level), version: s.Version}
		}
	}
	least := said[n.conf.Name]
	for _, m := range view.Nodes {
		f, ok := said[m.Name]
		if !ok {
			f = follower{name: m.Name, level: 1, away: true}
		}
		if f.level < least.level || f.level == least.level && least.away && !f.away {
			least = f
		}
	}
	return least
}

// behind says who keeps the cluster below a level, and the way out.
func (n *Node) behind(level int) string {
	switch f := n.slowest(n.machine.Views().Get(), n.cluster.Members().Get()); {
	case f.level >= level:
		return "every node applies it; try again in a moment"
	case f.away:
		return fmt.Sprintf("%s is away, and may come back with an older version: bring it back, or `skein node remove %s` if it is gone for good", f.name, f.name)
	case f.version == "":
		return fmt.Sprintf("%s runs a version that applies up to level %d: `skein cluster upgrade` upgrades it", f.name, f.level)
	default:
		return fmt.Sprintf("%s runs %s, which applies up to level %d: `skein cluster upgrade` upgrades it", f.name, f.version, f.level)
	}
}

// outdated is why this version cannot apply the log, nil while it can.
func (n *Node) outdated() error {
	if n.cluster == nil {
		return nil
	}
	return n.cluster.Outdated().Get()
}

// errOld says that another version is too old for the cluster.
var errOld = errors.New("it is too old for this cluster")
