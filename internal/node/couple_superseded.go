package node

import (
	"context"
	"fmt"
)

// coupleSuperseded: the guard hears that the cluster was recovered without this node -> it leaves the log. The guard has let go of
// everything by itself.
func (n *Node) coupleSuperseded(ctx context.Context) {
	for {
		seen, saw := n.guard.State().Watch()
		if s := seen.Superseded; s != nil && seen.Connected {
			n.cluster.Supersede(s.By, s.Generation)
		}
		select {
		case <-saw:
		case <-ctx.Done():
			return
		}
	}
}

// leftBehindHint is how a node that was left behind comes back.
func leftBehindHint(by, dir string) string {
	return fmt.Sprintf("stop the agent, move %s away, `skein cluster token` on %s, `skein cluster join` here", dir, by)
}
