package node

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
)

// proposer is cluster.Propose with the API's words for what can go wrong.
type proposer struct{ c *cluster.Cluster }

func (p proposer) Propose(ctx context.Context, cmd []byte) ([]byte, uint64, error) {
	result, index, err := p.c.Propose(ctx, cmd)
	return result, index, apiError(err)
}

// Propose has the cluster carry out a command. The error is the log's, or the refusal of the machine.
func (n *Node) Propose(ctx context.Context, cmd state.Command) error {
	result, _, err := n.cluster.Propose(ctx, state.Encode(cmd))
	if err != nil {
		return err
	}
	r, err := state.DecodeResult(result)
	if err != nil {
		return err
	}
	return r.Err()
}

// translated is an error with its own text and a sentinel of the API.
type translated struct{ error, is error }

func (t translated) Unwrap() error { return t.is }
func (t translated) Error() string { return t.error.Error() }

func apiError(err error) error {
	var left *cluster.Superseded
	switch {
	case errors.As(err, &left):
		return translated{err, api.ErrNoLeader}
	case errors.Is(err, cluster.ErrNoLeader), errors.Is(err, cluster.ErrNoQuorum), errors.Is(err, state.ErrNotFounded):
		return translated{err, api.ErrNoLeader}
	case errors.Is(err, cluster.ErrUnknownOutcome):
		return translated{err, api.ErrUnknownOutcome}
	case errors.Is(err, state.ErrTooEarly), errors.Is(err, state.ErrTooNew):
		return api.Outdated(err)
	}
	return err
}

// peers is the way to the other nodes, for the API.
type peers struct{ n *Node }

func (p peers) Members() []api.Member {
	var ms []api.Member
	seen := p.n.guard.State().Get()
	for _, m := range p.n.cluster.Members().Get() {
		alive := m.Alive
		// Gossip misses a node after seconds, the guards after milliseconds.
		if peer, heard := seen.Peers[m.Name]; heard && seen.Connected && gone(peer) {
			alive = false
		}
		ms = append(ms, api.Member{Name: m.Name, Voter: m.Voter, Alive: alive || m.Name == p.n.conf.Name})
	}
	return ms
}

func (p peers) Dial(ctx context.Context, node string) (net.Conn, error) {
	return p.n.cluster.Dial(ctx, node, cluster.ALPNAPI)
}

// operations are the acts on the cluster that need more than a proposal.
type operations struct{ n *Node }

func (o operations) NewToken(ctx context.Context, role string, expires time.Duration, uses int) (api.Token, error) {
	id, text, err := o.n.cluster.CreateToken(ctx, state.Role(role), expires, uses)
	if err != nil {
		return api.Token{}, apiError(err)
	}
	return api.Token{ID: id, Token: text, Role: role, Uses: uses, ExpiresAt: time.Now().Add(expires), Address: advertise(o.n.conf).String()}, nil
}

func (o operations) Upgrade(ctx context.Context, drain time.Duration) (api.Successor, error) {
	s, err := o.n.Upgrade(ctx, drain)
	if err != nil {
		return api.Successor{}, upgradeError(err, o.n.conf.Name)
	}
	return api.Successor{Node: o.n.conf.Name, From: o.n.version, To: s.Version, PID: s.PID, DrainSeconds: drain.Seconds()}, nil
}

func (o operations) RemoveNode(ctx context.Context, name string) error {
	return apiError(o.n.cluster.RemoveNode(ctx, name))
}
