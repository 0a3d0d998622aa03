package cluster

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/state"
)

const (
	// dropAfter leaves a removed node the time to learn from the log that it was removed, before its connections are cut. New
	// connections are refused at once.
	dropAfter = 2 * time.Second
	// stallAfter is how long a leader's write may hang before another node is asked to lead. Raft itself would keep leading: its
	// heartbeats need no disk.
	stallAfter = 2 * time.Second
)

// followViews cuts the connections of removed nodes and tells the state where this node is, should its address have changed.
func (c *Cluster) followViews(ctx context.Context) {
	tick := time.NewTicker(dropAfter)
	defer tick.Stop()
	removed, dropAt := 0, time.Time{}
	for {
		v, next := c.opt.Views.Watch()
		c.wake()
		if v != nil && len(v.Removed) != removed {
			removed, dropAt = len(v.Removed), time.Now().Add(dropAfter)
		}
		if !dropAt.IsZero() && !time.Now().Before(dropAt) {
			dropAt = time.Time{}
			c.mux.drop()
		}
		c.moved(ctx, v)
		select {
		case <-next:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// moved puts this node's addresses right in the replicated state when node.hcl says others than when it joined.
func (c *Cluster) moved(ctx context.Context, v *state.View) {
	if v == nil {
		return
	}
	n, ok := v.Node(c.name)
	if !ok || n.Advertise == c.opt.Advertise && n.Role == c.opt.Role && slices.Equal(n.Heartbeat, c.opt.Heartbeat) {
		return
	}
	was := n
	n.Advertise, n.Role, n.Heartbeat = c.opt.Advertise, c.opt.Role, c.opt.Heartbeat
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	if err := c.announce(ctx, v, state.PutNode{Node: n}); err != nil {
		c.log.Warn("tell the cluster about this node's change", "addr", n.Advertise, "role", n.Role, "err", err)
		return
	}
	c.log.Info("node changed", "addr", n.Advertise, "role", n.Role, "heartbeat", n.Heartbeat,
		"was_addr", was.Advertise, "was_role", was.Role, "was_heartbeat", was.Heartbeat)
}

// announce proposes cmd, by way of any node that answers while this one knows no leader: a leader that does not know where this
// node is cannot tell it that it leads.
func (c *Cluster) announce(ctx context.Context, v *state.View, cmd state.Command) error {
	if c.leadership.Get().Leader != "" {
		return c.propose(ctx, cmd)
	}
	err := ErrNoLeader
	for _, n := range v.Nodes {
		if n.Name == c.name {
			continue
		}
		b, err1 := c.askOnce(ctx, n.Name, frameRelay, state.Encode(cmd))
		if err1 == nil {
			return resultOf(b)
		}
		err = err1
	}
	return err
}

// watchDisk takes a node whose disk failed out of the log, and asks another one to lead while a write hangs.
func (c *Cluster) watchDisk(ctx context.Context) {
	tick := time.NewTicker(stallAfter / 4)
	defer tick.Stop()
	stalled, told := false, SlowWrite{}
	for {
		err, next := c.disk.state.Watch()
		if err != nil {
			c.log.Error("disk failed: this node acknowledges nothing any more; mend the disk and restart it", "err", err)
			// A leader that could not write leads no more, which may be known already.
			if lead := c.leadership.Get(); lead.Self || lead.Leader == "" {
				c.callElection()
			}
			c.raft.Shutdown() // Run waits for it
			return
		}
		if slow := c.store.latency.newestSlow(0, time.Now()); slow != told {
			told = slow
			c.log.Warn("a write to the log took long", "took", slow.Took)
		}
		hangs := c.disk.stalled(time.Now()) > stallAfter
		if hangs != stalled {
			stalled = hangs
			c.log.Warn("disk", "hangs", hangs)
			if hangs && c.raft.State() == raft.Leader {
				c.callElection()
			}
		}
		select {
		case <-next:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// snapshots takes a snapshot when the log has grown by snapshotBytes: raft itself only counts entries, and a batch of sticky
// entries is a thousand times as long as a placement.
func (c *Cluster) snapshots(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if c.store.written.Load() < snapshotBytes || c.withdrawn() != nil {
			continue
		}
		if err := c.Snapshot(); err != nil && ctx.Err() == nil {
			c.log.Warn("take a snapshot", "err", err)
		}
	}
}

// Snapshot writes the machine's state beside the log and truncates the log behind it. It is done when needed without being asked;
// nothing that is proposed or applied waits for it. It returns when the log has been truncated; that nothing has changed since the
// last one is fine.
func (c *Cluster) Snapshot() error {
	if err := c.running(); err != nil {
		return err
	}
	c.store.written.Store(0)
	if err := c.trail(); err != nil {
		c.log.Warn("set how much of the log is kept", "err", err)
	}
	if err := c.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return err
	}
	return nil
}

// trail makes raft keep about trailingBytes of log behind the next snapshot.
func (c *Cluster) trail() error {
	first, last, size := c.store.extent()
	keep := uint64(trailingMax)
	if n := last - first + 1; size > trailingBytes && first != 0 {
		keep = min(max(n*trailingBytes/size, trailingMin), trailingMax)
	}
	rc := raft.ReloadableConfig{
		TrailingLogs:      keep,
		SnapshotInterval:  snapshotInterval,
		SnapshotThreshold: snapshotThreshold,
		HeartbeatTimeout:  raftTimeout,
		ElectionTimeout:   raftTimeout,
	}
	return c.raft.ReloadConfig(rc)
}

// Stats returns figures for people. They are not of one instant.
func (c *Cluster) Stats() Stats {
	s := Stats{Write: c.store.latency.stats(), Certificate: c.identity.Load().leaf.NotAfter}
	now := time.Now()
	s.Write.Slow = c.store.latency.newestSlow(c.disk.stalled(now), now)
	_, s.Last, s.LogBytes = c.store.extent()
	if c.running() != nil {
		s.State = "shutdown"
		return s
	}
	switch c.raft.State() {
	case raft.Leader:
		s.State = "leader"
	case raft.Candidate:
		s.State = "candidate"
	case raft.Follower:
		s.State = "follower"
	default:
		s.State = "shutdown"
	}
	s.Term, s.Commit, s.Applied = c.raft.CurrentTerm(), c.raft.CommitIndex(), c.AppliedIndex()
	if at := c.raft.LastContact(); s.State != "leader" && !at.IsZero() {
		s.LastContact = time.Since(at)
	}
	s.SnapshotIndex, _ = strconv.ParseUint(c.raft.Stats()["last_snapshot_index"], 10, 64)
	s.Voters = len(c.voters())
	return s
}

func (l *latency) stats() WriteStats {
	l.mu.Lock()
	ds := slices.Clone(l.ring[:min(l.n, len(l.ring))])
	l.mu.Unlock()
	if len(ds) == 0 {
		return WriteStats{}
	}
	slices.Sort(ds)
	return WriteStats{P50: ds[len(ds)/2], P99: ds[len(ds)*99/100], Max: ds[len(ds)-1]}
}
