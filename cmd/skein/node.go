package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
)

func (c *cli) nodeCommand() *cobra.Command {
	noun := &cobra.Command{Use: "node", Short: "Members of the cluster", GroupID: groupObjects}
	ls := listCommandOf(c, "Who is a member, and how each one is", (*client.Client).Nodes, func(l *api.NodeList) view {
		return view{
			doc:   l,
			draw:  func(wide bool) { c.drawList(c.nodeTable(l.Nodes, wide), l.AsOf, "there is no cluster yet") },
			names: func() []string { return names(l.Nodes, func(n api.NodeStatus) string { return n.Name }) },
		}
	})
	noun.AddCommand(ls, c.nodeShowCommand(), c.nodeDrainCommand(), c.nodeEnableCommand(), c.nodeUpgradeCommand(), c.nodeRemoveCommand())
	return noun
}

func (c *cli) nodeRemoveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a node out of the cluster for good",
		Long: `Take a node out of the cluster for good: its certificate is refused from then on, the keys of gossip and heartbeats
change, and the addresses that it holds move to others. It comes back only by joining anew with an empty data_dir.`,
		Args:              args("NODE"),
		ValidArgsFunction: c.complete(1, c.nodeNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			s, err := c.node().Status(ctx)
			if err != nil {
				return err
			}
			// An unknown name is refused by the API, which knows the near ones.
			if i := slices.IndexFunc(s.Nodes, func(n api.NodeStatus) bool { return n.Name == a[0] }); i >= 0 && !yes {
				for _, l := range removalEffect(s, &s.Nodes[i]) {
					fmt.Fprintln(c.errOut, l)
				}
				if err := c.confirm(cmd.Context(), "remove "+a[0]+"?"); err != nil {
					return err
				}
			}
			act, done := bounded(cmd) // the question may have taken its time
			defer done()
			waiting := c.progress("waiting for the cluster to take " + a[0] + " out")
			r, err := c.node().RemoveNode(act, a[0])
			waiting.stop()
			if err != nil {
				return err
			}
			return c.show(view{
				doc: r,
				draw: func(bool) {
					fmt.Fprintf(c.out, "%s is removed. Stop its agent and empty its data_dir; to bring it back: skein cluster token, then skein cluster join\n", r.Node)
				},
				names: func() []string { return []string{r.Node} },
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// removalEffect says what the removal of n does, line by line.
func removalEffect(s *api.Status, n *api.NodeStatus) []string {
	what := "dead"
	if n.Alive {
		what = "alive"
	}
	lines := []string{fmt.Sprintf("%s (%s, %s) leaves the cluster for good; its certificate is refused from then on.", n.Name, n.Role, what)}
	if len(n.Holds) > 0 {
		lines = append(lines, fmt.Sprintf("It holds %s: that moves to another node.", list(n.Holds)))
	}
	if n.Voter {
		voters, alive := s.Cluster.Voters-1, s.Cluster.Alive
		if n.Alive {
			alive--
		}
		lines = append(lines, fmt.Sprintf("%s are left, %d alive; %d are needed.", count(voters, "voter"), alive, voters/2+1))
		if voters < 3 {
			lines = append(lines, "That is not enough for fail-over: after the next death nothing moves.")
		}
	}
	return lines
}
