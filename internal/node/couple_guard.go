package node

import (
	"context"
	"net/netip"
	"reflect"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// coupleGuard: members, voters, keys, VIPs and placements -> the guard. It hears of a placement as soon as it is applied here, and
// claims it if it is in this node's name. Before that this node gets ready to hand on what is not its own.
func (n *Node) coupleGuard(ctx context.Context) {
	var told *state.View
	var toldVoters cluster.VoterSet
	for {
		view, viewed := n.machine.Views().Watch()
		voters, voted := n.cluster.Voters().Watch()
		seen, saw := n.guard.State().Watch()
		n.handOver(view, seen)
		if view.Founded() && len(voters.Names) > 0 && (view != told || !reflect.DeepEqual(voters, toldVoters)) {
			told, toldVoters = view, voters
			if err := n.guard.Update(setup(n.conf, view, voters)); err != nil {
				n.log.Error("guard not told", "why", err)
			}
		}
		select {
		case <-viewed:
		case <-voted:
		case <-saw:
		case <-ctx.Done():
			return
		}
	}
}

// heartbeats is where the guard of the node at addr listens: UDP, one above the node's port.
func heartbeats(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
}

// furtherLinks is where the guard of a node listens beside that: on the same port.
func furtherLinks(addrs []netip.Addr, port uint16) []netip.AddrPort {
	var also []netip.AddrPort
	for _, a := range addrs[:min(len(addrs), vip.MaxLinks-1)] {
		also = append(also, heartbeats(netip.AddrPortFrom(a, port)))
	}
	return also
}

// setup is what the guard of the node self is told of a view.
func setup(self *config.Node, v *state.View, voters cluster.VoterSet) vip.Setup {
	s := vip.Setup{
		Self: self.Name, ClusterID: v.Cluster.ID, Keys: v.Keys.Heartbeat[:min(len(v.Keys.Heartbeat), vip.MaxKeys)],
		Listen:    heartbeats(netip.AddrPortFrom(self.Advertise, self.Port)),
		SelfVoter: voters.Has(self.Name), Witness: self.Role == config.Witness,
		VotersIndex: voters.Index, Applied: v.Index,
		Also: furtherLinks(self.Heartbeat, self.Port),
		Pair: pairOf(self, v), Generation: v.Cluster.Generation,
	}
	for _, f := range v.Former[max(0, len(v.Former)-vip.MaxFormer):] {
		s.Former = append(s.Former, vip.Former{
			Name: f.Name, Addr: heartbeats(f.Advertise), Also: furtherLinks(f.Heartbeat, f.Advertise.Port()), Keys: f.Keys[:min(len(f.Keys), vip.MaxKeys)],
		})
	}
	for _, m := range v.Nodes {
		if m.Name == self.Name {
			continue
		}
		s.Peers = append(s.Peers, vip.Peer{
			Name: m.Name, Addr: heartbeats(m.Advertise), Voter: voters.Has(m.Name), Witness: m.Role == state.Witness,
			Also: furtherLinks(m.Heartbeat, m.Advertise.Port()),
		})
	}
	if v.Config == nil {
		return s
	}
	for _, c := range v.Config.VIPs {
		iface := c.Interface
		if iface == "" {
			iface = self.Interface
		}
		told := vip.VIP{Name: c.Name, Addresses: c.Addresses, Interface: iface, RouterID: uint8(c.RouterID)}
		if r := c.VRRP; r != nil {
			told.VRRP = &vip.VRRP{ID: r.RouterID, Version: r.Version, Priority: r.Priority, Interval: r.Interval, Preempt: r.Preempt}
		}
		s.VIPs = append(s.VIPs, told)
		if p, ok := v.Placements[c.Name]; ok {
			s.Placements = append(s.Placements, vip.Placement{
				VIP: p.VIP, Node: p.Node, Epoch: vip.Epoch(p.Epoch), Drain: p.Drain, First: p.First && c.VRRP == nil, // in a group somebody may well have the address, by right
			})
		}
	}
	return s
}

// coupleFitness: this node may hold addresses once its engine runs a configuration and while its log works -> the guard.
func (n *Node) coupleFitness(ctx context.Context) {
	for {
		running, ran := n.running.Watch()
		disk, broke := n.cluster.Disk().Watch()
		_, outdated := n.cluster.Outdated().Watch()
		n.tellFit(running, disk)
		select {
		case <-ran:
		case <-broke:
		case <-outdated:
		case <-ctx.Done():
			return
		}
	}
}

// tellFit judges and tells as one step: what was found before the node began to stop must not be told after that.
func (n *Node) tellFit(running api.Running, disk error) {
	n.judging.Lock()
	defer n.judging.Unlock()
	n.guard.SetFit(n.fit(running, disk))
}

// letGo has the guard let go of everything, and take nothing any more.
func (n *Node) letGo() {
	n.draining.Store(true)
	n.tellFit(api.Running{}, nil)
}

func (n *Node) fit(running api.Running, disk error) (ok bool, why string) {
	switch {
	case n.conf.Role == config.Witness:
		return false, "a witness holds no addresses"
	case n.draining.Load():
		return false, "the agent is stopping"
	case disk != nil:
		return false, disk.Error()
	case n.outdated() != nil:
		return false, n.outdated().Error()
	case running.Revision == 0 && running.Error != "":
		return false, running.Error
	case running.Revision == 0:
		return false, "no configuration runs yet"
	}
	return true, ""
}

// confirmed reports whether every guard that holds or claims an address knows the set of voters of that log index: only then may
// the set change again. A node without a guard cannot know, unless there is nothing to hold.
func (n *Node) confirmed(index uint64) bool {
	s := n.guard.State().Get()
	if !s.Connected {
		return len(n.machine.Views().Get().Placements) == 0
	}
	return s.Confirmed >= index || len(s.Peers) == 0
}

// grants reports whether the guard of another node would grant addresses now, as far as ours has heard.
func (n *Node) grants(name string) bool {
	s := n.guard.State().Get()
	p, known := s.Peers[name]
	return !s.Connected || known && p.Alive && !p.Silent
}

// heard reports whether the agent of another node runs, as far as our guard has heard.
func (n *Node) heard(name string) bool {
	s := n.guard.State().Get()
	p, known := s.Peers[name]
	return !s.Connected || known && p.Alive && p.AgentAlive
}

// explain says why this node holds the VIP or does not.
func (n *Node) explain(name string) []string {
	s := n.guard.State().Get()
	if !s.Connected {
		return []string{"no guard: " + s.Problem}
	}
	if lines := s.Explain[name]; len(lines) > 0 {
		return lines
	}
	return []string{"the guard has not been told of this vip yet"}
}
