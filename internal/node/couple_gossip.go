package node

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
)

// summary rides in a node's gossip: what it runs and serves, and which servers it finds down. It is bounded, because gossip's metadata is
// (512 bytes); whoever needs all of it asks the node's API.
type summary struct {
	Level   int    `json:"level,omitempty"`   // the newest level of commands that the node applies; 0: it knows of none
	Version string `json:"version,omitempty"` // for people

	Stopping bool `json:"stopping,omitempty"` // it was asked to: its absence is no failure

	Runs   uint64 `json:"runs,omitempty"`   // the revision that is in force
	Failed uint64 `json:"failed,omitempty"` // a newer one that could not be put in force

	Short []string `json:"short,omitempty"` // VIPs behind which it sees fewer healthy servers than their minimum_servers
	Down  []string `json:"down,omitempty"`  // "backend/server"
	More  int      `json:"more,omitempty"`  // how many of Down did not fit
}

const (
	summaryMax = 480 // bytes of JSON
	versionMax = 64
)

// summarize adds to s what runs and what verdicts say under the configuration c, in a stable order.
func summarize(s summary, c *config.Config, running api.Running, verdicts map[healthcheck.Key]healthcheck.Verdict) []byte {
	s.Short, s.Runs, s.Failed = short(c, verdicts), running.Revision, failed(running)
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
		if len(s.Down) == 0 { // 64 VIPs with long names: the rest is not said
			s.Short = s.Short[:len(s.Short)-1]
			continue
		}
		s.Down = s.Down[:len(s.Down)-1]
		s.More++
	}
}

// failed is the revision that could not be put in force, 0 when none was tried in vain.
func failed(r api.Running) uint64 {
	if r.Error == "" {
		return 0
	}
	return r.Tried
}

// readSummary reads what summarize wrote; what cannot be read says nothing.
func readSummary(meta []byte) summary {
	var s summary
	if len(meta) == 0 || json.Unmarshal(meta, &s) != nil {
		return summary{}
	}
	return s
}

// short returns the VIPs behind which verdicts has fewer servers up than they ask for, by name. A server without a verdict counts as
// up, as the engine takes it.
func short(c *config.Config, verdicts map[healthcheck.Key]healthcheck.Verdict) []string {
	if c == nil {
		return nil
	}
	var names []string
	for _, v := range c.VIPs {
		if v.MinimumServers > 0 && slices.ContainsFunc(c.BackendsBehind(v.Name), func(b *config.Backend) bool {
			up := 0
			for _, s := range b.Servers {
				if verdict, seen := verdicts[healthcheck.Key{Backend: b.Name, Server: s.Name}]; !seen || verdict.Up {
					up++
				}
			}
			return up < min(v.MinimumServers, len(b.Servers))
		}) {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return names
}

// coupleGossip: what this node runs, and what its checks see -> its gossip.
func (n *Node) coupleGossip(ctx context.Context) {
	own := summary{Level: n.level, Version: n.version[:min(len(n.version), versionMax)]}
	if n.level < 2 {
		own = summary{} // a version of that level says nothing
	}
	if n.engine == nil { // a witness checks nothing
		b, _ := json.Marshal(own)
		n.cluster.SetMeta(b)
		return
	}
	var last string
	for {
		view, viewed := n.machine.Views().Watch()
		verdicts, judged := n.checker.Verdicts().Watch()
		running, ran := n.running.Watch()
		leaving, left := n.leaving.Watch()
		own.Stopping = leaving
		if b := summarize(own, view.Config, running, verdicts); string(b) != last {
			last = string(b)
			n.cluster.SetMeta(b)
		}
		if leaving {
			n.farewell.Set(true)
		}
		select {
		case <-viewed:
		case <-judged:
		case <-ran:
		case <-left:
		case <-ctx.Done():
			return
		}
	}
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

// seeds says down for a server that most of the other living balancers find down.
func seeds(members []cluster.Member, self string, v *state.View) map[healthcheck.Key]bool {
	if v.Config == nil {
		return nil
	}
	votes, voters := map[string]int{}, 0
	for _, m := range members {
		if m.Name == self || !m.Alive || len(m.Meta) == 0 || m.Role == state.Witness { // which checks nothing
			continue
		}
		voters++
		for _, k := range readSummary(m.Meta).Down {
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
