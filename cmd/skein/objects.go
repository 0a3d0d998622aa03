package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
)

func (c *cli) vipCommand() *cobra.Command {
	noun := &cobra.Command{Use: "vip", Short: "Virtual addresses", GroupID: groupObjects}
	ls := listCommandOf(c, "Who holds which address", (*client.Client).VIPs, func(l *api.VIPList) view {
		return view{
			doc:   l,
			draw:  func(wide bool) { c.drawList(c.vipTable(l.VIPs, wide), l.AsOf, "no virtual address is configured") },
			names: func() []string { return names(l.VIPs, func(v api.VIPStatus) string { return v.Name }) },
		}
	})
	explain := &cobra.Command{
		Use:               "explain VIP",
		Short:             "Why each node holds the address or does not",
		Args:              args("VIP"),
		ValidArgsFunction: c.complete(1, c.vipNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			ex, err := c.node().ExplainVIP(ctx, a[0])
			if err != nil {
				return err
			}
			return c.show(view{
				doc:   ex,
				draw:  func(bool) { c.drawExplanation(ex) },
				names: func() []string { return []string{ex.VIP.Name} },
			})
		},
	}
	noun.AddCommand(ls, c.vipShowCommand(), c.vipMoveCommand(), explain)
	return noun
}

func (c *cli) drawExplanation(ex *api.Explanation) {
	p := painter(c.color(c.outTTY))
	v := ex.VIP
	holder := p.paint(bad, "held by nobody")
	if v.VRRP.Standby() {
		holder = "held by no node, " + v.Holder + " stands by"
	} else if v.Holder != "" {
		holder = "held by " + p.paint(good, v.Holder)
		if s := c.ago(v.Since); s != "" {
			holder += " for " + s
		}
	}
	placed := "not placed yet"
	if v.Placed != "" {
		placed = fmt.Sprintf("placed on %s at epoch %s", v.Placed, v.Epoch)
	}
	switch {
	case v.Placed == "" || !ex.AsOf.Quorum:
	case ex.Next == "":
		placed += "; no other node could take it now"
	default:
		placed += "; " + ex.Next + " is next in line"
	}
	if v.Returns != nil {
		placed += "; it goes back to " + returnWords(v.Returns)
	}
	fmt.Fprintf(c.out, "%s (%s) is %s; %s\n", p.paint(strong, v.Name), strings.Join(v.Addresses, ", "), holder, placed)
	for _, n := range ex.Nodes {
		fmt.Fprintf(c.out, "\n%s\n", p.paint(strong, n.Node))
		for _, l := range n.Lines {
			fmt.Fprintf(c.out, "  %s\n", clean(l))
		}
		if n.Error != "" {
			fmt.Fprintf(c.out, "  %s\n", p.paint(bad, "cannot be asked: "+clean(n.Error)))
		}
	}
	c.drawStale(ex.AsOf)
}

func (c *cli) backendCommand() *cobra.Command {
	noun := &cobra.Command{Use: "backend", Short: "Sets of servers", GroupID: groupObjects}
	noun.AddCommand(listCommandOf(c, "Backends, and which of their servers are usable", (*client.Client).Backends, func(l *api.BackendList) view {
		return view{
			doc:   l,
			draw:  func(wide bool) { c.drawList(c.backendTable(l.Backends, wide), l.AsOf, "no backend is configured") },
			names: func() []string { return names(l.Backends, func(b api.BackendStatus) string { return b.Name }) },
		}
	}))
	return noun
}

// listCommandOf is "list" of a noun: it asks for all objects, which page shows.
func listCommandOf[L any](c *cli, short string, ask func(*client.Client, context.Context) (*L, error), page func(*L) view) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: short,
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			l, err := ask(c.node(), ctx)
			if err != nil {
				return err
			}
			return c.show(page(l))
		},
	}
}

// drawList draws a table, or says that there is nothing to draw, and warns of an answer that may be old.
func (c *cli) drawList(t *table, asOf api.AsOf, empty string) {
	if len(t.rows) == 0 {
		fmt.Fprintln(c.out, empty)
	} else {
		c.drawTable(t)
	}
	c.drawStale(asOf)
}

// drawStale marks an answer that was given without a quorum: it may be as old as its index.
func (c *cli) drawStale(a api.AsOf) {
	if a.Quorum {
		return
	}
	p := painter(c.color(c.outTTY))
	fmt.Fprintf(c.out, "\n%s\n", p.paint(warn, fmt.Sprintf("no quorum: as of index %d, as %s knows it", a.Index, a.Node)))
}

func names[T any](list []T, name func(T) string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = name(v)
	}
	return out
}
