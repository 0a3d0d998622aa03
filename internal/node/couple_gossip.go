package node

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
)

// summary rides in a node's gossip: which servers it finds down. It is bounded, because gossip's metadata is (512 bytes); whoever
// needs all of it asks the node's API.
type summary struct {
	Down []string `json:"down,omitempty"` // "backend/server"
	More int      `json:"more,omitempty"` // how many did not fit
}

const summaryMax = 480 // bytes of JSON

// summarize returns the summary of verdicts, in a stable order.
func summarize(verdicts map[healthcheck.Key]healthcheck.Verdict) []byte {
	var s summary
	for k, v := range verdicts {
		if !v.Up {
			s.Down = append(s.Down, k.String())
		}
	}
	slices.Sort(s.Down)
	for {
		b, err := json.Marshal(s)
		if err != nil {
			return nil // strings and a number: cannot be
		}
		if len(b) <= summaryMax {
			return b
		}
		s.Down = s.Down[:len(s.Down)-1]
		s.More++
	}
}

// coupleGossip: what this node's checks see -> its gossip.
func (n *Node) coupleGossip(ctx context.Context) {
	if n.engine == nil {
		return
	}
	var last string
	n.checker.Verdicts().Each(ctx, func(v map[healthcheck.Key]healthcheck.Verdict) {
		if b := summarize(v); string(b) != last {
			last = string(b)
			n.cluster.SetMeta(b)
		}
	})
}

// seedWithin is how long after its start a node still takes the others' word for servers that it has not probed itself.
const seedWithin = 5 * time.Second

// coupleSeed: the other nodes' verdicts -> what this node's checks begin with. Its own first probe outranks them.
func (n *Node) coupleSeed(ctx context.Context) {
	if n.engine == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, seedWithin)
	defer cancel()
	n.cluster.Members().Each(ctx, func(members []cluster.Member) {
		n.checker.Seed(seeds(members, n.conf.Name, n.machine.Views().Get()))
	})
}

// seeds says down for a server that most of the other living members find down.
func seeds(members []cluster.Member, self string, v *state.View) map[healthcheck.Key]bool {
	if v.Config == nil {
		return nil
	}
	votes, voters := map[string]int{}, 0
	for _, m := range members {
		var s summary
		if m.Name == self || !m.Alive || len(m.Meta) == 0 || json.Unmarshal(m.Meta, &s) != nil {
			continue
		}
		voters++
		for _, k := range s.Down {
			votes[k]++
		}
	}
	down := map[healthcheck.Key]bool{}
	for _, t := range healthcheck.Targets(v.Config) {
		if 2*votes[t.Key.String()] > voters {
			down[t.Key] = false
		}
	}
	return down
}
