package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
)

// Times of an upgrade, as it is waited for.
const (
	upgradeWithin = time.Minute            // for a node to be followed, and for it to be well again
	upgradeLook   = 200 * time.Millisecond // between looks at it
)

func (c *cli) nodeUpgradeCommand() *cobra.Command {
	var drain time.Duration
	cmd := &cobra.Command{
		Use:   "upgrade NODE",
		Short: "Have the binary on a node's disk follow the agent that runs; no connection is lost",
		Long: `Start the binary that lies at the path of a node's agent, and have it follow the agent that runs: on the same listening
sockets, with the same guard, which keeps the addresses. It reads node.hcl anew, so that this is also how a change of that
file comes into force.

What is established stays with the former process until it ends or --drain is over. If the new one fails, the former binary
goes on: nothing is lost then either.`,
		Args:              args("NODE"),
		ValidArgsFunction: c.complete(1, c.nodeNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := (&drainFlags{drain: drain}).check(); err != nil {
				return err
			}
			next, err := c.upgradeNode(cmd.Context(), a[0], drain)
			if err != nil {
				return err
			}
			return c.show(view{
				doc: next,
				draw: func(bool) {
					fmt.Fprintf(c.out, "%s runs %s (process %d); it ran %s. What is established goes on with the former process for %v at most.\n",
						next.Node, next.To, next.PID, next.From, drain)
				},
				names: func() []string { return []string{next.Node} },
			})
		},
	}
	cmd.Flags().DurationVar(&drain, "drain", 5*time.Minute, "how long established connections may take; then they are closed")
	return cmd
}

// upgradeNode upgrades a node and waits until the new process has taken over.
func (c *cli) upgradeNode(ctx context.Context, name string, drain time.Duration) (*api.Successor, error) {
	waiting := c.progress("waiting for the new process on " + name + " to take over")
	defer waiting.stop()
	ask, cancel := context.WithTimeout(ctx, 30*time.Second)
	next, err := c.node().UpgradeNode(ask, name, api.UpgradeRequest{DrainSeconds: drain.Seconds()})
	cancel()
	if err != nil {
		return nil, err
	}
	err = c.untilNode(ctx, name, "has not been followed by process "+fmt.Sprint(next.PID), func(_ *api.Status, n *api.NodeStatus) (bool, error) {
		return followed(n, next.PID)
	})
	return next, err
}

// followed is whether the process pid has taken over on a node, or an error when it never will. The node may still report an attempt before
// this one that failed.
func followed(n *api.NodeStatus, pid int) (bool, error) {
	r := n.Report
	if r == nil {
		return false, nil
	}
	if f := r.Program.Failed; f != nil && f.PID == pid {
		return false, failf("mend the cause, then `skein node upgrade "+n.Name+"` again",
			"%s was not upgraded to %s, and %s went on without losing anything: %s", n.Name, f.Version, r.Version, f.Why)
	}
	return r.PID == pid, nil
}

// untilNode asks for a node until done says that it is as wanted, or that it never will be. A node that does not answer meanwhile is
// asked again: it may be the one that is upgraded.
func (c *cli) untilNode(ctx context.Context, name, what string, done func(*api.Status, *api.NodeStatus) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeWithin)
	defer cancel()
	for {
		ask, enough := context.WithTimeout(ctx, 5*time.Second)
		s, err := c.node().Status(ask)
		enough()
		var away *client.Unreachable
		if err != nil && !errors.As(err, &away) {
			return err
		}
		if err == nil {
			if i := slices.IndexFunc(s.Nodes, func(n api.NodeStatus) bool { return n.Name == name }); i >= 0 {
				if ok, err := done(s, &s.Nodes[i]); ok || err != nil {
					return err
				}
			}
		}
		select {
		case <-time.After(upgradeLook):
		case <-ctx.Done():
			return failf("`skein node show "+name+"` and its agent's log say how it is", "%s %s for %v", name, what, upgradeWithin)
		}
	}
}

func (c *cli) clusterUpgradeCommand() *cobra.Command {
	var drain time.Duration
	var yes bool
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Upgrade one node after the other to the binaries on their disks",
		Long: `Upgrade every node whose disk has another binary than the one that runs, one after the other, the leader last: each as
"skein node upgrade" does it, and the next one only when the last is well and has caught up. It stops at the first that is not.

The binaries are brought to the hosts beforehand, as a package or by hand.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := (&drainFlags{drain: drain}).check(); err != nil {
				return err
			}
			return c.upgradeCluster(cmd.Context(), drain, yes)
		},
	}
	cmd.Flags().DurationVar(&drain, "drain", 5*time.Minute, "how long established connections may take on each node; then they are closed")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *cli) upgradeCluster(ctx context.Context, drain time.Duration, yes bool) error {
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	s, err := c.node().Status(ask)
	cancel()
	if err != nil {
		return err
	}
	todo, err := upgradeOrder(s)
	if err != nil {
		return err
	}
	done := api.ClusterUpgraded{Nodes: []api.Successor{}}
	result := view{
		doc: &done,
		draw: func(bool) {
			if len(done.Nodes) == 0 {
				fmt.Fprintf(c.out, "Every node runs the binary that lies on its disk (%s).\n", s.Nodes[0].Report.Version)
				return
			}
			fmt.Fprintf(c.out, "%s upgraded. What is established goes on with the former processes for %v at most.\n", count(len(done.Nodes), "node"), drain)
		},
		names: func() []string { return names(done.Nodes, func(s api.Successor) string { return s.Node }) },
	}
	if len(todo) == 0 {
		return c.show(result)
	}
	for _, n := range todo {
		fmt.Fprintf(c.errOut, "%s runs %s, and %s lies on its disk.\n", n.Name, n.Report.Version, n.Report.Program.Version)
	}
	if !yes {
		if err := c.confirm(ctx, fmt.Sprintf("upgrade %s, one after the other?", count(len(todo), "node"))); err != nil {
			return err
		}
	}
	for i, n := range todo {
		begin := c.now()
		applied := n.Report.Raft.AppliedIndex
		next, err := c.upgradeNode(ctx, n.Name, drain)
		if err == nil {
			waiting := c.progress("waiting for " + n.Name + " to be well and to have caught up")
			err = c.untilNode(ctx, n.Name, "has not been well", func(s *api.Status, n *api.NodeStatus) (bool, error) { return wellAgain(s, n, applied), nil })
			waiting.stop()
		}
		if err != nil {
			if i > 0 {
				fmt.Fprintf(c.errOut, "%s of %d upgraded; it can be gone on with: skein cluster upgrade\n", count(i, "node"), len(todo))
			}
			return err
		}
		done.Nodes = append(done.Nodes, *next)
		fmt.Fprintf(c.errOut, "%s runs %s, is well and has caught up after %v (%d of %d).\n", n.Name, next.To, c.now().Sub(begin).Round(100*time.Millisecond), i+1, len(todo))
	}
	return c.show(result)
}

// upgradeOrder returns the nodes that run another binary than lies on their disk, the leader last, or why it is not the time for it.
func upgradeOrder(s *api.Status) ([]api.NodeStatus, error) {
	if !s.AsOf.Quorum || len(s.Nodes) == 0 {
		return nil, failf("`skein status` says why; try again when there is one", "there is no leader: an upgrade could not be seen to have worked")
	}
	var todo []api.NodeStatus
	for _, n := range s.Nodes {
		switch r := n.Report; {
		case r == nil || !n.Alive:
			return nil, failf("bring it back first, or remove it: `skein node remove "+n.Name+"`", "%s does not answer: with one node fewer, an upgrade could cost the quorum", n.Name)
		case r.Program.Problem != "":
			return nil, failf("put a working binary there", "%s: %s", n.Name, r.Program.Problem)
		case r.Outdated != "" && !r.Program.Differs:
			return nil, failf("put a newer version there", "%s: %s", n.Name, r.Outdated)
		case !r.Guard.Fit && n.Role != "witness" && r.Outdated == "":
			return nil, failf("`skein node show "+n.Name+"`", "%s is not fit: %s", n.Name, r.Guard.FitReason)
		case r.Program.Differs && max(1, r.Program.Level) < s.Cluster.Level:
			return nil, failf("put the version that the cluster runs there, or a newer one",
				"%s on the disk of %s applies commands up to level %d, and the cluster is at level %d: it could not read the log",
				r.Program.Version, n.Name, max(1, r.Program.Level), s.Cluster.Level)
		case r.Program.Differs && r.Program.Level > s.Cluster.Level+1:
			return nil, failf("upgrade every node to a version in between first",
				"%s on the disk of %s is of level %d, and the cluster is at level %d: only neighbours, one level apart, work together",
				r.Program.Version, n.Name, r.Program.Level, s.Cluster.Level)
		case r.Program.Differs:
			todo = append(todo, n)
		}
	}
	leader := s.AsOf.Leader
	slices.SortStableFunc(todo, func(a, b api.NodeStatus) int {
		switch old, other := a.Report.Outdated != "", b.Report.Outdated != ""; {
		case old != other && old:
			return -1 // it has nothing to lose
		case old != other:
			return 1
		case a.Name == leader:
			return 1
		case b.Name == leader:
			return -1
		}
		return 0
	})
	return todo, nil
}

// wellAgain is whether the next node may be upgraded.
func wellAgain(s *api.Status, n *api.NodeStatus, applied uint64) bool {
	r := n.Report
	return s.AsOf.Quorum && n.Alive && n.Reachable && r != nil && r.Raft.AppliedIndex >= applied && r.Raft.Leader != "" &&
		(n.Role == "witness" || r.Guard.Fit) && r.Guard.Running && r.Revision.Running == r.Revision.Committed
}
