package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
)

func (c *cli) listCommand() *cobra.Command {
	noun := &cobra.Command{
		Use:     "list",
		Short:   "Address lists: show, add, remove, clear",
		GroupID: groupObjects,
		Long: `Address lists, and what is in them at run time. What is set here is replicated, holds on every node at once, survives
restarts and outranks the configuration until it is cleared. Connections that a change denies are reset.

A network is written as 198.51.100.0/24, one address as 198.51.100.7. Of networks in one another the smallest decides.`,
	}
	noun.AddCommand(
		c.listShowCommand(),
		c.listChangeCommand("add", "Put networks into a list", func(r *api.ListRequest, nets []string) { r.Add = nets }),
		c.listChangeCommand("remove", "Take networks out of a list, whatever the configuration says",
			func(r *api.ListRequest, nets []string) { r.Remove = nets }),
		c.listClearCommand(),
	)
	return noun
}

func (c *cli) listShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show [LIST]",
		Short:             "What is in the lists, and who put it there",
		Args:              args("[LIST]"),
		ValidArgsFunction: c.complete(1, c.listNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			l, err := c.node().Lists(ctx)
			if err != nil {
				return err
			}
			if len(a) == 1 {
				all := l.Lists
				l.Lists = slices.DeleteFunc(slices.Clone(all), func(o api.AddressList) bool { return o.Name != a[0] })
				if len(l.Lists) == 0 {
					hint := "write it into the configuration first: list \"" + a[0] + "\" {}"
					if len(all) > 0 {
						hint = "there are " + list(names(all, listName))
					}
					return failf(hint, "there is no list %q", a[0])
				}
			}
			return c.show(view{
				doc:   l,
				draw:  func(bool) { c.drawList(c.listTable(l.Lists), l.AsOf, "no list is configured") },
				names: func() []string { return names(l.Lists, listName) },
			})
		},
	}
}

func listName(l api.AddressList) string { return l.Name }

func (c *cli) listNames(ctx context.Context) []string {
	l, err := c.node().Lists(ctx)
	if err != nil {
		return nil
	}
	return names(l.Lists, listName)
}

// listTable has a row for each network.
func (c *cli) listTable(lists []api.AddressList) *table {
	t := newTable("LIST", "NETWORK", "STATE", "WHY", "USED BY")
	for _, l := range lists {
		users := strings.Join(l.UsedBy, ", ")
		if len(l.Networks) == 0 {
			t.row(l.Name, "", "", "", users)
		}
		for _, n := range l.Networks {
			state := cell{text: "in"}
			if !n.In {
				state = toned(warn, "out")
			}
			why := "file"
			if n.Set {
				why = "set"
				if n.By != "" {
					why += " by " + n.By
				}
				if !n.At.IsZero() {
					why += ", " + since(c.ago(n.At))
				}
				if n.File && !n.In {
					why += ", outranks the file"
				}
			}
			t.row(l.Name, n.Network, state, clean(why), users)
		}
	}
	return t
}

func (c *cli) listChangeCommand(verb, short string, set func(*api.ListRequest, []string)) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " LIST NETWORK...",
		Short:             short,
		Args:              args("LIST", "NETWORK..."),
		ValidArgsFunction: c.complete(1, c.listNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			var req api.ListRequest
			set(&req, a[1:])
			return c.setList(cmd, a[0], req)
		},
	}
}

func (c *cli) listClearCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "clear LIST [NETWORK...]",
		Short:             "Forget what was set: the configuration holds again",
		Args:              args("LIST", "[NETWORK...]"),
		ValidArgsFunction: c.complete(1, c.listNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.setList(cmd, a[0], api.ListRequest{Clear: a[1:], ClearAll: len(a) == 1})
		},
	}
}

// setList changes a list and shows it as it is then.
func (c *cli) setList(cmd *cobra.Command, name string, req api.ListRequest) error {
	ctx, cancel := bounded(cmd)
	defer cancel()
	l, err := c.node().SetList(ctx, name, req)
	if err != nil {
		return err
	}
	return c.show(view{
		doc:   l,
		draw:  func(bool) { c.drawTable(c.listTable([]api.AddressList{*l})) },
		names: func() []string { return []string{l.Name} },
	})
}
