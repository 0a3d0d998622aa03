// Package api is the admin API of a node: HTTP and JSON over a unix socket and over the cluster's own mutual TLS.
//
// It decides nothing about the cluster: it shows the replicated state and the nodes' reports, and hands writes to a Proposer.
// What it needs from the rest of a node is in Options. The one rule: a read is answered with what this node has, without a
// quorum too, and says how old that is.
package api

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
)

// Proposer puts a command into the replicated log, wherever the leader is. It returns ErrNoLeader when there is none to take it,
// and ErrUnknownOutcome when the command may or may not have been committed.
type Proposer interface {
	Propose(ctx context.Context, cmd []byte) (result []byte, index uint64, err error)
}

// Peers is the way to the other nodes.
type Peers interface {
	// Members returns what gossip and Raft know of every member, this node included.
	Members() []Member
	// Dial connects to the API of the named node; both sides have proved who they are.
	Dial(ctx context.Context, node string) (net.Conn, error)
}

// Member is another node as the cluster layer sees it.
type Member struct {
	Name  string
	Voter bool
	Alive bool
}

// Running is the engine's side of a configuration change: the newest revision in force, and the newest one tried.
type Running struct {
	Revision uint64
	Tried    uint64
	Error    string // why Tried is not in force
}

// Operations are the acts on the cluster that need more than a proposal.
type Operations interface {
	// NewToken makes a secret with which hosts may join.
	NewToken(ctx context.Context, role string, expires time.Duration, uses int) (Token, error)
	// RemoveNode takes a node out of the cluster and refuses its certificate from then on.
	RemoveNode(ctx context.Context, name string) error
	// Upgrade has another process follow this node's agent. An error means that none will; what happens after the answer is in the
	// node's report.
	Upgrade(ctx context.Context, drain time.Duration) (Successor, error)
}

// Options is what a node gives to its API. All fields are required.
type Options struct {
	Self    string
	Views   *watch.Value[*state.View]
	Running *watch.Value[Running]
	Report  func() NodeReport // must not block
	Check   func(*config.Config) error
	Explain func(vip string) []string // why this node holds it or does not, line by line

	Seal func(purpose string, secret []byte) ([]byte, error) // what goes into the replicated state and is nobody's to read

	Proposer   Proposer
	Peers      Peers
	Operations Operations
	Log        *slog.Logger
}
