package sim

import (
	"context"
	"fmt"
	"sync"

	"github.com/skeinlb/skein/state"
)

// replicas holds the nodes' machines against each other: at one index of one log all have the same state, also one that replays it
// after a restart. A recovery forks the log, and its generation says so.
type replicas struct {
	mu sync.Mutex
	// mu guards the following.
	known map[replicaAt]replica
}

type replicaAt struct{ generation, index uint64 }

// replica is who was seen there first, and with what.
type replica struct {
	node, state string
	sum         uint32 // of all of it
}

// follow looks at what a node publishes until ctx ends, and reports the first difference.
func (r *replicas) follow(ctx context.Context, node string, m *state.Machine, differs func(string)) {
	m.Views().Each(ctx, func(v *state.View) {
		if why := r.see(node, v); why != "" {
			differs(why)
		}
	})
}

// see notes a node's view, and says how it differs from another node's at the same index.
func (r *replicas) see(node string, v *state.View) (differs string) {
	at, now := replicaAt{v.Cluster.Generation, v.Index}, fmt.Sprint(v.Revision.Number, v.SortedPlacements(), v.Drained, v.Servers, v.Nodes)
	sum := v.Sum()
	r.mu.Lock()
	defer r.mu.Unlock()
	first, seen := r.known[at]
	if !seen {
		if r.known == nil {
			r.known = map[replicaAt]replica{}
		}
		r.known[at] = replica{node, now, sum}
		return ""
	}
	if first.sum != sum {
		return fmt.Sprintf("the replicas differ at index %d: %s has %s, %s had %s", v.Index, node, now, first.node, first.state)
	}
	return ""
}
