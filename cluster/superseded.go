package cluster

import (
	"fmt"

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

// logEnd is where this node's log ends, by its files: they know it too when raft was shut down, because the disk failed say. A node that
// ends does not answer: who asks would take it for one that has nothing.
func (c *Cluster) logEnd() (logEnd, error) {
	if err := c.running(); err != nil {
		return logEnd{}, err
	}
	e := logEnd{Generation: c.view().Cluster.Generation}
	if _, last, _ := c.store.extent(); last != 0 {
		var l raft.Log
		if err := c.store.GetLog(last, &l); err != nil {
			return logEnd{}, err
		}
		e.Index, e.Term = l.Index, l.Term
	}
	metas, err := c.snaps.List()
	if err != nil {
		return logEnd{}, err
	}
	for _, m := range metas {
		if snap := (logEnd{Index: m.Index, Term: m.Term}); snap.newer(e) {
			e.Index, e.Term = snap.Index, snap.Term
		}
	}
	return e, nil
}
