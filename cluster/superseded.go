package cluster

import (
	"fmt"
	"strconv"

	"github.com/hashicorp/raft"
)

// Superseded says that the cluster was recovered without this node, which has old data and no part in it any more. It is an error,
// and what every proposal here gets.
type Superseded struct {
	By         string // who said so
	Generation uint64 // of the cluster there
	Own        uint64 // of what this node has
	Dir        string // what has to go before this node can join again
}

func (s *Superseded) Error() string {
	return fmt.Sprintf("this node was left behind: %s says that the cluster was recovered without it (generation %d, here %d). To bring it back: "+
		"stop its agent, move %s away, `skein cluster token` on %s, `skein cluster join` here", s.By, s.Generation, s.Own, s.Dir, s.By)
}

// Supersede takes this node out of the log until it starts anew: it votes for nobody, leads nobody and takes no proposals. What it has
// applied can still be read.
func (c *Cluster) Supersede(by string, generation uint64) {
	s := &Superseded{By: by, Generation: generation, Own: c.view().Cluster.Generation, Dir: c.dir}
	if c.running() != nil || !c.superseded.CompareAndSwap(nil, s) {
		return
	}
	c.log.Error("node left behind: it leaves the log", "why", s)
	c.raft.Shutdown() // Run waits for it
}

// logEnd is where this node's log ends.
func (c *Cluster) logEnd() logEnd {
	e := logEnd{Generation: c.view().Cluster.Generation}
	if c.running() != nil || c.raft.State() == raft.Shutdown {
		return e
	}
	stats := c.raft.Stats()
	number := func(key string) uint64 {
		n, _ := strconv.ParseUint(stats[key], 10, 64)
		return n
	}
	e.Index, e.Term = number("last_log_index"), number("last_log_term")
	if snap := (logEnd{Index: number("last_snapshot_index"), Term: number("last_snapshot_term")}); snap.newer(e) {
		e.Index, e.Term = snap.Index, snap.Term
	}
	return e
}
