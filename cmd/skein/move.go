package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
)

// drainFlags are those of everything that moves addresses.
type drainFlags struct {
	drain  time.Duration
	noWait bool
}

func (f *drainFlags) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.drain, "drain", 5*time.Minute, "how long established connections may take; then they are reset")
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "return when the addresses have moved, without waiting for established connections to end")
}

func (f *drainFlags) check() error {
	if f.drain < time.Second || f.drain > 24*time.Hour {
		return usagef("give --drain a time from 1s to 24h", "established connections cannot take %v", f.drain)
	}
	return nil
}

func (c *cli) vipMoveCommand() *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "move VIP [NODE]",
		Short: "Give the address to another node; no connection is lost",
		Long: `Give the address to another node, or to the one that the cluster would choose. VIPs of a group move together.

New connections go to the other node at once. What is established stays with the node that has it, until it ends or --drain
is over. Clients that keep HTTP connections open are asked to close them with their next answer.`,
		Args: args("VIP", "[NODE]"),
		ValidArgsFunction: func(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(given) == 1 {
				return c.complete(2, c.nodeNames)(cmd, given, word)
			}
			return c.complete(1, c.vipNames)(cmd, given, word)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := f.check(); err != nil {
				return err
			}
			req := api.MoveRequest{DrainSeconds: f.drain.Seconds()}
			if len(a) == 2 {
				req.Node = a[1]
			}
			ctx, cancel := bounded(cmd)
			defer cancel()
			waiting, begin := c.progress("waiting for another node to take "+a[0]), c.now()
			m, err := c.node().MoveVIP(ctx, a[0], req)
			waiting.stop()
			if err != nil {
				return err
			}
			last := leaving{left: remaining{uncounted: true}}
			if !f.noWait {
				if last, err = c.waitDrained(cmd.Context(), begin, f, func(s *api.Status) leaving { return leftOfMove(s, m) }); err != nil {
					return err
				}
			}
			return c.show(view{
				doc:   m,
				draw:  func(bool) { c.drawMoved(m, last) },
				names: func() []string { return names(m.VIPs, func(v api.MovedVIP) string { return v.Name }) },
			})
		},
	}
	f.add(cmd)
	return cmd
}

// drawMoved says what has moved, and what became of the connections.
func (c *cli) drawMoved(m *api.Moved, last leaving) {
	for _, v := range m.VIPs {
		fmt.Fprintf(c.out, "%s moved from %s to %s in %d ms.\n", v.Name, v.From, v.To, v.TookMs)
	}
	c.drawReset(last.reset)
	if last.left.none() {
		fmt.Fprintln(c.out, "No connection is left on the former holder.")
	} else if len(m.VIPs) > 0 {
		fmt.Fprintf(c.out, "What is established goes on where it is, for %v at most: skein vip show %s\n", seconds(m.VIPs[0].DrainSeconds), m.VIPs[0].Name)
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// many is count with thousands apart: "1,318 connections".
func many(n int, noun string) string {
	words := count(n, noun)
	digits, rest, _ := strings.Cut(words, " ")
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits + " " + rest
}

func (c *cli) nodeDrainCommand() *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Take a node out of service; no connection is lost",
		Long: `Take a node out of service, to stop it or to work on it: its addresses move to other nodes, it gets no new ones, and
leadership goes to another. What is established there is served until it ends or --drain is over. This lasts, restarts
included, until "skein node enable NODE".

The exit code is 2 when the node still holds an address, because no other one can take it.`,
		Args:              args("NODE"),
		ValidArgsFunction: c.complete(1, c.nodeNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := f.check(); err != nil {
				return err
			}
			ctx, cancel := bounded(cmd)
			defer cancel()
			waiting, begin := c.progress("waiting for other nodes to take what "+a[0]+" holds"), c.now()
			d, err := c.node().SetNode(ctx, a[0], api.NodeRequest{State: "drain", DrainSeconds: f.drain.Seconds()})
			waiting.stop()
			if err != nil {
				return err
			}
			last, err := c.waitDrained(cmd.Context(), begin, f, func(s *api.Status) leaving { return leftOnNode(s, a[0]) })
			if err != nil {
				return err
			}
			after, done := bounded(cmd)
			defer done()
			if l, err := c.node().Nodes(after); err == nil {
				d.AsOf = l.AsOf
				for _, n := range l.Nodes {
					if n.Name == a[0] {
						d.Node = n
					}
				}
			}
			if err := c.show(view{
				doc:   d,
				draw:  func(bool) { c.drawReset(last.reset); c.drawDrained(&d.Node) },
				names: func() []string { return []string{d.Node.Name} },
			}); err != nil || !last.here {
				return err
			}
			return silent(exitDifference)
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) drawDrained(n *api.NodeStatus) {
	switch {
	case len(n.Holds) > 0:
		fmt.Fprintf(c.out, "%s is drained. It still holds %s, since no other node can take it: `skein vip explain %s` says why.\n", n.Name, list(n.Holds), n.Holds[0])
	case n.Report == nil:
		fmt.Fprintf(c.out, "%s is drained. It does not answer: what it still serves is not known.\n", n.Name)
	case n.Report != nil && len(n.Report.Parked) > 0:
		var left remaining
		for _, p := range n.Report.Parked {
			left.add(p.Connections)
		}
		fmt.Fprintf(c.out, "%s is drained. It holds no address and serves %s to their end.\n", n.Name, left)
	default:
		fmt.Fprintf(c.out, "%s is drained. It holds no address and serves nobody: it can be stopped.\n", n.Name)
	}
	fmt.Fprintf(c.out, "It gets no address until: skein node enable %s\n", n.Name)
}

func (c *cli) nodeEnableCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "enable NODE",
		Short:             "Put a drained node back into service",
		Args:              args("NODE"),
		ValidArgsFunction: c.complete(1, c.nodeNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			d, err := c.node().SetNode(ctx, a[0], api.NodeRequest{State: "enabled"})
			if err != nil {
				return err
			}
			return c.show(view{
				doc: d,
				draw: func(bool) {
					fmt.Fprintf(c.out, "%s is in service. Addresses come back to it when failback says so, when another node fails, or by: skein vip move VIP %s\n",
						d.Node.Name, d.Node.Name)
				},
				names: func() []string { return []string{d.Node.Name} },
			})
		},
	}
}

func (c *cli) vipShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show VIP",
		Short:             "One address: who holds it, who held it, what still drains",
		Args:              args("VIP"),
		ValidArgsFunction: c.complete(1, c.vipNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			l, err := c.node().VIPs(ctx)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(l.VIPs, func(v api.VIPStatus) bool { return v.Name == a[0] })
			if i < 0 {
				return failf("`skein vip list` shows all", "there is no vip %q", a[0])
			}
			v := l.VIPs[i]
			doc := struct {
				AsOf api.AsOf      `json:"as_of"`
				VIP  api.VIPStatus `json:"vip"`
			}{l.AsOf, v}
			return c.show(view{
				doc: doc,
				draw: func(bool) {
					c.drawVIP(&v)
					c.drawStale(l.AsOf)
				},
				names: func() []string { return []string{v.Name} },
			})
		},
	}
}

// facts draws one fact a line.
func (c *cli) facts(width int) func(name, format string, args ...any) {
	p := painter(c.color(c.outTTY))
	return func(name, format string, args ...any) {
		fmt.Fprintf(c.out, "%s %s\n", p.paint(dim, fmt.Sprintf("%-*s", width, name)), clean(fmt.Sprintf(format, args...)))
	}
}

func (c *cli) drawVIP(v *api.VIPStatus) {
	fact := c.facts(9)
	fact("vip", "%s", v.Name)
	fact("addresses", "%s", strings.Join(v.Addresses, ", "))
	holder := "nobody"
	switch {
	case v.VRRP.Standby():
		holder = "no node; " + v.Holder + " stands by"
	case v.Holder != "":
		holder = v.Holder
		if v.Interface != "" {
			holder += " on " + v.Interface
		}
		if ago := c.ago(v.Since); ago != "" {
			holder += ", for " + ago
		}
	}
	fact("held by", "%s", holder)
	if g := v.VRRP; g != nil {
		fact("vrrp", "%s", groupWords(v))
	}
	if v.Placed != "" {
		fact("placed on", "%s, epoch %s", v.Placed, v.Epoch)
	}
	if len(v.Prefer) > 0 {
		back := "; it does not go back by itself"
		switch {
		case v.Returns != nil:
			back = "; it goes back to " + returnWords(v.Returns)
		case v.Failback > 0 && v.Asked:
			back = "; it was moved by hand, and stays until its node is lost"
		case v.Failback > 0:
			back = fmt.Sprintf("; it goes back to one that has been well for %v", seconds(v.Failback))
		}
		fact("prefer", "%s%s", strings.Join(v.Prefer, ", "), back)
	}
	if v.Group != "" {
		fact("group", "%s: moves together with its other vips", v.Group)
	}
	if v.MinUsable > 0 {
		fact("needs", "a node that sees %s behind it, if there is one", count(v.MinUsable, "healthy server"))
	}
	if v.RouterID > 0 {
		fact("mac", "virtual router %d's, wherever it is held", v.RouterID)
	}
	fact("frontends", "%s", strings.Join(v.Frontends, ", "))
	for _, d := range v.Draining {
		fact("draining", "%s on %s, for %v at most", connections(d.Connections), d.Node, (time.Duration(d.LeftMs) * time.Millisecond).Round(time.Second))
	}
}

// groupWords says how a VIP stands in its VRRP group.
func groupWords(v *api.VIPStatus) string {
	switch g := v.VRRP; {
	case g.Why != "":
		return fmt.Sprintf("group %d: %s takes no part: %s", g.RouterID, v.Holder, g.Why)
	case g.Active != "":
		return fmt.Sprintf("group %d: %s is active and has the address, %s stands by", g.RouterID, g.Active, v.Holder)
	case g.Standby():
		return fmt.Sprintf("group %d: %s waits for whether another router is active", g.RouterID, v.Holder)
	}
	return fmt.Sprintf("group %d: %s is active", v.VRRP.RouterID, v.Holder)
}

func (c *cli) nodeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NODE",
		Short:             "One node: what it is, what it holds, how well it is",
		Args:              args("NODE"),
		ValidArgsFunction: c.complete(1, c.nodeNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			l, err := c.node().Nodes(ctx)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(l.Nodes, func(n api.NodeStatus) bool { return n.Name == a[0] })
			if i < 0 {
				return failf("`skein node list` shows all", "there is no node %q", a[0])
			}
			d := api.NodeDocument{AsOf: l.AsOf, Node: l.Nodes[i]}
			return c.show(view{
				doc: d,
				draw: func(bool) {
					c.drawNode(&d.Node)
					c.drawStale(l.AsOf)
				},
				names: func() []string { return []string{d.Node.Name} },
			})
		},
	}
}

func (c *cli) drawNode(n *api.NodeStatus) {
	fact := c.facts(9)
	state, _ := nodeState(n)
	switch {
	case strings.HasPrefix(n.Summary, state):
		state = n.Summary
	case n.Summary != "":
		state += ": " + n.Summary
	}
	fact("node", "%s, %s, %s", n.Name, n.Role, raftWord(n))
	fact("state", "%s", state)
	if d := n.Drained; d != nil {
		fact("drained", "%s by %s; established connections may take %v", since(c.ago(d.At)), d.By, seconds(d.DrainSeconds))
	}
	fact("address", "%s", n.Address)
	holds := "nothing"
	if len(n.Holds) > 0 {
		holds = strings.Join(n.Holds, ", ")
	}
	fact("holds", "%s", holds)
	r := n.Report
	if r == nil {
		return
	}
	for _, p := range r.Parked {
		fact("draining", "%s of %s, for %v at most", connections(p.Connections), p.Name, (time.Duration(p.LeftMs) * time.Millisecond).Round(time.Second))
	}
	version := fmt.Sprintf("%s (level %d), up %s", r.Version, max(1, r.Level), c.ago(r.StartedAt))
	switch p := r.Program; {
	case p.Problem != "":
		version += "; on its disk: " + p.Problem
	case p.Differs:
		version += fmt.Sprintf("; %s (level %d) lies on its disk", p.Version, p.Level)
	}
	fact("version", "%s", version)
	fact("config", "revision %d of %d", r.Revision.Running, r.Revision.Committed)
	fact("log", "%s in term %d, applied %d of %d; slowest write %.1f ms", r.Raft.State, r.Raft.Term, r.Raft.AppliedIndex, max(r.Raft.CommitIndex, r.Raft.AppliedIndex), r.Disk.FsyncMs)
	guard := "does not run"
	if r.Guard.Running {
		guard = r.Guard.Profile
		if r.Guard.RealTime {
			guard += ", real time"
		}
		if r.Guard.Gate != "" {
			guard += ", gate " + r.Guard.Gate
		}
		if v := r.Guard.Version; v != "" && v != r.Version {
			guard += ", still version " + v
		}
	}
	fact("guard", "%s", guard)
	if why := r.Guard.ProfileWhy; why != "" {
		fact("profile", "%s", why)
	}
	for _, p := range r.Peers {
		heard := fmt.Sprintf("heard %d ms ago, round trip %.1f ms", p.AgeMs, float64(p.RTTUs)/1000)
		if !p.Alive {
			heard = "not heard"
		}
		fact("hears", "%s: %s", p.Name, heard)
	}
}
