package state

import (
	"cmp"
	"net/netip"
	"slices"
)

// Member is a member of Raft's own configuration.
type Member struct {
	Name  string
	Addr  netip.AddrPort
	Voter bool
	Ready bool // it is alive and its log has caught up, so that it could vote at once
}

// ChangeKind is what to do with a member.
type ChangeKind uint8

const (
	AddNonvoter ChangeKind = iota + 1 // also when its address changed
	AddVoter                          // promotes; also when a voter's address changed
	Demote
	RemoveMember
)

func (k ChangeKind) String() string {
	switch k {
	case AddNonvoter:
		return "add non-voter"
	case AddVoter:
		return "add voter"
	case Demote:
		return "demote"
	case RemoveMember:
		return "remove"
	}
	return "unknown"
}

// Change is one change of Raft's configuration.
type Change struct {
	Kind ChangeKind
	Name string
	Addr netip.AddrPort // of AddNonvoter and AddVoter
}

// Voters returns the one change that brings Raft's configuration nearer to nodes, as leader sees it; ok is false when there is
// none to make now. The next is asked for when this one is done and the guards of all holders know it.
//
// One node votes. Of two, one does: two voters stop when either dies, one only when it dies itself. Of three and more all do,
// witnesses too; they are promoted only when at least three could vote at once, so that the step over two voters never waits
// for one that does not answer. Members that are no longer nodes go first, the leader itself last.
func Voters(nodes []Node, now []Member, leader string) (c Change, ok bool) {
	now = slices.SortedFunc(slices.Values(now), func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	member := func(name string) *Member {
		if i := slices.IndexFunc(now, func(m Member) bool { return m.Name == name }); i >= 0 {
			return &now[i]
		}
		return nil
	}
	node := func(name string) *Node {
		if i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name }); i >= 0 {
			return &nodes[i]
		}
		return nil
	}
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })

	voters, ready := 0, 0
	for _, m := range now {
		if m.Voter {
			voters++
		} else if m.Ready && node(m.Name) != nil {
			ready++
		}
	}
	for _, m := range now {
		if node(m.Name) == nil && m.Name != leader {
			return Change{Kind: RemoveMember, Name: m.Name}, true
		}
	}
	for _, n := range nodes {
		switch m := member(n.Name); {
		case m == nil:
			return Change{Kind: AddNonvoter, Name: n.Name, Addr: n.Advertise}, true
		case m.Addr != n.Advertise && m.Voter:
			return Change{Kind: AddVoter, Name: n.Name, Addr: n.Advertise}, true
		case m.Addr != n.Advertise:
			return Change{Kind: AddNonvoter, Name: n.Name, Addr: n.Advertise}, true
		}
	}
	if len(nodes) >= 3 && voters+ready >= 3 {
		for _, m := range now {
			if !m.Voter && m.Ready && node(m.Name) != nil {
				return Change{Kind: AddVoter, Name: m.Name, Addr: m.Addr}, true
			}
		}
	}
	if len(nodes) == 2 && voters == 2 && node(leader) != nil {
		for _, m := range now {
			if m.Voter && m.Name != leader {
				return Change{Kind: Demote, Name: m.Name}, true
			}
		}
	}
	if node(leader) == nil && member(leader) != nil && voters > 1 {
		return Change{Kind: RemoveMember, Name: leader}, true
	}
	return Change{}, false
}
