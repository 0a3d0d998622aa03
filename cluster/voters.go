package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/state"
)

// caughtUp is how many entries a node may be behind before it becomes a voter. One that is further behind would hold up commits.
const caughtUp = 256

// Guards that confirm and nodes that catch up are looked at again and again: soon after something has changed, for most are ready within
// a second or two; more and more rarely when it takes longer, as with a node that is down.
const (
	lookSoon   = 100 * time.Millisecond
	lookRarely = time.Second
)

// followVoters makes raft's configuration follow the members of the replicated state while this node leads: one change at a time,
// the next one after the holders' guards have confirmed the last.
func (c *Cluster) followVoters(ctx context.Context) {
	pause, nodes := lookRarely, 0
	said := "" // the reason why not, once
	for {
		l, leaders := c.leadership.Watch()
		v, views := c.opt.Views.Watch()
		if n := countNodes(v); n != nodes {
			pause, nodes = lookSoon, n
		}
		if l.Self && l.Barrier {
			again, err := c.changeVoters(ctx)
			if again {
				pause = lookSoon
			}
			if err != nil && ctx.Err() == nil && err.Error() != said {
				c.log.Info("the voters do not follow the members yet", "err", err)
				said = err.Error()
			}
			if again {
				continue
			}
			if err == nil {
				if err := c.retireKeys(ctx); err != nil && ctx.Err() == nil {
					c.log.Debug("old keys are kept", "err", err)
				}
			}
		}
		select {
		case <-leaders:
		case <-views:
		case <-time.After(pause):
			pause = min(pause+pause/8, lookRarely)
		case <-ctx.Done():
			return
		}
	}
}

func countNodes(v *state.View) int {
	if v == nil {
		return 0
	}
	return len(v.Nodes)
}

// changeVoters makes at most one change. again: there may be more to do at once.
func (c *Cluster) changeVoters(ctx context.Context) (again bool, err error) {
	v := c.view()
	if !v.Founded() {
		return false, nil
	}
	f := c.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return false, err
	}
	known := c.fsm.voters.Load() // raft refuses a change that was made from an older set
	if !c.opt.Confirmed(known) {
		return false, nil
	}
	var now []state.Member
	var unready error
	for _, s := range f.Configuration().Servers {
		m := state.Member{Name: string(s.ID), Voter: s.Suffrage == raft.Voter}
		m.Addr, _ = netip.ParseAddrPort(string(s.Address)) // an address that cannot be read is none, and is put right
		if !m.Voter && len(v.Nodes) > 2 {
			behind, err := c.behind(ctx, m.Name)
			if err == nil && behind > caughtUp {
				err = fmt.Errorf("%d entries behind", behind)
			}
			if err == nil && !c.opt.Grants(m.Name) {
				err = errors.New("its guard grants no addresses yet")
			}
			if err != nil {
				unready = errors.Join(unready, fmt.Errorf("%s cannot vote yet: %w", m.Name, err))
			}
			m.Ready = err == nil
		}
		now = append(now, m)
	}
	step, ok := state.Voters(v.Nodes, now, c.name)
	if !ok {
		return false, unready
	}
	id, addr := raft.ServerID(step.Name), raft.ServerAddress(step.Addr.String())
	var change raft.IndexFuture
	switch step.Kind {
	case state.AddNonvoter:
		change = c.raft.AddNonvoter(id, addr, known, applyWait)
	case state.AddVoter:
		change = c.raft.AddVoter(id, addr, known, applyWait)
	case state.Demote:
		change = c.raft.DemoteVoter(id, known, applyWait)
	case state.RemoveMember:
		if step.Name == c.name {
			return false, c.Transfer("") // the next leader does it
		}
		change = c.raft.RemoveServer(id, known, applyWait)
	default:
		return false, fmt.Errorf("change of voters %v is not known", step)
	}
	if err := change.Error(); err != nil {
		return false, fmt.Errorf("%v %s: %w", step.Kind, step.Name, err)
	}
	c.log.Info("voters changed", "change", step.Kind, "peer", step.Name, "index", change.Index())
	c.wake()
	return true, nil
}

// behind asks a node how many entries it has yet to apply.
func (c *Cluster) behind(ctx context.Context, node string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	b, err := c.askOnce(ctx, node, frameIndex, nil)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, errFrame
	}
	applied, want := binary.BigEndian.Uint64(b), c.raft.CommitIndex()
	return want - min(want, applied), nil
}

// retireKeys drops the shared keys that newer ones have replaced (a removed node knows them), once every node that is alive has the
// newer ones. A node that is away gets them through the log, which needs none of them.
func (c *Cluster) retireKeys(ctx context.Context) error {
	v := c.view()
	if len(v.Keys.Gossip) < 2 && len(v.Keys.Heartbeat) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	for _, m := range c.members.Get() {
		if m.Name == c.name || !m.Alive {
			continue
		}
		b, err := c.askOnce(ctx, m.Name, frameIndex, nil)
		if err != nil {
			return fmt.Errorf("ask %s whether it has the new keys: %w", m.Name, err)
		}
		if len(b) != 8 || binary.BigEndian.Uint64(b) < v.Index {
			return fmt.Errorf("%s has not applied the new keys yet", m.Name)
		}
	}
	if err := c.propose(ctx, state.RotateKeys{Keep: 1}); err != nil {
		return err
	}
	c.log.Info("old keys retired")
	return nil
}
