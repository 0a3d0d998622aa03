package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/skeinlb/skein/state"
)

// judge fills in the verdict, its reasons and the alarms. The order of the checks is the order in which an operator wants to read
// them: what costs traffic first.
func (s *Status) judge(f Facts) {
	s.judgeMembership(f)
	s.judgeQuorum()
	s.judgePair()
	s.judgeVIPs(f)
	s.judgeBackends()
	s.judgeShort()
	s.judgeCopies()
	s.judgeNodes()
	s.judgeServers()
	s.judgeCertificates()
	s.judgeConfig(f)
	s.judgeSize(f)
	s.collectAlarms(f)
}

// because lowers the verdict and says why.
func (s *Status) because(v Verdict, format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	if v == Down && s.Verdict != Down {
		s.Verdict = Down
	} else if s.Verdict == OK {
		s.Verdict = v
	}
	s.Reasons = append(s.Reasons, reason)
}

func (s *Status) alarm(sev Severity, hint, format string, args ...any) {
	s.Alarms = append(s.Alarms, Alarm{Severity: sev, What: fmt.Sprintf(format, args...), Hint: hint})
}

// judgeMembership tells who asks a node that was removed that the rest is what it knew last.
func (s *Status) judgeMembership(f Facts) {
	if _, member := f.View.Node(f.Self); member || f.Self == "" || !f.View.Founded() {
		return
	}
	s.because(Down, "%s is no member of this cluster; the rest is what it knew last", f.Self)
	s.alarm(Critical, "ask another node; to bring this one back: stop its agent, move the cluster directory in its data_dir away, "+
		"`skein cluster token` on a member, `skein cluster join` here", "%s was removed, or has not taken in yet that it joined", f.Self)
}

func (s *Status) judgeQuorum() {
	switch {
	case s.AsOf.Quorum:
	case s.Cluster.Pair != nil:
		s.because(Degraded, "the node that votes is gone: the configuration is read-only")
		s.alarm(Critical, "start it again; nobody but it can vote",
			"the node that votes is gone: addresses are served, nothing can be changed")
	case s.Cluster.Voters > 0 && s.Cluster.Alive < s.Cluster.Needed:
		s.because(Down, "no quorum: %d of %d voters alive, %d needed", s.Cluster.Alive, s.Cluster.Voters, s.Cluster.Needed)
		s.alarm(Critical, "start the missing nodes again; `skein node list` says which",
			"no quorum: nothing can be changed, and no address can move")
	default:
		s.because(Down, "no leader")
		s.alarm(Critical, "an election takes a second; if it lasts, look at the agents' logs", "no leader: nothing can be changed")
	}
}

func (s *Status) judgeVIPs(f Facts) {
	for _, v := range s.VIPs {
		holders, leaving := s.holdersOf(&v)
		explain := fmt.Sprintf("`skein vip explain %s`", v.Name)
		placed := f.Answers[v.Placed]
		switch {
		case len(holders) > 1:
			s.because(Down, "vip %q is held by %s", v.Name, strings.Join(holders, " and "))
			s.alarm(Critical, explain, "vip %q is held by more than one node", v.Name)
		case len(holders) == 1:
		case len(leaving) > 0 && s.Cluster.Pair != nil && !s.AsOf.Quorum:
			s.because(Degraded, "vip %q was taken by %s from %s", v.Name, strings.Join(leaving, " and "), v.Placed)
		case len(leaving) > 0:
			s.because(Degraded, "vip %q moves from %s to %s", v.Name, strings.Join(leaving, " and "), v.Placed)
		case v.Placed == "":
			s.because(Down, "vip %q is held by nobody: it has no place yet", v.Name)
			s.alarm(Critical, explain, "vip %q has no node to hold it", v.Name)
		case placed.Report == nil:
			s.because(Down, "vip %q was placed on %s, which does not answer", v.Name, v.Placed)
			s.alarm(Critical, explain, "it is not known whether %s holds vip %q", v.Placed, v.Name)
		default:
			s.because(Down, "vip %q is held by nobody: it is placed on %s", v.Name, v.Placed)
			s.alarm(Critical, explain, "%s does not hold vip %q", v.Placed, v.Name)
		}
	}
}

// holdersOf returns who reports that it holds v, and who still does so by an older placement: reports are not made at one instant,
// so that a node that has let go meanwhile is among the latter, and is no second holder.
func (s *Status) holdersOf(v *VIPStatus) (holders, leaving []string) {
	for _, n := range s.Nodes {
		if n.Report == nil {
			continue
		}
		for _, h := range n.Report.VIPs {
			switch {
			case h.Name != v.Name:
			case h.Epoch == v.Epoch:
				holders = append(holders, n.Name)
			default:
				leaving = append(leaving, n.Name)
			}
		}
	}
	return holders, leaving
}

func (s *Status) judgeBackends() {
	for _, b := range s.Backends {
		alive, known, admin := 0, 0, ""
		for _, srv := range b.Servers {
			switch srv.State {
			case ServerUp, ServerUnchecked, ServerPartly:
				alive, known = alive+1, known+1
			case ServerDown:
				known++
			case ServerDrain, ServerDisabled:
				known, admin = known+1, cmp.Or(admin, srv.Name)
			}
		}
		if alive > 0 || known < len(b.Servers) {
			continue
		}
		s.because(Down, "backend %q has no usable server", b.Name)
		hint := fmt.Sprintf("`skein server list %s` says what each node sees", b.Name)
		if admin != "" {
			hint = fmt.Sprintf("`skein server enable %s/%s` brings one back", b.Name, admin)
		}
		s.alarm(Critical, hint, "backend %q has no usable server: its clients get errors", b.Name)
	}
}

func (s *Status) judgeNodes() {
	for _, n := range s.Nodes {
		if n.Summary == "" {
			continue
		}
		s.because(Degraded, "%s: %s", n.Name, n.Summary)
		// What a node can tell of itself is an alarm of its own.
		if n.Drained != nil {
			s.alarm(Warning, fmt.Sprintf("`skein node enable %s` puts it back", n.Name), "%s is drained: it takes no address", n.Name)
		}
		switch {
		case n.Report == nil && n.Alive:
			s.alarm(Critical, "look at its agent's log", "%s: %s", n.Name, n.Summary)
		case n.Report == nil:
			s.alarm(Critical, fmt.Sprintf("start it again, or `skein node remove %s` if it is gone for good", n.Name),
				"%s: %s", n.Name, n.Summary)
		}
	}
}

// judgeCopies finds nodes whose copies of the state differ, which nothing repairs: they would decide on what the others do not know.
func (s *Status) judgeCopies() {
	odd, sure := oddCopies(s.Nodes)
	if len(odd) == 0 {
		return
	}
	if !sure {
		names := strings.Join(odd, " and ")
		s.because(Degraded, "the copies of the state on %s differ", names)
		s.alarm(Critical, "who joins gets the leader's copy: if that one is right, `skein node remove` the others of them on it, and join them again",
			"the copies of the state on %s differ, and no majority says which one is right", names)
		return
	}
	for _, name := range odd {
		s.because(Degraded, "%s: its copy of the state differs from the other nodes'", name)
		s.alarm(Critical, fmt.Sprintf("`skein node remove %s` on another node and join again", name),
			"%s: its copy of the state differs from the other nodes'", name)
	}
}

// oddCopies returns the nodes that are not of the same state as a majority of all that can be compared, at the index at which most can be;
// not sure: these are all, because no state has a majority. Reports are not made at one instant, so copies are compared only where they are of
// the same part of the log.
func oddCopies(nodes []NodeStatus) (odd []string, sure bool) {
	most := 0
	for _, n := range nodes {
		if n.Report == nil || n.Report.State == nil {
			continue
		}
		var there []NodeStatus
		sums := map[uint32]int{}
		for _, m := range nodes {
			if m.Report != nil && m.Report.State != nil && m.Report.State.At(n.Report.State.From) {
				there = append(there, m)
				sums[m.Report.State.Sum]++
			}
		}
		if len(sums) < 2 || len(there) <= most {
			continue
		}
		most, odd = len(there), nil
		for _, m := range there {
			if 2*sums[m.Report.State.Sum] <= len(there) {
				odd = append(odd, m.Name)
			}
		}
	}
	return odd, len(odd) < most
}

func (s *Status) judgeServers() {
	for _, b := range s.Backends {
		if len(b.Panic) > 0 {
			s.because(Degraded, "backend %q: too few servers are well, their health is ignored on %s", b.Name, strings.Join(b.Panic, " and "))
		}
		for _, srv := range b.Servers {
			var out []string
			for _, seen := range srv.Seen {
				if !seen.EjectedUntil.IsZero() {
					out = append(out, seen.Node)
				}
			}
			if len(out) > 0 {
				s.because(Degraded, "server %s/%s is ejected by traffic on %s", b.Name, srv.Name, strings.Join(out, " and "))
			}
			switch srv.State {
			case ServerDown:
				s.because(Degraded, "server %s/%s is down", b.Name, srv.Name)
			case ServerPartly:
				var no []string
				for _, seen := range srv.Seen {
					if !seen.Up {
						no = append(no, seen.Node)
					}
				}
				s.because(Degraded, "server %s/%s is down for %s", b.Name, srv.Name, strings.Join(no, " and "))
			}
		}
	}
}

func (s *Status) judgeConfig(f Facts) {
	switch {
	case f.View.ConfigError != nil:
		s.because(Degraded, "%s cannot read revision %d", f.Self, s.Revision.Number)
		s.alarm(Critical, "run the same version everywhere; `skein version` shows this one's",
			"revision %d was written for another version: %v", s.Revision.Number, f.View.ConfigError)
	case s.Revision.Number == 0:
		s.because(Degraded, "no configuration yet")
		s.alarm(Warning, "`skein apply FILE`", "no configuration was applied yet: nothing listens")
	}
}

// judgeSize warns of clusters that cannot fail over. Two voters cannot elect: one death takes the majority.
func (s *Status) judgeSize(f Facts) {
	balancers := 0
	for _, n := range f.View.Nodes {
		if n.Role != state.Witness {
			balancers++
		}
	}
	const hint = "`skein cluster token` here, then `skein cluster join` on the new host"
	switch {
	case len(f.View.Nodes) == 1:
		s.because(Degraded, "one node alone has no fail-over")
		s.alarm(Warning, hint, "one node is not enough for fail-over: join two more")
	case s.Cluster.Pair != nil:
	case len(f.View.Nodes) == 2:
		s.because(Degraded, "two nodes have no fail-over")
		s.alarm(Warning, hint+" (role = \"witness\" is enough)", "two nodes are not enough for fail-over: join a third, or make them a pair")
	case balancers == 1:
		s.because(Degraded, "one balancer alone has no fail-over")
		s.alarm(Warning, hint, "the other nodes are witnesses and hold nothing: join a second balancer")
	}
}

// collectAlarms adds what the nodes themselves raised, critical ones first.
func (s *Status) collectAlarms(f Facts) {
	for _, n := range s.Nodes {
		if n.Report == nil {
			continue
		}
		for _, a := range n.Report.Alarms {
			if a.Node == "" {
				a.Node = n.Name
			}
			if slices.Contains(s.Alarms, a) {
				continue
			}
			if a.Severity == Critical && n.Summary == "" { // else the node's trouble is a reason already
				s.because(Degraded, "%s: %s", a.Node, a.What)
			}
			s.Alarms = append(s.Alarms, a)
		}
	}
	slices.SortStableFunc(s.Alarms, func(a, b Alarm) int { return rank(a.Severity) - rank(b.Severity) })
}

func rank(s Severity) int {
	if s == Critical {
		return 0
	}
	return 1
}
