package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
)

// Facts are what a Status is made of: what is wanted, and what each node said of itself.
type Facts struct {
	Self    string
	At      time.Time
	View    *state.View
	Members []Member
	Answers map[string]Answer // by node; the own report included
}

// Answer is a node's report, or why there is none.
type Answer struct {
	Report *NodeReport
	Error  string
}

// Summarize decides what the facts mean: it is the one place that calls a cluster fine or not. It is a pure function.
func Summarize(f Facts) Status {
	s := Status{Verdict: OK, Reasons: []string{}, Alarms: []Alarm{}}
	own := f.Answers[f.Self].Report
	s.AsOf = AsOf{Node: f.Self, Index: f.View.Index, At: f.At}
	if own != nil {
		s.AsOf.Leader, s.AsOf.Quorum = own.Raft.Leader, own.Raft.Quorum
		if own.Raft.AppliedIndex > s.AsOf.Index {
			s.AsOf.Index = own.Raft.AppliedIndex
		}
	}
	s.Revision = revisionOf(f.View)
	s.Nodes = nodesOf(f, own)
	s.Cluster = clusterOf(f, s.Nodes)
	s.Cluster.Pair = pairOf(f, own)
	s.VIPs = vipsOf(f, s.Nodes)
	s.Backends = backendsOf(f)
	s.Certificates = certificatesOf(f.View, f.At)
	s.judge(f)
	return s
}

func revisionOf(v *state.View) Revision {
	r := Revision{Number: v.Revision.Number, Message: v.Revision.Message, Author: v.Revision.Author, At: v.Revision.At}
	if v.ConfigError != nil {
		r.Error = v.ConfigError.Error()
	}
	return r
}

func nodesOf(f Facts, own *NodeReport) []NodeStatus {
	members := map[string]Member{}
	for _, m := range f.Members {
		members[m.Name] = m
	}
	out := []NodeStatus{}
	for _, n := range f.View.Nodes {
		m, a := members[n.Name], f.Answers[n.Name]
		ns := NodeStatus{
			Name: n.Name, Address: n.Advertise.String(), Role: string(n.Role),
			Voter: m.Voter, Alive: m.Alive || a.Report != nil,
			Reachable: a.Report != nil, Report: a.Report, Error: a.Error, Holds: []string{},
		}
		if own != nil && own.Raft.Leader == n.Name {
			ns.Leader = true
		}
		if a.Report != nil {
			for _, v := range a.Report.VIPs {
				ns.Holds = append(ns.Holds, v.Name)
			}
			slices.Sort(ns.Holds)
		}
		if d, ok := f.View.Drained[n.Name]; ok {
			ns.Drained = &Drained{By: d.By, At: d.At, DrainSeconds: d.Drain.Seconds()}
		}
		ns.Summary = nodeTrouble(&ns, f.View.Revision.Number)
		out = append(out, ns)
	}
	return out
}

// nodeTrouble says in words what is wrong with a node, or "" when nothing is.
func nodeTrouble(n *NodeStatus, committed uint64) string {
	r := n.Report
	switch {
	case r == nil && !n.Alive:
		return "does not answer and is not heard by the others"
	case r == nil:
		return "its API cannot be asked: " + cmp.Or(n.Error, "no answer")
	}
	var t []string
	if n.Drained != nil {
		t = append(t, "drained"+cmp.Or(by(n.Drained.By), " by an operator"))
	}
	if !r.Disk.OK {
		t = append(t, "disk failed: "+cmp.Or(r.Disk.Error, "unknown error"))
	}
	if r.Outdated != "" {
		t = append(t, "its version is too old for the log")
	}
	if r.Raft.State == "stopped" {
		t = append(t, "has left the log's quorum")
	}
	switch {
	case r.Revision.Error != "":
		t = append(t, fmt.Sprintf("runs revision %d, refused %d: %s", r.Revision.Running, r.Revision.Committed, r.Revision.Error))
	case r.Revision.Running < committed:
		t = append(t, fmt.Sprintf("still runs revision %d of %d", r.Revision.Running, committed))
	}
	switch {
	case !r.Guard.Running:
		t = append(t, "its guard does not run: it cannot hold an address")
	case r.Outdated != "":
	case !r.Guard.Fit && n.Role != string(state.Witness) && committed > 0: // without a configuration nothing can be fit
		t = append(t, "unfit to hold an address: "+cmp.Or(r.Guard.FitReason, "no reason given"))
	}
	return strings.Join(t, "; ")
}

func by(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}

func clusterOf(f Facts, nodes []NodeStatus) ClusterStatus {
	c := ClusterStatus{ID: f.View.Cluster.ID, Level: f.View.Level()}
	for _, n := range nodes {
		if !n.Voter {
			continue
		}
		c.Voters++
		if n.Alive {
			c.Alive++
		}
	}
	if c.Voters > 0 {
		c.Needed = c.Voters/2 + 1
	}
	return c
}

func vipsOf(f Facts, nodes []NodeStatus) []VIPStatus {
	out := []VIPStatus{}
	if f.View.Config == nil {
		return out
	}
	for _, v := range f.View.Config.VIPs {
		vs := VIPStatus{
			Name: v.Name, Prefer: v.Prefer, Failback: v.Failback.Seconds(), Group: v.Group, MinUsable: v.MinimumServers, RouterID: int(v.RouterID),
			Addresses: []string{}, Frontends: []string{},
		}
		for _, a := range v.Addresses {
			vs.Addresses = append(vs.Addresses, a.String())
		}
		if p, ok := f.View.Placements[v.Name]; ok {
			vs.Placed, vs.Epoch = p.Node, p.Epoch.String()
		}
		for _, name := range state.Unit(f.View, v.Name) { // as Placements sees it
			vs.Asked = vs.Asked || f.View.Placements[name].Asked
		}
		for _, n := range nodes {
			if n.Report == nil {
				continue
			}
			for _, p := range n.Report.Parked {
				if p.Name == v.Name && p.Planned {
					vs.Draining = append(vs.Draining, Draining{Node: n.Name, Connections: p.Connections, ForMs: p.ForMs, LeftMs: p.LeftMs})
				}
			}
			for _, h := range n.Report.VIPs {
				// While an address moves two reports may overlap, because they were not made at one instant. The placed node counts.
				if h.Name == v.Name && (vs.Holder == "" || n.Name == vs.Placed) {
					vs.Holder, vs.Since, vs.Interface, vs.VRRP = n.Name, h.Since, h.Interface, h.VRRP
				}
			}
		}
		vs.Returns = returnOf(nodes, v.Name)
		for _, fe := range f.View.Config.Frontends {
			if slices.Contains(fe.VIPs, v.Name) {
				vs.Frontends = append(vs.Frontends, fe.Name)
			}
		}
		out = append(out, vs)
	}
	return out
}

// returnOf is where the leader will move a VIP back, nil when it will not, or cannot be asked.
func returnOf(nodes []NodeStatus, vip string) *Return {
	for _, n := range nodes {
		if n.Report == nil || !n.Leader {
			continue
		}
		for _, r := range n.Report.Returns {
			if r.VIP == vip {
				return &r
			}
		}
	}
	return nil
}

func backendsOf(f Facts) []BackendStatus {
	out := []BackendStatus{}
	if f.View.Config == nil {
		return out
	}
	for _, b := range f.View.Config.Backends {
		bs := BackendStatus{
			Name: b.Name, Balance: b.Balance.String(), Sticky: stickyWords(b), Check: checkWords(b.Check),
			Servers: []ServerStatus{}, UsedBy: usedBy(f.View.Config, b.Name), Panic: panicking(f, b.Name),
		}
		for _, srv := range b.Servers {
			ss := serverOf(f, b, srv)
			if ss.State == ServerUp || ss.State == ServerUnchecked {
				bs.Usable++
			}
			bs.Servers = append(bs.Servers, ss)
		}
		out = append(out, bs)
	}
	return out
}

// panicking lists the nodes that ignore the health of a backend's servers.
func panicking(f Facts, backend string) (nodes []string) {
	for _, n := range f.View.Nodes {
		r := f.Answers[n.Name].Report
		if r != nil && slices.ContainsFunc(r.Backends, func(b BackendReport) bool { return b.Backend == backend && b.Panic }) {
			nodes = append(nodes, n.Name)
		}
	}
	return nodes
}

func stickyWords(b *config.Backend) string {
	switch {
	case b.StickyCookie != nil:
		return "cookie " + b.StickyCookie.Name
	case b.StickyTable != nil:
		return strings.TrimSpace("table " + b.StickyTable.Key.Source + " " + b.StickyTable.Key.Name)
	}
	return ""
}

func checkWords(c *config.Check) string {
	if c == nil {
		return ""
	}
	s := c.Kind.String()
	if c.Kind == config.CheckHTTP {
		s += " " + c.Path
	}
	return s + " every " + c.Interval.String()
}

func usedBy(c *config.Config, backend string) []string {
	names := map[string]bool{}
	for _, fe := range c.Frontends {
		if fe.Backend == backend {
			names[fe.Name] = true
		}
		for _, r := range fe.Routes {
			if r.Backend == backend {
				names[fe.Name] = true
			}
		}
	}
	if len(names) == 0 {
		return []string{}
	}
	return slices.Sorted(maps.Keys(names))
}

func serverOf(f Facts, b *config.Backend, srv *config.Server) ServerStatus {
	admin := f.View.Admin(b.Name, srv.Name)
	ss := ServerStatus{
		Backend: b.Name, Name: srv.Name, Address: srv.Address.String(),
		Weight: srv.Weight, FileWeight: srv.Weight, Backup: srv.Backup, MaxConnections: srv.MaxConnections,
		Admin: string(admin.State), AdminBy: admin.By, AdminAt: admin.At, Seen: []Seen{},
	}
	if admin.Weight >= 0 {
		ss.Weight, ss.WeightSet = admin.Weight, true
	}
	up, checked := 0, false
	for _, n := range f.View.Nodes { // in their order, so that the document is stable
		r := f.Answers[n.Name].Report
		if r == nil || n.Role == state.Witness {
			continue
		}
		for _, sr := range r.Servers {
			if sr.Backend != b.Name || sr.Server != srv.Name {
				continue
			}
			ss.Seen = append(ss.Seen, Seen{
				Node: n.Name, Up: sr.Up, Why: sr.Why, Since: sr.Since, EjectedUntil: sr.EjectedUntil, RampPercent: sr.RampPercent,
			})
			ss.Active += sr.Active
			ss.Requests += sr.Requests
			ss.Failures += sr.Failures
			ss.Pace = ss.Pace.With(sr.Pace)
			checked = checked || sr.Checked
			if sr.Up {
				up++
			}
		}
	}
	switch {
	case admin.State == state.Drain:
		ss.State = ServerDrain
	case admin.State == state.Disabled:
		ss.State = ServerDisabled
	case len(ss.Seen) == 0:
		ss.State = ServerUnknown
	case up == 0:
		ss.State = ServerDown
	case up < len(ss.Seen):
		ss.State = ServerPartly
	case !checked:
		ss.State = ServerUnchecked
	default:
		ss.State = ServerUp
	}
	return ss
}
