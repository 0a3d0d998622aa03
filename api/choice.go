package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
)

// health is what the nodes said of themselves, for the choice of a node that could take an address: what a leader looks at, as far as
// it can be asked for. Who is flapping, the leader says.
func (s *Status) health() map[string]state.NodeHealth {
	flapping := s.flapping()
	h := map[string]state.NodeHealth{}
	for _, n := range s.Nodes {
		r := n.Report
		if r == nil {
			h[n.Name] = state.NodeHealth{}
			continue
		}
		known := state.NodeHealth{
			Alive: true, Fit: r.Guard.Running && r.Guard.Fit && r.Revision.Running == s.Revision.Number,
			Short: r.Short, Flapping: slices.Contains(flapping, n.Name),
		}
		for _, u := range r.Guard.Unable {
			known.Unable = append(known.Unable, u.Name)
		}
		h[n.Name] = known
	}
	return h
}

// flapping are the nodes that the leader gives an address only when no other one can take it.
func (s *Status) flapping() []string {
	for _, n := range s.Nodes {
		if n.Leader && n.Report != nil {
			return n.Report.Flapping
		}
	}
	return nil
}

// against is what speaks against giving a VIP to a node that its guard knows nothing of, line by line.
func (s *Status) against(n *NodeStatus, vip string) (lines []string) {
	if n.Role != string(state.Balancer) || n.Report == nil {
		return nil
	}
	if n.Drained != nil {
		lines = append(lines, "drained"+by(n.Drained.By)+": it gets no address until `skein node enable "+n.Name+"`")
	}
	if e := n.Report.Revision.Error; e != "" {
		lines = append(lines, fmt.Sprintf("behind nodes that have the newest configuration in force; here it failed: %s", e))
	}
	if slices.Contains(n.Report.Short, vip) {
		lines = append(lines, "behind nodes that see enough healthy servers: this one sees fewer than minimum_servers")
	}
	if slices.Contains(s.flapping(), n.Name) {
		lines = append(lines, "lost too often of late: it gets an address only when no other node can take it")
	}
	return lines
}

// judgeShort tells who sees too few servers behind a VIP.
func (s *Status) judgeShort() {
	for _, v := range s.VIPs {
		var who []string
		for _, n := range s.Nodes {
			if n.Report != nil && slices.Contains(n.Report.Short, v.Name) {
				who = append(who, n.Name)
			}
		}
		if len(who) == 0 {
			continue
		}
		see := "sees"
		if len(who) > 1 {
			see = "see"
		}
		what := fmt.Sprintf("vip %q: %s %s fewer healthy servers than its minimum_servers", v.Name, strings.Join(who, " and "), see)
		s.because(Degraded, "%s", what)
		s.alarm(Warning, "`skein server list` says what each node sees; the vip goes to a node that sees enough, if there is one", "%s", what)
	}
}

// preferNotes says where a configuration prefers what can hold no address. That may be meant: a node that is yet to join.
func preferNotes(v *state.View, conf *config.Config) (notes []string) {
	for _, c := range conf.VIPs {
		var others []string // that may have been meant
		for _, n := range v.Nodes {
			if !slices.Contains(c.Prefer, n.Name) {
				others = append(others, n.Name)
			}
		}
		for _, name := range c.Prefer {
			switch n, member := v.Node(name); {
			case !member:
				notes = append(notes, fmt.Sprintf("vip %q prefers %q, which is no node of this cluster yet: %s", c.Name, name,
					suggest(name, others, "it counts once it has joined")))
			case n.Role != state.Balancer:
				notes = append(notes, fmt.Sprintf("vip %q prefers %q, which is a %s and holds no addresses", c.Name, name, n.Role))
			}
		}
	}
	return notes
}
