package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
)

// topCommand is `skein top`: what goes on now, as `skein status` is what is well.
func (c *cli) topCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "top",
		Short:   "What goes through the cluster now: rates and times, live",
		GroupID: groupDaily,
		Long: `What goes through the cluster now, by node, frontend and server: the rates and times of the last five to ten
seconds, drawn anew every second until interrupted. Where standard output is no terminal it is drawn once.

P50 and P99 are in milliseconds: of frontends until the end of a request or session, of servers until the response's
head. Of several nodes the slowest counts.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !c.outTTY || c.machine() {
				ctx, cancel := bounded(cmd)
				defer cancel()
				s, err := c.node().Status(ctx)
				if err != nil {
					return err
				}
				return c.show(c.topView(s))
			}
			return c.watch(cmd.Context(), c.topView)
		},
	}
}

// traffic is the document of `skein top`: what the reports of the nodes come to.
type traffic struct {
	AsOf      api.AsOf          `json:"as_of"`
	Verdict   api.Verdict       `json:"verdict"`
	Nodes     []nodeTraffic     `json:"nodes"`
	Frontends []frontendTraffic `json:"frontends"`
	Servers   []serverTraffic   `json:"servers"`
}

type nodeTraffic struct {
	Name        string   `json:"name"`
	Holds       []string `json:"holds"`
	Connections int64    `json:"connections"`
	Pace        api.Pace `json:"pace"`
	Error       string   `json:"error,omitempty"`
}

type frontendTraffic struct {
	Name        string   `json:"name"`
	Connections int64    `json:"connections"`
	Pace        api.Pace `json:"pace"`
}

type serverTraffic struct {
	Backend string          `json:"backend"`
	Server  string          `json:"server"`
	State   api.ServerState `json:"state"`
	Active  int64           `json:"active"`
	Pace    api.Pace        `json:"pace"`
}

// trafficOf sums up a status. Frontends and servers with the most to do come first; those of equal rates keep the configuration's order.
func trafficOf(s *api.Status) traffic {
	t := traffic{AsOf: s.AsOf, Verdict: s.Verdict, Nodes: []nodeTraffic{}, Frontends: []frontendTraffic{}, Servers: []serverTraffic{}}
	for _, n := range s.Nodes {
		nt := nodeTraffic{Name: n.Name, Holds: n.Holds, Error: n.Error}
		if n.Report != nil {
			for _, f := range n.Report.Frontends {
				nt.Connections += f.Active
				nt.Pace = nt.Pace.With(f.Pace)
				i := slices.IndexFunc(t.Frontends, func(o frontendTraffic) bool { return o.Name == f.Name })
				if i < 0 {
					i = len(t.Frontends)
					t.Frontends = append(t.Frontends, frontendTraffic{Name: f.Name})
				}
				t.Frontends[i].Connections += f.Active
				t.Frontends[i].Pace = t.Frontends[i].Pace.With(f.Pace)
			}
		}
		t.Nodes = append(t.Nodes, nt)
	}
	for _, b := range s.Backends {
		for _, v := range b.Servers {
			t.Servers = append(t.Servers, serverTraffic{v.Backend, v.Name, v.State, v.Active, v.Pace})
		}
	}
	slices.SortStableFunc(t.Frontends, func(a, b frontendTraffic) int { return cmp.Compare(b.Pace.Requests, a.Pace.Requests) })
	slices.SortStableFunc(t.Servers, func(a, b serverTraffic) int { return cmp.Compare(b.Pace.Requests, a.Pace.Requests) })
	return t
}

func (c *cli) topView(s *api.Status) view {
	t := trafficOf(s)
	return view{
		doc:   t,
		draw:  func(bool) { c.drawTop(s, t) },
		names: func() []string { return names(t.Frontends, func(f frontendTraffic) string { return f.Name }) },
	}
}

func (c *cli) drawTop(s *api.Status, t traffic) {
	c.drawVerdict(s, painter(c.color(c.outTTY)))
	nodes := newTable("NODE", "CONNS", "REQ/S", "FAIL/S", "IN/S", "OUT/S", "P50", "P99", "HOLDS")
	for _, n := range t.Nodes {
		nodes.row(append(paceCells(n.Pace, n.Name, n.Connections), holdsCell(n))...)
	}
	frontends := newTable("FRONTEND", "CONNS", "REQ/S", "FAIL/S", "IN/S", "OUT/S", "P50", "P99")
	for _, f := range t.Frontends {
		frontends.row(paceCells(f.Pace, f.Name, f.Connections)...)
	}
	servers := newTable("SERVER", "ACTIVE", "REQ/S", "FAIL/S", "IN/S", "OUT/S", "P50", "P99", "STATE")
	for _, v := range t.Servers {
		servers.row(append(paceCells(v.Pace, v.Backend+"/"+v.Server, v.Active), serverCell(v.State))...)
	}
	for _, section := range []*table{nodes, frontends, servers} {
		if len(section.rows) > 0 {
			fmt.Fprintln(c.out)
			c.drawTable(section)
		}
	}
	c.drawStale(s.AsOf)
}

func holdsCell(n nodeTraffic) cell {
	if n.Error != "" {
		return toned(bad, "cannot be asked: "+clean(n.Error))
	}
	return cell{text: strings.Join(n.Holds, ", ")}
}

// paceCells are a row's name, what is open, and its pace.
func paceCells(p api.Pace, name string, open int64) []any {
	failed := cell{text: rate(p.Failed)}
	if p.Failed > 0 {
		failed.tone = warn
	}
	return []any{name, open, rate(p.Requests), failed, size(p.BytesIn), size(p.BytesOut), duration(p.P50Ms), duration(p.P99Ms)}
}

// rate writes a number of things per second: with one digit after the point where that says something.
func rate(v float64) string {
	if v > 0 && v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// size writes bytes per second.
func size(v float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if v < 1000 || unit == "GiB" {
			return rate(v) + " " + unit
		}
		v /= 1024
	}
	return ""
}

// duration writes milliseconds; nothing when nothing was measured.
func duration(ms float64) string {
	switch {
	case ms == 0:
		return ""
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 2, 64)
	}
	return strconv.FormatFloat(ms, 'f', 0, 64)
}
