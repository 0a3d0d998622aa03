// Package fleet runs a cluster of skein on the hosts of a lab, through the real binary and the command line that an operator has.
//
// It measures nothing and decides nothing: the demo and the tests do. The one rule: what it does to a node is what an operator or a
// misfortune could do to it, from outside.
package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
)

// Fleet is a cluster in the making or running.
type Fleet struct {
	World  *lab.World
	Binary string // skein
	Agent  string // what runs as agent; empty: Binary
	Dir    string // a directory per node below it

	mu sync.Mutex
	// mu guards the following.
	nodes []*Node
}

// Node is one node of the cluster.
type Node struct {
	Name   string
	Host   *lab.Host
	Dir    string
	Role   string // "balancer" or "witness"
	binary string
	agents string // the agent's binary

	mu sync.Mutex
	// mu guards the following.
	agent *lab.Process // nil: never started
	log   *os.File
}

// Add attaches a host for a node and writes its node.hcl. The extra lines go into it as they are.
func (f *Fleet) Add(name string, extra ...string) (*Node, error) {
	return f.add(name, "balancer", extra)
}

// AddWitness does so for a node that votes and carries nothing.
func (f *Fleet) AddWitness(name string, extra ...string) (*Node, error) {
	return f.add(name, "witness", append([]string{`role = "witness"`}, extra...))
}

func (f *Fleet) add(name, role string, extra []string) (*Node, error) {
	h, err := f.World.AddHost(name)
	if err != nil {
		return nil, err
	}
	n := &Node{Name: name, Host: h, Dir: filepath.Join(f.Dir, name), binary: f.Binary, agents: cmp.Or(f.Agent, f.Binary), Role: role}
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("name      = %q\ndata_dir  = %q\nadvertise = %q\n%s", name, n.Dir, h.Addr, strings.Join(append(extra, ""), "\n"))
	if err := os.WriteFile(n.file(), []byte(text), 0o600); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.nodes = append(f.nodes, n)
	f.mu.Unlock()
	return n, nil
}

// Nodes returns the nodes in the order in which they were added.
func (f *Fleet) Nodes() []*Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Node(nil), f.nodes...)
}

// Node returns the node of that name, or nil.
func (f *Fleet) Node(name string) *Node {
	for _, n := range f.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Boot founds the cluster on the first node, joins the others, starts all and waits until as many voters as nodes are there. told
// hears every command line, as an operator would type it.
func (f *Fleet) Boot(ctx context.Context, told func(node, command string)) error {
	if err := f.Found(ctx, told); err != nil {
		return err
	}
	return f.Voting(ctx)
}

// Found does so and does not wait for the voters: the cluster takes a configuration already, and the first claim of an address, which the
// network is asked about for seconds, goes on beside.
func (f *Fleet) Found(ctx context.Context, told func(node, command string)) error {
	for i, n := range f.Nodes() {
		if i == 0 {
			told(n.Name, "skein cluster init")
			if _, err := n.Skein(ctx, "cluster", "init", "--config", n.file()); err != nil {
				return err
			}
		} else {
			first := f.Nodes()[0]
			if n.Role == "balancer" {
				told(first.Name, "skein cluster token")
			} else {
				told(first.Name, "skein cluster token --role "+n.Role)
			}
			token, err := first.Token(ctx, n.Role)
			if err != nil {
				return err
			}
			told(n.Name, fmt.Sprintf("skein cluster join %v --token %.16s...", first.Host.Addr, token))
			if _, err := n.Skein(ctx, "cluster", "join", first.Host.Addr.String(), "--config", n.file(), "--token", token); err != nil {
				return err
			}
		}
		told(n.Name, "skein agent")
		if err := n.Start(); err != nil {
			return err
		}
		if err := n.Ready(ctx); err != nil {
			return err
		}
		// The next one joins through a leader.
		_, err := f.WaitStatus(ctx, "a leader", func(s *api.Status) bool { return s.AsOf.Quorum && len(s.Nodes) == i+1 })
		if err != nil {
			return err
		}
	}
	return nil
}

// Voting waits until all vote that will.
func (f *Fleet) Voting(ctx context.Context) error {
	want := len(f.Nodes())
	if want == 2 {
		want = 1 // of two, one votes
	}
	return f.WaitVoters(ctx, want)
}

// WaitVoters waits until the first node that answers sees want voters, all alive and reachable.
func (f *Fleet) WaitVoters(ctx context.Context, want int) error {
	_, err := f.WaitStatus(ctx, fmt.Sprintf("%d voters", want), func(s *api.Status) bool {
		ok := 0
		for _, n := range s.Nodes {
			if n.Voter && n.Alive && n.Reachable {
				ok++
			}
		}
		return ok >= want && s.AsOf.Quorum
	})
	return err
}

// WaitStatus asks the nodes in turn until one answers with a status that fits.
func (f *Fleet) WaitStatus(ctx context.Context, what string, fits func(*api.Status) bool) (*api.Status, error) {
	var last error
	for {
		for _, n := range f.Nodes() {
			s, err := n.Status(ctx)
			if err == nil && fits(s) {
				return s, nil
			}
			if err != nil {
				last = err
			} else {
				last = fmt.Errorf("%s says: %s %s", n.Name, s.Verdict, strings.Join(s.Reasons, "; "))
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w (last: %w)", what, context.Cause(ctx), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Apply applies a configuration from the node n.
func (n *Node) Apply(ctx context.Context, text, message string) error {
	path := filepath.Join(n.Dir, "apply.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := n.Skein(ctx, "apply", path, "-m", message)
	return err
}

// Token makes a join token for one host of that role.
func (n *Node) Token(ctx context.Context, role string) (string, error) {
	out, err := n.Skein(ctx, "cluster", "token", "--role", role, "-o", "json")
	if err != nil {
		return "", err
	}
	var t api.Token
	if err := json.Unmarshal([]byte(out), &t); err != nil {
		return "", fmt.Errorf("token of %s: %w: %s", n.Name, err, out)
	}
	return t.Token, nil
}

// Status is the cluster as this node sees it. A degraded cluster is no error.
func (n *Node) Status(ctx context.Context) (*api.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := n.Skein(ctx, "status", "-o", "json")
	var s api.Status
	if jerr := json.Unmarshal([]byte(out), &s); jerr != nil {
		return nil, errors.Join(err, fmt.Errorf("status of %s: %w", n.Name, jerr))
	}
	return &s, nil
}

// Skein runs a verb of the command line on the node and returns what it printed.
func (n *Node) Skein(ctx context.Context, args ...string) (string, error) {
	return n.Host.Output(ctx, n.binary, append(args, "--socket", n.Socket())...)
}

// Socket is the path of the node's admin socket.
func (n *Node) Socket() string { return filepath.Join(n.Dir, "skein.sock") }

// LogPath is where the node's agent writes.
func (n *Node) LogPath() string { return filepath.Join(n.Dir, "agent.log") }

func (n *Node) file() string { return filepath.Join(n.Dir, "node.hcl") }

// Start starts the agent.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.log == nil {
		var err error
		if n.log, err = os.OpenFile(n.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	cmd := lab.Command(n.agents, "agent", "--config", n.file(), "--drain", "2s")
	cmd.Stdout, cmd.Stderr = n.log, n.log
	p, err := n.Host.Start(cmd)
	if err != nil {
		return err
	}
	n.agent = p
	return nil
}

// Ready waits until the node's API answers. An agent that ended meanwhile is an error with the end of its log.
func (n *Node) Ready(ctx context.Context) error {
	n.mu.Lock()
	agent := n.agent
	n.mu.Unlock()
	for {
		if _, err := n.Status(ctx); err == nil {
			return nil
		}
		select {
		case <-agent.Done():
			return fmt.Errorf("the agent of %s ended: %s", n.Name, n.LogTail(10))
		case <-ctx.Done():
			return fmt.Errorf("wait for the agent of %s: %w: %s", n.Name, context.Cause(ctx), n.LogTail(10))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Agent is the agent's process, nil before the first Start.
func (n *Node) Agent() *lab.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent
}

// Kill kills the agent with SIGKILL. Its guard lives on.
func (n *Node) Kill() error { return unix.Kill(n.Agent().Pid, unix.SIGKILL) }

// Stop ends the agent by SIGTERM and waits for it.
func (n *Node) Stop(ctx context.Context) error {
	if err := unix.Kill(n.Agent().Pid, unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-n.Agent().Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the agent of %s: %w", n.Name, context.Cause(ctx))
	}
}

// LogTail returns the last lines of the agent's log.
func (n *Node) LogTail(lines int) string {
	f, err := os.Open(n.LogPath())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(0, end-16<<10), io.SeekStart)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// WaitWhole waits until every node is a member in good standing and could take an address over: it hears its leader, has applied what
// any of them knows to be committed, runs the newest configuration, it and its peers find it fit, and they reach it.
func (f *Fleet) WaitWhole(ctx context.Context) (*api.Status, error) {
	return f.WaitStatus(ctx, "all nodes to be back and fit", func(s *api.Status) bool {
		if !Whole(s, len(f.Nodes())) {
			return false
		}
		carries := map[string]bool{} // a witness is never fit
		for _, n := range s.Nodes {
			carries[n.Name] = n.Role != "witness"
		}
		return !slices.ContainsFunc(s.Nodes, func(n api.NodeStatus) bool {
			r := n.Report
			return carries[n.Name] && !r.Guard.Fit || len(r.Peers) != len(s.Nodes)-1 || slices.ContainsFunc(r.Peers, func(p api.PeerReport) bool {
				return !p.Alive || carries[p.Name] && !p.Fit || p.Reached != nil && !*p.Reached
			})
		})
	})
}

// Whole reports whether all so many nodes are members in good standing. (What the one that was asked has applied says nothing: it may be
// the one that is behind.)
func Whole(s *api.Status, nodes int) bool {
	if !s.AsOf.Quorum || len(s.Nodes) != nodes {
		return false
	}
	committed := s.AsOf.Index
	for _, n := range s.Nodes {
		if n.Report != nil {
			committed = max(committed, n.Report.Raft.CommitIndex)
		}
	}
	for _, n := range s.Nodes {
		if !n.Alive || !n.Reachable || !n.Voter || n.Report == nil {
			return false
		}
		if r := n.Report; r.Raft.Leader == "" || r.Raft.AppliedIndex < committed || r.Revision.Running != s.Revision.Number {
			return false
		}
	}
	return true
}
