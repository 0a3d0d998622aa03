package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/internal/node"
)

// clusterRecoverCommand is `skein cluster recover`. It works on the files of this host's node, whose agent must not run.
func (c *cli) clusterRecoverCommand() *cobra.Command {
	var (
		file        string
		keep, force []string
		yes         bool
	)
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on with this node when the majority is lost for good",
		Long: `Go on with this node when the majority of the voters is lost for good. It is typed on a surviving node, once its agent is
stopped. That node becomes the whole cluster, with the configuration, certificates and sticky entries that it has; nodes
named with --keep stay members and follow it. The lost ones are refused from then on, and have to join anew.

What it does, and what it cannot know, is shown first. It refuses while a majority answers: then nothing is lost, and
starting the missing agents is all that is needed. It may be interrupted and repeated: what it does, it does in one step.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := c.nodeFile(file)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.errOut, "asking the other nodes ...")
			r, err := node.OpenRecovery(cmd.Context(), conf)
			switch {
			case errors.Is(err, node.ErrNoCluster):
				return failf("", "%v", err)
			case errors.Is(err, node.ErrAgentRuns):
				return failf("stop it first: systemctl stop skein", "the agent of this host runs, and its data can't be changed beside it")
			case err != nil:
				return failed(err)
			}
			defer r.Close()
			if err := checkNames(r, "--keep", keep); err != nil {
				return err
			}
			if err := checkNames(r, "--force", force); err != nil {
				return err
			}
			if !slices.Contains(keep, r.Self()) {
				keep = append(keep, r.Self())
			}
			slices.Sort(keep)
			if err := r.Check(cmd.Context(), keep, force); err != nil {
				return recoverRefused(r, err)
			}
			for _, l := range recoverEffect(r, keep) {
				fmt.Fprintln(c.errOut, l)
			}
			if !yes {
				if err := c.confirmByName(cmd.Context(), r.Self()); err != nil {
					return err
				}
				if err := r.Check(cmd.Context(), keep, force); err != nil { // the question may have taken its time
					return recoverRefused(r, err)
				}
			}
			generation, err := r.Recover(keep)
			if err != nil {
				return failf("nothing has changed unless the next try says so", "%v", err)
			}
			c.drawRecovered(r, keep, generation, file)
			return nil
		},
	}
	nodeFileFlag(cmd, &file)
	cmd.Flags().StringSliceVar(&keep, "keep", nil, "nodes beside this one that live and stay members: NAME,...")
	cmd.Flags().StringSliceVar(&force, "force", nil, "nodes that answer, and do not stand against it: NAME,...")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// checkNames refuses names that are no nodes of the cluster.
func checkNames(r *node.Recovery, flag string, names []string) error {
	known := []string{r.Self()}
	for _, p := range r.Peers {
		known = append(known, p.Name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return usagef("its nodes are "+list(known), "%s: the cluster has no node %q", flag, n)
		}
	}
	return nil
}

// recoverRefused adds what to do instead.
func recoverRefused(r *node.Recovery, err error) error {
	var live []string
	for _, p := range r.Peers {
		if p.Answers {
			live = append(live, p.Name)
		}
	}
	hint := fmt.Sprintf("start this node's agent: systemctl start skein. To give up nodes that answer: stop their agents, or --force %s; to keep one: --keep NAME",
		cmp.Or(strings.Join(live, ","), "NAME"))
	switch {
	case slices.Equal(r.Known.Voters, []string{r.Self()}):
		hint = "start this node's agent: systemctl start skein; then take lost ones out: skein node remove NAME"
	case errors.Is(err, node.ErrNotNewest):
		hint = "nothing was changed here"
	}
	return failf(hint, "%v", err)
}

// recoverEffect says what a recovery does, and what cannot be known, line by line.
func recoverEffect(r *node.Recovery, keep []string) []string {
	k := r.Known
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	say("%s becomes the cluster %s, by itself. It has:", r.Self(), k.Cluster)
	if k.Revision > 0 {
		text := fmt.Sprintf("revision %d", k.Revision)
		if k.Author != "" {
			text += " by " + k.Author
		}
		if k.Message != "" {
			text += fmt.Sprintf(", %q", k.Message)
		}
		say("  configuration  %s", text)
	} else {
		say("  configuration  none was applied yet")
	}
	say("  besides        %s, %s, and what was set at run time", count(k.Certificates, "certificate"), entries(k.StickyEntries))
	say("  log            up to entry %d; up to %d it is known to be agreed on", k.Index, k.Committed)
	say("")
	say("The other nodes:")
	var lost []string
	for _, p := range r.Peers {
		role, state, fate := "no voter", "does not answer", "is given up"
		if p.Voter {
			role = "voter"
		}
		if p.Answers {
			state = "answers"
		}
		if slices.Contains(keep, p.Name) {
			fate = "stays a member, and takes what this node has in the place of its own"
		} else {
			lost = append(lost, p.Name)
		}
		say("  %s (%s, %s) %s: it %s", p.Name, p.Address, role, state, fate)
	}
	say("")
	say("What cannot be known here: whatever the lost voters have agreed on after entry %d is lost.", k.Index)
	if k.Committed < k.Index {
		say("What this node has after entry %d may never have been acknowledged to anybody; it counts from now on.", k.Committed)
	}
	if len(lost) > 0 {
		say("%s must be off and stay so, or come back with an empty data_dir. Who comes back with the data of today is told by", list(lost))
		say("this cluster's nodes, lets go of every address and takes no part; but while it cannot hear them, it may hold the addresses too.")
	}
	return out
}

func entries(n int) string {
	if n == 1 {
		return "1 sticky entry"
	}
	return fmt.Sprintf("%d sticky entries", n)
}

// confirmByName asks for a name to be typed: too much for a reflex.
func (c *cli) confirmByName(ctx context.Context, name string) error {
	answer, err := c.ask(ctx, fmt.Sprintf("\nto go on, type the name of this node (%s): ", name))
	if err != nil || answer == name {
		return err
	}
	return failf("", "nothing was changed")
}

// drawRecovered says what comes next.
func (c *cli) drawRecovered(r *node.Recovery, keep []string, generation uint64, file string) {
	fmt.Fprintf(c.out, "%s is the cluster now, at generation %d.\n\nNext:\n", r.Self(), generation)
	fmt.Fprintf(c.out, "  start it here           systemctl start skein   (or: skein agent --config %s)\n", file)
	fmt.Fprintf(c.out, "  see that all is well    skein status\n")
	fmt.Fprintf(c.out, "  bring new hosts in      skein cluster token     (prints what to type there)\n")
	for _, p := range r.Peers {
		if slices.Contains(keep, p.Name) {
			if !p.Answers {
				fmt.Fprintf(c.out, "  start %-17s systemctl start skein   (there; it follows by itself)\n", p.Name)
			}
			continue
		}
		fmt.Fprintf(c.out, "  if %s comes back%s stop its agent, move the cluster directory in its data_dir away, join it anew\n", p.Name, strings.Repeat(" ", max(0, 9-len(p.Name))))
	}
}
