package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// nudges tell followers at once that an entry is committed. Raft tells them with the next entries, or, on a quiet log, after its
// CommitTimeout: at 50 ms a placement would reach the node that is to claim an address that much later, and at 5 ms an idle leader
// sends each follower some 130 messages a second, by its timer, and its agent used twice the CPU (docs/decisions/0007).
//
// A nudge is what the leader might have sent anyway: AppendEntries with no entries, behind the committed entry, by its index and
// term. A follower that has that entry has all before it (Raft's log matching), and takes them as committed; one that has not refuses,
// and hears it the slow way.
type nudges struct {
	c *Cluster

	newest atomic.Pointer[commit]
	wake   chan struct{} // capacity 1

	// Owned by run.
	peers map[raft.ServerID]*nudged
	wg    sync.WaitGroup
}

type commit struct{ index, term uint64 }

// nudged is one follower. Owned by its goroutine while busy.
type nudged struct {
	busy atomic.Bool
	told commit
	rest time.Time // after a failure: none before
}

const (
	nudgeAgain = 2 * time.Millisecond // the entry itself was still under way
	nudgeTries = 5
	nudgeRest  = time.Second // from a follower that cannot be reached
)

func newNudges(c *Cluster) *nudges {
	return &nudges{c: c, wake: make(chan struct{}, 1), peers: map[raft.ServerID]*nudged{}}
}

// committed takes note of an entry that raft brought to the machine. It never blocks.
func (n *nudges) committed(index, term uint64) {
	n.newest.Store(&commit{index, term})
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run nudges while this node leads, until ctx ends, and returns when the last nudge has.
func (n *nudges) run(ctx context.Context) {
	defer n.wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		if n.c.raft.State() != raft.Leader {
			continue
		}
		f := n.c.raft.GetConfiguration()
		for _, s := range f.Configuration().Servers {
			if s.ID == raft.ServerID(n.c.name) {
				continue
			}
			p := n.peers[s.ID]
			if p == nil {
				p = &nudged{}
				n.peers[s.ID] = p
			}
			if p.busy.CompareAndSwap(false, true) {
				n.wg.Go(func() {
					n.nudge(ctx, s, p)
					p.busy.Store(false)
				})
			}
		}
	}
}

// nudge tells one follower the newest commit, until there is no newer one.
func (n *nudges) nudge(ctx context.Context, to raft.Server, p *nudged) {
	if time.Now().Before(p.rest) {
		return
	}
	for tries := 0; tries < nudgeTries && ctx.Err() == nil; {
		now := *n.newest.Load()
		term := n.c.raft.CurrentTerm()
		if now == p.told || now.term != term || n.c.raft.State() != raft.Leader {
			return // an entry of an older term is told by the entries of this one
		}
		if n.c.raft.LastIndex() > now.index {
			return // newer entries are under way and carry the commit along
		}
		self := n.c.transport.EncodePeer(raft.ServerID(n.c.name), n.c.transport.LocalAddr())
		req := raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.c.name), Addr: self},
			Term:      term, PrevLogEntry: now.index, PrevLogTerm: now.term, LeaderCommitIndex: now.index,
		}
		var resp raft.AppendEntriesResponse
		err := ask(n.c.transport, to.ID, beatSilence, func(resp *raft.AppendEntriesResponse) error {
			return n.c.transport.NetworkTransport.AppendEntries(to.ID, to.Address, &req, resp)
		}, &resp)
		if err != nil {
			p.rest = time.Now().Add(nudgeRest)
			return
		}
		if resp.Success {
			p.told, tries = now, 0
			continue
		}
		tries++
		select {
		case <-time.After(nudgeAgain):
		case <-ctx.Done():
		}
	}
}
