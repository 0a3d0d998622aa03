package node

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/sticky"
	"github.com/skeinlb/skein/vip"
)

// report is what this node observes, for `skein status` on any node. It never waits.
func (n *Node) report() api.NodeReport {
	view, guard, running := n.machine.Views().Get(), n.guard.State().Get(), n.running.Get()
	disk := n.cluster.Disk().Get()
	fit, why := n.fit(running, disk)
	if fit && guard.Connected && !guard.Fit { // the agent thinks well of itself; a loop of it hangs, say
		fit, why = false, guard.Unfit
	}
	r := api.NodeReport{
		Name: n.conf.Name, Version: n.version, Role: n.conf.Role.String(), At: time.Now(), StartedAt: n.started,
		PID: os.Getpid(), Program: n.onDisk.Get(), Level: n.level,
		Revision: api.RevisionReport{Committed: view.Revision.Number, Running: running.Revision, Error: running.Error},
		Raft:     n.reportRaft(), State: n.reportState(),
		Disk: api.DiskReport{OK: disk == nil, FsyncMs: millis(n.cluster.Stats().Write.Max)},
		Guard: api.GuardReport{
			Running: guard.Connected, Version: guard.Version, Profile: guard.Profile, ProfileWhy: guard.ProfileWhy, Dropped: guard.Dropped, RealTime: guard.RealTime, Gate: guard.Gate,
			LatenessMs: millis(guard.Lateness), Fit: fit, FitReason: why,
			Pair: reportPair(guard.Pair),
		},
		Tables:   reportTables(n.machine.Tables()),
		Parked:   n.reportParked(guard),
		Flapping: slices.Sorted(maps.Keys(n.flapping.Get())),
	}
	for _, b := range n.returns.Get() {
		r.Returns = append(r.Returns, api.Return{VIP: b.vip, Node: b.node, InMs: max(time.Until(b.at).Milliseconds(), 0)})
	}
	if disk != nil {
		r.Disk.Error = disk.Error()
	}
	if err := n.outdated(); err != nil {
		r.Outdated = err.Error()
	}
	for name, h := range guard.Held {
		held := api.HeldVIP{Name: name, Epoch: h.Epoch.String(), Since: h.Since, LeaseLeftMs: h.LeaseLeft.Milliseconds()}
		if g, in := guard.Routers[name]; in {
			held.VRRP = &api.VRRP{RouterID: g.ID, State: g.State, Active: g.Active, Why: g.Why}
		}
		if view.Config != nil {
			if v := view.Config.VIP(name); v != nil {
				for _, a := range v.Addresses {
					held.Addresses = append(held.Addresses, a.Addr().String())
				}
				held.Interface = v.Interface
			}
		}
		r.VIPs = append(r.VIPs, held)
	}
	reaches := n.cluster.Reaches().Get()
	for name, p := range guard.Peers {
		said := api.PeerReport{
			Name: name, Alive: p.Alive, Fit: p.Fit, AgeMs: p.Age.Milliseconds(), Connections: n.peerFlows.count(name), RTTUs: p.RTT.Microseconds(), Links: reportLinks(p.Links),
		}
		if way, tried := reaches[name]; tried {
			if said.Reached = &way.OK; !way.OK {
				said.ReachError = way.Err.Error()
			}
		}
		r.Peers = append(r.Peers, said)
	}
	for _, name := range slices.Sorted(maps.Keys(guard.Unable)) {
		r.Guard.Unable = append(r.Guard.Unable, api.UnableVIP{Name: name, Why: guard.Unable[name]})
	}
	if n.engine != nil {
		n.reportTraffic(&r, view)
		r.Short = short(view.Config, n.checker.Verdicts().Get())
	}
	r.Alarms = n.alarms(view, guard, running, disk)
	return r
}

func (n *Node) reportRaft() api.RaftReport {
	s, lead := n.cluster.Stats(), n.cluster.Leadership().Get()
	r := api.RaftReport{
		State: s.State, Leader: lead.Leader, Quorum: lead.Leader != "", Term: s.Term, LastIndex: s.Last, CommitIndex: s.Commit,
		AppliedIndex: s.Applied, SnapshotIndex: s.SnapshotIndex, LastContactMs: s.LastContact.Milliseconds(),
	}
	for _, m := range n.cluster.Members().Get() {
		if m.Voter {
			r.Voters = append(r.Voters, m.Name)
		} else {
			r.NonVoters = append(r.NonVoters, m.Name)
		}
		if m.Name == n.conf.Name {
			r.Voter = m.Voter
		}
	}
	return r
}

// summed is the checksum of a view.
type summed struct {
	view *state.View
	sum  uint32
}

// reportState is of the newest view, nil before there is one. What was applied is read first: a view that is older than that was still in force
// then. The sum is made anew only for another view, and only when somebody asks.
func (n *Node) reportState() *api.StateReport {
	applied, v := n.cluster.AppliedIndex(), n.machine.Views().Get()
	if !v.Founded() {
		return nil
	}
	s := n.summed.Load()
	if s == nil || s.view != v {
		s = &summed{v, v.Sum()}
		n.summed.Store(s)
	}
	return &api.StateReport{From: v.Index, To: max(v.Index, applied), Sum: s.sum}
}

// reportTraffic adds what the engine has counted and what the checks see.
func (n *Node) reportTraffic(r *api.NodeReport, view *state.View) {
	stats, verdicts := n.engine.Stats(), n.checker.Verdicts().Get()
	checked := map[string]bool{}
	listeners := map[string][]string{}
	if c := view.Config; c != nil {
		for _, b := range c.Backends {
			checked[b.Name] = b.Check != nil
		}
		for _, f := range c.Frontends {
			for _, l := range c.Listeners(f) {
				listeners[f.Name] = append(listeners[f.Name], l.Addr.String())
			}
		}
	}
	var pace paces
	if before, elapsed, ok := n.pace.since(time.Now()); ok {
		pace = pacesOf(before, stats, elapsed)
	}
	for _, f := range stats.Frontends {
		r.Frontends = append(r.Frontends, api.FrontendReport{
			Name: f.Name, Mode: f.Mode.String(), Listeners: listeners[f.Name], Active: f.Open(), Connections: f.Connections,
			Requests: f.Requests, BytesIn: f.BytesIn, BytesOut: f.BytesOut, Handshakes: f.Handshakes, Resumed: f.Resumed, Errors: failures(f.Totals),
			Pace: pace.frontends[f.Name],
		})
	}
	for _, b := range stats.Backends {
		r.Backends = append(r.Backends, api.BackendReport{
			Backend: b.Name, Usable: b.Usable, Panic: b.Panic, Waiting: b.Waiting, Panicked: b.Balance.Panicked, Queued: b.Balance.Queued,
			Redispatched: b.Balance.Redispatched, Repeated: b.Balance.Repeated, OverBudget: b.Balance.OverBudget, Ejected: b.Balance.Ejected, Pace: pace.backends[b.Name],
		})
		for _, s := range b.Servers {
			v, seen := verdicts[healthcheck.Key{Backend: b.Name, Server: s.Name}]
			if !seen {
				v.Up = true // as the engine takes it, until a probe has said something
			}
			sr := api.ServerReport{
				Backend: b.Name, Server: s.Name, Checked: checked[b.Name], Up: v.Up, Since: v.Since, Why: v.Why, LatencyMs: millis(v.LastLatency),
				Active: s.Active, Requests: s.Requests, EjectedUntil: s.EjectedUntil, Ejections: s.Ejections, Pace: pace.servers[[2]string{b.Name, s.Name}],
			}
			if s.Ramp < 100 {
				sr.RampPercent = s.Ramp
			}
			for _, f := range s.Failures {
				sr.Failures += f
			}
			r.Servers = append(r.Servers, sr)
		}
	}
}

// failures are the counters of what went wrong that are not zero, by name.
func failures(t plan.Totals) map[string]uint64 {
	m := map[string]uint64{}
	for i, c := range t.Failures {
		if c > 0 && engine.Failure(i) != plan.None {
			m[engine.Failure(i).String()] = c
		}
	}
	return m
}

func reportTables(tables *sticky.Tables) []api.TableReport {
	var ts []api.TableReport
	for _, t := range tables.Stats() {
		ts = append(ts, api.TableReport{
			Backend: t.Name, Entries: uint64(t.Entries), Size: uint64(t.Size), Pending: uint64(t.Pending), Learned: t.Learned, Dropped: t.Dropped,
			Expired: t.Expired, Hits: t.Hits, Misses: t.Misses,
		})
	}
	return ts
}

// alarms are what needs a human on this node, with the next command to type.
func (n *Node) alarms(view *state.View, guard vip.State, running api.Running, disk error) []api.Alarm {
	var as []api.Alarm
	add := func(s api.Severity, hint, format string, args ...any) {
		as = append(as, api.Alarm{Severity: s, Node: n.conf.Name, What: fmt.Sprintf(format, args...), Hint: hint})
	}
	if disk != nil {
		add(api.Critical, "mend the disk, then restart the agent; if the data is lost: `skein node remove "+n.conf.Name+
			"` on another node and join again", "the disk failed, and this node acknowledges nothing any more: %v", disk)
	}
	as = append(as, slowDiskAlarms(n.conf.Name, time.Now(), n.cluster.Stats().Write.Slow)...)
	if s := guard.Superseded; s != nil {
		add(api.Critical, leftBehindHint(s.By, clusterDir(n.conf)), "left behind: %s says that the cluster was recovered without this node (generation %d, here %d)",
			s.By, s.Generation, view.Cluster.Generation)
	}
	if err := n.outdated(); err != nil {
		add(api.Critical, "put a newer version there, then `skein node upgrade "+n.conf.Name+"`; nothing is lost", "this version is too old for the log and has stopped applying it: %v", err)
	}
	if f := n.onDisk.Get().Failed; f != nil {
		add(api.Warning, "mend the cause, then `skein node upgrade "+n.conf.Name+"`", "the upgrade to %s failed, and %s went on: %s", f.Version, n.version, f.Why)
	}
	if running.Error != "" {
		add(api.Critical, "mend the cause, then `skein show > FILE; skein apply FILE` makes this node try again",
			"revision %d is not in force here: %s", running.Tried, running.Error)
	}
	if n.engine != nil {
		if log := n.engine.Stats().Log; log.Problem != "" {
			add(api.Warning, "mend the cause: it is tried again every second", "the access log is not written: %s; %d lines are lost", log.Problem, log.Dropped)
		}
	}
	for _, err := range n.unusableCertificates() {
		add(api.Critical, "if this node joined before the cluster had a sealing key: `skein node remove "+n.conf.Name+"` on another node and join again; else import the certificate again",
			"%v", err)
	}
	if !guard.Connected {
		add(api.Critical, "see guard.log in the data directory", "no guard: this node can hold no address: %s", guard.Problem)
	} else if n.conf.Role == config.Balancer && len(view.Scope.VIPs) > 0 && guard.Gate != "" && guard.Gate != "nftables" {
		add(api.Warning, "load nf_tables on this host", "a stopped guard's address would be answered for until its lifetime ends: %s", guard.Gate)
	}
	if a := n.lacks.Get(); a.IsValid() {
		add(api.Warning, "give this host the address, or mend advertise in node.hcl; the node waits for it",
			"no other node reaches this one: %v (advertise) is not an address of this host", a)
	}
	as = append(as, n.linkAlarms(guard)...)
	as = append(as, n.reachAlarms(time.Now(), n.cluster.Reaches().Get())...)
	for _, name := range slices.Sorted(maps.Keys(guard.Routers)) {
		r := guard.Routers[name]
		if _, here := guard.Held[name]; !here || r.State == "active" {
			continue
		}
		hint := "`skein vip explain " + name + "` says more"
		if r.Active != "" {
			hint += "; the address comes here when that router stops"
		}
		add(api.Warning, hint, "vip %s is not on this node's link: %v", name, r)
	}
	if why := n.handing.Get(); why != "" && len(view.Scope.VIPs) > 0 {
		add(api.Warning, "load nf_tables and its netdev family on this host, then restart the agent",
			"established connections do not survive when an address moves here: %s", why)
	}
	for _, c := range guard.Conflicts {
		if c.Stranger {
			add(api.Critical, "find that machine and take the address from it", "a stranger claims an address: %v", c)
		}
	}
	if n.cluster.Leadership().Get().Self {
		flapping := n.flapping.Get()
		for _, name := range slices.Sorted(maps.Keys(flapping)) {
			add(api.Warning, "see its agent's and its guard's log: what keeps taking it away?", "%s was lost %d times within %v: it gets addresses only when no other node can, until %s",
				name, flapLosses, flapWindow, flapping[name].Format(time.TimeOnly))
		}
	}
	return as
}

// slowDiskFor is for how long a slow write is worth an alarm.
const slowDiskFor = 10 * time.Minute

// slowDiskAlarms are about a disk that would hold up a fail-over, or just has.
func slowDiskAlarms(node string, now time.Time, slow cluster.SlowWrite) []api.Alarm {
	if slow.Took == 0 || now.Sub(slow.At) >= slowDiskFor {
		return nil
	}
	return []api.Alarm{{
		Severity: api.Warning, Node: node,
		What: fmt.Sprintf("a write to the log took %v, %v ago: an address that moves waits for three to five of them", slow.Took.Round(time.Millisecond), now.Sub(slow.At).Round(time.Second)),
		Hint: "what else writes to that disk? Give data_dir a quiet one",
	}}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
