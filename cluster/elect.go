package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Errors of an election that cannot be.
var (
	ErrNotVoter  = errors.New("this node is not a voter")
	ErrNotLeader = errors.New("this node is not the leader")
)

// followLeader publishes who leads, as soon as raft knows, and puts a barrier behind every election that this node wins.
func (c *Cluster) followLeader(ctx context.Context) {
	events := make(chan raft.Observation, 64)
	o := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	c.raft.RegisterObserver(o)
	defer c.raft.DeregisterObserver(o)
	tick := time.NewTicker(time.Second) // an observation that found the channel full
	defer tick.Stop()
	for {
		c.publishLeader(ctx)
		select {
		case <-events:
		case <-tick.C:
		case <-ctx.Done():
			c.leadership.Set(Leadership{})
			return
		}
	}
}

func (c *Cluster) publishLeader(ctx context.Context) {
	_, id := c.raft.LeaderWithID()
	now := Leadership{Leader: string(id), Self: c.raft.State() == raft.Leader, Term: c.raft.CurrentTerm()}
	if now.Self {
		now.Leader = c.name
	} else if now.Leader == c.name {
		now.Leader = "" // it was, and raft has not forgotten yet
	}
	old := c.leadership.Get()
	if old.Leader == now.Leader && old.Self == now.Self && (old.Term == now.Term || now.Leader == "") {
		return
	}
	now.Since = time.Now()
	now.Barrier = now.Self && c.caughtUp()
	c.leadership.Set(now)
	c.links.follow(now.Leader)
	c.wake()
	c.log.Info("leader", "leader", orNone(now.Leader), "was", orNone(old.Leader), "term", now.Term)
	if now.Self && !now.Barrier {
		if c.asked.begin() {
			go func() { defer c.asked.end(); c.barrier(ctx, now.Term) }()
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// seenMost bounds the look back through the log of caughtUp.
const seenMost = 64

// caughtUp reports whether the machine has carried out every command in this node's log. The log of who was elected has all that was
// committed before, so that nothing needs to go through it to find out: the usual case, and two syncs less until an address is placed.
func (c *Cluster) caughtUp() bool {
	last, applied := c.raft.LastIndex(), c.fsm.applied.Load()
	for i := last; i > applied; i-- {
		var l raft.Log
		if last-i >= seenMost || c.store.GetLog(i, &l) != nil || l.Type == raft.LogCommand {
			return false
		}
	}
	return true
}

// barrier publishes that the new leader has caught up with what was committed before it.
func (c *Cluster) barrier(ctx context.Context, term uint64) {
	for c.raft.State() == raft.Leader && c.raft.CurrentTerm() == term && ctx.Err() == nil {
		if err := c.raft.Barrier(0).Error(); err != nil {
			select { // a transfer that is under way and may yet fail
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		if c.outdated.Get() != nil {
			return // not all was applied
		}
		c.leadership.Update(func(l Leadership) Leadership {
			if l.Self && l.Term == term {
				l.Barrier = true
			}
			return l
		})
		return
	}
}

// Elect starts an election at once, without waiting for raft's own timers. It is for a follower whose leader is known to be dead by
// better means than raft's; one follower at a time, or votes split.
func (c *Cluster) Elect() error {
	if err := c.running(); err != nil {
		return err
	}
	if err := c.withdrawn(); err != nil {
		return err
	}
	if c.raft.State() == raft.Leader {
		return nil
	}
	if !c.voter(c.name) {
		return ErrNotVoter
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := c.transport.elect(ctx); err != nil {
		return fmt.Errorf("start an election: %w", err)
	}
	return nil
}

// standAlone makes the only voter lead at once: raft would first wait for one to two seconds for a leader that there cannot be. So it is
// with a cluster that was just founded or recovered, a single node, and the first of a pair.
func (c *Cluster) standAlone() {
	if vs := c.voters(); len(vs) != 1 || string(vs[0].ID) != c.name {
		return
	}
	if err := c.Elect(); err != nil {
		c.log.Info("the only voter waits for its time-out to lead", "err", err)
	}
}

// noteRival publishes that another node stands. Raft has not looked at its request yet.
func (c *Cluster) noteRival(v *raft.RequestVoteRequest) {
	select {
	case <-c.started:
	default:
		return
	}
	now := Rival{Name: string(v.ID), Term: v.Term, At: time.Now()}
	last := c.raft.LastIndex()
	var l raft.Log
	if c.store.GetLog(last, &l) == nil {
		now.Behind = l.Term > v.LastLogTerm || l.Term == v.LastLogTerm && last > v.LastLogIndex
	}
	c.rival.Set(now)
}

// Transfer hands leadership to the voter of that name; "" is any.
func (c *Cluster) Transfer(to string) error {
	if err := c.running(); err != nil {
		return err
	}
	if c.raft.State() != raft.Leader {
		return ErrNotLeader
	}
	var f raft.Future
	if to == "" {
		f = c.raft.LeadershipTransfer()
	} else {
		if !c.voter(to) {
			return fmt.Errorf("hand leadership to %s: it is not a voter", to)
		}
		f = c.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
	}
	if err := f.Error(); err != nil {
		return fmt.Errorf("hand leadership over: %w", err)
	}
	return nil
}

// handOver spares the others an election by time-out when a leader stops.
func (c *Cluster) handOver() {
	if c.raft.State() != raft.Leader || len(c.voters()) < 2 {
		return
	}
	if err := c.Transfer(""); err != nil {
		c.log.Info("leadership was not handed over", "err", err)
	}
}

// callElection asks another voter, over the wire, to start an election: what a leader does that can no longer write and so cannot
// hand over properly. It tries one after the other until one agrees.
func (c *Cluster) callElection() {
	alive := map[string]bool{}
	for _, m := range c.members.Get() {
		alive[m.Name] = m.Alive
	}
	for _, pass := range []bool{true, false} {
		for _, s := range c.voters() {
			if string(s.ID) == c.name || alive[string(s.ID)] != pass {
				continue
			}
			req := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.name)}}
			var resp raft.TimeoutNowResponse
			if err := c.transport.TimeoutNow(s.ID, s.Address, &req, &resp); err == nil {
				c.log.Info("asked another node to lead", "peer", s.ID)
				return
			}
		}
	}
}

// running reports whether raft is there to be asked.
func (c *Cluster) running() error {
	select {
	case <-c.started:
	default:
		return ErrNoLeader
	}
	if c.closing() {
		return ErrClosed
	}
	return nil
}

// voters returns raft's voters.
func (c *Cluster) voters() []raft.Server {
	var vs []raft.Server
	for _, s := range c.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			vs = append(vs, s)
		}
	}
	return vs
}

func (c *Cluster) voter(name string) bool {
	for _, s := range c.voters() {
		if string(s.ID) == name {
			return true
		}
	}
	return false
}
