package node

import (
	"context"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
)

// The pace of the sticky pump: what the loops learned goes into the log every stickyEvery, or sooner when a full batch waits.
// Batches of 100 carry 300 k entries/s through a three-node log on one disk; single ones 7 k/s.
const (
	stickyEvery  = 4 * time.Millisecond
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

// logTick is how often time passes in the log: sticky entries and tokens end by it.
const logTick = time.Second

// coupleTime: the leader's monotonic clock -> log time. Only while something in the log can end, so that a quiet cluster's log is
// quiet; time that was not needed is made up for with the next tick.
func (n *Node) coupleTime(ctx context.Context) {
	tick := time.NewTicker(logTick)
	defer tick.Stop()
	var since time.Time // zero: not leading
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.cluster.Leadership().Get().Self {
			since = time.Time{}
			continue
		}
		if since.IsZero() {
			since = time.Now()
			continue
		}
		view := n.machine.Views().Get()
		if len(view.Tokens) == 0 && len(view.Scope.Tables) == 0 {
			since = time.Now()
			continue
		}
		now := time.Now()
		pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, _, err := n.cluster.Propose(pctx, state.Encode(state.Tick{ElapsedMs: uint64(now.Sub(since).Milliseconds())}))
		cancel()
		if err == nil {
			since = now
		}
	}
}

// retireAfter is how long every member has had the new keys of a removal before the old ones are taken out of the log.
const retireAfter = 10 * time.Second

// coupleKeys: a removed node knows the keys of its time; once every member runs with the newer ones, the leader retires the old.
func (n *Node) coupleKeys(ctx context.Context) {
	for {
		view, err := n.machine.Views().Wait(ctx, func(v *state.View) bool {
			return len(v.Keys.Heartbeat) > 1 || len(v.Keys.Gossip) > 1
		})
		if err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retireAfter):
		}
		if !n.cluster.Leadership().Get().Self || !n.everyoneHas(view.Index) {
			continue
		}
		pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, _, err = n.cluster.Propose(pctx, state.Encode(state.RotateKeys{Keep: 1}))
		cancel()
		if err != nil {
			n.log.Warn("old keys not retired", "why", err)
		}
	}
}

// everyoneHas reports whether every member's guard was told a state at least as new as index.
func (n *Node) everyoneHas(index uint64) bool {
	s := n.guard.State().Get()
	if !s.Connected {
		return false
	}
	for _, p := range s.Peers {
		if p.Applied < index {
			return false
		}
	}
	return true
}
