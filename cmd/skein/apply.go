package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
)

// applyTimeout is longer than the API waits for the slowest node.
const applyTimeout = time.Minute

// applyDoc is what `apply -o json` prints.
type applyDoc struct {
	Revision uint64            `json:"revision"`
	BasedOn  uint64            `json:"based_on"`
	Notes    string            `json:"notes,omitempty"`
	Changes  []api.Change      `json:"changes"`
	Nodes    []api.NodeApplied `json:"nodes"`
}

func (c *cli) applyCommand() *cobra.Command {
	var (
		revision uint64
		message  string
	)
	cmd := &cobra.Command{
		Use:     "apply FILE",
		Short:   "Make a configuration file the cluster's",
		GroupID: groupDaily,
		Long: `Make a configuration file the cluster's. It is checked here and by the agent first, the difference is shown, and it is
sent with the revision that it was compared with: when somebody else has applied meanwhile, it is refused and nothing changes.
Then one line per node says that it runs there.

With --revision, it is refused unless that is still the current one: give what ` + "`skein plan`" + ` has printed.

The exit code is 2 when it was committed but not every node runs it, and 5 when somebody else was faster.`,
		Args: args("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			name, conf, found, err := c.parse(a[0])
			if err != nil {
				return err
			}
			if !c.machine() {
				c.printFound(found)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), applyTimeout)
			defer cancel()
			now, err := c.node().Config(ctx)
			if err != nil {
				return err
			}
			base := now.Revision.Number
			if cmd.Flags().Changed("revision") {
				base = revision
			}
			if base != now.Revision.Number {
				return c.tooLate(base, now.Revision)
			}
			doc := applyDoc{Revision: base, BasedOn: base, Changes: difference(now, conf), Nodes: []api.NodeApplied{}}
			same := base > 0 && now.Text == string(conf.Text)
			if same && !c.refusedSomewhere(ctx, base) {
				return c.show(view{
					doc:   doc,
					draw:  func(bool) { fmt.Fprintf(c.out, "nothing to do: revision %d is this text\n", base) },
					names: func() []string { return []string{fmt.Sprint(base)} },
				})
			}
			switch {
			case c.machine():
			case same:
				fmt.Fprintf(c.out, "revision %d is this text, but not every node runs it: once more\n", base)
			default:
				c.drawApplying(doc.Changes)
			}
			return c.apply(ctx, &doc, api.ApplyRequest{File: name, Text: string(conf.Text), BasedOn: &base, Message: message})
		},
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "refuse unless this is the current revision")
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the record")
	return cmd
}

// refusedSomewhere says whether a node has refused the revision. Then the same text is worth another try.
func (c *cli) refusedSomewhere(ctx context.Context, rev uint64) bool {
	l, err := c.node().Nodes(ctx)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(l.Nodes, func(n api.NodeStatus) bool {
		return n.Report != nil && n.Report.Revision.Error != "" && n.Report.Revision.Running < rev
	})
}

// tooLate is the refusal before anything was sent.
func (c *cli) tooLate(base uint64, cur api.Revision) error {
	what := fmt.Sprintf("revision %d is not the current one: that is %s", base, c.revisionWords(cur))
	return &refusal{code: exitNoQuorum, what: what, hint: "look with `skein show` and `skein plan FILE`, then apply again"}
}

// difference compares with the stored text as this version reads it. A text that it cannot read is replaced as a whole.
func difference(now *api.ConfigDocument, conf *config.Config) []api.Change {
	var old *config.Config
	if now.Revision.Number > 0 {
		old, _ = config.Parse("stored", []byte(now.Text))
	}
	return api.Changes(old, conf)
}

func (c *cli) drawApplying(changes []api.Change) {
	if len(changes) == 0 {
		fmt.Fprintln(c.out, "the text differs, the meaning does not")
		return
	}
	c.drawChanges(changes)
	fmt.Fprintln(c.out, tally(changes))
}

// apply sends the configuration and draws what comes back as it comes.
func (c *cli) apply(ctx context.Context, doc *applyDoc, req api.ApplyRequest) error {
	waiting := c.progress("waiting for the cluster to commit")
	defer func() { waiting.stop() }()
	quiet := c.machine()
	err := c.node().Apply(ctx, req, func(e api.ApplyEvent) {
		waiting.stop()
		switch {
		case e.Committed != nil:
			doc.Revision, doc.Notes = e.Committed.Number, e.Committed.Notes
			if !quiet {
				fmt.Fprintf(c.out, "revision %d is committed\n", doc.Revision)
				if e.Committed.Notes != "" {
					fmt.Fprintf(c.out, "  %s\n", clean(e.Committed.Notes))
				}
			}
		case e.Node != nil:
			doc.Nodes = append(doc.Nodes, *e.Node)
			if !quiet {
				c.drawApplied(e.Node, doc.Revision)
			}
		}
		if e.Done == nil {
			waiting = c.progress("waiting for the nodes to run it")
		}
	})
	if err != nil {
		return err
	}
	sortByNode(doc.Nodes)
	behind := slices.DeleteFunc(slices.Clone(doc.Nodes), func(n api.NodeApplied) bool { return n.OK })
	if quiet {
		if err := c.show(view{doc: doc, names: func() []string { return []string{fmt.Sprint(doc.Revision)} }}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.out, "it runs on %d of %s\n", len(doc.Nodes)-len(behind), count(len(doc.Nodes), "node"))
	}
	if len(behind) == 0 {
		return nil
	}
	if !quiet {
		c.complain(fmt.Sprintf("%s not run revision %d", doNot(behind), doc.Revision),
			"a node that was away takes it when it is back; `skein status` says how things are")
	}
	return silent(exitDifference)
}

func doNot(behind []api.NodeApplied) string {
	who := list(names(behind, func(n api.NodeApplied) string { return n.Node }))
	if len(behind) == 1 {
		return who + " does"
	}
	return who + " do"
}

func (c *cli) drawApplied(n *api.NodeApplied, rev uint64) {
	p := painter(c.color(c.outTTY))
	if n.OK {
		fmt.Fprintf(c.out, "  %s %s after %dms\n", n.Node, p.paint(good, "runs it"), n.TookMs)
		return
	}
	running := "does not run it"
	if n.Running > 0 {
		running = fmt.Sprintf("still runs %d", n.Running)
	}
	fmt.Fprintf(c.out, "  %s %s: %s\n", n.Node, p.paint(bad, running), clean(n.Error))
}
