package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
)

// parse reads FILE and refuses it with all its mistakes; warnings are printed and kept.
func (c *cli) parse(path string) (name string, conf *config.Config, found config.Diagnostics, err error) {
	name, text, err := c.readFile(path)
	if err != nil {
		return name, nil, nil, err
	}
	conf, found = config.Parse(name, text)
	if conf == nil {
		c.printFound(found)
		return name, nil, found, failf("", "%s; nothing was changed", mistakes(name, found))
	}
	return name, conf, found, nil
}

// mistakes is the last line below a list of mistakes: "edge.hcl has 3 mistakes".
func mistakes(name string, found config.Diagnostics) string {
	errs := 0
	for _, d := range found {
		if d.Severity == config.Error {
			errs++
		}
	}
	return fmt.Sprintf("%s has %s", name, count(errs, "mistake"))
}

// printFound prints diagnostics with their lines and carets.
func (c *cli) printFound(found config.Diagnostics) {
	if len(found) > 0 {
		found.Print(c.errOut, c.color(c.errTTY))
	}
}

// printDiagnostics prints those that an agent has found.
func (c *cli) printDiagnostics(ds []api.Diagnostic) {
	var found config.Diagnostics
	for _, d := range ds {
		sev := config.Error
		if d.Severity == config.Warning.String() {
			sev = config.Warning
		}
		found = append(found, config.Diagnostic{
			Severity: sev, Pos: config.Pos{File: d.File, Line: d.Line, Column: d.Column},
			Summary: d.Summary, Hint: d.Hint, Line: d.Source, Width: max(d.Width, 1),
		})
	}
	c.printFound(found)
}

// checkDoc is what `check -o json` prints.
type checkDoc struct {
	File        string           `json:"file"`
	OK          bool             `json:"ok"`
	Diagnostics []api.Diagnostic `json:"diagnostics"`
}

func (c *cli) checkCommand() *cobra.Command {
	var isNode bool
	cmd := &cobra.Command{
		Use:     "check FILE",
		Short:   "Find all mistakes of a configuration file, without an agent",
		GroupID: groupDaily,
		Long: `Find all mistakes of a configuration file in one run, each with its line and a hint. No agent is needed and nothing is
changed. FILE may be "-" for standard input. With --node, FILE is a node.hcl.`,
		Args: args("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			name, text, err := c.readFile(a[0])
			if err != nil {
				return err
			}
			var (
				found config.Diagnostics
				what  string
			)
			if isNode {
				var n *config.Node
				if n, found = config.ParseNode(name, text); n != nil {
					what = fmt.Sprintf("node %q, %s", n.Name, n.Role)
				}
			} else {
				var conf *config.Config
				if conf, found = config.Parse(name, text); conf != nil {
					what = contents(conf)
				}
			}
			doc := checkDoc{File: name, OK: !found.HasErrors(), Diagnostics: api.Diagnostics(found)}
			if !c.machine() {
				c.printFound(found)
			}
			if !doc.OK && !c.machine() {
				return failf("", "%s", mistakes(name, found))
			}
			if err := c.show(view{
				doc:   doc,
				draw:  func(bool) { fmt.Fprintf(c.out, "%s is valid: %s\n", name, what) },
				names: func() []string { return []string{name} },
			}); err != nil {
				return err
			}
			if !doc.OK {
				return silent(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&isNode, "node", false, "FILE is the node.hcl of one host")
	return cmd
}

// contents counts what a configuration holds.
func contents(conf *config.Config) string {
	servers := 0
	for _, b := range conf.Backends {
		servers += len(b.Servers)
	}
	return fmt.Sprintf("%s, %s, %s, %s", count(len(conf.VIPs), "vip"), count(len(conf.Frontends), "frontend"),
		count(len(conf.Backends), "backend"), count(servers, "server"))
}

func (c *cli) planCommand() *cobra.Command {
	var against string
	cmd := &cobra.Command{
		Use:     "plan FILE",
		Short:   "What would a configuration file change?",
		GroupID: groupDaily,
		Long: `What would a configuration file change? It is compared with what the cluster runs, and the agent's engine is asked
whether it takes it. With --against, two files are compared and no agent is needed. Nothing is changed.

The exit code is 0 when there is no difference and 2 when there is one.`,
		Args: args("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			name, conf, found, err := c.parse(a[0])
			if err != nil {
				return err
			}
			var p *api.Plan
			if against != "" {
				_, old, _, err := c.parse(against)
				if err != nil {
					return err
				}
				p = &api.Plan{Changes: api.Changes(old, conf), Warnings: api.Diagnostics(found)}
			} else {
				ctx, cancel := bounded(cmd)
				defer cancel()
				if p, err = c.node().Plan(ctx, api.PlanRequest{File: name, Text: string(conf.Text)}); err != nil {
					return err
				}
			}
			if !c.machine() {
				c.printDiagnostics(p.Warnings)
			}
			if err := c.show(view{
				doc:   p,
				draw:  func(bool) { c.drawPlan(p, a[0], against) },
				names: func() []string { return names(p.Changes, func(ch api.Change) string { return ch.Object }) },
			}); err != nil {
				return err
			}
			if len(p.Changes) > 0 {
				return silent(exitDifference)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&against, "against", "", "compare with this file, not with the cluster")
	return cmd
}

func (c *cli) drawPlan(p *api.Plan, file, against string) {
	defer func() {
		for _, note := range p.Notes {
			fmt.Fprintln(c.out, "note: "+clean(note))
		}
	}()
	if len(p.Changes) == 0 {
		fmt.Fprintln(c.out, "no difference")
		return
	}
	c.drawChanges(p.Changes)
	fmt.Fprintf(c.out, "\n%s\n", tally(p.Changes))
	if against == "" && file != "-" {
		fmt.Fprintf(c.out, "to apply it: skein apply %s --revision %d\n", file, p.BasedOn)
	}
	if against == "" {
		c.drawStale(p.AsOf)
	}
}

// drawChanges draws a difference: + for what comes, - for what goes, ~ for what changes.
func (c *cli) drawChanges(changes []api.Change) {
	p := painter(c.color(c.outTTY))
	for _, ch := range changes {
		sign, tn := "~", warn
		switch ch.Kind {
		case "add":
			sign, tn = "+", good
		case "remove":
			sign, tn = "-", bad
		}
		line := ch.Object
		if ch.Detail != "" {
			line += ": " + ch.Detail
		}
		fmt.Fprintf(c.out, "  %s %s\n", p.paint(tn, sign), clean(line))
	}
}

// tally is "1 to add, 2 to change".
func tally(changes []api.Change) string {
	s := ""
	for _, kind := range []string{"add", "change", "remove"} {
		n := 0
		for _, ch := range changes {
			if ch.Kind == kind {
				n++
			}
		}
		if n == 0 {
			continue
		}
		if s != "" {
			s += ", "
		}
		s += fmt.Sprintf("%d to %s", n, kind)
	}
	return s
}

func (c *cli) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Print the cluster's configuration, byte for byte",
		GroupID: groupDaily,
		Long: `Print the cluster's configuration, byte for byte as it was applied. Everything but the text itself (revision, author,
date) is in -o wide, json and yaml.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			d, err := c.node().Config(ctx)
			if err != nil {
				return err
			}
			if d.Revision.Number == 0 && !c.machine() {
				return failf("`skein apply FILE` applies the first one", "there is no configuration yet")
			}
			return c.show(view{
				doc: d,
				draw: func(wide bool) {
					if wide {
						fmt.Fprintf(c.out, "# %s\n", c.revisionWords(d.Revision))
					}
					fmt.Fprint(c.out, d.Text)
				},
				names: func() []string { return []string{fmt.Sprint(d.Revision.Number)} },
			})
		},
	}
}

// sortByNode orders what arrived in the order of arrival.
func sortByNode(list []api.NodeApplied) {
	slices.SortFunc(list, func(a, b api.NodeApplied) int {
		switch {
		case a.Node < b.Node:
			return -1
		case a.Node > b.Node:
			return 1
		}
		return 0
	})
}
