package api

import (
	"fmt"
	"strings"

	"github.com/skeinlb/skein/config"
)

// PairReport is a pair of nodes as the guard of one sees it.
type PairReport struct {
	Apart      bool        `json:"apart"`   // the other node is not heard
	Reaches    bool        `json:"reaches"` // more than half of the tie-break answers; of an available pair: always
	Tiebreak   []TieReport `json:"tiebreak,omitempty"`
	Problem    string      `json:"problem,omitempty"` // why this node can take nothing from the other
	Generation uint64      `json:"generation"`        // the highest that this node has taken an address at
}

// TieReport is one address of the tie-break.
type TieReport struct {
	Address string `json:"address"`
	Up      bool   `json:"up"`
}

// PairStatus is how two nodes do without a third voter.
type PairStatus struct {
	Mode     string `json:"mode"`      // "tiebreak" or "available"
	ReadOnly bool   `json:"read_only"` // the node that votes is gone: nothing can be changed
}

// pairOf returns the pair that these nodes are; nil: they are none.
func pairOf(f Facts, own *NodeReport) *PairStatus {
	if f.View.Config == nil || f.View.Config.Pair == nil || !f.View.Pair() {
		return nil
	}
	return &PairStatus{Mode: f.View.Config.Pair.Mode.String(), ReadOnly: own != nil && !own.Raft.Quorum}
}

// judgePair tells what the nodes of a pair could not do without each other.
func (s *Status) judgePair() {
	p := s.Cluster.Pair
	if p == nil {
		return
	}
	for _, n := range s.Nodes {
		r := n.Report
		if r == nil || r.Guard.Pair == nil {
			continue
		}
		if g := r.Guard.Pair; g.Problem != "" {
			s.because(Degraded, "%s can take no address from the other node", n.Name)
			s.alarm(Critical, "mend the disk or the file", "%s can take no address from the other node: %s", n.Name, g.Problem)
		} else if p.Mode == config.PairTiebreak.String() && !g.Reaches {
			s.because(Degraded, "%s does not reach the tie-break: without the other node it would hold no address", n.Name)
			s.alarm(Critical, "mend its network, or name addresses that answer ping: cluster { tiebreak = [...] }",
				"%s does not reach the tie-break (%s)", n.Name, tieWords(g))
		}
	}
}

func tieWords(g *PairReport) string {
	var all []string
	for _, t := range g.Tiebreak {
		word := "silent"
		if t.Up {
			word = "answers"
		}
		all = append(all, fmt.Sprintf("%s %s", t.Address, word))
	}
	if len(all) == 0 {
		return "no address: this host has no default gateway"
	}
	return strings.Join(all, ", ")
}
